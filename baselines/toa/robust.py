"""Robust positions from ranges of which some are too long: Huber's loss (``toa-huber``) and a mixture (``toa-em``)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements

from ..least_squares import Fit, levenberg_marquardt, weighted_gram
from .common import TimingEstimator, answer, robust_answer
from .links import RangeLinks, mirrored, near_links, range_links
from .multilateration import best_fit, solve_ranges
from .rivals import rivals

_INNER_STEPS = 2
_SETTLED_M = 1e-5
_WIDENED = (10.0, 3.0, 1.0)
_WIDE_ROUNDS = 4
_EXCESS_ROUNDS, _SHARE_ROUNDS = 6, 5
_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class HuberOptions(Declared):
    """Options of ``toa-huber``.

    Attributes:
        threshold: residual, in standard deviations, from which on the loss grows linearly; 1.345 keeps 95 % of the
            efficiency without outliers.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"threshold": (1e-3, 1e6)}

    threshold: float = 1.345


class ToaHuber(TimingEstimator):
    """Huber's loss by iteratively reweighted least squares: large residuals pull with a constant force only."""

    name: ClassVar[str] = "toa-huber"
    options_class: ClassVar[type] = HuberOptions
    options: HuberOptions

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        links = range_links(measurements)
        fit, loss = huber_fit(links, self.options.threshold), HuberLoss(self.options.threshold)
        information = loss.curvature(links, fit) * loss.information_per_curvature
        return _answer(links, fit, information, measurements.model.nlos_mean_m)


@dataclass(frozen=True)
class HuberLoss:
    """rho(z) = z^2 / 2 up to |z| = k and k |z| - k^2 / 2 beyond, z = e / sigma; Huber (1964).

    Attributes:
        threshold: k > 0.
    """

    threshold: float = HuberOptions.threshold

    def __call__(self, residual_m: Tensor, std_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, slope and the weight of iteratively reweighted least squares, psi(e) / e."""
        z = residual_m.abs() / std_m
        weight = self.threshold / z.clamp(min=self.threshold) / std_m.square()
        inner = z.clamp(max=self.threshold)
        return inner * (z - 0.5 * inner), weight * residual_m, weight

    @property
    def information_per_curvature(self) -> float:
        """P(|z| < k) / E[psi^2], z standard normal: the variance of the minimum is E[psi^2] / (P J)."""
        k = self.threshold
        inside = math.erf(k / math.sqrt(2))
        density = math.exp(-0.5 * k * k) / math.sqrt(2 * math.pi)
        return inside / (inside - 2 * k * density + k * k * (1 - inside))

    def curvature(self, links: RangeLinks, fit: Fit) -> Float[Tensor, "B K 2 2"]:
        """Second derivative of the loss, 1/m^2: links beyond the threshold pull, but say nothing of where."""
        curved = links.only(fit.residual_m.abs() <= self.threshold * links.std_m)
        return levenberg_marquardt(curved, fit.position_m, steps=0, offset_m=fit.offset_m).information


def huber_fit(links: RangeLinks, threshold: float = HuberOptions.threshold) -> Fit:
    """Position of least Huber loss over the starts of ``toa-wls``.

    Args:
        links: B episodes, M APs, K UEs.
        threshold: see ``HuberOptions``.
    """
    return solve_ranges(links, HuberLoss(threshold))


@dataclass(frozen=True)
class EmOptions(Declared):
    """Options of ``toa-em``.

    Attributes:
        nlos_mean_m: mean of the exponential excess, metres; None takes that of the measurements.
        fit_excess: take that mean as a start only and fit it to all users and episodes, which are of one site.
        rounds: largest number of rounds of E and M steps.
        start_threshold: threshold of the Huber fix it starts from.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "nlos_mean_m": (0, 1e5),
        "rounds": (1, 10_000),
        "start_threshold": (1e-3, 1e6),
    }

    nlos_mean_m: float | None = None
    fit_excess: bool = False
    rounds: int = 20
    start_threshold: float = HuberOptions.threshold


class ToaEm(TimingEstimator):
    """EM on a mixture of Gaussian errors (LOS) and Gaussian errors plus an exponential excess (NLOS)."""

    name: ClassVar[str] = "toa-em"
    options_class: ClassVar[type] = EmOptions
    options: EmOptions

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        links = range_links(measurements)
        mean_m = measurements.model.nlos_mean_m if self.options.nlos_mean_m is None else self.options.nlos_mean_m
        start = fit = huber_fit(links, self.options.start_threshold)
        if mean_m > 0:
            fit = em_fit(links, start, mean_m, self.options.rounds)
        if mean_m > 0 and self.options.fit_excess:
            for _ in range(_EXCESS_ROUNDS):
                mean_m = mean_excess_m(links, fit, mean_m)
                fit = em_fit(links, start, mean_m, self.options.rounds)
        return _answer(links, fit, fit.information, mean_m)


