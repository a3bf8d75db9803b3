"""Other people's environments, measured by the same rule in their own interpreters.

Each yardstick is a module ``scripts.benchmarks.yardstick_NAME`` that needs its package and this folder's ``common``,
which needs nothing but Python. It runs as a process of its own, with the interpreter given for it or, if the package is
installed beside us, with ours.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from cfpos.scripts.benchmarks.common import Options, Rows
from cfpos.scripts.cli import ROOT

NOT_INSTALLED = "not installed"
# yardstick -> the module that must be importable
ENVIRONMENTS = {"mpe2": "mpe2", "vmas": "vmas", "mobile": "mobile_env"}
TRAINERS = {"agilerl": "agilerl", "xuance": "xuance", "torchrl": "torchrl"}
PACKAGES = {**ENVIRONMENTS, **TRAINERS}


def run(options: Options) -> dict[str, Any]:
    """Agent-steps per second of every environment; one without its package has a row that says so."""
    rows: Rows = []
    for name in ENVIRONMENTS:
        found = answer(name, options)
        if found is None:
            rows.append(_row(name, "", 0, 0, NOT_INSTALLED))
        else:
            rows += [_row(found["version"], **row, status="measured") for row in found["rows"]]
    remarks = ["agent-steps per CPU second; 'with resets' counts one reset per episode of their usual length."]
    missing = [row["yardstick"] for row in rows if row["status"] != "measured"]
    if missing:
        remarks.append(
            f"Not measured: {', '.join(missing)}; give --yardstick NAME=PYTHON of an environment that has it."
        )
    return {"tables": {"yardsticks": rows}, "remarks": remarks}


def answer(name: str, options: Options) -> dict[str, Any] | None:
    """What ``yardstick_NAME`` prints, run by the interpreter given for it or by ours; None: not installed.

    Args:
        name: a key of ``PACKAGES``.
        options: passed as JSON.

    Raises:
        RuntimeError: the yardstick is there and fails.
    """
    python = options.yardsticks.get(name)
    if python is None:
        if importlib.util.find_spec(PACKAGES[name]) is None:
            return None
        python = sys.executable
    print(f"  {name}: {python}", file=sys.stderr, flush=True)
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(options.threads))
    done = subprocess.run(
        [python, "-m", f"cfpos.scripts.benchmarks.yardstick_{name}", options.to_json()],
        cwd=ROOT,
        env={**os.environ, **threads, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"the yardstick {name} failed in {python}: {last}")
    # A package may greet on standard output: the answer is the last line.
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _row(
    yardstick: str,
    environment: str,
    agents: int,
    worlds: int,
    status: str,
    reset_s: float | None = None,
    step_s: float | None = None,
    steps: int = 0,
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "yardstick": yardstick,
        "environment": environment,
        "agents": agents,
        "worlds": worlds,
        "reset ms": None,
        "step ms": None,
        "agent-steps/s": None,
        "with resets": None,
        "status": status,
    }
    if reset_s is not None and step_s is not None:
        agent_steps = agents * worlds
        row |= {
            "reset ms": 1e3 * reset_s,
            "step ms": 1e3 * step_s,
            "agent-steps/s": agent_steps / step_s,
            "with resets": agent_steps * steps / (reset_s + steps * step_s),
        }
    return row
