"""What an AP sees: one table of features per formulation, each scaled into [-1, 1] by a constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.similarity import aoa_similarity, masked_mean, sorted_along
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.fusion import stage_terms
from cfpos_envs.scenarios.dcp.state import DcpState, Innovations, at_consensus


@dataclass(frozen=True)
class Feature:
    """One observation entry per (AP, UE): value = compute(view) / scale, clipped to [-1, 1].

    Attributes:
        name: short name.
        meaning: what it is, with the unit before scaling.
        scale: value that maps to 1.
        compute: from the shared view to a tensor [B, M, K] (or broadcastable to it).
    """

    name: str
    meaning: str
    scale: float
    compute: Callable[[View], Tensor]


@dataclass(frozen=True)
class View:
    """What the features are computed from."""

    config: DcpConfig
    radio: RadioModel
    state: DcpState
    at: Innovations

    @property
    def shares(self) -> Tensor | None:
        """[B, K, M] weights of the APs that take part in broadcasts; None: all alike."""
        return self.state.fused_shares.squeeze(2) if self.config.num_held_out else None

    def broadcast(self, per_ue: Tensor) -> Tensor:
        """[B, K] to [B, 1, K]."""
        return per_ue.unsqueeze(1)


def _symlog(values: Tensor) -> Tensor:
    return torch.sign(values) * torch.log1p(values.abs())


def _asinh(values: Tensor) -> Tensor:
    # torch.asinh works through a tensor one number at a time on a CPU.
    size = values.abs()
    return torch.sign(values) * torch.log(size + torch.sqrt(size * size + 1.0))


def _log_rms(view: View) -> Tensor:
    mean_square = masked_mean(view.at.rss_db.square().transpose(1, 2), view.shares)
    return view.broadcast(0.5 * torch.log(mean_square + 1e-4))


def _log_aoa_misfit(view: View) -> Tensor:
    mean = aoa_similarity(view.at.cosine.transpose(1, 2), view.shares)
    return view.broadcast(torch.log((1.0 - mean).clamp(min=1e-4)))


def _progress(view: View) -> Tensor:
    return view.state.round.to(torch.float32).view(-1, 1, 1) / view.config.rounds


def _stage_flag(view: View) -> Tensor:
    use_radial, use_tangential = stage_terms(view.config, view.state)
    return torch.as_tensor(use_tangential - use_radial, device=view.state.round.device)


_PROGRESS = (
    Feature("progress", "rounds played / rounds", 1.0, _progress),
    Feature("stage", "-1 RSS alone, 0 both, +1 AOA alone", 1.0, _stage_flag),
)

GAIN_FEATURES = (
    Feature("distance", "distance AP-consensus / side", 1.0, lambda v: v.at.links.distance_m / v.radio.side_m),
    Feature(
        "radial",
        "symlog(implied - consensus distance / m)",
        4.0,
        lambda v: _symlog(v.at.implied_m - v.at.links.distance_m),
    ),
    Feature(
        "log_ratio",
        "log(implied / consensus distance)",
        2.0,
        lambda v: torch.log(v.at.implied_m.clamp(min=1.0) / v.at.links.distance_m.clamp(min=1.0)),
    ),
    Feature(
        "tangential",
        "symlog(distance sin(bearing innovation) / m)",
        4.0,
        lambda v: _symlog(v.at.links.distance_m * torch.sin(v.at.bearing_rad)),
    ),
    Feature("bearing", "bearing innovation / rad", torch.pi, lambda v: v.at.bearing_rad),
    Feature("sine", "|sin(bearing)|, quality of the array", 1.0, lambda v: torch.sin(v.state.bearing_rad)),
    Feature("mirrored", "innovation of the mirrored bearing / rad", torch.pi, lambda v: v.at.mirrored_rad),
    Feature("cos_azimuth", "x of the unit vector AP-consensus", 1.0, lambda v: v.at.links.x_m / v.at.links.distance_m),
    Feature("sin_azimuth", "y of it", 1.0, lambda v: v.at.links.y_m / v.at.links.distance_m),
    Feature("log_rms", "broadcast: log(rms RSS residual / dB)", 5.0, _log_rms),
    Feature("log_misfit", "broadcast: log(1 - Xi^a)", 8.0, _log_aoa_misfit),
    Feature(
        "spread",
        "broadcast: symlog(spread of the last reports / m)",
        4.0,
        lambda v: _symlog(v.broadcast(v.state.spread_m)),
    ),
    *_PROGRESS,
)

_OWN_LINK = (
    Feature(
        "rss_z",
        "asinh of the RSS residual in its standard deviations",
        4.0,
        lambda v: _asinh(v.at.rss_db / v.at.rss_scale_db),
    ),
    Feature("rss_logz", "log(1 + z^2) of it", 6.0, lambda v: torch.log1p((v.at.rss_db / v.at.rss_scale_db).square())),
    Feature(
        "aoa_z",
        "asinh of the bearing residual in its standard deviations",
        4.0,
        lambda v: _asinh(v.at.bearing_rad / v.at.bearing_scale_rad),
    ),
    Feature(
        "aoa_logz",
        "log(1 + z^2) of it",
        6.0,
        lambda v: torch.log1p((v.at.bearing_rad / v.at.bearing_scale_rad).square()),
    ),
    Feature("rss_residual", "asinh(RSS residual / 0.3 dB)", 6.0, lambda v: _asinh(v.at.rss_db / 0.3)),
    Feature("log_distance", "log(distance / 30 m)", 4.0, lambda v: torch.log(v.at.links.distance_m / 30.0)),
    Feature("sine", "|sin(bearing)|, quality of the array", 1.0, lambda v: torch.sin(v.state.bearing_rad)),
    Feature(
        "log_peak",
        "log(1 - highest cosine similarity of the spectrum)",
        8.0,
        lambda v: torch.log((1.0 - v.state.peak).clamp(min=3e-4)),
    ),
    Feature(
        "log_misfit",
        "log(1 - cosine similarity at the consensus)",
        8.0,
        lambda v: torch.log((1.0 - v.at.cosine).clamp(min=3e-4)),
    ),
    Feature(
        "mirrored",
        "asinh of the mirrored bearing residual in its standard deviations",
        5.0,
        lambda v: _asinh(v.at.mirrored_rad / v.at.bearing_scale_rad),
    ),
)

_BROADCAST = (
    Feature("log_rss_mad", "broadcast: log(RSS scale / dB)", 3.0, lambda v: torch.log(v.at.rss_scale_db)),
    Feature(
        "log_aoa_mad",
        "broadcast: log of the factor on the nominal bearing scale",
        3.0,
        lambda v: torch.log(v.at.bearing_mad),
    ),
    *_PROGRESS,
)

_SUMMARIES = ("mean", "median", "quartile")

STRICT_FEATURES = (
    Feature(
        "rss", "own RSS / dBm, from -110 to -10", 50.0, lambda v: (v.state.rss_dbm + 60.0) * (v.config.stage != "aoa")
    ),
    Feature(
        "bearing", "own bearing / rad, 0 to pi", torch.pi, lambda v: v.state.bearing_rad * (v.config.stage != "rss")
    ),
    *_PROGRESS,
)


def feature_table(config: DcpConfig) -> list[tuple[str, str, float]]:
    """(name, meaning, scale) of every entry of one UE's part of the observation, in order."""
    rows = [(f.name, f.meaning, f.scale) for f in _features(config)]
    if not _has_summaries(config):
        return rows
    summaries = [
        (f"{summary}_{f.name}", f"{summary} of '{f.name}' over the AP's UEs", f.scale)
        for summary in _SUMMARIES
        for f in _OWN_LINK
    ]
    return rows[: len(_OWN_LINK)] + summaries + rows[len(_OWN_LINK) :]


