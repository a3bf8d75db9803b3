"""The Rician factor of base station to UE: how much of the direct power is scattered."""

from __future__ import annotations

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ris.common import sweep

KAPPA_DB = (0.0, 5.0, 10.0, 13.0, 20.0)


def run(effort: Effort) -> Outcome:
    """Two surfaces, 10 dB."""
    return sweep(effort, "kappa_bs_db", KAPPA_DB, "Rician factor [dB]")
