"""A stored ray-traced data set as the source of channels of ``ecc-raytraced-v0``."""

from __future__ import annotations

import dataclasses
import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.sources import Users
from cfpos_envs.channels.tracing.storage import SPLITS, DatasetError, Header, Shard, load_users
from cfpos_envs.channels.tracing.synthesis import StoredPaths, moved_paths
from cfpos_envs.physics.ecc.csi import CsiPaths

MAX_DISPLACEMENT_M = 1.0
"""How far stored paths can be moved: see docs/raytracing.md for the error."""

_CARRIER_TOLERANCE = 1e-3


def demo_dataset() -> Path:
    """The small data set of Munich that comes with the package: enough to play and test, not to train on."""
    return Path(str(files("cfpos_envs.channels.tracing") / "data" / "munich-demo"))


class RaytracedSource:
    """A ``CsiSource`` of stored users.

    Users are drawn with replacement from those of the split; training and test share none. Arrays face the middle of
    the area, unless the data set states how they are turned.

    Args:
        settings: ``dataset`` (empty: the small set that comes with the package), ``num_bs``, ``num_paths`` and
            ``carrier_hz`` are used here.
        device: where the tensors live.

    Raises:
        DatasetError: no data set there, or damaged, or made for another carrier or number of base stations.
    """

    max_displacement_m = MAX_DISPLACEMENT_M

    def __init__(self, settings: EccSceneConfig, device: torch.device | str = "cpu") -> None:
        self.folder = Path(settings.dataset) if settings.dataset else demo_dataset()
        self.device = torch.device(device)
        header = Header.read(self.folder)
        _check_settings(self.folder, header, settings)
        self._num_paths, self._carrier_hz = settings.num_paths, header.recipe.carrier_hz
        self.recipe = header.recipe
        self.name = f"{header.recipe.scene} ({header.recipe.hash})"
        self.area_min_m, self.area_max_m = _triple(header.low_m), _triple(header.high_m)
        self.bs_positions_m = torch.from_numpy(header.bs_positions_m).to(self.device)
        stated = header.bs_orientation_rad
        self.bs_orientation_rad = (
            _facing(self.bs_positions_m, self.area_min_m, self.area_max_m)
            if stated is None
            else torch.from_numpy(stated).to(self.device)
        )
        self.box_min_m = self.box_max_m = torch.zeros(0, 3, device=self.device)
        self._splits: dict[str, tuple[Tensor, StoredPaths, Tensor]] = {}

    def draw_users(self, generator: draws.Source, count: int, split: str) -> Users:
        """Stored users at random, with replacement; ``calibrate`` takes those of training. See ``CsiSource``.

        Raises:
            DatasetError: the data set has no users of this split.
        """
        stored = "test" if split == "test" else "train"
        there = len(self._split(stored)[0])
        return self.users(stored, draws.integers(generator, there, count))

    def users(self, split: str, index: Tensor | None = None) -> Users:
        """Chosen users of a split, in order; None: all of them.

        Args:
            split: ``train``, ``test``, or ``spiral``: points of ways one after another.
            index: [U] their numbers in the split.
        """
        positions = self._split(split)[0]
        if index is None:
            index = torch.arange(len(positions), device=self.device)
        return Users(positions[index], self._offset(split) + index)

    def paths(self, users: Users, displacement_m: Tensor) -> CsiPaths:
        """See ``CsiSource``.

        Raises:
            ValueError: a displacement beyond ``max_displacement_m``, or users of another source.
        """
        if bool((displacement_m.norm(dim=-1) > MAX_DISPLACEMENT_M * (1 + 1e-6)).any()):
            raise ValueError(
                f"stored users can be moved by {MAX_DISPLACEMENT_M:g} m at most; trace the places they go to instead"
            )
        if bool((users.index < 0).any()):
            raise ValueError("these users are not stored; take users from this source's draw_users")
        return moved_paths(self._select(users.index).unsqueeze(1), displacement_m.unsqueeze(2), self._carrier_hz)

    def is_free(self, points_m: Tensor) -> Tensor:
        """Whether points lie in the area; the data set does not hold the buildings."""
        low, high = points_m.new_tensor(self.area_min_m), points_m.new_tensor(self.area_max_m)
        return ((points_m >= low) & (points_m <= high)).all(dim=-1)

    def stored_users(self, split: str) -> int | None:
        """How many users of a split are stored."""
        return len(self._split(split)[0])

    def sees(self, points_m: Tensor, split: str) -> Tensor:
        """[U, L] of the stored users next to points, see ``CsiSource``: nobody moves far from where it was traced."""
        places, _, seen = self._split("test" if split == "test" else "train")
        exact = "donot_use_mm_for_euclid_dist"
        nearest = [torch.cdist(part, places, compute_mode=exact).argmin(dim=1) for part in points_m.split(_SIGHT_CHUNK)]
        return seen[torch.cat(nearest)]

    def line_of_sight(self, users: Users) -> Tensor:
        """[U, L] whether a link has a line of sight; for reports, never for policies."""
        tables = {split: self._split(split)[2] for split in SPLITS if self._has(users.index, split)}
        seen = torch.zeros(len(users.index), len(self.bs_positions_m), dtype=torch.bool, device=self.device)
        for split, table in tables.items():
            rows = self._rows(users.index, split)
            seen[rows] = table[users.index[rows] - self._offset(split)]
        return seen

    def _select(self, index: Tensor) -> StoredPaths:
        there = [split for split in SPLITS if self._has(index, split)]
        if len(there) > 1:
            raise ValueError(f"users of {' and '.join(there)} in one batch; ask for their paths separately")
        split = there[0] if there else SPLITS[0]
        return self._split(split)[1].select(index - self._offset(split))

    def _has(self, index: Tensor, split: str) -> bool:
        return bool(self._rows(index, split).any())

    def _rows(self, index: Tensor, split: str) -> Tensor:
        return torch.div(index, _SPLIT_OFFSET, rounding_mode="floor") == SPLITS.index(split)

    def _offset(self, split: str) -> int:
        return _SPLIT_OFFSET * SPLITS.index(split)

    def _split(self, split: str) -> tuple[Tensor, StoredPaths, Tensor]:
        if split not in self._splits:
            shard = _loaded(self.folder, split)
            positions = torch.from_numpy(shard.positions_m).to(self.device)
            stored = _tensors(shard, self._num_paths)
            on_device = StoredPaths(**{name: value.to(self.device) for name, value in stored.__dict__.items()})
            self._splits[split] = positions, on_device, _line_of_sight(shard).to(self.device)
        return self._splits[split]


