"""Ranges, time differences and powers of a person's own network to positions."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cfpos.baselines import list_policies, make_policy
from cfpos.baselines.direct import (
    RANGES_POLICY,
    RSS_POLICY,
    TDOA_POLICY,
    Locator,
    locate_ranges,
    locate_rss,
    locate_tdoa,
)
from cfpos.baselines.registry import policy_families
from cfpos.scripts.cli import UsageError
from cfpos.scripts.locating.calibrating import asked_for, calibration
from cfpos.scripts.locating.common import (
    Located,
    checked_names,
    drawn_site,
    of_file,
    pairs,
    refuse_unused,
    renamed,
)
from cfpos_envs.checks import number
from cfpos_envs.files.epochs import EpochOptions, Epochs, read_epochs
from cfpos_envs.files.positions import Positions
from cfpos_envs.files.site_formats import value_names
from cfpos_envs.files.sites import SiteFile, load_site
from cfpos_envs.files.tables import column_names
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.measurements.toa import TimingMeasurements

_READ_BY = {"range": ("toa", "rtt"), "tdoa": ("tdoa",), "rss": ("dcp",)}
_DEFAULTS = {"range": RANGES_POLICY, "tdoa": TDOA_POLICY, "rss": RSS_POLICY}
_FEW_VALID, _CLEARLY_MORE = 0.5, 0.2
"""Shares of valid answers: below the first the places of the APs are doubted; other places must have twice as many and
the second more."""
_LAW = ("rss_at_1m_dbm", "path_loss_slope_db", "shadowing_std_db")
_SAID_OTHERWISE = (
    "family",
    "reference",
    "not_heard",
    "height_diff_m",
    "ap_height_m",
    "user_height_m",
    "area_m",
    "on_bad",
)


def located(arguments: argparse.Namespace) -> Located:
    """Read site and measurements, and locate.

    Raises:
        ValueError: whatever the site, the measurements or the options have that cannot be.
        OSError: a file cannot be read.
    """
    site, epochs, known = read(arguments)
    quantity = _quantity(epochs, arguments.policy)
    name = arguments.policy or _DEFAULTS[quantity]
    policy = make_policy(name, **pairs(arguments.option, "--option"))
    assert isinstance(policy, Locator)
    kind = RadioMeasurements if quantity == "rss" else TimingMeasurements
    checked_names(known, kind.from_arrays, _SAID_OTHERWISE, "--known")
    heights, notes = heights_of(site, arguments.user_height)
    known.update(heights)
    if site.area is not None:
        known["area_m"] = site.area.corners
    estimate, told = _estimate(epochs, quantity, policy, site, known, arguments)

    def located_at(other: SiteFile) -> PositionEstimate:
        elsewhere = {name: value for name, value in known.items() if name != "area_m"}
        looking = argparse.Namespace(**{**vars(arguments), "store_site": None})
        return _estimate(epochs, quantity, policy, other, elsewhere, looking)[0]

    return Located(
        as_table(estimate, epochs, site, name),
        name,
        **drawn_site(site),
        notes=(*epochs.notes, *told, *notes),
        advice=_advice(quantity, name, epochs),
        suspicion=exchanged(site, estimate, located_at),
    )


def read(
    arguments: argparse.Namespace, reader: Callable[..., Epochs] = read_epochs
) -> tuple[SiteFile, Epochs, dict[str, Any]]:
    """Site, measurements, and what --known says.

    Args:
        arguments: of the command.
        reader: ``read_epochs``, or ``read_links`` for one link at a time.
    """
    if arguments.site is None:
        raise UsageError("ranges need the places of the access points: --site FILE.yaml, .csv or .geojson")
    columns = renamed(arguments.columns)
    refuse_unused(
        columns,
        {
            arguments.measurements.name: column_names(arguments.measurements),
            arguments.site.name: value_names(arguments.site),
        },
    )
    site = load_site(arguments.site, columns)
    known = pairs(arguments.known, "--known")
    options = EpochOptions(
        renamed=of_file(columns, column_names(arguments.measurements)),
        unit=arguments.unit,
        missing=tuple(arguments.missing),
        without=tuple(arguments.without),
        window_s=arguments.window,
        on_bad=arguments.on_bad,
        **({"ceiling_dbm": known["ceiling_dbm"]} if "ceiling_dbm" in known else {}),
    )
    return site, reader(arguments.measurements, site.ap_names, options), known


def exchanged(site: SiteFile, estimate: PositionEstimate, located_at: Callable[[SiteFile], PositionEstimate]) -> str:
    """Whether the measurements fit a site whose latitudes and longitudes are exchanged; a sentence, or nothing.

    Args:
        site: as the file has it.
        estimate: at that site.
        located_at: the same with the APs elsewhere.
    """
    before, count = int(estimate.valid.sum()), estimate.valid.numel()
    other = site.with_degrees_exchanged() if before < _FEW_VALID * count else None
    if other is None:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        after = int(located_at(other).valid.sum())
    if after < 2 * before + max(1.0, _CLEARLY_MORE * count):
        return ""
    file = Path(site.path)
    remedy = {
        ".csv": "exchange them (--columns latitude=longitude longitude=latitude)",
        ".geojson": "a position is [longitude, latitude]",
    }.get(file.suffix.lower(), "exchange them in the file")
    return (
        f"latitudes and longitudes look exchanged in {file.name}: the other way round {after} of {count} answers are "
        f"valid instead of {before}; {remedy}"
    )


def _advice(quantity: str, policy: str, epochs: Epochs) -> dict[str, str]:
    """What to do about answers that are not valid, with this command."""
    links = np.isfinite(epochs.links[quantity])
    residuals = {
        "range": "--unit, --sigma, --user-height",
        "tdoa": "--unit, --sigma, the sign of differences",
        "rss": "--known rss_at_1m_dbm, path_loss_slope_db and shadowing_std_db of your site, or a --survey",
    }[quantity]
    if quantity == "range" and policy != RANGES_POLICY:
        residuals = f"--policy {RANGES_POLICY} leaves out links without line of sight; {residuals}"
    at_once, heard = int(links.sum(axis=1).max()), int(links.any(axis=0).sum())
    few = f"at most {at_once} of {links.shape[1]} access points are measured at once, {heard} at all"
    return {
        "large_residuals": residuals,
        "too_few_links": f"{few}; see --columns, --without, --missing",
        "ambiguous": "area: in the site file",
    }


def _estimate(
    epochs: Epochs,
    quantity: str,
    policy: Locator,
    site: SiteFile,
    known: dict[str, Any],
    arguments: argparse.Namespace,
) -> tuple[PositionEstimate, list[str]]:
    if quantity == "rss":
        known.update(on_bad=arguments.on_bad)
        assumed = [name for name in _LAW if name not in known]
        defaults = signature(RadioMeasurements.from_arrays).parameters
        said = ", ".join(f"{name}={defaults[name].default:g}" for name in assumed)
        notes = [f"assumed: {said}; fit them to your site (--known), or bring a survey (--survey)"] if assumed else []
        return locate_rss(site.ap_positions_m, epochs.links["rss"], policy=policy, **known), notes
    calibrated = quantity == "range" and asked_for(arguments, site)
    std, notes = std_of(epochs, quantity, arguments, needed=not calibrated)
    if quantity == "range":
        found, told = calibration(arguments, site, epochs, std, known)
        devices = epochs.user.tolist() if found is not None and found.device_offset_m else None
        how: Any = "none" if found is None else found
        ranges = epochs.links["range"]
        estimate = locate_ranges(
            site.ap_positions_m, ranges, std, policy=policy, calibrate=how, devices=devices, **known
        )
        return estimate, [*told, *notes]
    return locate_tdoa(site.ap_positions_m, epochs.links[quantity], std, policy=policy, **known), notes


def as_table(estimate: PositionEstimate, epochs: Epochs, site: SiteFile, policy: str) -> Positions:
    """Positions in the coordinates of the site's file."""
    origin = torch.tensor(site.origin_m, dtype=torch.float64)
    estimate = estimate.moved(site.origin_m)
    truth = epochs.truth_m
    axes = estimate.position.shape[-1]
    if truth is not None and truth.shape[1] < axes:
        truth = None
    return Positions.from_estimate(
        estimate,
        user=epochs.user,
        episode=epochs.episode,
        time_s=epochs.time_s,
        epoch=epochs.epoch,
        policy=policy,
        truth_m=None if truth is None else truth[:, :axes],
        geo_origin=None if site.geo_origin is None else site.geo_origin.moved((-origin).tolist()),
    )


