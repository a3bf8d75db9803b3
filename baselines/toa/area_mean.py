"""The mean of the posterior over the area: an answer with an honest covariance also where no link has a line of sight.

Where ranges are good it is the maximum of the likelihood. Where they are not, the likelihood is wide, has several peaks
or its peak outside the area, and the mean over the places where a user may be is the estimate of least squared error.
The law of the errors, a mixture as in ``toa-em``, is fitted to the epochs themselves with their positions integrated
over the area: EM, Dempster, Laird and Rubin (1977).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import PositionEstimate, Reason, first_reason
from cfpos_envs.measurements.toa import TimingMeasurements

from ..posterior import Cells, Moments, posterior_moments
from ..validity import residuals_fit
from .common import TimingEstimator
from .judge import Verdict
from .links import RangeLinks, range_links
from .signs import check_group

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
_USERS_AT_A_TIME = 64
_FEWEST_LINKS = 2
_SHARES = (0.02, 0.98)
_FACTORS = (0.2, 20.0)


@dataclass(frozen=True)
class AreaMeanOptions(Declared):
    """Options of ``toa-mmse``.

    Attributes:
        cells: along the longer side of the area, >= 8; divided further where the probability is.
        blunders: share of ranges that may be anything, too short ones as well.
        los_share: share of links with a line of sight; where the law is fitted, what it begins with.
        nlos_mean_m: mean excess of the others, metres, likewise; None takes that of the measurements.
        rounds: of EM for the share of LOS links, the mean excess and a factor on the standard deviations (not where
            these are smaller than a cell); 0 believes what is told.
        fitted_users: so many, evenly chosen, are used for that.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "cells": (8, 4096),
        "rounds": (0, 10_000),
        "fitted_users": (1, 1_000_000),
        "blunders": (0, 0.5),
        "los_share": _SHARES,
        "nlos_mean_m": (1e-6, 1e5),
    }

    cells: int = 48
    blunders: float = 0.02
    los_share: float = 0.5
    nlos_mean_m: float | None = None
    rounds: int = 8
    fitted_users: int = 200


