"""Position and clock over SNR with one and two surfaces: all estimators beside the bounds."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from cfpos.scripts.experiments.common import Effort, Outcome, progress
from cfpos.scripts.experiments.ris.common import METHODS, compared, draw_panel, trials_remark

SNR_DB = (-25.0, -20.0, -15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0, 30.0)
SURFACES = (1, 2)
POLICIES = (*METHODS, "ris-aoa-toa", "ris-siso")


def run(effort: Effort) -> Outcome:
    """All estimators at every SNR; the noise of one SNR is that of another, scaled."""
    rows: list[dict[str, Any]] = []
    for surfaces in SURFACES:
        for snr_db in progress(effort.chosen(SNR_DB), f"{surfaces} surfaces"):
            first_columns = {"surfaces": surfaces, "snr_db": snr_db}
            rows += compared(POLICIES, effort, first_columns, num_ris=surfaces, snr_db=snr_db)
    return Outcome(rows, _panels(rows), [trials_remark(effort), "ris-siso uses the first surface alone."])


def _panels(rows: list[dict[str, Any]]) -> Figure:
    figure, panels = plt.subplots(2, 2, figsize=(9, 7), sharex=True, sharey="row", layout="constrained")
    for column, surfaces in enumerate(SURFACES):
        chosen = [row for row in rows if row["surfaces"] == surfaces]
        draw_panel(panels[0, column], chosen, "snr_db", "rmse_mm", "peb_mm", POLICIES)
        draw_panel(panels[1, column], chosen, "snr_db", "clock_mm", "ceb_mm", POLICIES)
        panels[0, column].set_title(f"{surfaces} surface{'s' if surfaces > 1 else ''}")
        panels[1, column].set_xlabel("SNR [dB]")
    panels[0, 0].set_ylabel("position RMSE [mm]")
    panels[1, 0].set_ylabel("clock RMSE times c [mm]")
    panels[0, 0].legend(fontsize=8)
    return figure
