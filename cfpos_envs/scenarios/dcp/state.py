"""State of a DCP game and what can be read off it: links to a point, innovations, scales."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.physics import propagation
from cfpos_envs.physics.arrays import read_profile
from cfpos_envs.physics.dcp.innovations import (
    READ_SCALE_FLOOR_DB,
    RSS_SCALE_FLOOR_DB,
    bearing_residuals,
    predicted_rss_dbm,
    rss_slope_db_per_m,
)
from cfpos_envs.physics.dcp.links import Links, link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.lazy import lazy
from cfpos_envs.physics.robust import student_weight
from cfpos_envs.physics.similarity import masked_median
from cfpos_envs.scenarios.ap_game import ApState
from cfpos_envs.scenarios.base import at_round
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.readings import Readings

MAD_TO_STD = 1.48
"""Median absolute deviation to standard deviation of a Gaussian."""

_MOVING = frozenset(("consensus_m", "start_m", "spread_m", "round"))
"""Fields that change while the measurements of static users stay."""


@dataclass
class DcpState(ApState):
    """See ``ApState``; L antennas. Every AP measures every user: those that are not ``fused`` judge.

    Attributes:
        true_shadowing_db [B]: hidden standard deviation, for the bound.
        shadowing_maps [B, M, G, G] or None: known radio map.
        sequence_covariance [B, T, M, K, L, L], sequence_rss_dbm [B, T, M, K]: measurements of all rounds.
        angular_power [B, M, K, L], bearing_rad [B, M, K] in [0, pi], peak [B, M, K]: this round's.
        spread_m [B, K]: root mean square distance of the last reports from their mean.
        correction_db, power_std_db, bearing_std_rad [B, M, K]: what a front end that reads covariances adds to this
            round's RSS, and how sure it is; None with ``links=dft``.
        drop [B]: of an episode of several drops the one that the estimate is of; None where there is one. The sequences
            above, ``true_position_m``, and ``sequence_start_m`` [B, D, K, 2], ``sequence_fused`` [B, D, M, K] then hold
            an entry per drop.
        past [B, D - 1, M, K, 4]: what the APs remember of the drops before, see ``memory.residuals``.
    """

    true_shadowing_db: Tensor
    shadowing_maps: Tensor | None
    sequence_covariance: Tensor
    sequence_rss_dbm: Tensor
    angular_power: Tensor
    bearing_rad: Tensor
    peak: Tensor
    spread_m: Tensor
    correction_db: Tensor | None = field(default=None, kw_only=True)
    power_std_db: Tensor | None = field(default=None, kw_only=True)
    bearing_std_rad: Tensor | None = field(default=None, kw_only=True)
    drop: Tensor | None = field(default=None, kw_only=True)
    sequence_start_m: Tensor | None = field(default=None, kw_only=True)
    sequence_fused: Tensor | None = field(default=None, kw_only=True)
    past: Tensor | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # What has been computed from the fields above, none of which ever changes in place. Not a field itself: it is
        # neither saved nor selected.
        self._readings: Readings | None = None
        self._at_consensus: Innovations | None = None
        self._bounds_m: dict[str, Tensor] = {}
        self._entered: DcpState | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readings": None, "_at_consensus": None, "_bounds_m": {}, "_entered": None}

    def now(self, sequence: Tensor) -> Tensor:
        """This round's entry [B, ...] of a sequence [B, T, ...], this drop's of one [B, D, ...]."""
        return super().now(sequence) if self.drop is None else at_round(sequence, self.drop)

    def entered(self, enter: Callable[[DcpState], DcpState]) -> DcpState:
        """What ``enter`` makes of this state, computed once for its observation and the step from it."""
        if not _keeps():
            return enter(self)
        if self._entered is None:
            self._entered = enter(self)
        return self._entered

    @property
    def is_static(self) -> bool:
        """Whether measurements stay from round to round."""
        return self.drop is not None or self.sequence_rss_dbm.shape[1] == 1

    def replace(self, **changes: Any) -> DcpState:
        """A copy with some fields changed; what was computed from the measurements alone stays with it."""
        changed = super().replace(**changes)
        if self.is_static and changes.keys() <= _MOVING:
            changed._bounds_m = self._bounds_m
            if _keeps():
                changed._readings = self.readings
        return changed

    @property
    def readings(self) -> Readings:
        """What follows from this round's measurements alone."""
        if not _keeps():
            return self._new_readings(None)
        if self._readings is None:
            self._readings = self._new_readings(None)
        return self._readings

    def _new_readings(self, profiles: Tensor | None) -> Readings:
        return Readings(
            self.read_rss_dbm,
            self.bearing_rad,
            self.angular_power,
            self.fused,
            self.ap_positions_m,
            self.ap_orientation_rad,
            self.height_diff_m,
            self.shadowing_maps,
            self.bearing_std_rad,
            profiles,
        )

    def heard(self, angular_power: Tensor, bearing_rad: Tensor, peak: Tensor, profiles: Tensor | None) -> DcpState:
        """The state with this round's spectra and bearings.

        Args:
            angular_power, bearing_rad, peak: see the attributes.
            profiles: of which the bearings are the peaks, where they are known.
        """
        changed = self.replace(angular_power=angular_power, bearing_rad=bearing_rad, peak=peak)
        if _keeps():
            changed._readings = changed._new_readings(profiles)
        return changed

    def at_consensus(self, config: DcpConfig) -> Innovations:
        """Innovations at the joint estimate, shared by the observation of a state and the step from it."""
        if not _keeps() or self.consensus_m.requires_grad:
            # Kept tensors would lack their gradients later.
            return Innovations(self, self.consensus_m, config)
        if self._at_consensus is None:
            self._at_consensus = Innovations(self, self.consensus_m, config)
        return self._at_consensus

    def bound_once_m(self, stage: str, compute: Callable[[], Tensor]) -> Tensor:
        """Position error bound of a stage of the game, computed once while truth and measurements last."""
        if not _keeps():
            return compute()
        if stage not in self._bounds_m:
            self._bounds_m[stage] = compute()
        return self._bounds_m[stage]

    @property
    def rss_dbm(self) -> Tensor:
        """[B, M, K] this round's RSS."""
        return self.now(self.sequence_rss_dbm)

    @property
    def read_rss_dbm(self) -> Tensor:
        """[B, M, K] the same, as the front end reads it."""
        return self.rss_dbm if self.correction_db is None else self.rss_dbm + self.correction_db


