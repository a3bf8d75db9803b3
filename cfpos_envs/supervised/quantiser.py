"""Midrise quantisers of latent numbers and of link gains: from real numbers to codes of a fixed number of bits."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer
from scipy.optimize import minimize_scalar
from scipy.special import ndtr
from torch import Tensor, nn

LEAST_BITS, MOST_BITS = 1, 16
MOST_GAIN_BITS = 32
MOST_DELAY_BITS = 20
"""Cells of a millionth of a cycle; the estimate itself is no better."""


def check_bits(name: str, bits: object, least: int, most: int) -> None:
    """Refuse a number of bits that no code here can have.

    Raises:
        ValueError: not a whole number in [least, most].
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not least <= bits <= most:
        raise ValueError(f"{name}={bits!r} must be a whole number in [{least}, {most}].")


@functools.lru_cache(maxsize=MOST_BITS)
def gaussian_step(bits: int) -> float:
    """Step with which a midrise quantiser of 2^bits levels has the least mean squared error on N(0, 1) (Max 1960).

    Args:
        bits: Q in [1, 16].

    Raises:
        ValueError: Q outside that range.
    """
    check_bits("bits", bits, LEAST_BITS, MOST_BITS)
    # The edges lie between 1 and 8 standard deviations for every Q allowed.
    half = 2 ** (bits - 1)
    found = minimize_scalar(lambda edge: gaussian_distortion(bits, edge / half), bounds=(1.0, 8.0), method="bounded")
    return float(found.x) / half


def gaussian_distortion(bits: int, step: float) -> float:
    """Mean squared error E[(x - Q(x))^2] of the midrise quantiser (19) for x ~ N(0, 1), by its closed form.

    Args:
        bits: Q in [1, 16].
        step: Delta > 0.
    """
    low = step * np.arange(2 ** (bits - 1), dtype=float)
    high = np.append(low[1:], np.inf)
    level = low + step / 2
    density_low = np.exp(-(low**2) / 2) / math.sqrt(2 * math.pi)
    density_high = np.append(density_low[1:], 0.0)
    share = ndtr(-low) - ndtr(-high)
    high_term = np.append(high[:-1] * density_high[:-1], 0.0)
    second_moment = share + low * density_low - high_term
    return float(2 * np.sum(second_moment - 2 * level * (density_low - density_high) + level**2 * share))


def midrise_codes(values: Float[Tensor, "*batch"], step: float, bits: int) -> Integer[Tensor, "*batch"]:
    """Codes 0 ... 2^Q - 1 of the cells of equation (19): floor(y / Delta) + 2^(Q-1), clipped to the outermost cells.

    Args:
        values: y, any real numbers; NaN is refused where CSI enters, not here.
        step: Delta > 0.
        bits: Q in [1, 16].
    """
    half = 2 ** (bits - 1)
    # Clipped as floating-point numbers: a huge one would overflow the integer.
    return (torch.floor(values / step).clamp(-half, half - 1) + half).to(torch.int32)


def midrise_levels(codes: Integer[Tensor, "*batch"], step: float, bits: int) -> Float[Tensor, "*batch"]:
    """The level (k + 1/2) Delta of every code, k = code - 2^(Q-1): the other half of equation (19).

    Args:
        codes: 0 ... 2^Q - 1.
        step: Delta > 0.
        bits: Q in [1, 16].
    """
    return (codes.to(torch.float32) - 2 ** (bits - 1) + 0.5) * step


