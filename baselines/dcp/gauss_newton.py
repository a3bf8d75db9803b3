"""Robust Gauss-Newton on RSS and bearing residuals, started from a coarse grid: ``rss-gn`` and ``joint-gn``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.checks import number_fields, one_of, switch, whole_fields
from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.arrays import profile_peak
from cfpos_envs.physics.dcp.innovations import (
    RSS_SCALE_FLOOR_DB,
    bearing_residuals,
    coarse_joint_scores,
    nominal_bearing_scale,
    rss_slope_db_per_m,
)
from cfpos_envs.physics.geometry import into_area, lattice
from cfpos_envs.physics.normal_equations import NormalEquations, polar_terms
from cfpos_envs.physics.propagation import sample_maps
from cfpos_envs.physics.robust import clamp_length, student_weight

from ..base import Estimator, cleaned, finished, usable_links
from .radio_map import NUM_ANGLES, RadioMap, measured_profiles
from .spectra import METHODS, covariance_bearings

_RIDGE = 1e-6
_MAX_STEP_M = 5.0
_MAD_TO_STD = 1.4826
_COARSE_RSS_SCALE_DB = 1.0
"""What sampling noise and the distance to the nearest grid point add to the RSS residual of the coarse search."""


@dataclass(frozen=True)
class LinkObservations:
    """What is known about each link; None leaves a kind of measurement out.

    Attributes:
        usable: links that count.
        rss_dbm, rss_std_db: measured RSS and the standard deviation of its residual.
        bearing_rad, bearing_std_rad: measured bearing to the array axis in [0, pi], and its deviation.
    """

    usable: Bool[Tensor, "B M K"]
    rss_dbm: Float[Tensor, "B M K"] | None = None
    rss_std_db: Float[Tensor, "B M K"] | None = None
    bearing_rad: Float[Tensor, "B M K"] | None = None
    bearing_std_rad: Float[Tensor, "B M K"] | None = None


@dataclass(frozen=True)
class GaussNewtonOptions:
    """Options of ``rss-gn`` and ``joint-gn``.

    Attributes:
        sigma_db: standard deviation of the shadowing that no map explains, dB; None takes that of the measurements.
        steps: Gauss-Newton steps, >= 1, each at most 5 m long.
        grid_spacing: spacing of the coarse search that gives the start, metres; smaller where a known map needs it.
        bearing: source of the bearings of ``joint-gn``: ``profile`` compares the angular power spectrum (all that the
            game's agents see) with the table of directions; ``music`` and ``beamscan`` use the whole covariance.
        self_calibrate: in the second half of the steps, remove every AP's median residual over its users and take
            its scale from their median absolute deviation; needs no ``sigma_db`` but several users.
    """

    sigma_db: float | None = None
    steps: int = 12
    grid_spacing: float = 5.0
    bearing: str = "profile"
    self_calibrate: bool = False

    def __post_init__(self) -> None:
        number_fields(self, 0.0, math.inf, "sigma_db")
        one_of("bearing", self.bearing, ("profile", *METHODS))
        whole_fields(self, 1, "steps")
        switch("self_calibrate", self.self_calibrate)
        number_fields(self, 0.0, math.inf, "grid_spacing", above=True)


class _GaussNewton(Estimator[RadioMeasurements]):
    """Coarse arg-max on a grid, then robust Gauss-Newton; subclasses say which measurements they use."""

    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = GaussNewtonOptions
    options: GaussNewtonOptions
    _episodes_at_a_time: ClassVar[int | None] = 32
    uses_bearings: ClassVar[bool]

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the covariance from the inverse information matrix; valid with two usable APs or more."""
        options = self.options
        usable = usable_links(measurements, aoa=self.uses_bearings)
        measurements = cleaned(measurements, usable)
        profiles = measured_profiles(measurements) if self.uses_bearings else None
        shadowing_db = unknown_shadowing_db(measurements) if options.sigma_db is None else options.sigma_db
        observations = link_observations(measurements, usable, shadowing_db, self._bearings(measurements, profiles))
        start = coarse_fix(measurements, usable, shadowing_db, profiles, options.grid_spacing)
        site, start_std = RadioMap.of(measurements), options.grid_spacing / math.sqrt(12.0)
        positions, covariance = robust_gauss_newton(
            site, observations, start, start_std, options.steps, options.self_calibrate
        )
        radio = measurements.radio
        return finished(positions, covariance, usable.sum(dim=1) >= 2, radio.side_m, radio.wrap)

    def _bearings(self, measurements: RadioMeasurements, profiles: Tensor | None) -> Tensor | None:
        if profiles is None:
            return None
        if self.options.bearing == "profile":
            return profile_peak(profiles)[0]
        return covariance_bearings(measurements.covariance, measurements.radio, self.options.bearing, NUM_ANGLES)


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
    sampling = rss_sampling_std_db(measurements.covariance, measurements.radio.snapshots)
    rss_std = torch.sqrt(sampling.square() + shadowing_db**2).clamp(min=0.1)
    scale = None if bearing_rad is None else nominal_bearing_scale(bearing_rad)
    return LinkObservations(usable, measurements.rss_dbm, rss_std, bearing_rad, scale)


def coarse_fix(
    measurements: RadioMeasurements,
    usable: Bool[Tensor, "B M K"],
    shadowing_db: float,
    profiles: Float[Tensor, "B M K A"] | None,
    spacing_m: float,
) -> Float[Tensor, "B K 2"]:
    """Best point of a coarse grid under heavy-tailed likelihoods, see ``innovations.coarse_joint_scores``.

    Args:
        measurements: clean ones (no NaN).
        usable: links that count.
        shadowing_db: unknown shadowing; widens the RSS term.
        profiles: angle profiles; None searches by RSS alone.
        spacing_m: grid spacing, metres.
    """
    site = RadioMap.of(measurements)
    points = lattice(site.radio.side_m, min(spacing_m, site.radio.side_m)).to(measurements.rss_dbm.device)
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
    return points[scores.argmax(dim=-1)]


def robust_gauss_newton(
    site: RadioMap,
    observations: LinkObservations,
    start_m: Float[Tensor, "B K 2"],
    start_std_m: float,
    steps: int,
    self_calibrate: bool = False,
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K 2 2"]]:
    """Iteratively reweighted Gauss-Newton with Student-t (nu = 4) weights on RSS and bearing residuals.

    Each step solves (sum_m j_m j_m^T w_m) p = sum_m j_m w_m e_m over both kinds of residual: an RSS residual (dB) pulls
    along the gradient of the predicted RSS (radial, plus the slope of a known map), a bearing residual across the line
    of sight. The front-back ambiguity of a ULA is resolved by the current point.

    Args:
        site: B episodes' sites.
        observations: the links.
        start_m, start_std_m: first points and how far off they may be per coordinate.
        steps: number of steps, each at most 5 m long.
        self_calibrate: see ``GaussNewtonOptions``.

    Returns:
        (positions, inverse information matrices at them, m^2).
    """
    points, radio = start_m, site.radio
    uncertainty_m = torch.full_like(points[..., 0], start_std_m)
    for step in range(steps):
        calibrate = self_calibrate and step >= steps // 2
        sums = _normal_sums(site, observations, points, uncertainty_m, calibrate)
        uncertainty_m = _standard_deviation(sums)
        points = into_area(points + clamp_length(sums.solve(_RIDGE), _MAX_STEP_M), radio.side_m, radio.wrap)
    final = _normal_sums(site, observations, points, uncertainty_m, self_calibrate)
    return points, final.covariance(_RIDGE)


def _standard_deviation(sums: NormalEquations) -> Tensor:
    """Root mean variance of the two coordinates, metres."""
    return torch.sqrt(torch.diagonal(sums.covariance(_RIDGE), dim1=-2, dim2=-1).mean(dim=-1))


def wrong_side_variance(
    distance_m: Float[Tensor, "B M K"], angle_rad: Float[Tensor, "B M K"], uncertainty_m: Float[Tensor, "B K"]
) -> Float[Tensor, "B M K"]:
    """Variance (m^2) that a wrongly resolved front-back ambiguity adds to the position across the line of sight.

    With offset s = d |sin theta| from the array axis, known to +- u, the side is wrong with probability Q(s / u) and
    the reported bearing then points 2 s away: Q(s / u) (2 s)^2. It matters next to an AP, where s is small.
    """
    offset = distance_m * torch.sin(angle_rad).abs()
    wrong = 0.5 * torch.erfc(offset / (uncertainty_m.unsqueeze(-2) * math.sqrt(2.0)))
    return wrong * (2.0 * offset).square()


def _normal_sums(
    site: RadioMap, observations: LinkObservations, points: Tensor, uncertainty_m: Tensor, calibrate: bool
) -> NormalEquations:
    links = site.links(points)
    zero = torch.zeros_like(links.distance_m)
    total = NormalEquations(*(zero.sum(dim=-2) for _ in range(5)))
    if observations.rss_dbm is not None and observations.rss_std_db is not None:
        gradient = rss_slope_db_per_m(site.radio, links).unsqueeze(-1) * links.unit
        if site.maps_db is not None:
            gradient = gradient + _map_gradients(site, points)
        residual, std = observations.rss_dbm - site.rss_dbm(points, links), observations.rss_std_db
        if calibrate:
            residual, std = calibrated(residual, observations.usable, RSS_SCALE_FLOOR_DB)
        else:
            z = torch.where(observations.usable, (residual / std).abs(), torch.nan)
            std = std * (_MAD_TO_STD * z.nanmedian(dim=-2, keepdim=True).values).clamp(min=1.0)
        steepness = torch.linalg.vector_norm(gradient, dim=-1).clamp(min=1e-6)
        weight = (steepness / std).square() * student_weight(residual / std) * observations.usable
        terms = polar_terms(gradient / steepness.unsqueeze(-1), weight, zero, residual / steepness, zero)
        total = total.plus(terms.total())
    if observations.bearing_rad is not None and observations.bearing_std_rad is not None:
        residual, _ = bearing_residuals(observations.bearing_rad, links)
        std = observations.bearing_std_rad
        if calibrate:
            # The nominal scale keeps its dependence on the angle; an AP's own scale only widens it.
            residual, own = calibrated(residual, observations.usable, 0.0)
            std = torch.maximum(std, own)
        side = wrong_side_variance(links.distance_m, links.angle_rad, uncertainty_m)
        variance = (std * links.distance_m).square() + side
        z = residual * links.distance_m / variance.sqrt()
        weight = student_weight(z) / variance * observations.usable
        terms = polar_terms(links.unit, zero, weight, zero, residual * links.distance_m)
        total = total.plus(terms.total())
    return total


def calibrated(
    residual: Float[Tensor, "B M K"], usable: Bool[Tensor, "B M K"], floor: float
) -> tuple[Float[Tensor, "B M K"], Float[Tensor, "B M K"]]:
    """Residuals without their AP's median over its users, and 1.48 times their median absolute deviation.

    Args:
        residual: any unit.
        usable: links that count; an AP without any keeps a zero bias.
        floor: smallest scale, same unit.
    """
    bias = _median(residual, usable)
    centred = residual - bias
    return centred, (_MAD_TO_STD * _median(centred.abs(), usable)).clamp(min=floor).expand_as(centred)


def _median(values: Tensor, usable: Tensor) -> Tensor:
    # Of an even number of users the mean of the middle two: with six users the lower one would be a biased bias.
    hidden = torch.where(usable, values, torch.full_like(values, math.nan))
    return torch.nan_to_num(torch.nanquantile(hidden, 0.5, dim=-1, keepdim=True), nan=0.0)


def _map_gradients(site: RadioMap, points: Tensor) -> Tensor:
    """Central differences of the known maps over one metre, [B, M, K, 2] in dB per metre."""
    assert site.maps_db is not None
    radio, columns = site.radio, []
    for axis in torch.eye(2, device=points.device, dtype=points.dtype) * 0.5:
        ahead = sample_maps(site.maps_db, into_area(points + axis, radio.side_m, radio.wrap), radio.side_m, radio.wrap)
        behind = sample_maps(site.maps_db, into_area(points - axis, radio.side_m, radio.wrap), radio.side_m, radio.wrap)
        columns.append(ahead - behind)
    return torch.stack(columns, dim=-1)
