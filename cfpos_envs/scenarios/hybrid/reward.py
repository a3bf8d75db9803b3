"""Label-free reward: how well a position explains ranges, directions and powers, and who gets the credit."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.similarity import agreement, masked_mean
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.scenarios.ap_game import Played, counterfactual_credit
from cfpos_envs.scenarios.hybrid.state import HybridState, residuals_at


def similarity_at(model: TimingModel, state: HybridState, points_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """Mean agreement of the judging links' measurements with a position; 0 where there is none. Differentiable."""
    agreed = agreement(residuals_at(model, state, points_m).z).mean(dim=-1)
    return masked_mean(agreed.transpose(1, 2), state.judges.transpose(1, 2))


def reward(
    model: TimingModel, state: HybridState, fused_m: Float[Tensor, "B K 2"], changes: Float[Tensor, "B M K 2"]
) -> Played:
    """Rewards and label-free metrics of a round.

    Args:
        model, state: before the round.
        fused_m: the next joint estimate.
        changes: what every AP has changed of it by not acting neutrally.
    """
    with torch.enable_grad():
        leaf = fused_m.detach().requires_grad_(True)
        judged = similarity_at(model, state, leaf)
        (gradient,) = torch.autograd.grad(judged.sum(), leaf)
    score = judged.detach().mean(dim=-1)
    return Played(
        moved={"consensus_m": fused_m},
        entity_rewards=counterfactual_credit(gradient, changes.detach()),
        objective=similarity_at(model, state, fused_m),
        similarity=score,
        score=score,
    )
