"""Values for options, drawn from what a config dataclass declares: right, at the border, wrong."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from cfpos_envs.fields import Range, gathered, members
from cfpos_envs.scenarios.site_config import SiteOptions

_MODERATE = 24
"""Right whole numbers are drawn up to this, or a little above the default: games that can be played."""
_WRONG: tuple[Any, ...] = (
    *(None, True, math.nan, math.inf, -math.inf, -1, 0, 1e300, -1e300, 10**30, 2**63, -(2**31), "", "x", "nan"),
    *("\x00", "a\nb", "\N{SNOWMAN}" * 3, b"bytes", 1 + 2j, Path("nowhere")),
    *((), [], [None], [math.nan], [[]], [1, "2"], {}, {"preset": None}, {"x": math.nan}),
)


@dataclasses.dataclass(frozen=True)
class Option:
    """A field of a config: its type, limits, words and default."""

    name: str
    hint: Any
    limits: Range | None
    words: tuple[str, ...]
    default: Any


def options_of(config: Any, without: Collection[str] = ()) -> list[Option]:
    """The options of a config; those of a site too where it has one."""
    ranges, choices = gathered(type(config), "ranges"), gathered(type(config), "choices")
    if isinstance(config, SiteOptions):
        ranges = {**gathered(type(config.settings), "ranges"), **ranges}
        choices = {**gathered(type(config.settings), "choices"), **choices}
    hints = typing.get_type_hints(type(config))
    return [
        Option(entry.name, hints[entry.name], ranges.get(entry.name), tuple(choices.get(entry.name, ())), default)
        for entry in dataclasses.fields(config)
        if entry.name not in without
        for default in [getattr(config, entry.name)]
    ]


def values(option: Option) -> st.SearchStrategy[Any]:
    """Anything for an option, right half of the time."""
    return st.one_of(right(option), right(option), st.sampled_from(_WRONG), _beside(option))


def changes(options: list[Option], most: int = 3) -> st.SearchStrategy[dict[str, Any]]:
    """Values for one to ``most`` options by name."""
    one = st.sampled_from(options).flatmap(lambda option: st.tuples(st.just(option.name), values(option)))
    return st.lists(one, min_size=1, max_size=most).map(dict)


def right(option: Option) -> st.SearchStrategy[Any]:
    """What the class allows, as far as it says."""
    kinds = [_of_kind(kind, option) for kind in members(option.hint)]
    return st.one_of(*kinds)


def _of_kind(kind: Any, option: Option) -> st.SearchStrategy[Any]:
    low, high = option.limits or (-1e3, 1e3)
    origin = typing.get_origin(kind) or kind
    if kind is type(None):
        return st.none()
    if kind is bool:
        return st.booleans()
    if kind is int:
        usual = option.default if isinstance(option.default, int) else 1
        least, most = math.ceil(low), math.floor(min(high, max(_MODERATE, usual + 4, low + 4)))
        return st.integers(least, max(least, most))
    if kind is float:
        finite = st.floats(low, min(high, 1e300), allow_nan=False, width=64)
        middle = option.default if isinstance(option.default, float) else 1.0
        near = st.floats(0.25, 4.0).map(lambda factor: min(max(middle * factor, low), high))
        return st.one_of(near, near, finite, st.sampled_from([low, high]))
    if kind is str:
        return st.sampled_from(option.words or (str(option.default), "nowhere"))
    if origin in (tuple, list, collections.abc.Sequence, collections.abc.Collection):
        inner = [entry for entry in typing.get_args(kind) if entry is not Ellipsis] or [int]
        size = len(inner) if origin is tuple and Ellipsis not in typing.get_args(kind) else None
        return st.lists(_of_kind(inner[0], option), min_size=size or 0, max_size=size or 4)
    if issubclass(origin, Mapping):
        return st.dictionaries(st.sampled_from(["preset", "num_aps", "side_m", "x"]), st.integers(-1, 30), max_size=2)
    return st.just(option.default)


def _beside(option: Option) -> st.SearchStrategy[Any]:
    """Numbers at, just outside and far outside the limits."""
    if option.limits is None:
        return st.sampled_from(_WRONG)
    low, high = option.limits
    return st.sampled_from([low, high, low - 1, high + 1, low * 2 - high, high * 2, math.nextafter(high, math.inf)])
