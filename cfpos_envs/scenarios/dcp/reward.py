"""Label-free rewards: what an AP earns for the similarity of measurements and predictions at a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.scenarios.ap_game import Played, counterfactual_credit
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.fusion import DcpFused
from cfpos_envs.scenarios.dcp.similarity import Judge
from cfpos_envs.scenarios.dcp.state import DcpState

REWARDS = {
    "local": "similarity of the AP's own report minus that of the consensus",
    "shared": "gain in similarity of the fused point, the same for every AP",
    "counterfactual": "M grad(similarity) . (fused point - fused point with this AP neutral)",
    "held-out": "as counterfactual, judged by APs that took no part in the fusion",
    "held-out-shared": "as shared, judged by APs that took no part in the fusion",
}


def reward(
    config: DcpConfig,
    state: DcpState,
    judge: Judge,
    reports_m: Tensor | None,
    fused: DcpFused,
    moved: Mapping[str, Tensor],
) -> Played:
    """Rewards and label-free metrics of a round: see ``REWARDS`` and ``counterfactual_credit``.

    With the paper's own similarity ``local`` is that of the report alone, as printed.

    Args:
        config, state, judge: the game, its state, and who compares points with the measurements.
        reports_m: [B, M, K, 2] where each AP says that the users are, for ``local``.
        fused, moved: what the central unit made of that, and the fields of the next state.
    """
    judges = state.readings.judge_shares if config.num_held_out else None
    found = _judge_fused(config, judge, judges, fused, moved["consensus_m"])
    with torch.no_grad():
        entity_rewards = _entity_rewards(config, state, judge, judges, reports_m, fused, found)
    return Played(
        moved=moved,
        entity_rewards=entity_rewards,
        objective=found.objective,
        similarity=found.similarity.mean(dim=-1),
        score=found.score.mean(dim=-1),
    )


@dataclass(frozen=True)
class _Found:
    """Of the fused point: objective, similarity and score [B, K], and gradient [B, K, 2] where somebody asks for it."""

    objective: Tensor
    similarity: Tensor
    score: Tensor
    gradient: Tensor | None


def _judge_fused(config: DcpConfig, judge: Judge, judges: Tensor | None, fused: DcpFused, fused_m: Tensor) -> _Found:
    # The scale of robust moves with the estimate, so that scores of different estimates could not be compared;
    # cauchy has fixed scales and takes its place. That of paper is normalised over the users.
    kinds = {"robust": ("robust", "cauchy"), "paper": ("paper", "log")}.get(config.similarity, (config.similarity,))
    if config.credits_counterfactual or fused_m.requires_grad:
        values, gradient = judge.with_gradient(fused_m, judges, *kinds)
        objective = values[0]
        if fused_m.requires_grad:
            # The value as it is and its slope: all that first-order ascent of the objective asks for.
            objective = objective + ((fused_m - fused_m.detach()) * gradient).sum(dim=-1)
        return _Found(objective, values[0], values[-1], gradient)
    if config.reward == "local" and len(kinds) == 1 and fused.searched is not None:
        value = fused.searched.at_best
        return _Found(value, value, value, None)
    values = tuple(value[:, 0] for value in judge.similarity(fused_m.unsqueeze(1), judges, *kinds))
    return _Found(values[0], values[0], values[-1], None)


def _entity_rewards(
    config: DcpConfig,
    state: DcpState,
    judge: Judge,
    judges: Tensor | None,
    reports_m: Tensor | None,
    fused: DcpFused,
    found: _Found,
) -> Tensor:
    """[B, M, K] rewards."""
    kind, here_m = config.similarity, state.consensus_m.unsqueeze(1)
    if config.reward == "local":
        assert reports_m is not None
        if kind == "paper":
            return judge.similarity(reports_m, judges, kind)[0]
        if fused.searched is not None and fused.searched.at_others.shape[1]:
            return fused.searched.at_others - fused.searched.at_consensus.unsqueeze(1)
        # The consensus rides along as one point more.
        (values,) = judge.similarity(torch.cat((reports_m, here_m), dim=1), judges, kind)
        return values[:, :-1] - values[:, -1:]
    if config.reward in ("shared", "held-out-shared"):
        (before,) = judge.similarity(here_m, judges, kind)
        return (found.similarity - before[:, 0]).unsqueeze(1).expand(-1, state.fused.shape[1], -1)
    assert fused.without is not None
    assert found.gradient is not None
    return counterfactual_credit(found.gradient, fused.step.unsqueeze(1) - fused.without)