def _quantity(epochs: Epochs, policy: str | None) -> str:
    """What is located from: what the policy reads, else the first that the file has."""
    there = [name for name in epochs.links if name != "std"]
    if policy is None:
        return next((name for name in _DEFAULTS if name in there), there[0])
    families = policy_families(policy)
    usable = [name for name in there if set(_READ_BY[name]) & set(families)]
    if not usable:
        able = sorted({other for name in there for family in _READ_BY[name] for other in list_policies(family)})
        raise UsageError(
            f"--policy {policy} reads {' or '.join(families) or 'games'}, the file has {' and '.join(there)}; choose "
            f"one of {', '.join(name for name in able if policy_families(name))}"
        )
    return usable[0]


def heights_of(site: SiteFile, user_height_m: float | None) -> tuple[dict[str, Any], list[str]]:
    """Heights of APs and users as ``from_arrays`` takes them, none where the site has none, and what was assumed."""
    if site.ap_height_m is None:
        if user_height_m is not None:
            raise UsageError(f"--user-height needs heights of the APs; {site.path} has none (height_m)")
        return {}, [f"{site.name} has no heights: ranges are taken as distances in the plane"]
    notes = []
    if user_height_m is None:
        user_height_m = site.user_height_m
        notes.append(f"users are taken to be {user_height_m:g} m high (--user-height)")
    return {"ap_height_m": site.ap_height_m, "user_height_m": user_height_m}, notes


