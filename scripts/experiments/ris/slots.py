"""The number of pilots: noise is averaged, fading, which stays the same over the slots, is not."""

from __future__ import annotations

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ris.common import sweep

SLOTS = (64, 128, 256, 512, 1024)


def run(effort: Effort) -> Outcome:
    """Two surfaces, 10 dB."""
    return sweep(effort, "num_slots", SLOTS, "slots G", log_x=True)