class _StraightThrough(torch.autograd.Function):
    """Equation (19) forwards, equation (35) backwards with A = 2^(Q-1) Delta, the outermost edge."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: float, bits: int) -> Tensor:
        ctx.save_for_backward(values.abs() <= 2 ** (bits - 1) * step)
        return midrise_levels(midrise_codes(values, step, bits), step, bits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None


def quantise(values: Float[Tensor, "*batch"], step: float, bits: int) -> Float[Tensor, "*batch"]:
    """Quantised values, equation (19), with the straight-through gradient of equation (35).

    Args:
        values: y.
        step: Delta > 0.
        bits: Q in [1, 16].
    """
    result: Tensor = _StraightThrough.apply(values, step, bits)
    return result


class LatentQuantiser(nn.Module):
    """Normalises the latent numbers of every BS by their running RMS, then quantises them with the Gaussian step.

    Trained encoders give latents of any scale; dividing by a known scale makes one step right for all. The scale is
    learned while training and frozen afterwards, so a BS and the CU agree on it without sending it.

    Args:
        num_bs: L.
        bits: Q in [1, 16]; None: the latents pass unquantised (the upper reference).
        momentum: weight of a new batch in the running mean square, in (0, 1].

    Attributes:
        mean_square: [L] running mean of z^2.
        step: Delta in units of the RMS.
    """

    mean_square: Tensor
    batches: Tensor

    def __init__(self, num_bs: int, bits: int | None, momentum: float = 0.02) -> None:
        super().__init__()
        self.bits, self.momentum = bits, momentum
        self.step = 0.0 if bits is None else gaussian_step(bits)
        self.register_buffer("mean_square", torch.ones(num_bs))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, latents: Float[Tensor, "L B D"]) -> Float[Tensor, "L B D"]:
        """What the CU decodes, with the gradient of equation (35)."""
        if self.training:
            self._follow(latents.detach())
        scaled = self.normalise(latents)
        return scaled if self.bits is None else quantise(scaled, self.step, self.bits)

    def normalise(self, latents: Float[Tensor, "L B D"]) -> Float[Tensor, "L B D"]:
        """Latents over the running RMS of their BS."""
        return latents.float() * torch.rsqrt(self.mean_square + 1e-12)[:, None, None]

    def codes(self, latents: Float[Tensor, "L B D"]) -> Integer[Tensor, "L B D"]:
        """The codes that go into the bitstream.

        Raises:
            ValueError: this quantiser passes everything and has no codes.
        """
        if self.bits is None:
            raise ValueError("latents that are not quantised have no bitstream; set bits to a number in [1, 16].")
        return midrise_codes(self.normalise(latents), self.step, self.bits)

    def levels(self, codes: Integer[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """What the CU makes of codes."""
        assert self.bits is not None
        return midrise_levels(codes, self.step, self.bits)

    def _follow(self, latents: Tensor) -> None:
        mean_square = latents.float().square().mean(dim=(1, 2))
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # Every process sees its own part of the batch, but all must divide by the same number.
            torch.distributed.all_reduce(mean_square)
            mean_square /= torch.distributed.get_world_size()
        # A running mean at first, so that nothing remembers the initial one.
        weight = torch.clamp(1.0 / (self.batches + 1), min=self.momentum)
        self.mean_square.lerp_(mean_square, weight)
        self.batches += 1


GAIN_RANGE = 4.0
"""Standardised log gains beyond +- this many deviations are sent as this."""


def gain_codes(log_gain: Float[Tensor, "*batch"], bits: int) -> Integer[Tensor, "*batch"]:
    """Codes 0 ... 2^B_g - 1 of a uniform quantiser over +- ``GAIN_RANGE``.

    Args:
        log_gain: standardised log10 gain.
        bits: B_g in [0, 32]; 0: no gain is sent, every code is 0.
    """
    cells = 2**bits
    position = (log_gain.double() + GAIN_RANGE) * (cells / (2 * GAIN_RANGE))
    return torch.floor(position).clamp(0, cells - 1).to(torch.int64)


def gain_levels(codes: Integer[Tensor, "*batch"], bits: int) -> Float[Tensor, "*batch"]:
    """The middles of the cells of ``gain_codes``; no gradient flows into a measurement."""
    return ((codes.double() + 0.5) * (2 * GAIN_RANGE / 2**bits) - GAIN_RANGE).float()


def cycle_codes(cycles: Float[Tensor, "*batch"], bits: int) -> Integer[Tensor, "*batch"]:
    """Codes 0 ... 2^B_d - 1 of a uniform quantiser over one cycle, in which the last cell borders on the first.

    Args:
        cycles: any numbers; whole cycles do not matter.
        bits: B_d in [1, ``MOST_DELAY_BITS``].
    """
    cells = 2**bits
    return torch.floor(cycles.double() * cells).remainder(cells).to(torch.int64)


def cycle_levels(codes: Integer[Tensor, "*batch"], bits: int) -> Float[Tensor, "*batch"]:
    """The middles of the cells of ``cycle_codes``, in (0, 1)."""
    return ((codes.double() + 0.5) / 2**bits).float()
