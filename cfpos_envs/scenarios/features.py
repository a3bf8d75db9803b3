"""Tables of what agents see and do: they compute the observation, describe the spaces and tell games apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

ViewT = TypeVar("ViewT")


@dataclass(frozen=True)
class Row:
    """One line of a table of observation or action entries.

    Attributes:
        name: short name.
        meaning: what it is, with the unit before scaling.
        scale: value that maps to 1.
        size: number of consecutive entries.
    """

    name: str
    meaning: str
    scale: float = 1.0
    size: int = 1


@dataclass(frozen=True)
class Feature(Generic[ViewT]):
    """Consecutive entries of an observation and how they are computed: compute(view) / scale, clipped to [-1, 1].

    Attributes:
        name, meaning, scale, size: see ``Row``.
        compute: from what the game calls its view, to a tensor that broadcasts to [...]; [..., size] with ``size`` > 1.
    """

    name: str
    meaning: str
    compute: Callable[[ViewT], Tensor]
    scale: float = 1.0
    size: int = 1

    @property
    def row(self) -> Row:
        """Its line of the table."""
        return Row(self.name, self.meaning, self.scale, self.size)


def rows(features: Sequence[Feature[ViewT]]) -> tuple[Row, ...]:
    """The table of some features."""
    return tuple(feature.row for feature in features)


def width(table: Sequence[Row | Feature[ViewT]]) -> int:
    """Number of entries of a table."""
    return sum(row.size for row in table)


def evaluate(features: Sequence[Feature[ViewT]], view: ViewT, shape: Sequence[int]) -> Tensor:
    """Entries [*shape, F] float32 in [-1, 1] of all features, one after another.

    Args:
        features: the table.
        view: what the features are computed from.
        shape: leading dimensions, e.g. (B, M, K).

    Raises:
        ValueError: a feature computes another number of entries than its table says.
    """
    columns = []
    for feature in features:
        value = feature.compute(view)
        if value.ndim <= len(shape):
            value = value.unsqueeze(-1)
        if value.shape[-1] != feature.size:
            raise ValueError(
                f"feature {feature.name!r} has {value.shape[-1]} entries, its table says {feature.size}; set its size"
            )
        columns.append((value if feature.scale == 1.0 else value / feature.scale).expand(*shape, feature.size))
    return torch.cat(columns, dim=-1).to(torch.float32).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Words:
    """What a game adds to the tables of its spaces.

    Attributes:
        title: lines on what is measured and by whom.
        agent: what one agent is called: "AP", "UE", "surface".
        reward: what a reward is.
        closing: further lines: start, fusion, end of the episode.
    """

    title: tuple[str, ...]
    agent: str = "agent"
    reward: str = ""
    closing: tuple[str, ...] = ()


def describe(words: Words, observation: Sequence[Row], action: Sequence[Row], count: int | None = None) -> str:
    """Plain-text tables of one agent's observation and action, its reward, and the game's own words.

    Args:
        words: the latter.
        observation, action: tables of one part.
        count: parts per agent, one per user; None where an agent's vectors do not split.
    """
    lines = [
        *words.title,
        "",
        f"Observation of every {words.agent}: {_parts(count)}{width(observation)} entries, float32, each the value",
        "below divided by its scale and clipped to [-1, 1].",
        *_table(observation, "meaning (unit before scaling)"),
        "",
        f"Action of every {words.agent}: {_parts(count)}{width(action)} entries in [-1, 1].",
        *_table(action, "meaning"),
    ]
    if words.reward:
        lines += ["", f"Reward of every {words.agent}, every round: {words.reward}"]
    return "\n".join([*lines, *words.closing])


def _parts(count: int | None) -> str:
    return "" if count is None else f"{count} parts (one per user) of "


def _table(table: Sequence[Row], meaning: str) -> list[str]:
    """Heading and one line per row; the column of scales is left out where all are 1."""
    longest = max((len(row.name) for row in table), default=4)
    has_scales = any(row.scale != 1.0 for row in table)
    lines = [f"{'entry':>9}  {'name':<{longest}}  {'scale   ' if has_scales else ''}{meaning}"]
    first = 0
    for row in table:
        span = f"{first}" if row.size == 1 else f"{first}-{first + row.size - 1}"
        scale = f"{row.scale:>6.3g}  " if has_scales else ""
        lines.append(f"{span:>9}  {row.name:<{longest}}  {scale}{row.meaning}")
        first += row.size
    return lines
