"""The UE's clock from -100 to 250 ns: who is carried away by it and who is not, delays that wrap included."""

from __future__ import annotations

from cfpos.scripts.experiments.common import Effort, Outcome
from cfpos.scripts.experiments.ris.common import METHODS, sweep

BIAS_NS = (-100.0, -60.0, -40.0, 0.0, 20.0, 60.0, 120.0, 250.0)


def run(effort: Effort) -> Outcome:
    """Two surfaces, 10 dB. Delays are known modulo 320 ns: the line of sight wraps at -60 ns and below."""
    return sweep(effort, "bias_ns", BIAS_NS, "clock bias [ns]", (*METHODS, "ris-aoa-toa"))
