"""Stage 1, departure: the cosines of the direct path at the base station beside the known ones of the surfaces.

With the known columns projected away, the least-squares fit of "known columns and one more" is the scalar search

    psi = argmax_x  v(x)^H P S P v(x) / max(v(x)^H P v(x), 0.05 n)

(Zhang, Wang, Tay, arXiv 2306.07504, per axis; the floor and the search over both axes at once are this project's).
Both quadratic forms are trigonometric polynomials of the diagonal sums.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.physics.ris.modes import mode_vector

from .harmonics import NEWTON_STEPS, climb, diagonal_sums, evaluate, on_grid
from .kernels import climbed

# Without it the ratio is 0/0 at a known cosine, and noise wins there.
FLOOR = 0.05
GRID_PER_ELEMENT_1D = 16
GRID_PER_ELEMENT_2D = 6
_ROUNDS = 2


def null_projector(
    columns: Complex[Tensor, "*batch n K"], present: Bool[Tensor, "*batch K"]
) -> Complex[Tensor, "*batch n n"]:
    """Projector onto the complement of the columns that are ``present``; equal columns are harmless."""
    known = columns * present.unsqueeze(-2)
    identity = torch.eye(known.shape[-2], dtype=known.dtype, device=known.device)
    if known.shape[-1] == 0:
        return identity.expand(*known.shape[:-2], *identity.shape)
    inverse = torch.linalg.pinv(known.mH @ known, hermitian=True, rtol=1e-10)
    return identity - known @ inverse @ known.mH


def departure_1d(
    covariance: Complex[Tensor, "*batch n n"],
    slope: float,
    known: Float[Tensor, "*batch K"],
    present: Bool[Tensor, "*batch K"],
) -> Float[Tensor, "*batch"]:
    """Unknown cosine on one axis.

    Args:
        covariance: S of that axis.
        slope: w of the mode.
        known: cosines of the surfaces on that axis.
        present: which surfaces are seen.
    """
    n = covariance.shape[-1]
    null = null_projector(mode_vector(known, n, slope).mT, present)
    seen, left = diagonal_sums(null @ covariance @ null), diagonal_sums(null)
    points = GRID_PER_ELEMENT_1D * n + 1
    grid = torch.linspace(-1.0, 1.0, points, dtype=known.dtype, device=known.device)
    ratio = on_grid(seen, slope, grid) / on_grid(left, slope, grid).clamp(min=FLOOR * n)
    best = grid[ratio.argmax(dim=-1)]
    return climb_ratio(seen, left, slope, FLOOR * n, best, 2.0 / (points - 1))


def departure_2d(
    covariance: Complex[Tensor, "*batch n n"],
    shape: tuple[int, int],
    slopes: tuple[float, float],
    known: Float[Tensor, "*batch K 2"],
    present: Bool[Tensor, "*batch K"],
) -> Float[Tensor, "*batch 2"]:
    """Both unknown cosines at once; survives a collision with a surface on one axis.

    Args:
        covariance: S over the whole array, first axis slow.
        shape: elements per axis; their product exceeds K.
        slopes: w of the two modes.
        known: cosines of the surfaces.
        present: which surfaces are seen.
    """
    vectors = [mode_vector(known[..., axis], shape[axis], slopes[axis]) for axis in range(2)]
    columns = (vectors[0].unsqueeze(-1) * vectors[1].unsqueeze(-2)).flatten(-2).mT
    null = null_projector(columns, present)
    seen, left = (_diagonal_sums_2d(matrix, shape) for matrix in (null @ covariance @ null, null))
    floor = FLOOR * shape[0] * shape[1]
    grids = [torch.linspace(-1.0, 1.0, GRID_PER_ELEMENT_2D * n, dtype=known.dtype, device=known.device) for n in shape]
    inside = grids[0].square().unsqueeze(-1) + grids[1].square() <= 1.0
    ratio = _on_grid_2d(seen, slopes, grids) / _on_grid_2d(left, slopes, grids).clamp(min=floor)
    best = torch.where(inside, ratio, -torch.inf).flatten(-2).argmax(dim=-1)
    found = [grids[0][best // len(grids[1])], grids[1][best % len(grids[1])]]
    for _ in range(_ROUNDS):
        for axis in range(2):
            other = 1 - axis
            lines = [_along(polynomial, axis, slopes[other], found[other]) for polynomial in (seen, left)]
            step = float(grids[axis][1] - grids[axis][0])
            found[axis] = climb_ratio(lines[0], lines[1], slopes[axis], floor, found[axis], step)
    return torch.stack(found, dim=-1)


def climb_ratio(
    seen: Complex[Tensor, "*batch lags"],
    left: Complex[Tensor, "*batch lags"],
    slope: float,
    floor: float,
    start: Float[Tensor, "*batch"],
    step: float,
) -> Float[Tensor, "*batch"]:
    """Maximum of seen(x) / max(left(x), floor) within ``step`` of ``start`` and within [-1, 1].

    Args:
        seen, left: trigonometric polynomials, see ``harmonics``.
        slope: w.
        floor: of the denominator.
        start, step: bracket.
    """

    def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
        top, top_1, top_2 = evaluate(seen, slope, x)
        below, below_1, below_2 = evaluate(left, slope, x)
        free = below > floor
        below = below.clamp(min=floor)
        return top_1 * below - free * top * below_1, top_2 * below - free * top * below_2

    start = start.unsqueeze(-1)
    low, high = (start - step).clamp(min=-1.0), (start + step).clamp(max=1.0)
    found = climbed(seen, left, slope, (low, high), NEWTON_STEPS, floor)
    return (climb(slopes, low, high) if found is None else found).squeeze(-1)


def _diagonal_sums_2d(matrix: Tensor, shape: tuple[int, int]) -> Tensor:
    """[*batch, lags of axis 1, lags of axis 2] of a matrix over both axes."""
    blocks = matrix.unflatten(-1, shape).unflatten(-3, shape)  # [..., i1, i2, j1, j2]
    first = diagonal_sums(blocks.movedim((-4, -2), (-2, -1)))  # [..., i2, j2, lags 1]
    return diagonal_sums(first.movedim(-1, -3))


def _waves(lag_count: int, slope: float, at: Tensor) -> Tensor:
    """``exp(j w k x)`` [*at, lags]."""
    half = lag_count // 2
    k = torch.arange(-half, half + 1, dtype=at.dtype, device=at.device) * slope
    return torch.polar(torch.ones((), dtype=at.dtype, device=at.device), at.unsqueeze(-1) * k)


def _on_grid_2d(polynomial: Tensor, slopes: tuple[float, float], grids: list[Tensor]) -> Tensor:
    rows = _waves(polynomial.shape[-2], slopes[0], grids[0])
    columns = _waves(polynomial.shape[-1], slopes[1], grids[1])
    return (rows @ polynomial @ columns.mT).real


def _along(polynomial: Tensor, axis: int, other_slope: float, other: Tensor) -> Tensor:
    """The polynomial of one axis with the other held fixed."""
    turned = polynomial if axis == 0 else polynomial.mT
    return (turned @ _waves(turned.shape[-1], other_slope, other).unsqueeze(-1)).squeeze(-1)
