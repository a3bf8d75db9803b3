"""Uniform linear arrays: steering vectors, DFT spectra, spectra of locally scattered waves, angle profiles."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor


def ula_response(
    angle_rad: Float[Tensor, "*batch"], num_antennas: int, spacing_wavelengths: float = 0.5
) -> Complex[Tensor, "*batch L"]:
    """Steering vector [a(theta)]_l = exp(-j 2 pi (Delta/lambda) l cos(theta)), l = 0..L-1.

    Source: Liu et al. (DCP), below eq. (1); the print has lambda/Delta in one entry, a misprint.

    Args:
        angle_rad: angle to the array axis, radians.
        num_antennas: L >= 1.
        spacing_wavelengths: Delta/lambda.
    """
    index = torch.arange(num_antennas, device=angle_rad.device, dtype=angle_rad.dtype)
    phase = -2 * math.pi * spacing_wavelengths * index * torch.cos(angle_rad).unsqueeze(-1)
    return torch.polar(torch.ones_like(phase), phase)


def dft_matrix(num_antennas: int, device: torch.device | str = "cpu") -> Complex[Tensor, "L L"]:
    """[F]_ij = exp(-j 2 pi i j / L), i, j = 0..L-1. Source: Liu et al. (DCP), above eq. (5)."""
    index = torch.arange(num_antennas, device=device, dtype=torch.float32)
    phase = -2 * math.pi / num_antennas * torch.outer(index, index).remainder(num_antennas)
    return torch.polar(torch.ones_like(phase), phase)


def angular_power(covariance: Complex[Tensor, "*batch L L"]) -> Float[Tensor, "*batch L"]:
    """Mean power of the DFT beams, Theta_l = [F R F^H]_ll. Source: Liu et al. (DCP), below eq. (5).

    Args:
        covariance: (sample) covariance R of the channel estimate.
    """
    size = covariance.shape[-1]
    dft = dft_matrix(size, covariance.device).to(covariance.dtype)
    # Theta is linear in the entries of R: one real product with all of them.
    weights = torch.view_as_real((dft.unsqueeze(-1) * dft.conj().unsqueeze(-2)).conj().resolve_conj()).reshape(size, -1)
    entries = torch.view_as_real(covariance.resolve_conj()).reshape(*covariance.shape[:-2], -1)
    return entries @ weights.transpose(0, 1)


def scattered_spectra(
    angle_rad: Float[Tensor, "*batch"],
    num_antennas: int,
    spacing_wavelengths: float,
    spread_rad: float,
    quadrature: int = 512,
) -> Float[Tensor, "*batch L"]:
    """Expected angular power E|F a(theta + delta)|^2 of a unit-gain wave, delta Laplacian with std ``spread_rad``.

    Args:
        angle_rad: mean angle to the array axis, radians.
        num_antennas, spacing_wavelengths: the ULA.
        spread_rad: standard deviation of the local scattering, >= 0.
        quadrature: number of equally likely offsets that stand for the Laplacian.
    """
    offsets = laplace_quantiles(quadrature, spread_rad, angle_rad.device) if spread_rad > 0 else torch.zeros(1)
    angles = angle_rad.unsqueeze(-1) + offsets.to(angle_rad.device)
    steering = ula_response(angles, num_antennas, spacing_wavelengths)
    beams = steering @ dft_matrix(num_antennas, angle_rad.device).to(steering.dtype)
    return beams.abs().square().mean(dim=-2)


def laplace_quantiles(count: int, std: float, device: torch.device | str = "cpu") -> Float[Tensor, " count"]:
    """Mid-point quantiles of a zero-mean Laplacian with standard deviation ``std``, rescaled to that very deviation."""
    probability = (torch.arange(count, device=device, dtype=torch.float64) + 0.5) / count
    centred = probability - 0.5
    quantiles = -torch.sign(centred) * torch.log1p(-2 * centred.abs())
    return (quantiles * (std / quantiles.std(correction=0))).to(torch.float32)


def angle_grid(num_angles: int, device: torch.device | str = "cpu") -> Float[Tensor, " A"]:
    """``num_angles`` angles from 0 to pi, both included. A ULA cannot tell theta from -theta: half a turn is enough."""
    return torch.linspace(0.0, math.pi, num_angles, device=device)


def normalised_spectra(
    num_angles: int,
    num_antennas: int,
    spacing_wavelengths: float,
    spread_rad: float,
    device: torch.device | str = "cpu",
) -> Float[Tensor, "A L"]:
    """Table of unit-norm expected spectra over ``angle_grid(num_angles)``: the AOA fingerprint of each direction."""
    spectra = scattered_spectra(angle_grid(num_angles, device), num_antennas, spacing_wavelengths, spread_rad)
    return torch.nn.functional.normalize(spectra, dim=-1)


def angle_profile(spectrum: Float[Tensor, "*batch L"], table: Float[Tensor, "A L"]) -> Float[Tensor, "*batch A"]:
    """Cosine similarity of measured spectra with the table of every direction: one term of Xi^a, eq. (8), per angle.

    Computed once per measurement, it turns every later evaluation of eq. (8) into one look-up.
    """
    return torch.nn.functional.normalize(spectrum, dim=-1) @ table.transpose(0, 1)


def read_profile(profile: Float[Tensor, "*batch A"], folded_rad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Linear interpolation of an angle profile at |theta| in [0, pi]; differentiable in the angle.

    Args:
        profile: see ``angle_profile``.
        folded_rad: ``Links.folded_rad``; what lies outside [0, pi] is answered with the nearest end.
    """
    size = profile.shape[-1]
    rows = torch.arange(folded_rad.numel(), device=profile.device).view(folded_rad.shape) * size
    return read_profile_rows(profile.reshape(-1), size, rows, folded_rad)


def read_profile_rows(
    flat: Float[Tensor, " N"], size: int, row_start: Int[Tensor, "*#batch"], folded_rad: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """``read_profile`` where many angles share a profile: the profiles one after another and where each one starts.

    Args:
        flat: profiles of ``size`` entries one after another.
        size: A.
        row_start: index of the first entry of the profile that belongs to each angle.
        folded_rad: |theta| in [0, pi].
    """
    scaled = (folded_rad * ((size - 1) / math.pi)).clamp(0.0, float(size - 1))
    low = scaled.detach().floor().clamp(max=float(size - 2))
    index = (low.long() + row_start).reshape(-1)
    left = flat.index_select(0, index).view(scaled.shape)
    right = flat.index_select(0, index + 1).view(scaled.shape)
    return torch.addcmul(left, scaled - low, right - left)


def profile_peak(profile: Float[Tensor, "*batch A"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Best angle in [0, pi] and its value, refined by a parabola through the three highest neighbours."""
    last = profile.shape[-1] - 1
    value, index = profile.max(dim=-1)
    inner = index.clamp(1, last - 1).unsqueeze(-1)
    left, centre, right = (torch.gather(profile, -1, inner + shift).squeeze(-1) for shift in (-1, 0, 1))
    curvature = left - 2 * centre + right
    shift = torch.where(curvature < 0, 0.5 * (left - right) / curvature.clamp(max=-1e-12), torch.zeros_like(centre))
    # Where no parabola opens downwards (a peak on the border of a noisy profile) the grid point itself is the answer.
    coarse = (index - inner.squeeze(-1)).to(shift.dtype)
    refined = inner.squeeze(-1) + torch.where(curvature < 0, shift.clamp(-1.0, 1.0), coarse)
    return (refined * (math.pi / last)).clamp(0.0, math.pi), value
