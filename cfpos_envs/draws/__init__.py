"""Random numbers for games: from a running ``torch.Generator``, or from a counter, where every episode has its own.

Whatever draws takes a ``Source`` and calls the functions here. A ``torch.Generator`` answers as torch does, number for
number. A ``CounterSource`` (``rng=counter``) computes each number from seed, stream, episode and place: an episode is
the same alone and in any batch, with any number of threads, compiled or not.
"""

from cfpos_envs.draws.counter import CounterSource
from cfpos_envs.draws.sampling import (
    Source,
    complex_normal,
    gamma,
    in_turn,
    inner,
    inner_gamma,
    integers,
    normal,
    normal_pair,
    permutation,
    tries,
    uniform,
)

__all__ = [
    "CounterSource",
    "Source",
    "complex_normal",
    "gamma",
    "in_turn",
    "inner",
    "inner_gamma",
    "integers",
    "normal",
    "normal_pair",
    "permutation",
    "tries",
    "uniform",
]
