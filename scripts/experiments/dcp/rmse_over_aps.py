"""Fig. 3 of Liu et al.: RMSE over the number of APs, beside fingerprinting with five reference spacings."""

from __future__ import annotations

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.dcp.rmse_over import sweep


def run(effort: Effort) -> Outcome:
    """M in {16, 36, 64}."""
    return sweep(effort, "num_aps", (9, 16) if effort.is_quick else (16, 36, 64), "number of APs M")
