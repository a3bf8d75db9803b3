"""The compiled twin of the counter's arithmetic, where there is one."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from cfpos_envs.native.build import address, library_if_any

_KINDS = ("words", "uniform", "normal", "gamma")


def draw(
    kind: str, keys: Tensor, episodes: Tensor, first: int, count: int, shapes: Tensor | None = None
) -> Tensor | None:
    """[rows, count] numbers of blocks from ``first`` on, or None where torch has to compute them.

    Args:
        kind: ``words`` (as signed integers), ``uniform``, ``normal`` or ``gamma``.
        keys, episodes: [rows] of the streams.
        first: block.
        count: numbers per row.
        shapes: [rows, count] float32, of gamma numbers.
    """
    if keys.device.type != "cpu":
        return None
    functions = library_if_any()
    if functions is None:
        return None
    out = torch.empty(len(keys), count, dtype=torch.int32 if kind == "words" else torch.float32)
    keys, episodes = keys.contiguous(), episodes.contiguous()
    functions.cfpos_draw(
        _KINDS.index(kind),
        address(keys),
        address(episodes),
        *(ctypes.c_int64(number) for number in (len(keys), first, count)),
        None if shapes is None else address(shapes),
        address(out),
        torch.get_num_threads(),
    )
    return out
