"""Small least-squares problems, many at a time: the core of the iterative estimators.

A solver needs rows (what is measured, predicted and weighted), a step, a stop and a result. ``levenberg_marquardt``
finds two coordinates and perhaps an offset that all rows share, for any loss; ``gauss_newton`` any number of unknowns
of very different units from a start that is good already.

In the first every residual is e_m = r_m - d_m(p) - o with o = 0, or unknown (TDOA). Eliminating o by the weighted mean
is the same as weighting the M - 1 differences with the inverse of their full covariance D Sigma D^T, for every
reference, but needs no matrix of size M and loses no digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

STEPS = 40
MARGIN = 1.0
"""The descent may leave the area by this many sides of it; farther away all ranges look alike."""
_CONVERGED_M = 1e-7
_FIRST_DAMPING = 1e-3
_EASE, _TIGHTEN = 0.1, 5.0
_DAMPING_RANGE = (1e-12, 1e9)


@runtime_checkable
class Residuals(Protocol):
    """M rows for each of K users in B episodes.

    Attributes:
        std_m: standard deviations, [B, M, K].
        usable: rows that count, [B, M, K].
        unknown_offset: all rows of a user share an unknown offset.
    """

    @property
    def std_m(self) -> Float[Tensor, "B M K"]: ...  # noqa: D102
    @property
    def usable(self) -> Bool[Tensor, "B M K"]: ...  # noqa: D102
    @property
    def unknown_offset(self) -> bool: ...  # noqa: D102

    def at(self, points_m: Float[Tensor, "B K 2"]) -> tuple[Float[Tensor, "B M K 2"], Float[Tensor, "B M K"]]:
        """Gradients of the predictions and residuals measured - predicted."""
        ...

    def inside(self, points_m: Float[Tensor, "B K 2"], margin: float) -> Float[Tensor, "B K 2"]:
        """The nearest points that are at most ``margin`` sides of the area outside it."""
        ...


Loss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""Negative log-likelihood of residuals, up to a constant.

From the residuals and standard deviations of the links, [B, M, K] metres, to the loss, its slope (1/m) and a curvature
for the descent that is not negative (1/m^2).
"""


@dataclass(frozen=True)
class Fit:
    """Where a descent ended.

    Attributes:
        position_m, offset_m: the minimum; the offset is 0 if it is known.
        information: curvature of the loss by the position, the offset eliminated, 1/m^2.
        cost: the loss, for quadratic ones half of chi squared.
        residual_m: residuals of the links there.
        unique: no other minimum explains the ranges nearly as well.
    """

    position_m: Float[Tensor, "B K 2"]
    offset_m: Float[Tensor, "B K"]
    information: Float[Tensor, "B K 2 2"]
    cost: Float[Tensor, "B K"]
    residual_m: Float[Tensor, "B M K"]
    unique: Bool[Tensor, "B K"]


