"""From actions to weights and corrections of ranges, and from these to the next joint estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.robust import STUDENT_NU, clamp_length, student_weight
from cfpos_envs.scenarios.toa.state import Innovations

RIDGE = 1e-4
"""Ridge of the normal equations relative to the mean information of the measured links."""


@dataclass(frozen=True)
class Report:
    """What every AP tells the CPU of every UE; tensors [B, M, K].

    Attributes:
        residual_m: range minus predicted range after the AP's correction.
        reliability: in [0, 1].
        information: of the range, 1/m^2, by its told variance.
    """

    residual_m: Tensor
    reliability: Tensor
    information: Tensor

    @property
    def weight(self) -> Tensor:
        """Weight in the least squares, 1/m^2."""
        return self.reliability * self.information


def decode(at: Innovations, actions: Tensor, confidence_scale: float, correction_m: float) -> Report:
    """Actions [B, M, K, 2] in [-1, 1] as reports.

    The reliability is rho(z) exp(lambda (a_0 - 1)) with the Student-t weight rho of the corrected residual in units of
    the larger of told and observed scale; the range becomes shorter by ``correction_m`` a_1 |a_1|. Action 0 is one
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
class Sums:
    """Normal equations of weighted least squares: sums over the APs of weights, directions and residuals.

    Attributes:
        w: [...] sum of w. wu: [..., 2] of w u. wuu: [..., 3] of w (ux^2, ux uy, uy^2). wr: [...] of w r.
        wru: [..., 2] of w r u.
    """

    w: Tensor
    wu: Tensor
    wuu: Tensor
    wr: Tensor
    wru: Tensor

    def total(self) -> Sums:
        """Added up over the APs, which are the second dimension."""
        return Sums(*(part.sum(dim=1) for part in self._parts()))

    def exchanged(self, old: Sums, new: Sums) -> Sums:
        """For every AP, these sums with its terms ``old`` replaced by ``new``: [B, M, K, ...]."""
        return Sums(
            *(all_.unsqueeze(1) - one + other for all_, one, other in zip(self._parts(), old._parts(), new._parts()))
        )

    def solve(self, common_clock: bool, ridge: Tensor) -> tuple[Tensor, Tensor]:
        """Step [..., 2] and change of the clock offset [...], metres.

        Minimises sum w (r - u.step - o)^2. Without a common clock o is eliminated: J = sum w u u^T - (sum w u)(sum w
        u)^T / sum w; with one it is 0.

        Args:
            common_clock: whether o = 0 is known.
            ridge: [...] added to both diagonal entries, > 0.
        """
        xx, xy, yy = self.wuu.unbind(dim=-1)
        gx, gy = self.wru.unbind(dim=-1)
        w = self.w.clamp(min=torch.finfo(self.w.dtype).tiny)
        if not common_clock:
            ux, uy = self.wu.unbind(dim=-1)
            xx, xy, yy = xx - ux * ux / w, xy - ux * uy / w, yy - uy * uy / w
            gx, gy = gx - ux * self.wr / w, gy - uy * self.wr / w
        xx, yy = xx + ridge, yy + ridge
        # Never below the ridge's own determinant, which rounding of nearly collinear sums could undercut.
        determinant = torch.maximum(xx * yy - xy * xy, ridge * ridge)
        step = torch.stack((yy * gx - xy * gy, xx * gy - xy * gx), dim=-1) / determinant.unsqueeze(-1)
        if common_clock:
            return step, torch.zeros_like(self.w)
        return step, (self.wr - (self.wu * step).sum(dim=-1)) / w

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.w, self.wu, self.wuu, self.wr, self.wru


def sums(unit: Tensor, weight: Tensor, residual_m: Tensor) -> Sums:
    """Terms of the normal equations, one per AP.

    Args:
        unit: [B, M, K, 2] gradient of the range.
        weight: [B, M, K]; 0 for links that do not take part.
        residual_m: [B, M, K].
    """
    weighted = weight.unsqueeze(-1) * unit
    squares = torch.stack((weighted[..., 0] * unit[..., 0], weighted[..., 0] * unit[..., 1],
                           weighted[..., 1] * unit[..., 1]), dim=-1)  # fmt: skip
    return Sums(weight, weighted, squares, weight * residual_m, residual_m.unsqueeze(-1) * weighted)


def fuse(
    at: Innovations,
    report: Report,
    neutral: Report,
    fused: Tensor,
    common_clock: bool,
    max_step_m: float,
    least_reliability: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One Gauss-Newton step of the weighted least squares over the reports.

    Args:
        at: geometry and residuals.
        report, neutral: what the APs say, and what they would say with action 0.
        fused: [B, M, K] links that take part.
        common_clock: false eliminates a clock offset per UE (TDOA).
        max_step_m: longest step.
        least_reliability: unit of the ridge; links that are all thrown away give no step.

    Returns:
        Step [B, K, 2] and change of the offset [B, K]; per AP, both had it acted neutrally: [B, M, K, 2], [B, M, K].
    """
    own, other = (sums(at.unit, each.weight * fused, each.residual_m) for each in (report, neutral))
    total = own.total()
    count = fused.sum(dim=1).clamp(min=1)
    mean_information = (report.information * fused).sum(dim=1) / count
    ridge = (RIDGE * least_reliability * mean_information).clamp(min=torch.finfo(total.w.dtype).tiny ** 0.5)
    step, offset = total.solve(common_clock, ridge)
    step_without, offset_without = total.exchanged(own, other).solve(common_clock, ridge.unsqueeze(1))
    return clamp_length(step, max_step_m), offset, clamp_length(step_without, max_step_m), offset_without


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
    xx, xy, yy = sums(vectors, weight, torch.zeros_like(weight)).total().wuu.unbind(dim=-1)
    return xx * yy - xy * xy > 1e-6 * (xx + yy).square()
