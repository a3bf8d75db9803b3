"""Whether an answer from ranges is believed: geometry, rivals, the area, residuals against the stated noise.

An answer is valid if the believed links determine it, no second place explains them nearly as well, it lies where users
may be, its residuals are as large as their stated noise makes them, and the chi-squared rises around it as the
covariance says. The last finds what one number per direction cannot tell: valleys between mirror images, users on the
line of their APs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate, Reason, Rows, first_reason
from cfpos_envs.physics.geometry import metres_outside

from ..least_squares import MARGIN, Fit, Residuals, inverse_2x2, spread_m
from ..validity import FALSE_ALARM, residuals_fit
from .links import FEWEST_LINKS, RangeLinks, enough_links, in_a_line, mirrored

# Standard deviations from the answer at which the rise of chi squared is looked at, and the share of the rise of a
# Gaussian that is asked for: half of it is a quarter more standard deviation.
PROBES = (4.0, 6.0)
FAR_PROBES = (6.0,)
_RISE = 0.4
# A closed form's answer may be that many standard deviations away from the minimum, and so many after one step.
_UNSETTLED_STD = 2.0
_RESTING_STD = 0.5
OUTSIDE_STD = 5.0
# Other rows that agree as well, once in ten times by chance.
_SECONDED = 0.1


@runtime_checkable
class WalledRows(Residuals, Protocol):
    """Rows of a least-squares problem whose users are in an area, if ``area_m`` says so."""

    @property
    def weight(self) -> Float[Tensor, "B M K"]: ...  # noqa: D102
    @property
    def area_m(self) -> tuple[tuple[float, float], ...] | None: ...  # noqa: D102


@dataclass(frozen=True)
class Verdict(Rows):
    """What is thought of the answer for every user.

    Attributes:
        reason: a ``Reason``; 0 for a valid answer.
        chi_squared: over the believed links, an unknown offset eliminated.
        degrees_of_freedom: believed links minus unknowns.
    """

    reason: Int[Tensor, "B K"]
    chi_squared: Float[Tensor, "B K"]
    degrees_of_freedom: Int[Tensor, "B K"]

    @property
    def valid(self) -> Bool[Tensor, "B K"]:
        """Answers that are believed."""
        return self.reason == int(Reason.VALID)

    def where(self, mine: Bool[Tensor, "B K"], other: Verdict) -> Verdict:
        """This one for some users, another for the rest."""
        fields = (f.name for f in dataclasses.fields(self))
        return Verdict(*(torch.where(mine, getattr(self, name), getattr(other, name)) for name in fields))

    def all_of(self, cause: Reason) -> Verdict:
        """The same with one reason for everybody."""
        return dataclasses.replace(self, reason=torch.full_like(self.reason, int(cause)))

    def also(self, cause: Reason, failed: Bool[Tensor, "B K"]) -> Verdict:
        """The same with a reason for those that were valid so far."""
        return dataclasses.replace(
            self, reason=torch.where(self.valid & failed, int(cause), self.reason).to(torch.int8)
        )


def judge(
    links: RangeLinks,
    fit: Fit,
    believed: Bool[Tensor, "B M K"] | None = None,
    fewest: int = FEWEST_LINKS,
    covariance_m2: Float[Tensor, "B K 2 2"] | None = None,
    alone: bool = True,
    probes: tuple[float, ...] = PROBES,
    mixed: bool = False,
) -> Verdict:
    """The verdict on a fit.

    Args:
        links: all links that count, not as differences.
        fit: the answer.
        believed: links that the method takes for unspoilt; None: all. Where some are not, more of them have to agree
            than would by chance.
        fewest: links that the method needs.
        covariance_m2: that of the answer, if it is not the inverse of the fit's information.
        alone: the answer is that of these links alone: their chi squared has a known law and has to rise as the
            covariance says. If not, only an agreement by chance is looked for, with other rows as its second.
        probes: standard deviations at which that is looked at; ``FAR_PROBES`` for closed forms, which end near the
            minimum of chi squared, not on it.
        mixed: other places that the links which are not believed allow have been weighed already.
    """
    kept = links if believed is None else links.only(believed)
    point = fit.position_m
    covariance = inverse_2x2(fit.information) if covariance_m2 is None else covariance_m2
    regular = torch.isfinite(covariance).all(dim=-1).all(dim=-1)
    spread = spread_m(covariance)
    chi_squared = chi_squared_at(kept, point)
    freedom = kept.usable.sum(dim=1) - 2 - int(links.unknown_offset)
    few = links.usable.sum(dim=1) < fewest
    one_line = in_a_line(kept) & ~mirror_excluded(kept, point)
    poor = ~enough_links(links) | (in_a_line(links) & ~mirror_excluded(links, point))
    far = ~(point == links.inside(point, 0.999 * MARGIN)).all(dim=-1)
    far = far | (beyond_walls_m(links, point) > OUTSIDE_STD * spread + _tolerance_m(links))
    doubted = (links.usable & ~kept.usable).any(dim=1)
    likely = by_chance(links, kept, freedom) * (1.0 if alone else _SECONDED)
    chance = doubted & (likely > FALSE_ALARM) & (not mixed)
    if alone:
        spoilt = chance | ~residuals_fit(chi_squared, freedom)
        valley = ~rises(kept, point, covariance, chi_squared, probes, believed is not None)
    else:
        spoilt, valley = chance | (doubted & (freedom < 1)), torch.zeros_like(regular)
    failures = (
        (Reason.TOO_FEW_LINKS, few),
        (Reason.POOR_GEOMETRY, poor),
        (Reason.LARGE_RESIDUALS, doubted & ~enough_links(kept)),
        (Reason.POOR_GEOMETRY, ~enough_links(kept) | one_line | ~regular),
        (Reason.OUTSIDE, far),
        (Reason.LARGE_RESIDUALS, spoilt),
        (Reason.AMBIGUOUS, ~fit.unique),
        (Reason.AMBIGUOUS, valley),
    )
    valid = ~torch.stack([failed for _, failed in failures]).any(dim=0) & torch.isfinite(point).all(dim=-1)
    return Verdict(first_reason(valid, *failures), chi_squared, freedom)


def well_posed(links: RangeLinks, fit: Fit) -> Bool[Tensor, "B K"]:
    """Whether the APs determine the position, only one place explains the ranges, and it is not far outside."""
    covariance = inverse_2x2(fit.information)
    regular = torch.isfinite(covariance).all(dim=-1).all(dim=-1)
    near = (fit.position_m == links.inside(fit.position_m, 0.999 * MARGIN)).all(dim=-1)
    sides = ~in_a_line(links) | mirror_excluded(links, fit.position_m)
    return enough_links(links) & sides & fit.unique & near & regular


def chi_squared_at(links: WalledRows, points_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """Sum of the squared residuals over their variances, less what a common offset takes away."""
    residual, weight = links.at(points_m)[1], links.weight
    if links.unknown_offset:
        total = weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        residual = residual - (weight * residual).sum(dim=1, keepdim=True) / total
    return (weight * residual.square()).sum(dim=1)


def gradient_at(links: WalledRows, points_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
    """Minus half of the gradient of ``chi_squared_at``, 1/m."""
    unit, residual = links.at(points_m)
    weight = links.weight
    if links.unknown_offset:
        total = weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        unit = unit - ((weight / total).unsqueeze(-1) * unit).sum(dim=1, keepdim=True)
    return ((weight * residual).unsqueeze(-1) * unit).sum(dim=1)


def by_chance(links: RangeLinks, kept: RangeLinks, freedom: Int[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Expected number of choices of links that agree at a wrong place as well as the believed ones do.

    Of the n links that do not fix the position, f agree by chance: C(n, f) p^f, p the share of the area's side that six
    standard deviations take.

    Args:
        links, kept: all that count, and the believed ones of them.
        freedom: f.
    """
    agreeing = freedom.clamp(min=0).to(kept.std_m)
    spare = agreeing + (links.usable & ~kept.usable).sum(dim=1)
    std = (kept.std_m * kept.usable).sum(dim=1) / kept.usable.sum(dim=1).clamp(min=1)
    share = (6.0 * std / links.side_m).clamp(max=1.0)
    choices = torch.lgamma(spare + 1) - torch.lgamma(agreeing + 1) - torch.lgamma(spare - agreeing + 1)
    return torch.exp(choices + agreeing * torch.log(share))


