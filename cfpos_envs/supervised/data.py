"""Labelled snapshots as the networks take them: features, gains, flags and positions of many users."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some snapshots.

    Attributes:
        features: what every BS's network sees, any shape per BS.
        log_gain: log10 of the link gain of equation (7), standardised per BS with the network's long-term averages.
        valid: the BS hears the user and its message arrives; what an invalid link holds means nothing.
        position_m: where the users are; zeros where unknown.
    """

    features: Float[Tensor, "B L ..."]
    log_gain: Float[Tensor, "B L"]
    valid: Bool[Tensor, "B L"]
    position_m: Float[Tensor, "B 3"]

    def __len__(self) -> int:
        return self.log_gain.shape[0]

    def replace(self, **changes: Tensor) -> Batch:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def select(self, index: slice | Tensor) -> Batch:
        """Some snapshots only."""
        return Batch(**{name: value[index] for name, value in self.__dict__.items()})

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return Batch(**{name: value.to(device) for name, value in self.__dict__.items()})


@dataclass(frozen=True)
class Pool:
    """Many snapshots, made once and drawn from in every step; features are kept as half-precision numbers.

    Attributes:
        features: [S, L, ...] as in ``Batch``, |values| < 65504.
        log_gain, valid, position_m: as in ``Batch``.
    """

    features: Float[Tensor, "S L ..."]
    log_gain: Float[Tensor, "S L"]
    valid: Bool[Tensor, "S L"]
    position_m: Float[Tensor, "S 3"]

    def __len__(self) -> int:
        return self.log_gain.shape[0]

    def batch(self, index: slice | Tensor) -> Batch:
        """Snapshots as full-precision numbers."""
        return Batch(self.features[index].float(), self.log_gain[index], self.valid[index], self.position_m[index])

    def split(self, count: int) -> tuple[Pool, Pool]:
        """All but the last ``count`` snapshots, and those.

        Raises:
            ValueError: fewer snapshots than that.
        """
        if not 0 < count < len(self):
            raise ValueError(f"cannot set {count} of {len(self)} snapshots aside; make a larger pool.")
        return self._part(slice(0, len(self) - count)), self._part(slice(len(self) - count, None))

    def first(self, count: int) -> Pool:
        """The first snapshots."""
        return self._part(slice(0, count))

    def select(self, index: Tensor) -> Pool:
        """Some snapshots only."""
        return self._part(index)

    def _part(self, index: slice | Tensor) -> Pool:
        return Pool(**{name: value[index] for name, value in self.__dict__.items()})


def check_batch(batch: Batch, wanted: tuple[int, ...]) -> None:
    """ValueError unless features have the shape that a network takes, and gains and flags that of the features.

    Args:
        batch: of any shapes.
        wanted: base stations, channels, rows, columns.
    """
    shape = tuple(batch.features.shape)
    if shape[1:] != wanted:
        raise ValueError(
            f"features have shape {shape}, the network takes [snapshots, base stations, "
            f"channels, rows, columns] = [B, {', '.join(map(str, wanted))}]; use batch_of with the network's settings."
        )
    for name, value in (("log_gain", batch.log_gain), ("valid", batch.valid)):
        if tuple(value.shape) != shape[:2]:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}, with these features it must be {shape[:2]}: one per snapshot "
                "and base station."
            )


def joined(parts: list[Pool]) -> Pool:
    """One pool of several.

    Args:
        parts: at least one, with features of one shape.
    """
    return Pool(**{name: torch.cat([getattr(part, name) for part in parts]) for name in Pool.__dataclass_fields__})


def one_per_place(pool: Pool) -> Pool:
    """The first snapshot of every place, in the pool's order.

    Args:
        pool: in which places may come again.
    """
    _, first = np.unique(pool.position_m.cpu().numpy(), axis=0, return_index=True)
    return pool.select(torch.from_numpy(np.sort(first)))


def draw_arrivals(shape: tuple[int, int], probability: float, generator: torch.Generator) -> Tensor:
    """Which messages arrive: each is lost with ``probability``, but one of a snapshot always arrives.

    Args:
        shape: snapshots, base stations.
        probability: in [0, 1].
        generator: of the losses.
    """
    draws = torch.rand(*shape, generator=generator)
    kept = draws >= probability
    return kept | ((draws == draws.amax(dim=1, keepdim=True)) & ~kept.any(dim=1, keepdim=True))
