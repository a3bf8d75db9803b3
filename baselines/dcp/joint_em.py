"""``joint-em``: all users of a site at once, with everything that may be wrong with APs and links summed out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.fields import Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate, Reason
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.geometry import into_area
from cfpos_envs.physics.normal_equations import NormalEquations, polar_terms
from cfpos_envs.physics.robust import clamp_length

from ..base import Estimator
from .descent import (
    MAX_STEP_M,
    RIDGE,
    Descent,
    LinkObservations,
    robust_gauss_newton,
    rss_gradient,
    standard_deviation_m,
    wrong_side_variance,
)
from .fault_laws import BEARING_NU, POWER_NU, FaultLaws, residuals_at, robust_precision
from .front_end import read_links
from .gauss_newton import (
    LEAST_RSS_STD_DB,
    GaussNewtonOptions,
    coarse_fix,
    link_observations,
    unknown_shadowing_db,
)
from .judging import LEAST_LINKS
from .links import cleaned, finished, require_arrays, usable_links
from .radio_map import RadioMap, measured_profiles

_START_STD_DB = 6.0
_LEAST_STD_DB = 0.3
_FIRST_INFLATIONS = (3.0, 1.0)
"""On deviations, of every climb: a cautious one, and one that believes its start."""
_PEAK = 1.2
"""Bearings of a sound link are this much worse than the nominal scale, which joint-gn takes for weights alone."""
_BLOCKED_STD = 3.0
_LEAST_BLOCKED = 0.05
_STATES = (0, 1, 2)
_BUT_EPISODES = (*_STATES, 4, 5)


@dataclass(frozen=True)
class JointEmOptions(FaultLaws):
    """Options of ``joint-em``: the laws of what may be wrong, and how it is searched.

    Attributes:
        sigma_db: standard deviation of the shadowing that no map explains, dB; None fits it to every drop.
        steps: steps of expectation and maximisation, >= 1.
        grid_spacing: spacing of the coarse search that gives the start, metres.
        links, link_training: front end, as of ``joint-gn``.
    """

    ranges: ClassVar[Mapping[str, Range]] = GaussNewtonOptions.ranges
    choices: ClassVar[Mapping[str, Collection[str]]] = GaussNewtonOptions.choices

    sigma_db: float | None = None
    steps: int = 20
    grid_spacing: float = GaussNewtonOptions.grid_spacing
    links: str = GaussNewtonOptions.links
    link_training: bool = GaussNewtonOptions.link_training


class JointEm(Estimator[RadioMeasurements]):
    """Expectation and maximisation over all users of a drop, started from robust Gauss-Newton.

    Every step finds the probability of each state of each AP and link (``fault_laws``), given everybody's measurements
    and present positions, and moves all users by one Gauss-Newton step of the sum that these probabilities weigh; the
    shadowing is fitted along the way. Deviations start inflated, so that the first steps do not decide too early.
    The covariance is the inverse of the observed information: that of known states less what not knowing them takes
    (Louis, 1982), link by link.
    """

    name: ClassVar[str] = "joint-em"
    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = JointEmOptions
    options: JointEmOptions
    _episodes_at_a_time: ClassVar[int | None] = 32

    @property
    def reads_covariance(self) -> bool:
        """With all front ends but ``dft``."""
        return self.options.links != "dft"

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions of all users of every episode together."""
        options = self.options
        require_arrays(self.name, measurements, covariance=options.links != "dft")
        usable = usable_links(measurements, covariance=True)
        clean = cleaned(measurements, usable)
        site, profiles = RadioMap.of(clean), measured_profiles(clean)
        shadowing_db = unknown_shadowing_db(clean) if options.sigma_db is None else options.sigma_db
        readings = read_links(clean, options.links, profiles, link_training=options.link_training)
        seen = link_observations(clean, usable, shadowing_db, readings)
        coarse = coarse_fix(clean, usable, max(shadowing_db, _LEAST_STD_DB), profiles, options.grid_spacing)
        start_std = options.grid_spacing / math.sqrt(12.0)
        start = robust_gauss_newton(site, seen, coarse.best_m, start_std, GaussNewtonOptions.steps)
        sampling = readings.power_std_db.clamp(min=LEAST_RSS_STD_DB)
        best = self._climb(site, seen, sampling, start, _FIRST_INFLATIONS[0])
        for inflation in _FIRST_INFLATIONS[1:]:
            best = best.or_better(self._climb(site, seen, sampling, start, inflation))
        points, covariance = best.position_m, best.covariance_m2
        answered = usable.sum(dim=1) >= LEAST_LINKS
        spread = torch.diagonal(covariance, dim1=-2, dim2=-1).sum(dim=-1).sqrt()
        lost = spread > site.radio.side_m / math.sqrt(6.0)
        blocked = best.blocked_share > _most_blocked(options.nlos_share, usable)
        return finished(
            measurements,
            points,
            covariance,
            answered,
            (Reason.POOR_GEOMETRY, lost),
            (Reason.LARGE_RESIDUALS, blocked.unsqueeze(1).expand_as(lost)),
        )

    def _climb(
        self, site: RadioMap, seen: LinkObservations, sampling_db: Tensor, start: Descent, inflation: float
    ) -> _Climb:
        options, radio, known_db = self.options, site.radio, self.options.sigma_db
        points, spread_m = start.position_m, start.spread_m
        shadowing = torch.full_like(points[:, :1, :1], _START_STD_DB if known_db is None else known_db)
        for factor in _inflations(inflation, options.steps):
            found = _expected(options, site, seen, sampling_db, shadowing * factor, points, spread_m, factor)
            spread_m = standard_deviation_m(found.known)
            move = clamp_length(found.known.solve(RIDGE), MAX_STEP_M)
            points = into_area(points + move, radio.side_m, radio.wrap)
            if known_db is None:
                shadowing = found.shadowing_db
        found = _expected(options, site, seen, sampling_db, shadowing, points, spread_m, 1.0)
        return _Climb(points, found.observed.covariance(RIDGE), found.evidence, found.blocked_share)


