"""A data set that ``ecc-raytraced-v0`` plays, made of paths that another tool found."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from cfpos_envs.channels.tracing.origin import Origin
from cfpos_envs.channels.tracing.storage import (
    DatasetError,
    Header,
    Paths,
    Shard,
    present_shards,
    shard_path,
    write_shard,
)
from cfpos_envs.checks import number, one_of, whole
from cfpos_envs.importers.paths import ImportedPaths

HOLD_OUT = ("blocks", "random")
"""Which users are kept for testing: all those of some squares, or any. Neighbours on a grid are nearly one user."""
_LEAST_BOX_M = 1.0
_BLOCKS_ALONG = 12


def write_imported(
    paths: ImportedPaths,
    folder: str | Path,
    test_share: float = 0.1,
    hold_out: str = "blocks",
    block_m: float | None = None,
    seed: int = 0,
    max_paths: int = 32,
    dynamic_range_db: float = 60.0,
    shard_users: int = 500,
) -> Origin:
    """Write paths as a data set; users whom no path reaches are left out.

    Args:
        paths: what an importer returned.
        folder: new or empty.
        test_share: share of the users to hold out, above 0 and below 1.
        hold_out: one of ``HOLD_OUT``.
        block_m: side of the squares of ``blocks``; None: a twelfth of the area's longer side.
        seed: which users are held out.
        max_paths: strongest paths kept per link.
        dynamic_range_db: paths weaker than the link's strongest by more than this are left out.
        shard_users: users per file.

    Returns:
        The origin that the header now states.

    Raises:
        DatasetError: the folder holds something else, or there are too few users for both splits.
        ValueError: an option out of range.
    """
    one_of("hold_out", hold_out, HOLD_OUT)
    number("test_share", test_share, 0.0, 1.0, above=True)
    whole("seed", seed, 0)
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not an empty folder; choose a new one for the data set")
    paths = paths.heard()
    held = held_out(paths.positions_m, test_share, hold_out, block_m, seed)
    if held.all() or not held.any():
        raise DatasetError(
            f"{len(held)} users leave none for {'training' if held.all() else 'testing'} with "
            f"test_share={test_share:g} and hold_out={hold_out}; lower block_m, or take hold_out=random"
        )
    stored = Paths.from_padded(paths.fields(), paths.valid, max_paths, dynamic_range_db)
    origin = Origin(
        tool=paths.tool,
        scene=paths.name,
        num_bss=len(paths.bs_positions_m),
        carrier_hz=paths.carrier_hz,
        content=_digest(paths, held),
        max_paths=max_paths,
        dynamic_range_db=dynamic_range_db,
        shard_users=shard_users,
        bs_names=paths.bs_names,
    )
    header_of(paths, origin).write(folder)
    for split, chosen in (("train", np.flatnonzero(~held)), ("test", np.flatnonzero(held))):
        for index, start in enumerate(range(0, len(chosen), shard_users)):
            users = chosen[start : start + shard_users]
            shard = Shard(paths.positions_m[users].astype(np.float32), stored.select(users), 0)
            write_shard(shard_path(folder, split, index), origin, shard)
    return origin


def held_out(
    positions_m: np.ndarray, test_share: float, hold_out: str, block_m: float | None = None, seed: int = 0
) -> np.ndarray:
    """[U] which users are for testing.

    Args:
        positions_m: [U, 3].
        test_share, hold_out, block_m, seed: see ``write_imported``. Whole squares are drawn until the share is reached.
    """
    rng = np.random.default_rng(seed)
    wanted = max(1, round(test_share * len(positions_m)))
    if hold_out == "random":
        held = np.zeros(len(positions_m), dtype=bool)
        held[rng.permutation(len(positions_m))[:wanted]] = True
        return held
    low = positions_m[:, :2].min(axis=0)
    side_m = float(np.ptp(positions_m[:, :2], axis=0).max()) / _BLOCKS_ALONG if block_m is None else block_m
    number("block_m", max(side_m, 1e-9), 0.0, above=True)
    _, block = np.unique(np.floor((positions_m[:, :2] - low) / max(side_m, 1e-9)), axis=0, return_inverse=True)
    block = block.reshape(-1)
    order = rng.permutation(block.max() + 1)
    filled = np.cumsum(np.bincount(block)[order])
    return np.isin(block, order[: int(np.searchsorted(filled, wanted)) + 1])


def header_of(paths: ImportedPaths, origin: Origin) -> Header:
    """What stands beside the shards: the box around all users is at least a metre wide along every axis."""
    low, high = paths.positions_m.min(axis=0), paths.positions_m.max(axis=0)
    grown = np.maximum(_LEAST_BOX_M - (high - low), 0.0) / 2
    turned = paths.bs_orientation_rad
    return Header(
        origin,
        paths.bs_positions_m.astype(np.float32),
        (low - grown).astype(np.float32),
        (high + grown).astype(np.float32),
        paths.tool,
        None if turned is None else turned.astype(np.float32),
    )


def imported_summary(folder: str | Path) -> str:
    """What an imported data set holds, and how it is played."""
    folder = Path(folder)
    header = Header.read(folder)
    origin = header.recipe
    if not isinstance(origin, Origin):
        raise DatasetError(f"{folder} was traced, not imported")
    counts = {}
    for split in ("train", "test"):
        sizes = []
        for path in present_shards(folder, split):
            with np.load(path, allow_pickle=False) as arrays:
                sizes.append(len(arrays["positions_m"]))
        counts[split] = sum(sizes)
    return (
        f"{folder}: {origin.tool} {origin.scene} at {origin.carrier_hz / 1e9:g} GHz, {origin.num_bss} base stations "
        f"({', '.join(origin.bs_names)}), {counts['train']} users for training and {counts['test']} for testing\n"
        f"  make_env('ecc-raytraced-v0', dataset='{folder}', num_bs={origin.num_bss}, carrier_hz={origin.carrier_hz:g})"
    )


def _digest(paths: ImportedPaths, held: np.ndarray) -> str:
    digest = hashlib.sha256()
    for values in (paths.positions_m, paths.bs_positions_m, paths.valid, held, *paths.fields().values()):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]
