"""MADDPG updates: ours with every critic, the same written as a loop, and other people's; CPU time of one update.

Transitions are random numbers of the sizes in ``trainer_sizes``; fetching them from the replay memory is timed apart.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from cfpos.agents.maddpg.config import MaddpgConfig
from cfpos.agents.maddpg.learner import CriticLearner
from cfpos.agents.maddpg.networks import GameShape
from cfpos.agents.maddpg.products import product
from cfpos.agents.maddpg.replay import Batch, Replay
from cfpos.scripts.benchmarks.common import Options, Rows, cpu_s
from cfpos.scripts.benchmarks.trainer_loop import LoopedMaddpg
from cfpos.scripts.benchmarks.trainer_sizes import ACTION, OBSERVATION, Size, sizes
from cfpos.scripts.benchmarks.yardsticks import NOT_INSTALLED, TRAINERS, answer

LOOP, CONCATENATED = "concatenated, as a loop", "concatenated"
# Label -> settings; the loop has those of the critic that it repeats.
SETTINGS: dict[str, dict[str, str]] = {
    LOOP: {},
    CONCATENATED: {},
    "permutation-invariant": {"critic": "permutation-invariant"},
    "permutation-invariant, shared actor": {"critic": "permutation-invariant", "share": "shared"},
}
LINEAR = tuple(label for label in SETTINGS if "critic" in SETTINGS[label])


def run(options: Options) -> dict[str, Any]:
    """Tables ``updates``, ``trainers`` (beside other people's), ``trainer kernel``, ``trainer growth``, ``replay`` and
    ``products``."""
    products = _products(options)
    peak = max(float(row["GFLOP/s"]) for row in products)
    updates = [_row(size, label, options, peak) for size in _grid(options) for label in SETTINGS]
    growth = [_row(size, label, options, peak) for size in _many_agents(options) for label in LINEAR]
    kernel = [_without_kernel(size, label, options) for size in sizes(options) for label in SETTINGS if label != LOOP]
    theirs = _yardsticks(options)
    missing = [row["trainer"] for row in theirs if row["status"] == NOT_INSTALLED]
    remarks = [
        f"One core's best matrix product does {peak:.0f} GFLOP/s; 'of peak' is the counted work of an update "
        "divided by its time and by this.",
        "'x ours' is the time of a trainer over ours with the concatenated critic at the same size.",
    ]
    if missing:
        remarks.append(f"Not measured: {', '.join(missing)}; give --yardstick NAME=PYTHON of an environment with it.")
    tables = {"updates": updates, "trainer kernel": kernel, "trainer growth": growth, "trainers": theirs}
    return {"tables": {**tables, "replay": _replay(options), "products": products}, "remarks": remarks}


def random_batch(size: Size, dtype: torch.dtype = torch.float32) -> Batch:
    """Transitions of made-up numbers."""
    draw = torch.Generator().manual_seed(0)

    def normal(*width: int) -> torch.Tensor:
        return torch.randn(size.batch, size.agents, *width, generator=draw, dtype=dtype)

    terminated = torch.zeros(size.batch, size.agents, dtype=torch.bool)
    return Batch(normal(OBSERVATION), normal(ACTION).tanh(), normal(), terminated, normal(OBSERVATION))


def learner(size: Size, label: str, dtype: torch.dtype = torch.float32) -> CriticLearner:
    """Ours, freshly initialised."""
    hidden = (size.hidden, size.hidden)
    config = MaddpgConfig.build({**SETTINGS[label], "actor_hidden": hidden, "critic_hidden": hidden})
    shape = GameShape(size.agents, OBSERVATION, ACTION)
    return CriticLearner(config, shape, torch.Generator().manual_seed(0), dtype)


def concatenated_flops(size: Size) -> float:
    """Additions and multiplications of the matrix products in one update with concatenated critics.

    An actor is passed forward twice (targets, policy) and backward once, where its inputs need no gradient. A critic's
    first layer is evaluated for the targets, for the error, for the policy, and once more for its weights' gradient;
    what lies behind it is passed forward three times, backward to weights once and to activations twice. In the policy
    step agent i's own columns come in addition, forward and backward.
    """
    n, hidden = size.agents, size.hidden
    per_weight = 2.0 * size.batch * n
    actor = per_weight * (OBSERVATION * hidden + hidden * hidden + hidden * ACTION)
    actor_behind = per_weight * (hidden * hidden + hidden * ACTION)
    first = per_weight * n * (OBSERVATION + ACTION) * hidden
    behind = per_weight * (hidden * hidden + hidden)
    own = per_weight * ACTION * hidden
    return 3 * actor + actor_behind + 4 * first + 6 * behind + 2 * own


def _grid(options: Options) -> list[Size]:
    if options.quick:
        return sizes(options)
    return [Size(agents, batch, hidden) for hidden in (64, 256) for batch in (256, 1024) for agents in (3, 6, 12, 36)]


def _many_agents(options: Options) -> list[Size]:
    return [Size(agents, 256, 64) for agents in (64, 128, 256)] if not options.quick else [Size(5, 16, 8)]


def _row(size: Size, label: str, options: Options, peak: float) -> dict[str, Any]:
    print(f"  {label}: {size}", file=sys.stderr, flush=True)
    seconds = cpu_s(_updater(size, label), options)
    gflops = concatenated_flops(size) / seconds / 1e9 if label in (LOOP, CONCATENATED) else None
    return {
        "agents": size.agents,
        "batch": size.batch,
        "hidden": size.hidden,
        "critic": label,
        "ms/update": 1e3 * seconds,
        "updates/s": 1.0 / seconds,
        "GFLOP/s": gflops,
        "of peak": None if gflops is None else gflops / peak,
    }


def _without_kernel(size: Size, label: str, options: Options) -> dict[str, Any]:
    """The same update by tensor operations and by the compiled kernel, where that serves it, in alternation."""
    ours, batch = learner(size, label), random_batch(size)

    def update(compiled: bool) -> float:
        ours.compiled = compiled
        return 1e3 * cpu_s(lambda: ours.update(batch), options)

    pairs = [(update(False), update(True)) for _ in range(2)]
    operations, kernel = (min(times) for times in zip(*pairs, strict=True))
    served = ours.kernel.serves(batch)
    return {
        "agents": size.agents,
        "critic": label,
        "ms by operations": operations,
        "ms by kernel": kernel if served else None,
        "times": operations / kernel if served else None,
    }


def _updater(size: Size, label: str) -> Callable[[], Any]:
    batch, ours = random_batch(size), learner(size, label)
    if label == LOOP:
        looped = LoopedMaddpg(ours)
        return lambda: looped.update(batch)
    return lambda: ours.update(batch)


def _yardsticks(options: Options) -> Rows:
    """Ours before and after everybody else's: what disturbs the machine meanwhile shall not favour one side."""
    wanted = sizes(options)
    before = [cpu_s(_updater(size, CONCATENATED), options) for size in wanted]
    found = {name: answer(name, options) for name in TRAINERS}
    after = [cpu_s(_updater(size, CONCATENATED), options) for size in wanted]
    ours = [min(pair) for pair in zip(before, after, strict=True)]
    rows = [_compared(size, "ours", mine, mine) for size, mine in zip(wanted, ours, strict=True)]
    for name, seconds_of in found.items():
        if seconds_of is None:
            rows.append({**_compared(wanted[0], name, None, None), "agents": None, "status": NOT_INSTALLED})
            continue
        for trainer, seconds in seconds_of.items():
            compared = zip(wanted, seconds, ours, strict=True)
            rows += [_compared(size, trainer, theirs, mine) for size, theirs, mine in compared]
    return rows


def _compared(size: Size, trainer: str, seconds: float | None, ours: float | None) -> dict[str, Any]:
    measured = seconds is not None and ours is not None
    return {
        "agents": size.agents,
        "trainer": trainer,
        "ms/update": 1e3 * seconds if seconds is not None else None,
        "x ours": seconds / ours if seconds is not None and ours is not None else None,
        "status": "measured" if measured else NOT_INSTALLED,
    }


def _replay(options: Options) -> Rows:
    """Fetching a batch: joint transitions, and single pairs out of a memory far larger than the cache."""
    joint, pairs = Size(36, 256, 64), Size(1, 4096, 48)
    capacities = {joint: 6144, pairs: 2048 * 36 * 6}
    if options.quick:
        joint, pairs = Size(2, 16, 8), Size(1, 16, 8)
        capacities = {joint: 32, pairs: 64}
    rows: Rows = []
    for size, capacity in capacities.items():
        memory = Replay(capacity, size.agents, OBSERVATION, ACTION, True, torch.Generator().manual_seed(0))
        given = random_batch(Size(size.agents, capacity, size.hidden))
        memory.add(given.observations, given.actions, given.rewards, given.terminated, given.next_observations)
        seconds = cpu_s(lambda memory=memory, size=size: memory.sample(size.batch), options)  # type: ignore[misc]
        rows.append({"agents": size.agents, "capacity": capacity, "batch": size.batch, "us/batch": 1e6 * seconds})
    return rows


def _products(options: Options) -> Rows:
    """What one core makes of matrix products: of the sizes in an update, and large ones."""
    shapes = [(64, 64, 64)] if options.quick else [(192, 108, 256), (2304, 1296, 256), (1024, 1024, 1024)]
    draw = torch.Generator().manual_seed(0)
    rows: Rows = []
    for shape in shapes:
        left, right = torch.randn(shape[:2], generator=draw), torch.randn(shape[1:], generator=draw)
        for name, multiply in (("torch.mm", torch.mm), ("ours", product)):
            seconds = cpu_s(lambda f=multiply, a=left, b=right: f(a, b), options)  # type: ignore[misc]
            flops = 2.0 * shape[0] * shape[1] * shape[2]
            rows.append({"M x K x N": " x ".join(map(str, shape)), "by": name, "GFLOP/s": flops / seconds / 1e9})
    return rows
