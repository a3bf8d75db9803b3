"""Two base stations and two UEs: what each base station, both, and a measured distance between the UEs are worth."""

from __future__ import annotations

import dataclasses
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ris.common import Trials, draw_trials, readable_log, rms, trials_remark
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.physics.ris import information
from cfpos_envs.scenarios.ris.world import pair_information

SNR_DB = (-10.0, 0.0, 10.0, 20.0, 30.0)
LINKS_M = (0.05, 0.005, 0.002)
_POLICY = "ris-wls"
_SCENE: dict[str, Any] = {"num_bs": 2, "num_ues": 2, "sector_deg": 10.0, "phases": "balanced"}


def run(effort: Effort) -> Outcome:
    """RMSE over both UEs beside the bound of the same information; sectors of 10 degrees around their middle."""
    rows: list[dict[str, Any]] = []
    for snr_db in progress(effort.chosen(SNR_DB), "SNR"):
        for link_m in (None, *effort.chosen(LINKS_M)):
            rows += _rows(effort, snr_db, link_m)
    return Outcome(rows, _curves(rows), [trials_remark(effort), "Links measure all three coordinates of p_1 - p_2."])


def _rows(effort: Effort, snr_db: float, link_m: float | None) -> list[dict[str, Any]]:
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for trials in draw_trials(effort, snr_db=snr_db, link_std_m=link_m, **_SCENE):
        whole = trials.measurements
        if link_m is None:
            for station in range(2):
                alone = _alone(whole, station)
                bound = _bound_alone(trials, station)
                found.setdefault(f"base station {station + 1}", []).append((_error(trials, alone), bound))
        label = "both" if link_m is None else f"both and a link of {1e3 * link_m:g} mm"
        found.setdefault(label, []).append((_error(trials, whole), trials.peb_m))
    rows = []
    for label, parts in found.items():
        error, bound = (torch.cat([part[i] for part in parts]) for i in range(2))
        values = {"rmse_mm": 1e3 * rms(error), "peb_mm": 1e3 * rms(bound), "rmse/bound": rms(error) / rms(bound)}
        rows.append({"snr_db": snr_db, "who": label, **values, "UE 1: peb_mm": 1e3 * rms(bound[:, 0])})
    return rows


def _error(trials: Trials, measured: RisMeasurements) -> Tensor:
    policy: Any = make_policy(_POLICY)
    return trials.error_m(policy.locate(measured))


def _alone(measured: RisMeasurements, station: int) -> RisMeasurements:
    """What one base station gives."""
    one = slice(station, station + 1)
    return dataclasses.replace(
        measured, bs_positions_m=measured.bs_positions_m[:, one], received=measured.received[:, :, one], siso=None
    )


def _bound_alone(trials: Trials, station: int) -> Tensor:
    pairs = pair_information(trials.config, trials.scene, trials.phases)[:, :, station]
    return information.bounds(pairs)[0]


def _curves(rows: list[dict[str, Any]]) -> Figure:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for index, label in enumerate(dict.fromkeys(row["who"] for row in rows)):
        chosen, colour = [row for row in rows if row["who"] == label], OKABE_ITO[index]
        snr_db = [row["snr_db"] for row in chosen]
        axes.plot(snr_db, [row["rmse_mm"] for row in chosen], "osv^DP"[index], color=colour, label=label, markersize=5)
        axes.plot(snr_db, [row["peb_mm"] for row in chosen], ":", color=colour)
    axes.set(xlabel="SNR [dB]", ylabel="position RMSE of both UEs [mm]", title=f"{_POLICY}; dotted: bound")
    readable_log(axes)
    axes.grid(True, which="major", color="#E4E4E4")
    axes.legend(fontsize=8)
    return figure