def observe(config: DcpConfig, radio: RadioModel, state: DcpState) -> Tensor:
    """Observations [B, M, K, F] in [-1, 1]."""
    view = View(config, radio, state, at_consensus(config, state))
    features = _features(config)
    shape = state.bearing_rad.shape
    columns = torch.stack([f.compute(view).expand(shape) for f in features], dim=-1)
    inverse_scales = torch.tensor([1.0 / f.scale for f in features], device=columns.device)
    values = (columns * inverse_scales).clamp(-1.0, 1.0)
    if not _has_summaries(config):
        return values
    own = values[..., : len(_OWN_LINK)]
    # Over its own users an AP sees its own bias: residuals that all lean one way.
    ordered = sorted_along(own, 2)
    num_ues = len(ordered)
    middle = 0.5 * (ordered[(num_ues - 1) // 2] + ordered[num_ues // 2])
    quartile = ordered[round(0.25 * (num_ues - 1))]
    summaries = torch.cat((own.mean(dim=2), middle, quartile), dim=-1)
    spread_out = summaries.unsqueeze(2).expand(*shape, summaries.shape[-1])
    return torch.cat((own, spread_out, values[..., len(_OWN_LINK) :]), dim=-1)


def _has_summaries(config: DcpConfig) -> bool:
    return config.formulation != "strict" and config.action.startswith("confidence")


def _features(config: DcpConfig) -> tuple[Feature, ...]:
    if config.formulation == "strict":
        return STRICT_FEATURES
    if config.action.startswith("confidence"):
        return (*_OWN_LINK, *_BROADCAST)
    return GAIN_FEATURES
