"""Ranges that come one by one: an extended Kalman filter that takes each as it comes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped

from cfpos_envs.checks import number
from cfpos_envs.files.windows import gathered
from cfpos_envs.measurements.base import PositionEstimate, Reason

from ..direct import RANGES_POLICY, locate_ranges

ACCELERATION_M_S2 = 1.0
"""Of people who walk, and of vehicles among them."""
START_S = 1.0
"""The first fix is made of the links of so many seconds."""
_SPEED_M_S = 2.0
_FARTHEST = 3.0
"""A range that is off by more standard deviations than this is believed as far as this."""


def follow_ranges(
    ap_positions_m: Float[np.ndarray, "M D"],
    ap: Int[np.ndarray, " L"],
    range_m: Float[np.ndarray, " L"],
    std_m: Float[np.ndarray, " L"],
    time_s: Float[np.ndarray, " L"],
    *,
    user: Shaped[np.ndarray, " L"] | None = None,
    acceleration_m_s2: float = ACCELERATION_M_S2,
    start_s: float = START_S,
    policy: str = RANGES_POLICY,
    **known: Any,
) -> PositionEstimate:
    """Where every user is after each of its links.

    Constant velocity with white acceleration: state (p, v), and over dt each axis gains the covariance
    q [[dt^3/3, dt^2/2], [dt^2/2, dt]], q = a^2 * 1 s (Bar-Shalom, Li and Kirubarajan, Estimation with Applications to
    Tracking and Navigation, 2001, (6.2.2-12)). A range r to the AP at q with height difference h is predicted by
    sqrt(|p - q|^2 + h^2) and updates the state alone, at its own time; where the innovation is farther than three
    standard deviations its variance is raised until it is three.

    Args:
        ap_positions_m: [M, 2], or [M, 3] with ``user_height_m``.
        ap: row of ``ap_positions_m`` that each link belongs to.
        range_m, std_m: metres, > 0.
        time_s: in any order.
        user: whose links they are; None: one user's. Users share nothing.
        acceleration_m_s2: typical acceleration over a second, > 0.
        start_s: the first fix is by ``policy`` of the links within so many seconds; before it nothing is valid.
        policy, known: as in ``locate_ranges``.

    Returns:
        Positions [L, 2] in the frame of the APs, with covariance, in the order of the links.

    Raises:
        ValueError: arrays of other lengths, numbers that cannot be, no user with a first fix.
    """
    number("acceleration_m_s2", acceleration_m_s2, 0.0, above=True)
    number("start_s", start_s, 0.0, above=True)
    for name, values in {"range_m": range_m, "std_m": std_m}.items():
        if values.shape != ap.shape or not (values > 0).all():
            raise ValueError(f"{name} must be [{len(ap)} links] and positive; leave other links out")
    owners = np.zeros(len(ap), dtype=np.int64) if user is None else np.unique(user, return_inverse=True)[1].ravel()
    places, drop = _plane(ap_positions_m, known)
    position, covariance = np.zeros((len(ap), 2)), np.tile(np.eye(2), (len(ap), 1, 1))
    valid = np.zeros(len(ap), dtype=bool)
    for owner in range(owners.max() + 1):
        rows = np.flatnonzero(owners == owner)
        rows = rows[np.argsort(time_s[rows], kind="stable")]
        own = (ap[rows], range_m[rows], std_m[rows], time_s[rows])
        first = _first_fix(ap_positions_m, *own, start_s, policy, known)
        if first is None:
            continue
        begin, place, spread = first
        track = _Track(place, spread, acceleration_m_s2**2, own[3][begin])
        position[rows] = place
        for row, link in zip(rows[begin:], range(begin, len(rows))):
            which = own[0][link]
            track.take(places[which], drop[which], own[1][link], own[2][link], own[3][link])
            position[row], covariance[row], valid[row] = track.state[:2], track.covariance[:2, :2], True
    return PositionEstimate(
        torch.from_numpy(position),
        torch.from_numpy(covariance),
        torch.from_numpy(valid),
        torch.where(torch.from_numpy(valid), int(Reason.VALID), int(Reason.TOO_FEW_LINKS)).to(torch.int8),
    )


class _Track:
    """State (x, y, vx, vy) of one user at its last link."""

    def __init__(self, place_m: np.ndarray, covariance_m2: np.ndarray, density: float, time_s: float) -> None:
        self.state = np.concatenate((place_m, np.zeros(2)))
        self.covariance = np.zeros((4, 4))
        self.covariance[:2, :2], self.covariance[2:, 2:] = covariance_m2, _SPEED_M_S**2 * np.eye(2)
        self._density, self._time_s = density, time_s

    def take(self, ap_m: np.ndarray, drop_m: float, range_m: float, std_m: float, time_s: float) -> None:
        """One range at its time."""
        after = time_s - self._time_s
        self._time_s = time_s
        move = np.eye(4)
        move[0, 2] = move[1, 3] = after
        gained = self._density * np.array([[after**3 / 3, after**2 / 2], [after**2 / 2, after]])
        self.state = move @ self.state
        self.covariance = move @ self.covariance @ move.T + np.kron(gained, np.eye(2))
        away = self.state[:2] - ap_m
        slant = max(float(np.sqrt(away @ away + drop_m**2)), 1e-9)
        unit = np.concatenate((away / slant, np.zeros(2)))
        innovation = range_m - slant
        spread = float(unit @ self.covariance @ unit) + std_m**2
        spread = max(spread, (innovation / _FARTHEST) ** 2)
        gain = self.covariance @ unit / spread
        self.state = self.state + gain * innovation
        self.covariance = self.covariance - np.outer(gain, gain) * spread
        self.covariance = (self.covariance + self.covariance.T) / 2


def _first_fix(
    aps_m: np.ndarray,
    ap: np.ndarray,
    range_m: np.ndarray,
    std_m: np.ndarray,
    time_s: np.ndarray,
    start_s: float,
    policy: str,
    known: dict[str, Any],
) -> tuple[int, np.ndarray, np.ndarray] | None:
    """The first link after a valid snapshot, its place and covariance; None: there is none."""
    epoch = gathered(time_s, ap, start_s)
    table = np.full((epoch.max() + 1, len(aps_m)), np.nan)
    spread = np.ones_like(table)
    table[epoch, ap], spread[epoch, ap] = range_m, std_m
    found = locate_ranges(aps_m, table, spread, policy=policy, **known)
    if not bool(found.valid.any()):
        return None
    chosen = int(found.valid.int().argmax())
    assert found.covariance is not None
    last = int(np.flatnonzero(epoch == chosen).max())
    return min(last + 1, len(ap) - 1), found.position[chosen].numpy(), found.covariance[chosen].numpy()


def _plane(aps_m: np.ndarray, known: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Places in the plane [M, 2] and height differences [M]."""
    count = len(aps_m)
    if known.get("height_diff_m") is not None:
        return aps_m[:, :2], np.broadcast_to(np.asarray(known["height_diff_m"], dtype=float), (count,))
    height = aps_m[:, 2] if aps_m.shape[1] == 3 else known.get("ap_height_m")
    if height is None or known.get("user_height_m") is None:
        return aps_m[:, :2], np.zeros(count)
    return aps_m[:, :2], np.broadcast_to(np.asarray(height, dtype=float) - known["user_height_m"], (count,))
