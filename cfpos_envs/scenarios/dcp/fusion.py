"""From actions to reports, and from reports to the next joint estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics import geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.normal_equations import NormalEquations, polar_terms
from cfpos_envs.physics.robust import clamp_length
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.similarity import Judge
from cfpos_envs.scenarios.dcp.state import DcpState, Innovations, stage_terms
from cfpos_envs.scenarios.features import Row, width

RIDGE = 1e-3
_GAINS = (
    Row("gain_radial", "report moves (1 + a) times the distance innovation, 0 to 2"),
    Row("gain_tangential", "report moves (1 + a) times the bearing innovation, 0 to 2"),
)
_POLAR = (Row("distance", "(1 + a) / 2 of the largest distance, m"), Row("azimuth", "pi a, rad"))
_CONFIDENCES = (
    Row("confidence_rss", "RSS weight times exp(confidence_scale a)"),
    Row("confidence_aoa", "bearing weight times exp(confidence_scale a)"),
)
_CORRECTIONS = (
    Row("correction_rss", "correction_db a|a| dB subtracted from the RSS residual"),
    Row("correction_aoa", "correction_rad a rad subtracted from the bearing residual"),
)
ACTIONS = {
    "gain": _GAINS,
    "polar": _POLAR,
    "confidence": _CONFIDENCES,
    "confidence-correction": (*_CONFIDENCES, *_CORRECTIONS),
}
"""What the entries of one user's part of an action mean."""

LINE_SEARCH_GAINS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Proposal:
    """What every AP asks for, per UE; tensors [B, M, K].

    Attributes:
        radial_m, tangential_m: displacement of its report from the consensus along u and v.
        weight_radial, weight_tangential: its information, 1/m^2; None where the fusion does not weigh.
    """

    radial_m: Tensor
    tangential_m: Tensor
    weight_radial: Tensor | None = None
    weight_tangential: Tensor | None = None

    def vectors(self, unit: Tensor) -> Tensor:
        """[B, M, K, 2] displacement vectors."""
        radial, tangential = self.radial_m.unsqueeze(-1), self.tangential_m.unsqueeze(-1)
        return radial * unit + tangential * geometry.rotate_quarter(unit)


@dataclass(frozen=True)
class Searched:
    """Similarities that the line search has found on its way.

    Attributes:
        at_consensus, at_best [B, K]: at the joint estimate and at the fused point.
        at_others [B, R, K]: at the further points that it was given.
    """

    at_consensus: Tensor
    at_best: Tensor
    at_others: Tensor


@dataclass(frozen=True)
class DcpFused:
    """What the central unit makes of the reports.

    Attributes:
        step: [B, K, 2] displacement of the joint estimate.
        without: [B, M, K, 2] what it would be with one AP neutral; None where nobody asks for it.
        searched: what the line search evaluated, if there was one.
    """

    step: Tensor
    without: Tensor | None = None
    searched: Searched | None = None


def counted(values: Tensor, use: Tensor | float) -> Tensor:
    """``values`` where their stage counts, zero elsewhere."""
    if isinstance(use, Tensor):
        return values * use
    return values if use else torch.zeros_like(values)


