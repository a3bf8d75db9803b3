"""The stored form of traced paths: the arrays of a shard, and shards beside their recipe (docs/raytracing.md)."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from cfpos_envs.channels.tracing.origin import ORIGIN_KEY, Origin
from cfpos_envs.channels.tracing.recipe import FORMAT_VERSION, Recipe
from cfpos_envs.importers.path_checks import PathArrayError, check_paths

SPLITS = ("train", "test", "spiral")

_RECIPE_FILE = "recipe.json"
_ROUNDING = 1e-4
_PER_PATH = {
    "amplitude": np.complex64,
    "delay_s": np.float32,
    "bs_azimuth_rad": np.float32,
    "bs_zenith_rad": np.float32,
    "ue_azimuth_rad": np.float32,
    "ue_zenith_rad": np.float32,
    "reflections": np.uint8,
    "kind": np.uint8,
}


class DatasetError(ValueError):
    """A folder that is not a data set, is damaged, or belongs to another recipe."""


@dataclass(frozen=True)
class Paths:
    """The paths of some users to all base stations: one flat array per quantity, links one after another.

    Attributes:
        num_users, num_bss: U, L.
        link_start: [U L + 1] the paths of link (u, l) are ``link_start[u L + l] : link_start[u L + l + 1]``, strongest
            first.
        amplitude: complex amplitude at the carrier without the phase of the delay, so that moving a user is a
            change of delays alone; isotropic vertical antennas, free-space loss included (unitless).
        delay_s: c times this is the length of the path.
        bs_azimuth_rad, bs_zenith_rad: direction in which the path leaves the base station.
        ue_azimuth_rad, ue_zenith_rad: direction from which it reaches the user, seen from the user.
        reflections: number of specular reflections.
        kind: sum of the flags of ``importers.path_checks``; 0: line of sight.
    """

    num_users: int
    num_bss: int
    link_start: np.ndarray
    amplitude: np.ndarray
    delay_s: np.ndarray
    bs_azimuth_rad: np.ndarray
    bs_zenith_rad: np.ndarray
    ue_azimuth_rad: np.ndarray
    ue_zenith_rad: np.ndarray
    reflections: np.ndarray
    kind: np.ndarray

    @classmethod
    def empty(cls, users: int, bss: int) -> Paths:
        """Users that no path reaches."""
        start = np.zeros(users * bss + 1, dtype=np.int64)
        return cls(users, bss, start, **{name: np.zeros(0, dtype=kind) for name, kind in _PER_PATH.items()})

    @classmethod
    def from_padded(
        cls, fields: dict[str, np.ndarray], valid: np.ndarray, max_paths: int, dynamic_range_db: float
    ) -> Paths:
        """Sort every link by power and keep what counts.

        Args:
            fields: the per-path attributes by name, each [U, L, P].
            valid: [U, L, P] which entries are paths.
            max_paths: strongest paths kept per link.
            dynamic_range_db: what is weaker than the link's strongest by more is left out.
        """
        users, bss, _ = valid.shape
        power = np.where(valid, np.abs(fields["amplitude"]) ** 2, 0.0)
        order = np.argsort(-power, axis=-1, kind="stable")[..., :max_paths]
        power = np.take_along_axis(power, order, axis=-1)
        kept = (power > 0) & (power >= power[..., :1] * 10 ** (-dynamic_range_db / 10))
        start = np.concatenate([[0], np.cumsum(kept.sum(axis=-1).reshape(-1))]).astype(np.int64)
        flat: dict[str, np.ndarray] = {
            name: np.take_along_axis(fields[name], order, axis=-1)[kept].astype(kind)
            for name, kind in _PER_PATH.items()
        }
        return cls(users, bss, start, **flat)

    @classmethod
    def concatenate(cls, parts: list[Paths]) -> Paths:
        """All users of ``parts`` in order; at least one part."""
        offsets = np.cumsum([0, *(len(part.amplitude) for part in parts)])
        starts = [part.link_start[:-1] + offset for part, offset in zip(parts, offsets[:-1], strict=True)]
        start = np.concatenate([*starts, offsets[-1:]])
        flat = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_PATH}
        return cls(sum(part.num_users for part in parts), parts[0].num_bss, start, **flat)

    def counts(self) -> np.ndarray:
        """[U, L] number of paths of every link."""
        return np.diff(self.link_start).reshape(self.num_users, self.num_bss)

    def select(self, users: np.ndarray) -> Paths:
        """Only ``users`` (indices), in that order."""
        links = (np.asarray(users)[:, None] * self.num_bss + np.arange(self.num_bss)).reshape(-1)
        counts = np.diff(self.link_start)[links]
        start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        index = np.repeat(self.link_start[:-1][links] - start[:-1], counts) + np.arange(start[-1])
        flat = {name: getattr(self, name)[index] for name in _PER_PATH}
        return Paths(len(users), self.num_bss, start, **flat)

    def padded(self, max_paths: int | None = None) -> dict[str, np.ndarray]:
        """The per-path attributes as [U, L, P] arrays, zero where there is no path (``max_paths``: P at most)."""
        counts = np.diff(self.link_start)
        longest = int(counts.max(initial=0))
        width = max(1, longest if max_paths is None else min(longest, max_paths))
        rank = np.arange(len(self.amplitude)) - np.repeat(self.link_start[:-1], counts)
        link = np.repeat(np.arange(len(counts)), counts)
        kept = rank < width
        filled = {}
        for name, kind in _PER_PATH.items():
            table: np.ndarray = np.zeros((len(counts), width), dtype=kind)
            table[link[kept], rank[kept]] = getattr(self, name)[kept]
            filled[name] = table.reshape(self.num_users, self.num_bss, width)
        return filled


@dataclass(frozen=True)
class Shard:
    """One file of a data set.

    Attributes:
        positions_m: [U, 3] users.
        paths: their paths.
        redrawn: users drawn in vain because no path reached any base station.
    """

    positions_m: np.ndarray
    paths: Paths
    redrawn: int


def shard_path(folder: Path, split: str, index: int) -> Path:
    """Where shard ``index`` of ``split`` belongs."""
    return folder / f"{split}-{index:05d}.npz"


def write_shard(path: Path, recipe: Recipe | Origin, shard: Shard) -> None:
    """Write completely or not at all: a reader never meets half a file."""
    arrays = {name: getattr(shard.paths, name) for name in ("link_start", *_PER_PATH)}
    half = path.with_suffix(".partial")
    with half.open("wb") as file:
        np.savez_compressed(
            file, hash=np.array(recipe.hash), positions_m=shard.positions_m, redrawn=np.array(shard.redrawn), **arrays
        )
    os.replace(half, path)


def read_shard(path: Path, recipe: Recipe | Origin, bs_positions_m: np.ndarray | None = None) -> Shard:
    """Read one file of ``recipe``.

    Args:
        path: of the file.
        recipe: that it must belong to.
        bs_positions_m: [L, 3] base stations, against which paths are checked; None: only that the file is whole.

    Raises:
        DatasetError: it is damaged, belongs to another recipe, or holds what paths cannot be: NaN, negative delays,
            nanoseconds, degrees, kilometres.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = str(arrays["hash"])
            if found != recipe.hash:
                raise DatasetError(f"{path} belongs to recipe {found}, not {recipe.hash}; remove it or make it again")
            positions = arrays["positions_m"]
            flat = {name: arrays[name] for name in ("link_start", *_PER_PATH)}
            redrawn = int(arrays["redrawn"])
    except DatasetError:
        raise
    except (OSError, KeyError, ValueError, BadZipFile, EOFError) as error:
        raise DatasetError(f"{path} is not a readable shard ({error}); remove it and make it again") from None
    paths = Paths(len(positions), recipe.num_bss, **flat)
    start, count = paths.link_start, len(paths.amplitude)
    fits = len(start) == paths.num_users * paths.num_bss + 1 and start[-1] == count and (np.diff(start) >= 0).all()
    if not fits or any(len(flat[name]) != count for name in _PER_PATH):
        raise DatasetError(f"{path} has links that do not fit its users; remove it and make it again")
    if bs_positions_m is not None:
        link = np.repeat(np.arange(len(start) - 1), np.diff(start))
        try:
            check_paths(path, positions, bs_positions_m, link, {name: flat[name] for name in _PER_PATH})
        except PathArrayError as error:
            raise DatasetError(str(error)) from None
        power = np.abs(paths.amplitude)
        if ((np.diff(power) > _ROUNDING * power[1:]) & (np.diff(link) == 0)).any():
            raise DatasetError(f"{path}: amplitude is not sorted strongest first within links; make it again")
    return Shard(positions, paths, redrawn)


