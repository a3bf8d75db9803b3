"""The pilots of DCP (1)-(3) snapshot by snapshot: what the exact Wishart draw is compared with."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.arrays import ula_response


def draw_channels(
    generator: torch.Generator,
    angles_rad: Float[Tensor, "*batch N"],
    gain: Float[Tensor, "*batch"],
    num_antennas: int,
    spacing_wavelengths: float,
    snapshots: int,
) -> Complex[Tensor, "*batch T L"]:
    """Fading realisations of eq. (1): h = sqrt(beta/N) sum_n alpha_n a(theta_n), alpha_n ~ CN(0, 1), T of them."""
    steering = ula_response(angles_rad, num_antennas, spacing_wavelengths)
    shape = (*angles_rad.shape[:-1], snapshots, angles_rad.shape[-1])
    fading = torch.randn(shape, dtype=steering.dtype, generator=generator, device=angles_rad.device)
    scale = torch.sqrt(gain / angles_rad.shape[-1])
    return scale[..., None, None] * (fading @ steering)


def pilot_book(num_pilots: int, device: torch.device | str = "cpu") -> Complex[Tensor, "T K"]:
    """Orthogonal pilots: columns phi_k of the DFT, ||phi_k||^2 = tau_p = ``num_pilots``."""
    index = torch.arange(num_pilots, device=device, dtype=torch.float32)
    phase = -2 * math.pi / num_pilots * torch.outer(index, index).remainder(num_pilots)
    return torch.polar(torch.ones_like(phase), phase)


def sample_covariance(estimates: Complex[Tensor, "*batch T L"]) -> Complex[Tensor, "*batch L L"]:
    """Average of h_hat h_hat^H over the snapshots."""
    return torch.einsum("...tl,...tm->...lm", estimates, estimates.conj()) / estimates.shape[-2]


def receive_pilots(
    generator: torch.Generator,
    channels: Complex[Tensor, "*batch K L"],
    pilots: Complex[Tensor, "T K2"],
    power_w: float,
    noise_power_w: float,
) -> Complex[Tensor, "*batch L T"]:
    """Received pilot block Y = sum_i sqrt(p) h_i phi_i^T + N, eq. (2).

    Raises:
        ValueError: if there are fewer pilots than UEs.
    """
    num_ues = channels.shape[-2]
    if num_ues > pilots.shape[1]:
        raise ValueError(f"{num_ues} UEs need {num_ues} pilots, got {pilots.shape[1]}; raise num_pilots")
    signal = math.sqrt(power_w) * torch.einsum("...kl,tk->...lt", channels, pilots[:, :num_ues])
    noise = torch.randn(signal.shape, dtype=signal.dtype, generator=generator, device=signal.device)
    return signal + math.sqrt(noise_power_w) * noise


def ls_estimate(
    received: Complex[Tensor, "*batch L T"], pilots: Complex[Tensor, "T K2"], num_ues: int, power_w: float
) -> Complex[Tensor, "*batch K L"]:
    """Least-squares channel estimates from eq. (3): h_hat_k = Y phi_k^* / (tau_p sqrt(p)) = h_k + n / sqrt(p tau_p)."""
    tau_p = pilots.shape[0]
    return torch.einsum("...lt,tk->...kl", received, pilots[:, :num_ues].conj()) / (tau_p * math.sqrt(power_w))