@dataclass(frozen=True)
class _Climb:
    """Where a climb ended, the log-likelihood there, and the share of links that are taken for blocked."""

    position_m: Float[Tensor, "B K 2"]
    covariance_m2: Float[Tensor, "B K 2 2"]
    evidence: Float[Tensor, " B"]
    blocked_share: Float[Tensor, " B"]

    def or_better(self, other: _Climb) -> _Climb:
        """Of every episode the likelier of two."""
        better = other.evidence > self.evidence
        return _Climb(
            torch.where(better[:, None, None], other.position_m, self.position_m),
            torch.where(better[:, None, None, None], other.covariance_m2, self.covariance_m2),
            torch.where(better, other.evidence, self.evidence),
            torch.where(better, other.blocked_share, self.blocked_share),
        )


@dataclass(frozen=True)
class _Expected:
    """Sums over all links, each weighed by the probabilities of its states.

    Attributes:
        known: as if the states were known: the equations of a step.
        observed: with the information that not knowing them takes left out.
        shadowing_db: standard deviation of the shadowing that the residuals show.
        evidence: log-likelihood of the points, up to a constant.
        blocked_share: expected share of the links without a line of sight.
    """

    known: NormalEquations
    observed: NormalEquations
    shadowing_db: Float[Tensor, "B 1 1"]
    evidence: Float[Tensor, " B"]
    blocked_share: Float[Tensor, " B"]


def _most_blocked(nlos_share: float, usable: Bool[Tensor, "B M K"]) -> Float[Tensor, " B"]:
    """Share of blocked links that one of a thousand episodes exceeds by chance, if ``nlos_share`` is true.

    Beyond it the links are not what is assumed of them, and places are found where they happen to look so.
    """
    links = usable.sum(dim=(1, 2)).clamp(min=1)
    share = nlos_share + _BLOCKED_STD * torch.sqrt(nlos_share * (1.0 - nlos_share) / links)
    return share.clamp(min=_LEAST_BLOCKED)


