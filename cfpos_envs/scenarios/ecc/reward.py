"""How a round is judged: by the simulated truth, or without labels by reports and CSI that agree."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.physics.ecc.csi import subcarrier_offsets_hz, to_array_frame
from cfpos_envs.physics.similarity import masked_mean
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.scenarios.ecc.state import EccState

AGREEMENT_SHARE = 0.2
"""Reports this share of the area's half side apart agree by half."""
GAIN_SCALE_DB = 3.0
"""A gain this far from that of a free line of sight agrees by half; blocked links are far further off."""
WEIGHTS = {"reports": 0.2, "gains": 0.3, "signatures": 0.5}
"""Reports that are all the same agree whatever they say, so what was measured must count for more."""
_LEAST_DISTANCE_M = 1.0


def error_reward(system: CsiSystem, state: EccState, fused_m: Float[Tensor, "B J 3"]) -> Float[Tensor, "B J"]:
    """Minus the distance of the fused report from the truth, in units of the area's half side. Privileged."""
    true_position = state.now(state.true_position_m)
    # The root has no slope at zero.
    squared = (fused_m - true_position).square().sum(dim=-1)
    return -(squared + 1e-12).sqrt() / system.scale_m


def consistency(
    system: CsiSystem,
    state: EccState,
    bs_positions_m: Float[Tensor, "L 3"],
    bs_orientation_rad: Float[Tensor, "L 3"],
    reports_m: Float[Tensor, "B L J 3"],
    fused_m: Float[Tensor, "B J 3"],
) -> Float[Tensor, "B J"]:
    """Label-free quality in [0, 1] of a round; differentiable in reports and fused report.

    The weighted mean (``WEIGHTS``) of three agreements, each a mean over the links with a path:
    of the reports with the fused one, 1 / (1 + (distance / c)^2);
    of the measured gains with those of a free line of sight from the fused report, g^2 = T A N (lambda / 4 pi d)^2,
    1 / (1 + (dB / c)^2), bounded, so that blocked links lower the score by the same anywhere;
    of the measured CSI with that of a free line of sight, see ``signature_share``.

    Args:
        system: known constants.
        state: with the measurements.
        bs_positions_m, bs_orientation_rad: of the base stations.
        reports_m, fused_m: see ``fusion.fuse``.
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
    explained = signature_share(system, state.now(state.sequence_mean_csi), way, bs_orientation_rad)
    terms = {"reports": agree, "gains": fit, "signatures": explained}
    total = torch.stack([WEIGHTS[name] * values for name, values in terms.items()]).sum(dim=0)
    return masked_mean(total, valid)


def signature_share(
    system: CsiSystem,
    csi: Complex[Tensor, "*batch A N"],
    way_m: Float[Tensor, "*batch 3"],
    orientation_rad: Float[Tensor, "*#batch 3"],
) -> Float[Tensor, "*batch"]:
    """Share in [0, 1] of the power of CSI that one path along a way explains.

    |a(u)^H H b(tau)^*|^2 / (A N ||H||^2) with the array response a of the way's direction and the tones b of its delay:
    a matched filter, whatever the gain and the phase. It needs clocks that agree.

    Args:
        system: known constants.
        csi: one slot, or the average of the slots.
        way_m: from the array to the point.
        orientation_rad: of the array.
    """
    distance = (way_m.square().sum(dim=-1, keepdim=True) + 1e-6).sqrt()
    local = to_array_frame((way_m / distance).unsqueeze(-2), orientation_rad).squeeze(-2)
    array = system.response(local)
    offsets = subcarrier_offsets_hz(system.num_subcarriers, system.subcarrier_spacing_hz).to(distance)
    phase = (-2 * math.pi / SPEED_OF_LIGHT_M_S) * distance * offsets
    tones = torch.polar(torch.ones_like(phase), phase)
    inner = (array.conj().unsqueeze(-2) @ csi @ tones.conj().unsqueeze(-1)).flatten(-3).abs().square()
    power = torch.view_as_real(csi).square().sum(dim=(-1, -2, -3))
    return inner.squeeze(-1) / (system.num_antennas * system.num_subcarriers * power).clamp(min=1e-30)
