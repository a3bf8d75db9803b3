"""Stage 1, spatial separation: covariances of the block, one signature per path, noise-corrected path energies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.physics.ris.modes import BS_MODES, mode_vector

# Smallest noise that double precision can tell from none, relative to the whole power.
_ROUNDING = 1e-15


@dataclass(frozen=True)
class Covariances:
    """S = Y_(m) Y_(m)^H of a block unfolded over the user's array, the base station's array and the subcarriers.

    Attributes:
        ue [T, U, U], bs [T, B, B], subcarriers [T, N, N]: in double precision; both axes of an array together.
    """

    ue: Complex[Tensor, "T U U"]
    bs: Complex[Tensor, "T B B"]
    subcarriers: Complex[Tensor, "T N N"]


def covariances(received: Complex[Tensor, "T U1 U2 B1 B2 N"]) -> Covariances:
    """The three covariances; products in the precision of the block, results in double precision."""
    u1, u2, b1, b2, n = received.shape[1:]
    block = received.reshape(-1, u1 * u2, b1 * b2, n)
    by_ue, by_subcarrier = block.flatten(2), block.flatten(1, 2)
    by_bs = block.transpose(1, 2).flatten(2)
    return Covariances(
        ue=(by_ue @ by_ue.mH).to(torch.complex128),
        bs=(by_bs @ by_bs.mH).to(torch.complex128),
        subcarriers=(by_subcarrier.mH @ by_subcarrier).conj().to(torch.complex128),
    )


def axis_covariance(
    covariance: Complex[Tensor, "T n n"], shape: tuple[int, int], axis: int
) -> Complex[Tensor, "T n1 n1"]:
    """S of one axis of an array: the other one is summed over."""
    blocks = covariance.unflatten(-1, shape).unflatten(-3, shape)  # [T, i1, i2, j1, j2]
    traced = blocks.diagonal(dim1=-3, dim2=-1) if axis == 0 else blocks.diagonal(dim1=-4, dim2=-2)
    return traced.sum(dim=-1)


def noise_variance(bs: Complex[Tensor, "T B B"], present: Int[Tensor, " T"], columns: int) -> Float[Tensor, " T"]:
    """Noise per entry: the mean of the B - L smallest eigenvalues of the covariance over the base station's array.

    At least rounding noise, so that nothing divides by zero where there is none.

    Args:
        bs: S over ``columns`` columns.
        present: L of every trial, less than B.
        columns: U N.
    """
    values = torch.linalg.eigvalsh(bs).flip(-1)
    below = torch.arange(values.shape[-1], device=bs.device) >= present.unsqueeze(-1)
    mean = (values * below).sum(dim=-1) / below.sum(dim=-1)
    return torch.maximum(mean, _ROUNDING * values.sum(dim=-1)) / columns


@dataclass(frozen=True)
class Separation:
    """What belongs to each path.

    Attributes:
        signatures [T, L, U, N]: Z = A^+ Y, one block per path over the user's array and subcarriers.
        energy [T, L]: its energy, less that of the noise if corrected.
    """

    signatures: Complex[Tensor, "T L U N"]
    energy: Float[Tensor, "T L"]


def separate(
    received: Complex[Tensor, "T U1 U2 B1 B2 N"],
    departure: Float[Tensor, "T L 2"],
    present: Bool[Tensor, "T L"],
    slopes: Sequence[float],
    noise: Float[Tensor, " T"],
) -> Separation:
    """Least-squares separation by the departure cosines. Z is zero for paths that are not ``present``.

    Args:
        received: Y.
        departure: cosines at the base station of all paths.
        present: which paths there are.
        slopes: of the five modes.
        noise: variance per entry that the energies are corrected for, E_l = |Z_l|^2 - s^2 U N [(A^H A)^-1]_ll; zeros
            leave them as they are. Uncorrected energies rank paths wrongly once noise dominates.
    """
    u1, u2, b1, b2, n = received.shape[1:]
    axes = [mode_vector(departure[..., i], (b1, b2)[i], slopes[BS_MODES[i]]) for i in range(2)]
    steering = (axes[0].unsqueeze(-1) * axes[1].unsqueeze(-2)).flatten(-2).mT  # [T, B, L]
    inverse_gram, pseudo_inverse = masked_pseudo_inverse(steering, present)
    block = received.reshape(-1, u1 * u2, b1 * b2, n)
    signatures = (pseudo_inverse.to(block.dtype).unsqueeze(1) @ block).transpose(1, 2).to(torch.complex128)
    power = (signatures.real.square() + signatures.imag.square()).sum(dim=(-1, -2))
    spread = inverse_gram.diagonal(dim1=-2, dim2=-1).real
    return Separation(signatures, power - noise.unsqueeze(-1) * (u1 * u2 * n) * spread * present)


def masked_pseudo_inverse(
    steering: Complex[Tensor, "T n L"], present: Bool[Tensor, "T L"]
) -> tuple[Complex[Tensor, "T L L"], Complex[Tensor, "T L n"]]:
    """(A^H A)^-1 and A^+ of the present columns; rows of absent ones are zero in the second, 1 in the first."""
    known = steering * present.unsqueeze(-2)
    gram = known.mH @ known + torch.diag_embed((~present).to(known.dtype))
    inverse = torch.linalg.inv_ex(gram).inverse
    return inverse, inverse @ known.mH


def candidate_energy(
    covariance: Complex[Tensor, "T n n"],
    candidates: Float[Tensor, "T C"],
    exists: Bool[Tensor, "T C"],
    slope: float,
    noise: Float[Tensor, " T"],
    entries: int,
) -> Float[Tensor, "T C"]:
    """Least-squares energies of candidate parameters of one axis on its own unfolding; -inf for those that are none.

    Args:
        covariance: S of the axis.
        candidates, exists: as MUSIC found them.
        slope: w of the axis.
        noise: variance per entry to correct for.
        entries: of the whole block.
    """
    steering = mode_vector(candidates, covariance.shape[-1], slope).mT
    inverse_gram, pseudo_inverse = masked_pseudo_inverse(steering, exists)
    power = (pseudo_inverse @ covariance @ pseudo_inverse.mH).diagonal(dim1=-2, dim2=-1).real
    spread = inverse_gram.diagonal(dim1=-2, dim2=-1).real
    return torch.where(exists, power - noise.unsqueeze(-1) * (entries // covariance.shape[-1]) * spread, -math.inf)
