"""Ranges to positions in space, where nobody knows the height; the mirror image of anchors in one plane."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.checks import one_of
from cfpos_envs.measurements.arrays import real_tensor, std_table, with_axes
from cfpos_envs.measurements.base import PositionEstimate, Reason, first_reason, moved_by

from ..validity import residuals_fit

SIDES = ("unknown", "below", "above")
_LEAST_LINKS = 3
_STEPS = 60
_FIRST_DAMPING, _EASE, _TIGHTEN = 1e-3, 0.3, 4.0
_CONVERGED_M = 1e-8
_FLAT = 1e-3
"""Anchors whose third axis is shorter than this share of the first stand in one plane."""
_ALIKE = 2.0
_ROUNDING = 1e-6
"""Two places explain the ranges nearly as well if chi squared differs by less: a likelihood ratio of e."""


@dataclass(frozen=True)
class SpatialEstimate(PositionEstimate):
    """Positions [K, 3], and the other place that explains the ranges best.

    Attributes:
        mirror_m: [K, 3] of every user the minimum on the other side of the anchors.
    """

    mirror_m: Float[Tensor, "K 3"] | None = None

    def moved(self, origin_m: Sequence[float]) -> SpatialEstimate:
        """Both places in coordinates whose origin lies at -``origin_m``."""
        mirror = None if self.mirror_m is None else moved_by(self.mirror_m, origin_m)
        return dataclasses.replace(self, position=moved_by(self.position, origin_m), mirror_m=mirror)


def locate_ranges_in_space(
    ap_positions_m: Any,
    range_m: Any,
    std_m: Any,
    *,
    side: str = "unknown",
    floor_m: float | None = None,
) -> SpatialEstimate:
    """Positions in space from distances: weighted least squares from above and from below the anchors.

    Anchors in one plane cannot tell a tag from its mirror image beyond that plane: both are given, and without
    knowledge of the side the answer is ``AMBIGUOUS``.

    Args:
        ap_positions_m: [M, 3] metres.
        range_m: [K, M] metres, NaN where there is none; what is not positive is left out.
        std_m: standard deviation, a number, [M] or [K, M].
        side: where the tags are with respect to the plane through the anchors: ``below`` a ceiling, ``above`` a floor.
        floor_m: no tag is lower; both sides are tried and the lower one is dropped where it is beneath.

    Returns:
        Positions [K, 3] in double precision with covariance, reason and chi squared.

    Raises:
        ValueError, TypeError: arrays that do not fit together, another word for ``side``.
    """
    one_of("side", side, SIDES)
    aps = real_tensor("ap_positions_m", ap_positions_m)
    aps = with_axes("ap_positions_m", aps, {"APs": None, "x, y, z": 3})
    ranges = real_tensor("range_m", range_m)
    ranges = with_axes("range_m", ranges.reshape(-1, ranges.shape[-1]), {"users": None, "APs": len(aps)})
    std = std_table("std_m", std_m, ranges)
    used = torch.isfinite(ranges) & (ranges > 0) & (std > 0)
    ranges, weight = torch.where(used, ranges, 1.0), torch.where(used, std, 1.0).square().reciprocal() * used
    normal, middle, flat = _plane(aps)
    reach = ranges.amax(dim=1, keepdim=True)
    ends = [_descended(aps, ranges, weight, middle + sign * reach * normal) for sign in (-1.0, 1.0)]
    below, above = (end[0] for end in ends)
    if flat:
        # The exact mirror image, so that both explain the ranges equally well.
        better = (ends[0][1] <= ends[1][1]).unsqueeze(-1)
        best = torch.where(better, below, above)
        image = best - 2 * ((best - middle) @ normal).unsqueeze(-1) * normal
        height = (best - middle) @ normal
        below = torch.where((height <= 0).unsqueeze(-1), best, image)
        above = torch.where((height <= 0).unsqueeze(-1), image, best)
    costs = torch.stack([_cost(aps, ranges, weight, place) for place in (below, above)])
    choose_above = _choice(costs, side, below, floor_m)
    place = torch.where(choose_above.unsqueeze(-1), above, below)
    other = torch.where(choose_above.unsqueeze(-1), below, above)
    chosen = torch.where(choose_above, costs[1], costs[0])
    same = torch.linalg.vector_norm(place - other, dim=-1) < 1e-3
    is_told = torch.full_like(same, side != "unknown")
    if floor_m is not None:
        is_told = is_told | (other[:, 2] < floor_m)
    return _estimate(aps, weight, used, place, other, chosen, same | is_told | ((costs[0] - costs[1]).abs() > _ALIKE))


def _choice(
    costs: Float[Tensor, "2 K"], side: str, below: Float[Tensor, "K 3"], floor_m: float | None
) -> Bool[Tensor, " K"]:
    """Whether the place above is taken."""
    if side != "unknown":
        return torch.full_like(costs[0], side == "above", dtype=torch.bool)
    # Below where both fit equally well, whatever rounding says.
    above = costs[1] < costs[0] - _ROUNDING * (1 + costs[0])
    return above if floor_m is None else above | (below[:, 2] < floor_m)


def _estimate(
    aps: Tensor, weight: Tensor, used: Tensor, place: Tensor, other: Tensor, cost: Tensor, unique: Tensor
) -> SpatialEstimate:
    unit, _ = _directions(aps, place)
    information = torch.einsum("km,kmi,kmj->kij", weight, unit, unit)
    values = torch.linalg.eigvalsh(information)
    is_spread = values[:, 0] > 1e-6 * values[:, 2].clamp(min=1e-300)
    covariance = torch.linalg.pinv(information, hermitian=True)
    freedom = used.sum(dim=1) - 3
    enough = used.sum(dim=1) >= _LEAST_LINKS
    fits = residuals_fit(cost, freedom)
    valid = enough & is_spread & unique & fits
    reason = first_reason(
        valid,
        (Reason.TOO_FEW_LINKS, ~enough),
        (Reason.POOR_GEOMETRY, ~is_spread),
        (Reason.AMBIGUOUS, ~unique),
        (Reason.LARGE_RESIDUALS, ~fits),
    )
    return SpatialEstimate(place, covariance, valid, reason, cost, freedom, mirror_m=other)


def _plane(aps: Float[Tensor, "M 3"]) -> tuple[Tensor, Tensor, bool]:
    """Upward normal of the plane that fits the anchors best, a point on it, and whether all stand in it."""
    middle = aps.mean(dim=0)
    _, sizes, axes = torch.linalg.svd(aps - middle, full_matrices=True)
    normal = axes[2]
    sizes = torch.nn.functional.pad(sizes, (0, 3 - len(sizes)))
    up = np.sign(float(normal[2])) or 1.0
    return normal * up, middle, bool(sizes[2] <= _FLAT * sizes[0])


def _directions(aps: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    away = place.unsqueeze(1) - aps
    distance = torch.linalg.vector_norm(away, dim=-1).clamp(min=1e-12)
    return away / distance.unsqueeze(-1), distance


def _cost(aps: Tensor, ranges: Tensor, weight: Tensor, place: Tensor) -> Float[Tensor, " K"]:
    return (weight * (ranges - _directions(aps, place)[1]).square()).sum(dim=1)


def _descended(aps: Tensor, ranges: Tensor, weight: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt: place [K, 3] and chi squared [K] of the minimum."""
    place, cost = start, _cost(aps, ranges, weight, start)
    damping = torch.full_like(cost, _FIRST_DAMPING)
    for _ in range(_STEPS):
        unit, distance = _directions(aps, place)
        information = torch.einsum("km,kmi,kmj->kij", weight, unit, unit)
        pull = torch.einsum("km,kmi->ki", weight * (ranges - distance), unit)
        trace = torch.diagonal(information, dim1=-2, dim2=-1).sum(dim=-1).clamp(min=1e-300) / 3
        ridge = (damping * trace)[:, None, None] * torch.eye(3, dtype=place.dtype)
        step = torch.linalg.lstsq(information + ridge, pull.unsqueeze(-1)).solution.squeeze(-1)
        tried = _cost(aps, ranges, weight, place + step)
        better = tried <= cost
        place, cost = torch.where(better.unsqueeze(-1), place + step, place), torch.where(better, tried, cost)
        damping = torch.where(better, damping * _EASE, damping * _TIGHTEN).clamp(1e-12, 1e9)
        if bool((torch.linalg.vector_norm(step, dim=-1) < _CONVERGED_M).all()):
            break
    return place, cost
