"""Our environments: agent-steps per CPU second through both front ends, with and without the reset's share.

An agent-step is one agent acting once in one episode. Actions are drawn in advance, so that only the environment is
timed; an episode is one reset and all its rounds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cfpos.scripts.benchmarks.common import NATIVE, Options, Played, Rows, episode_s
from cfpos_envs import make_env
from cfpos_envs.front_ends import ParallelEnv, VectorEnv
from cfpos_envs.native.build import KernelUnavailableError, library

SEED = 0
_GAIN = {"action": "gain", "reward": "local", "fusion": "line-search"}


@dataclass(frozen=True)
class Game:
    """An environment as it is measured.

    Attributes:
        label: name in the tables.
        env_id: registered id.
        overrides: what differs from its defaults.
    """

    label: str
    env_id: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


RSS = Game("dcp-rss-v0", "dcp-rss-v0")
HELD_OUT = Game("dcp-jar-v0", "dcp-jar-v0")
LOCAL_LOG = Game("dcp-jar-v0 local log", "dcp-jar-v0", {**_GAIN, "similarity": "log"})
LOCAL_ROBUST = Game("dcp-jar-v0 local robust", "dcp-jar-v0", {**_GAIN, "similarity": "robust"})
GAMES = (RSS, HELD_OUT, LOCAL_LOG, LOCAL_ROBUST)


def run(options: Options) -> dict[str, Any]:
    """Agent-steps per second of every game, front end, number of episodes and execution mode."""
    rows: Rows = []
    for game in GAMES[:2] if options.quick else GAMES:
        for mode in modes(options):
            rows.append(_row(game, "parallel", 1, mode, options))
            rows += [_row(game, "vector", batch, mode, options) for batch in options.batches]
    remarks = ["agent-steps per CPU second; 'with resets' counts one reset per episode of all rounds."]
    if NATIVE in options.modes and not any(row["mode"] == NATIVE for row in rows):
        remarks.append("No compiled kernels here: torch alone.")
    return {"tables": {"environments": rows}, "remarks": remarks}


def modes(options: Options) -> tuple[str, ...]:
    """Those of the wanted execution modes that this machine offers."""
    try:
        library()
    except KernelUnavailableError:
        return tuple(mode for mode in options.modes if mode != NATIVE)
    return options.modes


def make(game: Game, options: Options, batch: int | None, mode: str | None = None, **overrides: Any) -> Any:
    """The game in the scene of ``options``; ``batch=None`` gives PettingZoo's interface, ``mode=None`` its default."""
    chosen = {**options.scene, **game.overrides, **overrides}
    if mode is not None:
        chosen["kernel"] = mode
    return make_env(game.env_id, num_envs=batch, seed=SEED, **chosen)


def actions_for(env: VectorEnv | ParallelEnv) -> Any:
    """Random actions as the front end takes them, always the same."""
    drawn = np.random.default_rng(SEED)
    if isinstance(env, ParallelEnv):
        return {name: drawn.uniform(-1, 1, env.action_size).astype(np.float32) for name in env.possible_agents}
    size = (env.num_envs, len(env.agents), env.action_size)
    return torch.from_numpy(drawn.uniform(-1, 1, size).astype(np.float32))


def play(env: VectorEnv | ParallelEnv, actions: Any, into: Played) -> None:
    """One episode; its CPU seconds are added to ``into``."""
    into.episode(env.reset, lambda: env.step(actions), env.rounds)


def _row(game: Game, front_end: str, batch: int, mode: str, options: Options) -> dict[str, Any]:
    print(f"  {game.label}, {front_end}, B={batch}, {mode}", file=sys.stderr, flush=True)
    env = make(game, options, None if front_end == "parallel" else batch, mode)
    actions = actions_for(env)
    # The first episode draws the sites and builds the kernel if that was not done before: on the wall clock, because a
    # compiler runs in another process.
    began = time.perf_counter()
    play(env, actions, Played())
    first_s = time.perf_counter() - began
    started = os.times()
    reset_s, round_s = episode_s(lambda spent: play(env, actions, spent), options)
    ended = os.times()
    in_kernel, in_all = ended.system - started.system, ended.user + ended.system - started.user - started.system
    agent_steps = batch * options.num_aps
    return {
        "environment": game.label,
        "front end": front_end,
        "B": batch,
        "mode": mode,
        "reset ms": 1e3 * reset_s,
        "step ms": 1e3 * round_s,
        "agent-steps/s": agent_steps / round_s,
        "with resets": agent_steps * env.rounds / (reset_s + env.rounds * round_s),
        "reset share": reset_s / (reset_s + env.rounds * round_s),
        "kernel share": in_kernel / in_all if in_all > 0 else 0.0,
        "first episode s": first_s,
    }
