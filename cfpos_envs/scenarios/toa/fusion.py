"""From actions to weights and corrections of ranges, and from these to the next joint estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.normal_equations import ClockEquations, NormalEquations, line_terms
from cfpos_envs.physics.robust import STUDENT_NU, clamp_length, student_weight
from cfpos_envs.scenarios.features import Row
from cfpos_envs.scenarios.toa.state import RangeResiduals

RIDGE = 1e-4
"""Ridge of the normal equations relative to the mean information of the measured links."""


def actions(confidence_scale: float, correction_m: float) -> tuple[Row, ...]:
    """What the entries of one user's part of an action mean."""
    return (
        Row("reliability", f"robust weight times exp({confidence_scale:g} (a - 1)), in [0, 1]"),
        Row("correction", f"the range is taken to be {correction_m:g} a|a| m shorter"),
    )


@dataclass(frozen=True)
class Report:
    """What every AP reports to the central unit of every UE; tensors [B, M, K].

    Attributes:
        residual_m: range minus predicted range after the AP's correction.
        reliability: in [0, 1].
        information: of the range, 1/m^2, by its reported variance.
    """

    residual_m: Tensor
    reliability: Tensor
    information: Tensor

    @property
    def weight(self) -> Tensor:
        """Weight in the least squares, 1/m^2."""
        return self.reliability * self.information


def decode(at: RangeResiduals, actions: Tensor, confidence_scale: float, correction_m: float) -> Report:
    """Actions [B, M, K, 2] in [-1, 1] as reports.

    The reliability is rho(z) exp(lambda (a_0 - 1)) with the Student-t weight rho of the corrected residual in units of
    the larger of reported and observed scale; the range becomes shorter by ``correction_m`` a_1 |a_1|. Action 0 is one
    step of a robust estimator: relative weights rho, no correction.

    Args:
        at: residuals at the consensus.
        actions: see above.
        confidence_scale: lambda.
        correction_m: largest correction.
    """
    residual = at.residual_m - correction_m * actions[..., 1] * actions[..., 1].abs()
    z = residual / torch.maximum(at.std_m, at.scale_m)
    robust = student_weight(z) * (STUDENT_NU / (STUDENT_NU + 1))
    reliability = robust * torch.exp(confidence_scale * (actions[..., 0] - 1.0))
    return Report(residual, reliability, at.std_m.square().reciprocal())


def encode_correction(length_m: Tensor, correction_m: float) -> Tensor:
    """The action a_1 that makes ranges shorter by ``length_m``, as far as it can."""
    if correction_m == 0:
        return torch.zeros_like(length_m)
    return torch.sign(length_m) * (length_m.abs() / correction_m).clamp(max=1.0).sqrt()


@dataclass(frozen=True)
class ToaFused:
    """What the central unit makes of the reports, and per AP what it would have made had that AP acted neutrally.

    Attributes:
        step_m [B, K, 2], offset_m [B, K]: changes of the position and of the clock offset.
        step_without_m [B, M, K, 2], offset_without_m [B, M, K]: likewise.
    """

    step_m: Tensor
    offset_m: Tensor
    step_without_m: Tensor
    offset_without_m: Tensor


def fuse(
    at: RangeResiduals,
    report: Report,
    neutral: Report,
    fused: Tensor,
    common_clock: bool,
    max_step_m: float,
    least_reliability: float,
) -> ToaFused:
    """One Gauss-Newton step of the weighted least squares over the reports.

    Args:
        at: geometry and residuals.
        report, neutral: what the APs say, and what they would say with action 0.
        fused: [B, M, K] links that take part.
        common_clock: false eliminates a clock offset per UE (TDOA).
        max_step_m: longest step.
        least_reliability: unit of the ridge; links that are all thrown away give no step.
    """
    own, other = (line_terms(at.unit, each.weight * fused, each.residual_m, common_clock) for each in (report, neutral))
    total = own.total()
    count = fused.sum(dim=1).clamp(min=1)
    mean_information = (report.information * fused).sum(dim=1) / count
    ridge = (RIDGE * least_reliability * mean_information).clamp(min=torch.finfo(at.unit.dtype).tiny ** 0.5)
    step, offset = _solved(total, ridge)
    step_without, offset_without = _solved(total.exchanged(own, other), ridge.unsqueeze(1))
    return ToaFused(clamp_length(step, max_step_m), offset, clamp_length(step_without, max_step_m), offset_without)


def _solved(equations: NormalEquations, ridge: Tensor) -> tuple[Tensor, Tensor]:
    step = equations.solve(ridge)
    if isinstance(equations, ClockEquations):
        return step, equations.offset(step)
    return step, torch.zeros_like(step[..., 0])


def determined(ap_positions_m: Tensor, unit: Tensor, used: Tensor, common_clock: bool) -> Tensor:
    """[B, K] whether the links that are used fix a position: three or more, neither APs nor directions in one line.

    APs in one line cannot tell a user from its mirror image; directions in one line leave one coordinate open.

    Args:
        ap_positions_m: [B, M, 2].
        unit: [B, M, K, 2] gradient of the range.
        used: [B, M, K].
        common_clock: whether the clock offset is known.
    """
    weight = used.to(unit.dtype)
    places = ap_positions_m.unsqueeze(2).expand_as(unit)
    in_plane = _spread_out(places - _mean(places, weight), weight)
    return (used.sum(dim=1) >= 3) & in_plane & _spread_out(unit if common_clock else unit - _mean(unit, weight), weight)


def _mean(vectors: Tensor, weight: Tensor) -> Tensor:
    count = weight.sum(dim=1, keepdim=True).clamp(min=1.0).unsqueeze(-1)
    return (weight.unsqueeze(-1) * vectors).sum(dim=1, keepdim=True) / count


def _spread_out(vectors: Tensor, weight: Tensor) -> Tensor:
    """Whether the second axis of weighted vectors is longer than a thousandth of the first one."""
    spread = line_terms(vectors, weight, torch.zeros_like(weight)).total()
    return spread.xx * spread.yy - spread.xy * spread.xy > 1e-6 * (spread.xx + spread.yy).square()
