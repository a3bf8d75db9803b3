"""How both stages of training converge: the source's Figs. 7 and 8."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ecc import common as ecc
from cfpos.scripts.experiments.ecc.learning import Local, learned, local_stage
from cfpos.scripts.experiments.ecc.strategy_bits import BITS
from cfpos_envs.drawing.figures import OKABE_ITO

Curve = list[tuple[int, float]]


def run(effort: Effort) -> Outcome:
    """Stage I on what it learns from and on unseen places, then Stage II (local-joint) at every Q on unseen places."""
    local = local_stage(ecc.narrow(effort), effort)
    bits = effort.chosen(BITS)
    curves = {
        number: learned(ecc.narrow(effort, strategy="local-joint", bits=number), effort).curve
        for number in progress(bits, "training", len(bits))
    }
    rows = []
    for place, (seen, training, unseen) in enumerate(local.curve):
        row: dict[str, Any] = {"Stage I, snapshots": seen, "(22), training": training, "(22), unseen": unseen}
        row["Stage II, snapshots"] = next(iter(curves.values()))[place][0]
        rows.append(row | {f"mean_m, Q {number}": curve[place][1] for number, curve in curves.items()})
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    _draw_local(panels[0], local)
    _draw_joint(panels[1], curves)
    remark = (
        "(22) is the negative cosine similarity between CSI and its reconstruction, -1 at best, here over the steps "
        "since the row before and over unseen places; mean_m: 3-D error of unseen places, which choose nothing."
    )
    return Outcome(rows, figure, [ecc.narrow_remark(effort), remark])


def _draw_local(axes: Axes, local: Local) -> None:
    seen, training, unseen = zip(*local.curve, strict=True)
    axes.plot(seen, training, "o-", color=OKABE_ITO[0], label="training")
    axes.plot(seen, unseen, "s--", color=OKABE_ITO[1], label="unseen places")
    axes.set(title="Stage I", xlabel="snapshots seen", ylabel="negative cosine similarity (22)", ylim=(-1, None))
    axes.grid(True, color="#E4E4E4")
    axes.legend()


def _draw_joint(axes: Axes, curves: dict[int, Curve]) -> None:
    for index, (number, curve) in enumerate(curves.items()):
        axes.plot(*zip(*curve, strict=True), "o-", color=OKABE_ITO[index], label=f"Q = {number}")
    axes.set(title="Stage II, local-joint", xlabel="snapshots seen", ylabel="mean 3-D error [m]", ylim=(0, None))
    axes.grid(True, color="#E4E4E4")
    axes.legend()