def propose(config: DcpConfig, radio: RadioModel, state: DcpState, at: Innovations, actions: Tensor) -> Proposal:
    """Decode actions [B, M, K, A] in [-1, 1] into displacements and weights at the consensus.

    ``gain``: a report is the consensus moved by (1 + a) times each innovation; ``polar``: a distance and an azimuth;
    ``confidence``: the linearised innovations with weights w exp(lambda a); see docs/envs/dcp.md.
    """
    use_radial, use_tangential = stage_terms(config, state)
    distance, weighs = at.links.distance_m, config.fusion == "information"
    if config.action == "polar":
        reports = state.ap_positions_m.unsqueeze(2) + decode_polar(radio, actions)
        offset = geometry.nearest_image(reports - state.consensus_m.unsqueeze(1), radio.side_m, radio.wrap)
        radial = (offset * at.links.unit).sum(dim=-1)
        tangential = (offset * geometry.rotate_quarter(at.links.unit)).sum(dim=-1)
        return Proposal(radial, tangential, *(at.nominal_weights if weighs else ()))
    if config.action == "gain":
        radial, tangential = (1.0 + actions[..., 0]) * (at.implied_m - distance), distance
        if isinstance(use_tangential, Tensor) or use_tangential:
            tangential = (1.0 + actions[..., 1]) * distance * torch.sin(at.bearing_rad)
        weights = at.nominal_weights if weighs else None
    else:
        radial, tangential = at.moves_m
        weights = at.nominal_weights
        if config.action == "confidence-correction":
            residual_db = at.rss_db - config.correction_db * actions[..., 2].abs() * actions[..., 2]
            residual_rad = at.bearing_rad - config.correction_rad * actions[..., 3]
            radial, tangential = residual_db / at.slope_db_per_m, residual_rad * distance
            weights = at.information_weights(residual_db, residual_rad)
        confidence = torch.exp(config.confidence_scale * actions[..., :2])
        weights = weights[0] * confidence[..., 0], weights[1] * confidence[..., 1]
    radial, tangential = counted(radial, use_radial), counted(tangential, use_tangential)
    if weights is None:
        return Proposal(radial, tangential)
    return Proposal(radial, tangential, counted(weights[0], use_radial), counted(weights[1], use_tangential))


def neutral_proposal(config: DcpConfig, radio: RadioModel, state: DcpState, at: Innovations) -> Proposal:
    """What every AP asks for with the action 0."""
    if config.action.startswith("confidence"):
        uses, pairs = stage_terms(config, state), (at.moves_m, at.nominal_weights)
        moves, weights = (tuple(counted(values, use) for values, use in zip(pair, uses, strict=True)) for pair in pairs)
        return Proposal(*moves, *weights)
    return propose(config, radio, state, at, at.links.distance_m.new_zeros(*state.bearing_rad.shape, 2))


def polar_range_m(radio: RadioModel) -> float:
    """Largest distance that a polar action can name: the farthest point on the torus or across the square."""
    return radio.side_m * (0.5**0.5 if radio.wrap else 2.0**0.5)


def decode_polar(radio: RadioModel, actions: Tensor) -> Tensor:
    """[..., 2] action in [-1, 1]^2 to a displacement from the AP: distance (1 + a_0)/2 of the range, azimuth pi a_1."""
    return geometry.cartesian(0.5 * (1.0 + actions[..., 0]) * polar_range_m(radio), torch.pi * actions[..., 1])


def encode_polar(radio: RadioModel, vectors_m: Tensor) -> Tensor:
    """Inverse of ``decode_polar``."""
    distance, azimuth = geometry.polar(vectors_m)
    return torch.stack((2.0 * distance / polar_range_m(radio) - 1.0, azimuth / torch.pi), dim=-1)


def fuse(
    config: DcpConfig,
    radio: RadioModel,
    state: DcpState,
    at: Innovations,
    proposal: Proposal,
    vectors_m: Tensor,
    judge: Judge,
    others_m: Tensor | None = None,
) -> DcpFused:
    """What the central unit makes of the reports by the configured rule.

    Args:
        config, radio, state, at: the game, its state and its innovations.
        proposal, vectors_m: the reports, and their displacements [B, M, K, 2].
        judge: compares points with the measurements, for the line search.
        others_m: [B, R, K, 2] further points that it is to evaluate in the same pass.
    """
    unit = at.links.unit
    neutral = neutral_proposal(config, radio, state, at) if config.credits_counterfactual else None
    if config.fusion == "information":
        return DcpFused(*information_fusion(config, unit, proposal, neutral, state.fused))
    moves = None if neutral is None else neutral.vectors(unit)
    step, without = mean_fusion(vectors_m, moves, state.fused)
    if config.fusion == "mean":
        return DcpFused(step, without)
    gain, searched = _line_search(config, radio, state, step, judge, others_m)
    return DcpFused(gain * step, None if without is None else gain.unsqueeze(1) * without, searched)


