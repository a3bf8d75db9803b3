"""Positions from ranges: a linearised start and a batched Levenberg-Marquardt descent for any loss.

Every residual is e_m = r_m - d_m(p) - o with o = 0, or the unknown offset of TDOA. Eliminating o by the weighted mean
is the same as weighting the M - 1 differences with the inverse of their full covariance D Sigma D^T, for every
reference AP, but needs no matrix of size M and loses no digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .links import RangeLinks, determined, spread_of_aps

_STEPS = 40
_CONVERGED_M = 1e-7
_FIRST_DAMPING = 1e-3
_EASE, _TIGHTEN = 0.1, 5.0
_DAMPING_RANGE = (1e-12, 1e9)
# The descent may leave the area by this many sides of it; farther away all ranges look alike.
_MARGIN = 1.0
# A second explanation counts unless it is exp(4.5), a hundred times, less likely: 4.5 in half chi squares.
AMBIGUOUS = 4.5
_APART_STD = 5.0
# The user is in the area: a place outside has to be so much likelier that it wins against every doubt.
_OUTSIDE = 2 * AMBIGUOUS
_NEAR_MARGIN = 0.1


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


def solve_ranges(
    links: RangeLinks, loss: Loss = squared, starts: Float[Tensor, "B S K 2"] | None = None, steps: int = _STEPS
) -> Fit:
    """The best of the minima reached from several starts.

    Args:
        links: B episodes, M APs, K UEs.
        loss: ``squared`` or a robust one.
        starts: None: ``linear_starts`` and their mirror images.
        steps: largest number of steps.
    """
    starts = start_points(links) if starts is None else starts
    count, users = starts.shape[1:3]
    reached = descend(links.repeated(count), starts.flatten(1, 2), loss, steps)
    return best_fit(links, reached, count, users)


def descend(
    links: RangeLinks,
    start_m: Float[Tensor, "B K 2"],
    loss: Loss = squared,
    steps: int = _STEPS,
    offset_m: Float[Tensor, "B K"] | None = None,
) -> Fit:
    """Levenberg-Marquardt: steps (J + lambda tr(J)/2 I)^-1 g, taken only if they lower the loss.

    J = sum_m c_m u_m u_m^T and g = sum_m u_m psi_m with slope psi and curvature c of the loss and the u_m taken
    relative to their weighted mean if the offset is unknown. Marquardt (1963). Plain Gauss-Newton (lambda = 0) can
    leave the area with few links.

    Args:
        links, loss, steps: as in ``solve_ranges``.
        start_m: where to begin.
        offset_m: offset to begin with; None: the median residual.
    """
    points = links.inside(start_m, _MARGIN)
    offset = _median_residual(links, points) if offset_m is None else offset_m
    state = _terms(links, loss, points, offset)
    damping = torch.full_like(state.cost, _FIRST_DAMPING)
    for _ in range(steps):
        step, offset_step = _step(state, damping)
        trial = links.inside(points + step, _MARGIN)
        tried = _terms(links, loss, trial, offset + offset_step)
        better = tried.cost <= state.cost
        points = torch.where(better[..., None], trial, points)
        offset = torch.where(better, offset + offset_step, offset)
        state = _Terms(*(_where(better, new, old) for new, old in zip(tried.parts(), state.parts(), strict=True)))
        damping = (damping * torch.where(better, _EASE, _TIGHTEN)).clamp(*_DAMPING_RANGE)
        if bool((torch.linalg.vector_norm(step, dim=-1) < _CONVERGED_M).all()):
            break
    unique = torch.ones_like(state.cost, dtype=torch.bool)
    return Fit(points, offset, state.information, state.cost, links.at(points)[1] - offset.unsqueeze(1), unique)


def start_points(links: RangeLinks) -> Float[Tensor, "B S K 2"]:
    """``linear_starts``, the same mirrored at the principal axis of the usable APs, and the middle of these APs.

    APs that nearly stand in a line hardly tell the two sides apart before the last step.
    """
    linear = linear_starts(links)
    return torch.cat((linear, mirrored(links, linear), _middle(links).unsqueeze(1)), dim=1)


def mirrored(links: RangeLinks, points_m: Float[Tensor, "B S K 2"]) -> Float[Tensor, "B S K 2"]:
    """The points on the other side of the principal axis of each UE's usable APs."""
    _, axis = spread_of_aps(links.ap_positions_m, links.usable)
    middle, axis = _middle(links).unsqueeze(1), axis.unsqueeze(1)
    away = points_m - middle
    return middle + 2 * (away * axis).sum(dim=-1, keepdim=True) * axis - away


