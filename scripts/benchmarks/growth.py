"""How the cost of a round grows with the network, and how much memory many episodes need."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from cfpos.scripts.benchmarks.common import Options, Rows, cpu_s
from cfpos.scripts.benchmarks.environments import GAMES, LOCAL_LOG, RSS, Game, actions_for, make
from cfpos.scripts.cli import ROOT

AP_COUNTS = (16, 36, 64, 128, 256)
UE_COUNTS = (6, 16, 32)
LARGEST = (256, 32)
# Exponents are fitted from here on: below, the fixed cost of a call hides the growth.
LARGE = 64
MEMORY_GOAL_MIB = 2048.0
LOCAL, SHARED = "local", "shared"
GOALS = {LOCAL: 2.0, SHARED: 1.0}
_BATCH = {LOCAL: 8, SHARED: 64}
_SITES = 2


def run(options: Options) -> dict[str, Any]:
    """Cost against M and K, its exponents in M, and the memory that the largest number of episodes takes."""
    costs = _costs(options)
    remarks = [
        f"Rounds without resets, {_BATCH[LOCAL]} episodes at once for the local reward, {_BATCH[SHARED]} for the shared"
        f" one (which the CPU computes once for all APs); exponents over M >= {LARGE}.",
        "Memory: what the process grows by beyond its imports at its highest, in a process of its own.",
    ]
    tables = {"growth": costs, "exponents": exponents(costs, LARGE), "memory": _memory(options)}
    return {"tables": tables, "remarks": remarks}


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of the least squares line through log(cost) over log(size).

    Args:
        sizes: at least two different ones, > 0.
        costs: > 0.

    Raises:
        ValueError: fewer than two different sizes, or values that have no logarithm.
    """
    if len(set(sizes)) < 2 or len(sizes) != len(costs) or min(*sizes, *costs) <= 0:
        raise ValueError(f"an exponent needs two different positive sizes with positive costs, got {sizes} and {costs}")
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    return covariance / sum((a - mean_x) ** 2 for a in x)


def exponents(costs: Rows, smallest: int) -> Rows:
    """The exponent in M of every environment and reward, from the rows with the fewest users and M >= ``smallest``.

    Args:
        costs: rows of the table ``growth``.
        smallest: M from which on the fit counts; if fewer than two sizes are as large, all of them count.
    """
    rows: Rows = []
    for environment, reward in dict.fromkeys((row["environment"], row["reward"]) for row in costs):
        same = [row for row in costs if (row["environment"], row["reward"]) == (environment, reward)]
        fewest = min(row["K"] for row in same)
        sweep = [row for row in same if row["K"] == fewest]
        large = [row for row in sweep if row["M"] >= smallest]
        fitted = large if len(large) > 1 else sweep
        rows.append(
            {
                "environment": environment,
                "reward": reward,
                "K": fewest,
                "M from": min(row["M"] for row in fitted),
                "M to": max(row["M"] for row in fitted),
                "exponent in M": exponent([row["M"] for row in fitted], [row["ms/episode"] for row in fitted]),
                "goal": GOALS[reward],
            }
        )
    return rows


def _costs(options: Options) -> Rows:
    counts, users = (AP_COUNTS, UE_COUNTS) if not options.quick else ((4, 9), (1, 2))
    sizes = [(count, users[0]) for count in counts] + [(counts[1], ues) for ues in users[1:]]
    if not options.quick:
        sizes.append(LARGEST)
    rows: Rows = []
    for game in (RSS, LOCAL_LOG):
        for reward in (LOCAL, SHARED):
            chosen = dataclasses.replace(game, overrides={**game.overrides, "reward": reward})
            batch = 2 if options.quick else _BATCH[reward]
            for num_aps, num_ues in sizes:
                # The measurements of that many links are a gigabyte per 64 episodes: fewer of them.
                few = min(batch, 8) if (num_aps, num_ues) == LARGEST else batch
                print(f"  {game.label}, {reward}, M={num_aps}, K={num_ues}, B={few}", file=sys.stderr, flush=True)
                scene = dataclasses.replace(options, num_aps=num_aps, num_ues=num_ues)
                seconds = round_s(chosen, few, scene)
                rows.append(
                    {
                        "environment": game.label,
                        "reward": reward,
                        "M": num_aps,
                        "K": num_ues,
                        "B": few,
                        "step ms": 1e3 * seconds,
                        "ms/episode": 1e3 * seconds / few,
                    }
                )
    return rows


def round_s(game: Game, batch: int, options: Options, mode: str | None = None) -> float:
    """CPU seconds of one round from the same state over and over."""
    env = make(game, options, batch, mode, num_sites=_SITES)
    env.reset()
    start, actions = env.game_state, actions_for(env)

    def one_round() -> None:
        env.game_state = start
        env.step(actions)

    return cpu_s(one_round, options)


def _memory(options: Options) -> Rows:
    rows: Rows = []
    batch = max(options.batches)
    for game in GAMES[:1] if options.quick else GAMES:
        print(f"  {game.label}, memory, B={batch}", file=sys.stderr, flush=True)
        given = {"id": game.env_id, "batch": batch, "overrides": {**options.scene, **game.overrides}}
        done = subprocess.run(
            [sys.executable, "-m", "cfpos.scripts.benchmarks.memory", json.dumps(given), str(options.threads)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"{game.label} with {batch} episodes failed: {last}")
        peaks = json.loads(done.stdout)
        rows.append({"environment": game.label, "B": batch, **peaks, "goal MiB": MEMORY_GOAL_MIB})
    return rows
