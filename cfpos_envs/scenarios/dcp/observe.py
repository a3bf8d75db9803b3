"""What an AP sees: one table of features per formulation, each scaled into [-1, 1] by a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cfpos_envs.physics.dcp.innovations import BEARING_SCALE_RAD, RSS_SCALE_FLOOR_DB
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.similarity import aoa_similarity, masked_mean, sorted_along
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.memory import FADING, Offset, Offsets, offsets
from cfpos_envs.scenarios.dcp.state import DcpState, Innovations, stage_terms
from cfpos_envs.scenarios.features import Feature, Row, evaluate, rows


@dataclass(frozen=True)
class DcpView:
    """What the features are computed from."""

    config: DcpConfig
    radio: RadioModel
    state: DcpState
    at: Innovations

    @property
    def shares(self) -> Tensor | None:
        """[B, K, M] weights of the APs that take part in broadcasts; None: all alike."""
        return self.state.readings.fused_shares.squeeze(2) if self.config.num_held_out else None

    @property
    def rss_z(self) -> Tensor:
        """[B, M, K] RSS residual in its standard deviations."""
        return self.at.rss_db / self.at.rss_scale_db

    @property
    def aoa_z(self) -> Tensor:
        """[B, M, K] bearing residual in its standard deviations."""
        return self.at.bearing_rad / self.at.bearing_scale_rad

    @cached_property
    def offsets(self) -> Offsets:
        """Of every AP, over all links that it remembers."""
        return offsets(self.config, self.state)

    @cached_property
    def recent(self) -> Offsets:
        """The same, with drops fading."""
        return offsets(self.config, self.state, FADING)

    def broadcast(self, per_ue: Tensor) -> Tensor:
        """[B, K] to [B, 1, K]."""
        return per_ue.unsqueeze(1)


def _log(values: Tensor) -> Tensor:
    return torch.log(values.clamp(min=1e-3))


def _symlog(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.log1p(values.abs())


def _asinh(values: Tensor) -> Tensor:
    # torch.asinh works through a tensor one number at a time on a CPU.
    size = values.abs()
    return torch.sign(values) * torch.log(size + torch.sqrt(size * size + 1.0))


def _log_rms(view: DcpView) -> Tensor:
    mean_square = masked_mean(view.at.rss_db.square().transpose(1, 2), view.shares)
    return view.broadcast(0.5 * torch.log(mean_square + 1e-4))


def _log_aoa_misfit(view: DcpView) -> Tensor:
    mean = aoa_similarity(view.at.cosine.transpose(1, 2), view.shares)
    return view.broadcast(torch.log((1.0 - mean).clamp(min=1e-4)))


def _log_power_std(view: DcpView) -> Tensor:
    std_db = view.state.power_std_db
    assert std_db is not None  # every front end but dft states it
    return torch.log(std_db / RSS_SCALE_FLOOR_DB)


def _progress(view: DcpView) -> Tensor:
    return view.state.round.to(torch.float32).view(-1, 1, 1) / view.config.rounds


def _stage_flag(view: DcpView) -> Tensor:
    use_radial, use_tangential = stage_terms(view.config, view.state)
    return torch.as_tensor(use_tangential - use_radial, device=view.state.round.device)


_PROGRESS: tuple[Feature[DcpView], ...] = (
    Feature("progress", "rounds played / rounds", _progress),
    Feature("stage", "-1 RSS alone, 0 both, +1 AOA alone", _stage_flag),
)
_SINE: Feature[DcpView] = Feature(
    "sine", "|sin(bearing)|, quality of the array", lambda v: torch.sin(v.state.bearing_rad)
)

GAIN_FEATURES: tuple[Feature[DcpView], ...] = (
    Feature("distance", "distance AP-consensus / side", lambda v: v.at.links.distance_m / v.radio.side_m),
    Feature(
        "radial",
        "symlog(implied - consensus distance / m)",
        lambda v: _symlog(v.at.implied_m - v.at.links.distance_m),
        scale=4.0,
    ),
    Feature(
        "log_ratio",
        "log(implied / consensus distance)",
        lambda v: torch.log(v.at.implied_m.clamp(min=1.0) / v.at.links.distance_m.clamp(min=1.0)),
        scale=2.0,
    ),
    Feature(
        "tangential",
        "symlog(distance sin(bearing innovation) / m)",
        lambda v: _symlog(v.at.links.distance_m * torch.sin(v.at.bearing_rad)),
        scale=4.0,
    ),
    Feature("bearing", "bearing innovation / rad", lambda v: v.at.bearing_rad, scale=torch.pi),
    _SINE,
    Feature("mirrored", "innovation of the mirrored bearing / rad", lambda v: v.at.mirrored_rad, scale=torch.pi),
    Feature("cos_azimuth", "x of the unit vector AP-consensus", lambda v: v.at.links.x_m / v.at.links.distance_m),
    Feature("sin_azimuth", "y of it", lambda v: v.at.links.y_m / v.at.links.distance_m),
    Feature("log_rms", "broadcast: log(rms RSS residual / dB)", _log_rms, scale=5.0),
    Feature("log_misfit", "broadcast: log(1 - Xi^a)", _log_aoa_misfit, scale=8.0),
    Feature(
        "spread",
        "broadcast: symlog(spread of the last reports / m)",
        lambda v: _symlog(v.broadcast(v.state.spread_m)),
        scale=4.0,
    ),
    *_PROGRESS,
)

_LOG_PEAK: Feature[DcpView] = Feature(
    "log_peak",
    "log(1 - highest cosine similarity of the spectrum)",
    lambda v: torch.log((1.0 - v.state.peak).clamp(min=3e-4)),
    scale=8.0,
)

OWN_LINK: tuple[Feature[DcpView], ...] = (
    Feature("rss_z", "asinh of the RSS residual in its standard deviations", lambda v: _asinh(v.rss_z), scale=4.0),
    Feature("rss_logz", "log(1 + z^2) of it", lambda v: torch.log1p(v.rss_z.square()), scale=6.0),
    Feature("aoa_z", "asinh of the bearing residual in its standard deviations", lambda v: _asinh(v.aoa_z), scale=4.0),
    Feature("aoa_logz", "log(1 + z^2) of it", lambda v: torch.log1p(v.aoa_z.square()), scale=6.0),
    Feature("rss_residual", "asinh(RSS residual / 0.3 dB)", lambda v: _asinh(v.at.rss_db / 0.3), scale=6.0),
    Feature("log_distance", "log(distance / 30 m)", lambda v: torch.log(v.at.links.distance_m / 30.0), scale=4.0),
    _SINE,
    _LOG_PEAK,
    Feature(
        "log_misfit",
        "log(1 - cosine similarity at the consensus)",
        lambda v: torch.log((1.0 - v.at.cosine).clamp(min=3e-4)),
        scale=8.0,
    ),
    Feature(
        "mirrored",
        "asinh of the mirrored bearing residual in its standard deviations",
        lambda v: _asinh(v.at.mirrored_rad / v.at.bearing_scale_rad),
        scale=5.0,
    ),
)

_STATED: dict[Feature[DcpView], Feature[DcpView]] = {
    _SINE: Feature(
        "log_bearing_std",
        "log(standard deviation of the bearing / 0.03 rad)",
        lambda v: torch.log(v.state.readings.nominal_rad / BEARING_SCALE_RAD),
        scale=4.0,
    ),
    _LOG_PEAK: Feature(
        "log_power_std",
        "log(standard deviation of the power / 0.3 dB)",
        _log_power_std,
        scale=4.0,
    ),
}
"""What a front end that states its deviations says in the place of what else tells them."""

_BROADCAST: tuple[Feature[DcpView], ...] = (
    Feature("log_rss_mad", "broadcast: log(RSS scale / dB)", lambda v: torch.log(v.at.rss_mad_db), scale=3.0),
    Feature(
        "log_aoa_mad",
        "broadcast: log of the factor on the nominal bearing scale",
        lambda v: torch.log(v.at.bearing_mad),
        scale=3.0,
    ),
    *_PROGRESS,
)


def _root(values: Tensor) -> Tensor:
    """As an action says it: the correction of an action a is a |a| times the largest one."""
    return torch.sign(values) * values.abs().sqrt()


@dataclass(frozen=True)
class _Residual:
    """A kind of residual: how it is read off a view, what the largest correction and the nominal deviation are."""

    z: Callable[[DcpView], Tensor]
    scale: Callable[[DcpView], Tensor]
    most: Callable[[DcpView], float]
    largest: str
    nominal: float
    unit: str


def _offset_features(
    name: str, of: Callable[[DcpView], Offset], what: str, kind: _Residual
) -> tuple[Feature[DcpView], ...]:
    """What is said of one offset: where it lies, how well it is known, and what it leaves of a link's own residual."""

    def left(v: DcpView) -> Tensor:
        return kind.z(v) - of(v).mean / kind.scale(v)

    return (
        Feature(
            f"{name}_offset",
            f"signed square root of {what} / {kind.largest}",
            lambda v: _root(of(v).mean / kind.most(v)),
        ),
        Feature(
            f"{name}_known",
            f"log(its standard deviation / {kind.nominal:g} {kind.unit})",
            lambda v: torch.log(of(v).error / kind.nominal),
            scale=4.0,
        ),
        Feature(
            f"{name}_spread",
            "log of the residuals' spread about it in stated deviations",
            lambda v: _log(of(v).spread),
            scale=3.0,
        ),
        Feature(
            f"{name}_left",
            "asinh of the link's residual less it, in standard deviations",
            lambda v: _asinh(left(v)),
            scale=4.0,
        ),
        Feature(f"{name}_left_logz", "log(1 + z^2) of that", lambda v: torch.log1p(left(v).square()), scale=6.0),
    )


