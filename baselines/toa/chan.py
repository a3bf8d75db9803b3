"""Closed-form positions from time differences: Chan and Ho's two steps (``tdoa-chan``)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.measurements.toa import TimingMeasurements

from ..least_squares import Fit, inverse_2x2, levenberg_marquardt, spread_m, weighted_gram
from .common import TimingEstimator
from .judge import FAR_PROBES, estimate, judge, unsettled
from .links import RangeLinks, at_reference, in_a_line, mirrored, outside_area_m, range_links, spread_of_aps
from .multilateration import AMBIGUOUS, APART_STD, beside_the_line, best_fit, linear_starts
from .signs import check_signs

FEWEST_FOR_CHAN = 4
"""Three unknowns of the first step: x, y and the distance to the reference."""
_REWEIGHTINGS = 2
_LINEARISATIONS = 2
_LINEARISATIONS_ON_A_LINE = 8
_RIDGE = 1e-13
_NEAR_LINE = 0.2


class TdoaChan(TimingEstimator):
    """Chan and Ho's closed form: linear least squares with the reference distance as a third unknown, then its use."""

    name: ClassVar[str] = "tdoa-chan"

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        links = range_links(measurements, unknown_offset=True)
        fit = chan_fit(links)
        verdict = judge(links, fit, fewest=FEWEST_FOR_CHAN, probes=FAR_PROBES).also(
            Reason.NOT_CONVERGED, unsettled(links, fit)
        )
        return estimate(links, fit.position_m, inverse_2x2(fit.information), check_signs(links, verdict))


def chan_fit(links: RangeLinks) -> Fit:
    """Two-step estimate of Chan and Ho (1994) for known heights, with the covariance D Sigma D^T of the differences.

    With the reference AP 1 as origin, d_i = r_i - r_1 and k_i = |q_i|^2 + h_i^2 - h_1^2 every difference gives
    2 q_i.p + 2 d_i R_1 = k_i - d_i^2, linear in p and the reference distance R_1, with the error 2 R_i n_i1. The second
    step uses R_1^2 = |p|^2 + h_1^2, linearised: p is fitted to the first step's three numbers with their covariance.

    Deviation: the paper solves the second step for x^2 and y^2 and draws roots, the same to first order, which fails
    beside the reference's own row or column. The linearisation is made at the first step's point and, as this is far
    off where the three unknowns of the first step are hardly determined, also at the two solutions of
    ``linear_starts``; the one that explains the ranges best is taken.

    Args:
        links: B episodes, M APs, K UEs; each UE's first usable AP is its reference.
    """
    reference = links.usable.int().argmax(dim=1)
    origin = torch.gather(links.ap_positions_m, 1, reference.unsqueeze(-1).expand(-1, -1, 2))
    height2 = links.height_diff_m.square().unsqueeze(-1).expand(links.usable.shape)
    own_height2 = at_reference(height2, reference)
    aps = links.ap_positions_m.unsqueeze(2) - origin.unsqueeze(1)
    difference = torch.where(links.usable, links.range_m - at_reference(links.range_m, reference), 0.0)
    target = (aps.square().sum(dim=-1) + height2 - own_height2 - difference.square()) / 2
    columns = torch.cat((aps, difference.unsqueeze(-1)), dim=-1)
    distance = torch.ones_like(target)
    for _ in range(1 + _REWEIGHTINGS):
        first, information = _first_step(links, reference, columns, target, distance)
        vectors = first[..., :2].unsqueeze(1) - aps
        distance = (vectors.square().sum(dim=-1) + height2).sqrt().clamp(min=1e-3 * links.side_m)
    guesses = torch.cat(((origin + first[..., :2]).unsqueeze(1), linear_starts(links)), dim=1)
    found = [_second_steps(guesses - origin.unsqueeze(1), first, information, own_height2, _LINEARISATIONS)]
    if bool(in_a_line(links).any()):
        # The first step knows nothing across the line, and a linearisation on it never leaves it.
        start = beside_the_line(links, guesses[:, :1]) - origin.unsqueeze(1)
        found.append(_second_steps(start, first, information, own_height2, _LINEARISATIONS_ON_A_LINE))
    relative = torch.cat(found, dim=1)
    candidates = links.inside((origin.unsqueeze(1) + relative).flatten(1, 2), margin=1.0)
    reached = levenberg_marquardt(links.repeated(relative.shape[1]), candidates, steps=0)
    fit = best_fit(links, reached, *relative.shape[1:3])
    return dataclasses.replace(fit, unique=fit.unique & ~_has_image(links, fit))


