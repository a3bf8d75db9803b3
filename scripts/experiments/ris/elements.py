"""The size of the surfaces, n x n elements."""

from __future__ import annotations

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ris.common import sweep

ELEMENTS = tuple((n, n) for n in (6, 8, 12, 16, 20, 24, 28))


def run(effort: Effort) -> Outcome:
    """Two surfaces, 10 dB, the noise of 20 x 20 elements."""
    return sweep(effort, "ris_shape", ELEMENTS, "elements n along each axis", shown="elements")
