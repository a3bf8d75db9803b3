"""Positions from ranges: linearised starts, descents from all of them, and which of their ends is believed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..least_squares import (
    MARGIN,
    STEPS,
    Fit,
    Loss,
    inverse_2x2,
    least_squares,
    levenberg_marquardt,
    of_copies,
    spread_m,
    squared,
)
from .links import RangeLinks, in_a_line, middle_of_aps, mirrored, outside_area_m, spread_of_aps

# A second explanation counts unless it is exp(4.5), a hundred times, less likely: 4.5 in half chi squares.
AMBIGUOUS = 4.5
APART_STD = 5.0
# The user is in the area: a place outside has to be so much likelier that it wins against every doubt.
_OUTSIDE = 2 * AMBIGUOUS
_WALL_STD = 3.0


def solve_ranges(
    links: RangeLinks, loss: Loss = squared, starts: Float[Tensor, "B S K 2"] | None = None, steps: int = STEPS
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
    reached = levenberg_marquardt(links.repeated(count), starts.flatten(1, 2), loss, steps)
    return best_fit(links, reached, count, users)


def start_points(links: RangeLinks) -> Float[Tensor, "B S K 2"]:
    """``linear_starts``, the same mirrored at the principal axis of the usable APs, and the middle of these APs.

    APs that nearly stand in a line hardly separate the two sides before the last step.
    """
    linear = linear_starts(links)
    starts = [linear, mirrored(links, linear), middle_of_aps(links).unsqueeze(1)]
    if bool(in_a_line(links).any()):
        starts.append(beside_the_line(links, linear))
    return torch.cat(starts, dim=1)


def beside_the_line(links: RangeLinks, points_m: Float[Tensor, "B S K 2"]) -> Float[Tensor, "B S2 K 2"]:
    """The points moved to either side of the usable APs' principal axis: on it nothing says which way to leave it."""
    (_, extent), axis = spread_of_aps(links.ap_positions_m, links.usable)
    aside = extent.unsqueeze(-1) * torch.stack((-axis[..., 1], axis[..., 0]), dim=-1)
    return torch.cat([points_m + side * aside.unsqueeze(1) for side in (0.5, -0.5)], dim=1)


def linear_starts(links: RangeLinks) -> Float[Tensor, "B S K 2"]:
    """Linearised weighted least squares on the squared ranges; one solution, or two where an offset is unknown.

    With k_m = |q_m|^2 + h_m^2 the squared range is r^2 = |p|^2 - 2 q.p + k. The unknown |p|^2 is eliminated by the
    weighted mean, and two linear equations remain. With an offset, r^2 - 2 r o + (o^2 - |p|^2) = k - 2 q.p is linear in
    (p, o) up to the scalar lambda = |p|^2 - o^2, which then solves a quadratic equation: Bancroft (1985).
    """
    middle = middle_of_aps(links)
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
        solution = least_squares(columns, target - _mean(target, weight), weight)
        return links.inside(middle + solution, MARGIN).unsqueeze(1)
    columns = torch.cat((2 * aps, -2 * ranges.unsqueeze(-1)), dim=-1)
    constant = least_squares(columns, known - ranges.square(), weight)
    slope = least_squares(columns, torch.ones_like(ranges), weight)
    roots = _roots(_lorentz(slope, slope), 2 * _lorentz(constant, slope) - 1, _lorentz(constant, constant))
    solutions = [constant + root.unsqueeze(-1) * slope for root in roots]
    return torch.stack([links.inside(middle + found[..., :2], MARGIN) for found in solutions], dim=1)


def best_fit(links: RangeLinks, reached: Fit, count: int, users: int) -> Fit:
    """The lowest minimum of every UE among ``count`` copies; a place outside the area needs strong evidence.

    Args:
        links: without copies.
        reached: fits of ``links.repeated(count)``.
        count, users: S and K.
    """
    points = reached.position_m.unflatten(1, (count, users))
    costs = reached.cost.unflatten(1, (count, users))
    away = outside_area_m(links, reached.position_m)
    if links.area_m is not None:  # walls are sharp, positions are not
        away = away - _WALL_STD * spread_m(inverse_2x2(reached.information))
    judged = costs + _OUTSIDE * (away > 0).unflatten(1, (count, users))
    lowest, index = judged.min(dim=1)

    position, information = of_copies(reached.position_m, index), of_copies(reached.information, index)
    gap = points - position.unsqueeze(1)
    distance2 = (gap.unsqueeze(-2) @ information.unsqueeze(1) @ gap.unsqueeze(-1))[..., 0, 0]
    rival = (judged - lowest.unsqueeze(1) < AMBIGUOUS) & (distance2 > APART_STD**2)
    return Fit(
        position,
        of_copies(reached.offset_m, index),
        information,
        of_copies(reached.cost, index),
        links.at(position)[1] - of_copies(reached.offset_m, index).unsqueeze(1),
        ~rival.any(dim=1),
    )


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    return (weight / total * values).sum(dim=1, keepdim=True)


def _lorentz(left: Tensor, right: Tensor) -> Tensor:
    return (left[..., :2] * right[..., :2]).sum(dim=-1) - left[..., 2] * right[..., 2]


def _roots(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Both roots of a x^2 + b x + c = 0 without cancellation; the real part if they are complex."""
    half = -0.5 * (b + torch.where(b < 0, -1.0, 1.0) * (b.square() - 4 * a * c).clamp(min=0.0).sqrt())
    tiny = torch.finfo(a.dtype).tiny

    def ratio(upper: Tensor, lower: Tensor) -> Tensor:
        return torch.where(lower.abs() > tiny, upper / torch.where(lower.abs() > tiny, lower, 1.0), 0.0)

    return ratio(half, a), ratio(c, half)
