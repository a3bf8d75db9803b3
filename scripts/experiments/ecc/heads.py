"""Heads, moved users and lost messages in the ray-traced city, compared on training users set aside.

Needs the data set of ``ecc-munich``. Rows that are finished are kept in the folder ``agents``; Ctrl-C ends the run
early and writes those.
"""

from __future__ import annotations

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
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.agent_config import EccFastAgentConfig

SAMPLES, ASIDE = 300_000, 2_000
_QUICK_SAMPLES, _QUICK_ASIDE = 512, 50
_PLAIN: dict[str, Any] = {**BEST, "components": 1}
# (settings, whether users are moved), what matters most first.
CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "bins of 4 m": ({}, False),
    "users moved": ({}, True),
    "users moved, 15 % of messages lost": ({"bs_dropout": 0.15}, True),
    "users moved, learning rate 0.003": ({"lr": 0.003}, True),
    "mixture of 6": ({"components": 6}, False),
    "three numbers": ({"head": "regression"}, False),
    "bins of 2 m": ({"bins": 150}, False),
    "bins of 8 m": ({"bins": 38}, False),
}


def run(effort: Effort) -> Outcome:
    """Train on all but the last training users, test on those."""
    folder = None if effort.agents_folder is None or effort.is_quick else Path(effort.agents_folder)
    data = TracedData("" if folder is None else str(folder.parent / "munich"))
    samples, aside = (_QUICK_SAMPLES, _QUICK_ASIDE) if effort.is_quick else (SAMPLES, ASIDE)
    measured = data.measured("train", ("acf",))
    train, rest = measured.pools["acf"].split(aside)
    names = effort.chosen(tuple(CASES))
    runs: dict[str, Trained] = {}
    remarks = [
        f"{data.source.recipe.scene}: ecc-fast with acf, {samples} snapshots of {len(train)} training users in batches "
        f"of {BEST['batch_size']}, tested on the {aside} training users that were set aside; one seed. Moved users: "
        f"each also at {COPIES} places within {data.source.max_displacement_m:g} m. {processor_remark()}"
    ]
    try:
        for name in names:

            def make(name: str = name) -> Trained:
                changes, moved = CASES[name]
                config = EccFastAgentConfig(**{**_PLAIN, **changes}, samples=samples)
                pool = data.with_moved(train, COPIES) if moved else train
                return train_network(config, data, pool, rest, samples)

            label = "".join(letter if letter.isalnum() else "-" for letter in name)
            runs[name] = kept(None if folder is None else str(folder), f"heads-{samples}-{label}", make)
    except KeyboardInterrupt:
        if not runs:
            raise
        remarks.append(f"Stopped early: {len(runs)} of {len(names)} rows.")
    in_sight = measured.lit[-aside:].sum(dim=1)
    rows = [
        {
            "settings": name,
            "mean_m": float(trained.errors_m.mean()),
            "median_m": float(np.median(trained.errors_m)),
            "p90_m": float(np.percentile(trained.errors_m, 90)),
            **dict(list(by_sight(trained.errors_m, in_sight).items())[:4]),
            "training CPU-s": round(trained.cpu_s),
        }
        for name, trained in runs.items()
    ]
    return Outcome(rows, _figure(runs), remarks)


def _figure(runs: dict[str, Trained]) -> Any:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for index, (name, trained) in enumerate(runs.items()):
        errors = np.sort(trained.errors_m)
        style = "-" if index < len(OKABE_ITO) else "--"
        axes.plot(errors, np.linspace(0, 1, len(errors)), style, color=OKABE_ITO[index % len(OKABE_ITO)], label=name)
    axes.set(xscale="log", xlabel="3-D error [m]", ylabel="share of users", xlim=(0.1, 200))
    axes.grid(True, color="#E4E4E4")
    axes.legend(fontsize=7)
    return figure
