"""Position error bounds over the number of APs, for RSS, AOA and both, with unknown and known shadowing."""

from __future__ import annotations

from typing import Any

from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos.scripts.experiments.dcp.bounds_table import bounds_table
from cfpos_envs import make_scenario
from cfpos_envs.drawing.figures import draw_convergence, new_figure

COLUMNS = {
    "rss": "RSS, no shadowing",
    "aoa": "AOA",
    "joint": "joint, no shadowing",
    "rss_unknown": "RSS, 4 dB unknown",
    "joint_unknown": "joint, 4 dB unknown",
    "rss_known": "RSS, 4 dB known",
    "joint_known": "joint, 4 dB known",
}
_COUNTS = (16, 36, 64)
_VARIANTS: list[dict[str, Any]] = [{"num_antennas": 4}, {"num_antennas": 16}, {"angular_spread_deg": 5.0}]
_VARIANT_COUNTS = (36,)


def table(counts: tuple[int, ...], effort: Effort, **overrides: Any) -> list[dict[str, Any]]:
    """Rows of bounds in metres for the radio that the environment has with ``overrides``."""
    radio = make_scenario("dcp-jar-v0", **overrides).config.radio
    size = {"layouts": 10, "users": 2} if effort.is_quick else {}
    setting = ", ".join(f"{key}={value:g}" for key, value in overrides.items())
    rows = bounds_table(radio, counts, seed=EVALUATION_SEED, **size)
    return [
        {"M": int(row["num_aps"]), "changed": setting} | {COLUMNS[key]: row[key] for key in COLUMNS} for row in rows
    ]


def run(effort: Effort) -> Outcome:
    """The table of bounds and its picture over the number of APs."""
    rows = table(_COUNTS, effort)
    curves = {column: (list(_COUNTS), [float(line[column]) for line in rows]) for column in COLUMNS.values()}
    for variant in progress(effort.chosen(_VARIANTS), "bounds"):
        rows += table(_VARIANT_COUNTS, effort, **variant)
    with new_figure(7.0, 4.5) as (figure, axes):
        draw_convergence(axes, curves, xlabel="number of APs M", ylabel="bound, RMSE [m]")
    return Outcome(rows, figure, ["Root mean squared position error bound over random layouts and users, metres."])
