"""Surveyed fingerprints: a person's own measurements from arrays or files, or a simulated survey of a site."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from torch import Tensor

from cfpos_envs.checks import one_of
from cfpos_envs.files.coordinates import GeoOrigin
from cfpos_envs.files.surveys import LAYOUTS, SurveyTable, read_survey
from cfpos_envs.physics.arrays import angular_power
from cfpos_envs.physics.dcp.channel import channel_covariance, draw_sample_covariance, path_angles, rss_w
from cfpos_envs.physics.propagation import path_gain_db
from cfpos_envs.physics.units import watts_to_dbm
from cfpos_envs.streams import derive_seed

from .radio_map import RadioMap

CEILING_DBM = 0.0
"""No receiver hears a milliwatt: readings from here on are marks or mistakes."""

_MOST_MARKS = 3
"""Different readings from the ceiling on that may all be marks."""

_FARTHEST_M = 1000.0
"""Median of ranges from which on they are taken to be millimetres: FTM and UWB reach some hundred metres."""

_LEAST_EXTENT_M, _MANY_PLACES = 0.1, 9
"""So many places within so little are in degrees or kilometres: ten centimetres are less than a step."""

_POINTS_AT_A_TIME = 250


@dataclass(frozen=True)
class Survey:
    """Measured fingerprints at P known points.

    Attributes:
        positions_m: metres, double precision for people's own surveys.
        rss_dbm: dBm; NaN where an AP was not heard.
        angular_power: linear, any scale per AP; None where only RSS was surveyed.
        range_m: measured distances, NaN where there is none; None where nothing was ranged.
        unknown: readings that were left out because they cannot be; None: there are none.
        ap_names: names of the APs, None where they are known by place only.
        floors, buildings: labels of the points, None where there are none.
        geo_origin: where (0, 0) lies, if the survey had latitudes and longitudes.
    """

    positions_m: Float[Tensor, "P 2"]
    rss_dbm: Float[Tensor, "P M"]
    angular_power: Float[Tensor, "P M L"] | None
    unknown: Bool[Tensor, "P M"] | None = None
    ap_names: tuple[str, ...] | None = None
    floors: tuple[str, ...] | None = None
    buildings: tuple[str, ...] | None = None
    geo_origin: GeoOrigin | None = None
    range_m: Float[Tensor, "P M"] | None = None


def survey_from_arrays(
    positions: ArrayLike | Tensor,
    rss: ArrayLike | Tensor | None = None,
    aoa: ArrayLike | Tensor | None = None,
    ranges: ArrayLike | Tensor | None = None,
    *,
    not_heard: Collection[float] = (),
    on_bad: str = "refuse",
    ap_names: Sequence[str] | None = None,
    floors: Sequence[object] | None = None,
    buildings: Sequence[object] | None = None,
    where: Sequence[str] | None = None,
) -> Survey:
    """Check a person's own survey.

    Args:
        positions: [P, 2] metres, in any frame; several scans of one place are welcome.
        rss: [P, M] dBm; NaN, -inf, masked entries and ``not_heard`` where an AP was not heard; None: only ranges.
        aoa: [P, M, L] linear angular power >= 0, or None.
        ranges: [P, M] measured distances, metres; NaN where there is none.
        not_heard: numbers that mean that an AP was not heard.
        on_bad: ``refuse``, or ``drop`` leaves readings that cannot be out and rows without position, with a warning.
        ap_names: M names.
        floors, buildings: P labels.
        where: what messages call the rows; their numbers from 0 if None.

    Raises:
        ValueError: wrong shapes, no points, positions that are not finite, readings of 0 dBm and more, ranges that
            cannot be metres, an AP-less survey, negative or all-zero spectra.
    """
    one_of("on_bad", on_bad, ("refuse", "drop"))
    points = real_array(positions, "positions")
    power, distance = powers_and_ranges(rss, ranges)
    spectra = None if aoa is None else real_array(aoa, "aoa")
    _check_shapes(points, power, spectra)
    if distance is not None:
        check_ranges(distance, power.shape)
    rows = [f"row {row}" for row in range(len(points))] if where is None else list(where)
    _check_extent(points)
    placed = np.isfinite(points).all(axis=-1)
    if not placed.all():
        lost = f"{(~placed).sum()} positions have NaN or infinite entries, the first in {rows[int(placed.argmin())]}"
        if on_bad == "refuse":
            raise ValueError(f"{lost}; every fingerprint needs its place (on_bad='drop' leaves such rows out)")
        if not placed.any():
            raise ValueError(f"{lost}; no row is left")
        warnings.warn(f"left out {lost}", stacklevel=2)
    power, unknown = checked_rss(power, not_heard, on_bad, rows, ap_names)
    if spectra is not None:
        _check_spectra(spectra[placed])
        if not np.isfinite(power).all():
            bad = np.argwhere(~np.isfinite(power))[0]
            raise ValueError(
                f"rss has no reading in {rows[bad[0]]}, AP {bad[1]}; with spectra every AP must have been heard "
                "everywhere: leave the spectra out, or that point"
            )
    if not np.isfinite(power[placed]).any() and (distance is None or not np.isfinite(distance[placed]).any()):
        raise ValueError("no AP was heard anywhere in the survey; look at the marks for not heard")
    if ap_names is not None and (len(ap_names) != power.shape[1] or len(set(ap_names)) != len(ap_names)):
        raise ValueError(f"ap_names has {len(ap_names)} names; it must be {power.shape[1]} different ones, one per AP")
    kept = torch.from_numpy(np.flatnonzero(placed))
    return Survey(
        torch.from_numpy(points)[kept],
        torch.from_numpy(power)[kept],
        None if spectra is None else torch.from_numpy(spectra)[kept],
        torch.from_numpy(unknown)[kept] if unknown.any() else None,
        None if ap_names is None else tuple(str(name) for name in ap_names),
        _labels("floors", floors, placed),
        _labels("buildings", buildings, placed),
        range_m=None if distance is None else torch.from_numpy(distance)[kept],
    )


def survey_from_table(table: SurveyTable, on_bad: str = "refuse") -> Survey:
    """Check what a file says; marks for not heard are gone already.

    Raises:
        ValueError: no positions, or whatever ``survey_from_arrays`` refuses; names file and line.
    """
    if table.positions_m is None:
        raise ValueError(f"{table.file} has no positions; a survey needs the columns x_m and y_m")
    try:
        survey = survey_from_arrays(
            table.positions_m,
            table.rss_dbm,
            table.angular_power,
            table.range_m,
            on_bad=on_bad,
            ap_names=table.ap_names,
            floors=table.floors,
            buildings=table.buildings,
            where=table.where,
        )
    except ValueError as error:
        text = str(error)
        raise ValueError(text if table.file in text else f"{table.file}: {text}") from None
    return dataclasses.replace(survey, geo_origin=table.geo_origin)


def survey_from_csv(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    layout: str = "plain",
    columns: Mapping[str, str | None] | None = None,
    not_heard: Collection[float] = (),
    on_bad: str | None = None,
    range_unit: str = "m",
) -> Survey:
    """Read a survey from one file or several, see ``cfpos_envs.files.surveys.read_survey``.

    Raises:
        ValueError: what reading or ``survey_from_table`` refuses; names file and line.
        OSError: it cannot be read.
    """
    table = read_survey(path, layout, columns, not_heard, range_unit=range_unit)
    return survey_from_table(table, on_bad or LAYOUTS[layout].on_bad)


def checked_rss(
    rss_dbm: np.ndarray,
    not_heard: Collection[float],
    on_bad: str,
    rows: Sequence[str] | None = None,
    ap_names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """RSS [P, M] with NaN where an AP was not heard, and [P, M] readings that cannot be (NaN too) under ``drop``.

    Args:
        rss_dbm: dBm.
        not_heard: marks.
        on_bad: ``refuse`` or ``drop``.
        rows, ap_names: what messages call them; numbers from 0 if None.

    Raises:
        ValueError: readings of ``CEILING_DBM`` and more.
    """
    power = np.where(np.isneginf(rss_dbm), math.nan, rss_dbm)
    for mark in not_heard:
        power[power == mark] = math.nan
    bad = power >= CEILING_DBM
    if not bad.any():
        return power, bad
    row, ap = np.argwhere(bad)[0]
    value, count = power[row, ap], int((power == power[row, ap]).sum())
    place = f"{f'row {row}' if rows is None else rows[row]}, AP {ap if ap_names is None else ap_names[ap]}"
    summary = f"{int(bad.sum())} RSS of {CEILING_DBM:g} dBm or more, the first {value:g} ({place})"
    if on_bad == "refuse":
        hint = (
            f"if {value:g} ({count} times) means not heard, say not_heard={value:g}; " if math.isfinite(value) else ""
        )
        if np.unique(power[bad]).size > _MOST_MARKS and not (power < CEILING_DBM).any():
            hint = "these look like path loss in dB, RSS without its sign, or milliwatts: give dBm; "
        raise ValueError(f"{summary}; {hint}on_bad='drop' leaves such readings out")
    warnings.warn(f"left out {summary}", stacklevel=2)
    power[bad] = math.nan
    return power, bad


def _check_extent(points: np.ndarray) -> None:
    """Refuse places that cannot be metres.

    Raises:
        ValueError: many places in a few centimetres.
    """
    places = np.unique(points[np.isfinite(points).all(axis=-1)], axis=0)
    if len(places) < _MANY_PLACES:
        return
    extent = float(np.ptp(places, axis=0).max())
    if extent < _LEAST_EXTENT_M:
        raise ValueError(
            f"{len(places)} positions lie within {extent:.2g} m of each other; these look like degrees or kilometres: "
            "give metres"
        )


def powers_and_ranges(rss: Any, ranges: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Both as arrays in double precision; powers that nobody measured are NaN.

    Raises:
        ValueError: neither is there, or they are no numbers.
    """
    if rss is None and ranges is None:
        raise ValueError("neither rss nor ranges are given; fingerprints need at least one of them")
    distance = None if ranges is None else real_array(ranges, "ranges")
    if distance is not None:
        distance[~np.isfinite(distance)] = math.nan
    return np.full_like(distance, math.nan) if rss is None else real_array(rss, "rss"), distance