def _keeps() -> bool:
    """Whether computed tensors may stay: a compiler finds common parts by itself, and what is computed in inference
    mode is of no use outside."""
    return not (torch.compiler.is_compiling() or torch.is_inference_mode_enabled())


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
        return self._state.read_rss_dbm - predicted_rss_at(self._state, self.links, self._points_m, self._radio)

    @lazy
    def implied_m(self) -> Tensor:
        """Horizontal distance that the RSS implies; it does not depend on the point."""
        return self._state.readings.implied_m(self._radio)

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
        return read_profile(self._state.readings.profiles(self._config), self.links.folded_rad)

    @lazy
    def slope_db_per_m(self) -> Tensor:
        """RSS per metre outwards (negative)."""
        return rss_slope_db_per_m(self._radio, self.links)

    @lazy
    def rss_mad_db(self) -> Tensor:
        """[B, 1, K] standard deviation of the RSS residuals, from their MAD over the APs that take part."""
        floor_db = RSS_SCALE_FLOOR_DB if self._state.power_std_db is None else READ_SCALE_FLOOR_DB
        return (MAD_TO_STD * self._median(self.rss_db.abs())).clamp(min=floor_db)

    @lazy
    def rss_scale_db(self) -> Tensor:
        """Standard deviation of every RSS residual; [B, 1, K] where the front end states none.

        What the stated noise of the powers leaves of the MAD is taken for alike at all APs, as shadowing is.
        """
        std_db = self._state.power_std_db
        if std_db is None:
            return self.rss_mad_db
        shares = self._state.readings.fused_shares.squeeze(2).transpose(1, 2)
        noise = (std_db.square() * shares).sum(dim=1, keepdim=True)
        shared = (self.rss_mad_db.square() - noise).clamp(min=0.0)
        return torch.sqrt(std_db.square() + shared).clamp(min=READ_SCALE_FLOOR_DB)

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
        return self._state.readings.nominal_rad

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


def stage_terms(config: DcpConfig, state: DcpState) -> tuple[Tensor | float, Tensor | float]:
    """Whether RSS and AOA count in the round to come: numbers, or [B, 1, 1] in {0, 1} where that changes by round.

    The chained game's second stage corrects by angle what stage one found by power: the gain game moves along the
    bearing alone, the information fusion keeps the RSS information and adds the bearings'.
    """
    if config.stage != "chained":
        return float(config.stage != "aoa"), float(config.stage != "rss")
    first = (state.round < config.stage_one_rounds).to(state.consensus_m.dtype).view(-1, 1, 1)
    return (1.0 if config.fusion == "information" else first), 1.0 - first
