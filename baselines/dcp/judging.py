"""Which positions from powers and angles are to be believed: residuals, geometry, mirror images, the area."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.bounds import peak_std_rad
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import into_area, metres_outside, nearest_image
from cfpos_envs.physics.normal_equations import NormalEquations, line_terms

from ..validity import mostly, pooled_misfit, residuals_fit
from .descent import Descent, LinkObservations, misfit, robust_gauss_newton, rss_gradient
from .links import finished
from .radio_map import RadioMap

LEAST_LINKS = 2
_FEW_LINKS = 3
"""Up to so many access points are often in one line, so that a mirror image explains their powers as well."""
_RESOLUTION = 0.01
"""Share of the side below which two places count as one there."""
_UNKNOWN_SHARE = 12**-0.5
"""Deviation of a uniform distribution by its length: a position that is no better known is none."""

_HARDLY_KNOWN = 0.8
"""A regression that is no better than this share of that deviation says where its references lie, not the user."""

_NOISY_DB = 1.0
"""Deviation of powers from which on residuals are noise more than what a mean of references misses."""

_APART = 3.0
"""Two places closer than this many standard deviations are one answer."""

_FAR_APART = 5.0
"""A rival closer than this many standard deviations widens the covariance and is no reason to doubt."""

_BEYOND = 4.0
"""An answer on the border whose free minimum lies this many standard deviations farther out is not in the area."""

_UNSETTLED = 2.0
"""Next step in standard deviations from which on the descent has not settled."""

_LEAST_SHARE = 0.4
"""Probability of other places from which on an answer is ambiguous; below it, it widens the covariance."""

_TAILS = 1.2
"""Bearings of few antennas have longer tails than a Gaussian of their deviation."""

_STEPS = 8
_LARGEST_SIZE = 3.0
"""No rival counts for more than this by the size of its basin relative to that of the answer."""

_DOUBT = 6.0
_DOUBT_PER_LINK = 0.25
"""A grid point whose score is at most this much worse than the best, and so much more per link, may be a rival."""

_DOUBT_MIRRORED = 15.0
"""A mirror image whose loss is at most this much higher, before it has been refined, may be a rival."""


@dataclass(frozen=True)
class CoarseFix:
    """Scores of the points of a coarse grid.

    Attributes:
        points_m: the grid.
        scores: of every point, the highest is best.
        spacing_m: of the grid.
    """

    points_m: Float[Tensor, "P 2"]
    scores: Float[Tensor, "B K P"]
    spacing_m: float

    @property
    def best_m(self) -> Float[Tensor, "B K 2"]:
        """The best point per user."""
        return self.points_m[self.scores.argmax(dim=-1)]

    def best_beyond(
        self, places_m: Sequence[Float[Tensor, "B K 2"]], radius_m: Float[Tensor, "B K"], side_m: float, wrap: bool
    ) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """The best point per user that is farther than ``radius_m`` from some places, and how far it is from the best.

        Where there is none it is the first place itself, infinitely worse.
        """
        scores = self.scores
        for place in places_m:
            away = nearest_image(self.points_m - place.unsqueeze(-2), side_m, wrap)
            scores = torch.where(away.square().sum(dim=-1) > radius_m.square().unsqueeze(-1), scores, -torch.inf)
        value, index = scores.max(dim=-1)
        found = torch.isfinite(value)
        gap = torch.where(found, self.scores.amax(dim=-1) - value, torch.inf)
        return torch.where(found.unsqueeze(-1), self.points_m[index], places_m[0]), gap


def judged(
    measurements: RadioMeasurements,
    site: RadioMap,
    observations: LinkObservations,
    fit: Descent,
    coarse: CoarseFix,
    *,
    tested: bool = True,
    evidence: LinkObservations | None = None,
) -> PositionEstimate:
    """The estimate of a descent with chi squared and, where it is not to be believed, the reason.

    Args:
        measurements: as they came.
        site: of the clean measurements.
        observations: what the descent used.
        fit: where it ended.
        coarse: where else the user may be.
        tested: the deviations are those stated, so that chi squared means something.
        evidence: everything that may tell two places apart; None: the observations.
    """
    radio, points = site.radio, fit.position_m
    answered = observations.usable.sum(dim=1) >= LEAST_LINKS
    here = misfit(site, at_peaks(site.radio, observations), points, fit.spread_m)
    freedom = torch.where(answered & tested, here.residuals - 2, 0)
    other = rivals(measurements, site, evidence or observations, fit, coarse)
    covariance = fit.covariance_m2 + other.spread_m2
    unknown_m = _UNKNOWN_SHARE * radio.side_m
    misfits = ~residuals_fit(here.chi_squared, freedom)
    failures = (
        (Reason.POOR_GEOMETRY, largest_std_m(fit.covariance_m2) > unknown_m),
        (Reason.AMBIGUOUS, (other.share > _LEAST_SHARE) | (largest_std_m(covariance) > unknown_m)),
        (Reason.OUTSIDE, _outside(measurements, fit)),
        (Reason.LARGE_RESIDUALS, misfits | mostly(misfits, freedom > 0)),
        (Reason.NOT_CONVERGED, _unsettled(measurements, fit)),
    )
    estimate = finished(measurements, points, covariance, answered, *failures)
    chi_squared = torch.nan_to_num(here.chi_squared, nan=0.0)
    return dataclasses.replace(estimate, chi_squared=chi_squared, degrees_of_freedom=freedom)


def at_peaks(radio: RadioModel, observations: LinkObservations) -> LinkObservations:
    """The observations with bearings no better known than the peak of a spectrum of this array is.

    A descent only weighs bearings against each other, for which one law does; chi squared takes them at their word.
    """
    if observations.bearing_rad is None or observations.bearing_std_rad is None:
        return observations
    table = peak_std_rad(radio).to(observations.bearing_rad)
    steps = (len(table) - 1) / math.pi
    peak = _TAILS * table[(observations.bearing_rad.clamp(0.0, math.pi) * steps).round().long()]
    return dataclasses.replace(observations, bearing_std_rad=torch.maximum(observations.bearing_std_rad, peak))


def judged_by_powers(
    measurements: RadioMeasurements,
    site: RadioMap,
    powers: LinkObservations,
    positions_m: Float[Tensor, "B K 2"],
    covariance_m2: Float[Tensor, "B K 2 2"],
    evidence: LinkObservations | None = None,
) -> PositionEstimate:
    """An estimate that knows how far off it may be, compared with the received powers.

    With e the residuals of variance W^-1 at the position, J their gradients and C its covariance, e has the covariance
    W^-1 + J C J', and chi squared is e'We - b'(J'WJ + C^-1)^-1 b with b = J'We, with as many degrees of freedom as
    there are links. The users of an episode have to fit together, too, where the noise is the larger part of e: where
    it is not, the law of a sum of chi squared is not known well enough.

    Args:
        measurements: as they came.
        site: of the clean measurements.
        powers: RSS with its deviations.
        positions_m, covariance_m2: of the method.
        evidence: for methods whose covariance does not know of second places: everything that may tell two places
            apart. One link is then too few, and users with few of them are asked for mirror images.
    """
    assert powers.rss_dbm is not None
    assert powers.rss_std_db is not None
    links, usable = site.links(positions_m), powers.usable
    weight = usable / powers.rss_std_db.square()
    residual = torch.where(usable, powers.rss_dbm - site.rss_dbm(positions_m, links), 0.0)
    information = line_terms(rss_gradient(site, links, positions_m), weight, residual).total()
    a, b, d = covariance_m2[..., 0, 0], covariance_m2[..., 0, 1], covariance_m2[..., 1, 1]
    scale = (a * d - b * b).clamp(min=torch.finfo(a.dtype).tiny)
    prior = NormalEquations(d / scale, -b / scale, a / scale, torch.zeros_like(a), torch.zeros_like(a))
    move = NormalEquations(*information.parts()).plus(prior).solve(0.0)
    explained = information.x * move[..., 0] + information.y * move[..., 1]
    chi_squared = torch.nan_to_num((weight * residual.square()).sum(dim=1) - explained, nan=0.0).clamp(min=0.0)
    links_used = usable.sum(dim=1)
    answered = links_used >= (1 if evidence is None else LEAST_LINKS)
    freedom = torch.where(answered, links_used, 0)
    few = (links_used <= _FEW_LINKS) & answered
    mirror = torch.zeros_like(few)
    if evidence is not None and bool(few.any()):
        mirror = few & has_mirror_image(measurements, site, evidence, positions_m, _RESOLUTION * site.radio.side_m)
    unknown_m = _HARDLY_KNOWN * _UNKNOWN_SHARE * site.radio.side_m
    by_noise = torch.where(usable, powers.rss_std_db, torch.inf).amin(dim=(1, 2)) >= _NOISY_DB
    together = ~(pooled_misfit(chi_squared, freedom) & by_noise.unsqueeze(1))
    fitting = residuals_fit(chi_squared, freedom) & together
    estimate = finished(
        measurements,
        positions_m,
        covariance_m2,
        answered,
        (Reason.POOR_GEOMETRY, largest_std_m(covariance_m2) > unknown_m),
        (Reason.AMBIGUOUS, mirror),
        (Reason.LARGE_RESIDUALS, ~fitting),
    )
    return dataclasses.replace(estimate, chi_squared=chi_squared, degrees_of_freedom=freedom)


def contradict(
    site: RadioMap, evidence: LinkObservations, positions_m: Float[Tensor, "B K 2"], resolution_m: float
) -> Bool[Tensor, "B K"]:
    """Users whose measurements contradict each other: even where they agree best next to an answer they do not fit.

    For methods whose score is no likelihood: the answer itself need not be where chi squared is least.

    Args:
        site: of the clean measurements.
        evidence: everything that was measured.
        positions_m: of the method.
        resolution_m: how finely it looks.
    """
    near = robust_gauss_newton(site, evidence, positions_m, resolution_m, _STEPS)
    found = misfit(site, at_peaks(site.radio, evidence), near.position_m, near.spread_m)
    return ~residuals_fit(found.chi_squared, found.residuals - 2)


def has_mirror_image(
    measurements: RadioMeasurements,
    site: RadioMap,
    evidence: LinkObservations,
    positions_m: Float[Tensor, "B K 2"],
    resolution_m: float,
) -> Bool[Tensor, "B K"]:
    """Users for whom another place in the area, the mirror image at the line of their APs, explains the evidence as
    well; for methods that know no covariance.

    Args:
        measurements: as they came.
        site: of the clean measurements.
        evidence: everything that may tell two places apart.
        positions_m: of the method.
        resolution_m: how finely it looks.
    """
    radio = site.radio
    image = mirrored(site.ap_positions_m, evidence.usable, positions_m, radio.side_m, radio.wrap)
    spread = torch.full_like(positions_m[..., 0], resolution_m)
    here = misfit(site, evidence, positions_m, spread)
    there = misfit(site, evidence, image, spread, here.widening)
    apart = torch.linalg.vector_norm(nearest_image(image - positions_m, radio.side_m, radio.wrap), dim=-1)
    inside = (into_area(image, radio.side_m, radio.wrap) == image).all(dim=-1) | radio.wrap
    possible = inside & (_outside_area(measurements, image) <= 0)
    return possible & (apart > _APART * resolution_m) & (there.loss - here.loss < -math.log(_LEAST_SHARE))


def largest_std_m(covariance_m2: Float[Tensor, "B K 2 2"]) -> Float[Tensor, "B K"]:
    """Standard deviation along the worst direction."""
    a, b, d = covariance_m2[..., 0, 0], covariance_m2[..., 0, 1], covariance_m2[..., 1, 1]
    return ((a + d) / 2 + torch.hypot((a - d) / 2, b)).clamp(min=0.0).sqrt()


def mirrored(
    ap_positions_m: Float[Tensor, "B M 2"],
    usable: Bool[Tensor, "B M K"],
    points_m: Float[Tensor, "B K 2"],
    side_m: float,
    wrap: bool,
) -> Float[Tensor, "B K 2"]:
    """Points mirrored at the straight line that fits the usable APs best.

    Powers from APs in one line, two of them for example, are the same at both.

    Args:
        ap_positions_m: metres.
        usable: links that count.
        points_m: one per user.
        side_m, wrap: the area; on the torus the images of the APs next to the point count.
    """
    weight = usable.to(points_m.dtype)
    weight = weight / weight.sum(dim=1, keepdim=True).clamp(min=1.0)
    away = nearest_image(ap_positions_m.unsqueeze(2) - points_m.unsqueeze(1), side_m, wrap)
    centre = (weight.unsqueeze(-1) * away).sum(dim=1)
    x, y = (away - centre.unsqueeze(1)).unbind(dim=-1)
    xx, xy, yy = ((weight * product).sum(dim=1) for product in (x * x, x * y, y * y))
    # Direction of the largest spread.
    turn = 0.5 * torch.atan2(2 * xy, xx - yy)
    normal = torch.stack((-torch.sin(turn), torch.cos(turn)), dim=-1)
    return points_m + 2 * (normal * centre).sum(dim=-1, keepdim=True) * normal


@dataclass(frozen=True)
class Rivals:
    """Other places that explain the measurements.

    Attributes:
        share: probability of those far away from the answer.
        spread_m2: what all of them add to the covariance of the answer.
    """

    share: Float[Tensor, "B K"]
    spread_m2: Float[Tensor, "B K 2 2"]


def rivals(
    measurements: RadioMeasurements, site: RadioMap, evidence: LinkObservations, fit: Descent, coarse: CoarseFix
) -> Rivals:
    """Other places in the area by their probability under the evidence (Laplace's approximation around each).

    Looked for are the mirror image and the two best basins of the coarse grid, for users where a first look does not
    exclude them.
    """
    radio, points = site.radio, fit.position_m
    radius = torch.maximum(_APART * largest_std_m(fit.covariance_m2), torch.full_like(fit.spread_m, coarse.spacing_m))
    image = mirrored(site.ap_positions_m, evidence.usable, points, radio.side_m, radio.wrap)
    first, gap = coarse.best_beyond((points,), radius, radio.side_m, radio.wrap)
    second, _ = coarse.best_beyond((points, first), radius, radio.side_m, radio.wrap)
    # A mirror image outside the area is moved to the border, where it explains nothing.
    starts = [into_area(image, radio.side_m, radio.wrap), first, second]
    here = misfit(site, evidence, points, fit.spread_m)
    mirrored_loss = misfit(site, evidence, starts[0], fit.spread_m, here.widening).loss
    doubt = gap < _DOUBT + _DOUBT_PER_LINK * evidence.usable.sum(dim=1)
    episode, user = (doubt | (mirrored_loss - here.loss < _DOUBT_MIRRORED)).nonzero(as_tuple=True)
    share = torch.zeros_like(fit.spread_m)
    spread = torch.zeros_like(fit.covariance_m2)
    if len(episode):
        doubtful = _Doubtful(
            measurements,
            site.select(episode),
            evidence.of_users(episode, user),
            points[episode, user],
            fit.covariance_m2[episode, user],
            here.loss[episode, user],
            None if here.widening is None else here.widening[episode, :, user].unsqueeze(-1),
        )
        weight, apart, far = doubtful.compare([start[episode, user] for start in starts], coarse.spacing_m)
        share[episode, user] = (weight * far).sum(dim=1)
        spread[episode, user] = torch.einsum("nr,nri,nrj->nij", weight, apart, apart)
    return Rivals(share, spread)


@dataclass(frozen=True)
class _Doubtful:
    """Users that may be somewhere else, as N episodes of one user each."""

    measurements: RadioMeasurements
    site: RadioMap
    evidence: LinkObservations
    points_m: Float[Tensor, "N 2"]
    covariance_m2: Float[Tensor, "N 2 2"]
    loss: Float[Tensor, " N"]
    widening: Float[Tensor, "N 1 1"] | None

    def compare(self, starts_m: list[Tensor], spacing_m: float) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities [N, R], displacements [N, R, 2] and whether they are far, of the minima next to R starts."""
        radio, count = self.site.radio, len(starts_m)
        copies = self.evidence.repeated(count)
        fit = robust_gauss_newton(self.site, copies, torch.stack(starts_m, dim=1), spacing_m, _STEPS)
        loss = misfit(self.site, copies, fit.position_m, fit.spread_m, self.widening).loss
        size = 0.5 * (_log_det(fit.covariance_m2) - _log_det(self.covariance_m2).unsqueeze(1))
        # On the line through the APs the information across it vanishes, and with it the meaning of its inverse.
        size = size.clamp(max=math.log(_LARGEST_SIZE))
        apart = nearest_image(fit.position_m - self.points_m.unsqueeze(1), radio.side_m, radio.wrap)
        away = _mahalanobis_squared(apart, self.covariance_m2.unsqueeze(1))
        counts = (away > _APART**2) & (_outside_area(self.measurements, fit.position_m) <= 0)
        for one in range(count):
            for other in range(one):
                between = nearest_image(apart[:, one] - apart[:, other], radio.side_m, radio.wrap)
                counts[:, one] &= torch.linalg.vector_norm(between, dim=-1) > spacing_m
        odds = torch.where(counts, torch.exp((self.loss.unsqueeze(1) - loss + size).clamp(max=50.0)), 0.0)
        return odds / (1.0 + odds.sum(dim=1, keepdim=True)), apart, away > _FAR_APART**2


def _outside(measurements: RadioMeasurements, fit: Descent) -> Tensor:
    """Whether the free minimum lies clearly outside the area."""
    radio = measurements.radio
    if measurements.area_m is None and radio.wrap:
        return torch.zeros_like(fit.spread_m, dtype=torch.bool)
    goal = fit.position_m + fit.step_m
    beyond = torch.linalg.vector_norm(goal - into_area(goal, radio.side_m, radio.wrap), dim=-1)
    beyond = torch.maximum(beyond, _outside_area(measurements, goal))
    return beyond > _BEYOND * largest_std_m(fit.covariance_m2)


def _unsettled(measurements: RadioMeasurements, fit: Descent) -> Tensor:
    """Whether the next step would still lead far, by the standard deviation of the answer."""
    radio = measurements.radio
    step = into_area(fit.position_m + fit.step_m, radio.side_m, radio.wrap) - fit.position_m
    step = nearest_image(step, radio.side_m, radio.wrap)
    return _mahalanobis_squared(step, fit.covariance_m2) > _UNSETTLED**2


def _outside_area(measurements: RadioMeasurements, points_m: Tensor) -> Tensor:
    if measurements.area_m is None:
        return torch.zeros_like(points_m[..., 0])
    return metres_outside(points_m, points_m.new_tensor(measurements.area_m))


def _log_det(covariance_m2: Tensor) -> Tensor:
    a, b, d = covariance_m2[..., 0, 0], covariance_m2[..., 0, 1], covariance_m2[..., 1, 1]
    return torch.log((a * d - b * b).clamp(min=torch.finfo(a.dtype).tiny))


def _mahalanobis_squared(vectors_m: Tensor, covariance_m2: Tensor) -> Tensor:
    x, y = vectors_m.unbind(dim=-1)
    a, b, d = covariance_m2[..., 0, 0], covariance_m2[..., 0, 1], covariance_m2[..., 1, 1]
    determinant = (a * d - b * b).clamp(min=torch.finfo(a.dtype).tiny)
    return (d * x * x - 2 * b * x * y + a * y * y) / determinant
