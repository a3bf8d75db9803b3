"""What an access point knows of its own offsets: residuals of many users, of this drop and of those before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.robust import student_weight
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.state import DcpState

FADING = 0.5
"""What a drop weighs of what the next one does where faults may drift."""

_SWEEPS = 3


@dataclass(frozen=True)
class Offset:
    """Robust mean of one AP's residuals of one kind, in the unit of the residuals.

    Attributes:
        mean: where they lie.
        error: standard deviation of that if the residuals were Gaussian with their stated ones.
        spread: root mean square distance from the mean, in stated standard deviations.
    """

    mean: Float[Tensor, "B M 1"]
    error: Float[Tensor, "B M 1"]
    spread: Float[Tensor, "B M 1"]


def residuals(config: DcpConfig, state: DcpState) -> Float[Tensor, "B M K 4"]:
    """RSS residual (dB), its standard deviation, bearing residual (rad), its standard deviation at the joint estimate.

    An AP needs its own measurements and the broadcast estimate for them, whether it takes part in the fusion or not.
    """
    at = state.at_consensus(config)
    found = torch.broadcast_tensors(at.rss_db, at.rss_scale_db, at.bearing_rad, at.bearing_scale_rad)
    return torch.stack(found, dim=-1).detach()


def nothing(state: DcpState, drops: int) -> Float[Tensor, "B D M K 4"]:
    """Residuals of ``drops`` drops that have not been played: of no weight."""
    empty = torch.tensor([0.0, math.inf, 0.0, math.inf], device=state.round.device)
    return empty.expand(len(state.round), drops, *state.bearing_rad.shape[1:], 4).clone()


@dataclass(frozen=True)
class Offsets:
    """Of RSS, dB, and of bearings, rad."""

    rss: Offset
    bearing: Offset


def offsets(config: DcpConfig, state: DcpState, fading: float = 1.0) -> Offsets:
    """Offsets of every AP over its users, with ``memory=site`` over those of earlier drops too.

    Args:
        config, state: of the game.
        fading: what a drop weighs of what the next one does, above 0 and at most 1.
    """
    known = residuals(config, state)
    if state.past is not None:
        assert state.drop is not None
        # [B, D - 1], 0 for drops to come, which have no weight anyhow.
        age = (state.drop.unsqueeze(1) - torch.arange(state.past.shape[1], device=known.device)).clamp(min=0)
        longer = fading ** (-0.5 * age.to(known.dtype))
        past = state.past * torch.stack((torch.ones_like(longer), longer) * 2, dim=-1)[:, :, None, None]
        known = torch.cat((past.permute(0, 2, 1, 3, 4).flatten(2, 3), known), dim=2)
    rss_db, rss_std_db, bearing_rad, bearing_std_rad = known.movedim(-1, 0).contiguous()
    return Offsets(robust_offset(rss_db, rss_std_db), robust_offset(bearing_rad, bearing_std_rad))


def robust_offset(values: Float[Tensor, "B M N"], std: Float[Tensor, "B M N"]) -> Offset:
    """Location of residuals with Student-t errors by iteratively reweighted least squares from their median.

    Args:
        values: residuals.
        std: their standard deviations, infinite for those that do not count.
    """
    given = torch.isfinite(std)
    precision = std.square().reciprocal()
    mean = torch.where(given, values, math.nan).nanmedian(dim=-1, keepdim=True).values
    for _ in range(_SWEEPS):
        weight = precision * student_weight((values - mean) / std)
        mean = (weight * values).sum(dim=-1, keepdim=True) / weight.sum(dim=-1, keepdim=True)
    square = torch.where(given, ((values - mean) / std).square(), 0.0)
    share = given * student_weight(square.sqrt())
    return Offset(
        mean,
        precision.sum(dim=-1, keepdim=True).rsqrt(),
        ((share * square).sum(dim=-1, keepdim=True) / share.sum(dim=-1, keepdim=True)).sqrt(),
    )
