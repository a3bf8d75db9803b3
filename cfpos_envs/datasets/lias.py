"""UWB two-way ranges of three tags on a robot that stands at known poses, wide files: one row per epoch and tag.

``static_DAY.csv`` with ``pose, deg, tag, true_x_m, true_y_m, range_a0_m ...``, ``anchors_DAY.csv`` with
``x_m, y_m, z_m``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.files.tables import read_table

SOURCE = Source(
    "Pose estimation by UWB, static poses (LIAS, CUHK-SZ)",
    "https://github.com/LIAS-CUHKSZ/Efficient-Pose-Estimation-via-UWB-measurements",
    "MIT",
    "motion capture",
)
UWB_STD_M = 0.1
_COLUMNS = ("pose", "deg", "tag", "true_x_m", "true_y_m")


def scenes(folder: Path) -> tuple[str, ...]:
    """Days of which anchors and ranges are there."""
    days = [path.stem.removeprefix("static_") for path in sorted(folder.glob("static_*.csv"))]
    return tuple(day for day in days if (folder / f"anchors_{day}.csv").is_file())


def load(folder: Path, scene: str) -> MeasuredSet:
    """One day: the pose with the highest number trains, the other poses test.

    Anchors and tags stand at one height: distances are those in the plane.

    Raises:
        ValueError: missing columns, fewer than two poses.
        OSError: a file cannot be read.
    """
    anchors, table = read_table(folder / f"anchors_{scene}.csv"), read_table(folder / f"static_{scene}.csv")
    anchors.require(("x_m", "y_m"), "places of the anchors")
    names = tuple(f"a{number}" for number in range(len(anchors)))
    columns = [f"range_{name}_m" for name in names]
    table.require((*_COLUMNS, *columns), "the layout of the UWB poses")
    poses = table.numbers(("pose",))[:, 0]
    whole = Recording(
        truth_m=table.numbers(("true_x_m", "true_y_m")),
        group=np.array(table.texts("pose")),
        user=np.array(table.texts("tag")),
        range_m=table.numbers(columns),
    )
    held = poses == poses.max()
    if held.all():
        raise ValueError(f"{table.file} holds one pose only; training and test need one each")
    return MeasuredSet(
        name=f"lias/{scene}",
        source=SOURCE,
        ap_names=names,
        ap_positions_m=anchors.numbers(("x_m", "y_m")),
        user_height_m=None,
        range_std_m=UWB_STD_M,
        train=whole.select(held),
        test=whole.select(~held),
    )
