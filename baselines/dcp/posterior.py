"""Mean of the posterior over a grid: what received powers say where they leave much open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.geometry import lattice, metres_outside, nearest_image

from ..base import Estimator
from .descent import LinkObservations
from .gauss_newton import link_observations, unknown_shadowing_db
from .judging import judged_by_powers
from .links import by_users, cleaned, grid_spacing_m, usable_links
from .radio_map import RadioMap

_ROUNDS = 3
"""Grids, each over the part of the one before that is still probable."""
_POINTS_A_SIDE = 40
_REACH = 4.0
"""Standard deviations to either side that a finer grid reaches."""


@dataclass(frozen=True)
class PosteriorOptions(Declared):
    """Options of ``rss-mmse``.

    Attributes:
        sigma_db: standard deviation of the shadowing that no map explains, dB; None takes that of the measurements.
        grid_spacing: spacing of the first grid, over the whole area, metres; never less than the side / 128.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"sigma_db": (0, 100), "grid_spacing": (0.001, 1e5)}

    sigma_db: float | None = None
    grid_spacing: float = 2.0


class RssPosteriorMean(Estimator[RadioMeasurements]):
    """RSS only: mean and covariance of the position given the powers, every place of the area equally likely before.

    Args:
        env, options: see ``Policy`` and ``PosteriorOptions``.
    """

    name: ClassVar[str] = "rss-mmse"
    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = PosteriorOptions
    options: PosteriorOptions
    _episodes_at_a_time: ClassVar[int | None] = 32

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the covariance of the posterior; ``judging`` compares them with the powers."""
        return by_users(measurements, self._locate_users)

    def _locate_users(self, measurements: RadioMeasurements) -> PositionEstimate:
        usable = usable_links(measurements, aoa=False, covariance=True)
        clean = cleaned(measurements, usable)
        shadowing_db = unknown_shadowing_db(clean) if self.options.sigma_db is None else self.options.sigma_db
        powers = link_observations(clean, usable, shadowing_db, None)
        site = RadioMap.of(clean)
        mean, covariance = posterior_moments(site, powers, self.options.grid_spacing, measurements.area_m)
        return judged_by_powers(measurements, site, powers, mean, covariance)


def posterior_moments(
    site: RadioMap,
    powers: LinkObservations,
    spacing_m: float,
    area_m: tuple[tuple[float, float], ...] | None = None,
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K 2 2"]]:
    """Mean and covariance of the position under independent Gaussian errors of the powers in dB.

    p(x | r) is proportional to prod_m exp(-(r_m - RSS_m(x))^2 / (2 s_m^2)) / s_m inside of the area. Sums over a grid
    stand for the integrals; what RSS_m varies by within a cell adds to s_m^2, and finer grids over the probable part
    follow.

    Args:
        site: path loss and access points.
        powers: measured powers with their deviations.
        spacing_m: of the first grid.
        area_m: corners within which users are known to be.
    """
    assert powers.rss_dbm is not None
    side_m, wrap = site.radio.side_m, site.radio.wrap
    first = lattice(side_m, grid_spacing_m(side_m, spacing_m)).to(powers.rss_dbm.device)
    episodes, _, users = powers.rss_dbm.shape

    def moments(user: int, cells: _Cells) -> tuple[Tensor, Tensor]:
        logs = torch.where(cells.inside, _log_likelihood(powers, user, cells), -torch.inf)
        return _moments(cells.points_m, logs, cells.steps_m, side_m, wrap)

    everywhere = first.new_full((episodes, 2), side_m / round(math.sqrt(len(first))))
    # What is expected on the first grid is the same for all users.
    whole = _Cells.at(site, first.expand(episodes, -1, -1), everywhere, area_m)
    means, covariances = [], []
    for user in range(users):
        steps = everywhere
        mean, covariance = moments(user, whole)
        for _ in range(_ROUNDS - 1):
            points, finer = _finer_grid(mean, covariance)
            found = moments(user, _Cells.at(site, points.remainder(side_m) if wrap else points, finer, area_m))
            # Where much is open, the grid before was the finer one.
            better = (finer < steps).all(dim=-1)
            mean = torch.where(better[:, None], found[0], mean)
            covariance = torch.where(better[:, None, None], found[1], covariance)
            steps = torch.where(better[:, None], finer, steps)
        means.append(mean)
        covariances.append(covariance)
    return torch.stack(means, dim=1), torch.stack(covariances, dim=1)


@dataclass(frozen=True)
class _Cells:
    """A grid of every episode and what is expected in its cells.

    Attributes:
        points_m: their middles.
        steps_m: their sides.
        rss_dbm: expected in the middle.
        within_db2: variance of the RSS over the cell.
        inside: where users may be.
    """

    points_m: Float[Tensor, "B P 2"]
    steps_m: Float[Tensor, "B 2"]
    rss_dbm: Float[Tensor, "B M P"]
    within_db2: Float[Tensor, "B M P"]
    inside: Bool[Tensor, "B P"]

    @classmethod
    def at(
        cls, site: RadioMap, points_m: Tensor, steps_m: Tensor, area_m: tuple[tuple[float, float], ...] | None
    ) -> _Cells:
        links, radio = site.links(points_m), site.radio
        # d RSS / d log10(distance) is the slope: over a cell of the grid the power varies by that much.
        cell_m = steps_m.square().sum(dim=-1).div(12.0).sqrt()[:, None, None]
        within_db2 = (radio.path_loss_slope_db / math.log(10.0) * cell_m).square() / links.slant_square_m2
        inside = _inside(points_m, steps_m, radio.side_m, radio.wrap, area_m)
        return cls(points_m, steps_m, site.rss_dbm(points_m, links), within_db2, inside)


def _inside(
    points_m: Tensor, steps_m: Tensor, side_m: float, wrap: bool, area_m: tuple[tuple[float, float], ...] | None
) -> Bool[Tensor, "B P"]:
    """Points where users may be; all of them where that leaves none. Half a step outside stands for the border."""
    slack = steps_m.amax(dim=-1)[:, None] / 2
    inside = torch.ones(points_m.shape[:-1], dtype=torch.bool, device=points_m.device)
    if not wrap:
        inside &= ((points_m >= 0) & (points_m <= side_m)).all(dim=-1)
    if area_m is not None:
        inside &= metres_outside(points_m, points_m.new_tensor(area_m)) <= slack
    return inside | ~inside.any(dim=-1, keepdim=True)


def _log_likelihood(powers: LinkObservations, user: int, cells: _Cells) -> Float[Tensor, "B P"]:
    assert powers.rss_dbm is not None
    assert powers.rss_std_db is not None
    variance = cells.within_db2 + powers.rss_std_db[:, :, user, None].square()
    terms = (powers.rss_dbm[:, :, user, None] - cells.rss_dbm).square_().div_(variance).add_(variance.log_())
    return -0.5 * (powers.usable[:, None, :, user].to(terms.dtype) @ terms).squeeze(1)


def _moments(
    points_m: Tensor, logs: Tensor, steps_m: Tensor, side_m: float, wrap: bool
) -> tuple[Float[Tensor, "B 2"], Float[Tensor, "B 2 2"]]:
    weight = torch.softmax(logs, dim=-1)
    best = logs.argmax(dim=-1)[:, None, None].expand(-1, 1, 2)
    anchor = points_m.gather(1, best)
    offsets = nearest_image(points_m - anchor, side_m, wrap)
    mean = (weight.unsqueeze(-1) * offsets).sum(dim=1)
    away = offsets - mean.unsqueeze(1)
    covariance = torch.einsum("bp,bpi,bpj->bij", weight, away, away) + torch.diag_embed(steps_m.square() / 12.0)
    position = anchor[:, 0] + mean
    return position.remainder(side_m) if wrap else position, covariance


def _finer_grid(mean_m: Tensor, covariance_m2: Tensor) -> tuple[Tensor, Tensor]:
    """A grid over the probable part, and its steps."""
    deviation = torch.diagonal(covariance_m2, dim1=-2, dim2=-1).sqrt()
    steps = 2 * _REACH / _POINTS_A_SIDE * deviation
    across = torch.linspace(-1.0, 1.0, _POINTS_A_SIDE, dtype=mean_m.dtype, device=mean_m.device)
    unit = torch.cartesian_prod(across, across)
    return mean_m.unsqueeze(1) + unit * (steps * (_POINTS_A_SIDE - 1) / 2).unsqueeze(1), steps
