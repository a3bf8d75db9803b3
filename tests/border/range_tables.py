"""Made-up ranges of three users, and tables of them as people write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

APS = np.array([[0.0, 0.0], [40.0, 0.0], [40.0, 30.0], [0.0, 30.0], [18.0, 12.0]])
USERS = np.array([[12.0, 9.0], [31.0, 24.0], [5.5, 20.0]])
RANGES = np.linalg.norm(USERS[:, None] - APS, axis=2)
NAMES = ("gate", "dock", "crane", "3", "Press")


def written(folder: Path, text: str, name: str = "ranges.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def wide(values: np.ndarray, order: list[int], quantity: str = "range") -> str:
    lines = [",".join(["time_s", *(f"{quantity}_{NAMES[ap]}" for ap in order)])]
    for time, row in enumerate(values.tolist()):
        lines.append(",".join([str(time), *("" if np.isnan(row[ap]) else repr(row[ap]) for ap in order)]))
    return "\n".join(lines) + "\n"


def long(values: np.ndarray, order: list[int]) -> str:
    links = [(ap, time, float(values[time, ap])) for ap in order for time in range(len(values))]
    rows = [f"{NAMES[ap]},{value!r},{time}" for ap, time, value in links if not np.isnan(value)]
    return "\n".join(["ap,range_m,time_s", *rows]) + "\n"
