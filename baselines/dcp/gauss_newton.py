"""Robust Gauss-Newton on RSS and bearing residuals, started from a coarse grid: ``rss-gn`` and ``joint-gn``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.arrays import profile_peak
from cfpos_envs.physics.dcp.innovations import coarse_joint_scores, nominal_bearing_scale
from cfpos_envs.physics.geometry import lattice, metres_outside

from ..base import Estimator
from .descent import LinkObservations, robust_gauss_newton
from .judging import CoarseFix, judged
from .links import by_users, cleaned, grid_spacing_m, require_arrays, usable_links
from .radio_map import NUM_ANGLES, RadioMap, measured_profiles
from .spectra import METHODS, covariance_bearings

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
        bearing: source of the bearings of ``joint-gn``: ``profile`` compares the angular power spectrum (all that the
            game's agents see) with the table of directions; ``music`` and ``beamscan`` use the whole covariance.
        self_calibrate: in the second half of the steps, remove every AP's median residual over its users and take
            its scale from their median absolute deviation; needs no ``sigma_db`` but several users.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"sigma_db": (0, 100), "steps": (1, 10_000), "grid_spacing": (0.001, 1e5)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"bearing": ("profile", *METHODS)}

    sigma_db: float | None = None
    steps: int = 12
    grid_spacing: float = 5.0
    bearing: str = "profile"
    self_calibrate: bool = False


class _GaussNewton(Estimator[RadioMeasurements]):
    """Coarse arg-max on a grid, then robust Gauss-Newton; subclasses say which measurements they use."""

    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = GaussNewtonOptions
    options: GaussNewtonOptions
    _episodes_at_a_time: ClassVar[int | None] = 32
    uses_bearings: ClassVar[bool]

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the covariance from the inverse information matrix; ``judging`` says which to believe."""
        # Self-calibration needs all users at once.
        if self.options.self_calibrate:
            return self._locate_users(measurements)
        return by_users(measurements, self._locate_users)

    def _locate_users(self, measurements: RadioMeasurements) -> PositionEstimate:
        options = self.options
        if self.uses_bearings:
            require_arrays(self.name, measurements, covariance=options.bearing != "profile")
        usable = usable_links(measurements, aoa=self.uses_bearings, covariance=True)
        clean = cleaned(measurements, usable)
        profiles = measured_profiles(clean) if self.uses_bearings else None
        shadowing_db = unknown_shadowing_db(clean) if options.sigma_db is None else options.sigma_db
        bearing = None if profiles is None else measured_bearings(clean, profiles, options.bearing)
        observations = link_observations(clean, usable, shadowing_db, bearing)
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


def measured_bearings(
    measurements: RadioMeasurements, profiles: Float[Tensor, "B M K A"], method: str
) -> Float[Tensor, "B M K"]:
    """Bearing of every link to its array's axis, in [0, pi].

    Args:
        measurements: clean ones (no NaN).
        profiles: their angle profiles.
        method: ``bearing`` of ``GaussNewtonOptions``.
    """
    if method == "profile":
        return profile_peak(profiles)[0]
    assert measurements.covariance is not None
    return covariance_bearings(measurements.covariance, measurements.radio, method, NUM_ANGLES)


def unknown_shadowing_db(measurements: RadioMeasurements) -> float:
    """Standard deviation of the shadowing that stays in the RSS residual: none where the site's map is known."""
    return 0.0 if measurements.shadowing_maps is not None else measurements.shadowing_std_db


def rss_sampling_std_db(covariance: Complex[Tensor, "*batch L L"], snapshots: int) -> Float[Tensor, "*batch"]:
    """Standard deviation of an RSS averaged over T_s snapshots: (10 / ln 10) sqrt(tr(R^2) / T_s) / tr(R), dB.

    tr(R_hat) is a sum of exponentials with the eigenvalues of R as means, each averaged over T_s draws.

    Args:
        covariance: (sample) covariance R of the channel estimate.
        snapshots: T_s.
    """
    trace = torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
    unit = covariance / trace.clamp(min=torch.finfo(trace.dtype).tiny)[..., None, None]
    squares = unit.real.square().sum(dim=(-2, -1)) + unit.imag.square().sum(dim=(-2, -1))
    return (10.0 / math.log(10.0)) * torch.sqrt(squares / snapshots)


def link_observations(
    measurements: RadioMeasurements,
    usable: Bool[Tensor, "B M K"],
    shadowing_db: float,
    bearing_rad: Float[Tensor, "B M K"] | None,
) -> LinkObservations:
    """RSS with its sampling noise and unknown shadowing; bearings with their nominal scale, if given."""
    if measurements.covariance is None:
        sampling = torch.zeros_like(measurements.rss_dbm)
    else:
        snapshots = measurements.radio.snapshots
        sampling = rss_sampling_std_db(measurements.covariance, snapshots)
        # Methods that read spectra keep a link whose covariance alone is damaged: one path has the most noise.
        sampling = torch.nan_to_num(sampling, nan=10.0 / math.log(10.0) / math.sqrt(snapshots))
    rss_std = torch.sqrt(sampling.square() + shadowing_db**2).clamp(min=0.1)
    scale = None if bearing_rad is None else nominal_bearing_scale(bearing_rad)
    return LinkObservations(usable, measurements.rss_dbm, rss_std, bearing_rad, scale)


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
