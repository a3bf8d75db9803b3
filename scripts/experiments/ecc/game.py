"""Positioning from CSI as a game: MADDPG with and without labels, decentralised, beside knowing nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from cfpos.agents import make_agent
from cfpos.agents.maddpg.agent import Maddpg
from cfpos.scripts.experiments.common import EVALUATION_SEED, Effort, Outcome, progress
from cfpos_envs import make_env
from cfpos_envs.drawing.figures import draw_cdf, new_figure
from cfpos_envs.evaluation import EvaluationResult, evaluate_many
from cfpos_envs.measurements.base import PositionEstimate

ENV_ID = "ecc-urban-small-v0"
STEPS_FACTOR, NUM_ENVS, EVALUATIONS = 5, 128, 8
AGENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "MADDPG, model critic": ({}, {"critic": "model"}),
    "MADDPG": ({}, {}),
    "MADDPG, model critic, no labels": ({"reward": "consistency"}, {"critic": "model"}),
}
"""Label -> (environment overrides while training, agent overrides)."""
_SLOTS: dict[str, Any] = {"num_slots": 2}  # two of ten: users are drawn four times as fast
_QUICK: dict[str, Any] = {"num_slots": 1, "features": "cov"}


class Centre:
    """Says the centre of the area of everybody; sends nothing."""

    name = "centre of the area"
    fronthaul_bits = 0

    def locate(self, measurements: Any) -> PositionEstimate:
        """The same point for all users."""
        shape = measurements.csi.shape[:2]
        centre = torch.tensor(measurements.system.centre_m).expand(*shape, 3)
        return PositionEstimate(centre, None, torch.ones(shape, dtype=torch.bool))


def run(effort: Effort) -> Outcome:
    """Train ``seeds`` agents of each kind on users of the training split, evaluate on others in the same streets."""
    shrunk = _QUICK if effort.is_quick else _SLOTS
    groups: dict[str, list[EvaluationResult]] = {}
    groups[Centre.name] = _evaluated([Centre()], effort, shrunk)
    for label, (env, agent) in progress(list(AGENTS.items()), "training"):
        trained = [_train(effort, seed, {**shrunk, **env}, agent) for seed in range(effort.seeds)]
        groups[label] = _evaluated(trained, effort, shrunk)
    rows = [_row(label, results) for label, results in groups.items()]
    with new_figure(7.2, 4.5) as (figure, axes):
        draw_cdf(axes, {label: np.concatenate([r.errors for r in results]) for label, results in groups.items()})
    steps = _steps(effort)
    remark = (
        f"{ENV_ID}, {shrunk['num_slots']} slots; {effort.seeds} seeds, {steps} environment steps each; "
        "every base station acts on its own CSI alone "
        "and sends its reports of two rounds. 'No labels': trained by the consistency reward, which needs clocks that "
        "agree."
    )
    return Outcome(rows, figure, [remark])


def _steps(effort: Effort) -> int:
    return effort.train_steps if effort.is_quick else STEPS_FACTOR * effort.train_steps


def _train(effort: Effort, seed: int, env: dict[str, Any], agent: dict[str, Any]) -> Maddpg:
    count = effort.num_envs if effort.is_quick else NUM_ENVS
    checked: dict[str, Any] = {"validation_envs": count, "test_envs": count}
    checked["evaluations"] = 1 if effort.is_quick else EVALUATIONS
    made = make_agent("maddpg", make_env(ENV_ID, num_envs=count, seed=seed, **env), seed=seed, **checked, **agent)
    assert isinstance(made, Maddpg)
    made.train(total_steps=_steps(effort), progress=False)
    return made


def _evaluated(policies: list[Any], effort: Effort, env: dict[str, Any]) -> list[EvaluationResult]:
    return evaluate_many(ENV_ID, policies, effort.episodes, EVALUATION_SEED, **env)


def _row(label: str, results: list[EvaluationResult]) -> dict[str, Any]:
    means = [result.mean for result in results]
    return {
        "policy": label,
        "mean_m": float(np.mean(means)),
        "lowest_mean_m": min(means),
        "highest_mean_m": max(means),
        "median_m": float(np.mean([result.median for result in results])),
        "p90_m": float(np.mean([result.p90 for result in results])),
        "bits": results[0].fronthaul_bits,
    }
