"""What the users report of the surfaces' paths, and what a configured reward makes of the profiles."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.ris.information import root_trace
from cfpos_envs.scenarios.base import at_round
from cfpos_envs.scenarios.ris_phase.beams import to_db
from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.fusion import LOST_M, efficient_estimate_m
from cfpos_envs.scenarios.ris_phase.state import RisPhaseState
from cfpos_envs.scenarios.ris_phase.world import played_from_m, position_covariance_m2

_NEAREST_M = 1e-3


def reported_energies_db(state: RisPhaseState, gain: Float[Tensor, "B R J"]) -> Float[Tensor, "B R J"]:
    """Energies of the paths as the UEs find them, relative to the full gain."""
    return to_db((gain.sqrt() + at_round(state.report_noise, state.round)).abs().square())


def utility(config: RisPhaseConfig, state: RisPhaseState, gain: Float[Tensor, "B R J"]) -> Float[Tensor, "B R"]:
    """What the configured reward measures, without the noise of what is reported; differentiable.

    Args:
        config, state: the game.
        gain: power of the array gains over N_R^2.
    """
    if config.reward == "energy":
        return to_db(gain).mean(dim=-1) / 10
    covariance = position_covariance_m2(config, state, gain)
    if config.reward == "bound":
        value = -root_trace(covariance).clamp(max=LOST_M).log()
    else:
        gap = efficient_estimate_m(state, covariance) - played_from_m(state)
        value = -(torch.linalg.vector_norm(gap, dim=-1) + _NEAREST_M).log()
    return value.mean(dim=-1, keepdim=True).expand(-1, config.num_ris).to(torch.float32)
