"""Covariances of linear arrays as moments of the scattered wave around its strongest beam.

Beams that weigh the antennas by orthogonal polynomials of their place, steered to a direction, answer to one power each
of the distance from that direction: the covariance of their outputs is a matrix of moments. Its triangular factor holds
how far the wave's middle is off, how wide it is, how skew, and so on, in this order, and needs no eigendecomposition.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.physics.arrays import angle_grid, profile_peak, ula_response
from cfpos_envs.physics.dcp.covariance import kernel

_NUM_ANGLES = 181
_LOADING = 1e-6
"""Of the trace: a covariance in single precision is known to about a tenth of that."""
_LEAST_WIDTH = 1e-4
MOST_SNR_DB = 75.0
LEAST_SNR_DB = -10.0


@dataclass(frozen=True)
class LinkMoments:
    """Of N links.

    Attributes:
        values: F numbers per link: logarithms of the pivots, the unit triangular factor below its diagonal, the widths
            that follow from it, sine and cosine of the beam, SNR in tens of dB.
        beam_rad: direction of the strongest beam in [0, pi].
        mirrored: links with a beam beyond pi / 2, of which ``values`` describes the mirror image pi - theta.
    """

    values: Float[Tensor, "N F"]
    beam_rad: Float[Tensor, " N"]
    mirrored: Bool[Tensor, " N"]


def link_moments(
    covariance: Complex[Tensor, "N L L"], snr_db: Float[Tensor, " N"], spacing_wavelengths: float
) -> LinkMoments:
    """Moments of every link; scale does not matter.

    With D = diag(a(beam)) about the array's middle and polynomial beams Q, S = Re(Q^H D^H R D Q) / tr R. The real part
    is that of the matrix averaged forward and backward, what remains is zero in the mean for any waves.

    Args:
        covariance: R of the channel estimate, positive semidefinite and not zero.
        snr_db: of signal and noise over the noise; only its range -10 .. 75 dB is told apart.
        spacing_wavelengths: of the antennas.
    """
    size, device = covariance.shape[-1], covariance.device
    if kernel.serves(covariance):
        values, beam = kernel.compiled_moments(covariance, snr_db, array_tables(size, spacing_wavelengths))
        return LinkMoments(values, beam, beam > math.pi / 2)
    scale = torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
    unit = covariance.to(torch.complex64) / scale[:, None, None].to(torch.float32)
    entries = torch.view_as_real(unit.resolve_conj()).flatten(1)
    beam = profile_peak((entries @ _lag_sums(size, device)) @ _beam_table(size, spacing_wavelengths, device))[0]
    mirrored = beam > math.pi / 2
    # A wave from pi - theta has the conjugated covariance of one from theta.
    folded = torch.where(mirrored, math.pi - beam, beam)
    upright = torch.complex(unit.real, torch.where(mirrored[:, None, None], -unit.imag, unit.imag))
    place = torch.arange(size, device=device) - (size - 1) / 2
    phase = -2.0 * math.pi * spacing_wavelengths * torch.cos(folded)[:, None] * place
    beams = torch.polar(torch.ones_like(phase), phase)[:, :, None] * _polynomial_beams(size, device)
    moments = (beams.mH @ (upright @ beams)).real.double()
    factor = torch.linalg.cholesky(moments + _LOADING * torch.eye(size, device=device))
    pivots = torch.diagonal(factor, dim1=-2, dim2=-1)
    unit_factor = factor / pivots[:, None, :]
    row, column = torch.tril_indices(size, size, -1, device=device)
    below = unit_factor[:, row, column]
    level = snr_db.clamp(LEAST_SNR_DB, MOST_SNR_DB) / 10.0
    rest = torch.stack((torch.sin(folded), torch.cos(folded), level), dim=-1)
    return LinkMoments(
        torch.cat((pivots.log().float(), below.float(), _widths(unit_factor, pivots), rest), dim=-1), beam, mirrored
    )


@functools.lru_cache(maxsize=16)
def array_tables(size: int, spacing_wavelengths: float) -> kernel.ArrayTables:
    """What the compiled code knows of an array of so many antennas."""
    cpu = torch.device("cpu")
    return kernel.ArrayTables(
        _beam_table(size, spacing_wavelengths, cpu),
        torch.tensor(_legendre(size), dtype=torch.float32),
        _answers(size, cpu),
        2.0 * math.pi * spacing_wavelengths,
        _LOADING,
        _LEAST_WIDTH,
        (LEAST_SNR_DB, MOST_SNR_DB),
    )


def _widths(unit_factor: Float[Tensor, "N L L"], pivots: Float[Tensor, "N L"]) -> Float[Tensor, "N W"]:
    """The ratio of every pivot to the one before, as the factor foretells it: in logarithms, and over the measured one.

    Of moments m_(j+k) of one distribution the factor U obeys U_(k+2,k) = U_(k+1,k-1) + a_k U_(k+1,k) + b_(k+1)^2 with
    a_k = U_(k+1,k) - U_(k,k-1) and b_(k+1)^2 = d_(k+1) / d_k, d the squared pivots. The factor is known far better than
    the pivots, whose sampling errors are independent: how they differ tells by how much the measured power is off.
    Beams are polynomials of the distance only near their middle, so that it is no equation here and a feature instead.
    """
    size = unit_factor.shape[-1]
    answer = _answers(size, unit_factor.device)
    factor = unit_factor * (answer / answer[:, None])
    columns = []
    for k in range(size - 2):
        before = factor[:, k + 1, k - 1] if k else 0.0
        turn = factor[:, k + 1, k] - (factor[:, k, k - 1] if k else 0.0)
        told = factor[:, k + 2, k] - before - turn * factor[:, k + 1, k]
        seen = (pivots[:, k + 1] / pivots[:, k] * (answer[k] / answer[k + 1])).square()
        columns += [told.abs().clamp(min=_LEAST_WIDTH).log(), (told / seen - 1.0).clamp(-2.0, 2.0)]
    return torch.stack(columns, dim=-1).float() if columns else pivots.new_zeros(len(pivots), 0).float()


@functools.lru_cache(maxsize=16)
def _answers(size: int, device: torch.device) -> Float[Tensor, " L"]:
    """Factor of the k-th power of the phase step between antennas in the answer of the k-th polynomial beam."""
    place = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    degree = torch.arange(size)
    powers = place[:, None] ** degree / torch.exp(torch.lgamma(degree + 1.0).double())
    real = (_polynomial_beams(size, torch.device("cpu")) / torch.tensor(1j ** np.arange(size))).real.double()
    return (real * powers).sum(dim=0).to(device)


@functools.lru_cache(maxsize=16)
def _lag_sums(size: int, device: torch.device) -> Float[Tensor, "E D"]:
    """What takes the entries of a covariance to the sums of its diagonals, on which the beams of such arrays depend."""
    lag = torch.arange(size)[:, None] - torch.arange(size)
    sums = torch.zeros(size, size, 2, size, 2)
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    sums[row, column, 0, lag.abs(), 0] = 1.0
    sums[row, column, 1, lag.abs(), 1] = torch.sign(lag).float()
    return sums.view(2 * size**2, 2 * size).to(device)


@functools.lru_cache(maxsize=16)
def _beam_table(size: int, spacing_wavelengths: float, device: torch.device) -> Float[Tensor, "D A"]:
    """What takes sums of diagonals to the power of the beam to every direction."""
    return torch.view_as_real(ula_response(angle_grid(_NUM_ANGLES, device), size, spacing_wavelengths)).flatten(1).mT


@functools.lru_cache(maxsize=16)
def _polynomial_beams(size: int, device: torch.device) -> Complex[Tensor, "L L"]:
    """Orthonormal polynomials of the antennas' places by degree k, times i^k: moments of all waves become real."""
    return torch.tensor(_legendre(size) * 1j ** np.arange(size), dtype=torch.complex64, device=device)


def _legendre(size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[L, L]: Legendre's, made orthonormal over the places."""
    place = np.linspace(-1.0, 1.0, size)
    legendre, _ = np.linalg.qr(np.polynomial.legendre.legvander(place, size - 1))
    return legendre * np.sign(legendre[-1])
