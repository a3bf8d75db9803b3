"""What traced paths must fulfil, whoever wrote them; every refusal names the file and the array.

Geometry is the judge of units: a direct path is as long as the straight line between its ends, and runs along it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

REFLECTED, REFRACTED, DIFFRACTED, SCATTERED = 1, 2, 4, 8
"""Flags of ``kind``; 0 is the line of sight."""

_SLACK_M, _SLACK_SHARE = 1.0, 0.01
"""By how much the length of a path may miss the straight line: positions and delays are rounded."""
_SLACK_RAD = 0.05
_FAR_DETOUR = 100.0
"""If the median link's shortest path is so many times its distance, one of the two is in another unit."""
_NORMALISED = 0.05
_UNIT_TOLERANCE = 0.02
_UNITS = {
    1e9: "delay_s looks like nanoseconds",
    1e6: "delay_s looks like microseconds",
    1e3: "positions_m looks like kilometres (or delay_s like milliseconds)",
    1e-2: "positions_m looks like centimetres",
    1e-3: "positions_m looks like millimetres",
    0.3048: "positions_m looks like feet",
    SPEED_OF_LIGHT_M_S: "delay_s looks like lengths in metres",
}
"""c tau over the distance, on direct paths -> what such a ratio comes from."""
_ANGLES = {"bs_azimuth_rad": 2 * np.pi, "ue_azimuth_rad": 2 * np.pi, "bs_zenith_rad": np.pi, "ue_zenith_rad": np.pi}
_ENDS = {"bs": "leave their base station", "ue": "are seen from their user"}


class PathArrayError(ValueError):
    """An array of paths that cannot be; the message names the file and the array."""


def check_paths(
    where: object,
    positions_m: np.ndarray,
    bs_positions_m: np.ndarray,
    link: np.ndarray,
    fields: Mapping[str, np.ndarray],
) -> None:
    """Refuse paths that cannot be: NaN, negative delays, other units, directions that do not fit the positions.

    Args:
        where: file or data set, for the message.
        positions_m, bs_positions_m: [U, 3], [L, 3] users and base stations.
        link: [K] u L + l of every path.
        fields: [K] ``amplitude`` (complex), ``delay_s``, ``bs_azimuth_rad``, ``bs_zenith_rad``, ``ue_azimuth_rad``,
            ``ue_zenith_rad`` and ``kind`` (0: line of sight).

    Raises:
        PathArrayError: what is wrong, in which array, and of which user and base station first.
    """
    for name, table in (("positions_m", positions_m), ("bs_positions_m", bs_positions_m)):
        wrong = np.flatnonzero(~np.isfinite(table).all(axis=-1))
        if len(wrong):
            raise PathArrayError(f"{where}: {name} is NaN or infinite in row {wrong[0]} and {len(wrong) - 1} more")
    judge = _Judge(where, positions_m.astype(np.float64), bs_positions_m.astype(np.float64), link, fields)
    judge.check_values()
    judge.check_lengths()
    judge.check_directions()


