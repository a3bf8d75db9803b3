"""From path angles to what an AP measures: scattered channels, pilots, LS estimates, sample covariances, RSS."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs import draws


def path_angles(
    generator: draws.Source, angle_rad: Float[Tensor, "*batch"], num_paths: int, spread_rad: float
) -> Float[Tensor, "*batch N"]:
    """Angles theta_n of the paths of eq. (1): Laplacian around the mean with standard deviation ``spread_rad``."""
    uniform = draws.inner(draws.uniform, generator, angle_rad.shape, num_paths) - 0.5
    # The clamp keeps log away from zero at the one point in 2^24 where |u| is exactly one half.
    magnitude = -torch.log((1 - 2 * uniform.abs()).clamp(min=1e-7))
    return angle_rad.unsqueeze(-1) + (spread_rad / math.sqrt(2)) * torch.sign(uniform) * magnitude


def channel_covariance(
    angles_rad: Float[Tensor, "*batch N"], gain: Float[Tensor, "*batch"], num_antennas: int, spacing_wavelengths: float
) -> Complex[Tensor, "*batch L L"]:
    """Covariance of eq. (1) over the fading for frozen path angles: R = (beta/N) sum_n a(theta_n) a(theta_n)^H.

    R is Toeplitz for a ULA, so only its first column is computed.

    Args:
        angles_rad: path angles to the array axis.
        gain: beta, linear.
        num_antennas, spacing_wavelengths: the ULA.
    """
    # exp(j l x) by repeated products: one sine and cosine per path instead of one per path and antenna.
    phase = -2 * math.pi * spacing_wavelengths * torch.cos(angles_rad)
    step = torch.complex(torch.cos(phase), torch.sin(phase))
    power, columns = torch.ones_like(step), []
    for _ in range(num_antennas):
        columns.append(power.mean(dim=-1))
        power = power * step
    lags = torch.stack(columns, dim=-1)
    index = torch.arange(num_antennas, device=angles_rad.device)
    difference = index[:, None] - index[None, :]
    column = lags[..., difference.abs()]
    toeplitz = torch.where(difference >= 0, column, column.conj())
    return gain[..., None, None] * toeplitz


def draw_sample_covariance(
    generator: draws.Source,
    covariance: Complex[Tensor, "*batch L L"],
    snapshots: int,
    dtype: torch.dtype | None = None,
) -> Complex[Tensor, "*batch L L"]:
    """Exact draw of the sample covariance of ``snapshots`` vectors CN(0, R), without drawing the vectors.

    T * R_hat is complex Wishart with T degrees of freedom; Bartlett: R_hat = C A A^H C^H / T with R = C C^H and A lower
    triangular, |A_ii|^2 ~ Gamma(T - i), A_ij ~ CN(0, 1) for i > j. Below L snapshots (where that decomposition does
    not exist) the vectors are drawn. Same distribution as ``sample_covariance`` of ``draw_channels``; a test compares.

    Args:
        generator: source of randomness.
        covariance: R including noise, positive definite.
        snapshots: T >= 1.
        dtype: of the result; None for that of ``covariance``.
    """
    white = draw_white(generator, covariance.shape[:-2], covariance.shape[-1], snapshots)
    return sample_covariance_of(covariance, white, snapshots, dtype or covariance.dtype)


def draw_white(
    generator: draws.Source, shape: tuple[int, ...], num_antennas: int, snapshots: int
) -> Complex[Tensor, "*batch L T"]:
    """The random part of ``draw_sample_covariance``: Bartlett's triangular A, or T vectors CN(0, I) if T < L.

    Args:
        generator: source of randomness; its device is that of the result.
        shape: leading dimensions.
        num_antennas, snapshots: L and T.
    """
    size, device = num_antennas, generator.device
    if snapshots < size:
        return draws.complex_normal(generator, *shape, size, snapshots)
    below, square = draw_bartlett(generator, shape, size, snapshots)
    rows, columns = torch.tril_indices(size, size, offset=-1, device=device)
    white = torch.diag_embed(square.sqrt()).to(torch.complex64)
    white[..., rows, columns] = below
    return white


def draw_bartlett(
    generator: draws.Source, shape: tuple[int, ...], num_antennas: int, snapshots: int
) -> tuple[Complex[Tensor, "*batch N"], Float[Tensor, "*batch L"]]:
    """Bartlett's triangular matrix: the entries below its diagonal, row by row, and the squares of the diagonal.

    Args:
        generator, shape, num_antennas: see ``draw_white``.
        snapshots: T >= L.
    """
    size, device = num_antennas, generator.device
    num_below = size * (size - 1) // 2
    below = draws.inner(draws.complex_normal, generator, shape, num_below)
    degrees = snapshots - torch.arange(size, device=device, dtype=torch.float32)
    return below, draws.inner_gamma(generator, shape, degrees)


def sample_covariance_of(
    covariance: Complex[Tensor, "*batch L L"],
    white: Complex[Tensor, "*batch L T"],
    snapshots: int,
    dtype: torch.dtype = torch.complex64,
) -> Complex[Tensor, "*batch L L"]:
    """C A A^H C^H / T with R = C C^H: what ``draw_sample_covariance`` makes of its random part, row by row."""
    # Double precision whatever comes in: R is ill-conditioned when the noise floor lies far below the signal.
    factor = torch.linalg.cholesky(covariance.to(torch.complex128)).to(dtype)
    coloured = factor @ white.to(dtype)
    return coloured @ coloured.mH / snapshots


def rss_w(covariance: Complex[Tensor, "*batch L L"], tx_power_w: float, num_pilots: int) -> Float[Tensor, "*batch"]:
    """RSS of eq. (4) averaged over the snapshots: psi = p tau_p tr(R_hat), watts."""
    return tx_power_w * num_pilots * torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
