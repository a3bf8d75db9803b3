"""How far more positions and more compute take ECC in the ray-traced city: the learning surface and where it points.

Needs a data set in the folder ``munich-100k`` beside the results (``scripts/make_dataset.py --train 100000``); one with
fewer users gives the rows that it has users for. Rows that are finished are kept in the folder ``agents``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc.data import (
    BEST,
    COPIES,
    TracedData,
    Trained,
    by_sight,
    kept,
    processor_remark,
    train_network,
)
from cfpos_envs.drawing.figures import OKABE_ITO, plain_numbers
from cfpos_envs.supervised.agent_config import EccFastAgentConfig

FOLDER = "munich-100k"
LONG, MIDDLE, SHORT = 6_400_000, 3_200_000, 800_000
# (training positions, None: all of them; places within a metre beside each; snapshots seen), what matters most first.
Case = tuple[int | None, int, int]
CASES: tuple[Case, ...] = (
    (None, 0, LONG),
    (None, 0, SHORT),
    (18_000, 0, SHORT),
    (50_000, 0, SHORT),
    (18_000, 0, MIDDLE),
    (None, COPIES, SHORT),
)
_QUICK: tuple[Case, ...] = ((None, 1, 1024), (200, 0, 512))


def run(effort: Effort) -> Outcome:
    """Train the same network on more and more positions and snapshots, always tested on the same held-out users."""
    folder = None if effort.is_quick or effort.agents_folder is None else Path(effort.agents_folder)
    data = TracedData("" if folder is None else str(folder.parent / FOLDER))
    train, test = (data.measured(split, ("acf",)) for split in ("train", "test"))
    there = len(train.lit)
    cases = [case for case in (_QUICK if effort.is_quick else CASES) if case[0] is None or case[0] < there]
    runs: dict[tuple[int, int, int], Trained] = {}
    remarks = [
        f"{data.source.recipe.scene}, {there} training and {len(test.lit)} held-out outdoor users; ecc-fast with acf, "
        "d_z = 4 and Q = 4, one seed per row; three-dimensional errors. Snapshots seen are those of the rows; moved "
        "copies are further places within a metre of every position, to which its stored paths are moved.",
    ]
    try:
        for users, copies, samples in cases:
            positions = there if users is None else users

            def make(positions: int = positions, copies: int = copies, samples: int = samples) -> Trained:
                config = EccFastAgentConfig(**BEST, samples=samples)
                pool = data.with_moved(train.first(positions).pools["acf"], copies)
                return train_network(config, data, pool, test.pools["acf"], samples)

            moved = f"-moved-{copies}" if copies else ""
            name = f"positions-{BEST['head']}-{positions}-{samples}{moved}"
            runs[positions, copies, samples] = kept(None if folder is None else str(folder), name, make)
    except KeyboardInterrupt:
        if not runs:
            raise
        remarks.append(f"Stopped early: {len(runs)} of {len(cases)} rows.")
    runs = dict(sorted(runs.items()))
    rows = [
        {
            "positions": positions,
            "moved copies": copies,
            "snapshots seen": samples,
            "bits/BS": trained.bits,
            "mean_m": float(trained.errors_m.mean()),
            "median_m": float(np.median(trained.errors_m)),
            "p90_m": float(np.percentile(trained.errors_m, 90)),
            **by_sight(trained.errors_m, test.lit.sum(dim=1)),
            "training CPU-s": round(trained.cpu_s),
        }
        for (positions, copies, samples), trained in runs.items()
    ]
    remarks += [processor_remark("training CPU-s"), *_pointing(rows)]
    return Outcome(rows, _figure(rows), remarks)


def exponent(numbers: Sequence[float], errors_m: Sequence[float]) -> float:
    """Exponent b of the power law e = a s^-b through the ends of a curve.

    Args:
        numbers: s > 0, of positions or snapshots, rising.
        errors_m: e > 0.
    """
    return float(np.log(errors_m[0] / errors_m[-1]) / np.log(numbers[-1] / numbers[0]))


def _pointing(rows: list[dict[str, Any]]) -> list[str]:
    """What the last steps of the curves would give if they went on: extrapolation, not measurement."""
    rows = [row for row in rows if not row["moved copies"]]
    most = max((row["positions"] for row in rows), default=0)
    seen = [row for row in rows if row["positions"] == most]
    found = []
    if len(seen) > 1:
        last = seen[-2:]
        numbers = [row["snapshots seen"] for row in last]
        mean, median = (exponent(numbers, [row[key] for row in last]) for key in ("mean_m", "median_m"))
        found.append(
            f"From {numbers[0]} to {numbers[1]} snapshots at {most} positions the mean falls as s^-{mean:.2f}, the "
            f"median as s^-{median:.2f}; four times as many would give {last[1]['mean_m'] * 4**-mean:.2f} m and "
            f"{last[1]['median_m'] * 4**-median:.2f} m if that went on (extrapolated, not measured)."
        )
    same = [row for row in rows if row["snapshots seen"] == SHORT]
    if len(same) > 1:
        numbers = [row["positions"] for row in same]
        mean, median = (exponent(numbers, [row[key] for row in same]) for key in ("mean_m", "median_m"))
        found.append(
            f"From {numbers[0]} to {numbers[-1]} positions at {SHORT} snapshots the mean falls as n^-{mean:.2f}, the "
            f"median as n^-{median:.2f}."
        )
    return found


def _figure(rows: list[dict[str, Any]]) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
    curves = (("positions", "snapshots seen", axes[0]), ("snapshots seen", "positions", axes[1]))
    for fixed, along, part in curves:
        for index, (value, copies) in enumerate(sorted({(row[fixed], row["moved copies"]) for row in rows})):
            line = [row for row in rows if (row[fixed], row["moved copies"]) == (value, copies)]
            for key, style in (("mean_m", "o-"), ("median_m", "o:")):
                label = f"{value:,} {fixed}, {key[:-2]}".replace(",", " ", value.__format__(",").count(","))
                label += ", users moved" if copies else ""
                points = [row[key] for row in line]
                part.plot([row[along] for row in line], points, style, color=OKABE_ITO[index], label=label)
        part.set(xscale="log", yscale="log", xlabel=along)
        plain_numbers(part.yaxis)
        part.grid(True, color="#E4E4E4")
        part.legend(fontsize=7)
    axes[0].set(ylabel="3-D error [m]")
    return figure
