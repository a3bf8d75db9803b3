"""Settings of training in the ray-traced city, compared on training users set aside: no held-out user chooses anything.

Needs the data set of ``ecc-munich``. Rows that are finished are kept in the folder ``agents``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc.data import BEST, TracedData, Trained, kept, processor_remark, train_network
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.agent_config import EccFastAgentConfig

SAMPLES, ASIDE = 500_000, 2_000
_QUICK_SAMPLES, _QUICK_ASIDE = 512, 50
CASES: dict[str, dict[str, Any]] = {
    "batches of 256": {"batch_size": 256},
    "batches of 256, learning rate 0.003": {"batch_size": 256, "lr": 0.003},
    "batches of 128": {"batch_size": 128},
    "batches of 64": {"batch_size": 64},
}


def run(effort: Effort) -> Outcome:
    """Train on all but the last training users, test on those."""
    folder = None if effort.agents_folder is None else Path(effort.agents_folder)
    data = TracedData("" if folder is None else str(folder.parent / "munich"))
    samples, aside = (_QUICK_SAMPLES, _QUICK_ASIDE) if effort.is_quick else (SAMPLES, ASIDE)
    train, rest = data.measured("train", ("acf",)).pools["acf"].split(aside)
    rows = []
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    names = effort.chosen(tuple(CASES))
    for index, name in enumerate(progress(names, "training", len(names))):
        config = EccFastAgentConfig(**{**BEST, **CASES[name]}, samples=samples)

        def make(config: EccFastAgentConfig = config) -> Trained:
            return train_network(config, data, train, rest, samples)

        trained = kept(effort.agents_folder, f"settings-{config.head}-{config.bins}-{name.replace(' ', '-')}", make)
        rows.append(
            {
                "settings": name,
                "mean_m": float(trained.errors_m.mean()),
                "median_m": float(np.median(trained.errors_m)),
                "p90_m": float(np.percentile(trained.errors_m, 90)),
                "training CPU-s": round(trained.cpu_s),
            }
        )
        axes.plot(*zip(*trained.curve, strict=True), "o-", color=OKABE_ITO[index], label=name)
    axes.set(xscale="log", yscale="log", xlabel="snapshots seen", ylabel="mean 3-D error [m]")
    axes.grid(True, color="#E4E4E4")
    axes.legend()
    remark = (
        f"{data.source.recipe.scene}: ecc-fast with acf, {samples} snapshots of {len(train)} training users, tested on "
        f"the {aside} training users that were set aside; one seed."
    )
    return Outcome(rows, figure, [remark, processor_remark("training CPU-s")])
