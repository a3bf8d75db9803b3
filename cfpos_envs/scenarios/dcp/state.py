"""State of a DCP game and what can be read off it: links to a point, innovations, scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from cfpos_envs.physics import propagation
from cfpos_envs.physics.arrays import angle_profile, normalised_spectra, read_profile
from cfpos_envs.physics.dcp.innovations import (
    RSS_SCALE_FLOOR_DB,
    bearing_residuals,
    distance_from_rss,
    nominal_bearing_scale,
    predicted_rss_dbm,
    rss_slope_db_per_m,
)
from cfpos_envs.physics.dcp.links import Links, link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.lazy import lazy
from cfpos_envs.physics.robust import student_weight
from cfpos_envs.physics.similarity import masked_median, shares
from cfpos_envs.scenarios.base import TensorState
from cfpos_envs.scenarios.dcp.config import DcpConfig

MAD_TO_STD = 1.48
"""Median absolute deviation to standard deviation of a Gaussian."""

Value = TypeVar("Value")
_KEPT = "_innovations_at_consensus"
_MEASURED = "_of_the_measurements"
_MOVING = frozenset(("consensus_m", "start_m", "spread_m", "round"))
"""Fields that change while the measurements of static users stay."""


@dataclass
class DcpState(TensorState):
    """B episodes, M APs, K UEs, L antennas, T measurement rounds (1 if static).

    Attributes:
        true_position_m [B, T, K, 2]: hidden; used by ``truth`` alone.
        true_shadowing_db [B]: hidden standard deviation, for the bound.
        site_ids [B]: equal for equal sites.
        ap_positions_m [B, M, 2], ap_orientation_rad [B, M], height_diff_m [B, M]: known site.
        shadowing_maps [B, M, G, G] or None: known radio map.
        sequence_covariance [B, T, M, K, L, L], sequence_rss_dbm [B, T, M, K]: measurements of all rounds.
        angular_power [B, M, K, L], bearing_rad [B, M, K] in [0, pi], peak [B, M, K]: this round's.
        fused [B, M, K]: true for APs that take part in fusion and broadcasts; the others judge.
        consensus_m [B, K, 2], start_m [B, K, 2]: joint estimate, now and at the start.
        spread_m [B, K]: root mean square distance of the last reports from their mean.
        round [B]: rounds played.
    """

    true_position_m: Tensor
    true_shadowing_db: Tensor
    site_ids: Tensor
    ap_positions_m: Tensor
    ap_orientation_rad: Tensor
    height_diff_m: Tensor
    shadowing_maps: Tensor | None
    sequence_covariance: Tensor
    sequence_rss_dbm: Tensor
    angular_power: Tensor
    bearing_rad: Tensor
    peak: Tensor
    fused: Tensor
    consensus_m: Tensor
    start_m: Tensor
    spread_m: Tensor
    round: Tensor

    def replace(self, **changes: Any) -> DcpState:
        """A copy with some fields changed; what was computed from the measurements alone stays with it."""
        changed = super().replace(**changes)
        is_static = self.sequence_rss_dbm.shape[1] == 1
        if is_static and changes.keys() <= _MOVING:
            changed.__dict__[_MEASURED] = self.__dict__.setdefault(_MEASURED, {})
        return changed

    def once(self, name: str, compute: Callable[[], Value]) -> Value:
        """``compute()``, a quantity of this round's measurements and of nothing else, once while they last."""
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return compute()
        kept: dict[str, Any] = self.__dict__.setdefault(_MEASURED, {})
        if name not in kept:
            kept[name] = compute()
        value: Value = kept[name]
        return value

    def now(self, sequence: Tensor) -> Tensor:
        """This round's entry [B, ...] of a sequence [B, T, ...]."""
        if sequence.shape[1] == 1:
            return sequence[:, 0]
        index = self.round.clamp(max=sequence.shape[1] - 1)
        return sequence[torch.arange(len(index), device=index.device), index]

    @property
    def rss_dbm(self) -> Tensor:
        """[B, M, K] this round's RSS."""
        return self.now(self.sequence_rss_dbm)

    @property
    def judge_shares(self) -> Tensor:
        """[B, K, 1, M] equal weights of the APs that were left out, which judge the fused point."""
        return self.once("judge shares", lambda: shares(~self.fused.transpose(1, 2)).unsqueeze(2))

    @property
    def fused_shares(self) -> Tensor:
        """[B, K, 1, M] equal weights of the APs that take part in fusion and broadcasts."""
        return self.once("fused shares", lambda: shares(self.fused.transpose(1, 2)).unsqueeze(2))


