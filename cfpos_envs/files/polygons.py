"""Simple polygons with holes into triangles, by cutting off ears."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

_FLAT = 1e-12
"""Of the square of a polygon's extent: corners with less area than that lie on a line."""

_SLACK = 1e-9
"""Share of an area, or of a squared length, that rounding may make."""


def triangles(rings: Sequence[Float[np.ndarray, "_ 2"]]) -> Int[np.ndarray, "T 3"]:
    """Triangles that cover the first ring without the others, counter-clockwise.

    Holes are joined to the outline by bridges between corners that see each other; then corners whose triangle holds
    no other corner are cut off (G. H. Meisters, American Mathematical Monthly 82 (1975) 648).

    Args:
        rings: outline and holes without repeated last corners, in any sense of rotation.

    Returns:
        Indices into the corners of all rings, one ring after the other.

    Raises:
        ValueError: fewer than three corners, or a ring that crosses itself or another.
    """
    points = np.concatenate([np.asarray(ring, dtype=np.float64) for ring in rings])
    if any(len(ring) < 3 for ring in rings):
        raise ValueError("a ring has fewer than three corners")
    starts = np.cumsum([0, *(len(ring) for ring in rings)])
    loops = [list(range(low, high)) for low, high in pairwise(starts)]
    _refuse_crossing(points, loops)
    outline = _turned(points, loops[0], +1.0)
    holes = [_turned(points, loop, -1.0) for loop in loops[1:]]
    while holes:
        rightmost = max(range(len(holes)), key=lambda at: points[holes[at], 0].max())
        hole = holes.pop(rightmost)
        outline = _bridged(points, outline, hole, holes)
    found = _clipped(points, outline)
    areas = [abs(signed_area(points[loop])) for loop in loops]
    wanted = areas[0] - sum(areas[1:])
    if abs(sum(signed_area(points[corner]) for corner in found) - wanted) > _SLACK * areas[0]:
        raise ValueError("a ring crosses itself or another")
    return found


def signed_area(ring: Float[np.ndarray, "n 2"]) -> float:
    """Area of a polygon, positive if its corners run counter-clockwise (shoelace formula)."""
    local = ring - ring[0]
    following = np.roll(local, -1, axis=0)
    return float((local[:, 0] * following[:, 1] - local[:, 1] * following[:, 0]).sum() / 2)


def _refuse_crossing(points: np.ndarray, loops: list[list[int]]) -> None:
    start = np.concatenate([points[loop] for loop in loops])
    end = np.concatenate([points[loop[1:] + loop[:1]] for loop in loops])
    along = (end - start)[:, None]
    side = _cross(along, start[None] - start[:, None]) * _cross(along, end[None] - start[:, None])
    if ((side < 0) & (side.T < 0)).any():
        raise ValueError("a ring crosses itself or another")


def _turned(points: np.ndarray, loop: list[int], sense: float) -> list[int]:
    return loop if signed_area(points[loop]) * sense > 0 else loop[::-1]


def _bridged(points: np.ndarray, outline: list[int], hole: list[int], others: list[list[int]]) -> list[int]:
    """The outline with a detour around a hole, over the shortest bridge from its rightmost corner."""
    first = int(np.argmax(points[hole, 0]))
    hole = hole[first:] + hole[:first]
    corner = points[hole[0]]
    loops = [outline, hole, *others]
    starts = np.concatenate([points[loop] for loop in loops])
    ends = np.concatenate([points[loop[1:] + loop[:1]] for loop in loops])
    order = np.argsort(np.linalg.norm(points[outline] - corner, axis=1), kind="stable")
    for at in order.tolist():
        end = points[outline[at]]
        inwards = _within(points[outline[at - 1]], end, points[outline[(at + 1) % len(outline)]], corner)
        if inwards and not _crosses(corner, end, starts, ends):
            return [*outline[: at + 1], *hole, hole[0], *outline[at:]]
    raise ValueError("a hole crosses the outline or lies outside of it")


def _crosses(first: np.ndarray, second: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> bool:
    """Whether a segment properly crosses any of the edges, or has one of their ends inside; common ends are none."""
    one, two = _cross(second - first, starts - first), _cross(second - first, ends - first)
    three, four = _cross(ends - starts, first - starts), _cross(ends - starts, second - starts)
    along = ((starts - first) * (second - first)).sum(axis=1)
    between = (along > 0) & (along < ((second - first) ** 2).sum())
    near = np.abs(one) <= _SLACK * ((second - first) ** 2).sum()
    return bool(((one * two < 0) & (three * four < 0)).any() or (near & between).any())


def _within(before: np.ndarray, corner: np.ndarray, after: np.ndarray, target: np.ndarray) -> bool:
    """Whether the way from a corner of a counter-clockwise polygon to a target begins inside of it."""
    from_after = _cross(after - corner, target - corner) > 0
    to_before = _cross(target - corner, before - corner) > 0
    if _cross(after - corner, before - corner) >= 0:
        return bool(from_after and to_before)
    return bool(from_after or to_before)


def _clipped(points: np.ndarray, loop: list[int]) -> np.ndarray:
    scale = float(np.ptp(points, axis=0).max()) ** 2
    left, found = list(loop), []
    while len(left) > 3:
        at = _ear(points, left, _FLAT * scale)
        if at is None:
            raise ValueError("the polygon crosses itself")
        corner = (left[at - 1], left[at], left[(at + 1) % len(left)])
        if _cross(points[corner[1]] - points[corner[0]], points[corner[2]] - points[corner[0]]) > _FLAT * scale:
            found.append(corner)
        del left[at]
    found.append((left[0], left[1], left[2]))
    return np.array(found, dtype=np.int64)


def _ear(points: np.ndarray, left: list[int], flat: float) -> int | None:
    """A corner that can be cut off: convex with nothing in its triangle, or else one on a line."""
    here = points[left]
    before, after = np.roll(here, 1, axis=0), np.roll(here, -1, axis=0)
    turn = _cross(here - before, after - before)
    for at in np.flatnonzero(turn > flat).tolist():
        a, b, c = before[at], here[at], after[at]
        inside = (_cross(b - a, here - a) >= 0) & (_cross(c - b, here - b) >= 0) & (_cross(a - c, here - c) >= 0)
        # Bridges pass their corners twice.
        same = (here == a).all(axis=1) | (here == b).all(axis=1) | (here == c).all(axis=1)
        if not (inside & ~same).any():
            return int(at)
    level = np.flatnonzero(np.abs(turn) <= flat)
    return int(level[0]) if len(level) else None


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0])
