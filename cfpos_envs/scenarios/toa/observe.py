"""What an AP sees of each UE: one table of features, each scaled into [-1, 1] by a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.geometry import polar
from cfpos_envs.physics.similarity import masked_mean, masked_median
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.state import Innovations, ToaState

INLIER_Z = 3.0
_SMALLEST = 1e-6


@dataclass(frozen=True)
class View:
    """What the features are computed from.

    Attributes:
        config, model, state, at: the game, its constants, its state and the residuals at the consensus.
        distance_m, azimuth_rad: [B, M, K] the consensus in polar coordinates seen from the AP.
        relative: [B, M, K] residual over the larger of told and observed scale.
    """

    config: ToaConfig
    model: TimingModel
    state: ToaState
    at: Innovations
    distance_m: Tensor
    azimuth_rad: Tensor
    relative: Tensor

    def channel(self, index: int) -> Tensor:
        """[B, M, K] column of the channel features."""
        return self.state.now(self.state.sequence_features)[..., index]


@dataclass(frozen=True)
class Feature:
    """One observation entry per (AP, UE): value = compute(view) / scale, clipped to [-1, 1].

    Attributes:
        name: short name.
        meaning: what it is, with the unit before scaling.
        scale: value that maps to 1.
        compute: from the view to a tensor [B, M, K] (or broadcastable to it).
    """

    name: str
    meaning: str
    scale: float
    compute: Callable[[View], Tensor]


def make_view(config: ToaConfig, model: TimingModel, state: ToaState, at: Innovations) -> View:
    """Everything that several features need."""
    vectors = state.consensus_m.unsqueeze(1) - state.ap_positions_m.unsqueeze(2)
    distance, azimuth = polar(vectors)
    return View(config, model, state, at, distance, azimuth, at.residual_m / torch.maximum(at.std_m, at.scale_m))


def _log10_of(index: int, middle: float) -> Callable[[View], Tensor]:
    return lambda v: torch.log10(v.channel(index).clamp(min=_SMALLEST) / middle)


def _rss_offset_db(v: View) -> Tensor:
    expected_dbm = v.state.now(v.state.sequence_snr_db) + 10 * torch.log10(
        torch.tensor(1e3 * v.model.tx_power_w / v.model.max_snr_linear, device=v.at.z.device)
    )
    return v.channel(4) - expected_dbm


def _over_fused(v: View, values: Tensor, summary: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """[B, 1, K] summary of [B, M, K] values over the APs that take part."""
    return summary(values.transpose(1, 2), v.state.fused.transpose(1, 2)).unsqueeze(1)


def _progress(v: View) -> Tensor:
    return v.state.round.to(v.at.z.dtype).view(-1, 1, 1) / v.config.rounds


def _log_scale(v: View) -> Tensor:
    return torch.log((v.at.scale_m / v.at.std_m).clamp(min=_SMALLEST))


def _inliers(v: View) -> Tensor:
    return _over_fused(v, (v.at.z.abs() < INLIER_Z).to(v.at.z.dtype), masked_mean) - 0.5


_OWN = (
    Feature("z", "asinh of the range residual in told standard deviations", 6.0, lambda v: torch.asinh(v.at.z)),
    Feature("log_z", "log(1 + z^2) of it", 10.0, lambda v: torch.log1p(v.at.z.square())),
    Feature("relative", "asinh of the residual in units of the observed scale", 4.0, lambda v: torch.asinh(v.relative)),
    Feature("log_relative", "log(1 + square) of it", 6.0, lambda v: torch.log1p(v.relative.square())),
    Feature("residual", "residual / 10 m", 1.0, lambda v: v.at.residual_m / 10.0),
    Feature("log_std", "log(told standard deviation / m)", 6.0, lambda v: torch.log(v.at.std_m.clamp(min=_SMALLEST))),
    Feature("kurtosis", "log10(kurtosis of |CIR| / 19)", 1.0, _log10_of(0, 19.0)),
    Feature("rise_time", "log10(rise time / 13 ns)", 1.0, _log10_of(1, 13.0)),
    Feature("mean_excess_delay", "log10(mean excess delay / 50 ns)", 1.0, _log10_of(2, 50.0)),
    Feature("delay_spread", "log10(RMS delay spread / 70 ns)", 1.0, _log10_of(3, 70.0)),
    Feature("rss_offset", "RSS minus that of a line of sight at this SNR / dB", 20.0, _rss_offset_db),
)

_COMMON = (
    Feature("distance", "horizontal distance AP-consensus / side", 1.5, lambda v: v.distance_m / v.model.side_m),
    Feature("cos_azimuth", "cosine of the consensus' azimuth", 1.0, lambda v: torch.cos(v.azimuth_rad)),
    Feature("sin_azimuth", "sine of the consensus' azimuth", 1.0, lambda v: torch.sin(v.azimuth_rad)),
    Feature("log_scale", "broadcast: log(observed scale over told standard deviation)", 5.0, _log_scale),
    Feature(
        "median",
        "broadcast: asinh of the median residual in told standard deviations",
        6.0,
        lambda v: torch.asinh(_over_fused(v, v.at.z, masked_median)),
    ),
    Feature("inliers", "broadcast: share of links within 3 told standard deviations, minus 1/2", 0.5, _inliers),
    Feature("measured", "1 for a measured link, 0 for a blocked one", 1.0, lambda v: v.state.valid.to(v.at.z.dtype)),
    Feature("progress", "rounds played / rounds", 1.0, _progress),
)

FEATURES: tuple[Feature, ...] = (*_OWN, *_COMMON)


def observe(config: ToaConfig, model: TimingModel, state: ToaState, at: Innovations) -> Tensor:
    """Observations [B, M, K, F] in [-1, 1]; a link that is not measured shows zeros instead of its own features."""
    view = make_view(config, model, state, at)
    shape = at.z.shape
    columns = [(feature.compute(view) / feature.scale).expand(shape) for feature in FEATURES]
    values = torch.stack(columns, dim=-1).clamp(-1.0, 1.0)
    values[..., : len(_OWN)] *= state.valid.unsqueeze(-1)
    return values
