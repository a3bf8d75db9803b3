"""A tracer of a scene with known answers: flat ground, one wall, every path by the image method in closed form."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import Paths
from cfpos_envs.importers.path_checks import REFLECTED

C_M_S = 299_792_458.0
WALL_X_M = -150.0
BS_M = np.array([[-30.0, 10.0, 20.0], [40.0, -20.0, 25.0]])
SHADOW_Y_M = 100.0
"""Users beyond this have no path to anybody."""


def image_paths(bs_m: np.ndarray, user_m: np.ndarray) -> dict[str, np.ndarray]:
    """Line of sight, ground, wall, and wall with ground, all with gain 1/length times a number per kind."""
    sources = []
    for wall in (False, True):
        for ground in (False, True):
            image = bs_m.copy()
            sign = np.ones(3)
            if wall:
                image[0], sign[0] = 2 * WALL_X_M - image[0], -1.0
            if ground:
                image[2], sign[2] = -image[2], -1.0
            sources.append((image, sign, wall + ground))
    rows = []
    for image, sign, reflections in sources:
        ray = image - user_m
        length = np.linalg.norm(ray)
        towards = ray / length
        # Unfolding: the ray leaves the base station mirrored as often as it will be reflected.
        leaving = -towards * sign
        rows.append(
            (
                0.1 * (0.8 - 0.3j) ** reflections / length,
                length / C_M_S,
                np.arctan2(leaving[1], leaving[0]),
                np.arccos(leaving[2]),
                np.arctan2(towards[1], towards[0]),
                np.arccos(towards[2]),
                reflections,
                REFLECTED if reflections else 0,
            )
        )
    names = (
        "amplitude",
        "delay_s",
        "bs_azimuth_rad",
        "bs_zenith_rad",
        "ue_azimuth_rad",
        "ue_zenith_rad",
        "reflections",
        "kind",
    )
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


class MirrorTracer:
    """What ``generate`` needs of a tracer; counts its calls and can be told to break down."""

    version = "mirrors 1"

    def __init__(self, recipe: Recipe, fail_after: int | None = None) -> None:
        self.recipe, self.fail_after, self.calls = recipe, fail_after, 0
        self.bs_positions_m = BS_M[: recipe.num_bss].astype(np.float32)

    def surface_m(self, xy_m: np.ndarray) -> np.ndarray:
        """A building of 40 m where x > 60."""
        return np.where(xy_m[:, 0] > 60.0, 40.0, 0.0)

    def ground_m(self, xy_m: np.ndarray) -> np.ndarray:
        """Flat."""
        return np.zeros(len(xy_m))

    def trace(self, users_m: np.ndarray) -> Paths:
        """Closed forms; nothing reaches users in the shadow."""
        self.calls += 1
        if self.fail_after is not None and self.calls > self.fail_after:
            raise KeyboardInterrupt
        links = [[image_paths(bs, user) for bs in self.bs_positions_m.astype(float)] for user in users_m.astype(float)]
        fields = {name: np.array([[link[name] for link in row] for row in links]) for name in links[0][0]}
        valid = np.broadcast_to((users_m[:, 1] < SHADOW_Y_M)[:, None, None], fields["delay_s"].shape)
        return Paths.from_padded(fields, valid, self.recipe.max_paths, self.recipe.dynamic_range_db)


def small_recipe(**changes: object) -> Recipe:
    """Two base stations, few users per file."""
    return Recipe(**{"num_bss": 2, "shard_users": 20, "batch": 8, **changes})


def contents(folder: Path) -> dict[str, str]:
    """The arrays of every shard, hashed; the zip itself holds the time of writing."""
    found = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            parts = b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))
        found[path.name] = hashlib.sha256(parts).hexdigest()
    return found