def unsettled(links: RangeLinks, fit: Fit) -> Bool[Tensor, "B K"]:
    """Whether the answer of a closed form is no minimum: a Gauss-Newton step is long, or leads to no rest."""
    point = fit.position_m
    covariance = inverse_2x2(fit.information).nan_to_num(posinf=0.0)
    gradient = gradient_at(links, point)
    step = (covariance @ gradient.unsqueeze(-1)).squeeze(-1)
    after = gradient_at(links, point + step)
    again = (after.unsqueeze(-2) @ covariance @ after.unsqueeze(-1))[..., 0, 0]
    return ((gradient * step).sum(dim=-1) > _UNSETTLED_STD**2) | (again > _RESTING_STD**2)


def rises(
    links: WalledRows,
    points_m: Float[Tensor, "B K 2"],
    covariance_m2: Float[Tensor, "B K 2 2"],
    chi_squared: Float[Tensor, "B K"],
    probes: tuple[float, ...] = PROBES,
    robust: bool = False,
    least: float = _RISE,
) -> Bool[Tensor, "B K"]:
    """Whether chi squared rises around the points nearly as the covariance says, along both of its axes.

    What lies outside the stated area needs no evidence against it.

    Args:
        links: believed ones.
        points_m, covariance_m2: answers.
        chi_squared: at the points.
        probes: how many standard deviations away to look.
        robust: the answers are minima of another loss: the slope of chi squared is taken out.
        least: share of a Gaussian's rise that is asked for.
    """
    values, axes = torch.linalg.eigh(covariance_m2.nan_to_num(posinf=0.0))
    steps = (values.clamp(min=0.0).sqrt().unsqueeze(-2) * axes).unbind(dim=-1)
    gradient = gradient_at(links, points_m) * float(robust)
    rising = torch.ones_like(chi_squared, dtype=torch.bool)
    for count in probes:
        for step in steps:
            for side in (count, -count):
                probe = points_m + side * step
                slope = -2 * side * (gradient * step).sum(dim=-1)
                rise = chi_squared_at(links, probe) - chi_squared - slope
                excluded = beyond_walls_m(links, probe) > 0
                rising = rising & ((rise >= least * count**2) | excluded)
    return rising


