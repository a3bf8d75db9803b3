"""From actions to weights, and from weighted measurements to the next joint estimate."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.hybrid import KINDS
from cfpos_envs.physics.normal_equations import RangeEquations, line_terms
from cfpos_envs.physics.robust import STUDENT_NU, clamp_length, student_weight
from cfpos_envs.scenarios.features import Row
from cfpos_envs.scenarios.hybrid.state import HybridResiduals

RIDGE = 1e-4
"""Ridge of the normal equations relative to the mean information of the measured links."""


def actions(confidence_scale: float) -> tuple[Row, ...]:
    """What the entries of one user's part of an action mean."""
    return tuple(Row(f"confidence_{kind}", f"weight times exp({confidence_scale:g} (a - 1))") for kind in KINDS)


def terms(
    at: HybridResiduals, chosen: Float[Tensor, "B M K 3"], fused: Bool[Tensor, "B M K"], confidence_scale: float
) -> RangeEquations:
    """Every AP's part of the normal equations: weight rho(z) exp(lambda (a - 1)) / sigma^2 of each measurement.

    rho is the Student-t weight: action 0 is one step of a robust estimator over everything that is measured.
    """
    robust = student_weight(at.z) * (STUDENT_NU / (STUDENT_NU + 1))
    weight = robust * torch.exp(confidence_scale * (chosen - 1.0)) / at.std.square() * fused.unsqueeze(-1)
    each = [line_terms(at.gradient[..., i, :], weight[..., i], at.residual[..., i]) for i in range(len(KINDS))]
    return each[0].plus(each[1]).plus(each[2])


def fuse(
    at: HybridResiduals,
    chosen: Float[Tensor, "B M K 3"],
    fused: Bool[Tensor, "B M K"],
    confidence_scale: float,
    max_step_m: float,
) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B M K 2"]]:
    """One Gauss-Newton step, and per AP the step had that AP acted neutrally.

    Args:
        at: residuals at the consensus.
        chosen: actions.
        fused: links that take part.
        confidence_scale: lambda.
        max_step_m: longest step.
    """
    own, neutral = (terms(at, each, fused, confidence_scale) for each in (chosen, torch.zeros_like(chosen)))
    information = (at.gradient.square().sum(dim=-1) / at.std.square() * fused.unsqueeze(-1)).sum(dim=(1, 3))
    least = RIDGE * math.exp(-2.0 * confidence_scale)
    ridge = (least * information / fused.sum(dim=1).clamp(min=1)).clamp(min=torch.finfo(at.z.dtype).tiny ** 0.5)
    total = own.total()
    step, without = total.solve(ridge), total.exchanged(own, neutral).solve(ridge.unsqueeze(1))
    return clamp_length(step, max_step_m), clamp_length(without, max_step_m)
