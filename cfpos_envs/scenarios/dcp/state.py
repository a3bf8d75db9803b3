"""State of a DCP game and what can be read off it: links to a point, innovations, scales."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.measurements import RadioModel
from cfpos_envs.physics import propagation
from cfpos_envs.physics.innovations import (
    RSS_SCALE_FLOOR_DB,
    Links,
    bearing_residuals,
    link_geometry,
    nominal_bearing_scale,
    predicted_rss_dbm,
    rss_slope_db_per_m,
)
from cfpos_envs.physics.similarity import masked_median
from cfpos_envs.scenarios.base import TensorState

MAD_TO_STD = 1.48
"""Median absolute deviation to standard deviation of a Gaussian."""


@dataclass
class DcpState(TensorState):
    """B episodes, M APs, K UEs, L antennas, A profile angles, T measurement rounds (1 if static).

    Attributes:
        true_position_m [B, T, K, 2]: hidden; used by ``truth`` alone.
        true_shadowing_db [B]: hidden standard deviation, for the bound.
        site_ids [B]: equal for equal sites.
        ap_positions_m [B, M, 2], ap_orientation_rad [B, M], height_diff_m [B, M]: known site.
        shadowing_maps [B, M, G, G] or None: known radio map.
        sequence_covariance [B, T, M, K, L, L], sequence_rss_dbm [B, T, M, K]: measurements of all rounds.
        angular_power [B, M, K, L], profile [B, M, K, A], bearing_rad [B, M, K] in [0, pi], peak [B, M, K]: this
            round's.
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
    profile: Tensor
    bearing_rad: Tensor
    peak: Tensor
    fused: Tensor
    consensus_m: Tensor
    start_m: Tensor
    spread_m: Tensor
    round: Tensor

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
    def judges(self) -> Tensor:
        """[B, M, K] the APs that judge the fused point: those left out or, where none is, all."""
        left_out = ~self.fused
        return left_out | ~left_out.any(dim=1, keepdim=True)


@dataclass(frozen=True)
class Innovations:
    """Measured minus predicted at a hypothesised point; every tensor [B, M, P] unless noted.

    Attributes:
        links: geometry.
        rss_db, bearing_rad, mirrored_rad: residuals.
        slope_db_per_m: RSS per metre outwards (negative).
        rss_scale_db, bearing_scale_rad: standard deviations estimated from the APs that take part (MAD);
            [B, 1, P] and [B, M, P].
        bearing_mad: [B, 1, P] factor on the nominal bearing scale, 1 to 20.
    """

    links: Links
    rss_db: Tensor
    bearing_rad: Tensor
    mirrored_rad: Tensor
    slope_db_per_m: Tensor
    rss_scale_db: Tensor
    bearing_scale_rad: Tensor
    bearing_mad: Tensor


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


def innovations(state: DcpState, points_m: Tensor, radio: RadioModel) -> Innovations:
    """Residuals of every AP at one point per UE, [B, K, 2], with scales from the APs that take part."""
    links = links_to(state, points_m, radio)
    residual_db = state.rss_dbm - predicted_rss_at(state, links, points_m, radio)
    bearing, mirrored = bearing_residuals(state.bearing_rad, links.angle_rad)
    nominal = nominal_bearing_scale(state.bearing_rad)
    by_ue = state.fused.transpose(1, 2)
    rss_mad = masked_median(residual_db.abs().transpose(1, 2), by_ue).unsqueeze(1)
    bearing_mad = masked_median((bearing.abs() / nominal).transpose(1, 2), by_ue).unsqueeze(1)
    factor = (MAD_TO_STD * bearing_mad).clamp(1.0, 20.0)
    return Innovations(
        links=links,
        rss_db=residual_db,
        bearing_rad=bearing,
        mirrored_rad=mirrored,
        slope_db_per_m=rss_slope_db_per_m(radio, links),
        rss_scale_db=(MAD_TO_STD * rss_mad).clamp(min=RSS_SCALE_FLOOR_DB),
        bearing_scale_rad=nominal * factor,
        bearing_mad=factor,
    )
