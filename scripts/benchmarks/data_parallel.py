"""Two processes that share every batch of an edge-cloud training beside one: wall-clock time of the same steps.

The one part that needs the clock on the wall, and so a machine without other load, with a core per process.
"""

from __future__ import annotations

import datetime
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from cfpos.agents import make_agent
from cfpos.agents.ecc.agent import Ecc
from cfpos.agents.ecc.training import make_pool
from cfpos.agents.memory import keep_freed_memory
from cfpos.scripts.benchmarks.common import Options, Rows
from cfpos_envs import make_env
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.fitting import Hooks, fit

PROCESSES = 2
_AVERAGINGS = 15
_PATIENCE = datetime.timedelta(minutes=20)


@dataclass(frozen=True)
class Case:
    """A training of which some steps are timed.

    Attributes:
        label: of the row.
        agent, preset: which network.
        batch: snapshots per step, over all processes; None: the preset's.
        steps: timed in one repeat.
    """

    label: str
    agent: str
    preset: str
    batch: int | None
    steps: int


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock on the wall, and of this process's threads."""

    wall_s: float
    cpu_s: float


# The paper trains with batches of 8; its networks make a step of more than that last minutes on a core.
CASES = (
    Case("ecc-fast", "ecc-fast", "default", None, 200),
    Case("ecc", "ecc", "default", None, 20),
    Case("ecc, paper", "ecc", "paper", 8, 8),
)


def run(options: Options) -> dict[str, Any]:
    """Milliseconds per step of one and of two processes, alternately, and their ratio."""
    cases = CASES[:1] if options.quick else CASES
    rows: Rows = [_row(case, options) for case in cases]
    return {
        "tables": {"data-parallel": rows},
        "remarks": [
            f"Wall-clock time of a step on {os.cpu_count()} cores, one thread per process, one and two processes "
            f"alternately: medians of {options.repeats} repeats; speed_up is the median of their ratios; "
            "averaging_ms: the gradients alone, by gloo; cpu_ratio: CPU time of a step of one process over that of "
            "each of two, the speed-up if no process ever waits."
        ],
    }


def _row(case: Case, options: Options) -> dict[str, Any]:
    print(f"  {case.label}", file=sys.stderr, flush=True)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        results = context.Queue()
        others = [
            context.Process(target=_play, args=(rank, case, options, folder, results), daemon=True)
            for rank in range(PROCESSES)
        ]
        for process in others:
            process.start()
        while results.empty():
            time.sleep(0.1)
            if any(process.exitcode for process in others):
                raise RuntimeError(f"a process of the case {case.label} has died; its message is above")
        times, found = results.get()
        for process in others:
            process.join()
    ratios = [one.wall_s / shared.wall_s for one, shared in times]
    return {
        "agent": case.label,
        **found,
        "one_ms": 1e3 * statistics.median(one.wall_s for one, _ in times),
        "two_ms": 1e3 * statistics.median(shared.wall_s for _, shared in times),
        "speed_up": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "cpu_ratio": statistics.median(one.cpu_s / shared.cpu_s for one, shared in times),
    }


def _play(rank: int, case: Case, options: Options, folder: str, results: Any) -> None:
    """One of the processes; in every repeat the first trains alone while the other waits, then both together."""
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as every training does
    agent, pool = _prepared(case, options)
    steps = 3 if options.quick else case.steps
    parameters = sum(parameter.numel() for parameter in agent.network.parameters())
    times, averaging = [], []
    for repeat in range(-1, options.repeats):  # the first is for warming up
        alone = _step(agent, pool, steps) if rank == 0 else Spent(0.0, 0.0)
        store = dist.FileStore(str(Path(folder) / str(repeat)), PROCESSES)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=PROCESSES, timeout=_PATIENCE)
        times.append((alone, _step(agent, pool, steps)))
        averaging.append(_averaging_s(parameters))
        dist.destroy_process_group()
    if rank == 0:
        found = {
            "batch": agent.config.batch_size,
            "parameters": parameters,
            "steps": steps,
            "averaging_ms": 1e3 * statistics.median(averaging[1:]),
        }
        results.put((times[1:], found))


def _prepared(case: Case, options: Options) -> tuple[Ecc, Pool]:
    changes: dict[str, Any] = {"pool": 512, "validation": 16, "evaluations": 0, "strategy": "scratch", "compile": False}
    if case.batch is not None:
        changes["batch_size"] = case.batch
    agent = make_agent(case.agent, make_env("ecc-urban-small-v0", num_envs=1, seed=0), preset=case.preset, **changes)
    assert isinstance(agent, Ecc)
    pool = make_pool(agent, progress=False)
    agent.network.calibrate_inputs(pool.batch(slice(0, 512)))
    return agent, pool


def _averaging_s(parameters: int) -> float:
    """Seconds that the gradients take from one process to the other and back: the median of some times."""
    gradients = torch.ones(parameters)
    spent = []
    for _ in range(_AVERAGINGS):
        began = time.perf_counter()
        dist.all_reduce(gradients)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def _step(agent: Ecc, pool: Pool, steps: int) -> Spent:
    """What a step takes from the end of the first step to the end of the last."""
    ends: list[Spent] = []

    def note() -> bool:
        ends.append(Spent(time.perf_counter(), time.process_time()))
        return False

    config = agent.config.fit_config(agent.config.batch_size * (steps + 1))
    fit(agent.network, pool, config, hooks=Hooks(stopped=note), progress=False)
    return Spent((ends[-1].wall_s - ends[0].wall_s) / steps, (ends[-1].cpu_s - ends[0].cpu_s) / steps)
