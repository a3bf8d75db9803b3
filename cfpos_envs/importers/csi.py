"""The common form into which frequency responses of other tools are brought: arrays in one npz file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cfpos_envs.importers.paths import match_stations
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

_EVEN = 1e-3
_NEAR_M = 3.0
_LEAST_SHARE = 0.3
_LEAST_LINKS = 4


@dataclass(frozen=True)
class ImportedCsi:
    """Frequency responses between P users and L base stations in this suite's conventions.

    Attributes:
        tool, name: who made them, and from what.
        csi: [P, L, A, N] complex; a delay tau turns frequency f by exp(-j 2 pi f tau); antenna row * columns + column,
            rows from below.
        positions_m, bs_positions_m, bs_orientation_rad: [P, 3], [L, 3], [L, 3].
        valid: [P, L] links that hold a channel.
        frequencies_hz: [N] absolute, ascending, evenly spaced.
        array_shape, spacing_wavelengths: of every base station's array.
        bs_names: L names.

    Raises:
        ValueError: shapes that do not fit each other, entries that are not finite, frequencies that are not even, and
            delays that start at the first path or turn phases the other way (``detect_delay_convention``).
    """

    tool: str
    name: str
    csi: np.ndarray
    positions_m: np.ndarray
    bs_positions_m: np.ndarray
    bs_orientation_rad: np.ndarray
    valid: np.ndarray
    frequencies_hz: np.ndarray
    array_shape: tuple[int, int]
    spacing_wavelengths: float
    bs_names: tuple[str, ...]

    def __post_init__(self) -> None:
        where = f"{self.tool} {self.name}"
        users, bss = len(self.positions_m), len(self.bs_positions_m)
        rows, columns = self.array_shape
        wanted = {
            "csi": (users, bss, rows * columns, len(self.frequencies_hz)),
            "positions_m": (users, 3),
            "bs_positions_m": (bss, 3),
            "bs_orientation_rad": (bss, 3),
            "valid": (users, bss),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{where}: {name} has shape {getattr(self, name).shape}; here it must be {shape}")
            if not np.isfinite(getattr(self, name)).all():
                raise ValueError(f"{where}: {name} holds NaN or infinite entries")
        if len(set(self.bs_names)) != bss:
            raise ValueError(f"{where}: {bss} base stations need as many different names, got {list(self.bs_names)}")
        step = np.diff(self.frequencies_hz)
        if len(step) < 1 or not (step > 0).all() or np.ptp(step) > _EVEN * step.mean():
            raise ValueError(f"{where}: frequencies_hz must be at least two, ascending and evenly spaced")
        convention = detect_delay_convention(
            self.csi, self.valid, self.frequencies_hz, self.positions_m, self.bs_positions_m
        )
        if convention == "normalised":
            raise ValueError(
                f"{where}: delays start at the first path (normalised), the time of flight is not in this csi; make it "
                f"again with normalize_delays=False"
            )
        if convention == "conjugated":
            raise ValueError(f"{where}: delays turn phases by exp(+j 2 pi f tau); conjugate the csi")

    def with_stations(self, stations: Mapping[str, Sequence[float]]) -> ImportedCsi:
        """With the base stations in the order and with the names of ``stations``; others are left out.

        Args:
            stations: name -> (x, y, z) in metres.

        Raises:
            ValueError: see ``match_stations``.
        """
        order = match_stations(stations, self.bs_positions_m, f"{self.tool} {self.name}")
        columns = {name: getattr(self, name)[:, order] for name in ("csi", "valid")}
        rows = {name: getattr(self, name)[order] for name in ("bs_positions_m", "bs_orientation_rad")}
        return replace(self, **columns, **rows, bs_names=tuple(stations))

    def write(self, path: str | Path) -> None:
        """Write the npz file that ``ecc-csi`` plays (docs/data/csi.md).

        Args:
            path: of the file.
        """
        arrays: dict[str, Any] = {
            "csi": self.csi.astype(np.complex64),
            "positions_m": self.positions_m,
            "bs_positions_m": self.bs_positions_m,
            "bs_orientation_rad": self.bs_orientation_rad,
            "valid": self.valid,
            "frequencies_hz": self.frequencies_hz,
            "carrier_hz": np.array(self.frequencies_hz.mean()),
            "subcarrier_spacing_hz": np.array(np.diff(self.frequencies_hz).mean()),
            "array_shape": np.array(self.array_shape),
            "spacing_wavelengths": np.array(self.spacing_wavelengths),
            "names": np.array(self.bs_names),
        }
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)


def detect_delay_convention(
    csi: np.ndarray,
    valid: np.ndarray,
    frequencies_hz: np.ndarray,
    positions_m: np.ndarray,
    bs_positions_m: np.ndarray,
) -> str | None:
    """``absolute``, ``normalised`` or ``conjugated``: what the slopes of phases over frequency say; None: not clear.

    The slope of a link that one path dominates is its delay, up to whole periods 1 / spacing. It is compared with the
    time of flight over the straight line, with its opposite, and with zero.

    Args:
        csi: [P, L, A, N].
        valid: [P, L].
        frequencies_hz: [N] evenly spaced.
        positions_m, bs_positions_m: [P, 3], [L, 3].
    """
    spacing = float(np.diff(frequencies_hz).mean())
    period_m = SPEED_OF_LIGHT_M_S / spacing
    near_m = min(_NEAR_M, 0.05 * period_m)
    distance = np.linalg.norm(positions_m[:, None] - bs_positions_m[None], axis=-1)
    turn = (csi[..., 1:] * csi[..., :-1].conj()).sum(axis=(-1, -2))
    length = -np.angle(turn) / (2 * np.pi) * period_m

    def gap(expected_m: np.ndarray) -> np.ndarray:
        return np.abs(np.remainder(length - expected_m + period_m / 2, period_m) - period_m / 2)

    # Only links on which the three differ can tell.
    apart = np.minimum(np.remainder(distance, period_m), period_m - np.remainder(distance, period_m))
    twice = np.minimum(np.remainder(2 * distance, period_m), period_m - np.remainder(2 * distance, period_m))
    chosen = valid & (np.minimum(apart, twice) > 3 * near_m)
    if chosen.sum() < _LEAST_LINKS:
        return None
    shares = {
        "absolute": (gap(distance)[chosen] < near_m).mean(),
        "normalised": (gap(np.zeros_like(distance))[chosen] < near_m).mean(),
        "conjugated": (gap(-distance)[chosen] < near_m).mean(),
    }
    best = max(shares, key=lambda name: shares[name])
    others = max(share for name, share in shares.items() if name != best)
    return best if shares[best] >= _LEAST_SHARE and shares[best] > 2 * others else None


def panel_of(elements_m: np.ndarray, wavelength_m: float) -> tuple[np.ndarray, tuple[int, int], float]:
    """A planar array from the places of its elements: their order in ours, (rows, columns), spacing in wavelengths.

    ``csi[..., order, :]`` has antenna row * columns + column, rows from below (z) and columns along y.

    Args:
        elements_m: [A, 3] in the array's own frame (x: broadside).
        wavelength_m: of the carrier.

    Raises:
        ValueError: elements that are not a full grid in the y-z plane with one spacing.
    """
    digits = max(0, 3 - int(np.floor(np.log10(wavelength_m))))
    places = np.round(elements_m, digits)
    heights, widths = np.unique(places[:, 2]), np.unique(places[:, 1])
    steps = np.concatenate((np.diff(heights), np.diff(widths)))
    order = np.lexsort((places[:, 1], places[:, 2]))
    grid = np.stack(np.meshgrid(heights, widths, indexing="ij"), axis=-1).reshape(-1, 2)
    full = len(grid) == len(places) and np.array_equal(places[order][:, [2, 1]], grid)
    if not full or np.ptp(places[:, 0]) > 0 or (len(steps) and np.ptp(steps) > 2 * 10.0**-digits):
        raise ValueError(
            f"the {len(places)} elements are no grid of rows and columns with one spacing in the y-z plane; arrays of "
            f"two polarisations and unequal spacings are not converted"
        )
    spacing = float(steps.mean()) / wavelength_m if len(steps) else 0.5
    return order, (len(heights), len(widths)), round(spacing, 3)