def check_ranges(range_m: np.ndarray, shape: tuple[int, ...]) -> None:
    """Refuse ranges that do not go with the powers, or that cannot be metres.

    Args:
        range_m: [P, M], NaN where there is none.
        shape: of the powers.

    Raises:
        ValueError: another shape, or a median beyond any access point for users.
    """
    if range_m.shape != shape:
        raise ValueError(f"ranges has shape {range_m.shape}; it must be {list(shape)}, one column per AP as rss")
    measured = range_m[np.isfinite(range_m)]
    if len(measured) and abs(float(np.median(measured))) > _FARTHEST_M:
        raise ValueError(
            f"ranges have a median of {np.median(measured):.4g} m; give metres, or say range_unit='mm' if that is what "
            "the file has"
        )


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


def real_array(values: Any, name: str) -> np.ndarray:
    """A copy in double precision; NaN where a NumPy mask or None says that there is nothing.

    Raises:
        ValueError: not a rectangular array of real numbers.
    """
    try:
        if isinstance(values, Tensor):
            values = values.detach().cpu().numpy()
        if not isinstance(values, np.ma.MaskedArray):
            values = np.asarray(values)
        if values.dtype.kind not in "iufO":
            raise TypeError
        numbers = values.astype(np.float64)
        return np.array(numbers.filled(math.nan) if isinstance(numbers, np.ma.MaskedArray) else numbers)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not a rectangular array of numbers; give numbers of equal row length") from None


