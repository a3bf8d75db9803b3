"""Scans of received power and a survey to positions: fingerprints."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from cfpos.baselines import Fingerprint
from cfpos.baselines.dcp.floors import score
from cfpos.baselines.dcp.held_out import held_out
from cfpos.scripts.cli import UsageError
from cfpos.scripts.locating.common import Located, drawn_site, of_file, pairs, refuse_unused, renamed
from cfpos_envs.files.positions import Positions
from cfpos_envs.files.site_formats import value_names
from cfpos_envs.files.sites import load_site
from cfpos_envs.files.surveys import SurveyTable, read_survey
from cfpos_envs.files.tables import column_names
from cfpos_envs.measurements.base import PositionEstimate

NAME, REGRESSION = "fingerprint", "gpr"
_OF_FILES = ("layout", "columns", "not_heard")


def located(arguments: argparse.Namespace) -> Located:
    """Read survey and scans, and locate.

    Raises:
        ValueError: whatever the files or the options have that cannot be.
        OSError: a file cannot be read.
    """
    if arguments.survey is None:
        raise UsageError("fingerprint compares with powers at known places: --survey FILE (columns x_m, y_m, rss_AP)")
    if arguments.policy not in (None, NAME, REGRESSION):
        raise UsageError(
            f"--policy {arguments.policy} reads no survey; leave --survey out, or use {NAME} or {REGRESSION}"
        )
    options = pairs(arguments.option, "--option")
    if arguments.policy == REGRESSION:
        options.setdefault("matching", REGRESSION)
    layout = str(options.get("layout", "plain"))
    columns = renamed(arguments.columns)
    name = REGRESSION if options.get("matching") == REGRESSION else NAME
    if arguments.unit != "m":
        options.setdefault("range_unit", arguments.unit)
    site = None if arguments.site is None else load_site(arguments.site, columns)
    used = _columns_of(arguments.survey[0], columns, layout)
    named = _columns_of(arguments.measurements, columns, layout)
    if layout != "ipin":
        files = (*arguments.survey[:1], arguments.measurements)
        own = {} if site is None else {arguments.site.name: value_names(arguments.site)}
        refuse_unused(columns, {**{path.name: column_names(path) for path in files}, **own})
    # A layout has its own way with bad readings, unless the command says to drop them.
    bad = {"on_bad": "drop"} if arguments.on_bad == "drop" else {}
    told = {**bad, "not_heard": tuple(arguments.missing), **options}
    estimator = Fingerprint.from_csv(arguments.survey, **{**told, **({"columns": used} if used else {})})
    if layout == "plain":
        named = _with_truth(arguments.measurements, named)
    scans = read_survey(
        arguments.measurements,
        layout,
        named or None,
        tuple(arguments.missing),
        range_unit=arguments.unit,
    )
    if not np.isfinite(scans.rss_dbm).any() and scans.range_m is None:
        raise UsageError(
            f"{scans.file} has no reading in {len(scans)} scans: all are empty or mean that nothing was heard; look at "
            "the columns (--columns) and at what stands for missing (--missing)"
        )
    estimate = estimator.locate(scans)
    floors = getattr(estimate, "floors", None)
    origin = None
    if site is not None and site.geo_origin is not None:
        origin = site.geo_origin.moved((-torch.tensor(site.origin_m)).tolist())
    table = Positions.from_estimate(
        estimate,
        user=None if scans.ids is None else np.array(scans.ids),
        time_s=scans.time_s,
        floor=None if floors is None else ["" if label is None else label for label in floors],
        policy=name,
        truth_m=scans.positions_m,
        geo_origin=origin,
    )
    notes = [*_unknown(scans, estimator), *_scored(estimate, scans)]
    few = "the scan hears no access point of the survey by its name; see --columns and --missing"
    return Located(table, name, **drawn_site(site), notes=tuple(notes), advice={"too_few_links": few})


def _unknown(scans: SurveyTable, estimator: Fingerprint) -> list[str]:
    """Access points of the scans that the survey does not know, or the other way round: perhaps misspelt."""
    ours, theirs = set(estimator.ap_names or ()), set(scans.ap_names or ())
    said = [("the scans'", "survey", sorted(theirs - ours)), ("the survey's", "scans", sorted(ours - theirs))]
    return [
        f"{len(names)} of {whose} access points are not in the {other}, and not compared: {', '.join(names[:3])}"
        + (", ..." if len(names) > 3 else "")
        for whose, other, names in said
        if names
    ]


def held_out_located(arguments: argparse.Namespace) -> Located:
    """The scans of a survey, each located from other places and other devices.

    Raises:
        ValueError: whatever the files or the options have that cannot be.
        OSError: a file cannot be read.
    """
    if arguments.survey is None or arguments.measurements is not None:
        raise UsageError("--held-out locates the scans of --survey FILE; give that, and no --measurements")
    options = pairs(arguments.option, "--option")
    layout, columns = str(options.get("layout", "plain")), renamed(arguments.columns)
    scans = read_survey(arguments.survey, layout, columns or None, tuple(arguments.missing), range_unit=arguments.unit)
    if arguments.on_bad == "drop":
        options = {"on_bad": "drop", **options}
    estimate = held_out(scans, arguments.held_out, **options)
    table = Positions.from_estimate(
        estimate,
        user=None if scans.ids is None else np.array(scans.ids),
        time_s=scans.time_s,
        floor=None if estimate.floors is None else ["" if label is None else label for label in estimate.floors],
        policy=NAME,
        truth_m=scans.positions_m,
    )
    apart = "places" if scans.devices is None else "places and devices"
    notes = (f"every scan located from other {apart} ({arguments.held_out} parts)", *_scored(estimate, scans))
    return Located(table, NAME, notes=notes)


def _columns_of(file: Path, columns: Mapping[str, str | None], layout: str) -> dict[str, str | None]:
    """The new names of columns that a file has: survey and scans need not have the same."""
    return dict(columns) if layout == "ipin" else of_file(columns, column_names(file))


def _with_truth(path: Path, columns: dict[str, str | None]) -> dict[str, str | None]:
    """Scans say where they were taken as other measurements do."""
    header = column_names(path)
    truth = {f"truth_{axis}_m": f"{axis}_m" for axis in "xy"}
    given = {old: new for old, new in truth.items() if old in header and new not in (*header, *columns.values())}
    return {**given, **columns}


def _scored(estimate: PositionEstimate, scans: SurveyTable) -> list[str]:
    """Mean error, which floors are compared by in the field, and how often floor and building are right."""
    if scans.positions_m is None or scans.floors is None:
        return []
    return [str(score(estimate, scans.positions_m, scans.floors, scans.buildings))]
