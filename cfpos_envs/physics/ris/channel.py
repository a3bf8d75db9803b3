"""Powers of the paths and of what scatters around them, pilots, and the received block.

    Y_n = sum_l g_l a_U(theta_l) a_B(psi_l)^H d(tau_l)_n + fading + noise

after the pilots are removed. Links of base station and surface have a line of sight alone, the others are Rician:
kappa / (1 + kappa) of the power in the path, the rest scattered.

Source: Zhang, Wang, Tay, arXiv 2306.07504, signal model. Path loss beta(r) = (lambda / 4 pi)^2 r^-exponent and fading
that is independent over subcarriers are our choices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.ris.geometry import RisPaths
from cfpos_envs.physics.ris.modes import BS_MODES, DELAY_MODE, UE_MODES


@dataclass(frozen=True)
class Propagation:
    """How power decays and scatters.

    Attributes:
        wavelength_m: lambda.
        exponent_los, exponent_ris: of base station to UE; of both hops over a surface.
        kappa_bs, kappa_ris: Rician factors (ratio of powers) of base station to UE, of surface to UE.
    """

    wavelength_m: float
    exponent_los: float
    exponent_ris: float
    kappa_bs: float
    kappa_ris: float


def large_scale_gain(
    distance_m: Float[Tensor, "*batch"], exponent: float, wavelength_m: float
) -> Float[Tensor, "*batch"]:
    """beta(r) = (lambda / 4 pi)^2 r^-exponent, the ratio of received to sent power between single antennas.

    Args:
        distance_m: r > 0.
        exponent: 2 in free space.
        wavelength_m: lambda.
    """
    return (wavelength_m / (4 * math.pi)) ** 2 * distance_m.pow(-exponent)


def link_gains(paths: RisPaths, propagation: Propagation) -> Float[Tensor, "*batch L"]:
    """Mean power of every path before the surface's array gain: beta of the line of sight, beta beta over a surface.

    Args:
        paths: of ``geometry.trace_paths``.
        propagation: path loss.
    """
    wavelength = propagation.wavelength_m
    los = large_scale_gain(paths.range_m[..., :1], propagation.exponent_los, wavelength)
    hops = (paths.range_m[..., 1:], paths.first_hop_m[..., 1:])
    first, second = (large_scale_gain(hop, propagation.exponent_ris, wavelength) for hop in hops)
    return torch.cat((los, first * second), dim=-1)


def specular_amplitudes(paths: RisPaths, propagation: Propagation) -> Float[Tensor, "*batch L"]:
    """|g_l| before the array gain of the surface: sqrt(power kappa / (1 + kappa)).

    Args:
        paths, propagation: see ``link_gains``.
    """
    kappa = _rician(paths, propagation)
    return (link_gains(paths, propagation) * kappa / (1 + kappa)).sqrt()


def fading_variances(paths: RisPaths, propagation: Propagation, num_elements: int) -> Float[Tensor, "*batch L"]:
    """Variance that each path's scattering has in every entry of the received block.

    beta / (1 + kappa) for the line of sight; N_R beta beta / (1 + kappa) over a surface, whose N_R elements scatter
    independently, so that its profile makes no difference.

    Args:
        paths, propagation: see ``link_gains``.
        num_elements: N_R.
    """
    scattered = link_gains(paths, propagation) / (1 + _rician(paths, propagation))
    return torch.cat((scattered[..., :1], num_elements * scattered[..., 1:]), dim=-1)


def path_gains(
    amplitudes: Float[Tensor, "*batch L"], phase_rad: Float[Tensor, "*#batch L"], gains: Complex[Tensor, "*#batch R"]
) -> Complex[Tensor, "*batch L"]:
    """g_0 = |g_0| exp(j phi_0), g_r = amplitude exp(j phi_r) rho_r.

    Args:
        amplitudes: of ``specular_amplitudes``.
        phase_rad: phi_l.
        gains: array gains rho_r of the surfaces.
    """
    turned = torch.polar(amplitudes, phase_rad.expand_as(amplitudes))
    return torch.cat((turned[..., :1], turned[..., 1:] * gains), dim=-1)


def estimate_noise_variance(noise_w: float, num_bs_antennas: int, num_slots: int, power_w: float) -> float:
    """Variance of the noise per entry once the pilots are removed, sigma^2 N_B / (G P).

    Args:
        noise_w: sigma^2, noise power per received sample.
        num_bs_antennas, num_slots: N_B and G.
        power_w: P.
    """
    return noise_w * num_bs_antennas / (num_slots * power_w)


def received_block(
    vectors: tuple[Complex[Tensor, "*batch L _n"], ...],
    gains: Complex[Tensor, "*batch L"],
    scattered: Complex[Tensor, "*batch R U1 U2 N"],
    white: Complex[Tensor, "*batch U1 U2 B1 B2 N"],
) -> Complex[Tensor, "*batch U1 U2 B1 B2 N"]:
    """Y: paths, what scatters between surfaces and UE, and everything white.

    What comes over surface r left the base station in one known direction, scattered or not: f_{r,n} a_B(omega_r)^H.

    Args:
        vectors: of ``modes.steering``.
        gains: g_l.
        scattered: f_r, already at its variance.
        white: fading of the line of sight plus noise; its precision is the result's.
    """
    u1, u2, n = (vectors[m].shape[-1] for m in (*UE_MODES, DELAY_MODE))
    at_ue = (vectors[0].unsqueeze(-1) * vectors[1].unsqueeze(-2)).flatten(-2) * gains.unsqueeze(-1)
    arriving = (at_ue.unsqueeze(-1) * vectors[DELAY_MODE].unsqueeze(-2)).to(white.dtype)
    over_ris = arriving[..., 1:, :, :] + scattered.flatten(-3, -2)
    arriving = torch.cat((arriving[..., :1, :, :], over_ris), dim=-3).movedim(-3, -2)
    first, second = (vectors[m] for m in BS_MODES)
    departing = (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2).to(white.dtype)
    block = departing.mT.unsqueeze(-3) @ arriving
    return block.reshape(*gains.shape[:-1], u1, u2, first.shape[-1], second.shape[-1], n) + white


def complex_normal(generator: draws.Source, *size: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    """Circular normal numbers of variance 1.

    Args:
        generator: where to draw from, and on which device.
        size: shape.
        dtype: complex type.
    """
    return draws.complex_normal(generator, *size, dtype=dtype)


def _rician(paths: RisPaths, propagation: Propagation) -> Tensor:
    kappa = torch.full_like(paths.range_m, propagation.kappa_ris)
    kappa[..., 0] = propagation.kappa_bs
    return kappa
