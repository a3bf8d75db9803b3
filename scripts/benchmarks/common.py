"""What the measurements share: how much effort to spend, CPU time of a piece of work, what a part returns.

A part is a module with ``run(options) -> dict``: under ``tables`` a dictionary name -> rows of equal keys, which are
printed and written as they are, under ``remarks`` (may be missing) sentences for readers.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

TORCH, NATIVE = "torch", "native"
SCENARIOS = ("simple_spread", "dispersion")
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Options:
    """How to measure; validated.

    Attributes:
        threads: arithmetic threads of torch, here and in the yardsticks.
        repeats: every piece of work is timed this often, the fastest counts: what disturbs only ever adds.
        seconds: CPU seconds that one repeat lasts at least.
        quick: the parts shrink what they choose themselves too, see ``tiny``.
        yardsticks: name of a package -> Python executable that has it, for those not installed beside us.
        batches: numbers of episodes played at once.
        scenarios: of VMAS.
        modes: what computes the rounds of our environments, their option ``kernel``.
        num_aps, num_ues, num_antennas: M, K, L of the scene.
        reference: folder of an older checkout to measure beside this one where a part can; empty: none.
    """

    threads: int = 1
    repeats: int = 5
    seconds: float = 0.5
    quick: bool = False
    yardsticks: Mapping[str, str] = field(default_factory=dict)
    batches: tuple[int, ...] = (1, 32, 256, 2048)
    scenarios: tuple[str, ...] = SCENARIOS
    modes: tuple[str, ...] = (TORCH, NATIVE)
    num_aps: int = 36
    num_ues: int = 6
    num_antennas: int = 8
    reference: str = ""

    def __post_init__(self) -> None:
        counts = {name: getattr(self, name) for name in ("threads", "repeats", "num_aps", "num_ues", "num_antennas")}
        for name, value in [*counts.items(), *(("batches", batch) for batch in self.batches)]:
            if value < 1:
                raise ValueError(f"--{name.replace('_', '-')}={value} must be at least 1")
        if not self.batches:
            raise ValueError("--batches names no size; give at least one, e.g. --batches 1 32")
        if not self.modes or not {TORCH, NATIVE}.issuperset(self.modes):
            raise ValueError(f"--modes={','.join(self.modes)} must be one or both of {TORCH}, {NATIVE}")
        if not self.scenarios or not set(SCENARIOS).issuperset(self.scenarios):
            raise ValueError(f"--scenarios={','.join(self.scenarios)} must be one or both of {', '.join(SCENARIOS)}")
        if not 0.0 <= self.seconds < float("inf"):
            raise ValueError(f"--seconds={self.seconds} must be finite and not negative")

    @classmethod
    def tiny(cls) -> Options:
        """Seconds instead of minutes: shows that everything runs; its numbers mean nothing."""
        return cls(
            repeats=1, seconds=0.0, quick=True, batches=(1, 3), modes=(TORCH,), num_aps=9, num_ues=2, num_antennas=4
        )

    @property
    def scene(self) -> dict[str, int]:
        """Overrides that make an environment of this size."""
        return {"num_aps": self.num_aps, "num_ues": self.num_ues, "num_antennas": self.num_antennas}

    def to_json(self) -> str:
        """For another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        """What ``to_json`` wrote."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
        }
        return cls(**given)


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


@dataclass
class Played:
    """CPU seconds of some episodes: all resets and all steps, and how many there were of each."""

    reset_s: float = 0.0
    steps_s: float = 0.0
    resets: int = 0
    steps: int = 0

    def episode(self, reset: Callable[[], Any], step: Callable[[], Any], length: int) -> None:
        """Call ``reset`` once and ``step`` ``length`` times and add what they cost."""
        began = time.process_time()
        reset()
        ready = time.process_time()
        for _ in range(length):
            step()
        self.steps_s += time.process_time() - ready
        self.reset_s += ready - began
        self.resets += 1
        self.steps += length


def episode_s(episode: Callable[[Played], None], options: Options) -> tuple[float, float]:
    """CPU seconds of one reset and of one step, each the best of the repeats.

    Args:
        episode: plays one episode and notes its cost with ``Played.episode``; the caller has played one to warm up.
        options: see there.
    """
    resets, steps = [], []
    for _ in range(options.repeats):
        spent = Played()
        while not spent.resets or spent.reset_s + spent.steps_s < options.seconds or spent.steps_s <= 0:
            episode(spent)
        resets.append(spent.reset_s / spent.resets)
        steps.append(spent.steps_s / spent.steps)
    return min(resets), min(steps)


def readable(rows: Rows) -> list[dict[str, str]]:
    """Rows for people: three significant digits without exponents, missing values as a dash."""
    return [{key: _readable(value) for key, value in row.items()} for row in rows]


def _readable(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if abs(value) < 1e-3 or abs(value) >= 1e12:
        return f"{value:.3g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    rounded = round(value, digits)
    return f"{rounded:,.{max(digits, 0)}f}".replace(",", " ")
