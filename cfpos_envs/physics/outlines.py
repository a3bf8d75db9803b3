"""Outlines of polygons: whether their edges meet where they must not."""

from __future__ import annotations

from collections.abc import Sequence

Point = Sequence[float]


def refuse_crossings(name: str, corners: Sequence[Point]) -> None:
    """Refuse a polygon whose edges cross or touch: what is inside it would be anybody's guess.

    Args:
        name: what messages call it.
        corners: (x, y) in turn; the last one is not the first again.

    Raises:
        ValueError: names the two edges.
    """
    count = len(corners)
    edges = [(corners[index], corners[(index + 1) % count]) for index in range(count)]
    for first in range(count):
        for second in range(first + 1, count):
            neighbours = second - first == 1 or second - first == count - 1
            if not neighbours and _meet(edges[first], edges[second]):
                raise ValueError(
                    f"{name} crosses itself: the edge from corner {first + 1} meets that from corner {second + 1}; "
                    "list the corners in turn along the border"
                )


def _meet(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    """Whether two edges share a point."""
    (a, b), (c, d) = one, other
    turns = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if turns[0] * turns[1] < 0 and turns[2] * turns[3] < 0:
        return True
    ends = ((a, b, c), (a, b, d), (c, d, a), (c, d, b))
    return any(turn == 0 and _between(*end) for turn, end in zip(turns, ends))


def _turn(a: Point, b: Point, c: Point) -> float:
    """Above 0 if a, b, c turn left, below 0 if right, 0 on a line."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _between(a: Point, b: Point, c: Point) -> bool:
    """Whether c, on the line through a and b, lies between them."""
    return all(min(a[i], b[i]) <= c[i] <= max(a[i], b[i]) for i in (0, 1))