@dataclass(frozen=True)
class _Judge:
    where: object
    positions_m: np.ndarray
    bs_positions_m: np.ndarray
    link: np.ndarray
    fields: Mapping[str, np.ndarray]

    def refuse(self, name: str, wrong: np.ndarray, why: str) -> None:
        """Raise if anything is ``wrong`` [K]; ``why`` may name the first ``{value}``."""
        if not wrong.any():
            return
        first = int(np.flatnonzero(wrong)[0])
        user, station = divmod(int(self.link[first]), len(self.bs_positions_m))
        text = why.format(value=self.fields[name][first])
        raise PathArrayError(
            f"{self.where}: {name} {text} ({int(wrong.sum())} of {len(wrong)} paths; the first of user {user} and base "
            f"station {station})"
        )

    @property
    def vector_m(self) -> np.ndarray:
        """[K, 3] from the base station to the user of every path."""
        user, station = np.divmod(self.link, len(self.bs_positions_m))
        return self.positions_m[user] - self.bs_positions_m[station]

    @property
    def direct(self) -> np.ndarray:
        """[K] whether a path is the line of sight."""
        return self.fields["kind"] == 0

    def check_values(self) -> None:
        """Every array for itself."""
        for name, values in self.fields.items():
            self.refuse(name, ~np.isfinite(values), "is {value}; leave out what is no path")
        negative = self.fields["delay_s"] < 0
        self.refuse("delay_s", negative, "is {value} s; no delay is negative, tools pad links with -1: leave those out")
        loud = np.abs(self.fields["amplitude"]) > 1.0
        self.refuse("amplitude", loud, "is {value}, a path gain above 0 dB; are these decibels?")
        for name, most in _ANGLES.items():
            least = 0.0 if "zenith" in name else -most
            wrong = (self.fields[name] > most + 1e-5) | (self.fields[name] < least - 1e-5)
            allowed = "0 to pi from the z axis" if "zenith" in name else "-2 pi to 2 pi"
            self.refuse(name, wrong, f"is {{value}}; it must be radians, {allowed}. Is it in degrees?")

    def check_lengths(self) -> None:
        """Delays against distances."""
        length = SPEED_OF_LIGHT_M_S * self.fields["delay_s"].astype(np.float64)
        distance = np.linalg.norm(self.vector_m, axis=-1)
        slack = _SLACK_M + _SLACK_SHARE * distance
        missed = np.abs(length - distance) > slack
        hint = self._hint(length, distance, missed)
        self.refuse("delay_s", self.direct & missed, f"does not fit the straight line of direct paths{hint}")
        self.refuse("delay_s", length < distance - slack, f"is shorter than the straight line allows{hint}")
        far = distance > slack
        if far.any() and np.median(_shortest(self.link[far], length[far] / distance[far])) > _FAR_DETOUR:
            raise PathArrayError(
                f"{self.where}: delay_s is over {_FAR_DETOUR:g} times as long as the straight line on most links: "
                f"delay_s in nanoseconds, or positions_m in kilometres?"
            )

    def _hint(self, length: np.ndarray, distance: np.ndarray, missed: np.ndarray) -> str:
        chosen = missed & (self.direct if (missed & self.direct).any() else True) & (distance > 0)
        if not chosen.any():
            return ""
        ratio = float(np.median(length[chosen] / distance[chosen]))
        example = f": c tau is {length[chosen][0]:.4g} m where the distance is {distance[chosen][0]:.4g} m"
        for unit, guess in _UNITS.items():
            if abs(ratio / unit - 1) < _UNIT_TOLERANCE:
                return f"{example}; {guess}"
        if ratio < _NORMALISED:
            return f"{example}; these delays start at the first path (normalised): export absolute ones"
        return example

    def check_directions(self) -> None:
        """Directions of direct paths against positions."""
        vector = self.vector_m
        distance = np.linalg.norm(vector, axis=-1)
        # The direction of what is closer than the slack says nothing.
        judged = self.direct & (distance > 5 * _SLACK_M)
        unit = vector / np.maximum(distance, 1e-9)[:, None]
        for end, along in (("bs", unit), ("ue", -unit)):
            azimuth, zenith = (self.fields[f"{end}_{angle}_rad"].astype(np.float64) for angle in ("azimuth", "zenith"))
            sine = np.sin(zenith)
            stated = np.stack((sine * np.cos(azimuth), sine * np.sin(azimuth), np.cos(zenith)), axis=-1)
            off = np.linalg.norm(stated - along, axis=-1) > _SLACK_RAD + _SLACK_M / np.maximum(distance, 1e-9)
            self.refuse(
                f"{end}_azimuth_rad",
                judged & off,
                f"{{value}} and {end}_zenith_rad are not the direction in which direct paths {_ENDS[end]}: degrees, "
                f"elevation instead of zenith, or another frame?",
            )


def _shortest(link: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Least ratio of every link that has a path."""
    order = np.lexsort((ratio, link))
    first = np.concatenate(([True], np.diff(link[order]) > 0))
    return ratio[order][first]
