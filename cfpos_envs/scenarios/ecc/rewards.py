"""How a round is judged: by the simulated truth, or without labels by reports and gains that agree."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cfpos_envs.csi_measurements import CsiSystem
from cfpos_envs.physics.similarity import masked_mean
from cfpos_envs.scenarios.ecc.state import EccState

AGREEMENT_SHARE = 0.1
"""Reports this share of the area's half side apart agree by half."""
GAIN_SCALE_DB = 6.0
"""A gain this far from that of a free line of sight agrees by half; blocked links are far further off."""
_LEAST_DISTANCE_M = 1.0


def error_reward(system: CsiSystem, state: EccState, fused_m: Tensor) -> Tensor:
    """Minus the distance [B, J] of the fused report from the truth, in units of the area's half side. Privileged."""
    true_position = state.now(state.true_position_m)
    # The root has no slope at zero.
    squared = (fused_m - true_position).square().sum(dim=-1)
    return -(squared + 1e-12).sqrt() / system.scale_m


def consistency(
    system: CsiSystem, state: EccState, bs_positions_m: Tensor, reports_m: Tensor, fused_m: Tensor
) -> Tensor:
    """Label-free quality [B, J] in [0, 1] of a round; differentiable in reports and fused report.

    Half of it is the mean agreement of the reports with the fused one, half the mean agreement of the measured gains
    with those of a free line of sight from the fused report, g^2 = T A N (lambda / 4 pi d)^2. Both kernels,
    1 / (1 + (x / c)^2), are bounded: links that are blocked lower the score by the same anywhere.

    Args:
        system: known constants.
        state: with the gains.
        bs_positions_m: [L, 3].
        reports_m: [B, L, J, 3].
        fused_m: [B, J, 3].
    """
    valid = state.now(state.sequence_valid)  # [B, J, L]
    apart_m = (reports_m - fused_m.unsqueeze(1)).transpose(1, 2)
    agree = 1.0 / (1.0 + apart_m.square().sum(dim=-1) / (AGREEMENT_SHARE * system.scale_m) ** 2)
    way = fused_m.unsqueeze(2) - bs_positions_m
    distance = (way.square().sum(dim=-1) + _LEAST_DISTANCE_M**2).sqrt()
    entries = system.num_slots * system.num_antennas * system.num_subcarriers
    expected_db = 10 * math.log10(entries) + 20 * torch.log10(system.wavelength_m / (4 * math.pi) / distance)
    measured_db = 20 * torch.log10(state.now(state.sequence_gain).clamp(min=1e-30))
    fit = 1.0 / (1.0 + ((measured_db - expected_db) / GAIN_SCALE_DB).square())
    return 0.5 * (masked_mean(agree, valid) + masked_mean(fit, valid))
