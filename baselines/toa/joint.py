"""Joint communication and positioning: position and channels from the same pilots, in turns (``joint-cp``)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

from ..least_squares import Fit, Loss, inverse_2x2, levenberg_marquardt
from .channel_prior import LinkPrior, flat_channel, mmse_channel
from .common import TimingEstimator
from .judge import estimate, judge
from .links import RangeLinks, near_links, range_links
from .path_fit import PathEstimate, beam_cosine, path_gain, refined_path, scattered_delay_std_s
from .robust import HuberLoss, MixtureLoss, em_fit, huber_fit, los_share

_SMALLEST_GROUND_M = 1e-3
# A first peak with scattered paths merged into it is that much worse than an estimate that knows of them.
_FIRST_PEAK_LOSS = 2.0
_SHARE_ROUNDS = 3


@dataclass(frozen=True)
class JointCpOptions(Declared):
    """Options of ``joint-cp``.

    Attributes:
        k_factor_db: power of the line of sight over that of the scattered paths behind it, dB; as in ``ToaSiteConfig``.
        delay_spread_s: scale of the scattered paths' delays and of their powers, as in ``ToaSiteConfig``: half of it is
            their RMS delay spread.
        floor_share, nlos_floor_share: power that the prior leaves to any direction and delay, in line of sight and
            without; the channels of the latter are hardly known a priori.
        tolerance_m: a round that moves no position by more than this ends the alternation.
        max_rounds: largest number of rounds, >= 1.
        threshold: of Huber's loss for ranges and cosines, in standard deviations.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "k_factor_db": (-200, 200),
        "delay_spread_s": (1e-12, 1e-3),
        "floor_share": (1e-12, 1),
        "nlos_floor_share": (1e-12, 1),
        "tolerance_m": (1e-9, 1e5),
        "max_rounds": (1, 10_000),
        "threshold": (1e-3, 1e6),
    }

    k_factor_db: float = 10.0
    delay_spread_s: float = 50e-9
    floor_share: float = 5e-4
    nlos_floor_share: float = 0.05
    tolerance_m: float = 0.01
    max_rounds: int = 8
    threshold: float = 2.5

    @property
    def los_share(self) -> float:
        """K / (K + 1)."""
        factor = 10 ** (self.k_factor_db / 10)
        return factor / (factor + 1)

    @property
    def rms_spread_s(self) -> float:
        """RMS delay spread of the scattered paths: exponential delays with exponentially falling powers."""
        return self.delay_spread_s / 2


@dataclass(frozen=True)
class JointResult:
    """What the alternation ends with.

    Attributes:
        position_m, covariance_m2, valid: as in ``PositionEstimate``, double precision.
        one_shot_m: position before the first channel estimate, from the delays and angles of the LS channels.
        channel: MMSE estimate of every link's response.
        rounds: rounds that were run.
    """

    position_m: Float[Tensor, "B K 2"]
    covariance_m2: Float[Tensor, "B K 2 2"]
    valid: Bool[Tensor, "B K"]
    one_shot_m: Float[Tensor, "B K 2"]
    channel: Complex[Tensor, "B M K N S"]
    rounds: int


@dataclass(frozen=True)
class _State:
    links: RangeLinks  # ranges and deviations of the last round
    fit: Fit
    prior: LinkPrior
    one_shot_m: Tensor
    rounds: int


@dataclass(frozen=True)
class RangesAndCosines(RangeLinks):
    """Rows of two kinds: M ranges, then M cosines of the angle to the array axis in place of ranges (std: 1).

    The other fields hold both halves, the APs twice.

    Attributes:
        orientation_rad: axis of the arrays, M of them.
        period: ambiguity of the cosines, 1 / spacing in wavelengths.
    """

    orientation_rad: Float[Tensor, "B A"] = dataclasses.field(default_factory=lambda: torch.zeros(0, 0))
    period: float = 2.0

    def at(self, points_m: Float[Tensor, "B K 2"]) -> tuple[Float[Tensor, "B M K 2"], Float[Tensor, "B M K"]]:
        """Gradients and residuals of both kinds."""
        half = self.orientation_rad.shape[1]
        aps, heights = self.ap_positions_m[:, :half], self.height_diff_m[:, :half]
        unit, slant = unit_vectors_to(aps, heights, points_m)
        slope, cosine = cosine_to(aps, self.orientation_rad, points_m)
        turned = torch.remainder(self.range_m[:, half:] - cosine + self.period / 2, self.period) - self.period / 2
        return torch.cat((unit, slope), dim=1), torch.cat((self.range_m[:, :half] - slant, turned), dim=1)