_RSS = _Residual(
    lambda v: v.rss_z,
    lambda v: v.at.rss_scale_db,
    lambda v: max(v.config.correction_db, 1e-3),
    "correction_db",
    0.3,
    "dB",
)
_BEARING = _Residual(
    lambda v: v.aoa_z,
    lambda v: v.at.bearing_scale_rad,
    lambda v: max(v.config.correction_rad, 1e-3),
    "correction_rad",
    BEARING_SCALE_RAD,
    "rad",
)

MEMORY: tuple[Feature[DcpView], ...] = (
    *_offset_features("rss", lambda v: v.offsets.rss, "the AP's mean RSS residual", _RSS),
    *_offset_features("bearing", lambda v: v.offsets.bearing, "the AP's mean bearing residual", _BEARING),
)
RECENT: tuple[Feature[DcpView], ...] = (
    *_offset_features(
        "recent_rss", lambda v: v.recent.rss, "the same, of a drop half the weight of the next one", _RSS
    ),
    *_offset_features(
        "recent_bearing", lambda v: v.recent.bearing, "the same, of a drop half the weight of the next one", _BEARING
    ),
)
"""What ``memory`` adds, and ``memory=site`` besides."""


def memory_features(config: DcpConfig) -> tuple[Feature[DcpView], ...]:
    """What the option ``memory`` adds to an observation."""
    return {"none": (), "drop": MEMORY, "site": (*MEMORY, *RECENT)}[config.memory]


