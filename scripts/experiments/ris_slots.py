"""The number of pilots: noise is averaged, fading, which stays the same over the slots, is not."""

from __future__ import annotations

from scripts.experiments.common import Effort, Outcome
from scripts.experiments.ris_common import sweep

SLOTS = (64, 128, 256, 512, 1024)


def run(effort: Effort) -> Outcome:
    """Two surfaces, 10 dB."""
    return sweep(effort, "num_slots", SLOTS, "slots G", log_x=True)
