"""UWB ranges of a vehicle, one file per anchor with its own times; truth from RTK GNSS, at times of its own.

A folder per drive with ``A<id>.csv`` (``field.stamp`` ns, ``field.x, field.y, field.z`` of the anchor,
``field.distanceFromTag`` m, ``field.rssi`` dBm) and ``trajectory.csv`` (``timestamp`` ns, ``x, y, z``). Its ``z`` is
not in the frame of the anchors, so only places in the plane are compared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.files.epochs import SECONDS
from cfpos_envs.files.tables import read_table
from cfpos_envs.files.windows import gathered

SOURCE = Source(
    "UWB ranges around a vehicle, dynamic measurements (Hanyang University)",
    "https://github.com/cucudasluv/UWB-dataset",
    "Apache-2.0",
    "RTK GNSS",
)
UWB_STD_M = 0.2
TAG_HEIGHT_M = 1.0
WINDOW_S = 0.05
"""The anchors are asked in turn, all of them every tenth of a second, within milliseconds."""
TRAIN_SHARE = 0.25
_COLUMNS = ("field.stamp", "field.x", "field.y", "field.z", "field.distanceFromTag", "field.rssi")


def scenes(folder: Path) -> tuple[str, ...]:
    """Folders with a trajectory and anchors, as paths below ``folder``; ``.`` for ``folder`` itself."""
    drives = [path.parent for path in sorted(folder.rglob("trajectory.csv")) if len(_anchor_files(path.parent)) > 2]
    return tuple(drive.relative_to(folder).as_posix() for drive in drives)


def load(folder: Path, scene: str) -> MeasuredSet:
    """One drive; its first quarter trains, the rest tests.

    Raises:
        ValueError: missing columns, fewer than three anchors.
        OSError: a file cannot be read.
    """
    drive = folder / scene
    files = _anchor_files(drive)
    if len(files) < 3:
        raise ValueError(f"{drive} has {len(files)} files A<id>.csv; three anchors are needed")
    streams, aps = [], []
    for path in files:
        table = read_table(path)
        table.require(_COLUMNS, "the layout of the drives")
        columns = table.numbers(_COLUMNS)
        aps.append(columns[0, 1:4])
        streams.append((columns[:, 0] * SECONDS["ns"], columns[:, 4:6]))
    truth = read_table(drive / "trajectory.csv")
    truth.require(("timestamp", "x", "y"), "the way of the vehicle")
    way = truth.numbers(("timestamp", "x", "y"))
    way[:, 0] *= SECONDS["ns"]
    time_s, links = _epochs(streams, WINDOW_S)
    inside = (time_s >= way[0, 0]) & (time_s <= way[-1, 0])
    time_s, links = time_s[inside], links[inside]
    places = np.stack([np.interp(time_s, way[:, 0], way[:, axis]) for axis in (1, 2)], axis=1)
    whole = Recording(
        truth_m=places,
        group=np.full(len(time_s), scene),
        user=np.full(len(time_s), "0"),
        range_m=links[..., 0],
        rss_dbm=links[..., 1],
        time_s=time_s - time_s[0],
    )
    first = round(TRAIN_SHARE * len(whole))
    return MeasuredSet(
        name=f"hanyang/{scene}",
        source=SOURCE,
        ap_names=tuple(path.stem for path in files),
        ap_positions_m=np.array(aps),
        user_height_m=TAG_HEIGHT_M,
        range_std_m=UWB_STD_M,
        train=whole.select(slice(0, first)),
        test=whole.select(slice(first, None)),
        notes=(f"the tag is taken to be {TAG_HEIGHT_M:g} m high",),
    )


def _anchor_files(drive: Path) -> list[Path]:
    """``A3.csv``, ``A12.csv`` ... by number."""
    return sorted(
        (path for path in drive.glob("A*.csv") if path.stem[1:].isdigit()), key=lambda path: int(path.stem[1:])
    )


def _epochs(streams: list[tuple[np.ndarray, np.ndarray]], window_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean times [n] and links [n, M, 2] of epochs in which some anchor answered."""
    anchor = np.concatenate([np.full(len(times), index) for index, (times, _) in enumerate(streams)])
    times, values = (np.concatenate(columns) for columns in zip(*streams))
    epoch = gathered(times, anchor, window_s)
    links = np.full((epoch.max() + 1, len(streams), 2), np.nan)
    links[epoch, anchor] = values
    return times.min() + np.bincount(epoch, times - times.min()) / np.bincount(epoch), links