_SUMMARIES = ("mean", "median", "quartile")

STRICT_FEATURES: tuple[Feature[DcpView], ...] = (
    Feature(
        "rss",
        "own RSS / dBm, from -110 to -10",
        lambda v: (v.state.read_rss_dbm + 60.0) * (v.config.stage != "aoa"),
        scale=50.0,
    ),
    Feature(
        "bearing",
        "own bearing / rad, 0 to pi",
        lambda v: v.state.bearing_rad * (v.config.stage != "rss"),
        scale=torch.pi,
    ),
    *_PROGRESS,
)


def feature_table(config: DcpConfig) -> tuple[Row, ...]:
    """Every entry of one UE's part of the observation, in order."""
    return (*round_table(config), *rows(memory_features(config)))


def round_table(config: DcpConfig) -> tuple[Row, ...]:
    """Those that follow from this round alone."""
    if not _has_summaries(config):
        return rows(_features(config))
    summaries = [
        Row(f"{summary}_{f.name}", f"{summary} of '{f.name}' over the AP's UEs", f.scale)
        for summary in _SUMMARIES
        for f in own_link(config)
    ]
    return (*rows(own_link(config)), *summaries, *rows(_BROADCAST))


def observe(config: DcpConfig, radio: RadioModel, state: DcpState) -> Tensor:
    """[B, M, K, F] entries of ``round_table`` in [-1, 1]."""
    view = DcpView(config, radio, state, state.at_consensus(config))
    shape = state.bearing_rad.shape
    if not _has_summaries(config):
        return evaluate(_features(config), view, shape)
    own = evaluate(own_link(config), view, shape)
    # Over its own users an AP sees its own bias: residuals that all lean one way.
    ordered = sorted_along(own, 2)
    num_ues = len(ordered)
    middle = 0.5 * (ordered[(num_ues - 1) // 2] + ordered[num_ues // 2])
    quartile = ordered[round(0.25 * (num_ues - 1))]
    summaries = torch.cat((own.mean(dim=2), middle, quartile), dim=-1)
    spread_out = summaries.unsqueeze(2).expand(*shape, summaries.shape[-1])
    return torch.cat((own, spread_out, evaluate(_BROADCAST, view, shape)), dim=-1)


def remembered(config: DcpConfig, radio: RadioModel, state: DcpState) -> Tensor:
    """[B, M, K, S] what ``memory`` adds to the observations."""
    return evaluate(
        memory_features(config), DcpView(config, radio, state, state.at_consensus(config)), state.bearing_rad.shape
    )


def own_link(config: DcpConfig) -> tuple[Feature[DcpView], ...]:
    """Features of an AP's own link in the games of confidence."""
    return OWN_LINK if config.links == "dft" else tuple(_STATED.get(feature, feature) for feature in OWN_LINK)


def _has_summaries(config: DcpConfig) -> bool:
    return config.formulation != "strict" and config.action.startswith("confidence")


def _features(config: DcpConfig) -> tuple[Feature[DcpView], ...]:
    return STRICT_FEATURES if config.formulation == "strict" else GAIN_FEATURES