def _line_search(
    config: DcpConfig, radio: RadioModel, state: DcpState, step: Tensor, judge: Judge, others_m: Tensor | None
) -> tuple[Tensor, Searched]:
    """Factor [B, K, 1] on the step that gives the highest similarity, judged by the APs that take part."""
    gains = torch.tensor(LINE_SEARCH_GAINS, device=step.device)
    points = state.consensus_m.unsqueeze(1) + gains.view(1, -1, 1, 1) * step.unsqueeze(1)
    points = geometry.into_area(points, radio.side_m, radio.wrap)
    if others_m is not None:
        points = torch.cat((points, others_m), dim=1)
    kind = "log" if config.similarity == "paper" else config.similarity
    (values,) = judge.similarity(points, state.readings.fused_shares if config.num_held_out else None, kind)
    highest, best = values[:, : len(gains)].max(dim=1)
    return gains[best].unsqueeze(-1), Searched(values[:, 0], highest, values[:, len(gains) :])


def information_fusion(
    config: DcpConfig, unit: Tensor, proposal: Proposal, neutral: Proposal | None, fused: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Fused displacement [B, K, 2] and, per AP, what it would be had that AP acted neutrally [B, M, K, 2].

    The second is None without ``neutral``.
    """
    terms = _terms(unit, proposal, fused)
    total = terms.total()
    step = clamp_length(total.solve(RIDGE), config.max_step_m)
    if neutral is None:
        return step, None
    without = total.exchanged(terms, _terms(unit, neutral, fused))
    return step, clamp_length(without.solve(RIDGE), config.max_step_m)


def _terms(unit: Tensor, proposal: Proposal, fused: Tensor) -> NormalEquations:
    assert proposal.weight_radial is not None
    assert proposal.weight_tangential is not None
    weights = proposal.weight_radial * fused, proposal.weight_tangential * fused
    return polar_terms(unit, *weights, proposal.radial_m, proposal.tangential_m)


def mean_fusion(vectors_m: Tensor, neutral_m: Tensor | None, fused: Tensor) -> tuple[Tensor, Tensor | None]:
    """Mean of the reports' displacements [B, M, K, 2] over the APs that take part, and per AP with it neutral.

    The second is None without ``neutral_m``.
    """
    share = (fused / fused.sum(dim=1, keepdim=True).clamp(min=1)).unsqueeze(-1)
    step = (share * vectors_m).sum(dim=1)
    return step, None if neutral_m is None else step.unsqueeze(1) + share * (neutral_m - vectors_m)


def report_spread_m(vectors_m: Tensor, fused: Tensor) -> Tensor:
    """Root mean square distance of the reports from their mean, [B, K]."""
    share = (fused / fused.sum(dim=1, keepdim=True).clamp(min=1)).unsqueeze(-1)
    mean = (share * vectors_m).sum(dim=1, keepdim=True)
    return torch.sqrt((share * (vectors_m - mean).square()).sum(dim=(1, 3)))


def encode_points(config: DcpConfig, radio: RadioModel, state: DcpState, target_m: Tensor) -> Tensor:
    """[B, M, K A] actions by which every AP reports the points [B, K, 2].

    Exact for ``polar``. ``gain`` can only scale innovations by 0 to 2: the nearest such report. ``confidence`` weighs
    innovations: full weight to those that lead towards the point, least to the others.
    """
    at = state.at_consensus(config)
    if config.action == "polar":
        vectors = geometry.displacement(state.ap_positions_m, target_m, radio.side_m, radio.wrap)
        return encode_polar(radio, vectors).clamp(-1.0, 1.0).flatten(2)
    wanted = geometry.nearest_image(target_m - state.consensus_m, radio.side_m, radio.wrap).unsqueeze(1)
    radial = (wanted * at.links.unit).sum(dim=-1)
    tangential = (wanted * geometry.rotate_quarter(at.links.unit)).sum(dim=-1)
    if config.action == "gain":
        pairs = (
            (radial, at.implied_m - at.links.distance_m),
            (tangential, at.links.distance_m * torch.sin(at.bearing_rad)),
        )
        actions = [torch.nan_to_num(goal / move - 1.0, nan=-1.0).clamp(-1.0, 1.0) for goal, move in pairs]
    else:
        moves = (at.rss_db / at.slope_db_per_m, at.bearing_rad * at.links.distance_m)
        closer = [(move - goal).abs() < goal.abs() for move, goal in zip(moves, (radial, tangential), strict=True)]
        actions = [torch.where(flag, 1.0, -1.0) for flag in closer]
        actions += [torch.zeros_like(radial)] * (width(ACTIONS[config.action]) - 2)
    return torch.stack(actions, dim=-1).flatten(2)
