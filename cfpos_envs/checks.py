"""What an option may be: the checks of all config dataclasses. Every refusal is one line that names the option."""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Collection, Iterable

ON_BAD = ("refuse", "drop")
"""What happens to measurements that cannot be right: a message, or they are left out and counted."""
MOST_ENVS = 1 << 24
"""Most parallel episodes."""
MOST_STEPS = 10**15
"""Longest run, in steps or samples."""
MOST_THREADS = 4096
MOST_WIDTH = 1 << 16
"""Widest hidden layer."""
SEEDS = (-(2**63), 2**63 - 1)
"""Seeds that every generator can be given."""
MOST_NUMBERS = 1 << 32
"""Most numbers of one kind, 16 GiB in single precision, that options may ask for."""

_MOST_SHOWN = 80
_FIRST_PRINTED = 32


class Notice(UserWarning):
    """What whoever starts a command should know; commands show it as one line."""


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


def shown(value: object) -> str:
    """A value as messages show it: on one line, not longer than a line."""
    try:
        said = repr(value)
    except ValueError:  # whole numbers of thousands of digits
        said = "a number of thousands of digits"
    said = " ".join(said.split())
    return said if len(said) <= _MOST_SHOWN else f"{said[: _MOST_SHOWN - 3]}..."


def one_of(name: str, value: object, allowed: Collection[str]) -> None:
    """Refuse what is not on the list.

    Raises:
        ValueError: naming the nearest allowed value.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}={shown(value)} is not one of {', '.join(allowed)}{nearest(value, allowed)}")


def text(name: str, value: object) -> None:
    """ValueError unless ``value`` is text (or a path) without line breaks and other control characters."""
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"{name}={shown(value)} must be text")
    if any(ord(letter) < _FIRST_PRINTED for letter in str(value)):
        raise ValueError(f"{name}={shown(value)} must be text without control characters")


def switch(name: str, value: object) -> None:
    """ValueError unless ``value`` is true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={shown(value)} is not a switch; use true or false.")


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
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    if not fits or (finite and abs(value) == math.inf):  # type: ignore[arg-type]
        said = f"must be a {'finite ' if finite else ''}number"
        raise ValueError(f"{name}={shown(value)} {said}{_range_text(least, most)}")
    _check_range(name, value, least, most, above)  # type: ignore[arg-type]
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        raise ValueError(f"{name}={shown(value)} is beyond what a computer calls a number") from None


def whole(name: str, value: object, least: float = -math.inf, most: float = math.inf) -> int:
    """A whole number in [least, most].

    Raises:
        ValueError: naming the option.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={shown(value)} must be a whole number{_range_text(least, most)}")
    _check_range(name, value, least, most, False)
    return value


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


def fits(what: str, count: float, options: str) -> None:
    """Refuse sizes that need more memory than is sensible, before any of it is taken.

    Args:
        what: would be so large.
        count: of numbers in it.
        options: that decide it, with their values.

    Raises:
        ValueError: more than ``MOST_NUMBERS``.
    """
    if count > MOST_NUMBERS:
        raise ValueError(
            f"{options}: {what} would hold {count:.3g} numbers; at most {MOST_NUMBERS:.3g} (16 GiB) are allowed, lower "
            "one of them"
        )


def _check_range(name: str, value: float, least: float, most: float, above: bool) -> None:
    if value < least or (above and value == least):
        wanted = f"{'above' if above else 'at least'} {least:g}"
    elif value > most:
        wanted = f"at most {most:g}"
    else:
        return
    raise ValueError(f"{name}={shown(value)} must be {wanted}{_range_text(least, most)}")


def _range_text(least: float, most: float) -> str:
    """`` (from 1 to 64)``: the whole range, where both ends are said."""
    return f" (from {least:g} to {most:g})" if math.isfinite(least) and math.isfinite(most) else ""
