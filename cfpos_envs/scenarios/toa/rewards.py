"""Label-free reward: how well a position explains the measured ranges, and who gets the credit."""

from __future__ import annotations

import torch
from torch import Tensor

from cfpos_envs.physics.similarity import masked_mean
from cfpos_envs.physics.timing_bounds import unit_vectors_to
from cfpos_envs.scenarios.toa.state import ToaState

ERROR_FLOOR_M = 0.1
KERNEL = "cauchy"


def agreement(z: Tensor) -> Tensor:
    if KERNEL == "cauchy":
        return -torch.log1p(z.square())
    if KERNEL == "geman":
        return 1 / (1 + z.square() / 4)
    if KERNEL == "multi":
        return sum(1 / (1 + (z / c).square()) for c in (2.0, 6.0, 20.0)) / 3
    if KERNEL == "trunc":
        return 1 - torch.log1p(z.square() / 4) / torch.log1p(torch.tensor(1e6))
    raise ValueError


def similarity_at(state: ToaState, position_m: Tensor, offset_m: Tensor, judges: Tensor) -> Tensor:
    _, slant = unit_vectors_to(state.ap_positions_m, state.height_diff_m, position_m)
    z = (state.range_m - slant - offset_m.unsqueeze(1)) / state.std_m
    return masked_mean(agreement(z).transpose(1, 2), judges.transpose(1, 2))


def log_error(state: ToaState, position_m: Tensor) -> Tensor:
    """-log(error / 1 m + 0.1) [B, K] of the simulated truth."""
    error = torch.linalg.vector_norm(position_m - state.now(state.true_position_m), dim=-1)
    return -torch.log(error + ERROR_FLOOR_M)


def counterfactual_credit(gradient: Tensor, step: Tensor, step_without: Tensor) -> Tensor:
    """Linearised counterfactual per AP: M grad(s) . (x' - x' with AP m neutral), [B, M, K].

    Args:
        gradient: [B, K, D] of the reward at the fused estimate.
        step: [B, K, D] change of the estimate.
        step_without: [B, M, K, D] the same with AP m neutral.
    """
    return step_without.shape[1] * (gradient.unsqueeze(1) * (step.unsqueeze(1) - step_without)).sum(dim=-1)
