"""Bearings of single links from the covariance of their array: spectra over a grid of directions, refined peaks."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.arrays import angle_grid, profile_peak, ula_response
from cfpos_envs.physics.dcp.model import RadioModel

METHODS = ("music", "beamscan")


def covariance_bearings(
    covariance: Complex[Tensor, "*batch L L"], radio: RadioModel, method: str, num_angles: int
) -> Float[Tensor, "*batch"]:
    """Bearing to the array's axis in [0, pi] (a ULA cannot tell front from back) where a spectrum is highest.

    NaN where the matrix is zero or not finite: that array measured nothing.

    Args:
        covariance: R of the channel estimate.
        radio: gives the array.
        method: ``music`` or ``beamscan``.
        num_angles: directions of the spectrum between 0 and pi, >= 3; a parabola refines between them.
    """
    grid = angle_grid(num_angles, covariance.device)
    steering = ula_response(grid, radio.num_antennas, radio.spacing_wavelengths).to(covariance.dtype)
    measured = torch.isfinite(torch.view_as_real(covariance.resolve_conj())).flatten(-3).all(dim=-1)
    measured &= torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1) > 0
    white = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    harmless = torch.where(measured[..., None, None], covariance, white)
    spectrum = music_spectrum if method == "music" else beamscan_spectrum
    return torch.where(measured, profile_peak(spectrum(harmless, steering))[0], torch.nan)


def beamscan_spectrum(
    covariance: Complex[Tensor, "*batch L L"], steering: Complex[Tensor, "A L"]
) -> Float[Tensor, "*batch A"]:
    """Power a(theta)^H R a(theta) / (L tr R) of the beam towards each direction, in [0, 1].

    Args:
        covariance: R of the channel estimate.
        steering: a(theta) on a grid, each of norm sqrt(L).
    """
    trace = torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
    return _beam_power(covariance / trace[..., None, None], steering) / steering.shape[-1]


def music_spectrum(
    covariance: Complex[Tensor, "*batch L L"], steering: Complex[Tensor, "A L"], num_sources: int = 1
) -> Float[Tensor, "*batch A"]:
    """MUSIC in logarithms, -log(||E_n^H a(theta)||^2 / L), E_n the eigenvectors of the L - S smallest eigenvalues.

    Source: R. O. Schmidt, IEEE Trans. Antennas Propag. 34 (1986); the logarithm is smooth enough near the peak for
    the parabola that refines it.

    Args:
        covariance: R of the channel estimate.
        steering: a(theta) on a grid, each of norm sqrt(L).
        num_sources: S, 1 <= S < L.
    """
    # The signal subspace is the smaller one: ||E_n^H a||^2 = ||a||^2 - ||E_s^H a||^2.
    scale = covariance.abs().amax(dim=(-2, -1), keepdim=True)
    signal = torch.linalg.eigh(covariance / scale).eigenvectors[..., -num_sources:]
    # A sum of squares: where nearly all is caught, the rounding of a sum over all entries would show in the difference.
    caught = (steering.conj() @ signal).abs().square().sum(dim=-1) / steering.shape[-1]
    return -torch.log((1.0 - caught).clamp(min=1e-6))


def _beam_power(
    covariance: Complex[Tensor, "*batch L L"], steering: Complex[Tensor, "A L"]
) -> Float[Tensor, "*batch A"]:
    """a^H R a of every direction: linear in the entries of R, so one real product with all of them."""
    pairs = steering.conj().unsqueeze(-1) * steering.unsqueeze(-2)
    # Re(R w) = Re R Re w - Im R Im w.
    weights = torch.view_as_real(pairs.conj().resolve_conj()).flatten(1)
    entries = torch.view_as_real(covariance.resolve_conj()).flatten(-3)
    return entries @ weights.mT
