"""Spirals through a real city as users of a data set, for tracking: every point of a way is traced, none is moved."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from cfpos_envs.channels.spiral import SPIRAL_RADIUS_M, spiral
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import DatasetError, Paths

WAY_POINTS = 50
"""Points of one way; a shard of the split ``spiral`` holds whole ways one after another, cut at its end."""
_MAX_DRAWS = 10_000

Heights = Callable[[np.ndarray], np.ndarray]


def draw_spiral(recipe: Recipe, rng: np.random.Generator, ground_m: Heights, surface_m: Heights) -> np.ndarray:
    """A way [WAY_POINTS, 3] of three turns of 6 m radius from the lowest to the highest user, outdoors all along.

    Args:
        recipe: area, heights and clearance.
        rng: of the axis and the first direction.
        ground_m, surface_m: heights [n] of the lowest and the highest surface at [n, 2].

    Raises:
        DatasetError: no such way is found.
    """
    centre, size = np.array(recipe.area_centre_m), np.array(recipe.area_size_m) - 2 * SPIRAL_RADIUS_M
    low, high = recipe.height_m
    for _ in range(_MAX_DRAWS):
        axis = torch.from_numpy(centre + (rng.random(2) - 0.5) * size)
        turn = torch.tensor(2 * math.pi * rng.random(), dtype=axis.dtype)
        way = spiral(axis, turn, low, high, WAY_POINTS).numpy()
        ground, surface = ground_m(way[:, :2]), surface_m(way[:, :2])
        way[:, 2] = np.maximum(ground[0] + way[:, 2], ground + recipe.clearance_m)
        # False where the scene has no ground: NaN.
        if bool((way[:, 2] >= surface + recipe.clearance_m).all()):
            return way.astype(np.float32)
    raise DatasetError("the area has no open place for a spiral of 6 m radius; choose other height_m or another area")


def trace_way(way_m: np.ndarray, batch: int, trace: Callable[[np.ndarray], Paths]) -> Paths:
    """The paths of all points of a way, traced ``batch`` at a time, the last batch filled up with its last point.

    Args:
        way_m: [n, 3].
        batch: points at a time: the tracer compiles anew for every other number.
        trace: paths of [batch, 3] users.
    """
    parts = []
    for start in range(0, len(way_m), batch):
        points = way_m[start : start + batch]
        filled = np.concatenate([points, np.repeat(points[-1:], batch - len(points), axis=0)])
        parts.append(trace(filled).select(np.arange(len(points))))
    return Paths.concatenate(parts)
