"""Working through a large batch in parts whose temporaries stay in a core's cache, and in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Floats of one temporary at a time; on other devices only memory bounds it.
_CACHE_FLOATS = 1 << 16
_MEMORY_FLOATS = 1 << 26


def chunk_rows(floats_per_row: int, device: torch.device) -> int:
    """Rows of a batch to work on at a time, at least 1."""
    return max(1, (_CACHE_FLOATS if device.type == "cpu" else _MEMORY_FLOATS) // max(1, floats_per_row))


def by_chunks(function: Callable[..., Tensor], rows: int, *arguments: Tensor | None) -> Tensor:
    """``function(*arguments)`` for ``rows`` entries of the first dimension at a time, results one after another.

    Args:
        function: row by row: its result for some rows is part of its result for all.
        rows: entries at a time.
        arguments: equal first dimensions; None is passed on.
    """
    total = next(len(argument) for argument in arguments if argument is not None)
    if total <= rows:
        return function(*arguments)
    parts = [
        function(*(None if argument is None else argument[first : first + rows] for argument in arguments))
        for first in range(0, total, rows)
    ]
    return torch.cat(parts)
