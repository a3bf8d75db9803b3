"""The training strategies of the source: from scratch, Stage I and a frozen encoder, Stage I and all, raw CSI."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import trained
from cfpos_envs.drawing.figures import OKABE_ITO
from cfpos_envs.supervised.errors import errors_m

VARIANTS: dict[str, dict[str, Any]] = {
    "scratch": {"strategy": "scratch"},
    "local-split": {"strategy": "local-split"},
    "local-joint": {"strategy": "local-joint"},
    "raw CSI at the CU": {"strategy": "raw"},
    "encoder without quantiser": {"strategy": "scratch", "bits": 0},
    "no gain mask (transformer)": {"strategy": "scratch", "mask": False},
    "gain mask as (23) is printed, not times L": {"strategy": "scratch", "mask_printed": True},
    "scratch, bins": {"strategy": "scratch", "head": "bins"},
}


def run(effort: Effort) -> Outcome:
    """Train ``ecc`` in every way on the same pool."""
    rows: list[dict[str, Any]] = []
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for index, label in enumerate(progress(VARIANTS, "training", len(VARIANTS))):
        config = ecc.narrow(effort, **VARIANTS[label])
        network, pool = trained(config, effort), ecc.test_pool(config, effort)
        rows.append(ecc.row({"strategy": label, "bits_per_bs": network.layout.payload_bits or None}, network, pool))
        errors = np.sort(errors_m(network, pool))
        axes.plot(errors, np.linspace(0, 1, len(errors)), color=OKABE_ITO[index], label=label)
    axes.set(xscale="log", xlabel="3-D error [m]", ylabel="share of users")
    axes.grid(True, color="#E4E4E4")
    axes.legend()
    return Outcome(rows, figure, [ecc.narrow_remark(effort), "The last row states bins."])
