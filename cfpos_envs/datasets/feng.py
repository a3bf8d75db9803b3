"""Wi-Fi FTM ranges and RSS in rooms, on a grid: CSV files per room and part, places in grid steps.

``database_ROOM_{train,test}.csv`` with ``X, Y, APn RTT(mm), APn RSS(dBm), LOS APs``, and a text file
``*AP_position.txt`` with the rooms' names and their ``AP X:`` and ``AP Y:`` lines.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.files.tables import Table, read_table

SOURCE = Source(
    "Wi-Fi RSS and RTT in a lecture theatre, an office and a corridor (Feng et al.)",
    "https://github.com/Fx386483710/WiFi_RSS_RTT_Dataset_for_Model_Selection",
    "MIT",
    "surveyed grid",
)
GRID_M = 0.6
"""Step of the grid in which the files give all places."""
NOT_RANGED, NOT_HEARD = 100_000.0, -200.0
"""Marks for missing: mm and dBm."""
FTM_STD_M = 1.0
"""What FTM over 40 to 80 MHz scatters by indoors."""
_FILE = re.compile(r"database_(.+)_(train|test)\.csv")
_RANGE = re.compile(r"AP(\d+) RTT\(mm\)")


def scenes(folder: Path) -> tuple[str, ...]:
    """Rooms of which both parts are there."""
    found = [match.groups() for path in sorted(folder.glob("database_*.csv")) if (match := _FILE.fullmatch(path.name))]
    return tuple(dict.fromkeys(room for room, _ in found if {(room, "train"), (room, "test")} <= {*found}))


def load(folder: Path, scene: str, grid_m: float = GRID_M) -> MeasuredSet:
    """One room; training and test are different points of its grid.

    Access points that no training scan ranges to are left out: the corridor's file lists one that is never heard, and
    the places in the text file are those of the others.

    Args:
        folder: with the files.
        scene: the room.
        grid_m: metres per step.

    Raises:
        ValueError: missing columns, another number of places than access points.
        OSError: a file cannot be read.
    """
    tables = [read_table(folder / f"database_{scene}_{part}.csv") for part in ("train", "test")]
    numbers = [match[1] for name in tables[0].columns if (match := _RANGE.fullmatch(name))]
    if not numbers:
        raise ValueError(f"{tables[0].file} has no column 'APn RTT(mm)'. It has: {', '.join(tables[0].columns)}")
    parts = [_recording(table, numbers, grid_m) for table in tables]
    ranges = parts[0].range_m
    assert ranges is not None
    heard = np.isfinite(ranges).any(axis=0)
    aps = _places(folder, scene)
    silent = [f"AP{number}" for number, is_heard in zip(numbers, heard) if not is_heard]
    if len(aps) == len(numbers):
        heard[:] = True
    elif len(aps) != heard.sum():
        raise ValueError(
            f"{folder}: {len(aps)} places of access points for {scene}, but {int(heard.sum())} of {len(numbers)} are "
            "heard; complete the file of places"
        )
    return MeasuredSet(
        name=f"feng/{scene}",
        source=SOURCE,
        ap_names=tuple(f"AP{number}" for number, is_heard in zip(numbers, heard) if is_heard),
        ap_positions_m=aps * grid_m,
        user_height_m=None,
        range_std_m=FTM_STD_M,
        train=_of_aps(parts[0], heard),
        test=_of_aps(parts[1], heard),
        notes=tuple(f"{name} is never heard and left out" for name in silent if not heard.all()),
    )


def _recording(table: Table, numbers: list[str], grid_m: float) -> Recording:
    ranged, heard = ([f"AP{number} {kind}" for number in numbers] for kind in ("RTT(mm)", "RSS(dBm)"))
    table.require(("X", "Y", *ranged, *heard), "the layout of Feng's rooms")
    steps = table.numbers(("X", "Y"))
    return Recording(
        truth_m=steps * grid_m,
        group=np.array([f"{x:g},{y:g}" for x, y in steps]),
        user=np.full(len(table), "0"),
        range_m=table.numbers(ranged, (NOT_RANGED,)) * 1e-3,
        rss_dbm=table.numbers(heard, (NOT_HEARD,)),
    )


def _of_aps(part: Recording, kept: np.ndarray) -> Recording:
    assert part.range_m is not None
    assert part.rss_dbm is not None
    return Recording(part.truth_m, part.group, part.user, part.range_m[:, kept], rss_dbm=part.rss_dbm[:, kept])


def _places(folder: Path, scene: str) -> np.ndarray:
    """[M, 2] grid steps of a room's access points."""
    files = sorted(folder.glob("*AP_position*.txt"))
    if not files:
        raise FileNotFoundError(f"{folder}: no file *AP_position*.txt with the places of the access points")
    rooms: dict[str, dict[str, list[float]]] = {}
    room = ""
    for line in files[0].read_text(encoding="utf-8-sig").splitlines():
        head, colon, rest = line.partition(":")
        axis = head.strip().casefold().removeprefix("ap ")
        if colon and axis in ("x", "y"):
            rooms.setdefault(room, {})[axis] = [float(word) for word in rest.replace(",", " ").split()]
        elif line.strip():
            room = line.strip().casefold().replace(" ", "_")
    found = rooms.get(scene.casefold().replace(" ", "_"), {})
    if sorted(found) != ["x", "y"] or len(found["x"]) != len(found["y"]):
        raise ValueError(f"{files[0].name} has no lines 'AP X:' and 'AP Y:' of equal length for {scene}")
    return np.array([found["x"], found["y"]]).T
