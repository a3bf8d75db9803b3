"""The mean of the posterior over the area: an answer with an honest covariance also where no link has a line of sight.

Where ranges are good it is the maximum of the likelihood. Where they are not, the likelihood is wide, has several peaks
or its peak outside the area, and the mean over the places where a user may be is the estimate of least squared error.
The law of the errors, a mixture as in ``toa-em``, is fitted to the epochs themselves with their positions integrated
over the area: EM, Dempster, Laird and Rubin (1977).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checks import number_fields, whole_fields
from cfpos_envs.measurements.base import PositionEstimate, Reason, first_reason
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.geometry import metres_outside

from .common import TimingEstimator
from .links import RangeLinks, range_links

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)
_USERS_AT_A_TIME = 64
_FINE, _COMPACT_CELLS, _REFINEMENTS = 24, 4.0, 2
_SHARES = (0.02, 0.98)
_FACTORS = (0.2, 20.0)


@dataclass(frozen=True)
class AreaMeanOptions:
    """Options of ``AreaMean``.

    Attributes:
        cells: along the longer side of the area, >= 8.
        blunders: share of ranges that may be anything, too short ones as well.
        rounds: of EM for the share of LOS links, the mean excess and a factor on the standard deviations (not where
            these are smaller than a cell); 0 believes what is told, and a share of one half.
        fitted_users: so many, evenly chosen, are used for that.
    """

    cells: int = 48
    blunders: float = 0.02
    rounds: int = 8
    fitted_users: int = 200

    def __post_init__(self) -> None:
        whole_fields(self, 8, "cells")
        whole_fields(self, 0, "rounds")
        whole_fields(self, 1, "fitted_users")
        number_fields(self, 0.0, 0.5, "blunders")


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


class AreaMean(TimingEstimator):
    """Posterior mean and covariance of every user over the area (``area_m``, or the square around the APs)."""

    name: ClassVar[str] = "toa-area-mean"
    options_class: ClassVar[type] = AreaMeanOptions
    families: ClassVar[tuple[str, ...]] = ("toa", "rtt")
    options: AreaMeanOptions

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        links = range_links(measurements)
        episodes = [self._episode(measurements, _episode(links, number)) for number in range(links.usable.shape[0])]
        position, covariance = (torch.stack(parts) for parts in zip(*episodes))
        valid = links.usable.sum(dim=1) >= 2
        reason = first_reason(valid, (Reason.TOO_FEW_LINKS, ~valid))
        return PositionEstimate(position, covariance, valid, reason)

    def _episode(self, measurements: TimingMeasurements, links: RangeLinks) -> tuple[Tensor, Tensor]:
        options = self.options
        places, cell = _places(links, options.cells)
        width = 2 * links.side_m
        law = Law(0.5, max(measurements.model.nlos_mean_m, 1e-3 * width), 1.0, options.blunders, width)
        some = torch.linspace(0, links.usable.shape[2] - 1, min(options.fitted_users, links.usable.shape[2])).long()
        # A place is known to a cell at best while the law is fitted.
        wide = _replaced(links, {"std_m": (links.std_m.square() + cell**2 / 6).sqrt()})
        for _ in range(options.rounds):
            law = refitted(law, _users(wide, some), places)
        usual = float(links.std_m[links.usable].median()) if bool(links.usable.any()) else cell
        if usual < cell:
            law = dataclasses.replace(law, factor=1.0)
        found = [_fix(part, law, places, cell) for part in _parts(links)]
        position, covariance = (torch.cat(pieces) for pieces in zip(*found))
        return position, covariance


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


def _fix(links: RangeLinks, law: Law, places_m: Tensor, cell_m: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance; a compact posterior is looked at again, twice, with finer cells around it."""
    users = links.usable.shape[2]
    mean, covariance = _moments(links, law, places_m.expand(users, -1, 2), cell_m)
    cell = torch.full((users,), cell_m, dtype=mean.dtype)
    line = torch.linspace(-1, 1, _FINE, dtype=mean.dtype)
    square = torch.cartesian_prod(line, line)
    for _ in range(_REFINEMENTS):
        reach = 3 * covariance.diagonal(dim1=-2, dim2=-1).sqrt().amax(dim=-1) + cell
        compact = reach < (3 * _COMPACT_CELLS + 1) * cell
        finer = 2 * reach / (_FINE - 1)
        again, narrow = _moments(links, law, mean[:, None] + reach[:, None, None] * square, 0.0)
        narrow = narrow + (finer.square() / 12)[:, None, None] * torch.eye(2, dtype=mean.dtype)
        mean = torch.where(compact[:, None], again, mean)
        covariance = torch.where(compact[:, None, None], narrow, covariance)
        cell = torch.where(compact, finer, cell)
    return mean, covariance


def _moments(links: RangeLinks, law: Law, places_m: Float[Tensor, "K G 2"], cell_m: float) -> tuple[Tensor, Tensor]:
    error, std = _errors(links, places_m)
    los, nlos, blunder = law.classes(error, std)
    total = torch.logaddexp(torch.logaddexp(los, nlos), blunder) * links.usable[0].mT[:, None]
    weight = total.sum(dim=-1)
    if links.area_m is not None:
        outside = metres_outside(places_m, places_m.new_tensor(links.area_m)) > cell_m
        weight = torch.where(outside & ~outside.all(dim=1, keepdim=True), -torch.inf, weight)
    weight = torch.softmax(weight, dim=1)
    mean = torch.einsum("kg,kgd->kd", weight, places_m)
    away = places_m - mean[:, None]
    covariance = torch.einsum("kg,kgi,kgj->kij", weight, away, away)
    return mean, covariance + cell_m**2 / 12 * torch.eye(2, dtype=mean.dtype)


def _errors(links: RangeLinks, places_m: Float[Tensor, "*K G 2"]) -> tuple[Tensor, Tensor]:
    """Measured less true ranges [K, G, M] if users were at these places, and their standard deviations [K, 1, M]."""
    away = places_m[..., None, :] - links.ap_positions_m[0]
    distance = (away.square().sum(dim=-1) + links.height_diff_m[0].square()).sqrt()
    return links.range_m[0].mT[:, None] - distance, links.std_m[0].mT[:, None]


def _places(links: RangeLinks, cells: int) -> tuple[Float[Tensor, "G 2"], float]:
    """Middles of equal cells in the area, and their side."""
    if links.area_m is None:
        low, high = (corner[0, 0] for corner in links.box())
    else:
        corners = links.ap_positions_m.new_tensor(links.area_m)
        low, high = corners.amin(dim=0), corners.amax(dim=0)
    cell = float((high - low).max()) / cells
    axes = [start + cell * (torch.arange(max(1, math.ceil(float(end - start) / cell - 1e-9))) + 0.5)
            for start, end in zip(low, high)]  # fmt: skip
    places = torch.cartesian_prod(*axes).to(links.ap_positions_m)
    if links.area_m is not None:
        inside = metres_outside(places, places.new_tensor(links.area_m)) <= 0
        places = places[inside] if bool(inside.any()) else places
    return places, cell


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