@dataclass(frozen=True)
class Header:
    """What stands beside the shards.

    Attributes:
        recipe: how they were made, or where they came from.
        bs_positions_m: [L, 3] base stations.
        low_m, high_m: [3] corners of the box that holds every user.
        tracer: versions of the ray tracer.
        bs_orientation_rad: [L, 3] (yaw, pitch, roll) of the arrays; None: level, and facing the middle of the area.
    """

    recipe: Recipe | Origin
    bs_positions_m: np.ndarray
    low_m: np.ndarray
    high_m: np.ndarray
    tracer: str
    bs_orientation_rad: np.ndarray | None = None

    def write(self, folder: Path) -> None:
        """Put the header into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"format": FORMAT_VERSION, "hash": self.recipe.hash, "recipe": self.recipe.as_dict()}
        content |= {name: getattr(self, name).tolist() for name in ("bs_positions_m", "low_m", "high_m")}
        if self.bs_orientation_rad is not None:
            content["bs_orientation_rad"] = self.bs_orientation_rad.tolist()
        half = folder / "recipe.partial"
        half.write_text(json.dumps({**content, "tracer": self.tracer}, indent=1) + "\n", encoding="utf-8")
        os.replace(half, folder / _RECIPE_FILE)

    @classmethod
    def read(cls, folder: Path) -> Header:
        """The header in ``folder``.

        Raises:
            DatasetError: there is none, it is damaged, of another format, or its hash is not that of its recipe.
        """
        path = folder / _RECIPE_FILE
        if not path.is_file():
            raise DatasetError(
                f"{folder} is not a ray-traced data set ({_RECIPE_FILE} is missing); make one: "
                f"cfpos make-dataset --out {folder}"
            )
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT_VERSION:
                raise DatasetError(f"{folder} has format {content['format']}, this version reads {FORMAT_VERSION}")
            made = content["recipe"]
            recipe = Origin.from_dict(made) if ORIGIN_KEY in made else Recipe.from_dict(made)
            names = ("bs_positions_m", "low_m", "high_m", *(["bs_orientation_rad"] * ("bs_orientation_rad" in content)))
            arrays = {name: np.array(content[name], np.float32) for name in names}
            header = cls(recipe, tracer=str(content["tracer"]), **arrays)
            stated = content["hash"]
            places = {arrays[name].shape for name in names if name.startswith("bs_")}
            if places != {(recipe.num_bss, 3)} or arrays["low_m"].shape != (3,) or arrays["high_m"].shape != (3,):
                raise ValueError("positions have the wrong shape")
        except DatasetError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{path} cannot be read ({error}); make the data set again") from None
        if stated != recipe.hash:
            raise DatasetError(f"{path} states hash {stated}, its recipe has {recipe.hash}; make the data set again")
        return header


def check_recipe(folder: Path, expected: Recipe) -> None:
    """Refuse a folder made by another recipe.

    Raises:
        DatasetError: names every setting that differs.
    """
    found = Header.read(folder).recipe
    if isinstance(found, Origin):
        raise DatasetError(f"{folder} holds a data set imported from {found.tool}; choose another folder")
    if found.hash != expected.hash:
        raise DatasetError(
            f"{folder} holds a data set of another recipe ({found.hash}, not {expected.hash}): "
            f"{found.differences(expected)}; choose another folder or these settings"
        )


def present_shards(folder: Path, split: str) -> list[Path]:
    """The files of ``split`` in order, from 0 up to the first that is missing."""
    found: list[Path] = []
    while (path := shard_path(folder, split, len(found))).is_file():
        found.append(path)
    return found


def load_users(folder: Path, split: str, limit: int | None = None) -> tuple[Header, Shard]:
    """All users of a split as one shard.

    Args:
        folder: of the data set.
        split: one of ``SPLITS``.
        limit: users at most; None takes all there are.

    Raises:
        DatasetError: no such data set or split, fewer than ``limit`` users, or a damaged file.
    """
    header = Header.read(folder)
    files = present_shards(folder, split)
    if limit is not None:
        # The last file of an imported set may hold fewer users than the others.
        files = files[: -(-limit // header.recipe.shard_users)]
    shards = [read_shard(path, header.recipe, header.bs_positions_m) for path in files]
    there = sum(len(shard.positions_m) for shard in shards)
    if not files or (limit is not None and limit > there):
        wanted = header.recipe.shard_users if limit is None else limit
        mend = (
            f"import it again with more users: cfpos convert {header.recipe.tool} ... --out {folder}"
            if isinstance(header.recipe, Origin)
            else f"make them: cfpos make-dataset --out {folder} --{split} {wanted}"
        )
        raise DatasetError(f"{folder} has {there} users of split {split!r}, {wanted} are wanted; {mend}")
    users = Paths.concatenate([shard.paths for shard in shards])
    positions = np.concatenate([shard.positions_m for shard in shards])
    if limit is not None and limit < len(positions):
        users, positions = users.select(np.arange(limit)), positions[:limit]
    return header, Shard(positions, users, sum(shard.redrawn for shard in shards))


def describe(header: Header) -> str:
    """The recipe in one line."""
    changed = [
        f"{entry.name} {getattr(header.recipe, entry.name)}"
        for entry in dataclasses.fields(header.recipe)
        if entry.name not in ("batch", "shard_users")
    ]
    return ", ".join(changed)