def beyond_walls_m(links: WalledRows, points_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K"]:
    """How far points lie outside the stated area; 0 where none is stated."""
    if links.area_m is None:
        return torch.zeros_like(points_m[..., 0])
    return metres_outside(points_m, points_m.new_tensor(links.area_m))


def mirror_excluded(links: RangeLinks, points_m: Float[Tensor, "B K 2"]) -> Bool[Tensor, "B K"]:
    """Whether the stated area excludes the images of the points on the other side of their APs' line."""
    image = mirrored(links, points_m.unsqueeze(1)).squeeze(1)
    return beyond_walls_m(links, image) > beyond_walls_m(links, points_m) + _tolerance_m(links)


def estimate(
    links: RangeLinks,
    position_m: Float[Tensor, "B K 2"],
    covariance_m2: Float[Tensor, "B K 2 2"],
    verdict: Verdict,
) -> PositionEstimate:
    """Positions and covariances, all finite: what is not known has the covariance of the uniform distribution.

    The position is not pulled into the area: an efficient estimator spreads over its border, and the bound knows none.
    """
    low, high = links.box()
    finite = torch.isfinite(position_m).all(dim=-1)
    position = torch.where(finite[..., None], position_m, (low + high) / 2)
    told = finite & torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)
    verdict = verdict.also(Reason.NOT_CONVERGED, ~told)
    by_noise = (verdict.reason == int(Reason.LARGE_RESIDUALS)) | (verdict.reason == int(Reason.OUTSIDE))
    known = told & (verdict.valid | by_noise)
    nothing = torch.eye(2, dtype=position.dtype, device=position.device) * (links.side_m**2 / 12)
    covariance = torch.where(known[..., None, None], covariance_m2, nothing)
    return PositionEstimate(
        position, covariance, verdict.valid, verdict.reason, verdict.chi_squared, verdict.degrees_of_freedom
    )


def _tolerance_m(links: RangeLinks) -> float:
    return 1e-6 * links.side_m
