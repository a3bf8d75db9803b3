"""Which set a config means, read once for as long as its files do not change, and how many users an episode has."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

from jaxtyping import Int
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.datasets import MeasuredSet, load_dataset
from cfpos_envs.datasets.sample import sample
from cfpos_envs.datasets.table import load_table
from cfpos_envs.files.epochs import EpochOptions
from cfpos_envs.scenarios.measured.config import SAMPLE, TABLE, MeasuredConfig
from cfpos_envs.streams import Streams

EPISODES = 50
"""So many episodes of the default number of users show the whole test part."""


def stored_set(config: MeasuredConfig) -> MeasuredSet:
    """The set of a config.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: what is wrong with it.
    """
    if config.set == SAMPLE:
        return sample()
    path = Path(str(config.data))
    if not path.exists():
        raise FileNotFoundError(f"data={config.data}: there is no such file or folder")
    files = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    if config.site is not None:
        files.append(Path(config.site))
    stamps = tuple((entry.stat().st_mtime_ns, entry.stat().st_size) for entry in files if entry.is_file())
    return _stored(
        str(path.resolve()), config.set, config.site, json.dumps(dict(config.table or {}), default=list), stamps
    )


@lru_cache(maxsize=4)
def _stored(path: str, name: str, site: str | None, table: str, stamps: tuple[tuple[int, int], ...]) -> MeasuredSet:
    if name != TABLE:
        return load_dataset(name, path)
    assert site is not None
    options = json.loads(table)
    plural = {key: tuple(value) for key, value in options.items() if isinstance(value, list)}
    return load_table(path, site, EpochOptions(**{**options, **plural}))


def users_of(config: MeasuredConfig, measured: MeasuredSet) -> int:
    """K: what the config says, else as many as make ``EPISODES`` episodes show every test epoch."""
    return config.num_ues or -(-len(measured.test) // EPISODES)


def draw_rows(streams: Streams, count: int, num_envs: int, num_ues: int) -> Int[Tensor, "B K"]:
    """Epochs in random order, all of them before one comes again."""
    return draws.in_turn(streams["drop"], count, num_envs * num_ues).view(num_envs, num_ues)
