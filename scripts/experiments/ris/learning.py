"""How far agents get in finding position and clock: rewards and critics beside the estimator and the bound."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, bars, baselines, compare, row
from cfpos.scripts.experiments.dcp.training import Job, train, train_ahead
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import new_figure

ENV_ID = "ris-v0"
NUM_ENVS = 32
_MODEL: dict[str, Any] = {"critic": "model", "share": "shared", "lr_actor": 2e-3}
AGENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "MADDPG": ({}, {}),
    "MADDPG, reward: all energy": ({"reward": "explained"}, {}),
    "MADDPG, view: spectra": ({"observation": "spectra"}, {}),
    "MADDPG, action: absolute": ({"action": "absolute"}, {}),
    "MADDPG, reach does not shrink": ({"zoom": 1.0}, {}),
    "model critic": ({}, _MODEL),
}
"""Label -> (environment overrides, agent overrides)."""
BASELINES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in ("untrained", "ris-ls", "ris-wls")}


def run(effort: Effort) -> Outcome:
    """Train ``seeds`` agents of each kind; evaluate them and the estimators on the same unseen drops."""
    effort = dataclasses.replace(effort, num_envs=NUM_ENVS)
    if effort.is_quick:
        effort = dataclasses.replace(effort, small={"num_ues": 2, "rounds": 2}, num_envs=8)
    jobs = {
        (label, seed): Job(ENV_ID, seed, env, agent)
        for label, (env, agent) in AGENTS.items()
        for seed in range(effort.seeds)
    }
    train_ahead(list(jobs.values()), effort, "training")
    groups: dict[str, dict[str, Any]] = {
        label: {label: policy} for label, policy in baselines(ENV_ID, effort, BASELINES, {}).items()
    }
    results = compare(ENV_ID, {key: policy for group in groups.values() for key, policy in group.items()}, effort)
    for label, (env, _) in AGENTS.items():
        chosen = [jobs[label, seed] for seed in range(effort.seeds)]
        trained = [train(ENV_ID, effort, job.seed, job.env, job.agent) for job in chosen]
        groups[label] = {f"{label} #{seed}": agent for seed, agent in enumerate(trained)}
        # Rewards, views and actions differ; the drops do not.
        results.update(compare(ENV_ID, groups[label], effort, env))
    rows = []
    for label, group in groups.items():
        line = row(label, [results[key] for key in group])
        played = label in AGENTS
        line["clock_median_m"] = (
            float(np.mean([_clock_error_m(effort, AGENTS[label][0], policy) for policy in group.values()]))
            if played
            else None
        )
        rows.append(line)
    remark = f"{ENV_ID}: 2 UEs, arrays of the small preset, SNR 10 dB, chirps over ±8°; agents: {effort.seeds} seeds."
    with new_figure(7.5, 3.6) as (figure, axes):
        bars(axes, rows, "position in space with an unknown clock")
    return Outcome(rows, figure, [remark])


def _clock_error_m(effort: Effort, env: Mapping[str, Any], policy: Any) -> float:
    """Median error of the clock bias at the end of unseen episodes."""
    venv = make_env(ENV_ID, num_envs=effort.episodes, seed=EVALUATION_SEED, **effort.env(**env, split="test"))
    observations = venv.reset()
    for _ in range(venv.rounds):
        observations = venv.step(policy.act_batch(observations)).observations
    return float(venv.truth()["clock_error_m"].median())
