"""Measured data sets by name: ``feng/office``, ``hanyang/NLOS/Trajectory_B/Case_3``, ``uji``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from cfpos_envs.checks import nearest, one_of
from cfpos_envs.datasets import epic, feng, haiyao, hanyang, lias, tetam, uji
from cfpos_envs.datasets.base import MeasuredSet, Source
from cfpos_envs.datasets.scale import check_scale


@dataclass(frozen=True)
class Layout:
    """How one set lies on disk: its source, which scenes a folder holds, and how one is read."""

    source: Source
    scenes: Callable[[Path], tuple[str, ...]]
    load: Callable[..., MeasuredSet]


LAYOUTS: dict[str, Layout] = {
    module.__name__.rpartition(".")[2]: Layout(module.SOURCE, module.scenes, module.load)
    for module in (feng, haiyao, lias, hanyang, tetam, uji, epic)
}
"""The sets that can be read, by name."""


def scenes(name: str, folder: str | PathLike[str]) -> tuple[str, ...]:
    """Scenes of a set that a folder holds: rooms, buildings, days, drives.

    Args:
        name: one of ``LAYOUTS``.
        folder: with the set's files.

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: there is no such folder, or nothing of that layout in it.
    """
    one_of("set", name, LAYOUTS)
    place = Path(folder)
    if not place.is_dir():
        raise FileNotFoundError(f"{place}: there is no such folder")
    found = LAYOUTS[name].scenes(place)
    if not found:
        raise FileNotFoundError(f"{place} holds no files of the layout {name!r}; see docs/measured.md")
    return found


def load_dataset(name: str, folder: str | PathLike[str], **options: Any) -> MeasuredSet:
    """One scene of a measured set in the suite's own types.

    Args:
        name: ``SET/SCENE``, or ``SET`` alone where the folder holds one scene.
        folder: with the set's files as published.
        options: of the set's reader (``grid_m`` of ``feng``).

    Raises:
        ValueError: an unknown set or scene, missing columns, ranges or places in another unit than they say.
        OSError: no such folder, or a file cannot be read.
    """
    layout, _, scene = name.partition("/")
    there = scenes(layout, folder)
    if not scene and len(there) > 1:
        raise ValueError(f"set {name!r}: {folder} holds {len(there)} scenes; choose {_listed(layout, there)}")
    if scene and scene not in there:
        hint = nearest(scene, there)
        raise ValueError(
            f"set {layout!r} has no scene {scene!r} in {folder}{hint or '.'} It has: {_listed(layout, there)}"
        )
    measured = LAYOUTS[layout].load(Path(folder), scene or there[0], **options)
    check_scale(measured)
    return measured


def _listed(layout: str, there: tuple[str, ...]) -> str:
    return ", ".join(f"{layout}/{scene}" for scene in there)
