"""Processor time of imports in fresh interpreters, beside ``import torch``, on which everything here is built."""

from __future__ import annotations

import statistics
import subprocess
import sys

from cfpos.scripts.benchmarks.common import Options, Rows

STATEMENTS = (
    "import torch",
    "import cfpos",
    "import cfpos_envs",
    "from cfpos import make_env, make_policy, make_agent",
)
"""What is measured; the others are compared with the first."""
_GOAL = 1.1
_PROGRAM = "import resource\n{}\nused = resource.getrusage(resource.RUSAGE_SELF)\nprint(used.ru_utime + used.ru_stime)"


def run(options: Options) -> dict[str, object]:
    """The table ``imports``: CPU seconds of a process that only imports, the median of several."""
    repeats = 1 if options.quick else 2 * options.repeats + 1
    taken: dict[str, list[float]] = {statement: [] for statement in STATEMENTS}
    for _ in range(repeats):  # in turns, so that a busy moment of the machine meets all
        for statement in STATEMENTS:
            taken[statement].append(_cpu_s(statement))
    medians = {statement: statistics.median(seconds) for statement, seconds in taken.items()}
    rows: Rows = [
        {
            "statement": statement,
            "CPU s": seconds,
            "over import torch": seconds / medians[STATEMENTS[0]],
            "goal": _GOAL if statement == "import cfpos" else None,
        }
        for statement, seconds in medians.items()
    ]
    return {"tables": {"imports": rows}, "remarks": []}


def _cpu_s(statement: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(statement)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)
