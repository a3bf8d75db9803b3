"""What an option of a game may be, for all config dataclasses; every refusal is one line that names the option."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Refuse what is not on the list.

    Raises:
        ValueError: naming the nearest allowed value.
    """
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}{hint}")


def whole(name: str, value: Any, least: int) -> None:
    """Refuse what is no whole number of at least ``least``.

    Raises:
        ValueError: naming the option.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name}={value!r} must be a whole number")
    if value < least:
        raise ValueError(f"{name}={value} must be at least {least}")


def whole_fields(owner: Any, least: int, *names: str) -> None:
    """``whole`` on fields of a config.

    Raises:
        ValueError: naming the first that is refused.
    """
    for name in names:
        whole(name, getattr(owner, name), least)


def number_fields(owner: Any, least: float, most: float, *names: str, above: bool = False) -> None:
    """Refuse fields that are neither None nor finite numbers in [least, most]; ``above``: least itself neither.

    Raises:
        ValueError: naming the first that is refused.
    """
    for name in names:
        value = getattr(owner, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r} must be a finite number")
        if value < least or (above and value == least):
            raise ValueError(f"{name}={value} must be {'above' if above else 'at least'} {least:g}")
        if value > most:
            raise ValueError(f"{name}={value} must be at most {most:g}")
