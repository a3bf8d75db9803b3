"""Units and constants: the speed of light, dBm and watts, thermal noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def watts_to_dbm(power_w: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """10 log10(P / 1 mW)."""
    return 10.0 * torch.log10(power_w) + 30.0


def dbm_to_watts(power_dbm: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Inverse of ``watts_to_dbm``."""
    return torch.pow(10.0, (power_dbm - 30.0) / 10.0)


def thermal_noise_w(bandwidth_hz: float, noise_figure_db: float) -> float:
    """Noise power k T B at 290 K times the noise figure, watts."""
    return 1.380649e-23 * 290.0 * bandwidth_hz * 10 ** (noise_figure_db / 10)


SPEED_OF_LIGHT_M_S = 299_792_458.0
