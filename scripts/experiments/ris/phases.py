"""Profiles of the surfaces: where a design puts the power if the UE may be anywhere in a sector, and what it costs."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ris.common import Trials, draw_trials, readable_log
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.scenarios.ris.world import array_gains

DESIGNS = ("svd", "chirp", "random")
SECTORS_DEG = (5.0, 10.0, 20.0)
# The box in which UEs are drawn fills about the sector seen from a surface this far away.
_DISTANCE_M = 15.0
_POLICY = "ris-wls"


def run(effort: Effort) -> Outcome:
    """Every design with the UE at the aimed place, and in boxes as wide as the sectors; two surfaces, 10 dB."""
    rows: list[dict[str, Any]] = []
    for sector_deg in progress(effort.chosen(SECTORS_DEG), "sectors"):
        for box_m in (0.0, _DISTANCE_M * math.tan(math.radians(sector_deg))):
            for design in DESIGNS:
                rows.append(_row(effort, design, sector_deg, box_m))
    remark = (
        f"{effort.episodes} trials a row of {_POLICY}; beam gain |rho| / N_R over both surfaces and all trials; "
        "a box of half-width 0 holds the aimed place alone; random profiles differ from trial to trial."
    )
    return Outcome(rows, _panels(rows), [remark])


def _row(effort: Effort, design: str, sector_deg: float, box_m: float) -> dict[str, Any]:
    policy: Any = make_policy(_POLICY)
    gain, error, peb = [], [], []
    for trials in draw_trials(effort, phases=design, sector_deg=sector_deg, ue_box_m=box_m):
        gain.append(_gain(trials))
        error.append(trials.error_m(policy.locate(trials.measurements)).flatten())
        peb.append(trials.peb_m.flatten())
    gains, errors, bounds = torch.cat(gain), torch.cat(error), torch.cat(peb)
    return {
        "sector_deg": sector_deg,
        "box_m": box_m,
        "design": design,
        "mean_gain_db": 10 * math.log10(float(gains.square().mean())),
        "gain_5pct_db": 20 * math.log10(float(gains.quantile(0.05))),
        "peb_median_mm": 1e3 * float(bounds.median()),
        "peb_95pct_mm": 1e3 * float(bounds.quantile(0.95)),
        "error_median_mm": 1e3 * float(errors.median()),
        "error_95pct_mm": 1e3 * float(errors.quantile(0.95)),
        "median error/bound": float((errors / bounds).median()),
        "outliers": float((errors > 5 * bounds).double().mean()),
    }


def _gain(trials: Trials) -> Tensor:
    found = array_gains(trials.config, trials.scene, trials.phases).abs()
    return (found / trials.config.system.num_ris_elements).flatten()


def _panels(rows: list[dict[str, Any]]) -> Figure:
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
    wide = [row for row in rows if row["box_m"] > 0]
    for index, design in enumerate(DESIGNS):
        colour, chosen = OKABE_ITO[index], [row for row in wide if row["design"] == design]
        sectors = [row["sector_deg"] for row in chosen]
        for axes, high, low in (
            (panels[0], "mean_gain_db", "gain_5pct_db"),
            (panels[1], "peb_median_mm", "peb_95pct_mm"),
            (panels[2], "error_median_mm", "error_95pct_mm"),
        ):
            axes.plot(sectors, [row[high] for row in chosen], "o-", color=colour, label=design)
            axes.plot(sectors, [row[low] for row in chosen], "v:", color=colour)
    titles = (
        "beam gain [dB]: mean, dotted: lowest 5 %",
        "bound [mm]: median, dotted: 95 %",
        "error [mm]: median, dotted: 95 %",
    )
    for axes, title in zip(panels, titles):
        axes.set(xlabel="half-width of the sector [deg]", xticks=SECTORS_DEG)
        axes.set_title(title, fontsize=10)
        axes.grid(True, which="major", color="#E4E4E4")
    readable_log(panels[1])
    readable_log(panels[2])
    panels[0].legend(fontsize=8)
    return figure
