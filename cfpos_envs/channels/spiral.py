"""A spiral to the top of a scene: the way of a tracked user."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

SPIRAL_RADIUS_M = 6.0
SPIRAL_TURNS = 3.0


def spiral(
    centre_m: Float[Tensor, "*batch 2"], start_rad: Float[Tensor, "*batch"], low_m: float, high_m: float, moments: int
) -> Float[Tensor, "*batch S 3"]:
    """Points of three turns of 6 m radius around a vertical axis, climbing evenly from low to high.

    Args:
        centre_m: the axis.
        start_rad: direction of the first point.
        low_m, high_m: heights of first and last point.
        moments: S, equally spaced.
    """
    share = torch.linspace(0.0, 1.0, moments, dtype=centre_m.dtype, device=centre_m.device)
    angle = start_rad.unsqueeze(-1) + 2 * math.pi * SPIRAL_TURNS * share
    around = SPIRAL_RADIUS_M * torch.stack((angle.cos(), angle.sin()), dim=-1) + centre_m.unsqueeze(-2)
    height = (low_m + (high_m - low_m) * share).expand(angle.shape).unsqueeze(-1)
    return torch.cat((around, height), dim=-1)
