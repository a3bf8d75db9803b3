"""BLE RSSI of a badge at fixed sensors: a survey of points and tracks with places from tags on the floor.

``sensors.csv`` (``sensor, x_m, y_m, z_m``), ``survey_*.csv`` (means per point) and ``tracks_*.csv`` (means per second),
both with ``x_m, y_m, rss_SENSOR``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.files.surveys import read_survey
from cfpos_envs.files.tables import read_table

SOURCE = Source(
    "Position-annotated BLE RSSI (Tetam)",
    "https://github.com/philotuxo/Position-Annotated-BLE-RSSI-Dataset",
    "CC0 1.0",
    "AR tags, 4 cm",
)
BADGE_HEIGHT_M = 1.5


def scenes(folder: Path) -> tuple[str, ...]:
    """Surveys by the end of their names; the tracks test all of them."""
    return tuple(path.stem.removeprefix("survey_") for path in sorted(folder.glob("survey_*.csv")))


def load(folder: Path, scene: str) -> MeasuredSet:
    """One survey trains, all tracks test.

    Raises:
        ValueError: missing columns, no tracks, sensors without a place.
        OSError: a file cannot be read.
    """
    sensors = read_table(folder / "sensors.csv")
    sensors.require(("sensor", "x_m", "y_m", "z_m"), "places of the sensors")
    names = sensors.texts("sensor")
    tracks = sorted(folder.glob("tracks_*.csv"))
    if not tracks:
        raise FileNotFoundError(f"{folder}: no tracks_*.csv to test on")
    return MeasuredSet(
        name=f"tetam/{scene}",
        source=SOURCE,
        ap_names=names,
        ap_positions_m=sensors.numbers(("x_m", "y_m", "z_m")),
        user_height_m=BADGE_HEIGHT_M,
        range_std_m=None,
        train=_recording([folder / f"survey_{scene}.csv"], names, "survey"),
        test=_recording(tracks, names, "track"),
        notes=(f"the badge is taken to be {BADGE_HEIGHT_M:g} m high",),
    )


def _recording(paths: list[Path], names: tuple[str, ...], kind: str) -> Recording:
    table = read_survey(paths)
    rss_dbm, looked_for = table.rows_with(names)
    if table.positions_m is None or not looked_for.all():
        lacking = [name for name, there in zip(names, looked_for) if not there]
        what = f"columns rss_ of {', '.join(lacking)}" if lacking else "columns x_m and y_m"
        raise ValueError(f"{table.file} lacks {what}")
    places = [f"{x:g},{y:g}" for x, y in table.positions_m]
    return Recording(
        truth_m=table.positions_m,
        group=np.array(places if kind == "survey" else [kind] * len(places)),
        user=np.full(len(table), "0"),
        rss_dbm=rss_dbm,
    )
