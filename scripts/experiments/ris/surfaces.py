"""The number of surfaces; the third and the fourth collide with others in delay, energy and direction."""

from __future__ import annotations

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ris.common import sweep

SURFACES = (1, 2, 3, 4)


def run(effort: Effort) -> Outcome:
    """10 dB, the noise of two surfaces."""
    return sweep(effort, "num_ris", SURFACES, "surfaces")