def _expected(
    laws: FaultLaws,
    site: RadioMap,
    seen: LinkObservations,
    sampling_db: Float[Tensor, "B M K"],
    shadowing_db: Float[Tensor, "B 1 1"],
    points: Float[Tensor, "B K 2"],
    spread_m: Float[Tensor, "B K"],
    inflation: float,
) -> _Expected:
    """The sums at the points, with all deviations but that of the wrong side ``inflation`` times as large."""
    assert seen.rss_dbm is not None
    assert seen.bearing_rad is not None
    assert seen.bearing_std_rad is not None
    links = site.links(points)
    gradient = rss_gradient(site, links, points)
    steepness = torch.linalg.vector_norm(gradient, dim=-1).clamp(min=1e-6)
    side = wrong_side_variance(links.distance_m, links.angle_rad, spread_m) / links.distance_m.square()
    bearing_std = torch.sqrt((seen.bearing_std_rad * (inflation * _PEAK)).square() + side)
    power_std = torch.sqrt(sampling_db.square() + shadowing_db.square()).clamp(min=_LEAST_STD_DB)
    residuals = residuals_at(
        laws, links, seen.rss_dbm, site.rss_dbm(points, links), power_std, seen.bearing_rad, bearing_std, seen.usable
    )
    share, evidence = residuals.responsibilities()
    power_share, bearing_share = share.sum(dim=0, keepdim=True), residuals.by_fault(share)
    scale = residuals.power_std_db
    power_weight = robust_precision(residuals.power_db, scale, POWER_NU)
    power = _moments(power_share, residuals.power_db, power_weight)
    bearing_weight = robust_precision(residuals.bearing_rad, residuals.bearing_std_rad, BEARING_NU)
    bearing = _moments(bearing_share, residuals.bearing_rad, bearing_weight)
    zero = torch.zeros_like(steepness)
    along, across = gradient / steepness.unsqueeze(-1), links.unit

    def equations(power_information: Tensor, bearing_information: Tensor) -> NormalEquations:
        of_power = power_information * steepness.square()
        of_bearing = bearing_information / links.distance_m.square()
        radial = polar_terms(along, of_power, zero, power.residual / steepness, zero)
        return radial.total().plus(
            polar_terms(across, zero, of_bearing, zero, bearing.residual * links.distance_m).total()
        )

    squares = (power_share * power_weight * (scale * residuals.power_db).square()).sum(dim=_BUT_EPISODES)
    variance = squares / power_share.sum(dim=_BUT_EPISODES).clamp(min=1.0)
    noise = (sampling_db.square() * seen.usable).sum(dim=(1, 2)) / seen.usable.sum(dim=(1, 2)).clamp(min=1)
    shadowing = (variance - noise).clamp(min=_LEAST_STD_DB**2).sqrt()[:, None, None]
    observed = equations(power.observed, bearing.observed)
    blocked = power_share[:, :, 1:].sum(dim=_BUT_EPISODES) / seen.usable.sum(dim=(1, 2)).clamp(min=1)
    return _Expected(equations(power.information, bearing.information), observed, shadowing, evidence, blocked)


@dataclass(frozen=True)
class _Moments:
    """Of the states of one link: mean residual by information, information, and what of it is observed."""

    residual: Float[Tensor, "B M K"]
    information: Float[Tensor, "B M K"]
    observed: Float[Tensor, "B M K"]


def _moments(share: Tensor, residual: Tensor, weight: Tensor) -> _Moments:
    """Of residuals [T, F, C, B, M, K], each with its probability and precision; axes of size 1 stand for all states."""
    known, pull = share * weight, weight * residual
    information = known.sum(dim=_STATES)
    score = (known * residual).sum(dim=_STATES)
    spread = (share * pull.square()).sum(dim=_STATES) - score.square()
    mean = score / information.clamp(min=torch.finfo(score.dtype).tiny)
    return _Moments(mean, information, (information - spread).clamp(min=0.0))


def _inflations(first: float, steps: int) -> list[float]:
    """Factors on deviations: falling to 1 in the first half of the steps, then 1."""
    falling = max(1, steps // 2)
    return [first ** (1.0 - min(1.0, step / falling)) for step in range(steps)]
