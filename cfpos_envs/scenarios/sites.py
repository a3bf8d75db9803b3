"""The pool of sites that the episodes of one seed and split take turns on, whatever the game."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.streams import Streams


class SitePool:
    """The sites of one seed and split, each drawn when first asked for and always the same.

    Args:
        draw: makes site number ``index`` from the streams, which give every index its own numbers.
        streams: source of the seeds.
    """

    def __init__(self, draw: Callable[[Streams, int], Any], streams: Streams) -> None:
        self._draw = draw
        self._key = (streams.seed, streams.split)
        self._streams = Streams(streams.seed, streams.split, streams.device)
        self._sites: dict[int, Any] = {}

    def belongs_to(self, streams: Streams) -> bool:
        """Whether the pool was drawn from the same seed and split."""
        return self._key == (streams.seed, streams.split)

    def __getitem__(self, index: int) -> Any:
        """Site number ``index``."""
        if index not in self._sites:
            self._sites[index] = self._draw(self._streams, index)
        return self._sites[index]

    def stack(self, indices: Tensor, name: str) -> Tensor:
        """Attribute ``name`` of the site of every episode, [B, ...]."""
        unique, inverse = torch.unique(indices, return_inverse=True)
        return self.table(unique, name)[inverse]

    def table(self, indices: Tensor, name: str) -> Tensor:
        """Attribute ``name`` of some sites, [len(indices), ...]."""
        values = [torch.as_tensor(getattr(self[i], name), device=indices.device) for i in indices.tolist()]
        return torch.stack(values)