def _check_shapes(points: np.ndarray, power: np.ndarray, spectra: np.ndarray | None) -> None:
    if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
        raise ValueError(f"positions has shape {points.shape}; it must be [P, 2] with P >= 1")
    if power.ndim != 2 or len(power) != len(points) or power.shape[1] == 0:
        raise ValueError(
            f"rss has shape {power.shape}; it must be [{len(points)}, M], one row per position, one column per AP"
        )
    if spectra is not None and (spectra.ndim != 3 or spectra.shape[:2] != power.shape or spectra.shape[2] == 0):
        raise ValueError(f"aoa has shape {spectra.shape}; it must be [{power.shape[0]}, {power.shape[1]}, L]")


def _check_spectra(spectra: np.ndarray) -> None:
    bad = np.argwhere(~np.isfinite(spectra))
    if len(bad):
        where = ", ".join(str(i) for i in bad[0])
        raise ValueError(f"aoa has {len(bad)} NaN or infinite entries, the first at [{where}]; leave those points out")
    bad = np.argwhere((spectra < 0).any(axis=-1) | (spectra.sum(axis=-1) <= 0))
    if len(bad):
        raise ValueError(
            f"aoa spectrum [{bad[0][0]}, {bad[0][1]}] is negative or all zero; it must be linear power, not dB"
        )


def _labels(name: str, labels: Sequence[object] | None, kept: np.ndarray) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if len(labels) != len(kept):
        raise ValueError(f"{name} has {len(labels)} labels; it must be {len(kept)}, one per position")
    return tuple(str(label) for label, keep in zip(labels, kept) if keep)
