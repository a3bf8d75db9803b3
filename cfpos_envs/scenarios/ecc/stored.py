"""A person's own CSI as a world: users are snapshots of a file, split by the places where they were taken."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.channels.sources import Users
from cfpos_envs.importers.arrays import CsiFile, read_csi
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.measurements.ecc_arrays import triple
from cfpos_envs.scenarios.ecc.csi_config import EccCsiConfig
from cfpos_envs.scenarios.ecc.options import check_lost
from cfpos_envs.scenarios.ecc.snapshots import Snapshots
from cfpos_envs.streams import Streams, derive_seed

MARGIN_M = 1.0
"""The area reaches this far beyond the surveyed places."""
BLOCKS = 12
"""Along the longest side of the area, where nobody says how long a block is."""


def sample_file() -> Path:
    """The small sample that comes with the package: enough to play and test, not to compare methods on."""
    return Path(str(files("cfpos_envs.scenarios.ecc") / "data" / "own-csi-sample.npz"))


class StoredUsers:
    """A ``UserSource`` of the snapshots of a file; see there for the attributes.

    Args:
        positions_m: [P, 3] where they were taken.
        rows: numbers of the snapshots of every split.
        bs_positions_m, bs_orientation_rad: [L, 3].
        system: with the area.
        name: of the file.
    """

    def __init__(
        self,
        positions_m: Float[Tensor, "P 3"],
        rows: dict[str, Tensor],
        bs_positions_m: Float[Tensor, "L 3"],
        bs_orientation_rad: Float[Tensor, "L 3"],
        system: CsiSystem,
        name: str,
    ) -> None:
        self.name, self._positions_m, self.rows = name, positions_m, rows
        self.area_min_m, self.area_max_m = system.area_min_m, system.area_max_m
        self.bs_positions_m, self.bs_orientation_rad = bs_positions_m, bs_orientation_rad
        self.box_min_m = self.box_max_m = positions_m.new_zeros(0, 3)

    def draw_users(self, generator: draws.Source, count: int, split: str) -> Users:
        """Snapshots of a split in random order; all of them before one comes again. ``calibrate`` is training."""
        rows = self.rows["train" if split == "calibrate" else split]
        index = rows[draws.in_turn(generator, len(rows), count)]
        return Users(self._positions_m[index], index)


class StoredCsi:
    """A ``World`` of stored snapshots.

    Attributes:
        origin_m: where zero of the game's coordinates lies in the file's.

    Args:
        file: with places.
        config: how it is split.
        device: where the tensors live.

    Raises:
        ValueError: too few blocks or groups for a split, or more lost base stations than there are.
    """

    def __init__(self, file: CsiFile, config: EccCsiConfig, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        assert file.positions_m is not None
        numbers = split_rows(file, config)
        # Averages of training alone; test and validation are unseen.
        measured = file.select(numbers["train"]).measurements()
        self.origin_m = measured.origin_m
        places = file.positions_m - np.asarray(measured.origin_m)
        given = None if file.area_m is None else file.area_m - np.asarray(measured.origin_m)
        low, high = (places.min(axis=0) - MARGIN_M, places.max(axis=0) + MARGIN_M) if given is None else given
        outside = ((places < low) | (places > high)).any(axis=1)
        if outside.any():
            first = int(outside.argmax())
            raise ValueError(f"{file.path}: positions_m[{first}] is {file.positions_m[first]}, outside of area_m")
        self.system = dataclasses.replace(measured.system, area_min_m=triple(low), area_max_m=triple(high))
        check_lost(config.lost_bs, self.system.num_bs)
        self._csi = torch.from_numpy(file.csi).to(self.device)
        self._valid = torch.from_numpy(file.valid).to(self.device)
        self.source = StoredUsers(
            torch.from_numpy(places).float().to(self.device),
            {name: torch.from_numpy(rows).to(self.device) for name, rows in numbers.items()},
            measured.bs_positions_m[0].to(self.device),
            measured.bs_orientation_rad[0].to(self.device),
            self.system,
            Path(file.path).name,
        )

    def measure(self, streams: Streams, users: Users, displacement_m: Float[Tensor, "U S 3"]) -> Snapshots:
        """What was stored; see ``World``. Nobody moves and nothing is drawn."""
        return Snapshots(self._csi[users.index].unsqueeze(1), self._valid[users.index].unsqueeze(1))


def split_rows(file: CsiFile, config: EccCsiConfig) -> dict[str, np.ndarray]:
    """Numbers of the snapshots of ``train``, ``validation`` and ``test``; together all that some BS hears.

    Whole blocks of the ground, or groups, go to the test until it has its share, then to validation; training has the
    rest.

    Args:
        file: with places.
        config: ``split_by``, ``split_block_m``, shares and seed.

    Raises:
        ValueError: fewer than three blocks or groups, a split that stays empty, or no groups in the file.
    """
    heard = np.flatnonzero(file.valid.any(axis=1))
    labels, unit = _labels(file, config)
    kinds, member = np.unique(labels[heard], axis=0, return_inverse=True)
    order = np.random.default_rng(derive_seed(config.split_seed, "split")).permutation(len(kinds))
    if len(kinds) < 3:
        raise ValueError(
            f"{file.path}: the snapshots lie in {len(kinds)} {unit}, but training, validation and test need one each; "
            "lower split_block_m"
        )
    sizes = np.bincount(member.ravel(), minlength=len(kinds))[order]
    before = np.concatenate(([0], sizes.cumsum()[:-1])) / len(heard)
    names = np.where(before < config.test_share, "test", "train")
    rest = (before - before[names == "train"].min()) if (names == "train").any() else before
    names = np.where((names == "train") & (rest < config.validation_share), "validation", names)
    by_kind = dict(zip(order.tolist(), names.tolist()))
    chosen = np.array([by_kind[int(kind)] for kind in member.ravel()])
    rows = {name: heard[chosen == name] for name in config.splits}
    for name, found in rows.items():
        if len(found) == 0:
            raise ValueError(
                f"{file.path}: {len(kinds)} {unit} leave no snapshot for {name}; lower split_block_m, validation_share "
                "or test_share"
            )
    return rows


def _labels(file: CsiFile, config: EccCsiConfig) -> tuple[np.ndarray, str]:
    """What belongs together, one entry or row per snapshot, and how to call it."""
    assert file.positions_m is not None
    if config.split_by == "group":
        if file.group is None:
            raise ValueError(f"{file.path}: split_by=group, but there is no array 'group'; use split_by=place")
        return file.group, "groups"
    ground = file.positions_m[:, :2] - file.positions_m[:, :2].min(axis=0)
    block_m = config.split_block_m or max(float(ground.max()) / BLOCKS, 1e-3)
    # A place on the far edge belongs to the last block.
    return np.floor(ground / block_m).astype(int), f"blocks of {block_m:.3g} m"


def stored_world(config: EccCsiConfig, device: str) -> StoredCsi:
    """The world of a file, read once for as long as it does not change.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what is wrong with it, or with its split.
    """
    path = sample_file() if config.data is None else Path(config.data)
    if not path.is_file():
        raise FileNotFoundError(f"data={config.data}: there is no such file")
    stamp = path.stat()
    plain = EccCsiConfig(**{name: getattr(config, name) for name in _OF_THE_WORLD})
    return _world(str(path.resolve()), stamp.st_mtime_ns, stamp.st_size, plain, plain.antenna_order, device)


_OF_THE_WORLD = (
    "data", "antenna_order", "phase", "subcarrier_order", "split_by", "split_block_m", "validation_share",
    "test_share", "split_seed", "lost_bs",
)  # fmt: skip


@lru_cache(maxsize=4)
def _world(path: str, modified_ns: int, size: int, config: EccCsiConfig, antenna_order: Any, device: str) -> StoredCsi:
    file = read_csi(
        path,
        antenna_order=antenna_order,
        phase=config.phase,
        subcarrier_order=config.subcarrier_order,
        labelled=True,
    )
    return StoredCsi(file, config, device)
