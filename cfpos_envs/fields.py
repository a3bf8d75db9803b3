"""Config dataclasses that say what their fields may be: types by annotation, limits of numbers, allowed words.

A class declares ``ranges`` and ``choices``; ``check_fields`` refuses everything else when an object is made, before
anything is computed from it. The conformance tests fail for a number without a finite range.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from cfpos_envs.checks import number, one_of, shown, switch, text, whole

Range = tuple[float, float]
"""Lowest and highest allowed value, both included."""

MOST_ENTRIES = 4096
"""Longest list that an option may be."""


class Declared:
    """Base of config dataclasses: values are checked on construction by what the class and its parents declare.

    Attributes:
        ranges: limits of numbers by field, both included; those of entries where the field is a list.
        choices: allowed words by field.

    Raises:
        ValueError: a value of another type or outside its range, named with the range.
    """

    ranges: ClassVar[Mapping[str, Range]] = {}
    choices: ClassVar[Mapping[str, Collection[str]]] = {}

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def all_ranges(cls) -> dict[str, Range]:
        """``ranges`` of the class and of its parents by name."""
        return gathered(cls, "ranges")


def gathered(cls: type, attribute: str) -> dict[str, Any]:
    """A mapping that a class and its parents declare under one name, the nearest class first."""
    found: dict[str, Any] = {}
    for parent in reversed(cls.__mro__):
        found.update(vars(parent).get(attribute, {}))
    return found


def check_fields(owner: Any, also: type | None = None) -> dict[str, Any]:
    """Every field of a config dataclass against its annotation, range and words.

    Args:
        owner: the config.
        also: another class whose limits and words hold for fields that are called like its own.

    Returns:
        The values by name, whole numbers in fields of floats as float.

    Raises:
        ValueError: the first that is not allowed: its name, what was given, what is allowed.
    """
    limits, words, hints = _declared(type(owner))
    if also is not None:
        more = _declared(also)
        limits, words = {**more[0], **limits}, {**more[1], **words}
    return {
        name: checked(name, getattr(owner, name), hint, limits.get(name), words.get(name))
        for name, hint in hints.items()
    }


def checked(name: str, value: Any, hint: Any, limits: Range | None, words: Collection[str] | None = None) -> Any:
    """One value against a type, with floats where these are declared.

    Args:
        name: of the option.
        value: what was given.
        hint: declared type.
        limits: of numbers; None: none.
        words: allowed words; None: any.

    Raises:
        ValueError: it does not fit.
    """
    kinds = [kind for kind in members(hint) if kind is not type(None)]
    if value is None and len(kinds) < len(members(hint)):
        return None
    kind = _nearest_kind(value, kinds)
    low, high = limits or (-float("inf"), float("inf"))
    origin = typing.get_origin(kind) or kind
    if kind is bool:
        switch(name, value)
    elif kind is int:
        return whole(name, value, low, high)
    elif kind is float:
        return number(name, value, low, high, finite=limits is None or high != float("inf"))
    elif kind is str or origin is os.PathLike:
        if words is not None:
            one_of(name, value, words)
        else:
            text(name, value)
    elif origin is typing.Literal:
        one_of(name, value, typing.get_args(kind))
    elif origin in (tuple, *_LISTS):
        return _checked_list(name, value, kind, limits, words)
    elif origin in _MAPPINGS and not isinstance(value, Mapping):
        raise ValueError(f"{name}={shown(value)} must be a mapping of names to values")
    return value


_LISTS = (collections.abc.Sequence, collections.abc.Collection, list)
_MAPPINGS = (collections.abc.Mapping, dict)


def members(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _nearest_kind(value: Any, kinds: Sequence[Any]) -> Any:
    """The member of a union that a value most looks like: messages then speak of that one."""
    if isinstance(value, (str, os.PathLike)):
        wanted: tuple[Any, ...] = (str, os.PathLike)
    elif isinstance(value, Mapping):
        wanted = _MAPPINGS
    elif isinstance(value, Collection):
        wanted = (tuple, *_LISTS)
    else:
        wanted = (bool,) if isinstance(value, bool) else (int, float)
    return next((kind for kind in kinds if (typing.get_origin(kind) or kind) in wanted), kinds[0])


def _checked_list(name: str, value: Any, kind: Any, limits: Range | None, words: Collection[str] | None) -> Any:
    inner = typing.get_args(kind) or (Any,)
    fixed = typing.get_origin(kind) is tuple and Ellipsis not in inner
    if inner[-1] is Ellipsis and isinstance(value, int):
        value = (value,)
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ValueError(f"{name}={shown(value)} must be a list")
    if len(value) > MOST_ENTRIES or (fixed and len(value) != len(inner)):
        allowed = f"{len(inner)}" if fixed else f"at most {MOST_ENTRIES}"
        raise ValueError(f"{name}={shown(value)} must be a list of {allowed} entries, not {len(value)}")
    return tuple(checked(name, entry, inner[0], limits, words) for entry in value)


_KNOWN: dict[type, tuple[dict[str, Range], dict[str, Collection[str]], dict[str, Any]]] = {}


def _declared(cls: type) -> tuple[dict[str, Range], dict[str, Collection[str]], dict[str, Any]]:
    if cls not in _KNOWN:
        hints = typing.get_type_hints(cls)
        names = [entry.name for entry in dataclasses.fields(cls)]
        _KNOWN[cls] = gathered(cls, "ranges"), gathered(cls, "choices"), {name: hints[name] for name in names}
    return _KNOWN[cls]
