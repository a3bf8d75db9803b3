"""What the defaults keep of their speed on a machine that is not idle: steps per CPU second beside busy processes."""

from __future__ import annotations

import ast
import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from cfpos.agents import make_agent
from cfpos.baselines import make_policy
from cfpos.scripts.benchmarks.common import Options, Rows
from cfpos.scripts.workers import default_workers
from cfpos_envs import evaluate, make_env

TRAINED_STEPS, SNAPSHOTS, EPISODES = 12_000, 20_000, 200
_TINY = 32
# What users start without naming a number of threads, and a training with one thread per core, as torch would have it.
TASKS = ("make_agent, dcp-jar", "make_agent, ecc-fast", "evaluate, joint-gn", "two threads, dcp-jar")


def run(options: Options) -> dict[str, Any]:
    """Steps per CPU second and per second of every task, alone and beside one busy process per core."""
    rows: Rows = []
    for task in TASKS[: 1 if options.quick else None]:
        print(f"  {task}", file=sys.stderr, flush=True)
        alone = _measured(task, options)
        with busy_processes(default_workers()):
            beside = _measured(task, options)
        rows.append(
            {
                "task": task,
                "alone, per CPU-s": alone["cpu"],
                "beside, per CPU-s": beside["cpu"],
                "kept": beside["cpu"] / alone["cpu"],
                "alone, per s": alone["wall"],
                "beside, per s": beside["wall"],
            }
        )
    remarks = [
        "Steps, snapshots or episodes per second, in a process of its own with torch's own defaults; 'beside': one",
        "busy process per core runs at the same time. 'kept' is the ratio per CPU second.",
    ]
    return {"tables": {"contention": rows}, "remarks": remarks}


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """``count`` processes that compute for nothing meanwhile."""
    started = [multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(count)]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.join()


def task_rates(task: str, quick: bool) -> dict[str, float]:
    """Steps per second of the processor and of the clock, after a first run that loads and compiles."""
    work, count = _work(task, quick)
    work()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return {"cpu": count / (time.process_time() - cpu), "wall": count / (time.perf_counter() - wall)}


def _work(task: str, quick: bool) -> tuple[Any, int]:
    if task.endswith("ecc-fast"):
        count = _TINY if quick else SNAPSHOTS
        agent = make_agent("ecc-fast", "ecc-urban-small-v0", evaluations=0, pool=2048)
        return lambda: agent.train(total_steps=count, progress=False), count
    if task.startswith("evaluate"):
        env = make_env("dcp-jar-v0", num_envs=1, split="test")
        policy, count = make_policy("joint-gn", env), 1 if quick else EPISODES
        return lambda: evaluate(env, policy, episodes=count), count
    chosen: dict[str, Any] = {"threads": 2} if task.startswith("two") else {}
    count = _TINY if quick else TRAINED_STEPS
    agent = make_agent("maddpg", "dcp-jar-v0", evaluations=0, **chosen)
    return lambda: agent.train(total_steps=count, progress=False), count


def _measured(task: str, options: Options) -> dict[str, float]:
    code = f"from {__name__} import task_rates; print(task_rates({task!r}, {options.quick}))"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    runs = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        for _ in range(1 if options.quick else min(options.repeats, 3))
    ]
    found: list[dict[str, float]] = [_parsed(run.stdout) for run in runs]
    return max(found, key=lambda rates: rates["cpu"])


def _parsed(text: str) -> dict[str, float]:
    rates: dict[str, float] = ast.literal_eval(text.strip().splitlines()[-1])
    return rates


def _spin() -> None:
    while True:
        pass
