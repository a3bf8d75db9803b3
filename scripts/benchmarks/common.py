"""What the measurements share: how much effort to spend, CPU time of a piece of work, what a part hands back.

A part is a module with ``run(options) -> dict``: under ``tables`` a dictionary name -> rows of equal keys, which are
printed and written as they are, under ``remarks`` (may be missing) sentences for whoever reads them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """How to measure; validated.

    Attributes:
        threads: arithmetic threads of torch, here and in the yardsticks.
        repeats: every piece of work is timed this often, the fastest counts: what disturbs only ever adds.
        seconds: CPU seconds that one repeat lasts at least.
        quick: tiny sizes; shows that everything runs, its numbers mean nothing.
        yardsticks: name of a package -> Python executable that has it, for those not installed beside us.
        batches: numbers of episodes played at once.
        num_aps, num_ues, num_antennas: M, K, L of the scene.
    """

    threads: int = 1
    repeats: int = 5
    seconds: float = 0.5
    quick: bool = False
    yardsticks: Mapping[str, str] = field(default_factory=dict)
    batches: tuple[int, ...] = (1, 32, 256, 2048)
    num_aps: int = 36
    num_ues: int = 6
    num_antennas: int = 8

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("threads", "repeats", "num_aps", "num_ues", "num_antennas")}
        for name, value in [*counts.items(), *(("batches", batch) for batch in self.batches)]:
            if value < 1:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be at least 1")
        if not self.batches:
            raise ValueError("--batches names no size; give at least one, e.g. --batches 1 32")
        if not 0.0 <= self.seconds < float("inf"):
            raise ValueError(f"--seconds={self.seconds} must be finite and not negative")

    @property
    def scene(self) -> dict[str, int]:
        """Overrides that make an environment of this size."""
        return {"num_aps": self.num_aps, "num_ues": self.num_ues, "num_antennas": self.num_antennas}


def cpu_s(work: Callable[[], Any], options: Options) -> float:
    """CPU seconds of one call of ``work``: the best of ``options.repeats``, after a call that is not counted.

    CPU time of this process (all its threads): what other processes do to the clock on the wall does not enter.

    Args:
        work: takes no argument; called as often as it takes to last ``options.seconds`` in every repeat.
        options: see there.
    """
    work()
    best = float("inf")
    for _ in range(options.repeats):
        calls, began = 0, time.process_time()
        while True:
            work()
            calls += 1
            spent = time.process_time() - began
            # The clock advances in small steps: a piece of work that it does not see at all is repeated.
            if spent > 0 and spent >= options.seconds:
                break
        best = min(best, spent / calls)
    return best