def squared(residual_m: Tensor, std_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss e^2 / (2 sigma^2) of Gaussian errors: weighted least squares."""
    weight = std_m**-2
    return 0.5 * weight * residual_m.square(), weight * residual_m, weight


def levenberg_marquardt(
    rows: Residuals,
    start_m: Float[Tensor, "B K 2"],
    loss: Loss = squared,
    steps: int = STEPS,
    offset_m: Float[Tensor, "B K"] | None = None,
) -> Fit:
    """Levenberg-Marquardt: steps (J + lambda tr(J)/2 I)^-1 g, taken only if they lower the loss.

    J = sum_m c_m u_m u_m^T and g = sum_m u_m psi_m with slope psi and curvature c of the loss and the u_m taken
    relative to their weighted mean if the offset is unknown. Marquardt (1963). Plain Gauss-Newton (lambda = 0) can
    leave the area with few rows.

    Args:
        rows: of B episodes and K users.
        start_m: where to begin.
        loss: ``squared`` or a robust one.
        steps: largest number of steps.
        offset_m: offset to begin with; None: the median residual.
    """
    points = rows.inside(start_m, MARGIN)
    offset = _median_residual(rows, points) if offset_m is None else offset_m
    state = _terms(rows, loss, points, offset)
    damping = torch.full_like(state.cost, _FIRST_DAMPING)
    for _ in range(steps):
        step, offset_step = _step(state, damping)
        trial = rows.inside(points + step, MARGIN)
        tried = _terms(rows, loss, trial, offset + offset_step)
        better = tried.cost <= state.cost
        points = torch.where(better[..., None], trial, points)
        offset = torch.where(better, offset + offset_step, offset)
        state = _Terms(*(_where(better, new, old) for new, old in zip(tried.parts(), state.parts(), strict=True)))
        damping = (damping * torch.where(better, _EASE, _TIGHTEN)).clamp(*_DAMPING_RANGE)
        if bool((torch.linalg.vector_norm(step, dim=-1) < _CONVERGED_M).all()):
            break
    unique = torch.ones_like(state.cost, dtype=torch.bool)
    return Fit(points, offset, state.information, state.cost, rows.at(points)[1] - offset.unsqueeze(1), unique)


def of_copies(values: Float[Tensor, "B SK *rest"], copy: Int[Tensor, "B K"]) -> Float[Tensor, "B K *rest"]:
    """Per user the value of one of its S copies, which lie copy after copy: for several starts at once.

    Args:
        values: of all copies.
        copy: which one.
    """
    users = copy.shape[1]
    parts = values.unflatten(1, (values.shape[1] // users if users else 1, users))
    where = copy.view(len(copy), 1, copy.shape[1], *[1] * (parts.ndim - 3)).expand(-1, 1, -1, *parts.shape[3:])
    return parts.gather(1, where).squeeze(1)


def gauss_newton(
    linearised: Callable[[Tensor], tuple[Tensor, Tensor]],
    start: Float[Tensor, "T n"],
    steps: int,
    longest_m: float,
    information: Float[Tensor, "T R R"] | None = None,
) -> Float[Tensor, "T n"]:
    """Steps (J^T W J)^-1 J^T W e, of which the first three unknowns, a position, move by at most ``longest_m``.

    Args:
        linearised: from the unknowns [T, n] to J [T, R, n], the derivatives of the predictions, and e [T, R].
        start: unknowns to begin with.
        steps: number of steps; one that is not finite is left out.
        longest_m: longest step, metres.
        information: W; None: all residuals weigh the same.
    """
    found = start
    for _ in range(steps):
        jacobian, residual = linearised(found)
        weighted = jacobian.mT if information is None else jacobian.mT @ information
        step = (scaled_inverse(weighted @ jacobian) @ (weighted @ residual.unsqueeze(-1))).squeeze(-1)
        step = torch.where(torch.isfinite(step), step, 0.0)
        length = torch.linalg.vector_norm(step[..., :3], dim=-1, keepdim=True)
        found = found + step * (longest_m / length.clamp(min=longest_m))
    return found


def least_squares(
    columns: Float[Tensor, "B M K n"], target: Float[Tensor, "B M K"], weight: Float[Tensor, "B M K"]
) -> Float[Tensor, "B K n"]:
    """Weighted least squares over the rows; the tiny ridge keeps undetermined unknowns near zero."""
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    normal = weighted_gram(columns, weight)
    scale = torch.diagonal(normal, dim1=-2, dim2=-1).sum(dim=-1).clamp(min=torch.finfo(weight.dtype).tiny)
    ridge = 1e-12 * scale[..., None, None] * torch.eye(columns.shape[-1], dtype=columns.dtype, device=columns.device)
    right = (weight.unsqueeze(-1) * columns * target.unsqueeze(-1)).sum(dim=1)
    return torch.linalg.solve(normal + ridge, right)


def weighted_gram(columns: Float[Tensor, "B M K n"], weight: Float[Tensor, "B M K"]) -> Float[Tensor, "B K n n"]:
    """Normal matrix sum_m w_m a_m a_m^T."""
    return ((weight.unsqueeze(-1) * columns).unsqueeze(-1) * columns.unsqueeze(-2)).sum(dim=1)


def inverse_2x2(matrix: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 2 2"]:
    """Inverse of positive definite matrices in closed form; infinite on the diagonal where singular."""
    a, b, d = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 1, 1]
    scale = (a + d).clamp(min=torch.finfo(a.dtype).tiny)
    determinant = (a / scale) * (d / scale) - (b / scale).square()
    regular = determinant > 1e-14
    safe = torch.where(regular, determinant, torch.ones_like(determinant)) * scale
    rows = torch.stack((torch.stack((d, -b), dim=-1), torch.stack((-b, a), dim=-1)), dim=-2) / scale[..., None, None]
    infinite = torch.diag_embed(torch.full_like(matrix[..., 0], torch.inf))
    return torch.where(regular[..., None, None], rows / safe[..., None, None], infinite)


def spread_m(covariance_m2: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch"]:
    """Standard deviation of a position, the root of the covariance's trace; 0 where that is not finite."""
    trace = covariance_m2.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return torch.where(torch.isfinite(trace), trace, 0.0).clamp(min=0.0).sqrt()


def inverse_3x3(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Inverse by cofactors: for many small matrices an order of magnitude faster than a factorisation of each."""
    a, b, c = matrix.unbind(dim=-2)
    columns = (torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b))
    determinant = (a * columns[0]).sum(dim=-1)
    return torch.stack(columns, dim=-1) / determinant[..., None, None]


def scaled_inverse(information: Float[Tensor, "*batch m m"]) -> Float[Tensor, "*batch m m"]:
    """Inverse of a positive definite matrix whose units differ by many orders: scaled to unit diagonal first."""
    scale = information.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(information.dtype).tiny).rsqrt()
    both = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    return torch.linalg.inv_ex(information * both).inverse * both


@dataclass(frozen=True)
class _Terms:
    cost: Tensor
    information: Tensor
    gradient: Tensor
    cross: Tensor
    offset_gradient: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        return self.cost, self.information, self.gradient, self.cross, self.offset_gradient


def _terms(rows: Residuals, loss: Loss, points: Tensor, offset: Tensor) -> _Terms:
    """Cost and normal equations at a point; ``cross`` is the weighted mean gradient, the offset's row."""
    unit, residual = rows.at(points)
    value, slope, curvature = (part * rows.usable for part in loss(residual - offset.unsqueeze(1), rows.std_m))
    if not rows.unknown_offset:
        cross, pull = torch.zeros_like(points), torch.zeros_like(offset)
    else:
        total = curvature.sum(dim=1).clamp(min=torch.finfo(curvature.dtype).tiny)
        cross = (curvature.unsqueeze(-1) * unit).sum(dim=1) / total.unsqueeze(-1)
        pull = slope.sum(dim=1) / total
        unit = unit - cross.unsqueeze(1)
    return _Terms(
        value.sum(dim=1), weighted_gram(unit, curvature), (slope.unsqueeze(-1) * unit).sum(dim=1), cross, pull
    )


def _step(state: _Terms, damping: Tensor) -> tuple[Tensor, Tensor]:
    information = state.information
    trace = information[..., 0, 0] + information[..., 1, 1]
    ridge = damping * trace / 2 + torch.finfo(trace.dtype).tiny
    a, d = information[..., 0, 0] + ridge, information[..., 1, 1] + ridge
    b, (x, y) = information[..., 0, 1], state.gradient.unbind(-1)
    determinant = (a * d - b * b).clamp(min=torch.finfo(a.dtype).tiny)
    step = torch.stack((d * x - b * y, a * y - b * x), dim=-1) / determinant.unsqueeze(-1)
    return step, state.offset_gradient - (state.cross * step).sum(dim=-1)


def _median_residual(rows: Residuals, points: Tensor) -> Tensor:
    if not rows.unknown_offset:
        return torch.zeros_like(points[..., 0])
    residual = torch.where(rows.usable, rows.at(points)[1], torch.nan)
    return torch.nan_to_num(residual.nanmedian(dim=1).values, nan=0.0)


def _where(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape(*better.shape, *[1] * (new.dim() - 2)), new, old)
