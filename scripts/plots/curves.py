"""Plane curves behind the pictures: hyperbolae of constant time difference, where they meet, error ellipses.

Everything here is plain geometry in double precision; ``scripts/explorer/bounds.js`` does the same in the browser.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from contourpy import contour_generator
from numpy.typing import NDArray

from cfpos_envs.physics.bounds import error_ellipse

Points = NDArray[np.float64]
# A fix must reproduce every range difference to this share of the largest distance between APs.
_FIX_TOLERANCE = 1e-6


def range_difference_m(
    point: Points, reference: Points, other: Points, height_m: float = 0.0, other_height_m: float | None = None
) -> Points:
    """|p - q_m| - |p - q_0|: c times the time difference, metres.

    Args:
        point: [..., 2] ground positions.
        reference, other: [2] ground positions of the two APs.
        height_m: height of the reference over the user.
        other_height_m: height of the other AP; None: the same.
    """
    other_height_m = height_m if other_height_m is None else other_height_m
    return _slant(point - other, other_height_m) - _slant(point - reference, height_m)


def locus_points(
    reference: Points,
    other: Points,
    difference_m: float,
    heights_m: tuple[float, float],
    low: Points,
    high: Points,
    count: int = 301,
) -> Points:
    """Points of one range difference in a rectangle, for two APs of different heights.

    The plane of the user then cuts the hyperboloid askew and no simple parameter runs along the curve, so it is traced
    on a grid, linearly between its points.

    Args:
        reference, other: [2] ground positions.
        difference_m: c times the time difference.
        heights_m: heights of the two over the user.
        low, high: [2] corners of the rectangle.
        count: points of the grid along either side.

    Returns:
        [P, 2] with a row of NaN between separate pieces; empty where the curve stays outside.
    """
    x, y = (np.linspace(low[axis], high[axis], count) for axis in (0, 1))
    grid = np.stack(np.meshgrid(x, y), axis=-1)
    excess = range_difference_m(grid, reference, other, *heights_m) - difference_m
    pieces = [np.asarray(piece) for piece in contour_generator(x, y, excess).lines(0.0)]
    gap = np.full((1, 2), np.nan)
    return np.concatenate([part for piece in pieces for part in (piece, gap)] or [np.empty((0, 2))])


def hyperbola_points(
    reference: Points,
    other: Points,
    difference_m: float,
    height_m: float,
    reach_m: float,
    near: Points | None = None,
    count: int = 401,
) -> Points:
    """Points p with |p - q_m| - |p - q_0| = difference, up to a distance from the middle of the two APs or a point.

    In the frame of the two APs (foci at -+f on the first axis) a plane at height h below them cuts the hyperboloid
    x^2 / a^2 - r^2 / b^2 = 1, a = |difference| / 2, b^2 = f^2 - a^2, in the hyperbola with both half axes stretched by
    sqrt(1 + h^2 / b^2): x = a' cosh t, y = b' sinh t on the side of the nearer AP. A difference of 0 gives the
    perpendicular bisector, the largest one 2 f (only possible at h = 0) the ray behind the nearer AP.

    Args:
        reference, other: [2] ground positions, apart from each other.
        difference_m: c times the time difference; |difference| <= distance of the APs.
        height_m: height of both APs over the user.
        reach_m: how far along either axis the curve is followed from the middle; with ``near`` how far across.
        near: [2] only the part around this point, for a close-up.
        count: number of points, odd to hold the vertex.

    Returns:
        [count, 2], or [0, 2] where the curve stays out of reach.

    Raises:
        ValueError: for APs at one place or a difference that no point has.
    """
    gap = other - reference
    distance = float(np.hypot(*gap))
    if distance == 0.0:
        raise ValueError("two APs at one place have no time difference; move one of them")
    f, a = distance / 2, abs(difference_m) / 2
    b2 = (f - a) * (f + a)
    if b2 < 0 or (b2 == 0 and height_m != 0):
        raise ValueError(
            f"no point is {abs(difference_m):g} m nearer to one of two APs {distance:g} m apart; "
            f"the difference must be smaller than their distance"
        )
    stretch = math.sqrt(1 + height_m**2 / b2) if b2 > 0 else 1.0
    half_x, half_y = a * stretch, math.sqrt(b2) * stretch
    middle, along = (reference + other) / 2, gap / distance
    across = np.array([-along[1], along[0]])
    if near is not None and half_y > 0:
        at = float((near - middle) @ across)
        t = np.linspace(math.asinh((at - reach_m) / half_y), math.asinh((at + reach_m) / half_y), count)
    elif half_x > reach_m:
        return np.empty((0, 2))
    else:
        ends = [math.asinh(reach_m / half_y)] if half_y > 0 else []
        ends += [math.acosh(reach_m / half_x)] if half_x > 0 else []
        t = np.linspace(-min(ends), min(ends), count)
    # A positive difference means nearer to the reference, which lies at -f.
    x, y = -math.copysign(half_x, difference_m) * np.cosh(t), half_y * np.sinh(t)
    return np.asarray(middle + x[:, None] * along + y[:, None] * across)


def tdoa_fixes(aps: Points, differences_m: Points, height_m: float | Points = 0.0) -> Points:
    """Every ground position that has exactly these range differences to the first AP.

    With q relative to the first AP and r its distance, r_m = r + d_m squares to the linear 2 q.p + 2 d_m r =
    |q|^2 - d_m^2 + h_m^2 - h_0^2 in (p, r). Where these leave one direction free (three APs, or all in one line) it is
    cut with the cone |p|^2 + h_0^2 = r^2, which may give two answers: a second crossing, or the mirror image behind
    the line.

    Args:
        aps: [M, 2] ground positions.
        differences_m: [M - 1] of the others to the first.
        height_m: height of all APs over the user, or [M] of each.

    Returns:
        [S, 2]: one or two positions; none where a whole curve fits (two APs, or all at one place).
    """
    heights = np.broadcast_to(height_m, len(aps))
    q = aps[1:] - aps[0]
    scale = float(np.abs(q).max(initial=0.0)) or 1.0
    matrix = np.column_stack((2 * q, 2 * differences_m)) / scale
    right = ((q**2).sum(axis=1) - differences_m**2 + heights[1:] ** 2 - heights[0] ** 2) / scale
    u, values, vh = np.linalg.svd(matrix)
    rank = int((values > 1e-9 * values.max(initial=0.0)).sum())
    if rank < 2:
        return np.empty((0, 2))
    start = vh[:rank].T @ ((u[:, :rank].T @ right) / values[:rank])
    candidates = [start] if rank == 3 else _on_cone(start, vh[2], float(heights[0]))
    found: list[Points] = []
    for solution in candidates:
        point = aps[0] + solution[:2]
        seen = np.array([range_difference_m(point, aps[0], q, heights[0], h) for q, h in zip(aps[1:], heights[1:])])
        fits = bool(np.abs(seen - differences_m).max() < _FIX_TOLERANCE * scale)
        if fits and all(np.hypot(*(point - old)) > 1e-6 * scale for old in found):
            found.append(point)
    return np.array(found).reshape(-1, 2)


def ellipse_points(
    fisher: Points, centre: Points, probability: float | None = 0.95, enlarged: float = 1.0, count: int = 121
) -> Points:
    """Outline of the error ellipse of an information matrix.

    Args:
        fisher: [2, 2] information, 1/m^2.
        centre: [2] metres.
        probability: content; None gives one standard deviation.
        enlarged: factor on both axes.
        count: number of points, the first again at the end.

    Returns:
        [count, 2], or [0, 2] where the position is not determined.
    """
    axes, angle = error_ellipse(torch.from_numpy(np.asarray(fisher, dtype=float)), probability)
    if not bool(torch.isfinite(axes).all()):
        return np.empty((0, 2))
    long, short = (enlarged * float(value) for value in axes)
    t = np.linspace(0.0, 2 * math.pi, count)
    x, y = long * np.cos(t), short * np.sin(t)
    c, s = math.cos(float(angle)), math.sin(float(angle))
    return np.column_stack((centre[0] + c * x - s * y, centre[1] + s * x + c * y))


def _slant(vector: Points, height_m: float) -> Points:
    return np.asarray(np.sqrt((vector**2).sum(axis=-1) + height_m**2))


def _on_cone(start: Points, direction: Points, height_m: float) -> list[Points]:
    """Points start + s * direction with x^2 + y^2 + h^2 = r^2 (third entry), r >= 0."""
    sign = np.array([1.0, 1.0, -1.0])
    a = float((sign * direction) @ direction)
    b = float((sign * start) @ direction)
    c = float((sign * start) @ start) + height_m**2
    if abs(a) < 1e-12:
        roots = [] if b == 0 else [-c / (2 * b)]
    else:
        # A user in the line of the APs is its own mirror image: rounding must not lose the double root.
        inner = b * b - a * c
        root = math.sqrt(inner) if inner > 0 else 0.0
        rounding = 1e-9 * (b * b + abs(a) * (float(start @ start) + height_m**2))
        roots = [] if inner < -rounding else [(-b - root) / a, (-b + root) / a]
    solutions = [start + s * direction for s in roots]
    return [solution for solution in solutions if solution[2] >= 0]
