"""What clock errors cost: RMSE of the three families over the errors of the APs' clocks and of the users' clock."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cfpos.scripts.experiments.common import Effort, Outcome, baselines, compare, progress
from cfpos_envs.drawing.figures import OKABE_ITO

CLOCK_NS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
FAMILIES = {"toa-v0": "toa-wls", "tdoa-v0": "tdoa-wls", "rtt-v0": "rtt-wls"}
LIMIT_M = 3.0
_SITE: dict[str, Any] = {"site": "clear", "layout": "grid", "shadowing_db": 0.0, "num_ues": 8}
_WHOSE = {
    "APs": ("sync_std_s", {"ue_clock_std_s": 0.0}),
    "user": ("ue_clock_std_s", {"sync_std_s": 0.0}),
}
"""Whose clock errs -> (setting that is swept, what is kept)."""


def run(effort: Effort) -> Outcome:
    """Weighted least squares of every family, which know the APs' clock error but never the users'."""
    rows: list[dict[str, Any]] = []
    for whose, (setting, kept) in _WHOSE.items():
        for clock_ns in progress(effort.chosen(CLOCK_NS), f"clock of the {whose}"):
            for env_id, policy in FAMILIES.items():
                # A UE that clocks its own reply enters the round trip only by what it reports of it.
                env = {**_SITE, **kept, setting: clock_ns * 1e-9}
                if env_id == "rtt-v0":
                    env["processing_error_std_s"] = 0.0
                result = compare(env_id, baselines(env_id, effort, {policy: (policy, {})}, env), effort, env)[policy]
                bound = {"bound_m": result.bound_rmse, "rmse/bound": result.efficiency}
                rows.append({"clock of": whose, "clock_ns": clock_ns, "policy": policy, "rmse_m": result.rmse, **bound})
    return Outcome(rows, _curves(rows), [_crossing(rows, policy) for policy in FAMILIES.values()])


def _crossing(rows: list[dict[str, Any]], policy: str) -> str:
    """Where the RMSE over the APs' clock error passes the limit (interpolated in logarithms), and its slope."""
    chosen = [row for row in rows if row["clock of"] == "APs" and row["policy"] == policy]
    clock, rmse = (np.log([row[name] for row in chosen]) for name in ("clock_ns", "rmse_m"))
    slope_m_per_ns = float(np.exp(rmse[-1] - clock[-1]))
    text = f"{policy}: {slope_m_per_ns:.3f} m per ns of the APs' clocks at {chosen[-1]['clock_ns']:g} ns"
    if rmse[0] < np.log(LIMIT_M) < rmse[-1]:
        text += f"; {LIMIT_M:g} m at {float(np.exp(np.interp(np.log(LIMIT_M), rmse, clock))):.1f} ns"
    return text + "."


def _curves(rows: list[dict[str, Any]]) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axes, whose in zip(panels, _WHOSE):
        _draw(axes, [row for row in rows if row["clock of"] == whose], whose)
    panels[0].set_ylabel("position RMSE [m]")
    panels[0].legend()
    return figure


def _draw(axes: Axes, rows: list[dict[str, Any]], whose: str) -> None:
    for index, policy in enumerate(FAMILIES.values()):
        chosen = [row for row in rows if row["policy"] == policy]
        clock = [row["clock_ns"] for row in chosen]
        axes.plot(clock, [row["rmse_m"] for row in chosen], "os^"[index] + "-", color=OKABE_ITO[index], label=policy)
        if whose == "APs":
            axes.plot(clock, [row["bound_m"] for row in chosen], ":", color=OKABE_ITO[index])
    axes.axhline(LIMIT_M, color="black", linewidth=0.8, linestyle="--")
    title = f"clock error of the {whose}" + (" (dotted: bound)" if whose == "APs" else "")
    axes.set(xscale="log", yscale="log", xlabel="standard deviation [ns]", title=title)
    axes.grid(True, which="major", color="#E4E4E4")