def std_of(
    epochs: Epochs, quantity: str, arguments: argparse.Namespace, needed: bool = True
) -> tuple[np.ndarray, list[str]]:
    """Standard deviations [n, M]: those of the file, where it has none or none that can be right --sigma.

    Not ``needed``: a calibration finds them; a metre is a start.
    """
    if arguments.sigma is not None:
        number("sigma", arguments.sigma, 0.0, above=True)
    values = epochs.links[quantity]
    given = epochs.links.get("std", np.full_like(values, np.nan))
    lacking = np.isfinite(values) & ~(given > 0)
    if not needed:
        return np.where(given > 0, given, 1.0 if arguments.sigma is None else arguments.sigma), []
    if arguments.sigma is None and lacking.any():
        if "std" not in epochs.links:
            raise UsageError(
                f"how accurate is a {quantity}? Say it by --sigma METRES (line of sight), or in columns std_AP or std_m"
            )
        if arguments.on_bad == "refuse":
            raise UsageError(
                f"{int(lacking.sum())} links have no standard deviation above 0; say theirs by --sigma METRES, or "
                "leave them out by --on-bad drop"
            )
        values[lacking] = np.nan
        return np.where(lacking, 1.0, given), [f"left out {int(lacking.sum())} links without a standard deviation"]
    notes = []
    if "std" in epochs.links and lacking.any():
        notes.append(f"{int(lacking.sum())} links without a standard deviation have that of --sigma")
    filled = np.where(given > 0, given, 1.0 if arguments.sigma is None else arguments.sigma)
    return filled, notes
