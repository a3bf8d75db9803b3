"""Stage 1, gains and refinement: Gauss-Newton on the likelihood of the whole block, all parameters of all paths.

A search per axis leaves out what the other axes know: its standard deviation exceeds the bound by sqrt(1 + 1/(M rho)),
M elements, rho the path's SNR per entry. A few of these steps take the factor away.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.physics.ris.information import fisher
from cfpos_envs.physics.ris.modes import (
    DELAY_MODE,
    correlate_derivatives,
    derivative,
    focus_delay,
    mode_vector,
    steering,
)

from ..least_squares import scaled_inverse
from .kernels import serves, stepped

_PARAMETERS = 5


def free_parameters(paths: int, device: torch.device | None = None) -> Int[Tensor, " n"]:
    """Where the n = 5 + 3R unknowns stand in flattened [L, 5] parameters: all of path 0, no departure of the others."""
    others = [_PARAMETERS * path + mode for path in range(1, paths) for mode in (0, 1, 4)]
    return torch.tensor([0, 1, 2, 3, 4, *others], device=device)


def masked_information(
    sizes: Sequence[int],
    slopes: Sequence[float],
    parameters: Float[Tensor, "T L 5"],
    gains: Complex[Tensor, "T L"],
    present: Bool[Tensor, "T L"],
) -> Float[Tensor, "T m m"]:
    """Fisher information of the n + 2L unknowns for noise variance 1; identity for those of absent paths.

    The information of a subset of the paths is the block of these paths, so nothing else has to change.
    """
    one = torch.ones(parameters.shape[:-2], dtype=parameters.dtype, device=parameters.device)
    full = fisher(sizes, slopes, parameters, gains, one)
    known = unknowns_present(present)
    full = torch.where(known.unsqueeze(-1) & known.unsqueeze(-2), full, 0.0)
    return full + torch.diag_embed((~known).to(full.dtype))


def unknowns_present(present: Bool[Tensor, "T L"]) -> Bool[Tensor, "T m"]:
    """Which of the n + 2L unknowns belong to present paths."""
    free = free_parameters(present.shape[-1], present.device) // _PARAMETERS
    return torch.cat((present[..., free], present, present), dim=-1)


def least_squares_gains(
    vectors: Sequence[Complex[Tensor, "T L _n"]], matched: Complex[Tensor, "T L"], present: Bool[Tensor, "T L"]
) -> Complex[Tensor, "T L"]:
    """Gains g = (Hadamard product of the Gram matrices V_q^H V_q)^-1 v(l)^H Y; zero for absent paths.

    Args:
        vectors: steering of every mode, double precision.
        matched: v(l)^H Y.
        present: which paths there are.
    """
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    gram = vectors[0].new_ones(())
    for mode in vectors:
        gram = gram * (mode.conj() @ mode.mT)
    gram = gram * both + torch.diag_embed((~present).to(matched.dtype))
    right = (matched * present).unsqueeze(-1)
    return torch.linalg.solve_ex(gram, right).result.squeeze(-1)


def refine(
    received: Complex[Tensor, "T U1 U2 B1 B2 N"],
    sizes: Sequence[int],
    slopes: Sequence[float],
    parameters: Float[Tensor, "T L 5"],
    present: Bool[Tensor, "T L"],
    steps: int,
) -> tuple[Float[Tensor, "T L 5"], Complex[Tensor, "T L"]]:
    """Parameters after ``steps`` Gauss-Newton steps, and the gains that belong to them.

    Args:
        received: Y.
        sizes, slopes: of the five modes.
        parameters: start; departures of paths 1..R are known and stay.
        present: which paths there are; the others are left alone with zero gain.
        steps: 0 solves for the gains only. A step is at most half a resolution cell in every parameter.
    """
    move = _step if serves(received) else step_by_tables
    gains = torch.zeros_like(present, dtype=torch.complex128)
    for step in range(steps + 1):
        parameters, gains = move(received, sizes, slopes, parameters, present, step < steps)
    return parameters, gains


def _step(
    received: Tensor, sizes: Sequence[int], slopes: Sequence[float], parameters: Tensor, present: Tensor, moves: bool
) -> tuple[Tensor, Tensor]:
    """``step_by_tables`` in compiled code, but for the passes over the samples."""
    size, slope = sizes[DELAY_MODE], slopes[DELAY_MODE]
    vector = mode_vector(parameters[..., DELAY_MODE], size, slope)
    if moves:
        both = torch.cat((vector, derivative(vector, slope)), dim=-2)
        focused, delayed = focus_delay(received, both).to(torch.complex128).chunk(2, dim=-3)
    else:
        focused, delayed = focus_delay(received, vector).to(torch.complex128), None
    return stepped(focused, delayed, sizes, slopes, parameters, present)


def step_by_tables(
    received: Complex[Tensor, "T U1 U2 B1 B2 N"],
    sizes: Sequence[int],
    slopes: Sequence[float],
    parameters: Float[Tensor, "T L 5"],
    present: Bool[Tensor, "T L"],
    moves: bool,
) -> tuple[Float[Tensor, "T L 5"], Complex[Tensor, "T L"]]:
    """Gains at the parameters and, if it ``moves``, the parameters after a step from there, by torch's operations."""
    vectors = steering(sizes, slopes, parameters)
    matched, matched_slopes = correlate_derivatives(received, vectors, slopes)
    matched, matched_slopes = matched.to(torch.complex128), matched_slopes.to(torch.complex128)
    gains = least_squares_gains(vectors, matched, present)
    if not moves:
        return parameters, gains
    free = free_parameters(parameters.shape[-2], parameters.device)
    cell = torch.tensor([torch.pi / abs(w) / n for n, w in zip(sizes, slopes)], dtype=parameters.dtype)
    limit = cell.to(parameters.device)[free % _PARAMETERS]
    information = masked_information(sizes, slopes, parameters, gains, present)
    linear = torch.cat((gains.real, gains.imag), dim=-1).unsqueeze(-1)
    n = len(free)
    uphill = 2.0 * (gains.conj().unsqueeze(-1) * matched_slopes).real.flatten(-2)[..., free]
    uphill = uphill - (information[..., :n, n:] @ linear).squeeze(-1)
    # The gains are solved for already: their part of the right side is zero.
    moved = (scaled_inverse(information)[..., :n, :n] @ uphill.unsqueeze(-1)).squeeze(-1)
    moved = torch.where(torch.isfinite(moved), moved, 0.0).clamp(min=-limit, max=limit)
    flat = parameters.flatten(-2).clone()
    flat[..., free] += moved * present[..., free // _PARAMETERS]
    parameters = flat.unflatten(-1, (-1, _PARAMETERS))
    return torch.cat((parameters[..., :4].clamp(-1.0, 1.0), parameters[..., 4:]), dim=-1), gains