@dataclass(frozen=True)
class RowsLoss:
    """One loss for the first half of the rows, another for the second.

    Attributes:
        ranges, cosines: the two losses.
    """

    ranges: Loss
    cosines: Loss

    def __call__(self, residual_m: Tensor, std_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, slope and curvature of every row."""
        halves = zip(residual_m.chunk(2, dim=1), std_m.chunk(2, dim=1), strict=True)
        (first, second), losses = halves, (self.ranges, self.cosines)
        value, slope, curvature = (
            torch.cat(parts, dim=1) for parts in zip(losses[0](*first), losses[1](*second), strict=True)
        )
        return value, slope, curvature


class JointCp(TimingEstimator):
    """Position and channels in turns: the fix makes a prior of the channels, the better channels a better fix."""

    name: ClassVar[str] = "joint-cp"
    options_class: ClassVar[type] = JointCpOptions
    options: JointCpOptions
    families: ClassVar[tuple[str, ...]] = ("toa",)

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        return _estimate(self._alternate(measurements))

    def solve(self, measurements: TimingMeasurements) -> JointResult:
        """Positions and channel estimates; see ``docs/policies/joint-cp.md`` for the steps.

        Args:
            measurements: family "toa" with ``cfr`` (``measurement: waveform``).

        Raises:
            TypeError: measurements of another kind of scenario.
            ValueError: another family, no ``cfr``, or it does not fit the model.
        """
        self._checked(measurements)
        state = self._alternate(measurements)
        known = _estimate(state)
        channel = mmse_channel(required_cfr(measurements), measurements.model, state.prior, self.options.rms_spread_s)
        assert known.covariance is not None
        return JointResult(known.position, known.covariance, known.valid, state.one_shot_m, channel, state.rounds)

    def _alternate(self, measurements: TimingMeasurements) -> _State:
        """Fix, prior, better delays and angles, better fix, until it rests."""
        cfr, model, options = required_cfr(measurements), measurements.model, self.options
        links = range_links(measurements)
        own = self._ls_paths(measurements, links)
        fit = self._position(measurements, links, own, self._start(measurements, links, own))
        state = _State(links, fit, self._prior(measurements, links, own, fit), fit.position_m, 0)
        for done in range(1, options.max_rounds + 1):
            paths = refined_path(cfr, model, state.prior, own, options.los_share, options.rms_spread_s)
            paths = with_clock_error(paths, model.sync_std_s)
            fit = self._position(measurements, links, paths, state.fit.position_m)
            rests = bool(((fit.position_m - state.fit.position_m).abs() < options.tolerance_m).all())
            own_links = dataclasses.replace(links, range_m=paths.range_m, std_m=paths.range_std_m)
            state = _State(own_links, fit, self._prior(measurements, links, paths, fit), state.one_shot_m, done)
            if rests:
                break
        return state

    def flat(self, measurements: TimingMeasurements) -> Complex[Tensor, "B M K N S"]:
        """Channel estimates with the flat prior, from the same known gains."""
        return flat_channel(required_cfr(measurements), measurements.model, path_gain(measurements))

    def genie(
        self,
        measurements: TimingMeasurements,
        delay_s: Float[Tensor, "B M K"],
        cosine: Float[Tensor, "B M K"],
        is_los: Bool[Tensor, "B M K"],
    ) -> Complex[Tensor, "B M K N S"]:
        """Channel estimates with the prior of one who knows where every first path is.

        Args:
            measurements: with ``cfr``.
            delay_s: true delay of the first path, clock errors included.
            cosine: true cosine of its angle to the array axis.
            is_los: true class.
        """
        nothing = torch.zeros_like(delay_s)
        prior = LinkPrior(
            path_gain(measurements),
            self.options.los_share * is_los,
            delay_s,
            nothing,
            cosine,
            nothing,
            self.options.floor_share * torch.ones_like(delay_s),
        )
        return mmse_channel(required_cfr(measurements), measurements.model, prior, self.options.rms_spread_s)

    def _ls_paths(self, measurements: TimingMeasurements, links: RangeLinks) -> PathEstimate:
        """Delay (the measured range) and angle (strongest beam at that delay) of every link with their deviations."""
        model = measurements.model
        snr = torch.pow(10.0, measurements.snr_db.double() / 10)
        aperture = 8 * math.pi**2 * model.spacing_wavelengths**2 * (model.num_antennas**2 - 1) / 12
        cosine = beam_cosine(required_cfr(measurements), model, links.range_m / SPEED_OF_LIGHT_M_S)
        bound_s = scattered_delay_std_s(
            model, path_gain(measurements), self.options.los_share, self.options.rms_spread_s
        )
        # Where classes are estimated, a line of sight with a displaced peak must not pass for another class.
        noise = (_FIRST_PEAK_LOSS if model.nlos_mean_m > 0 else 1.0) * SPEED_OF_LIGHT_M_S * bound_s
        total = torch.maximum(links.std_m.square(), noise.square() + (SPEED_OF_LIGHT_M_S * model.sync_std_s) ** 2)
        std = (aperture * snr).clamp(min=1e-12).rsqrt()
        return PathEstimate(links.range_m, total.sqrt(), noise, cosine, std, links.usable)

    def _start(self, measurements: TimingMeasurements, links: RangeLinks, own: PathEstimate) -> Tensor:
        """A robust fix from the ranges alone."""
        ranges, mean_m = dataclasses.replace(links, std_m=own.range_std_m), measurements.model.nlos_mean_m
        fit = huber_fit(ranges, self.options.threshold)
        return (em_fit(ranges, fit, mean_m) if mean_m > 0 else fit).position_m

    def _position(self, measurements: TimingMeasurements, links: RangeLinks, paths: PathEstimate, start: Tensor) -> Fit:
        """Robust weighted least squares over ranges and cosines; ranges as in ``toa-em`` where links may be NLOS."""
        both, mean_m = rows(measurements, links, paths), measurements.model.nlos_mean_m
        robust = HuberLoss(self.options.threshold)
        if mean_m == 0:
            return levenberg_marquardt(both, start, robust)
        fit, half = levenberg_marquardt(both, start, robust, steps=0), links.range_m.shape[1]
        share = torch.full_like(fit.cost, 0.5).unsqueeze(1)
        for _ in range(_SHARE_ROUNDS):
            loss = MixtureLoss(share, mean_m)
            share = los_share(links, loss.posterior(fit.residual_m[:, :half], paths.range_std_m))
            fit = levenberg_marquardt(both, fit.position_m, RowsLoss(MixtureLoss(share, mean_m), robust))
        return fit

    def _prior(self, measurements: TimingMeasurements, links: RangeLinks, paths: PathEstimate, fit: Fit) -> LinkPrior:
        """What the fix says about every link's delay and cosine, joined with what the link itself says."""
        unit, slant = unit_vectors_to(links.ap_positions_m, links.height_diff_m, fit.position_m)
        slope, cosine = cosine_to(links.ap_positions_m, measurements.ap_orientation_rad.double(), fit.position_m)
        error = inverse_2x2(fit.information).nan_to_num(posinf=links.side_m**2).unsqueeze(1)
        range_variance = (unit.unsqueeze(-2) @ error @ unit.unsqueeze(-1))[..., 0, 0]
        cosine_variance = (slope.unsqueeze(-2) @ error @ slope.unsqueeze(-1))[..., 0, 0]
        clock_m = SPEED_OF_LIGHT_M_S * measurements.model.sync_std_s
        range_m, range_variance = joined(
            slant, range_variance + clock_m**2, paths.range_m, paths.noise_std_m.square(), paths.consistent
        )
        near = torch.remainder(paths.cosine - cosine + 0.5 * _period(measurements), _period(measurements))
        measured = cosine + near - 0.5 * _period(measurements)
        cosine, cosine_variance = joined(cosine, cosine_variance, measured, paths.cosine_std.square(), paths.consistent)
        # Without line of sight the first peak may already be a later path.
        early_m = torch.where(paths.consistent, 0.0, SPEED_OF_LIGHT_M_S / measurements.model.bandwidth_hz)
        floor = torch.where(paths.consistent, self.options.floor_share, self.options.nlos_floor_share)
        return LinkPrior(
            path_gain(measurements),
            self.options.los_share * paths.consistent,
            (range_m - early_m) / SPEED_OF_LIGHT_M_S,
            range_variance.sqrt() / SPEED_OF_LIGHT_M_S,
            cosine,
            cosine_variance.sqrt(),
            floor.to(range_m),
        )


def _estimate(state: _State) -> PositionEstimate:
    """The answer, judged by its ranges: cosines are rounder than any stated noise."""
    fit = dataclasses.replace(state.fit, residual_m=state.links.at(state.fit.position_m)[1])
    covariance = inverse_2x2(fit.information)
    verdict = judge(state.links, fit, near_links(state.links, fit), covariance_m2=covariance, alone=False)
    return estimate(state.links, fit.position_m, covariance, verdict)


def required_cfr(measurements: TimingMeasurements) -> Complex[Tensor, "B M K N S"]:
    """The channel frequency responses, cleaned of what is not finite.

    Raises:
        ValueError: there are none, or their shape is not that of the model.
    """
    cfr, model = measurements.cfr, measurements.model
    if cfr is None:
        raise ValueError("joint-cp needs cfr, the channel responses; make the environment with measurement=waveform")
    wanted = (*measurements.range_m.shape, model.num_antennas, model.num_subcarriers)
    if tuple(cfr.shape) != wanted:
        raise ValueError(f"cfr has the shape {tuple(cfr.shape)}; by range_m and the model it must be {wanted}")
    return torch.where(measurements.valid[..., None, None] & torch.isfinite(cfr.abs()), cfr, 0.0)


def with_clock_error(paths: PathEstimate, sync_std_s: float) -> PathEstimate:
    """The same with the AP's clock error in the deviation of its range."""
    total = (paths.noise_std_m.square() + (SPEED_OF_LIGHT_M_S * sync_std_s) ** 2).sqrt()
    return dataclasses.replace(paths, range_std_m=torch.where(paths.consistent, total, paths.range_std_m))


def rows(measurements: TimingMeasurements, links: RangeLinks, paths: PathEstimate) -> RangesAndCosines:
    """Ranges and cosines of the links as rows of one least-squares problem; one antenna has no cosines."""
    bearing = links.usable & paths.consistent & (measurements.model.num_antennas > 1)
    return RangesAndCosines(
        ap_positions_m=links.ap_positions_m.repeat(1, 2, 1),
        height_diff_m=links.height_diff_m.repeat(1, 2),
        range_m=torch.cat((paths.range_m, paths.cosine), dim=1),
        std_m=torch.cat((paths.range_std_m, paths.cosine_std), dim=1),
        usable=torch.cat((links.usable, bearing), dim=1),
        unknown_offset=False,
        side_m=links.side_m,
        orientation_rad=measurements.ap_orientation_rad.double(),
        period=_period(measurements),
    )


def cosine_to(
    ap_positions_m: Float[Tensor, "B M 2"], orientation_rad: Float[Tensor, "B M"], points_m: Float[Tensor, "B K 2"]
) -> tuple[Float[Tensor, "B M K 2"], Float[Tensor, "B M K"]]:
    """Gradient (1/m) and value of the cosine of the horizontal angle to the array axis."""
    vectors = points_m.unsqueeze(1) - ap_positions_m.unsqueeze(2)
    ground = torch.linalg.vector_norm(vectors, dim=-1).clamp(min=_SMALLEST_GROUND_M).unsqueeze(-1)
    direction = vectors / ground
    axis = torch.stack((orientation_rad.cos(), orientation_rad.sin()), dim=-1).unsqueeze(2)
    cosine = (direction * axis).sum(dim=-1, keepdim=True)
    return (axis - cosine * direction) / ground, cosine.squeeze(-1)


def joined(
    first: Tensor, first_variance: Tensor, second: Tensor, second_variance: Tensor, both: Tensor
) -> tuple[Tensor, Tensor]:
    """Two estimates weighted by their inverse variances; only the second where ``both`` is false."""
    variance = first_variance * second_variance / (first_variance + second_variance)
    mean = second + (variance / first_variance.clamp(min=1e-300)) * (first - second)
    return torch.where(both, mean, second), torch.where(both, variance, second_variance)


def _period(measurements: TimingMeasurements) -> float:
    return 1 / measurements.model.spacing_wavelengths
