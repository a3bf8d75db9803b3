"""Making a data set: users drawn where they may be, traced, and written shard by shard so that it can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import (
    SPLITS,
    DatasetError,
    Header,
    Paths,
    Shard,
    check_recipe,
    present_shards,
    read_shard,
    shard_path,
    write_shard,
)
from cfpos_envs.channels.tracing.ways import WAY_POINTS, draw_spiral, trace_way
from cfpos_envs.streams import derive_seed

_GROUND_STEP_M = 5.0
_MAX_DRAWS = 1000


@runtime_checkable
class TracerLike(Protocol):
    """What ``Tracer`` offers to the maker of data sets."""

    bs_positions_m: np.ndarray
    version: str

    def surface_m(self, xy_m: np.ndarray) -> np.ndarray:
        """Height [n] of the highest surface."""

    def ground_m(self, xy_m: np.ndarray) -> np.ndarray:
        """Height [n] of the ground."""

    def trace(self, users_m: np.ndarray) -> Paths:
        """The paths of users [n, 3]."""


MadeShard = tuple[str, int, Shard]
"""Split, number and content of one file."""
Maker = Callable[
    [Recipe, Callable[[Recipe], TracerLike], Sequence[tuple[str, int]]], tuple[Header, Iterator[MadeShard]]
]
"""(recipe, what makes its tracer, (split, number) of the wanted files) -> header and files, in any order."""


def make_here(
    recipe: Recipe, tracer: Callable[[Recipe], TracerLike], missing: Sequence[tuple[str, int]]
) -> tuple[Header, Iterator[MadeShard]]:
    """The header and the shards ``missing``, one after another in this process."""
    scene = tracer(recipe)
    return header_of(recipe, scene), ((*place, make_shard(recipe, scene, *place)) for place in missing)


def generate(
    recipe: Recipe,
    folder: Path,
    users: dict[str, int],
    tracer: Callable[[Recipe], TracerLike] | None = None,
    progress: Callable[[Iterable[MadeShard], int], Iterable[MadeShard]] | None = None,
    maker: Maker = make_here,
) -> dict[str, int]:
    """Make the shards of a data set that are not there yet.

    Shards are independent: each has its own seed, from the recipe's, the split and its number. So an interrupted run
    goes on where it stopped, a set can be enlarged later, and the result is the same in any order.

    Args:
        recipe: the settings.
        folder: where the set is or will be.
        users: number of users per split, rounded up to whole shards.
        tracer: makes the tracer of a recipe; None: Sionna RT. Not called if nothing is missing.
        progress: wraps the shards being made, e.g. with a progress bar; also gets how many there will be.
        maker: where they are made: in this process or on a cluster (``raytracing.cluster``). Files are written here.

    Returns:
        Shards made per split.

    Raises:
        DatasetError: ``folder`` holds a set of another recipe, or users with a path cannot be found.
        RayTracingUnavailableError: the extra or a recent LLVM is missing.
    """
    unknown = sorted(set(users) - set(SPLITS))
    if unknown:
        raise ValueError(f"unknown split {unknown[0]!r}; a data set has {', '.join(SPLITS)}")
    if (folder / "recipe.json").exists():
        check_recipe(folder, recipe)
    missing = missing_shards(recipe, folder, users)
    made = dict.fromkeys(users, 0)
    if not missing and (folder / "recipe.json").exists():
        return made
    if tracer is None:
        from cfpos_envs.channels.tracing.tracer import Tracer

        tracer = Tracer
    header, shards = maker(recipe, tracer, missing)
    header.write(folder)
    for split, index, shard in shards if progress is None else progress(shards, len(missing)):
        write_shard(shard_path(folder, split, index), recipe, shard)
        made[split] += 1
    return made


def missing_shards(recipe: Recipe, folder: Path, users: dict[str, int]) -> list[tuple[str, int]]:
    """(split, index) of every shard that is not there, or is there but damaged.

    Raises:
        DatasetError: a file belongs to another recipe.
    """
    missing = []
    for split, count in users.items():
        for index in range(-(-count // recipe.shard_users)):
            path = shard_path(folder, split, index)
            if not path.exists() or not _is_whole(path, recipe):
                missing.append((split, index))
    return missing


def make_shard(recipe: Recipe, scene: TracerLike, split: str, index: int) -> Shard:
    """Draw and trace the users of one shard; users whom no path reaches are drawn again and counted.

    Those of the split ``spiral`` are the points of ways, drawn again as a whole.

    Raises:
        DatasetError: nearly no position of the area can be used.
    """
    rng = np.random.default_rng(derive_seed(recipe.seed, split, "users", index))
    if split == "spiral":
        return _make_ways(recipe, scene, rng)
    positions: list[np.ndarray] = []
    parts: list[Paths] = []
    found = redrawn = 0
    while found < recipe.shard_users:
        # Always a whole batch: the tracer compiles its programs anew for every other number of users.
        users = draw_users(recipe, scene, rng, recipe.batch)
        paths = scene.trace(users)
        reached = np.flatnonzero(paths.counts().sum(axis=1))[: recipe.shard_users - found]
        last = reached[-1] + 1 if found + len(reached) == recipe.shard_users else recipe.batch
        redrawn += int(last - len(reached))
        if redrawn > _MAX_DRAWS * recipe.shard_users:
            raise DatasetError("no path reaches the users of this recipe; raise max_depth or rays, or move the area")
        found += len(reached)
        positions.append(users[reached])
        parts.append(paths.select(reached))
    return Shard(np.concatenate(positions), Paths.concatenate(parts), redrawn)


def _make_ways(recipe: Recipe, scene: TracerLike, rng: np.random.Generator) -> Shard:
    ways: list[np.ndarray] = []
    parts: list[Paths] = []
    redrawn = 0
    while len(ways) * WAY_POINTS < recipe.shard_users:
        way = draw_spiral(recipe, rng, scene.ground_m, scene.surface_m)
        paths = trace_way(way, recipe.batch, scene.trace)
        if bool((paths.counts().sum(axis=1) > 0).all()):
            ways.append(way)
            parts.append(paths)
        else:
            redrawn += WAY_POINTS
        if redrawn > _MAX_DRAWS * recipe.shard_users:
            raise DatasetError("no path reaches the spirals of this recipe; raise max_depth or rays, or move the area")
    kept = np.arange(recipe.shard_users)
    return Shard(np.concatenate(ways)[kept], Paths.concatenate(parts).select(kept), redrawn)


def draw_users(recipe: Recipe, scene: TracerLike, rng: np.random.Generator, count: int) -> np.ndarray:
    """``count`` positions [count, 3], uniform over the part of the area's volume where users may be.

    Raises:
        DatasetError: nearly no position of the area can be used.
    """
    centre, size = np.array(recipe.area_centre_m), np.array(recipe.area_size_m)
    low, high = recipe.height_m
    kept: list[np.ndarray] = []
    found = 0
    for _ in range(_MAX_DRAWS):
        xy = centre + (rng.random((count, 2)) - 0.5) * size
        ground, surface = scene.ground_m(xy), scene.surface_m(xy)
        z = ground + low + (high - low) * rng.random(count)
        floor = ground if recipe.indoor else surface
        users = np.column_stack([xy, z]).astype(np.float32)
        usable = z >= floor + recipe.clearance_m  # False where the scene has no ground: NaN
        if recipe.indoor:
            usable &= (z >= surface + recipe.clearance_m) | (z <= surface - recipe.clearance_m)
        kept.append(users[usable])
        found += int(usable.sum())
        if found >= count:
            return np.concatenate(kept)[:count]
    raise DatasetError("the area has nearly no place for users; choose other height_m, clearance_m or centre_m")


def header_of(recipe: Recipe, scene: TracerLike) -> Header:
    """What stands beside the shards: base stations and the box of all users."""
    centre, size = np.array(recipe.area_centre_m), np.array(recipe.area_size_m)
    steps = [np.arange(-side / 2, side / 2 + _GROUND_STEP_M, _GROUND_STEP_M).clip(-side / 2, side / 2) for side in size]
    points = centre + np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 2)
    ground = scene.ground_m(points)
    low = np.array([*(centre - size / 2), np.nanmin(ground) + recipe.height_m[0]], dtype=np.float32)
    high = np.array([*(centre + size / 2), np.nanmax(ground) + recipe.height_m[1]], dtype=np.float32)
    return Header(recipe, scene.bs_positions_m, low, high, scene.version)


def _is_whole(path: Path, recipe: Recipe) -> bool:
    try:
        return len(read_shard(path, recipe).positions_m) == recipe.shard_users
    except DatasetError as error:
        if "belongs to recipe" in str(error):
            raise
        return False


def statistics(folder: Path) -> dict[str, dict[str, float]]:
    """What a data set holds, per split: users, users drawn in vain, shares of links, paths per link.

    Raises:
        DatasetError: no data set there, or a damaged one.
    """
    header = Header.read(folder)
    found = {}
    for split in SPLITS:
        shards = [read_shard(path, header.recipe) for path in present_shards(folder, split)]
        if not shards:
            continue
        paths = Paths.concatenate([shard.paths for shard in shards])
        counts = paths.counts()
        links = np.repeat(np.arange(counts.size), counts.reshape(-1))
        lit = np.zeros(counts.size, dtype=bool)
        lit[links[paths.kind == 0]] = True
        found[split] = {
            "users": paths.num_users,
            "redrawn": sum(shard.redrawn for shard in shards),
            "line_of_sight": float(lit.mean()),
            "no_path": float((counts == 0).mean()),
            "paths_per_link": float(counts.mean()),
        }
    return found


def summary(folder: Path) -> str:
    """``statistics`` in a few lines."""
    header = Header.read(folder)
    lines = [f"{folder}: recipe {header.recipe.hash}, {header.tracer}"]
    for split, found in statistics(folder).items():
        lines.append(
            f"  {split}: {found['users']} users ({found['redrawn']} more drawn in vain), {found['line_of_sight']:.1%} "
            f"of the links in line of sight, {found['no_path']:.1%} without a path, "
            f"{found['paths_per_link']:.1f} paths per link"
        )
    return "\n".join(lines)
