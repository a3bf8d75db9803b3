"""Inverses and closed forms of the CSI chain that the tests compare with."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.ecc.csi import normalise_gain, stabilise_phase


def unstack_real(stacked: Float[Tensor, "*batch T A N 2"]) -> Complex[Tensor, "*batch T A N"]:
    """Inverse of ``stack_real``."""
    return torch.view_as_complex(stacked.contiguous())


def unflatten_slots(flat: Float[Tensor, "*batch TA N 2"], num_slots: int) -> Float[Tensor, "*batch T A N 2"]:
    """Inverse of ``flatten_slots``."""
    return flat.unflatten(-3, (num_slots, -1))


def encoder_input(csi: Complex[Tensor, "*batch T A N"], stabilise: str = "per-entry") -> Float[Tensor, "*batch TA N 2"]:
    """What a BS's encoder sees, (15): normalised, phase-stabilised, real.

    Args:
        csi: estimated CSI of one BS and snapshot.
        stabilise: see ``reference_phase``.

    Raises:
        ValueError: unknown ``stabilise``.
    """
    return flatten_slots(stack_real(stabilise_phase(normalise_gain(csi), stabilise)))


def lmmse_error_covariance(
    covariance: Complex[Tensor, "*links N A A"], pilot_power_w: float, noise_power_w: float
) -> Float[Tensor, "*links N"]:
    """Mean squared error of (4) summed over antennas if the channel has this covariance: tr(R) - tr(W x R).

    Args:
        covariance: R_{h,n}.
        pilot_power_w: |x_n|^2.
        noise_power_w: sigma^2.
    """
    power = torch.linalg.eigvalsh(covariance.to(torch.complex128)).clamp(min=0.0)
    return (power * noise_power_w / (power * pilot_power_w + noise_power_w)).sum(dim=-1).to(torch.float32)


def stack_real(csi: Complex[Tensor, "*batch T A N"]) -> Float[Tensor, "*batch T A N 2"]:
    """Real and imaginary parts as two channels, S of (13)."""
    return torch.view_as_real(csi)


def flatten_slots(stacked: Float[Tensor, "*batch T A N 2"]) -> Float[Tensor, "*batch TA N 2"]:
    """Slots and antennas in one axis, row (t - 1) A + m, R of (14)."""
    return stacked.flatten(-4, -3)
