"""Robust Gauss-Newton on RSS and bearing residuals, started from a coarse grid: ``rss-gn`` and ``joint-gn``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.covariance.readings import LinkReadings
from cfpos_envs.physics.dcp.innovations import coarse_joint_scores
from cfpos_envs.physics.geometry import lattice, metres_outside

from ..base import Estimator
from .descent import LinkObservations, robust_gauss_newton
from .front_end import DEFAULT_LINKS, LINKS, read_links, rss_sampling_db
from .judging import CoarseFix, judged
from .links import by_users, cleaned, grid_spacing_m, require_arrays, usable_links
from .radio_map import RadioMap, measured_profiles

LEAST_RSS_STD_DB = 0.1
"""Weights of powers without any noise would be infinite."""
_COARSE_RSS_SCALE_DB = 1.0
"""What sampling noise and the distance to the nearest grid point add to the RSS residual of the coarse search."""


@dataclass(frozen=True)
class GaussNewtonOptions(Declared):
    """Options of ``rss-gn`` and ``joint-gn``.

    Attributes:
        sigma_db: standard deviation of the shadowing that no map explains, dB; None takes that of the measurements.
        steps: Gauss-Newton steps, >= 1, each at most 5 m long.
        grid_spacing: spacing of the coarse search that gives the start, metres; smaller where a known map needs it, and
            never less than the side / 128.
        links: front end of ``joint-gn``, what reads every link. ``dft`` compares the angular power spectrum (what
            the game's agents see by default) with the table of directions; ``music`` and ``beamscan`` take a bearing
            from the whole covariance, ``likelihood`` and ``covariance`` bearing, power and both deviations.
        link_training: whether ``links=covariance`` may learn the network of an array for which none comes along, which
            takes seconds.
        self_calibrate: in the second half of the steps, remove every AP's median residual over its users and take
            its scale from their median absolute deviation; needs no ``sigma_db`` but several users.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"sigma_db": (0, 100), "steps": (1, 10_000), "grid_spacing": (0.001, 1e5)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"links": LINKS}

    sigma_db: float | None = None
    steps: int = 12
    grid_spacing: float = 5.0
    links: str = DEFAULT_LINKS
    link_training: bool = True
    self_calibrate: bool = False


class _GaussNewton(Estimator[RadioMeasurements]):
    """Coarse arg-max on a grid, then robust Gauss-Newton; subclasses say which measurements they use."""

    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = GaussNewtonOptions
    options: GaussNewtonOptions
    _episodes_at_a_time: ClassVar[int | None] = 32
    uses_bearings: ClassVar[bool]

    @property
    def reads_covariance(self) -> bool:
        """With all front ends but ``dft``."""
        return self.uses_bearings and self.options.links != "dft"

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the covariance from the inverse information matrix; ``judging`` says which to believe."""
        # Self-calibration needs all users at once.
        if self.options.self_calibrate:
            return self._locate_users(measurements)
        return by_users(measurements, self._locate_users)

    def _locate_users(self, measurements: RadioMeasurements) -> PositionEstimate:
        options = self.options
        if self.uses_bearings:
            require_arrays(self.name, measurements, covariance=options.links != "dft")
        usable = usable_links(measurements, aoa=self.uses_bearings, covariance=True)
        clean = cleaned(measurements, usable)
        profiles = measured_profiles(clean) if self.uses_bearings else None
        shadowing_db = unknown_shadowing_db(clean) if options.sigma_db is None else options.sigma_db
        readings = None
        if profiles is not None:
            readings = read_links(clean, options.links, profiles, link_training=options.link_training)
        observations = link_observations(clean, usable, shadowing_db, readings)
        coarse = coarse_fix(clean, usable, shadowing_db, profiles, options.grid_spacing)
        site, start_std = RadioMap.of(clean), options.grid_spacing / math.sqrt(12.0)
        fit = robust_gauss_newton(site, observations, coarse.best_m, start_std, options.steps, options.self_calibrate)
        return judged(measurements, site, observations, fit, coarse, tested=not options.self_calibrate)


class RssGaussNewton(_GaussNewton):
    """RSS only: the path-loss law inverted, every AP weighted by the information in its RSS."""

    name: ClassVar[str] = "rss-gn"
    uses_bearings: ClassVar[bool] = False


class JointGaussNewton(_GaussNewton):
    """RSS (radial) and bearings (tangential), each weighted by its information."""

    name: ClassVar[str] = "joint-gn"
    uses_bearings: ClassVar[bool] = True


def unknown_shadowing_db(measurements: RadioMeasurements) -> float:
    """Standard deviation of the shadowing that stays in the RSS residual: none where the site's map is known."""
    return 0.0 if measurements.shadowing_maps is not None else measurements.shadowing_std_db


def link_observations(
    measurements: RadioMeasurements,
    usable: Bool[Tensor, "B M K"],
    shadowing_db: float,
    readings: LinkReadings | None,
) -> LinkObservations:
    """Powers and bearings as they were read, with unknown shadowing; None: RSS with its sampling noise alone.

    Args:
        measurements: clean ones (no NaN).
        usable: links that count.
        shadowing_db: unknown shadowing.
        readings: see ``front_end.read_links``.
    """
    sampling = rss_sampling_db(measurements) if readings is None else readings.power_std_db
    rss_std = torch.sqrt(sampling.square() + shadowing_db**2).clamp(min=LEAST_RSS_STD_DB)
    if readings is None:
        return LinkObservations(usable, measurements.rss_dbm, rss_std)
    rss = measurements.rss_dbm + readings.correction_db
    return LinkObservations(usable, rss, rss_std, readings.bearing_rad, readings.bearing_std_rad)


def coarse_fix(
    measurements: RadioMeasurements,
    usable: Bool[Tensor, "B M K"],
    shadowing_db: float,
    profiles: Float[Tensor, "B M K A"] | None,
    spacing_m: float,
) -> CoarseFix:
    """Points of a coarse grid and their scores under heavy-tailed likelihoods, see ``innovations.coarse_joint_scores``.

    Args:
        measurements: clean ones (no NaN).
        usable: links that count.
        shadowing_db: unknown shadowing; widens the RSS term.
        profiles: angle profiles; None searches by RSS alone.
        spacing_m: grid spacing, metres.
    """
    site = RadioMap.of(measurements)
    spacing_m = grid_spacing_m(site.radio.side_m, spacing_m)
    points = lattice(site.radio.side_m, spacing_m).to(measurements.rss_dbm.device)
    batched = points.expand(len(measurements.rss_dbm), -1, -1)
    links = site.links(batched)
    scores = coarse_joint_scores(
        measurements.rss_dbm,
        profiles,
        site.rss_dbm(batched, links),
        links.angle_rad,
        math.hypot(_COARSE_RSS_SCALE_DB, shadowing_db),
        usable,
    )
    if measurements.area_m is not None:
        # A point half a step outside stands for the strip along the border.
        known = metres_outside(points, points.new_tensor(measurements.area_m)) <= spacing_m / 2
        scores = torch.where(known, scores, -torch.inf) if bool(known.any()) else scores
    return CoarseFix(points, scores, spacing_m)
