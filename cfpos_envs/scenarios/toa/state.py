"""State of a time-based game and what can be read off it: residuals to a point, their scale, the first estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics import geometry
from cfpos_envs.physics.similarity import masked_mean, masked_median
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.scenarios.ap_game import ApState, judging_links

MAD_TO_STD = 1.48
"""Median absolute deviation to standard deviation of a Gaussian."""


@dataclass
class ToaState(ApState):
    """See ``ApState``; ``fused``: measured links that take part in fusion and broadcasts.

    Attributes:
        is_los [B, M, K]: hidden; used by ``truth`` (and for genies) alone.
        sequence_range_m, sequence_variance_m2, sequence_snr_db [B, T, M, K], sequence_features [B, T, M, K, 5],
            sequence_cfr [B, T, M, K, N, S] or None: measurements of all rounds.
        valid [B, M, K]: links that are measured.
        offset_m [B, K]: with the estimate for TDOA, the UE's clock offset in metres.
    """

    is_los: Tensor
    sequence_range_m: Tensor
    sequence_variance_m2: Tensor
    sequence_snr_db: Tensor
    sequence_features: Tensor
    sequence_cfr: Tensor | None
    valid: Tensor
    offset_m: Tensor

    @property
    def range_m(self) -> Tensor:
        """[B, M, K] this round's ranges."""
        return self.now(self.sequence_range_m)

    @property
    def std_m(self) -> Tensor:
        """[B, M, K] reported standard deviation of this round's ranges in line of sight."""
        return self.now(self.sequence_variance_m2).sqrt()

    @property
    def judges(self) -> Tensor:
        """[B, M, K] the links that judge the fused point: those left out or, where none is, all measured ones."""
        return judging_links(self.valid, self.fused)


@dataclass(frozen=True)
class RangeResiduals:
    """Measured minus predicted range at the consensus; every tensor [B, M, K] unless noted.

    Attributes:
        unit: [B, M, K, 2] gradient of the slant range by the ground position.
        slant_m: predicted slant range.
        residual_m: measured range minus slant range minus clock offset.
        std_m: reported standard deviation.
        scale_m: [B, 1, K] broadcast: scale of the residuals of the APs that take part (1.48 times their median size).
        z: residual over the reported standard deviation.
    """

    unit: Tensor
    slant_m: Tensor
    residual_m: Tensor
    std_m: Tensor
    scale_m: Tensor
    z: Tensor


def range_residuals(state: ToaState) -> RangeResiduals:
    """Residuals of every AP at the consensus, and their scale."""
    unit, slant = unit_vectors_to(state.ap_positions_m, state.height_diff_m, state.consensus_m)
    residual, std = state.range_m - slant - state.offset_m.unsqueeze(1), state.std_m
    size = masked_median(residual.abs().transpose(1, 2), state.fused.transpose(1, 2)).unsqueeze(1)
    return RangeResiduals(unit, slant, residual, std, MAD_TO_STD * size, residual / std)


def median_offset_m(state: ToaState, points_m: Tensor) -> Tensor:
    """Clock offset [B, K], metres, that the fused APs see at points [B, K, 2]: median of range minus slant range."""
    _, slant = unit_vectors_to(state.ap_positions_m, state.height_diff_m, points_m)
    return masked_median((state.range_m - slant).transpose(1, 2), state.fused.transpose(1, 2))


def coarse_start_m(state: ToaState, side_m: float, points_per_side: int, common_clock: bool) -> Tensor:
    """[B, K, 2] point of a lattice with the smallest sum over the fused APs of log(1 + (residual / scale)^2).

    The scale is half the spacing of the lattice or the reported standard deviation, whichever is larger. Unlike least
    squares it is not carried away by a few ranges that are far too long.

    Args:
        state: with measurements and fused APs.
        side_m: side of the area.
        points_per_side: of the lattice.
        common_clock: false removes the median of the residuals first (TDOA).
    """
    spacing_m = side_m / points_per_side
    lattice = geometry.lattice(side_m, spacing_m).to(state.range_m.device)
    _, slant = unit_vectors_to(
        state.ap_positions_m, state.height_diff_m, lattice.expand(len(state.range_m), *lattice.shape)
    )
    scale = state.std_m.clamp(min=0.5 * spacing_m)
    costs = []
    for ue in range(state.range_m.shape[2]):  # one UE at a time keeps the [B, M, P] temporaries in cache
        residual, fused = state.range_m[:, :, ue, None] - slant, state.fused[:, :, ue, None]
        if not common_clock:
            offset = masked_median(residual.transpose(1, 2), fused.transpose(1, 2).expand_as(residual.transpose(1, 2)))
            residual = residual - offset.unsqueeze(1)
        costs.append((torch.log1p((residual / scale[:, :, ue, None]).square()) * fused).sum(dim=1))
    start = lattice[torch.stack(costs, dim=1).argmin(dim=-1)]
    # Where nothing was measured the centre is as good as any point.
    heard = state.fused.any(dim=1).unsqueeze(-1)
    return torch.where(heard, start, torch.full_like(start, side_m / 2))


def linear_start_m(state: ToaState, side_m: float, common_clock: bool) -> Tensor:
    """[B, K, 2] linearised weighted least squares: r^2 = |p - q|^2 + h^2 is linear in p, |p|^2 (and the clock offset).

    With ranges relative to the mean position of the APs, -2 q.p + R (+ 2 r o) = r^2 - |q|^2 - h^2 for the unknowns p,
    R = |p|^2 - o^2 and, without a common clock, the offset o. Ill-conditioned systems are solved by a ridge; the result
    is brought into the area.

    Args:
        state: with measurements and fused APs.
        side_m: side of the area.
        common_clock: false makes the offset one more unknown (TDOA).
    """
    centre = state.ap_positions_m.mean(dim=1, keepdim=True)
    q = (state.ap_positions_m - centre).double().unsqueeze(2).expand(-1, -1, state.range_m.shape[2], -1)
    r = state.range_m.double()
    columns = [-2 * q[..., 0], -2 * q[..., 1], torch.ones_like(r)]
    if not common_clock:
        # Pseudo-ranges are known up to a constant: subtracting their mean keeps the numbers small.
        fused = state.fused.transpose(1, 2)
        r = r - masked_mean(r.transpose(1, 2), fused).unsqueeze(1)
        columns.append(2 * r)
    design = torch.stack(columns, dim=-1) * state.fused.unsqueeze(-1)
    target = (r.square() - q.square().sum(dim=-1) - state.height_diff_m.double().square().unsqueeze(-1)) * state.fused
    design, target = design.transpose(1, 2), target.transpose(1, 2).unsqueeze(-1)
    # Columns of equal size, so that one ridge fits all.
    size = torch.linalg.vector_norm(design, dim=-2, keepdim=True).clamp(min=1e-12)
    scaled = design / size
    normal = scaled.mT @ scaled + 1e-9 * torch.eye(scaled.shape[-1], dtype=scaled.dtype, device=scaled.device)
    solution = torch.linalg.solve(normal, scaled.mT @ target) / size.mT
    return (solution[..., :2, 0].to(centre) + centre).clamp(0.0, side_m)
