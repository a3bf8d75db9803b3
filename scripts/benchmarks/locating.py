"""What it costs to locate one user, and to draw a map of the bound."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from cfpos.agents import make_agent
from cfpos.baselines import make_policy
from cfpos.scripts.benchmarks.common import Options, Rows, cpu_s
from cfpos.scripts.benchmarks.environments import SEED
from cfpos_envs import make_env
from cfpos_envs.front_ends import VectorEnv
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.bounds import drop_bound, measurement_statistics

ENV_ID = "dcp-jar-v0"
EPISODES = 50
REFERENCE = "fingerprint 0.5 m"
ESTIMATORS: dict[str, tuple[str, dict[str, Any]]] = {
    REFERENCE: ("fingerprint", {"spacing": 0.5}),
    "fingerprint 2.5 m": ("fingerprint", {"spacing": 2.5}),
    "joint-gn": ("joint-gn", {}),
}
POINTS = 10_000


def run(options: Options) -> dict[str, Any]:
    """Microseconds per located user and seconds per million points of the bound."""
    remarks = [
        f"{ENV_ID}, {EPISODES} episodes at once, unseen sites. Policies play all rounds; the game's own work (also the",
        "reward, which locating does not need) counts as in evaluate(), but not in 'policy alone'.",
        f"Bound: {POINTS} positions at once in one network.",
    ]
    return {"tables": {"locating": _locating(options), "bounds": _bounds(options)}, "remarks": remarks}


def _locating(options: Options) -> Rows:
    episodes = 3 if options.quick else EPISODES
    env: VectorEnv = make_env(ENV_ID, num_envs=episodes, seed=SEED, split="test", **_scene(options))
    env.reset()
    start, users = env.game_state, episodes * options.num_ues
    costs: dict[str, tuple[float, float, float]] = {}
    for label, (name, settings) in ESTIMATORS.items():
        print(f"  {label}", file=sys.stderr, flush=True)
        coarse = {"spacing": 10.0} if options.quick and settings else settings
        seconds, preparation = _one_shot(make_policy(name, env, **coarse), env.measurements, options)
        costs[label] = seconds, seconds, preparation
    policies: dict[str, Any] = {
        "untrained": make_policy("untrained", env),
        "MADDPG, random weights": make_agent("maddpg", env, seed=SEED),
    }
    for label, policy in policies.items():
        print(f"  {label}", file=sys.stderr, flush=True)
        costs[label] = *_in_rounds(policy, env, start, options), 0.0
    reference = costs[REFERENCE][0]
    return [
        {
            "method": label,
            "us/user": 1e6 * seconds / users,
            "policy alone us/user": 1e6 * alone / users,
            "preparation s": preparation,
            f"{REFERENCE} over it": reference / seconds,
        }
        for label, (seconds, alone, preparation) in costs.items()
    ]


def _one_shot(policy: Any, measurements: Any, options: Options) -> tuple[float, float]:
    """CPU seconds of an answer, and how much longer the first one takes, which makes databases."""
    began = time.process_time()
    policy.locate(measurements)
    first = time.process_time() - began
    seconds = cpu_s(lambda: policy.locate(measurements), options)
    return seconds, max(first - seconds, 0.0)


def _in_rounds(policy: Any, env: VectorEnv, start: Any, options: Options) -> tuple[float, float]:
    """CPU seconds of all rounds from ``start``, and of the policy's part in them."""
    env.game_state = start
    first = env.observe()

    def play() -> None:
        env.game_state = start
        observations = env.observe()
        for _ in range(env.rounds):
            observations = env.step(policy.act_batch(observations)).observations

    return cpu_s(play, options), env.rounds * cpu_s(lambda: policy.act_batch(first), options)


def _bounds(options: Options) -> Rows:
    points = 50 if options.quick else POINTS
    rows: Rows = []
    for label, known, use_aoa in (("RSS", False, False), ("joint", False, True), ("joint, known map", True, True)):
        print(f"  bound, {label}", file=sys.stderr, flush=True)
        env: VectorEnv = make_env(ENV_ID, num_envs=1, seed=SEED, shadowing_known=known, **_scene(options))
        env.reset()
        seconds = cpu_s(_bound_at(points, env.measurements, use_aoa), options)
        rows.append({"bound": label, "M": options.num_aps, "CPU s per million": 1e6 * seconds / points})
    return rows


def _bound_at(points: int, measured: RadioMeasurements, use_aoa: bool) -> Callable[[], Any]:
    radio = measured.radio
    places = torch.rand(1, points, 2, generator=torch.Generator().manual_seed(SEED)) * radio.side_m
    site = (measured.ap_positions_m, measured.ap_orientation_rad, measured.height_diff_m)
    statistics, maps, hidden_db = measurement_statistics(radio), measured.shadowing_maps, measured.shadowing_std_db
    return lambda: drop_bound(radio, statistics, *site, places, hidden_db, maps_db=maps, use_aoa=use_aoa)


def _scene(options: Options) -> dict[str, Any]:
    return dict(options.scene)
