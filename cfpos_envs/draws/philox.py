"""Philox4x32-10 in torch: four random 32-bit words from a 128-bit counter and a 64-bit key, no state.

Source: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC11,
2011.
"""

from __future__ import annotations

from jaxtyping import Int
from torch import Tensor

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF

Words = tuple[Tensor, Tensor, Tensor, Tensor]
"""Four words of every block, each an integer in [0, 2**32)."""


def philox(counter: Words, key: tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]) -> Words:
    """The block of every counter.

    Args:
        counter: four words in [0, 2**32), broadcast against each other.
        key: two words in [0, 2**32).

    Returns:
        Four words; 64-bit integers, for torch has no arithmetic of unsigned 32-bit ones.
    """
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(_ROUNDS):
        # The product wraps around; its bits are those of the unsigned one.
        p, q = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1 = ((q >> 32) & _MASK) ^ c1 ^ k0, q & _MASK
        c2, c3 = ((p >> 32) & _MASK) ^ c3 ^ k1, p & _MASK
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def halves(numbers: Int[Tensor, "*batch"]) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]:
    """Low and high word of 64-bit numbers."""
    return numbers & _MASK, (numbers >> 32) & _MASK
