"""From random words to uniform, normal and gamma numbers, in arithmetic that native/random.cpp repeats bit for bit.

Only additions, products, quotients, square roots and conversions, each rounded by itself; logarithm and sine are
polynomials of these. Numbers in double precision, which nothing compiled needs, use torch's functions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from torch import Tensor

_SIGN, _QUARTER = 0x80000000, 0x40000000
# ln(1 + f) / f - 1 over f in [sqrt(1/2) - 1, sqrt(2) - 1] and sin(x) / x - 1 over x^2 <= (pi / 2)^2: ``log_of`` and
# ``sin_of`` of native/lanes.hpp, highest power first.
_LOG = (
    -0.07824257761, 0.13003943861, -0.13207955658, 0.14163585007, -0.16611279547, 0.20003011823, -0.25001513958,
    0.33333307505, -0.49999988079,
)  # fmt: skip
_SINE = (2.60522484e-6, -1.9809075457e-4, 8.3330506459e-3, -0.16666658222)
_LN_2 = 0.69314718056
_PER_TURN = 3.14159265358979 / 2147483648.0


def uniform32(word: Int[Tensor, "*batch"]) -> Float32[Tensor, "*batch"]:
    """Multiples of 2^-24 in [0, 1)."""
    return (word >> 8).to(torch.float32) * 2.0**-24


def uniform64(low: Int[Tensor, "*batch"], high: Int[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
    """Multiples of 2^-53 in [0, 1) of two words."""
    return (((high >> 5) << 26) | (low >> 6)).to(torch.float64) * 2.0**-53


def normal32(u: Int[Tensor, "*batch"], v: Int[Tensor, "*batch"]) -> tuple[Tensor, Tensor]:
    """Two independent normal numbers of two words: sqrt(-2 ln u) (cos 2 pi v, sin 2 pi v), Box and Muller (1958)."""
    share = ((u >> 1).to(torch.float32) + 0.5) * 2.0**-31
    size = _root(_log32(share) * -2.0)
    return size * _sine_of_turn(v + _QUARTER), size * _sine_of_turn(v)


def normal64(words: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Two independent normal numbers in double precision of four words."""
    share = uniform64(words[0], words[1]) + 2.0**-54
    size, angle = _root(-2.0 * torch.log(share)), 2 * math.pi * uniform64(words[2], words[3])
    return size * torch.cos(angle), size * torch.sin(angle)


def propose_gamma(
    shape: Float64[Tensor, "*batch"], normal: Float32[Tensor, "*batch"], word: Int[Tensor, "*batch"]
) -> tuple[Float64[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
    """One proposal for a gamma number and whether it is taken: d v with d = shape - 1/3 and v = (1 + x / sqrt(9 d))^3.

    Source: G. Marsaglia and W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26, 2000.

    Args:
        shape: at least 1.
        normal: x.
        word: decides.
    """
    d, x = shape - 1.0 / 3.0, normal.double()
    root = 1.0 + x * (1.0 / _root(9.0 * d))
    inside = root > 0.0
    v = torch.where(inside, root * root * root, 1.0)
    limit = 0.5 * (x * x) + d * ((1.0 - v) + _log64(v))
    return d * v, inside & (_log64(open_uniform(word)) < limit)


def boost(shape: Float64[Tensor, "*batch"], word: Int[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
    """u^(1 / shape), which makes a gamma number of shape + 1 one of a shape below 1; the exponential is torch's."""
    return torch.exp(_log64(open_uniform(word)) / shape)


def open_uniform(word: Int[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
    """In (0, 1), double precision."""
    return (word.double() + 0.5) * 2.0**-32


def _root(x: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Square root, correctly rounded, which ``torch.sqrt`` on a processor is not in its last bit."""
    return torch.from_numpy(np.sqrt(x.numpy())) if x.device.type == "cpu" else torch.sqrt(x)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value


def _log32(x: Float32[Tensor, "*batch"]) -> Float32[Tensor, "*batch"]:
    bits = x.view(torch.int32)
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).view(torch.float32) - 1.0
    return exponent.to(torch.float32) * _LN_2 + (f + f * f * _polynomial(_LOG, f))


def _sine_of_turn(turn: Int[Tensor, "*batch"]) -> Float32[Tensor, "*batch"]:
    """sin(2 pi turn / 2^32); the angle is folded into +- pi / 2 as a whole number."""
    turned = (turn + _QUARTER) & _SIGN
    folded = torch.where(turned != 0, _SIGN - turn, turn) & 0xFFFFFFFF
    x = (folded - ((folded & _SIGN) << 1)).to(torch.float32) * torch.tensor(_PER_TURN, dtype=torch.float32)
    t = x * x
    return x + x * t * _polynomial(_SINE, t)


def _log64(x: Float[Tensor, "*batch"]) -> Float64[Tensor, "*batch"]:
    """2^e m with m in [sqrt(1/2), sqrt(2)): ln m = 2 artanh s, s = (m - 1) / (m + 1), by its series up to s^21 / 21."""
    bits = x.view(torch.int64)
    exponent = (bits - 0x3FE6A09E667F3BCD) >> 52
    f = (bits - (exponent << 52)).view(torch.float64) - 1.0
    s = f / (2.0 + f)
    series = _polynomial(tuple(1.0 / n for n in range(21, 0, -2)), s * s)
    return exponent.double() * 0.6931471805599453 + 2.0 * s * series
