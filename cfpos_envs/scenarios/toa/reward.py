"""Label-free reward: how well a position explains the measured ranges, and who gets the credit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cfpos_envs.physics.similarity import agreement, masked_mean
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.scenarios.ap_game import Played, counterfactual_credit
from cfpos_envs.scenarios.toa.state import ToaState

REWARDS = {
    "similarity": "agreement of the measured ranges with the fused point, judged by all measured links",
    "held-out": "agreement of the measured ranges with the fused point, judged by APs that took no part in the fusion",
    "error": "-log(error / m + 0.1) by the simulated truth (privileged, for studies)",
}
ERROR_FLOOR_M = 0.1


def similarity_at(state: ToaState, position_m: Tensor, offset_m: Tensor, judges: Tensor) -> Tensor:
    """Mean agreement [B, K] of the judging links with a position; 0 where there is none. Differentiable in both.

    Every judging link counts the same, whatever weight it had in the fusion: throwing links away gains nothing.

    Args:
        state: the measurements.
        position_m: [B, K, 2].
        offset_m: [B, K] clock offset, 0 with a common clock.
        judges: [B, M, K] links that count.
    """
    _, slant = unit_vectors_to(state.ap_positions_m, state.height_diff_m, position_m)
    z = (state.range_m - slant - offset_m.unsqueeze(1)) / state.std_m
    return masked_mean(agreement(z).transpose(1, 2), judges.transpose(1, 2))


def log_error(state: ToaState, position_m: Tensor) -> Tensor:
    """-log(error / 1 m + 0.1) [B, K] of the simulated truth."""
    error = torch.linalg.vector_norm(position_m - state.now(state.true_position_m), dim=-1)
    return -torch.log(error + ERROR_FLOOR_M)


def objective(state: ToaState, kind: str, position_m: Tensor, offset_m: Tensor) -> Tensor:
    """[B, K] what the reward ``kind`` of the config judges an estimate by, differentiable in it; see ``REWARDS``."""
    if kind == "error":
        return log_error(state, position_m) + 0 * offset_m
    return similarity_at(state, position_m, offset_m, state.judges)


def reward(state: ToaState, kind: str, moved: Mapping[str, Tensor], changes: Tensor) -> Played:
    """Rewards and label-free metrics of a round.

    Args:
        state: before the round.
        kind: ``reward`` of the config.
        moved: fields of the next state, ``consensus_m`` and ``offset_m`` among them.
        changes: [B, M, K, 3] what every AP has changed of both by not acting neutrally.
    """
    position_m, offset_m = moved["consensus_m"], moved["offset_m"]
    similarity = similarity_at(state, position_m.detach(), offset_m.detach(), state.judges).mean(dim=-1)
    with torch.enable_grad():
        leaf = torch.cat((position_m, offset_m.unsqueeze(-1)), dim=-1).detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(state, kind, leaf[..., :2], leaf[..., 2]).sum(), leaf)
    return Played(
        moved=moved,
        entity_rewards=counterfactual_credit(gradient, changes.detach()),
        objective=objective(state, kind, position_m, offset_m),
        similarity=similarity,
        score=similarity,
    )
