"""Where an episode's CPU time goes: measuring, observing, judging by similarity, fusing.

The product code is not touched: while an episode is played, its functions are replaced by ones that note their time.
A function's share is what it spends itself, without what the others on this list that it calls spend.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from itertools import product
from typing import Any

from cfpos.scripts.benchmarks.common import Options, Played, Rows
from cfpos.scripts.benchmarks.environments import GAMES, LOCAL_LOG, RSS, actions_for, make, modes, play

_GAME = "cfpos_envs.scenarios.dcp.game"
_JUDGE = "cfpos_envs.scenarios.dcp.similarity:Judge"
COMPILED = "whole round, compiled"
# phase -> "module:attribute" or "module:Class.attribute" of the functions that do it
PHASES: dict[str, tuple[str, ...]] = {
    "measure": (f"{_GAME}:draw_drop",),
    "spectra": (f"{_GAME}:DcpScenario._hear",),
    "start": (f"{_GAME}:DcpScenario.start",),
    "reset, rest": (f"{_GAME}:DcpScenario.reset",),
    "observe": (f"{_GAME}:DcpScenario.observe",),
    "similarity": (f"{_JUDGE}.__init__", f"{_JUDGE}.similarity"),
    "reward, rest": (f"{_GAME}:reward",),
    "fuse": ("cfpos_envs.scenarios.dcp.fusion:fuse",),
    COMPILED: ("cfpos_envs.scenarios.dcp.kernel:DcpKernel.step",),
    "step, rest": (f"{_GAME}:DcpScenario.step",),
}
FRONT_END = "front end"


def run(options: Options) -> dict[str, Any]:
    """CPU milliseconds of every phase in one episode, for the smallest and the largest but one number of episodes."""
    sizes = sorted({options.batches[0], options.batches[-2:][0]})
    rows: Rows = []
    for game in (RSS, LOCAL_LOG) if options.quick else GAMES:
        for batch, mode in product(sizes, modes(options)):
            env = make(game, options, batch, mode)
            actions = actions_for(env)
            play(env, actions, Played())
            spent = best(partial(play, env, actions, Played()), PHASES, options)
            whole = sum(spent.values())
            rows += [
                {
                    "environment": game.label,
                    "B": batch,
                    "mode": mode,
                    "phase": phase,
                    "ms/episode": 1e3 * seconds / batch,
                    "share": seconds / whole,
                }
                for phase, seconds in spent.items()
                # A compiled round has no parts that could be timed from outside.
                if seconds > 0
            ]
    remarks = ["One reset and all its rounds through the batched front end; milliseconds divided by B."]
    return {"tables": {"phases": rows}, "remarks": remarks}


def best(episode: Callable[[], None], phases: Mapping[str, Sequence[str]], options: Options) -> dict[str, float]:
    """Seconds of every phase in one call of ``episode``, from the repeat that took least in all."""
    found: dict[str, float] = {}
    for _ in range(options.repeats):
        calls, total = 0, dict.fromkeys((*phases, FRONT_END), 0.0)
        while not calls or sum(total.values()) < options.seconds:
            with watched(phases) as spent:
                episode()
            for phase, seconds in spent.items():
                total[phase] += seconds
            calls += 1
        each = {phase: seconds / calls for phase, seconds in total.items()}
        if not found or sum(each.values()) < sum(found.values()):
            found = each
    return found


@contextmanager
def watched(phases: Mapping[str, Sequence[str]]) -> Iterator[dict[str, float]]:
    """Own CPU seconds of every phase inside the block; what no phase accounts for goes to ``FRONT_END``.

    Args:
        phases: phase -> functions, as in ``PHASES``.

    Raises:
        AttributeError: a function is not there any more; name its successor in ``PHASES``.
    """
    spent = dict.fromkeys((*phases, FRONT_END), 0.0)
    inner = [0.0]  # per open call, CPU seconds of the watched calls inside it

    def timing(function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            inner.append(0.0)
            began = time.process_time()
            try:
                return function(*arguments, **named)
            finally:
                seconds = time.process_time() - began
                spent[phase] += seconds - inner.pop()
                inner[-1] += seconds

        return timed

    owners = [(*_owner(path), phase) for phase, paths in phases.items() for path in paths]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in owners]
    began = time.process_time()
    try:
        for owner, name, phase in owners:
            setattr(owner, name, timing(getattr(owner, name), phase))
        yield spent
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)
        spent[FRONT_END] = time.process_time() - began - inner[0]


def _owner(path: str) -> tuple[Any, str]:
    """The module or class that holds a function, and the function's name there."""
    module, _, attribute = path.partition(":")
    *outer, name = attribute.split(".")
    owner: Any = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    return owner, name
