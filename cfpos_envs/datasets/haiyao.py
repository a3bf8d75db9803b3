"""Wi-Fi FTM ranges and RSS of people walking laps: one row per link, an epoch is (circle, user, class_idx)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.files.epochs import EpochOptions, read_epochs
from cfpos_envs.files.tables import read_table

SOURCE = Source(
    "RTT indoor localization, laps in a car park and a library (Yu)",
    "https://github.com/haiyaoyu/RTT-Indoor-localization-data-set",
    "MIT",
    "walked line",
)
FTM_STD_M = 1.0
_COLUMNS = {
    "AP_idx": "ap",
    "RTT": "range_m",
    "RTT std": "std_m",
    "RSS": "rss_dbm",
    "circle": "episode",
    "class_idx": "epoch",
    "true_x": "truth_x_m",
    "true_y": "truth_y_m",
}


def scenes(folder: Path) -> tuple[str, ...]:
    """``dataset_SCENE.csv``."""
    return tuple(path.stem.removeprefix("dataset_") for path in sorted(folder.glob("dataset_*.csv")))


def load(folder: Path, scene: str) -> MeasuredSet:
    """One building: the first lap trains, the others test; the reported standard deviation of a range is kept.

    Raises:
        ValueError: missing columns, an access point at two places.
        OSError: the file cannot be read.
    """
    path = folder / f"dataset_{scene}.csv"
    table = read_table(path)
    table.require((*_COLUMNS, "user", "AP_x", "AP_y"), "the layout of Yu's walks")
    names, aps = _access_points(table.texts("AP_idx"), table.numbers(("AP_x", "AP_y")), table.file)
    epochs = read_epochs(path, names, EpochOptions(renamed=_COLUMNS, on_bad="drop"))
    assert epochs.truth_m is not None
    laps = epochs.episode
    whole = Recording(
        truth_m=epochs.truth_m,
        group=laps.astype(str),
        user=epochs.user,
        range_m=epochs.links["range"],
        std_m=epochs.links["std"],
        rss_dbm=epochs.links["rss"],
    )
    first = laps == laps.min()
    if first.all():
        raise ValueError(f"{table.file} holds one lap (circle) only; training and test need one each")
    return MeasuredSet(
        name=f"haiyao/{scene}",
        source=SOURCE,
        ap_names=names,
        ap_positions_m=aps,
        user_height_m=None,
        range_std_m=FTM_STD_M,
        train=whole.select(first),
        test=whole.select(~first),
        notes=tuple(note for note in epochs.notes if "left out" in note),
    )


def _access_points(labels: tuple[str, ...], places_m: np.ndarray, file: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Names in order and their places [M, 2]."""
    at: dict[str, np.ndarray] = {}
    for label, place in zip(labels, places_m):
        if not np.array_equal(at.setdefault(label, place), place):
            raise ValueError(f"{file}: AP {label} stands at {at[label].tolist()} and at {place.tolist()}")
    names = tuple(sorted(at, key=lambda label: (len(label), label)))
    return names, np.array([at[name] for name in names])
