"""What an option may be: the checks of all config dataclasses. Every refusal is one line that names the option."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable

ON_BAD = ("refuse", "drop")
"""What happens to measurements that cannot be right: a message, or they are left out and counted."""


def nearest(name: object, allowed: Iterable[str], form: str = "; {}") -> str:
    """``; did you mean a or b?``: the hint in every message about an unknown name; empty if nothing is near.

    Args:
        name: what was given.
        allowed: valid names, of which at most three are shown, the nearest first.
        form: how the hint joins the rest of the message.
    """
    near = difflib.get_close_matches(str(name), list(allowed), n=3, cutoff=0.5)
    return form.format(f"did you mean {' or '.join(near)}?") if near else ""


def unknown_name(
    kind: str, name: object, allowed: Iterable[str], listed: str = "Valid", also: Collection[str] = ()
) -> str:
    """One line for an unknown name: what is wrong, what is near, what is allowed.

    Args:
        kind: what the name is of.
        name: what was given.
        allowed: valid names, which the message lists.
        listed: how it calls them.
        also: further names that the hint may show.
    """
    names = sorted(allowed)
    hint = nearest(name, [*names, *also])
    return f"unknown {kind} {name!r}{hint or '.'} {listed}: {', '.join(names)}"


def one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Refuse what is not on the list.

    Raises:
        ValueError: naming the nearest allowed value.
    """
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}{nearest(value, allowed)}")


def switch(name: str, value: object) -> None:
    """ValueError unless ``value`` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} is not a switch; use true or false.")


def number(
    name: str, value: object, least: float = -math.inf, most: float = math.inf, above: bool = False, finite: bool = True
) -> float:
    """A number in [least, most], as float.

    Args:
        name: of the option.
        value: what was given.
        least, most: allowed range, both ends included.
        above: ``least`` itself is refused.
        finite: infinity is refused.

    Raises:
        ValueError: no number, or out of range.
    """
    wrong = isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value)
    if wrong or (finite and math.isinf(value)):  # type: ignore[arg-type]
        raise ValueError(f"{name}={value!r} must be a {'finite ' if finite else ''}number")
    _check_range(name, value, least, most, above)  # type: ignore[arg-type]
    return float(value)  # type: ignore[arg-type]


def whole(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> int:
    """A whole number in [least, most].

    Raises:
        ValueError: naming the option.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r} must be a whole number")
    _check_range(name, value, least, most, False)
    return value


def widths(name: str, value: object) -> tuple[int, ...]:
    """Widths of hidden layers as a tuple.

    Raises:
        ValueError: anything but whole numbers of at least 1.
    """
    listed = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    if any(not isinstance(width, int) or width < 1 for width in listed):
        raise ValueError(f"{name}={value!r} must be whole numbers of units >= 1, e.g. [64, 64].")
    return listed


def whole_fields(owner: object, least: float, *names: str) -> None:
    """``whole`` on fields of a config.

    Raises:
        ValueError: naming the first that is refused.
    """
    for name in names:
        whole(name, getattr(owner, name), least)


def number_fields(owner: object, least: float, most: float, *names: str, above: bool = False) -> None:
    """``number`` on fields of a config; None is allowed.

    Raises:
        ValueError: naming the first that is refused.
    """
    for name in names:
        value = getattr(owner, name)
        if value is not None:
            number(name, value, least, most, above)


def _check_range(name: str, value: float, least: float, most: float, above: bool) -> None:
    if value < least or (above and value == least):
        raise ValueError(f"{name}={value} must be {'above' if above else 'at least'} {least:g}")
    if value > most:
        raise ValueError(f"{name}={value} must be at most {most:g}")
