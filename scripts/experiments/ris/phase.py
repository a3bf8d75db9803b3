"""Surfaces in sectors of 5, 10 and 20 degrees: what agents make of the beam gain and of the bound, beside designs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from cfpos.baselines import make_policy
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import OKABE_ITO, new_figure

ENV_ID = "ris-phase-v0"
SECTORS_DEG = (5.0, 10.0, 20.0)
NUM_ENVS = 32
_RAW: dict[str, Any] = {"action": "raw", "rounds": 1, "feedback": "none"}
_MODEL: dict[str, Any] = {"critic": "model", "lr_actor": 2e-3, "saturation_penalty": 0.0}
AGENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "agents, no feedback": (_RAW, _MODEL),
    "agents, energies reported": ({"rounds": 4, "feedback": "energy"}, {}),
    "agents, position reported": ({"rounds": 2, "feedback": "position"}, {}),
}
"""Label -> (environment overrides, agent overrides)."""
DESIGNS = {"SVD": "ris-svd", "chirp": "ris-chirp", "random": "random"}


def run(effort: Effort) -> Outcome:
    """Train ``seeds`` policies per sector and kind; play them and the designs on the same unseen users."""
    effort = dataclasses.replace(effort, num_envs=NUM_ENVS)
    if effort.is_quick:
        effort = dataclasses.replace(effort, small={"ris_shape": [6, 6]}, num_envs=8)
    sectors = effort.chosen(SECTORS_DEG)
    jobs = {
        (label, sector, seed): Job(ENV_ID, seed, {"sector_deg": sector, **env}, agent)
        for label, (env, agent) in AGENTS.items()
        for sector in sectors
        for seed in range(effort.seeds)
    }
    train_ahead(list(jobs.values()), effort, "training")
    rows: list[dict[str, Any]] = []
    for sector in progress(sectors, "sectors"):
        for label, name in DESIGNS.items():
            env = {"sector_deg": sector, **_RAW}
            rows += _rows(sector, label, [_played(effort, env, make_policy(name, _test_env(effort, env)))])
        for label, (env, _) in AGENTS.items():
            env = {"sector_deg": sector, **env}
            chosen = [jobs[label, sector, seed] for seed in range(effort.seeds)]
            agents = [train(ENV_ID, effort, job.seed, job.env, job.agent) for job in chosen]
            rows += _rows(sector, label, [_played(effort, env, agent) for agent in agents])
    remark = (
        f"{ENV_ID}, surfaces of 16 x 16 elements, SNR 10 dB; gain = |rho|^2 over N_R^2, its mean in power and of the "
        f"decibels; agents: {effort.seeds} seeds, means over them, and the range of the 5 % quantile over them."
    )
    return Outcome(rows, _figure(rows, sectors), [remark])


def _test_env(effort: Effort, env: Mapping[str, Any]) -> Any:
    return make_env(ENV_ID, num_envs=effort.episodes, seed=EVALUATION_SEED, **effort.env(**env, split="test"))


def _played(effort: Effort, env: Mapping[str, Any], policy: Any) -> list[dict[str, torch.Tensor]]:
    """What is true after every round of unseen episodes."""
    venv = _test_env(effort, env)
    observations, truths = venv.reset(), []
    policy.reset()
    for _ in range(venv.rounds):
        observations = venv.step(policy.act_batch(observations)).observations
        truths.append(venv.truth())
    return truths


def _rows(sector: float, label: str, plays: list[list[dict[str, torch.Tensor]]]) -> list[dict[str, Any]]:
    """One line per round: means over the seeds."""
    lines = []
    for index in range(len(plays[0])):
        gains = [play[index]["beam_gain_db"].flatten().numpy() for play in plays]
        bounds = [play[index]["peb_m"].flatten().numpy() for play in plays]
        low = [float(np.quantile(gain, 0.05)) for gain in gains]
        lines.append(
            {
                "sector_deg": sector,
                "profiles": label,
                "round": index + 1,
                "gain_mean_db": float(np.mean([10 * np.log10(np.mean(10 ** (gain / 10))) for gain in gains])),
                "mean_of_db": float(np.mean(gains)),
                "gain_5%_db": float(np.mean(low)),
                "lowest_5%_db": min(low),
                "highest_5%_db": max(low),
                "peb_median_mm": 1e3 * float(np.mean([np.median(bound) for bound in bounds])),
                "peb_mean_mm": 1e3 * float(np.mean(bounds)),
                "peb_95%_mm": 1e3 * float(np.mean([np.quantile(bound, 0.95) for bound in bounds])),
                "seeds": len(plays),
            }
        )
    return lines


def _figure(rows: list[dict[str, Any]], sectors: Any) -> Figure:
    """Last rounds: mean gain with a line down to the 5 % quantile, and the bound's median with a line up to 95 %."""
    labels = list(dict.fromkeys(row["profiles"] for row in rows))
    with new_figure(10.0, 4.4) as (figure, whole):
        figure.delaxes(whole)
        axes, other = figure.subplots(1, 2)
        for index, label in enumerate(labels):
            lines = [[row for row in rows if (row["profiles"], row["sector_deg"]) == (label, s)][-1] for s in sectors]
            places = np.arange(len(sectors)) + 0.12 * (index - (len(labels) - 1) / 2)
            for panel, middle, end in ((axes, "gain_mean_db", "gain_5%_db"), (other, "peb_median_mm", "peb_95%_mm")):
                values, ends = ([line[name] for line in lines] for name in (middle, end))
                panel.vlines(places, values, ends, color=OKABE_ITO[index], alpha=0.5, linewidth=3)
                panel.plot(places, values, "o", color=OKABE_ITO[index], label=label)
        axes.set(ylabel="beam gain [dB]: mean, down to the 5 % quantile")
        other.set(ylabel="position error bound [mm]: median, up to 95 %", yscale="log")
        for panel in (axes, other):
            panel.set_xticks(range(len(sectors)), [f"±{sector:g}°" for sector in sectors])
            panel.set_xlabel("sector")
            panel.grid(True, axis="y")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=len(labels))
    return figure