def _has_image(links: RangeLinks, fit: Fit) -> Bool[Tensor, "B K"]:
    """Whether a place on the other side of APs that nearly stand in a line explains the ranges nearly as well.

    The closed form knows one side only, so that one descent has to look.
    """
    (across, along), _ = spread_of_aps(links.ap_positions_m, links.usable)
    near_line = across < _NEAR_LINE * along
    if not bool(near_line.any()):
        return near_line
    image = levenberg_marquardt(links, mirrored(links, fit.position_m.unsqueeze(1)).squeeze(1))
    if links.area_m is not None:
        near_line = near_line & (outside_area_m(links, image.position_m) == 0)
    apart = torch.linalg.vector_norm(image.position_m - fit.position_m, dim=-1)
    far = apart > APART_STD * spread_m(inverse_2x2(image.information))
    return near_line & far & (image.cost - fit.cost < AMBIGUOUS)


def _first_step(
    links: RangeLinks, reference: Int[Tensor, "B K"], columns: Tensor, target: Tensor, distance: Tensor
) -> tuple[Tensor, Tensor]:
    """Least squares with weights B^-1 Q^-1 B^-1, B = diag(R_i): (D Sigma D^T)^-1 = W - w w^T / (sum of w and w_1)."""
    weight = links.weight
    scaled, goal = columns / distance.unsqueeze(-1), target / distance
    total = weight.sum(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
    others = weight.scatter(1, reference.unsqueeze(1), 0.0)
    weighted = others.unsqueeze(-1) * scaled
    mean, mean_goal = weighted.sum(dim=1), (others * goal).sum(dim=1)
    outer = mean.unsqueeze(-1) * mean.unsqueeze(-2) / total[..., None, None]
    information = weighted_gram(scaled, others) - outer
    right = (weighted * goal.unsqueeze(-1)).sum(dim=1) - mean * (mean_goal / total).unsqueeze(-1)
    # Where all differences vanish the reference distance is not in the equations: the ridge leaves it at zero with an
    # enormous variance, and the second step finds it.
    scale = torch.diagonal(information, dim1=-2, dim2=-1).sum(dim=-1).clamp(min=torch.finfo(weight.dtype).tiny)
    information = information + _RIDGE * torch.diag_embed(scale.unsqueeze(-1).expand(*scale.shape, 3))
    return torch.linalg.solve(information, right.unsqueeze(-1)).squeeze(-1), information


def _second_steps(points: Tensor, first: Tensor, information: Tensor, height2: Tensor, count: int) -> Tensor:
    for _ in range(count):
        points = _second_step(points, first.unsqueeze(1), information.unsqueeze(1), height2)
    return points


def _second_step(point: Tensor, first: Tensor, information: Tensor, height2: Tensor) -> Tensor:
    """Least squares of (p, R_1) against the first step's answer, R_1 = sqrt(|p|^2 + h_1^2) linearised at ``point``."""
    distance = (point.square().sum(dim=-1) + height2).sqrt().clamp(min=torch.finfo(point.dtype).eps)
    rows = torch.cat((torch.eye(2).to(point).expand(*point.shape, 2), (point / distance[..., None]).unsqueeze(-2)), -2)
    missing = first - torch.cat((point, distance.unsqueeze(-1)), dim=-1)
    weighted = rows.mT @ information
    step = inverse_2x2(weighted @ rows) @ (weighted @ missing.unsqueeze(-1))
    return point + torch.nan_to_num(step.squeeze(-1), nan=0.0, posinf=0.0, neginf=0.0)
