"""What an AP sees of each UE: one table of features, each scaled into [-1, 1] by a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.geometry import polar
from cfpos_envs.physics.similarity import masked_mean, masked_median
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.scenarios.features import Feature, evaluate
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.state import RangeResiduals, ToaState

INLIER_Z = 3.0
_SMALLEST = 1e-6


@dataclass(frozen=True)
class ToaView:
    """What the features are computed from.

    Attributes:
        config, model, state, at: the game, its constants, its state and the residuals at the consensus.
        distance_m, azimuth_rad: [B, M, K] the consensus in polar coordinates seen from the AP.
        relative: [B, M, K] residual over the larger of reported and observed scale.
    """

    config: ToaConfig
    model: TimingModel
    state: ToaState
    at: RangeResiduals
    distance_m: Tensor
    azimuth_rad: Tensor
    relative: Tensor

    def channel(self, index: int) -> Tensor:
        """[B, M, K] column of the channel features."""
        return self.state.now(self.state.sequence_features)[..., index]


def make_view(config: ToaConfig, model: TimingModel, state: ToaState, at: RangeResiduals) -> ToaView:
    """Everything that several features need."""
    vectors = state.consensus_m.unsqueeze(1) - state.ap_positions_m.unsqueeze(2)
    distance, azimuth = polar(vectors)
    return ToaView(config, model, state, at, distance, azimuth, at.residual_m / torch.maximum(at.std_m, at.scale_m))


def _log10_of(index: int, middle: float) -> Callable[[ToaView], Tensor]:
    return lambda v: torch.log10(v.channel(index).clamp(min=_SMALLEST) / middle)


def _rss_offset_db(v: ToaView) -> Tensor:
    expected_dbm = v.state.now(v.state.sequence_snr_db) + 10 * torch.log10(
        torch.tensor(1e3 * v.model.tx_power_w / v.model.max_snr_linear, device=v.at.z.device)
    )
    return v.channel(4) - expected_dbm


def _over_fused(v: ToaView, values: Tensor, summary: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[B, 1, K] summary of [B, M, K] values over the APs that take part."""
    return summary(values.transpose(1, 2), v.state.fused.transpose(1, 2)).unsqueeze(1)


def _progress(v: ToaView) -> Tensor:
    return v.state.round.to(v.at.z.dtype).view(-1, 1, 1) / v.config.rounds


def _log_scale(v: ToaView) -> Tensor:
    return torch.log((v.at.scale_m / v.at.std_m).clamp(min=_SMALLEST))


def _inliers(v: ToaView) -> Tensor:
    return _over_fused(v, (v.at.z.abs() < INLIER_Z).to(v.at.z.dtype), masked_mean) - 0.5


_OWN: tuple[Feature[ToaView], ...] = (
    Feature(
        "z", "asinh of the range residual in reported standard deviations", lambda v: torch.asinh(v.at.z), scale=6.0
    ),
    Feature("log_z", "log(1 + z^2) of it", lambda v: torch.log1p(v.at.z.square()), scale=10.0),
    Feature(
        "relative",
        "asinh of the residual in units of the observed scale",
        lambda v: torch.asinh(v.relative),
        scale=4.0,
    ),
    Feature("log_relative", "log(1 + square) of it", lambda v: torch.log1p(v.relative.square()), scale=6.0),
    Feature("residual", "residual / 10 m", lambda v: v.at.residual_m / 10.0),
    Feature(
        "log_std",
        "log(reported standard deviation / m)",
        lambda v: torch.log(v.at.std_m.clamp(min=_SMALLEST)),
        scale=6.0,
    ),
    Feature("kurtosis", "log10(kurtosis of |CIR| / 19)", _log10_of(0, 19.0)),
    Feature("rise_time", "log10(rise time / 13 ns)", _log10_of(1, 13.0)),
    Feature("mean_excess_delay", "log10(mean excess delay / 50 ns)", _log10_of(2, 50.0)),
    Feature("delay_spread", "log10(RMS delay spread / 70 ns)", _log10_of(3, 70.0)),
    Feature("rss_offset", "RSS minus that of a line of sight at this SNR / dB", _rss_offset_db, scale=20.0),
)

_COMMON: tuple[Feature[ToaView], ...] = (
    Feature("distance", "horizontal distance AP-consensus / side", lambda v: v.distance_m / v.model.side_m, scale=1.5),
    Feature("cos_azimuth", "cosine of the consensus' azimuth", lambda v: torch.cos(v.azimuth_rad)),
    Feature("sin_azimuth", "sine of the consensus' azimuth", lambda v: torch.sin(v.azimuth_rad)),
    Feature("log_scale", "broadcast: log(observed scale over reported standard deviation)", _log_scale, scale=5.0),
    Feature(
        "median",
        "broadcast: asinh of the median residual in reported standard deviations",
        lambda v: torch.asinh(_over_fused(v, v.at.z, masked_median)),
        scale=6.0,
    ),
    Feature(
        "inliers", "broadcast: share of links within 3 reported standard deviations, minus 1/2", _inliers, scale=0.5
    ),
    Feature("measured", "1 for a measured link, 0 for a blocked one", lambda v: v.state.valid.to(v.at.z.dtype)),
    Feature("progress", "rounds played / rounds", _progress),
)

FEATURES = (*_OWN, *_COMMON)


def observe(config: ToaConfig, model: TimingModel, state: ToaState, at: RangeResiduals) -> Tensor:
    """Observations [B, M, K, F] in [-1, 1]; a link that is not measured shows zeros instead of its own features."""
    view, shape = make_view(config, model, state, at), at.z.shape
    own = evaluate(_OWN, view, shape) * state.valid.unsqueeze(-1)
    return torch.cat((own, evaluate(_COMMON, view, shape)), dim=-1)
