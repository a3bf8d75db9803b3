"""Fig. 4 of Liu et al.: RMSE over the number of antennas per AP, beside fingerprinting with five reference spacings."""

from __future__ import annotations

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.dcp.rmse_over import sweep


def run(effort: Effort) -> Outcome:
    """L in {4, 8, 16}."""
    return sweep(effort, "num_antennas", (2, 4) if effort.is_quick else (4, 8, 16), "antennas per AP L")