_SIGHT_CHUNK = 1024
# Numbers of the users of each split start at its multiple, so that a number alone identifies its split.
_SPLIT_OFFSET = 1 << 40


@lru_cache(maxsize=4)
def _loaded(folder: Path, split: str) -> Shard:
    return load_users(folder, split)[1]


def _tensors(shard: Shard, num_paths: int) -> StoredPaths:
    padded = shard.paths.padded(num_paths)
    kept = {entry.name: torch.from_numpy(padded[entry.name]) for entry in dataclasses.fields(StoredPaths)}
    return StoredPaths(**{**kept, "reflections": kept["reflections"].to(torch.int16)})


def _line_of_sight(shard: Shard) -> Tensor:
    paths = shard.paths
    counts = paths.counts()
    seen = np.zeros(counts.size, dtype=bool)
    seen[np.repeat(np.arange(counts.size), counts.reshape(-1))[paths.kind == 0]] = True
    return torch.from_numpy(seen.reshape(counts.shape))


def _facing(positions_m: Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
    """(yaw, pitch, roll) of level arrays whose broadside points to the middle of the area."""
    middle = 0.5 * (positions_m.new_tensor(low) + positions_m.new_tensor(high))
    away = middle - positions_m
    yaw = torch.atan2(away[:, 1], away[:, 0])
    return torch.stack((yaw, torch.zeros_like(yaw), torch.zeros_like(yaw)), dim=-1)


def _check_settings(folder: Path, header: Header, settings: EccSceneConfig) -> None:
    recipe = header.recipe
    if recipe.num_bss != settings.num_bs:
        raise DatasetError(f"{folder} has {recipe.num_bss} base stations; set num_bs={recipe.num_bss}")
    if not math.isclose(recipe.carrier_hz, settings.carrier_hz, rel_tol=_CARRIER_TOLERANCE):
        raise DatasetError(f"{folder} was traced at {recipe.carrier_hz:g} Hz; set carrier_hz={recipe.carrier_hz:g}")


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
