"""Robust Gauss-Newton on RSS and bearing residuals: the descent that the model-based estimators share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.physics.dcp.innovations import RSS_SCALE_FLOOR_DB, bearing_residuals, rss_slope_db_per_m
from cfpos_envs.physics.dcp.links import Links
from cfpos_envs.physics.geometry import into_area
from cfpos_envs.physics.normal_equations import NormalEquations, polar_terms
from cfpos_envs.physics.propagation import sample_maps
from cfpos_envs.physics.robust import clamp_length, student_weight
from cfpos_envs.physics.similarity import robust_similarity

from .radio_map import RadioMap

RIDGE = 1e-6
MAX_STEP_M = 5.0
_MAD_TO_STD = 1.4826
_LEAST_SINE = 0.2
"""Next to the axis a cosine's error is no longer the sine times the angle's."""


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

    def repeated(self, times: int) -> LinkObservations:
        """The same for several points per user, copy after copy."""
        return self._of_each(lambda value: value.repeat(1, 1, times))

    def of_users(self, episode: Int[Tensor, " N"], user: Int[Tensor, " N"]) -> LinkObservations:
        """N users as N episodes of one user each."""
        return self._of_each(lambda value: value[episode, :, user].unsqueeze(-1))

    def _of_each(self, function: Callable[[Tensor], Tensor]) -> LinkObservations:
        given = {name: function(value) for name, value in self.__dict__.items() if value is not None}
        return LinkObservations(**given)


@dataclass(frozen=True)
class Descent:
    """Where a descent ended.

    Attributes:
        position_m: inside the area.
        covariance_m2: inverse information there.
        step_m: the step that would come next, not kept inside the area.
        spread_m: how far the point may be off per coordinate.
    """

    position_m: Float[Tensor, "B K 2"]
    covariance_m2: Float[Tensor, "B K 2 2"]
    step_m: Float[Tensor, "B K 2"]
    spread_m: Float[Tensor, "B K"]


@dataclass(frozen=True)
class Misfit:
    """How far measurements are from what is expected at a point.

    Attributes:
        chi_squared: sum of the squared residuals over their stated variances, bearings up to a turn of phase.
        residuals: how many there are.
        loss: negative log-likelihood under Student-t errors, the RSS's deviations widened by ``widening``.
        widening: factor of the RSS's deviations, >= 1, from the median residual over the APs.
    """

    chi_squared: Float[Tensor, "B K"]
    residuals: Int[Tensor, "B K"]
    loss: Float[Tensor, "B K"]
    widening: Float[Tensor, "B 1 #K"] | None


def robust_gauss_newton(
    site: RadioMap,
    observations: LinkObservations,
    start_m: Float[Tensor, "B K 2"],
    start_std_m: float,
    steps: int,
    self_calibrate: bool = False,
) -> Descent:
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
    """
    points, radio = start_m, site.radio
    spread_m = torch.full_like(points[..., 0], start_std_m)
    for step in range(steps):
        calibrate = self_calibrate and step >= steps // 2
        sums = _normal_sums(site, observations, points, spread_m, calibrate)
        spread_m = standard_deviation_m(sums)
        points = into_area(points + clamp_length(sums.solve(RIDGE), MAX_STEP_M), radio.side_m, radio.wrap)
    final = _normal_sums(site, observations, points, spread_m, self_calibrate)
    return Descent(points, final.covariance(RIDGE), final.solve(RIDGE), spread_m)


def misfit(
    site: RadioMap,
    observations: LinkObservations,
    points_m: Float[Tensor, "B K 2"],
    spread_m: Float[Tensor, "B K"],
    widening: Float[Tensor, "B 1 #K"] | None = None,
) -> Misfit:
    """Residuals of all usable links at points that may be off by ``spread_m``, see ``Misfit``.

    Args:
        site: B episodes' sites.
        observations: the links.
        points_m: one point per user.
        spread_m: per coordinate; it decides how much a bearing across a near array's axis is worth.
        widening: None takes that of this point; comparisons of points need one and the same.
    """
    links, usable = site.links(points_m), observations.usable
    squares, losses, kinds = [], [], 0
    if observations.rss_dbm is not None and observations.rss_std_db is not None:
        z = (observations.rss_dbm - site.rss_dbm(points_m, links)) / observations.rss_std_db
        widening = _widening(z, usable) if widening is None else widening
        squares.append(z.square())
        losses.append(_negative_log_likelihood(z / widening))
        kinds += 1
    if observations.bearing_rad is not None and observations.bearing_std_rad is not None:
        residual_m, variance_m2 = _across(links, observations.bearing_rad, observations.bearing_std_rad, spread_m)
        z = residual_m / variance_m2.sqrt()
        if site.radio.wrap:
            # Beyond half the side another image of the AP is nearer, and it is seen under another angle.
            z = torch.where(_seam(site, links, spread_m), 0.0, z)
        squares.append(torch.minimum(z.square(), _beyond_alias(site, links, observations, z).square()))
        losses.append(_negative_log_likelihood(z))
        kinds += 1
    chi_squared = torch.where(usable, sum(squares, torch.zeros_like(links.distance_m)), 0.0).sum(dim=1)
    loss = torch.where(usable, sum(losses, torch.zeros_like(links.distance_m)), 0.0).sum(dim=1)
    return Misfit(chi_squared, kinds * usable.sum(dim=1), loss, widening)


