"""Label-free rewards: how well predicted fingerprints at a point match the measured ones, and who gets the credit."""

from __future__ import annotations

from torch import Tensor

from cfpos_envs.measurements import RadioModel
from cfpos_envs.physics import similarity
from cfpos_envs.physics.arrays import read_profile
from cfpos_envs.physics.channel import dbm_to_watts
from cfpos_envs.physics.innovations import bearing_residuals, nominal_bearing_scale
from cfpos_envs.scenarios.dcp.state import DcpState, Innovations, links_to, predicted_rss_at

CAUCHY_SCALE_DB = 0.5


def similarity_at(
    kind: str,
    radio: RadioModel,
    state: DcpState,
    points_m: Tensor,
    judges: Tensor,
    use_radial: Tensor,
    use_tangential: Tensor,
    scales: Innovations,
) -> Tensor:
    """Similarity of the measurements with the prediction at P points per UE, judged by some of the APs.

    Args:
        kind: ``paper``, ``log``, ``robust`` or ``cauchy``.
        radio: known constants.
        state: the measurements.
        points_m: [B, P, K, 2].
        judges: [B, M, K] APs that count.
        use_radial, use_tangential: [B, 1, 1] whether RSS and AOA count.
        scales: scales for ``robust``.

    Returns:
        [B, P, K], differentiable in the points.
    """
    batch, count, num_ues, _ = points_m.shape
    flat = points_m.reshape(batch, count * num_ues, 2)
    links = links_to(state, flat, radio)

    def by_point(values: Tensor) -> Tensor:
        """[B, M, P*K] to [B, P, K, M]."""
        return values.unflatten(2, (count, num_ues)).permute(0, 2, 3, 1)

    def of_link(values: Tensor) -> Tensor:
        """[B, M or 1, K] to [B, 1, K, M or 1]."""
        return values.transpose(1, 2).unsqueeze(1)

    mask, angle = of_link(judges), by_point(links.angle_rad)
    measured_dbm, predicted_dbm = of_link(state.rss_dbm), by_point(predicted_rss_at(state, links, flat, radio))
    rss_on, aoa_on = use_radial.to(points_m.dtype), use_tangential.to(points_m.dtype)
    if kind in ("paper", "log"):
        cosine = _cosine(state, angle, count, num_ues)
    if kind == "log":
        rss_term = similarity.rss_log_similarity(measured_dbm - predicted_dbm, mask)
        return rss_on * rss_term + aoa_on * similarity.aoa_log_similarity(cosine, mask)
    if kind == "paper":
        xi_a = similarity.aoa_similarity(cosine, mask, normalisation="paper")
        xi_r = similarity.rss_distance_paper(dbm_to_watts(measured_dbm) * mask, dbm_to_watts(predicted_dbm) * mask)
        joint = similarity.joint_similarity_paper(xi_a, xi_r)
        return rss_on * (1 - aoa_on) * xi_r + aoa_on * (1 - rss_on) * xi_a + rss_on * aoa_on * joint
    bearing_error, _ = bearing_residuals(of_link(state.bearing_rad), angle)
    rss_error = measured_dbm - predicted_dbm
    if kind == "robust":
        rss_term = similarity.robust_similarity(rss_error / of_link(scales.rss_scale_db))
        aoa_term = similarity.robust_similarity(bearing_error / of_link(scales.bearing_scale_rad))
    else:
        rss_term = similarity.cauchy_similarity(rss_error / CAUCHY_SCALE_DB)
        aoa_term = similarity.cauchy_similarity(bearing_error / of_link(nominal_bearing_scale(state.bearing_rad)))
    per_ap = rss_on.unsqueeze(-1) * rss_term + aoa_on.unsqueeze(-1) * aoa_term
    return similarity.masked_mean(per_ap, mask)


def _cosine(state: DcpState, angle_rad: Tensor, count: int, num_ues: int) -> Tensor:
    profile = state.profile.transpose(1, 2).unsqueeze(1)
    return read_profile(profile.expand(-1, count, *profile.shape[2:]), angle_rad)


def counterfactual_credit(gradient: Tensor, step: Tensor, step_without: Tensor) -> Tensor:
    """Linearised counterfactual per AP: M grad(s) . (c' - c' with AP m neutral), [B, M, K].

    Args:
        gradient: [B, K, 2] of the similarity at the fused point.
        step: [B, K, 2] fused displacement.
        step_without: [B, M, K, 2] the same with AP m neutral.
    """
    return step_without.shape[1] * (gradient.unsqueeze(1) * (step.unsqueeze(1) - step_without)).sum(dim=-1)
