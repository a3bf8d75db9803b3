"""One round of the DCP games in torch, on any device and differentiable: decode, fuse, reward."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics import geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.scenarios.dcp import fusion, rewards
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.state import DcpState, Innovations, at_consensus


@dataclass(frozen=True)
class Round:
    """What a round gives.

    Attributes:
        consensus_m [B, K, 2], spread_m [B, K]: of the next state.
        entity_rewards [B, M, K], rewards [B, M]: per user, and their sum.
        objective [B, K], similarity [B], score [B]: label-free metrics.
    """

    consensus_m: Tensor
    spread_m: Tensor
    entity_rewards: Tensor
    rewards: Tensor
    objective: Tensor
    similarity: Tensor
    score: Tensor


def play_round(config: DcpConfig, radio: RadioModel, state: DcpState, actions: Tensor) -> Round:
    """Decode actions [B, M, K * A], fuse the reports, reward by similarity."""
    actions = actions.clamp(-1.0, 1.0).unflatten(2, (config.num_ues, -1))
    at = at_consensus(config, state)
    play = _Play(config, radio, state, at, rewards.Judge(config, radio, state, at))
    proposal = fusion.propose(config, radio, state, at, actions)
    vectors = proposal.vectors(at.links.unit)
    fused = play.fuse(proposal, vectors)
    fused_m = play.area(state.consensus_m + fused.step)
    entity_rewards, objective, after, score = play.reward(vectors, fused, fused_m)
    return Round(
        consensus_m=fused_m,
        spread_m=fusion.report_spread_m(vectors, state.fused),
        entity_rewards=entity_rewards,
        rewards=entity_rewards.sum(dim=-1),
        objective=objective,
        similarity=after.mean(dim=-1),
        score=score.mean(dim=-1),
    )


@dataclass(frozen=True)
class _Play:
    """What the parts of one round share."""

    config: DcpConfig
    radio: RadioModel
    state: DcpState
    at: Innovations
    judge: rewards.Judge

    def area(self, points_m: Tensor) -> Tensor:
        return geometry.into_area(points_m, self.radio.side_m, self.radio.wrap)

    def fuse(self, proposal: fusion.Proposal, vectors: Tensor) -> fusion.Fused:
        """What the CPU makes of the reports."""
        config, state, unit = self.config, self.state, self.at.links.unit
        neutral = fusion.neutral_proposal(config, self.radio, state, self.at) if config.credits_counterfactual else None
        if config.fusion == "information":
            step, without = fusion.information_fusion(config, unit, proposal, neutral, state.fused)
            return fusion.Fused(step, without)
        moves = None if neutral is None else neutral.vectors(unit)
        step, without = fusion.mean_fusion(vectors, moves, state.fused)
        if config.fusion == "mean":
            return fusion.Fused(step, without)
        return self._line_search(vectors, step, without)

    def _line_search(self, vectors: Tensor, step: Tensor, without: Tensor | None) -> fusion.Fused:
        config, state = self.config, self.state
        gains = torch.tensor(fusion.LINE_SEARCH_GAINS, device=step.device)
        points = self.area(state.consensus_m.unsqueeze(1) + gains.view(1, -1, 1, 1) * step.unsqueeze(1))
        # All APs judge the local reward as they judge the search: one pass over all points serves both.
        serves_reward = config.reward == "local" and config.similarity != "paper" and not vectors.requires_grad
        if serves_reward:
            points = torch.cat((points, self._reports(vectors)), dim=1)
        kind = "log" if config.similarity == "paper" else config.similarity
        (values,) = self.judge.similarity(points, state.fused_shares if config.num_held_out else None, kind)
        searched = values[:, : len(gains)]
        highest, best = searched.max(dim=1)
        kappa = gains[best].unsqueeze(-1)
        return fusion.Fused(
            step=kappa * step,
            without=None if without is None else kappa.unsqueeze(1) * without,
            at_fused=highest if serves_reward else None,
            local=values[:, len(gains) :] - values[:, :1] if serves_reward else None,
        )

    def _reports(self, vectors: Tensor) -> Tensor:
        """[B, M, K, 2] where each AP says that the users are."""
        return self.area(self.state.consensus_m.unsqueeze(1) + vectors)

    def reward(self, vectors: Tensor, fused: fusion.Fused, fused_m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rewards [B, M, K]; objective, similarity and score [B, K] of the fused point."""
        config, kind = self.config, self.config.similarity
        judges = self.state.judge_shares if config.num_held_out else None
        # The scale of robust moves with the estimate, so that scores of different estimates could not be compared;
        # cauchy has fixed scales and takes its place. That of paper is normalised over the users.
        kinds = {"robust": ("robust", "cauchy"), "paper": ("paper", "log")}.get(kind, (kind,))
        gradient = None
        if config.credits_counterfactual or fused_m.requires_grad:
            values, gradient = self.judge.with_gradient(fused_m, judges, *kinds)
        elif fused.at_fused is not None and len(kinds) == 1:
            values = (fused.at_fused,)
        else:
            values = tuple(value[:, 0] for value in self.judge.similarity(fused_m.unsqueeze(1), judges, *kinds))
        after = objective = values[0]
        if gradient is not None and fused_m.requires_grad:
            # The value as it is and its slope: all that first-order ascent of the objective asks for.
            objective = after + ((fused_m - fused_m.detach()) * gradient).sum(dim=-1)
        with torch.no_grad():
            return self._entity_rewards(vectors, fused, after, gradient, judges), objective, after, values[-1]

    def _entity_rewards(
        self, vectors: Tensor, fused: fusion.Fused, after: Tensor, gradient: Tensor | None, judges: Tensor | None
    ) -> Tensor:
        if self.config.reward == "local":
            return self._local_reward(vectors, fused, judges)
        if self.config.reward in ("shared", "held-out-shared"):
            (before,) = self.judge.similarity(self.state.consensus_m.unsqueeze(1), judges, self.config.similarity)
            return (after - before[:, 0]).unsqueeze(1).expand(-1, vectors.shape[1], -1)
        assert fused.without is not None
        assert gradient is not None
        return rewards.counterfactual_credit(gradient, fused.step, fused.without)

    def _local_reward(self, vectors: Tensor, fused: fusion.Fused, judges: Tensor | None) -> Tensor:
        """[B, M, K] what each AP's own report is worth; beside the consensus unless the paper's own reward is asked."""
        if fused.local is not None:
            return fused.local
        reports, kind = self._reports(vectors), self.config.similarity
        if kind == "paper":
            return self.judge.similarity(reports, judges, kind)[0]
        # The consensus rides along as one point more.
        (values,) = self.judge.similarity(
            torch.cat((reports, self.state.consensus_m.unsqueeze(1)), dim=1), judges, kind
        )
        return values[:, :-1] - values[:, -1:]