def standard_deviation_m(sums: NormalEquations) -> Tensor:
    """Root mean variance of the two coordinates, metres."""
    return torch.sqrt(torch.diagonal(sums.covariance(RIDGE), dim1=-2, dim2=-1).mean(dim=-1))


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
    site: RadioMap, observations: LinkObservations, points: Tensor, spread_m: Tensor, calibrate: bool
) -> NormalEquations:
    links = site.links(points)
    zero = torch.zeros_like(links.distance_m)
    total = NormalEquations(*(zero.sum(dim=-2) for _ in range(5)))
    if observations.rss_dbm is not None and observations.rss_std_db is not None:
        gradient = rss_gradient(site, links, points)
        residual, std = observations.rss_dbm - site.rss_dbm(points, links), observations.rss_std_db
        if calibrate:
            residual, std = calibrated(residual, observations.usable, RSS_SCALE_FLOOR_DB)
        else:
            std = std * _widening(residual / std, observations.usable)
        steepness = torch.linalg.vector_norm(gradient, dim=-1).clamp(min=1e-6)
        weight = (steepness / std).square() * student_weight(residual / std) * observations.usable
        terms = polar_terms(gradient / steepness.unsqueeze(-1), weight, zero, residual / steepness, zero)
        total = total.plus(terms.total())
    if observations.bearing_rad is not None and observations.bearing_std_rad is not None:
        std = observations.bearing_std_rad
        if calibrate:
            # The nominal scale keeps its dependence on the angle; an AP's own scale only widens it.
            residual, own = calibrated(bearing_residuals(observations.bearing_rad, links)[0], observations.usable, 0.0)
            variance = _across_variance(links, torch.maximum(std, own), spread_m)
            residual = residual * links.distance_m
        else:
            residual, variance = _across(links, observations.bearing_rad, std, spread_m)
        z = residual / variance.sqrt()
        weight = student_weight(z) / variance * observations.usable
        total = total.plus(polar_terms(links.unit, zero, weight, zero, residual).total())
    return total


def rss_gradient(site: RadioMap, links: Links, points_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B M K 2"]:
    """Gradient of the expected RSS by the position, dB per metre: radial, plus the slope of a known map."""
    gradient = rss_slope_db_per_m(site.radio, links).unsqueeze(-1) * links.unit
    return gradient if site.maps_db is None else gradient + _map_gradients(site, points_m)


def _negative_log_likelihood(z: Tensor) -> Tensor:
    """Of a residual under Student-t errors (nu = 4) with variance 1, up to a constant."""
    return -robust_similarity(z * math.sqrt(2.0))


def _seam(site: RadioMap, links: Links, spread_m: Tensor) -> Tensor:
    """Links whose nearest image changes within a few deviations of the point, [B, M, K]."""
    reach = torch.maximum(links.x_m.abs(), links.y_m.abs())
    return reach > site.radio.side_m / 2 - 4.0 * spread_m.unsqueeze(1)


def _widening(z: Tensor, usable: Tensor) -> Tensor:
    """Factor >= 1 on deviations that makes the median residual over the APs a typical one, [B, 1, K]."""
    size = torch.where(usable, z.abs(), torch.nan)
    factor = _MAD_TO_STD * size.nanmedian(dim=-2, keepdim=True).values
    return torch.nan_to_num(factor, nan=1.0).clamp(min=1.0)


def _across(links: Links, bearing_rad: Tensor, std_rad: Tensor, spread_m: Tensor) -> tuple[Tensor, Tensor]:
    """Residuals across the lines of sight, metres, and their variances."""
    residual, _ = bearing_residuals(bearing_rad, links)
    return residual * links.distance_m, _across_variance(links, std_rad, spread_m)


def _beyond_alias(site: RadioMap, links: Links, observations: LinkObservations, z: Tensor) -> Tensor:
    """The deviations z of bearings, where a whole turn of phase between neighbouring antennas is no difference.

    Cosines that differ by lambda / Delta give the same phases: at half a wavelength both ends of the array's axis.
    """
    assert observations.bearing_rad is not None
    assert observations.bearing_std_rad is not None
    period = 1.0 / site.radio.spacing_wavelengths
    apart = torch.cos(observations.bearing_rad) - torch.cos(links.folded_rad)
    wrapped = apart - period * torch.round(apart / period)
    steepness = torch.sin(links.folded_rad).clamp(min=_LEAST_SINE)
    return torch.where(wrapped == apart, z, wrapped / (steepness * observations.bearing_std_rad))


def _across_variance(links: Links, std_rad: Tensor, spread_m: Tensor) -> Tensor:
    side = wrong_side_variance(links.distance_m, links.angle_rad, spread_m)
    return (std_rad * links.distance_m).square() + side


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
