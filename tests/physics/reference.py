"""Helpers of the tests of all physics."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def wrap_angle(angle_rad: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The same direction in [-pi, pi)."""
    return torch.remainder(angle_rad + math.pi, 2 * math.pi) - math.pi
