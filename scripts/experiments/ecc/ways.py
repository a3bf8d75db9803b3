"""ECC beside MFCNet along spirals through the ray-traced city, after as many snapshots: the source's Fig. 14.

Needs a data set with spirals (``scripts/make_dataset.py --spiral 500``) in the folder ``munich`` beside the results;
quick mode follows held-out users of the small set that comes with the package instead.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ecc.baselines import EQUAL, SHORT, City
from cfpos.scripts.experiments.ecc.data import Trained, processor_remark
from cfpos.scripts.experiments.ecc.tracking import way_row, ways_of
from cfpos_envs.channels.tracing.ways import WAY_POINTS
from cfpos_envs.drawing.figures import OKABE_ITO

LEARNED = {"ecc-fast": EQUAL, "mfcnet": "mfcnet"}
"""Name in this table -> row of ``ecc-baselines`` whose network it is."""
_DRAWN = 2  # of the ways: neither the best nor the worst was looked for


def run(effort: Effort) -> Outcome:
    """Take the networks of ``ecc-baselines``, which learned from standing users; locate every point by itself."""
    city = City(effort)
    runs = {name: city.row(label).ways for name, label in LEARNED.items()}
    rows = [{**way_row(name, trained), "training CPU-s": round(trained.cpu_s)} for name, trained in runs.items()]
    remark = (
        f"{city.data.source.recipe.scene}: {len(ways_of(runs['ecc-fast']))} spirals of three turns of 6 m radius "
        f"through open places, {WAY_POINTS} traced points each; every point is located by itself, nothing is smoothed. "
        f"The networks are those of ecc-baselines (head=bins): both saw {SHORT} snapshots in batches of 64 "
        f"of {len(city.data.source.users('train').index)} standing users; one seed. The picture shows one way."
    )
    truth = city.data.source.users(city.ways).position_m.numpy()
    return Outcome(rows, _figure(runs, truth), [remark, processor_remark("training CPU-s")])


def _figure(runs: dict[str, Trained], truth_m: np.ndarray) -> Any:
    """One way in space and from above beside the learned estimates, and the errors along all ways."""
    figure = plt.figure(figsize=(13, 4.2), layout="constrained")
    space: Any = figure.add_subplot(1, 3, 1, projection="3d")
    along, above = figure.add_subplot(1, 3, 2), figure.add_subplot(1, 3, 3)
    first = min(_DRAWN, (len(truth_m) - 1) // WAY_POINTS) * WAY_POINTS
    part = slice(first, first + WAY_POINTS)
    space.plot(*truth_m[part].T, color="black", label="truth")
    above.plot(*truth_m[part, :2].T, color="black", label="truth")
    for index, (name, trained) in enumerate(runs.items()):
        colour = OKABE_ITO[index]
        whole = [way for way in ways_of(trained) if len(way) == WAY_POINTS] or ways_of(trained)
        median = np.median(whole, axis=0)
        along.plot(np.arange(1, len(median) + 1), median, color=colour, label=name)
        assert trained.position_m is not None
        space.plot(*trained.position_m[part].T, ".", color=colour, label=name)
        above.plot(*trained.position_m[part, :2].T, ".", color=colour, label=name)
    space.set_box_aspect(None, zoom=0.8)  # or its labels lie over the next panel
    space.set(title="one way", xlabel="x [m]", ylabel="y [m]", zlabel="z [m]")
    above.set(title="the same from above", xlabel="x [m]", ylabel="y [m]", aspect="equal")
    along.set(
        title="all ways",
        xlabel="point of the way, from the ground up",
        ylabel="3-D error, median of the ways [m]",
        yscale="log",
    )
    for axes in (along, above):
        axes.grid(True, color="#E4E4E4")
        axes.legend(fontsize=8)
    return figure
