"""What an option of a scene with surfaces may be; every refusal is one line that names the option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cfpos_envs.checks import whole


def number(name: str, value: Any, least: float, most: float) -> None:
    """Refuse what is no finite number in [least, most].

    Raises:
        ValueError: naming the option.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}={value!r} must be a finite number")
    if not least <= value <= most:
        raise ValueError(f"{name}={value} must lie in [{least:g}, {most:g}]")


def as_point(name: str, value: Any) -> tuple[float, ...]:
    """Three finite numbers as a tuple.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"{name}={value!r} must be three numbers")
    for entry in value:
        number(name, entry, -1e6, 1e6)
    return tuple(float(entry) for entry in value)


def as_points(name: str, value: Any) -> tuple[tuple[float, ...], ...]:
    """A list of points as a tuple of tuples.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"{name}={value!r} must be a list of points, three numbers each")
    return tuple(as_point(name, point) for point in value)


def as_shape(name: str, value: Any) -> tuple[int, int]:
    """Two whole numbers of at least 1 as a tuple.

    Raises:
        ValueError: it is anything else.
    """
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{name}={value!r} must be two whole numbers, elements along either axis")
    for entry in value:
        whole(name, entry, 1)
    return (value[0], value[1])
