"""Ranges, time differences and powers of a person's own network to positions."""

from __future__ import annotations

import argparse
from inspect import signature
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
from cfpos.scripts.locating.common import USER_HEIGHT_M, Located, checked_names, drawn_site, pairs
from cfpos_envs.checks import number
from cfpos_envs.files.epochs import EpochOptions, Epochs, read_epochs
from cfpos_envs.files.positions import Positions
from cfpos_envs.files.sites import SiteFile, load_site
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.measurements.toa import TimingMeasurements

_READ_BY = {"range": ("toa", "rtt"), "tdoa": ("tdoa",), "rss": ("dcp",)}
_DEFAULTS = {"range": RANGES_POLICY, "tdoa": TDOA_POLICY, "rss": RSS_POLICY}
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
    if arguments.site is None:
        raise UsageError("ranges need the places of the access points: --site FILE.yaml, .csv or .geojson")
    site = load_site(arguments.site)
    options = EpochOptions(
        renamed=renamed(arguments.columns),
        unit=arguments.unit,
        missing=tuple(arguments.missing),
        without=tuple(arguments.without),
        window_s=arguments.window,
        on_bad=arguments.on_bad,
    )
    epochs = read_epochs(arguments.measurements, site.ap_names, options)
    quantity = _quantity(epochs, arguments.policy)
    name = arguments.policy or _DEFAULTS[quantity]
    policy = make_policy(name, **pairs(arguments.option, "--option"))
    assert isinstance(policy, Locator)
    known = pairs(arguments.known, "--known")
    kind = RadioMeasurements if quantity == "rss" else TimingMeasurements
    checked_names(known, kind.from_arrays, _SAID_OTHERWISE, "--known")
    heights, notes = _heights(site, arguments.user_height)
    known.update(heights)
    if site.area is not None:
        known["area_m"] = site.area.corners
    estimate, told = _estimate(epochs, quantity, policy, site, known, arguments)
    table = as_table(estimate, epochs, site, name)
    return Located(table, name, **drawn_site(site), notes=(*epochs.notes, *told, *notes))


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
    std, notes = _std(epochs, quantity, arguments)
    find = locate_ranges if quantity == "range" else locate_tdoa
    return find(site.ap_positions_m, epochs.links[quantity], std, policy=policy, **known), notes


def renamed(words: list[str]) -> dict[str, str]:
    """FILE_NAME=our_name words; a name in the file may hold ``=``.

    Raises:
        UsageError: a word without ``=``.
    """
    found = {}
    for word in words:
        theirs, equals, ours = word.rpartition("=")
        if not equals or not theirs or not ours:
            raise UsageError(f"--columns {word} must look like --columns FILE_NAME=our_name")
        found[theirs] = ours
    return found


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


def _heights(site: SiteFile, user_height_m: float | None) -> tuple[dict[str, Any], list[str]]:
    if site.ap_height_m is None:
        if user_height_m is not None:
            raise UsageError(f"--user-height needs heights of the APs; {site.path} has none (height_m)")
        return {}, [f"{site.name} has no heights: ranges are taken as distances in the plane"]
    notes = []
    if user_height_m is None:
        user_height_m = float(site.fields.get("ue_height_m", USER_HEIGHT_M))
        notes.append(f"users are taken to be {user_height_m:g} m high (--user-height)")
    return {"ap_height_m": site.ap_height_m, "user_height_m": user_height_m}, notes


def _std(epochs: Epochs, quantity: str, arguments: argparse.Namespace) -> tuple[np.ndarray, list[str]]:
    """Standard deviations [n, M]: those of the file, where it has none or none that can be right --sigma."""
    if arguments.sigma is not None:
        number("sigma", arguments.sigma, 0.0, above=True)
    values = epochs.links[quantity]
    given = epochs.links.get("std", np.full_like(values, np.nan))
    lacking = np.isfinite(values) & ~(given > 0)
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