@dataclass(frozen=True)
class Law:
    """Errors of ranges: (1 - eps) (pi N(0, (f sigma)^2) + (1 - pi) EMG) + eps / W.

    Attributes:
        los_share: pi.
        mean_m: mean excess of the others, > 0.
        factor: f, on the stated standard deviations.
        blunders: eps.
        width_m: W, over which blunders are uniform.
    """

    los_share: float
    mean_m: float
    factor: float
    blunders: float
    width_m: float

    def classes(self, error_m: Tensor, std_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log densities, each with its share: LOS, NLOS, blunder."""
        std = self.factor * std_m
        good = math.log1p(-self.blunders)
        los = good + math.log(self.los_share) - 0.5 * (error_m / std).square() - _LOG_ROOT_2PI - torch.log(std)
        tail = torch.special.log_ndtr(error_m / std - std / self.mean_m)
        nlos = 0.5 * (std / self.mean_m).square() - error_m / self.mean_m + tail - math.log(self.mean_m)
        blunder = math.log(self.blunders) - math.log(self.width_m) if self.blunders > 0 else -math.inf
        return los, good + math.log1p(-self.los_share) + nlos, torch.full_like(error_m, blunder)

    def normal_scores(self, error_m: Tensor, std_m: Tensor) -> Tensor:
        """Scores z = Phi^-1(F(e)), standard normal if the errors follow this law; F its distribution function."""
        std = self.factor * std_m
        z, tail = error_m / std, torch.special.log_ndtr(error_m / std - std / self.mean_m)
        below = torch.exp(0.5 * (std / self.mean_m).square() - error_m / self.mean_m + tail)
        normal = torch.special.ndtr(z)
        kept = self.los_share * normal + (1 - self.los_share) * (normal - below).clamp(min=0.0)
        blunder = (error_m / self.width_m + 0.5).clamp(0.0, 1.0)
        total = (1 - self.blunders) * kept + self.blunders * blunder
        # Beyond eight deviations double precision ends.
        return torch.special.ndtri(total.clamp(1e-15, 1 - 1e-15))


class AreaMean(TimingEstimator):
    """Mean and covariance of the position given ranges and their mixture, every place of the area equally likely."""

    name: ClassVar[str] = "toa-mmse"
    options_class: ClassVar[type] = AreaMeanOptions
    families: ClassVar[tuple[str, ...]] = ("toa", "rtt")
    options: AreaMeanOptions

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        links = range_links(measurements)
        told = measurements.model.nlos_mean_m if self.options.nlos_mean_m is None else self.options.nlos_mean_m
        episodes = [self._episode(_episode(links, number), told) for number in range(links.usable.shape[0])]
        position, covariance, scores = (torch.stack(parts) for parts in zip(*episodes))
        usable = links.usable.sum(dim=1)
        chi_squared = (scores.square() * links.usable).sum(dim=1)
        freedom = usable - 2
        failures = (
            (Reason.TOO_FEW_LINKS, usable < _FEWEST_LINKS),
            (Reason.LARGE_RESIDUALS, ~residuals_fit(chi_squared, torch.where(freedom > 0, usable, 0))),
        )
        valid = ~torch.stack([failed for _, failed in failures]).any(dim=0)
        verdict = check_group(Verdict(first_reason(valid, *failures), chi_squared, freedom), freedom > 0)
        return PositionEstimate(position, covariance, verdict.valid, verdict.reason, chi_squared, freedom)

    def _episode(self, links: RangeLinks, nlos_mean_m: float) -> tuple[Tensor, Tensor, Tensor]:
        options = self.options
        cells = _cells(links, options.cells)
        width = 2 * links.side_m
        law = Law(options.los_share, max(nlos_mean_m, 1e-3 * width), 1.0, options.blunders, width)
        some = torch.linspace(0, links.usable.shape[2] - 1, min(options.fitted_users, links.usable.shape[2])).long()
        # A place is known to a cell at best while the law is fitted.
        cell = float(cells.sides_m.max())
        wide = _replaced(links, {"std_m": (links.std_m.square() + cell**2 / 6).sqrt()})
        for _ in range(options.rounds):
            law = refitted(law, _users(wide, some), cells.inside_m)
        usual = float(links.std_m[links.usable].median()) if bool(links.usable.any()) else cell
        if usual < cell:
            law = dataclasses.replace(law, factor=1.0)
        found = [_fix(part, law, cells) for part in _parts(links)]
        position, covariance, scores = (torch.cat(pieces) for pieces in zip(*found))
        return position, covariance, scores.mT


def refitted(law: Law, links: RangeLinks, places_m: Float[Tensor, "G 2"]) -> Law:
    """One round of EM: shares, mean excess and factor from what the classes and places probably are.

    Args:
        law: so far.
        links: one episode.
        places_m: where users may be, equally likely.
    """
    los_sum = nlos_sum = excess_sum = square_sum = 0.0
    for part in _parts(links):
        usable = part.usable[0].mT[:, None]
        error, std = _errors(part, places_m)
        los, nlos, blunder = law.classes(error, std)
        total = torch.logaddexp(torch.logaddexp(los, nlos), blunder)
        weight = torch.softmax((total * usable).sum(dim=-1), dim=1)[..., None] * usable
        is_los, is_nlos = weight * torch.exp(los - total), weight * torch.exp(nlos - total)
        scaled = law.factor * std
        middle = (error - scaled.square() / law.mean_m) / scaled
        hazard = torch.exp(-0.5 * middle.square() - _LOG_ROOT_2PI - torch.special.log_ndtr(middle))
        los_sum += float(is_los.sum())
        nlos_sum += float(is_nlos.sum())
        excess_sum += float((is_nlos * scaled * (middle + hazard)).sum())
        square_sum += float((is_los * (error / std).square()).sum())
    # One link of each class is assumed a priori, so that no share becomes 0 or 1.
    share = (los_sum + 1) / (los_sum + nlos_sum + 2)
    mean = (excess_sum + law.mean_m) / (nlos_sum + 1)
    factor = math.sqrt((square_sum + 1) / (los_sum + 1))
    return Law(
        min(max(share, _SHARES[0]), _SHARES[1]),
        max(mean, 1e-3 * law.width_m),
        min(max(factor, _FACTORS[0]), _FACTORS[1]),
        law.blunders,
        law.width_m,
    )


def _fix(links: RangeLinks, law: Law, cells: Cells) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [K, 2], covariance [K, 2, 2], and the links' scores [K, M] at the likeliest place."""
    usable = links.usable[0].mT[:, None]
    # With all links in line of sight and from all sides; from one side it is wider.
    narrowest = law.factor * (2 / links.weight[0].sum(dim=0)).sqrt()

    def likelihood(points_m: Tensor, sides_m: Tensor) -> Tensor:
        error, std = _errors(links, points_m)
        logs = law.classes(error, _within_cells(std, law, sides_m))
        return (torch.logaddexp(torch.logaddexp(logs[0], logs[1]), logs[2]) * usable).sum(dim=-1)

    found: Moments = posterior_moments(likelihood, cells, narrowest)
    error, std = _errors(links, found.likeliest_m[:, None])
    scores = law.normal_scores(error, _within_cells(std, law, found.sides_m))[:, 0]
    return found.mean_m, found.covariance_m2, scores


def _within_cells(std_m: Tensor, law: Law, sides_m: Tensor) -> Tensor:
    """Deviations with what a range varies by within a cell: s^2 / 12 in whatever direction."""
    within = sides_m.square().mean(dim=1)[:, None, None] / 12
    return (std_m.square() + within / law.factor**2).sqrt()


def _errors(links: RangeLinks, places_m: Float[Tensor, "*K G 2"]) -> tuple[Tensor, Tensor]:
    """Measured less true ranges [K, G, M] if users were at these places, and their standard deviations [K, 1, M]."""
    away = places_m[..., None, :] - links.ap_positions_m[0]
    distance = (away.square().sum(dim=-1) + links.height_diff_m[0].square()).sqrt()
    return links.range_m[0].mT[:, None] - distance, links.std_m[0].mT[:, None]


def _cells(links: RangeLinks, count: int) -> Cells:
    """Of the area, or of the square with its APs where none is stated."""
    if links.area_m is None:
        low, high = (corner[0, 0] for corner in links.box())
    else:
        corners = links.ap_positions_m.new_tensor(links.area_m)
        low, high = corners.amin(dim=0), corners.amax(dim=0)
    return Cells.over(low, high, count, links.area_m)


def _parts(links: RangeLinks) -> Iterator[RangeLinks]:
    for number in torch.arange(links.usable.shape[2]).split(_USERS_AT_A_TIME):
        yield _users(links, number)


def _users(links: RangeLinks, chosen: Tensor) -> RangeLinks:
    parts = {name: getattr(links, name)[:, :, chosen] for name in ("range_m", "std_m", "usable")}
    return _replaced(links, parts)


def _episode(links: RangeLinks, number: int) -> RangeLinks:
    names = ("ap_positions_m", "height_diff_m", "range_m", "std_m", "usable")
    return _replaced(links, {name: getattr(links, name)[number : number + 1] for name in names})


def _replaced(links: RangeLinks, parts: dict[str, Tensor]) -> RangeLinks:
    return RangeLinks(**{**vars(links), **parts})
