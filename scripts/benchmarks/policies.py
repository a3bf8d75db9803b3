"""Processor time of evaluating every policy on a site with everything wrong, beside an older build in the same run.

Each build evaluates in a process of its own, asked for one policy after the other in turns with the other build,
so that what else the machine does meets both.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cfpos.baselines import list_policies
from cfpos.scripts.benchmarks.common import Options, Rows
from cfpos.scripts.cli import ROOT

EPISODES = 200
"""As many as ``evaluate`` plays by default."""
_QUICK = ("centroid", "joint-gn")

# Only what every build has. The first evaluation of one episode loads and compiles.
_PROGRAM = """
import json, sys, time
import torch
from cfpos_envs import evaluate, make_env
from cfpos.baselines import list_policies, make_policy
torch.set_num_threads({threads})
env = make_env("dcp-jar-v0", num_envs=1, site="hard", split="test")
for name in map(str.strip, sys.stdin):
    found = {{"cpu_s": None, "rmse_m": None}}
    if name in list_policies("dcp"):
        evaluate(env, make_policy(name, env), episodes=1, threads={threads})
        began = time.process_time()
        result = evaluate(env, make_policy(name, env), episodes={episodes}, threads={threads})
        found = {{"cpu_s": time.process_time() - began, "rmse_m": result.rmse}}
    print(json.dumps(found), flush=True)
"""


def run(options: Options) -> dict[str, Any]:
    """CPU seconds of ``evaluate`` on ``dcp-jar-v0`` with ``site=hard``, of each policy and of all together."""
    names = _QUICK if options.quick else tuple(list_policies("dcp"))
    folders = [str(ROOT), *([options.reference] if options.reference else [])]
    found: dict[str, list[dict[str, Any]]] = {}
    with contextlib.ExitStack() as stack:
        builds = [stack.enter_context(_evaluating(Path(folder), options)) for folder in folders]
        for name in names:
            print(f"  {name}", file=sys.stderr, flush=True)
            turns = [[_asked(build, name) for build in builds] for _ in range(options.repeats)]
            found[name] = [_best(list(of_build)) for of_build in zip(*turns)]
    remarks = [
        f"evaluate() on dcp-jar-v0, site=hard, {1 if options.quick else EPISODES} episodes, fits included;",
        "'share' is ours over the reference's in the same run. 'all' are the policies that both builds have.",
    ]
    return {"tables": {"policies": table(found)}, "remarks": remarks}


def table(found: dict[str, list[dict[str, Any]]]) -> Rows:
    """Rows of what one or two builds measured, and their sum.

    Args:
        found: policy -> ``cpu_s`` and ``rmse_m`` of ours and, where there is one, of the reference, None where it has
            no such policy.
    """
    rows = [_row(name, *builds) for name, builds in found.items()]
    common = [builds for builds in found.values() if all(build["cpu_s"] is not None for build in builds)]
    sums = [{"cpu_s": sum(build["cpu_s"] for build in builds), "rmse_m": None} for builds in zip(*common)]
    return [*rows, _row("all", *sums)] if sums else rows


def _row(name: str, ours: dict[str, Any], theirs: dict[str, Any] | None = None) -> dict[str, Any]:
    before = None if theirs is None else theirs["cpu_s"]
    moved = None
    if theirs is not None and theirs["rmse_m"] is not None:
        moved = abs(ours["rmse_m"] - theirs["rmse_m"])
    return {
        "policy": name,
        "CPU s": ours["cpu_s"],
        "RMSE m": ours["rmse_m"],
        "reference CPU s": before,
        "share": None if before is None else ours["cpu_s"] / before,
        "RMSE apart m": moved,
    }


def _best(turns: list[dict[str, Any]]) -> dict[str, Any]:
    return min(turns, key=lambda found: found["cpu_s"] or 0.0)


@contextlib.contextmanager
def _evaluating(folder: Path, options: Options) -> Iterator[subprocess.Popen[str]]:
    """A process in which the build of a folder evaluates the policies named on its input."""
    code = _PROGRAM.format(threads=options.threads, episodes=1 if options.quick else EPISODES)
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def _asked(build: subprocess.Popen[str], name: str) -> dict[str, Any]:
    assert build.stdin is not None
    assert build.stdout is not None
    build.stdin.write(f"{name}\n")
    build.stdin.flush()
    line = build.stdout.readline()
    if not line:
        raise RuntimeError(f"a build ended while it evaluated {name}; its message stands above")
    found: dict[str, Any] = json.loads(line)
    return found
