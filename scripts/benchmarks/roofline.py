"""How far the rounds with a local reward are from what the arithmetic of one core allows.

The work of a round is counted, not measured: what its mathematics needs, each quantity once, nothing of how torch
happens to do it. The rates of the core are measured. Divided, they give times below which no program gets (``fused``:
everything between reading the state and writing the result stays in registers) or no sequence of torch operations
(``eager``: every operation is a pass of its own over data in the cache).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch

from cfpos.agents.maddpg.products import product
from cfpos.scripts.benchmarks.common import Options, Rows, cpu_s
from cfpos.scripts.benchmarks.environments import LOCAL_LOG, RSS, modes
from cfpos.scripts.benchmarks.growth import round_s
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.fusion import LINE_SEARCH_GAINS
from cfpos_envs.scenarios.dcp.observe import GAIN_FEATURES

FLOAT_BYTES = 4
_BATCH = 256


@dataclass(frozen=True)
class Work:
    """Elementary operations.

    Attributes:
        flops: additions, multiplications, comparisons, roundings.
        divisions: divisions and square roots.
        logs, exps: logarithms, exponentials.
        angles: arc tangents, sines, cosines.
        gathers: table entries read at computed places.
    """

    flops: float = 0.0
    divisions: float = 0.0
    logs: float = 0.0
    exps: float = 0.0
    angles: float = 0.0
    gathers: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Work)))

    def __mul__(self, times: float) -> Work:
        return Work(*(times * getattr(self, field.name) for field in fields(Work)))


# Per coordinate a subtraction and the nearest image on the torus, d - side round(d / side) (4); squares and the sum
# with the squared height (4).
_SQUARED_DISTANCE = Work(flops=2 * 5 + 4)
# Measured RSS minus that of the law (``RssLaw``): a logarithm, scaled and added (2), a quadratic in d^2 for what the
# noise adds (4), its difference (1); the square added up (2).
_RSS = Work(flops=2 + 4 + 1 + 2, logs=1)
# Azimuth, angle to the axis, folded to [0, pi] (5), place in the table (3), interpolation (3), masked sum (2).
_AOA = Work(flops=13, angles=1, gathers=2)
# At the consensus, per link: distance and unit vector, azimuth, bearing residual and its mirror image, innovations,
# displacement, share of the mean, spread.
_REPORT = Work(flops=50, divisions=4, exps=1, angles=2)
# Per entry of the observation: scaling and clipping, and in about every second one a logarithm or sine.
_FEATURE = Work(flops=4, logs=0.35, angles=0.2)


def link_work(stage: str) -> Work:
    """Judging one point by one AP: ``rss`` or ``joint``."""
    return _SQUARED_DISTANCE + _RSS + (_AOA if stage == "joint" else Work())


def round_work(stage: str, num_aps: int, num_ues: int) -> Work:
    """One round of one episode with gain actions, line search and local reward.

    Every AP's report of every user is judged by every AP: M M K links. The candidates of the line search, among them
    the consensus itself and the point that is chosen, are judged once each: one more M K per candidate.

    Args:
        stage: ``rss`` or ``joint``.
        num_aps, num_ues: M and K.
    """
    links = num_aps * num_ues
    judged = link_work(stage) * (num_aps * links + len(LINE_SEARCH_GAINS) * links)
    # -log(rms + 0.05), and for the joint game -log(1 - mean), of every judged point.
    points = num_ues * (num_aps + len(LINE_SEARCH_GAINS))
    ends = Work(flops=4, divisions=2, logs=1) * (points * (2 if stage == "joint" else 1))
    return judged + ends + (_REPORT + _FEATURE * len(GAIN_FEATURES)) * links


def round_bytes(stage: str, num_aps: int, num_ues: int, num_angles: int) -> float:
    """What one round of one episode must read and write at least, bytes: state, actions, observations, rewards."""
    links = num_aps * num_ues
    read = links * (1 + 1 + 0.25 + 2) + num_aps * 4 + num_ues * 3
    if stage == "joint":
        read += links * num_angles
    written = links * (len(GAIN_FEATURES) + 1) + num_aps + num_ues * 3
    return FLOAT_BYTES * (read + written)


def limits(work: Work, moved_bytes: float, rates: dict[str, float]) -> dict[str, float]:
    """Least CPU seconds for ``work``: ``fused`` and ``eager``, see the head of this file.

    Args:
        work: counted operations.
        moved_bytes: what must come from and go to memory.
        rates: per second, from ``core_rates``.
    """
    slow = sum(getattr(work, name) / rates[name] for name in ("divisions", "logs", "exps", "angles", "gathers"))
    memory = moved_bytes / rates["bytes"]
    return {
        "fused": max(work.flops / rates["matmul flops"] + slow, memory),
        "eager": max(work.flops / rates["flops"] + slow, memory),
    }


def core_rates(options: Options) -> dict[str, float]:
    """What the core does per CPU second, measured with torch in float32.

    ``matmul flops``: the peak, in a product of large matrices; ``bytes``: read plus written by copying what no cache
    holds; the others: elements per second of one operation after another on data in the cache.
    """
    size, large, small = (64, 2**14, 2**8) if options.quick else (1024, 2**25, 2**15)
    drawn = torch.Generator().manual_seed(0)
    a, b = torch.rand(size, size, generator=drawn), torch.rand(size, size, generator=drawn)
    # Which library is the faster one depends on the processor.
    products = (lambda: torch.mm(a, b), lambda: product(a, b))
    source, target = torch.rand(large, generator=drawn), torch.empty(large)
    x, y = 0.5 + torch.rand(small, generator=drawn), 0.5 + torch.rand(small, generator=drawn)
    out, place = torch.empty(small), torch.randint(small, (small,), generator=drawn)
    operations: dict[str, Callable[[], Any]] = {
        "flops": lambda: torch.mul(x, y, out=out),
        "divisions": lambda: torch.sqrt(x, out=out),
        "logs": lambda: torch.log(x, out=out),
        "exps": lambda: torch.exp(x, out=out),
        "angles": lambda: torch.atan2(x, y, out=out),
        "gathers": lambda: torch.gather(x, 0, place, out=out),
    }
    rates = {
        "matmul flops": 2.0 * size**3 / min(cpu_s(work, options) for work in products),
        "bytes": 2.0 * FLOAT_BYTES * large / cpu_s(lambda: target.copy_(source), options),
    }
    return rates | {name: small / cpu_s(operation, options) for name, operation in operations.items()}


def run(options: Options) -> dict[str, Any]:
    """Rates of the core, counted work, and measured rounds over their limits."""
    rates = core_rates(options)
    counted: Rows = []
    compared: Rows = []
    for game, stage in ((RSS, "rss"), (LOCAL_LOG, "joint")):
        work = round_work(stage, options.num_aps, options.num_ues)
        moved = round_bytes(stage, options.num_aps, options.num_ues, DcpConfig.num_angles)
        counted.append({"environment": game.label, **_work_row(work), "bytes": moved, **_intensity(work, moved)})
        least = limits(work, moved, rates)
        batch = 2 if options.quick else _BATCH
        for mode in modes(options):
            print(f"  {game.label}, B={batch}, {mode}", file=sys.stderr, flush=True)
            seconds = round_s(game, batch, options, mode) / batch
            compared.append(
                {
                    "environment": game.label,
                    "B": batch,
                    "mode": mode,
                    "measured us/round": 1e6 * seconds,
                    "fused limit us": 1e6 * least["fused"],
                    "eager limit us": 1e6 * least["eager"],
                    "times fused": seconds / least["fused"],
                    "times eager": seconds / least["eager"],
                }
            )
    measured = [{"rate": name, "giga/s": 1e-9 * rate} for name, rate in rates.items()]
    remarks = ["One round of one episode; work as counted in scripts/benchmarks/roofline.py, rates in float32."]
    return {"tables": {"rates": measured, "work": counted, "roofline": compared}, "remarks": remarks}


def _work_row(work: Work) -> dict[str, float]:
    return {field.name: float(getattr(work, field.name)) for field in fields(Work)}


def _intensity(work: Work, moved_bytes: float) -> dict[str, float]:
    total = math.fsum(_work_row(work).values())
    return {"operations/byte": total / moved_bytes}
