"""Benchmark: direction and delay of one path, the clock taken to be right; its error is c times the clock bias."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .stage1 import ChannelEstimate
from .wls import PathFixes


def along_strongest_path(
    channels: ChannelEstimate, fixes: PathFixes, window_m: float
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3 3"]]:
    """Position p = s_l + t_l u_l for the path l of the largest gain, and its covariance.

    Args:
        channels: of stage 1.
        fixes: direction and pseudo-range of every path.
        window_m: delays are taken to lie in [0, window).
    """
    strength = torch.where(channels.present, channels.gains.abs(), -torch.inf)
    best = strength.argmax(dim=-1)
    rows = torch.arange(len(best), device=best.device)
    u, source = fixes.direction[rows, best], fixes.source_m[rows, best]
    delay = channels.parameters[rows, best, 4]
    first_hop = delay - fixes.pseudo_range_m[rows, best]
    r = torch.remainder(delay, window_m) - first_hop
    eye = torch.eye(3, dtype=u.dtype, device=u.device)
    outer = torch.cat((r[:, None, None] * eye, u.unsqueeze(-1)), dim=-1)
    covariance = outer @ fixes.covariance[rows, best] @ outer.mT
    return source + r.unsqueeze(-1) * u, covariance * channels.noise[:, None, None]
