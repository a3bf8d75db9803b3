"""The path loss exponent of the line of sight: a strong one scatters over the surfaces', a weak one says little."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ris.common import METHODS, compared, draw_panel, trials_remark

EXPONENTS = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0)
SURFACES = (1, 2)


def run(effort: Effort) -> Outcome:
    """One and two surfaces, 10 dB."""
    rows: list[dict[str, Any]] = []
    for surfaces in SURFACES:
        for exponent in progress(effort.chosen(EXPONENTS), f"{surfaces} surfaces"):
            first_columns = {"surfaces": surfaces, "exponent": exponent}
            rows += compared(METHODS, effort, first_columns, num_ris=surfaces, exponent_los=exponent)
    return Outcome(rows, _panels(rows), [trials_remark(effort)])


def _panels(rows: list[dict[str, Any]]) -> Figure:
    figure, panels = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axes, surfaces in zip(panels, SURFACES):
        chosen = [row for row in rows if row["surfaces"] == surfaces]
        draw_panel(axes, chosen, "exponent", "rmse_mm", "peb_mm", METHODS)
        title = f"{surfaces} surface{'s' if surfaces > 1 else ''}"
        axes.set(xlabel="path loss exponent of the line of sight", title=title)
    panels[0].set_ylabel("position RMSE [mm]")
    panels[0].legend(fontsize=8)
    return figure