def _answer(links: RangeLinks, fit: Fit, information: Float[Tensor, "B K 2 2"], mean_m: float) -> PositionEstimate:
    """The estimate of a robust fix that knows what else the mixture of both kinds of links allows."""
    if mean_m == 0:
        return answer(links, fit, near_links(links, fit), information)
    even = MixtureLoss(torch.full_like(fit.cost, 0.5).unsqueeze(1), mean_m)
    share = los_share(links, even.posterior(fit.residual_m, links.std_m))
    # One share for all users of an episode, whose copies are as many as there are places.
    return robust_answer(links, fit, information, rivals(links, fit, MixtureLoss(share[..., :1], mean_m)))


@dataclass(frozen=True)
class MixtureLoss:
    """-log(pi N(e; 0, sigma^2) + (1 - pi) EMG(e)) with EMG the density of Gaussian + exponential with mean lambda.

    log EMG(e) = -log lambda + sigma^2 / (2 lambda^2) - e / lambda + log Phi(e / sigma - sigma / lambda).

    Attributes:
        los_share: pi, one for all links of an episode.
        mean_m: lambda > 0, metres.
    """

    los_share: Float[Tensor, "B 1 #K"]
    mean_m: float

    def __call__(self, residual_m: Tensor, std_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, slope, and the curvature that the EM algorithm works with: that of the two classes, averaged."""
        log_los, log_nlos, slope_nlos, bend_nlos = self._classes(residual_m, std_m)
        total = torch.logaddexp(log_los, log_nlos)
        los = torch.exp(log_los - total)
        slope = los * residual_m / std_m.square() + (1 - los) * slope_nlos
        return -total, slope, los / std_m.square() + (1 - los) * bend_nlos

    def posterior(self, residual_m: Float[Tensor, "B M K"], std_m: Float[Tensor, "B M K"]) -> Float[Tensor, "B M K"]:
        """Probability that a link with this residual has a line of sight."""
        log_los, log_nlos, _, _ = self._classes(residual_m, std_m)
        return torch.sigmoid(log_los - log_nlos)

    def excess_m(self, residual_m: Float[Tensor, "B M K"], std_m: Float[Tensor, "B M K"]) -> Float[Tensor, "B M K"]:
        """Expected excess of a link without line of sight that has this residual: the mean of a truncated Gaussian."""
        shifted = residual_m / std_m - std_m / self.mean_m
        hazard = torch.exp(-0.5 * shifted.square() - _LOG_ROOT_2PI - torch.special.log_ndtr(shifted))
        return std_m * (shifted + hazard)

    def observed(self, residual_m: Float[Tensor, "B M K"], std_m: Float[Tensor, "B M K"]) -> Float[Tensor, "B M K"]:
        """Curvature of the loss itself, >= 0: the EM's less what the unknown classes cost (Louis, 1982)."""
        log_los, log_nlos, slope_nlos, bend_nlos = self._classes(residual_m, std_m)
        los = torch.sigmoid(log_los - log_nlos)
        apart = (residual_m / std_m.square() - slope_nlos).square()
        return (los / std_m.square() + (1 - los) * bend_nlos - los * (1 - los) * apart).clamp(min=0.0)

    def _classes(self, residual_m: Tensor, std_m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z = residual_m / std_m
        shifted = z - std_m / self.mean_m
        log_phi = torch.special.log_ndtr(shifted)
        hazard = torch.exp(-0.5 * shifted.square() - _LOG_ROOT_2PI - log_phi)
        log_los = torch.log(self.los_share) - 0.5 * z.square() - _LOG_ROOT_2PI - torch.log(std_m)
        log_emg = 0.5 * (std_m / self.mean_m).square() - residual_m / self.mean_m + log_phi - math.log(self.mean_m)
        slope = 1 / self.mean_m - hazard / std_m
        bend = (hazard * (shifted + hazard)).clamp(min=0.0) / std_m.square()
        return log_los, torch.log1p(-self.los_share) + log_emg, slope, bend


def em_fit(links: RangeLinks, start: Fit, mean_m: float, rounds: int = EmOptions.rounds) -> Fit:
    """EM from a robust fix and its mirror image: the better of two places.

    E: posterior of the classes and the LOS share. M: Newton steps on the expected loss. Dempster, Laird and Rubin
    (1977). The first rounds take the errors for larger than they are, ``_WIDENED`` times, so that good links are found
    from a start that is metres away.

    Args:
        links: B episodes, M APs, K UEs.
        start: where to begin, a robust fix.
        mean_m: mean excess, metres, > 0.
        rounds: largest number of rounds at the true width of the errors.

    Returns:
        The fit with the observed information.
    """
    point = start.position_m.unsqueeze(1)
    starts = torch.cat((point, mirrored(links, point)), dim=1)
    count, users = starts.shape[1:3]
    copies, points, offset = links.repeated(count), starts.flatten(1, 2), None
    for factor in _WIDENED:
        wide = dataclasses.replace(copies, std_m=factor * copies.std_m)
        enough = rounds if factor == 1.0 else min(rounds, _WIDE_ROUNDS)
        fit, loss = _em_rounds(wide, points, offset, mean_m, enough, count)
        points, offset = fit.position_m, fit.offset_m
    best = best_fit(links, dataclasses.replace(fit, information=fit_information(copies, fit, loss)), count, users)
    # Only one place and its image were tried: what was ambiguous at the start still is.
    return dataclasses.replace(best, unique=best.unique & start.unique)


def _em_rounds(
    links: RangeLinks, points: Tensor, offset: Tensor | None, mean_m: float, rounds: int, count: int
) -> tuple[Fit, MixtureLoss]:
    fit = levenberg_marquardt(links, points, HuberLoss(), 0, offset)
    loss = MixtureLoss(torch.full_like(fit.cost, 0.5).unsqueeze(1), mean_m)
    for _ in range(rounds):
        before = fit.position_m
        share = los_share(links, loss.posterior(fit.residual_m, links.std_m), count)
        loss = MixtureLoss(share, mean_m)
        fit = levenberg_marquardt(links, before, loss, _INNER_STEPS, fit.offset_m)
        if bool(((fit.position_m - before).abs() < _SETTLED_M).all()):
            break
    return fit, loss


def mean_excess_m(links: RangeLinks, fit: Fit, mean_m: float) -> float:
    """M step of the mean excess over all links of all episodes, metres.

    One blocked link with the excess assumed so far counts beside those seen, so that the mean never becomes 0.

    Args:
        links: of one site.
        fit: where users are with ``mean_m``.
        mean_m: so far, metres.
    """
    loss = MixtureLoss(torch.full_like(fit.cost, 0.5).unsqueeze(1), mean_m)
    for _ in range(_SHARE_ROUNDS):
        loss = MixtureLoss(los_share(links, loss.posterior(fit.residual_m, links.std_m)), mean_m)
    blocked = 1 - loss.posterior(fit.residual_m, links.std_m)
    excess = loss.excess_m(fit.residual_m, links.std_m)
    known = links.usable & torch.isfinite(blocked) & torch.isfinite(excess)
    weight = torch.where(known, blocked, 0.0)
    total = (weight * torch.where(known, excess, 0.0)).sum() + mean_m
    return float(total / (weight.sum() + 1))


def los_share(links: RangeLinks, posterior: Float[Tensor, "B M K"], count: int = 1) -> Float[Tensor, "B 1 K"]:
    """Share of LOS links of an episode, whose UEs see the same surroundings.

    One link of each class is assumed a priori, so that the share never becomes 0 or 1.

    Args:
        links: all links.
        posterior: probability of a line of sight.
        count: copies of the UEs, each with a share of its own.
    """
    # A UE whose links do not determine a place has no posterior; it must not take those of the others with it.
    known = links.usable & torch.isfinite(posterior)
    los, usable = torch.where(known, posterior, 0.0), known.to(posterior)
    held, total = (part.unflatten(2, (count, -1)).sum(dim=(1, 3)) for part in (los, usable))
    share = (held + 1) / (total + 2)
    return share.repeat_interleave(posterior.shape[-1] // count, dim=1).unsqueeze(1)


def fit_information(links: RangeLinks, fit: Fit, loss: MixtureLoss) -> Float[Tensor, "B K 2 2"]:
    """Observed information of a mixture fit, the offset eliminated, 1/m^2."""
    unit, _ = links.at(fit.position_m)
    weight = loss.observed(fit.residual_m, links.std_m) * links.usable
    if links.unknown_offset:
        total = weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
        unit = unit - ((weight / total).unsqueeze(-1) * unit).sum(dim=1, keepdim=True)
    return weighted_gram(unit, weight)