def linear_starts(links: RangeLinks) -> Float[Tensor, "B S K 2"]:
    """Linearised weighted least squares on the squared ranges; one solution, or two where an offset is unknown.

    With k_m = |q_m|^2 + h_m^2 the squared range is r^2 = |p|^2 - 2 q.p + k. The unknown |p|^2 is eliminated by the
    weighted mean, and two linear equations remain. With an offset, r^2 - 2 r o + (o^2 - |p|^2) = k - 2 q.p is linear in
    (p, o) up to the scalar lambda = |p|^2 - o^2, which then solves a quadratic equation: Bancroft (1985).
    """
    middle = _middle(links)
    aps = links.ap_positions_m.unsqueeze(2) - middle.unsqueeze(1)
    known = aps.square().sum(dim=-1) + links.height_diff_m.unsqueeze(-1).square()
    (_, extent), _ = spread_of_aps(links.ap_positions_m, links.usable)
    extent = extent.clamp(min=1e-3 * links.side_m)
    offset = torch.zeros_like(extent)
    if links.unknown_offset or links.reference is not None:
        # Any offset would do in exact arithmetic; ranges of the size of the site keep the equations well scaled.
        lowest = torch.where(links.usable, links.range_m, torch.inf).amin(dim=1)
        offset = torch.where(torch.isfinite(lowest), lowest, 0.0) - extent
    ranges = torch.where(links.usable, links.range_m - offset.unsqueeze(1), 1.0)
    # An error of the range enters its square 2 r times.
    weight = links.weight / ranges.abs().clamp(min=0.1 * extent.unsqueeze(1)).square()
    if not links.unknown_offset and links.reference is None:
        columns = 2 * (aps - _mean(aps, weight.unsqueeze(-1)))
        target = known - ranges.square()
        solution = _least_squares(columns, target - _mean(target, weight), weight)
        return links.inside(middle + solution, _MARGIN).unsqueeze(1)
    columns = torch.cat((2 * aps, -2 * ranges.unsqueeze(-1)), dim=-1)
    constant = _least_squares(columns, known - ranges.square(), weight)
    slope = _least_squares(columns, torch.ones_like(ranges), weight)
    roots = _roots(_lorentz(slope, slope), 2 * _lorentz(constant, slope) - 1, _lorentz(constant, constant))
    solutions = [constant + root.unsqueeze(-1) * slope for root in roots]
    return torch.stack([links.inside(middle + found[..., :2], _MARGIN) for found in solutions], dim=1)


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


@dataclass(frozen=True)
class _Terms:
    cost: Tensor
    information: Tensor
    gradient: Tensor
    cross: Tensor
    offset_gradient: Tensor

    def parts(self) -> tuple[Tensor, ...]:
        return self.cost, self.information, self.gradient, self.cross, self.offset_gradient


def _terms(links: RangeLinks, loss: Loss, points: Tensor, offset: Tensor) -> _Terms:
    """Cost and normal equations at a point; ``cross`` is the weighted mean gradient, the offset's row."""
    unit, residual = links.at(points)
    value, slope, curvature = (part * links.usable for part in loss(residual - offset.unsqueeze(1), links.std_m))
    if not links.unknown_offset:
        cross, pull = torch.zeros_like(points), torch.zeros_like(offset)
    else:
        total = curvature.sum(dim=1).clamp(min=torch.finfo(curvature.dtype).tiny)
        cross = (curvature.unsqueeze(-1) * unit).sum(dim=1) / total.unsqueeze(-1)
        pull = slope.sum(dim=1) / total
        unit = unit - cross.unsqueeze(1)
    weighted = curvature.unsqueeze(-1) * unit
    information = (weighted.unsqueeze(-1) * unit.unsqueeze(-2)).sum(dim=1)
    return _Terms(value.sum(dim=1), information, (slope.unsqueeze(-1) * unit).sum(dim=1), cross, pull)


def _step(state: _Terms, damping: Tensor) -> tuple[Tensor, Tensor]:
    information = state.information
    trace = information[..., 0, 0] + information[..., 1, 1]
    ridge = damping * trace / 2 + torch.finfo(trace.dtype).tiny
    a, d = information[..., 0, 0] + ridge, information[..., 1, 1] + ridge
    b, (x, y) = information[..., 0, 1], state.gradient.unbind(-1)
    determinant = (a * d - b * b).clamp(min=torch.finfo(a.dtype).tiny)
    step = torch.stack((d * x - b * y, a * y - b * x), dim=-1) / determinant.unsqueeze(-1)
    return step, state.offset_gradient - (state.cross * step).sum(dim=-1)


