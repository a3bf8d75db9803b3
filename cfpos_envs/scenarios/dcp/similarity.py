"""How well predicted fingerprints at a point match the measured ones, for the line search and for rewards."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from cfpos_envs.physics import similarity
from cfpos_envs.physics.arrays import read_profile_rows
from cfpos_envs.physics.dcp.innovations import RssLaw, predicted_rss_dbm
from cfpos_envs.physics.dcp.links import Links
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import nearest_image
from cfpos_envs.physics.propagation import sample_maps
from cfpos_envs.physics.units import dbm_to_watts
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.readings import Evidence, aps_last
from cfpos_envs.scenarios.dcp.state import DcpState, Innovations, stage_terms

CAUCHY_SCALE_DB = 0.5
# Link evaluations at a time: temporaries of this many floats stay in a core's cache; on other devices memory bounds it.
_CACHE_LINKS = 1 << 16
_MEMORY_LINKS = 1 << 26

# psi = -f' of the similarities that are sums over APs of a function f of the scaled residual.
_INFLUENCE: dict[str, Callable[[Tensor], Tensor]] = {
    "robust": lambda z: 5.0 * z / (4.0 + z * z),
    "cauchy": lambda z: 2.0 * z / (1.0 + z * z),
}


class Judge:
    """Compares one round's measurements with predictions at any points.

    Args:
        config: decides which measurements count.
        radio: known constants.
        state: the measurements.
        scales: scales of the residuals, for the similarity ``robust``.
    """

    def __init__(self, config: DcpConfig, radio: RadioModel, state: DcpState, scales: Innovations) -> None:
        self._radio, self._law = radio, rss_law(config, radio)
        use_radial, use_tangential = stage_terms(config, state)
        self._uses_rss, self._uses_aoa = config.stage != "aoa", config.stage != "rss"
        readings = state.readings
        self._profiles = readings.profiles(config).reshape(-1) if self._uses_aoa else None
        self._num_angles = config.num_angles
        is_robust = config.similarity == "robust"
        self._evidence = dataclasses.replace(
            readings.evidence(config),
            rss_scale_db=aps_last(scales.rss_scale_db) if is_robust and self._uses_rss else None,
            bearing_scale_rad=aps_last(scales.bearing_scale_rad) if is_robust and self._uses_aoa else None,
            use_radial=use_radial if isinstance(use_radial, Tensor) else None,
            use_tangential=use_tangential if isinstance(use_tangential, Tensor) else None,
        )

    def similarity(self, points_m: Tensor, shares: Tensor | None, *kinds: str) -> tuple[Tensor, ...]:
        """Similarities of the measurements with the predictions at R points per UE, judged by all or some of the APs.

        Args:
            points_m: [B, R, K, 2] inside the area.
            shares: [B, K, 1, M] weights of the judging APs, with sum 1; None: all alike.
            kinds: of ``paper``, ``log``, ``robust``, ``cauchy``.

        Returns:
            For every kind [B, R, K], differentiable in the points.
        """
        points = points_m.transpose(1, 2)
        batch = len(points_m)
        links_each = points_m.shape[1] * points_m.shape[2] * self._evidence.ap_x_m.shape[-1]
        size = max(1, (_CACHE_LINKS if points_m.device.type == "cpu" else _MEMORY_LINKS) // links_each)
        if size >= batch:
            return tuple(value.transpose(1, 2) for value in self._part(self._evidence, points, shares, kinds))
        parts = []
        for first in range(0, batch, size):
            rows = slice(first, first + size)
            chosen = None if shares is None else shares[rows]
            parts.append(self._part(self._evidence.rows(rows), points[rows], chosen, kinds))
        return tuple(torch.cat(values).transpose(1, 2) for values in zip(*parts, strict=True))

    def with_gradient(
        self, points_m: Tensor, shares: Tensor | None, kind: str, *others: str
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Similarities at one point per UE, and the gradient of the first kind by the point.

        Args:
            points_m: [B, K, 2]; no gradient flows through it.
            shares, kind, others: see ``similarity``.

        Returns:
            Values [B, K] of every kind, and the gradient [B, K, 2].
        """
        evidence, points = self._evidence, points_m.detach().unsqueeze(2)
        if kind in _INFLUENCE and evidence.shadowing_maps is None:
            links = self._links(evidence, points)
            values = self._from_links(evidence, links, points, shares, (kind, *others))
            return tuple(value.squeeze(2) for value in values), self._gradient(evidence, links, shares, kind)
        with torch.enable_grad():
            leaf = points_m.detach().requires_grad_(True)
            first, *rest = self.similarity(leaf.unsqueeze(1), shares, kind, *others)
            (gradient,) = torch.autograd.grad(first.sum(), leaf)
        return tuple(value.detach().squeeze(1) for value in (first, *rest)), gradient

    def _part(
        self, evidence: Evidence, points_m: Tensor, shares: Tensor | None, kinds: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        """For every kind [B, K, R], from points [B, K, R, 2] and shares [B, K, 1, M]."""
        return self._from_links(evidence, self._links(evidence, points_m), points_m, shares, kinds)

    def _links(self, evidence: Evidence, points_m: Tensor) -> Links:
        return Links(
            x_m=nearest_image(points_m[..., :1] - evidence.ap_x_m, self._radio.side_m, self._radio.wrap),
            y_m=nearest_image(points_m[..., 1:] - evidence.ap_y_m, self._radio.side_m, self._radio.wrap),
            height_square_m2=evidence.height_square_m2,
            axis_x=evidence.axis_x,
            axis_y=evidence.axis_y,
        )

    def _from_links(
        self, evidence: Evidence, links: Links, points_m: Tensor, shares: Tensor | None, kinds: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        residual_db: Tensor | None = None
        if self._uses_rss:
            residual_db = self._rss_residual_db(evidence, links, points_m)
        values = []
        for kind in kinds:
            if kind == "paper":
                values.append(self._paper(evidence, links, residual_db, shares))
                continue
            terms = []
            if residual_db is not None:
                terms.append(_if_used(_rss_term(kind, residual_db, evidence.rss_scale_db, shares), evidence.use_radial))
            if self._uses_aoa:
                terms.append(_if_used(self._aoa_term(kind, evidence, links, shares), evidence.use_tangential))
            values.append(terms[0] if len(terms) == 1 else terms[0] + terms[1])
        return tuple(values)

    def _gradient(self, evidence: Evidence, links: Links, shares: Tensor | None, kind: str) -> Tensor:
        """[B, K, 2] closed form of the gradient of ``robust`` and ``cauchy`` by the point, without a known map.

        With z the scaled residual and psi(z) = -f'(z): an RSS residual pulls along the line of sight by
        psi(z) / sigma * 2 dRSS/d(d^2), a bearing residual across it by psi(z) / sigma * (+-1) / d^2.
        """
        influence = _INFLUENCE[kind]
        pull_x, pull_y = torch.zeros_like(links.x_m), torch.zeros_like(links.x_m)
        if self._uses_rss:
            residual_db = self._law.residual_db(evidence.rss_dbm, links.slant_square_m2)
            scale_db = evidence.rss_scale_db if kind == "robust" else CAUCHY_SCALE_DB
            assert scale_db is not None
            steepness = 2.0 * self._law.slope_db_per_m2(links.slant_square_m2)
            along = _if_used(influence(residual_db / scale_db) / scale_db * steepness, evidence.use_radial)
            pull_x, pull_y = along * links.x_m, along * links.y_m
        if self._uses_aoa:
            assert evidence.bearing_rad is not None
            scale_rad = self._bearing_scale(kind, evidence)
            side = torch.sign(links.across_m) / links.ground_square_m2.clamp(min=1e-12)
            turn = influence((evidence.bearing_rad - links.folded_rad) / scale_rad) / scale_rad * side
            turn = _if_used(turn, evidence.use_tangential)
            pull_x, pull_y = pull_x - turn * links.y_m, pull_y + turn * links.x_m
        pulls = [similarity.masked_mean(pull, shares) for pull in (pull_x, pull_y)]
        return torch.cat(pulls, dim=-1)

    def _bearing_scale(self, kind: str, evidence: Evidence) -> Tensor:
        scale_rad = evidence.bearing_scale_rad if kind == "robust" else evidence.nominal_rad
        assert scale_rad is not None
        return scale_rad

    def _aoa_term(self, kind: str, evidence: Evidence, links: Links, shares: Tensor | None) -> Tensor:
        if kind == "log":
            return similarity.aoa_log_similarity(self._cosine(evidence, links), shares)
        assert evidence.bearing_rad is not None
        # Every similarity is even in the residual, so its side does not matter.
        scaled = (evidence.bearing_rad - links.folded_rad) / self._bearing_scale(kind, evidence)
        per_ap = similarity.robust_similarity(scaled) if kind == "robust" else similarity.cauchy_similarity(scaled)
        return similarity.masked_mean(per_ap, shares)

    def _paper(self, evidence: Evidence, links: Links, residual_db: Tensor | None, shares: Tensor | None) -> Tensor:
        xi_a = xi_r = None
        if self._uses_aoa:
            xi_a = similarity.aoa_similarity(self._cosine(evidence, links), shares, normalisation="paper")
        if residual_db is not None:
            predicted_dbm = evidence.rss_dbm - residual_db
            # Eq. (9) is normalised over the UEs, which it expects beside the APs.
            measured_w, predicted_w = dbm_to_watts(evidence.rss_dbm), dbm_to_watts(predicted_dbm)
            xi_r = similarity.rss_distance_paper(measured_w.transpose(1, 2), predicted_w.transpose(1, 2)).transpose(
                1, 2
            )
        if xi_a is None or xi_r is None:
            single = xi_r if xi_a is None else xi_a
            assert single is not None
            return single
        joint = similarity.joint_similarity_paper(xi_a, xi_r)
        if evidence.use_tangential is None:
            return joint
        aoa_on = evidence.use_tangential
        rss_on = torch.ones_like(aoa_on) if evidence.use_radial is None else evidence.use_radial
        return rss_on * (1 - aoa_on) * xi_r + aoa_on * (1 - rss_on) * xi_a + rss_on * aoa_on * joint

    def _rss_residual_db(self, evidence: Evidence, links: Links, points_m: Tensor) -> Tensor:
        maps = evidence.shadowing_maps
        if maps is None:
            return self._law.residual_db(evidence.rss_dbm, links.slant_square_m2)
        at_points = sample_maps(maps, points_m.flatten(1, 2), self._radio.side_m, self._radio.wrap)
        shadowing = at_points.transpose(1, 2).unflatten(1, points_m.shape[1:3])
        return evidence.rss_dbm - predicted_rss_dbm(self._radio, links, shadowing)

    def _cosine(self, evidence: Evidence, links: Links) -> Tensor:
        assert evidence.profile_start is not None
        assert self._profiles is not None
        return read_profile_rows(self._profiles, self._num_angles, evidence.profile_start, links.folded_rad)


@lru_cache(maxsize=64)
def rss_law(config: DcpConfig, radio: RadioModel) -> RssLaw:
    """The RSS of a game's radio for all distances that its area and AP heights allow."""
    ground_m = radio.side_m * (0.5 if radio.wrap else 2.0) ** 0.5
    return RssLaw.of(radio, math.hypot(ground_m, config.largest_height_diff_m))


def _rss_term(kind: str, residual_db: Tensor, scale_db: Tensor | None, shares: Tensor | None) -> Tensor:
    if kind == "log":
        return similarity.rss_log_similarity(residual_db, shares)
    if kind == "robust":
        assert scale_db is not None
        return similarity.masked_mean(similarity.robust_similarity(residual_db / scale_db), shares)
    return similarity.masked_mean(similarity.cauchy_similarity(residual_db / CAUCHY_SCALE_DB), shares)


def _if_used(values: Tensor, use: Tensor | None) -> Tensor:
    """Values [B, ...] of a stage that may not count in this round, use [B, 1, 1]."""
    return values if use is None else values * use.view(-1, *(1,) * (values.ndim - 1))
