"""Surveyed fingerprints: a person's own measurements from arrays or a CSV file, or a simulated survey of a site."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from cfpos_envs.physics.arrays import angular_power
from cfpos_envs.physics.dcp.channel import channel_covariance, draw_sample_covariance, path_angles, rss_w
from cfpos_envs.physics.propagation import path_gain_db
from cfpos_envs.physics.units import watts_to_dbm
from cfpos_envs.streams import derive_seed

from .radio_map import RadioMap

_POINTS_AT_A_TIME = 250
_AOA_COLUMN = re.compile(r"aoa_(?P<ap>.+)_(?P<beam>[^_]+)")


@dataclass(frozen=True)
class Survey:
    """Measured fingerprints at P known points.

    Attributes:
        positions_m: metres.
        rss_dbm: dBm.
        angular_power: linear, any scale per AP; None where only RSS was surveyed.
    """

    positions_m: Float[Tensor, "P 2"]
    rss_dbm: Float[Tensor, "P M"]
    angular_power: Float[Tensor, "P M L"] | None


def survey_from_arrays(positions: ArrayLike, rss: ArrayLike, aoa: ArrayLike | None = None) -> Survey:
    """Check a person's own survey.

    Args:
        positions: [P, 2] metres.
        rss: [P, M] dBm.
        aoa: [P, M, L] linear angular power >= 0, or None.

    Raises:
        ValueError: wrong shapes, no points, NaN or infinite entries, negative or all-zero spectra, or two
            measurements of one position.
    """
    points, power = _array(positions, "positions"), _array(rss, "rss")
    spectra = None if aoa is None else _array(aoa, "aoa")
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"positions has shape {points.shape}; it must be [P, 2] with P >= 1")
    if power.ndim != 2 or len(power) != len(points) or power.shape[1] == 0:
        raise ValueError(
            f"rss has shape {power.shape}; it must be [{len(points)}, M], one row per position, one column per AP"
        )
    if spectra is not None and (spectra.ndim != 3 or spectra.shape[:2] != power.shape or spectra.shape[2] == 0):
        raise ValueError(f"aoa has shape {spectra.shape}; it must be [{power.shape[0]}, {power.shape[1]}, L]")
    for name, values in (("positions", points), ("rss", power), ("aoa", spectra)):
        if values is not None:
            _refuse_not_finite(name, values)
    if spectra is not None:
        _refuse_bad_spectra(spectra)
    _refuse_duplicates(points)
    to_tensor = torch.from_numpy
    return Survey(
        to_tensor(points).float(), to_tensor(power).float(), None if spectra is None else to_tensor(spectra).float()
    )


def survey_from_csv(path: str | PathLike[str]) -> Survey:
    """Read a survey with the columns ``x_m, y_m, rss_<ap>...`` (dBm) and optionally ``aoa_<ap>_<beam>...`` (linear).

    APs are ordered as their RSS columns, beams as their first AP's columns.

    Raises:
        ValueError: missing, unknown or repeated columns, a row of the wrong length, an entry that is not a number, or
            whatever ``survey_from_arrays`` refuses.
        FileNotFoundError: no such file.
    """
    file = Path(path)
    with file.open(newline="", encoding="utf-8-sig") as stream:
        rows = [row for row in csv.reader(stream) if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise ValueError(f"{file.name} has no data; it needs a header line x_m,y_m,rss_<ap>,... and at least one row")
    header = [cell.strip() for cell in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise ValueError(f"{file.name}, data line {number}: {len(row)} columns, the header has {len(header)}")
    names, beams = _columns(file.name, header)
    cells = [[_number(file.name, line, *pair) for pair in zip(header, row)] for line, row in enumerate(rows[1:], 2)]
    table = np.array(cells)
    at = {name: column for column, name in enumerate(header)}
    rss = table[:, [at[f"rss_{ap}"] for ap in names]]
    aoa = None
    if beams:
        order = [at[f"aoa_{ap}_{beam}"] for ap in names for beam in beams]
        aoa = table[:, order].reshape(len(table), len(names), len(beams))
    try:
        return survey_from_arrays(table[:, [at["x_m"], at["y_m"]]], rss, aoa)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from None


def simulate_survey(site: RadioMap, points_m: Float[Tensor, "P 2"], seed: int) -> Survey:
    """Measure a site at given points as the network would: own scattering, fading and noise at every point.

    The shadowing is that of the known map (none where the site has no known map).

    Args:
        site: one site, without batch dimensions.
        points_m: metres.
        seed: of the survey; the same seed and site give the same survey.
    """
    radio = site.radio
    generator = torch.Generator().manual_seed(derive_seed(seed, "survey"))
    rss, spectra = [], []
    for low in range(0, len(points_m), _POINTS_AT_A_TIME):
        points = points_m[low : low + _POINTS_AT_A_TIME]
        links = site.links(points)
        gain_db = path_gain_db(links.distance_3d_m, radio.path_loss_intercept_db, radio.path_loss_slope_db)
        shadowing = site.shadowing_db(points)
        gain_db = (gain_db if shadowing is None else gain_db + shadowing).double()
        # Double precision: the noise floor lies up to 75 dB below the signal.
        angles = path_angles(generator, links.angle_rad, radio.num_paths, radio.angular_spread_rad).double()
        mean = channel_covariance(
            angles, torch.pow(10.0, gain_db / 10.0), radio.num_antennas, radio.spacing_wavelengths
        )
        noise_w = radio.noise_power_w / (radio.tx_power_w * radio.num_pilots)
        mean = mean + noise_w * torch.eye(radio.num_antennas, dtype=mean.dtype)
        sample = draw_sample_covariance(generator, mean, radio.snapshots)
        rss.append(watts_to_dbm(rss_w(sample, radio.tx_power_w, radio.num_pilots)).T.float())
        spectra.append(angular_power(sample).transpose(0, 1).float())
    return Survey(points_m, torch.cat(rss), torch.cat(spectra))


def _array(values: ArrayLike, name: str) -> np.ndarray:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a rectangular array of numbers; give numbers of equal row length") from None


def _refuse_not_finite(name: str, values: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = ", ".join(str(i) for i in bad[0])
        raise ValueError(
            f"{name} has {len(bad)} NaN or infinite entries, the first at [{where}]; drop those points or fill them in"
        )


def _refuse_bad_spectra(spectra: np.ndarray) -> None:
    bad = np.argwhere((spectra < 0).any(axis=-1) | (spectra.sum(axis=-1) <= 0))
    if len(bad):
        raise ValueError(
            f"aoa spectrum [{bad[0][0]}, {bad[0][1]}] is negative or all zero; it must be linear power, not dB"
        )


def _refuse_duplicates(points: np.ndarray) -> None:
    _, first, counts = np.unique(points, axis=0, return_index=True, return_counts=True)
    if (counts > 1).any():
        point = points[first[counts > 1].min()]
        raise ValueError(
            f"position ({point[0]:g}, {point[1]:g}) m appears more than once ({int((counts - 1).sum())} duplicates); "
            "average repeated measurements into one row"
        )


def _columns(file: str, header: list[str]) -> tuple[list[str], list[str]]:
    """AP names and beam names of a survey's header."""
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{file}: column {repeated[0]} appears more than once; rename one of them")
    missing = [name for name in ("x_m", "y_m") if name not in header]
    if missing:
        raise ValueError(f"{file}: no column {' and '.join(missing)}; the header must be x_m,y_m,rss_<ap>,...")
    aps = [name.removeprefix("rss_") for name in header if name.startswith("rss_")]
    if not aps:
        raise ValueError(f"{file}: no rss_<ap> column; the header must be x_m,y_m,rss_<ap>,...")
    spectral = [name for name in header if name.startswith("aoa_")]
    unknown = [name for name in header if name not in ("x_m", "y_m") and not name.startswith(("rss_", "aoa_"))]
    if unknown:
        raise ValueError(f"{file}: unknown column {unknown[0]}; allowed are x_m, y_m, rss_<ap> and aoa_<ap>_<beam>")
    matches = [_AOA_COLUMN.fullmatch(name) for name in spectral]
    if not spectral:
        return aps, []
    beams = list(dict.fromkeys(match["beam"] for match in matches if match))
    expected = {f"aoa_{ap}_{beam}" for ap in aps for beam in beams}
    if expected != set(spectral):
        odd = sorted(expected ^ set(spectral))[0]
        raise ValueError(f"{file}: {len(spectral)} aoa columns do not fit, see {odd}; every AP needs the same beams")
    return aps, beams


def _number(file: str, line: int, column: str, cell: str) -> float:
    if not cell.strip():
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"{file}, data line {line}, column {column}: {cell.strip()!r} is not a number") from None