def best_fit(links: RangeLinks, reached: Fit, count: int, users: int) -> Fit:
    """The lowest minimum of every UE among ``count`` copies; a place outside the area needs strong evidence.

    Args:
        links: without copies.
        reached: fits of ``links.repeated(count)``.
        count, users: S and K.
    """
    points = reached.position_m.unflatten(1, (count, users))
    costs = reached.cost.unflatten(1, (count, users))
    away = torch.linalg.vector_norm(
        reached.position_m - links.inside(reached.position_m, _NEAR_MARGIN), dim=-1
    ).unflatten(1, (count, users))
    judged = costs + _OUTSIDE * (away > 0)
    lowest, index = judged.min(dim=1)

    def chosen(values: Tensor) -> Tensor:
        parts = values.unflatten(1, (count, users))
        where = index[:, None].reshape(len(index), 1, users, *[1] * (parts.dim() - 3))
        return torch.gather(parts, 1, where.expand(-1, 1, -1, *parts.shape[3:])).squeeze(1)

    position, information = chosen(reached.position_m), chosen(reached.information)
    gap = points - position.unsqueeze(1)
    distance2 = (gap.unsqueeze(-2) @ information.unsqueeze(1) @ gap.unsqueeze(-1))[..., 0, 0]
    rival = (judged - lowest.unsqueeze(1) < AMBIGUOUS) & (distance2 > _APART_STD**2)
    return Fit(
        position,
        chosen(reached.offset_m),
        information,
        chosen(reached.cost),
        links.at(position)[1] - chosen(reached.offset_m).unsqueeze(1),
        ~rival.any(dim=1),
    )


def well_posed(links: RangeLinks, fit: Fit) -> Bool[Tensor, "B K"]:
    """Whether the APs determine the position, only one place explains the ranges, and it is not far outside."""
    near = (fit.position_m == links.inside(fit.position_m, 0.999 * _MARGIN)).all(dim=-1)
    regular = torch.isfinite(inverse_2x2(fit.information)).all(dim=-1).all(dim=-1)
    return determined(links) & fit.unique & near & regular


def _median_residual(links: RangeLinks, points: Tensor) -> Tensor:
    if not links.unknown_offset:
        return torch.zeros_like(points[..., 0])
    residual = torch.where(links.usable, links.at(points)[1], torch.nan)
    return torch.nan_to_num(residual.nanmedian(dim=1).values, nan=0.0)


def _middle(links: RangeLinks) -> Tensor:
    share = links.usable / links.usable.sum(dim=1, keepdim=True).clamp(min=1)
    used = torch.einsum("bmk,bmd->bkd", share.to(links.ap_positions_m), links.ap_positions_m)
    low, high = links.box()
    return torch.where(links.usable.any(dim=1)[..., None], used, (low + high) / 2)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight / total * values).sum(dim=1, keepdim=True)


def _least_squares(columns: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted least squares over the APs (dim 1); the tiny ridge keeps undetermined unknowns near zero."""
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    weighted = weight.unsqueeze(-1) * columns
    normal = (weighted.unsqueeze(-1) * columns.unsqueeze(-2)).sum(dim=1)
    scale = torch.diagonal(normal, dim1=-2, dim2=-1).sum(dim=-1).clamp(min=torch.finfo(weight.dtype).tiny)
    ridge = 1e-12 * scale[..., None, None] * torch.eye(columns.shape[-1], dtype=columns.dtype, device=columns.device)
    right = (weighted * target.unsqueeze(-1)).sum(dim=1)
    return torch.linalg.solve(normal + ridge, right)


def _lorentz(left: Tensor, right: Tensor) -> Tensor:
    return (left[..., :2] * right[..., :2]).sum(dim=-1) - left[..., 2] * right[..., 2]


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Both roots of a x^2 + b x + c = 0 without cancellation; the real part if they are complex."""
    half = -0.5 * (b + torch.where(b < 0, -1.0, 1.0) * (b.square() - 4 * a * c).clamp(min=0.0).sqrt())
    tiny = torch.finfo(a.dtype).tiny

    def ratio(upper: Tensor, lower: Tensor) -> Tensor:
        return torch.where(lower.abs() > tiny, upper / torch.where(lower.abs() > tiny, lower, 1.0), 0.0)

    return ratio(half, a), ratio(c, half)


def _where(better: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(better.reshape(*better.shape, *[1] * (new.dim() - 2)), new, old)
