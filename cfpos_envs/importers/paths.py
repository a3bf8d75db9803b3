"""The common form into which path data of other tools are brought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cfpos_envs.importers.path_checks import check_paths

CARRIER_PHASES = ("auto", "absent", "present")
"""Whether coefficients hold exp(-j 2 pi f_c tau); ``auto``: told from the direct paths."""
PER_PATH = (
    "amplitude",
    "delay_s",
    "bs_azimuth_rad",
    "bs_zenith_rad",
    "ue_azimuth_rad",
    "ue_zenith_rad",
    "reflections",
    "kind",
)
_SAME_PLACE_M = 0.5
_LEAST_DIRECT = 4
_SAME, _ALIKE, _UNCLEAR = 0.999, 0.95, 0.8
"""Mean of unit phasors that are equal, that are equal but for delays written with few digits, that are not."""


@dataclass(frozen=True)
class ImportedPaths:
    """Paths between U users and L base stations as another tool found them, in this suite's conventions.

    Attributes:
        tool, name: who made them, and what it calls the scenario.
        carrier_hz: at which they were computed.
        positions_m: [U, 3] users.
        bs_positions_m: [L, 3] base stations (centres of their arrays).
        bs_names: L names.
        valid: [U, L, P] which entries are paths.
        amplitude: [U, L, P] complex amplitude for an isotropic element in the middle of the array, *without*
            exp(-j 2 pi f_c tau); |amplitude|^2 is the path gain.
        delay_s: [U, L, P] absolute propagation delay.
        bs_azimuth_rad, bs_zenith_rad, ue_azimuth_rad, ue_zenith_rad: [U, L, P] directions in the world's frame, at
            either end towards the path.
        reflections: [U, L, P] number of specular reflections.
        kind: [U, L, P] sum of the flags of ``path_checks``; 0: line of sight.
        bs_orientation_rad: [L, 3] (yaw, pitch, roll) of the arrays; None: not known.
        notes: what a person should know: entries left out, links at a tool's limit.

    Raises:
        PathArrayError: entries that cannot be (``path_checks.check_paths``).
        ValueError: shapes or names that do not fit each other.
    """

    tool: str
    name: str
    carrier_hz: float
    positions_m: np.ndarray
    bs_positions_m: np.ndarray
    bs_names: tuple[str, ...]
    valid: np.ndarray
    amplitude: np.ndarray
    delay_s: np.ndarray
    bs_azimuth_rad: np.ndarray
    bs_zenith_rad: np.ndarray
    ue_azimuth_rad: np.ndarray
    ue_zenith_rad: np.ndarray
    reflections: np.ndarray
    kind: np.ndarray
    bs_orientation_rad: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"{self.tool} {self.name}"
        users, bss = len(self.positions_m), len(self.bs_positions_m)
        for name in ("positions_m", "bs_positions_m"):
            if getattr(self, name).ndim != 2 or getattr(self, name).shape[1] != 3:
                raise ValueError(f"{where}: {name} has shape {getattr(self, name).shape}; it must be [n, 3]")
        for name in ("valid", *PER_PATH):
            shape = getattr(self, name).shape
            if shape[:2] != (users, bss) or shape != self.valid.shape:
                raise ValueError(
                    f"{where}: {name} has shape {shape}; {users} users and {bss} base stations need [{users}, {bss}, P]"
                )
        if len(set(self.bs_names)) != bss or len(self.bs_names) != bss:
            raise ValueError(f"{where}: {bss} base stations need as many different names, got {list(self.bs_names)}")
        if not 0 < self.carrier_hz < np.inf:
            raise ValueError(f"{where}: carrier_hz={self.carrier_hz!r} must be a positive number of hertz")
        link = np.repeat(np.arange(users * bss), self.valid.reshape(users * bss, -1).sum(axis=-1))
        fields = {name: getattr(self, name)[self.valid] for name in PER_PATH}
        check_paths(where, self.positions_m, self.bs_positions_m, link, fields)

    @property
    def line_of_sight(self) -> np.ndarray:
        """[U, L] whether a direct path is among the link's paths, strongest or not."""
        return ((self.kind == 0) & self.valid).any(axis=-1)

    def fields(self) -> dict[str, np.ndarray]:
        """The arrays per path by name."""
        return {name: getattr(self, name) for name in PER_PATH}

    def select_users(self, index: np.ndarray) -> ImportedPaths:
        """Only some users.

        Args:
            index: their numbers, or a mask [U].
        """
        rows = {name: getattr(self, name)[index] for name in ("positions_m", "valid", *PER_PATH)}
        return replace(self, **rows)

    def with_stations(self, stations: Mapping[str, Sequence[float]]) -> ImportedPaths:
        """With the base stations in the order and with the names of ``stations``; others are left out.

        Tools sort stations and forget their names; where they stand is what is left to know them by.

        Args:
            stations: name -> (x, y, z) in metres.

        Raises:
            ValueError: no base station, or more than one, within half a metre of one of ``stations``.
        """
        order = match_stations(stations, self.bs_positions_m, f"{self.tool} {self.name}")
        columns = {name: getattr(self, name)[:, order] for name in ("valid", *PER_PATH)}
        turned = None if self.bs_orientation_rad is None else self.bs_orientation_rad[order]
        return replace(
            self,
            bs_positions_m=self.bs_positions_m[order],
            bs_names=tuple(stations),
            bs_orientation_rad=turned,
            **columns,
        )

    def heard(self) -> ImportedPaths:
        """Without the users whom no path reaches; how many they are is noted."""
        reached = np.asarray(self.valid.any(axis=(1, 2)))
        if reached.all():
            return self
        if not reached.any():
            raise ValueError(f"{self.tool} {self.name}: no path reaches any of the {len(reached)} users")
        note = f"{int((~reached).sum())} of {len(reached)} users have no path to any base station and are left out"
        return replace(self.select_users(reached), notes=(*self.notes, note))


