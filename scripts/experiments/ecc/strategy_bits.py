"""Training strategies over the bits per latent number: the source's Fig. 10."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import trained
from cfpos_envs.drawing.figures import OKABE_ITO

BITS = (4, 6, 8, 10)
STRATEGIES = ("scratch", "local-split", "local-joint")
LOSSLESS = "raw CSI at the CU"


def run(effort: Effort) -> Outcome:
    """Train ``ecc`` in three ways at every Q, beside lossless CSI; Stage I, which knows no bits, is one for all."""
    bits = effort.chosen(BITS)
    rows: list[dict[str, Any]] = []
    for strategy in progress(STRATEGIES, "training", len(STRATEGIES)):
        for number in bits:
            config = ecc.narrow(effort, strategy=strategy, bits=number)
            network = trained(config, effort)
            labels = {"strategy": strategy, "Q": number, "bits_per_bs": network.layout.payload_bits}
            rows.append(ecc.row(labels, network, ecc.test_pool(config, effort)))
    raw = ecc.narrow(effort, strategy="raw")
    labels = {"strategy": LOSSLESS, "Q": None, "bits_per_bs": None}
    rows.append(ecc.row(labels, trained(raw, effort), ecc.test_pool(raw, effort)))
    return Outcome(rows, _figure(rows), [ecc.narrow_remark(effort)])


def _figure(rows: list[dict[str, Any]]) -> Any:
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for key, axes in zip(("mean_m", "p90_m"), panels, strict=True):
        for index, strategy in enumerate(STRATEGIES):
            lines = [line for line in rows if line["strategy"] == strategy]
            values = [line[key] for line in lines]
            axes.plot([line["Q"] for line in lines], values, "o-", color=OKABE_ITO[index], label=strategy)
        axes.axhline(rows[-1][key], color="black", linestyle=":", label=LOSSLESS)
        axes.set(xlabel="bits per latent number Q", ylim=(0, None), xticks=[line["Q"] for line in lines])
        axes.grid(True, color="#E4E4E4")
    panels[0].set(ylabel="mean 3-D error [m]")
    panels[1].set(ylabel="90th percentile of the 3-D error [m]")
    panels[0].legend()
    return figure
