"""A user's clock that is off: what it does to autocorrelations, and what of them does not depend on it.

Delays are in cycles of the kept subcarriers' period, in [0, 1): with a spacing of 720 kHz one cycle is 1.39 us. Sampled
in frequency, CSI does not know delays any further.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.ecc.features import FREQUENCY_LAGS


def delayed(
    autocorrelation: Float[Tensor, "*batch 2 R M"], cycles: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 2 R M"]:
    """Autocorrelation of CSI whose every path comes later: r(i, j, m) exp(-j 2 pi m c).

    Args:
        autocorrelation: real and imaginary parts over antenna lags and ``frequency_lags``.
        cycles: c, by how much later, any number.
    """
    lags = torch.tensor(FREQUENCY_LAGS[: autocorrelation.shape[-1]], dtype=torch.float64, device=cycles.device)
    # Whole cycles go before single precision could lose the rest.
    turns = (cycles.double().unsqueeze(-1) * lags).remainder(1.0)
    phase = (-2 * math.pi * turns).to(autocorrelation.dtype).unsqueeze(-2)
    cosine, sine = phase.cos(), phase.sin()
    real, imaginary = autocorrelation.unbind(-3)
    return torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), dim=-3)


def mean_delay(autocorrelation: Float[Tensor, "*batch 2 R M"]) -> Float[Tensor, "*batch"]:
    """Mean delay of the power in cycles: minus the phase of r(0, 0, 1) over 2 pi.

    Paths count with their power; a common delay adds to it, whatever the paths are. Zeros have 0.

    Args:
        autocorrelation: as ``delayed`` takes it, with two lags or more; the antenna lag (0, 0) is the middle one.
    """
    real, imaginary = autocorrelation[..., autocorrelation.shape[-2] // 2, 1].unbind(-1)
    return (-torch.atan2(imaginary, real) / (2 * math.pi)).remainder(1.0)


def without_delay(autocorrelation: Float[Tensor, "*batch 2 R M"]) -> Float[Tensor, "*batch 2 R M"]:
    """Autocorrelation with its mean delay taken out: a clock that is off leaves it as it is."""
    return delayed(autocorrelation, -mean_delay(autocorrelation))


def delay_differences(
    cycles: Float[Tensor, "B L"], valid: Bool[Tensor, "B L"], num_lags: int
) -> Float[Tensor, "B L features"]:
    """Delays of all base stations beyond those of every other, as cos and sin of 2 pi m (c_l - c_k).

    A clock that is off is off at all of them, so that their differences do not know it. The lags m are those of the
    autocorrelation but 0: short ones tell apart, long ones resolve. All pairs, because one reference changes from user
    to user; that makes ``num_delay_differences`` numbers of each BS. Zeros where a link of a pair is not valid.

    Args:
        cycles: mean delays.
        valid: links that count.
        num_lags: of the autocorrelation, 2 or more.
    """
    lags = torch.tensor(FREQUENCY_LAGS[1:num_lags], dtype=cycles.dtype, device=cycles.device)
    phase = 2 * math.pi * (cycles.unsqueeze(-1) - cycles.unsqueeze(-2)).unsqueeze(-1) * lags
    both = (valid.unsqueeze(-1) & valid.unsqueeze(-2)).unsqueeze(-1)
    return (torch.cat((phase.cos(), phase.sin()), dim=-1) * both).flatten(2)


def num_delay_differences(num_bs: int, num_lags: int) -> int:
    """Numbers that ``delay_differences`` has of each of L base stations: 2 L (lags - 1)."""
    return 2 * num_bs * (num_lags - 1)