class Innovations:
    """Measured minus predicted at one hypothesised point per UE; every tensor [B, M, K] unless noted.

    Each quantity is computed when first asked for: a game of RSS alone pays for no angle.

    Args:
        state: measurements and site.
        points_m: [B, K, 2].
        config: radio and number of APs left out.
    """

    def __init__(self, state: DcpState, points_m: Tensor, config: DcpConfig) -> None:
        self._state, self._points_m, self._config = state, points_m, config
        self._radio, self._num_held_out = config.radio, config.num_held_out

    @lazy
    def links(self) -> Links:
        """Geometry from every AP to the points."""
        return links_to(self._state, self._points_m, self._radio)

    @lazy
    def rss_db(self) -> Tensor:
        """RSS residual."""
        return self._state.rss_dbm - predicted_rss_at(self._state, self.links, self._points_m, self._radio)

    @lazy
    def implied_m(self) -> Tensor:
        """Horizontal distance that the RSS implies; it does not depend on the point."""
        return implied_distance_m(self._state, self._radio)

    @lazy
    def _bearings(self) -> tuple[Tensor, Tensor]:
        return bearing_residuals(self._state.bearing_rad, self.links)

    @property
    def bearing_rad(self) -> Tensor:
        """Bearing residual."""
        return self._bearings[0]

    @property
    def mirrored_rad(self) -> Tensor:
        """Residual of the mirrored bearing."""
        return self._bearings[1]

    @lazy
    def cosine(self) -> Tensor:
        """Cosine similarity of measured and expected spectrum: a term of Xi^a, eq. (8)."""
        return read_profile(profiles(self._config, self._state), self.links.folded_rad)

    @lazy
    def slope_db_per_m(self) -> Tensor:
        """RSS per metre outwards (negative)."""
        return rss_slope_db_per_m(self._radio, self.links)

    @lazy
    def rss_scale_db(self) -> Tensor:
        """[B, 1, K] standard deviation of the RSS residuals, from their MAD over the APs that take part."""
        return (MAD_TO_STD * self._median(self.rss_db.abs())).clamp(min=RSS_SCALE_FLOOR_DB)

    @lazy
    def bearing_mad(self) -> Tensor:
        """[B, 1, K] factor on the nominal bearing scale, 1 to 20, from the APs that take part."""
        scaled = self.bearing_rad.abs() / self._nominal_rad
        return (MAD_TO_STD * self._median(scaled)).clamp(1.0, 20.0)

    @lazy
    def bearing_scale_rad(self) -> Tensor:
        """Standard deviation of the bearing residuals."""
        return self._nominal_rad * self.bearing_mad

    @lazy
    def _nominal_rad(self) -> Tensor:
        return self._state.once("nominal_rad", lambda: nominal_bearing_scale(self._state.bearing_rad))

    @lazy
    def nominal_weights(self) -> tuple[Tensor, Tensor]:
        """Information of the RSS and of the bearing, 1/m^2; see ``information_weights``."""
        return self.information_weights(self.rss_db, self.bearing_rad)

    def information_weights(self, residual_db: Tensor, residual_rad: Tensor) -> tuple[Tensor, Tensor]:
        """Information (g / sigma)^2 of given RSS and bearing residuals with Student-t robustness, 1/m^2 each."""
        radial = (self.slope_db_per_m / self.rss_scale_db).square()
        tangential = (self.links.distance_m * self.bearing_scale_rad).square().reciprocal()
        return (
            radial * student_weight(residual_db / self.rss_scale_db),
            tangential * student_weight(residual_rad / self.bearing_scale_rad),
        )

    @lazy
    def moves_m(self) -> tuple[Tensor, Tensor]:
        """Displacements of the point along and across the line of sight that the residuals ask for."""
        return self.rss_db / self.slope_db_per_m, self.bearing_rad * self.links.distance_m

    def _median(self, values: Tensor) -> Tensor:
        mask = self._state.fused.transpose(1, 2) if self._num_held_out else None
        return masked_median(values.transpose(1, 2), mask, values.shape[1] - self._num_held_out).unsqueeze(1)


@lru_cache(maxsize=16)
def direction_spectra(config: DcpConfig, device: torch.device) -> Tensor:
    """[A, L] normalised spectrum of every direction: the table behind angle profiles."""
    radio = config.radio
    return normalised_spectra(
        config.num_angles, radio.num_antennas, radio.spacing_wavelengths, radio.angular_spread_rad, device
    )


def profiles(config: DcpConfig, state: DcpState) -> Tensor:
    """[B, M, K, A] cosine similarity of this round's spectra with every direction's."""
    power = state.angular_power
    return state.once("profiles", lambda: angle_profile(power, direction_spectra(config, power.device).to(power)))


def implied_distance_m(state: DcpState, radio: RadioModel) -> Tensor:
    """[B, M, K] horizontal distance that the RSS of this round implies."""
    return state.once("implied_m", lambda: distance_from_rss(radio, state.rss_dbm, state.height_diff_m))


def links_to(state: DcpState, points_m: Tensor, radio: RadioModel) -> Links:
    """Geometry from all APs to points [B, P, 2]."""
    return link_geometry(
        state.ap_positions_m, state.ap_orientation_rad, state.height_diff_m, points_m, radio.side_m, radio.wrap
    )


def predicted_rss_at(state: DcpState, links: Links, points_m: Tensor, radio: RadioModel) -> Tensor:
    """Predicted RSS [B, M, P] at points, with the radio map where it is known."""
    known = state.shadowing_maps
    shadowing = None if known is None else propagation.sample_maps(known, points_m, radio.side_m, radio.wrap)
    return predicted_rss_dbm(radio, links, shadowing)


def at_consensus(config: DcpConfig, state: DcpState) -> Innovations:
    """Innovations at the joint estimate, shared by the observation of a state and the step from it.

    They stay with the state object, which is never changed in place; a changed copy starts without them.
    """
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or state.consensus_m.requires_grad:
        # A compiler finds common parts by itself; kept tensors would lack their gradients later.
        return Innovations(state, state.consensus_m, config)
    kept: Innovations | None = state.__dict__.get(_KEPT)
    if kept is None:
        kept = state.__dict__[_KEPT] = Innovations(state, state.consensus_m, config)
    return kept