def match_stations(stations: Mapping[str, Sequence[float]], bs_positions_m: np.ndarray, where: str) -> list[int]:
    """The number of every station among base stations, by where it stands.

    Args:
        stations: name -> (x, y, z) in metres.
        bs_positions_m: [L, 3].
        where: for the message.

    Raises:
        ValueError: no base station, or more than one, within half a metre of one of ``stations``.
    """
    order = []
    for name, place in stations.items():
        gap = np.linalg.norm(bs_positions_m - np.asarray(place, dtype=np.float64), axis=-1)
        found = np.flatnonzero(gap <= _SAME_PLACE_M)
        if len(found) != 1:
            raise ValueError(
                f"{len(found)} base stations of {where} stand within {_SAME_PLACE_M} m of {name!r} at "
                f"{tuple(float(value) for value in place)}; the nearest is {gap.min():.3g} m away, there are "
                f"{bs_positions_m.round(3).tolist()}"
            )
        order.append(int(found[0]))
    return order


def detect_carrier_phase(
    amplitude: np.ndarray, delay_s: np.ndarray, direct: np.ndarray, carrier_hz: float
) -> str | None:
    """``absent`` or ``present``: whether coefficients hold exp(-j 2 pi f_c tau); ``unknown`` if neither; None: too few.

    Reflections may have any phase, but all direct paths of equal antennas have the same one once that of the delay is
    taken out.

    Args:
        amplitude, delay_s, direct: of all paths, any shape; ``direct`` says which are the line of sight.
        carrier_hz: f_c.
    """
    chosen = amplitude[direct]
    if len(chosen) < _LEAST_DIRECT:
        return None
    unit = chosen / np.abs(chosen)
    turned = unit * carrier_turn(delay_s[direct], carrier_hz).conj()
    absent, present = abs(unit.mean()), abs(turned.mean())
    if absent < _SAME and present < _ALIKE:
        return "unknown"
    if min(absent, present) > _UNCLEAR:
        return None
    return "absent" if absent > present else "present"


def carrier_turn(delay_s: np.ndarray, carrier_hz: float) -> np.ndarray:
    """exp(-j 2 pi f_c tau), in double precision: f_c tau is some thousand turns.

    Args:
        delay_s: tau, any shape.
        carrier_hz: f_c.
    """
    return np.exp(-2j * np.pi * np.remainder(delay_s.astype(np.float64) * carrier_hz, 1.0))
