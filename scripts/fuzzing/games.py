"""Cases of environments, policies and agents: options drawn from their config dataclasses, a few rounds played."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from cfpos.agents import list_agents, make_agent
from cfpos.agents.registry import config_class
from cfpos.baselines import list_policies, make_policy
from cfpos.baselines.registry import policy_families
from cfpos.scripts.fuzzing.cases import Case, NotFinite
from cfpos.scripts.fuzzing.values import changes, options_of
from cfpos_envs import list_envs, make_env
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.registry import make_config

SMALL: dict[str, Mapping[str, Any]] = {
    "dcp": {"num_aps": 6, "num_ues": 2, "num_antennas": 4, "num_sites": 2, "snapshots": 8, "num_angles": 31},
    "toa": {"num_aps": 6, "num_ues": 2, "num_sites": 2, "num_subcarriers": 16},
    "tdoa": {"num_aps": 6, "num_ues": 2, "num_sites": 2, "num_subcarriers": 16},
    "rtt": {"num_aps": 6, "num_ues": 2, "num_sites": 2, "num_subcarriers": 16},
    "hybrid": {"num_aps": 6, "num_ues": 2},
    "ecc": {"num_slots": 2, "estimator": "ls", "num_subcarriers": 8, "subcarrier_stride": 4},
    "ris": {"num_ues": 1, "num_subcarriers": 8, "bandwidth_hz": 25e6, "bs_shape": [3, 3], "num_slots": 9},
    "ris-phase": {"ris_shape": [4, 4]},
}
"""Sizes that play in milliseconds, by the word in front of an id."""
GIVEN: dict[str, dict[str, Any]] = {"csi": {}, "raytraced": {"num_slots": 2, "estimator": "ls"}, "measured": {}}
_PLAYED_NUMBERS = 3e5
"""Larger games are made, but not played: their time is no finding."""
_HOMES = {"dcp": "dcp-jar-v0", "toa": "toa-v0", "tdoa": "tdoa-v0", "rtt": "rtt-v0", "hybrid": "hybrid-v0"}
_HOMES |= {"csi": "ecc-urban-small-v0", "ris": "ris-v0", "ris-phase": "ris-phase-v0"}
_NEEDS: dict[str, dict[str, Any]] = {
    "toa-oracle": {"reveal_los": True},
    "joint-cp": {"measurement": "waveform"},
    "ris-svd": {"action": "raw"},
}
_BRIEF = {"train_samples": 64, "train_steps": 2, "batch_size": 32, "references": 64, "restarts": 0, "spacing": 10.0}
_LONG = {"restarts": 3, "train_steps": 4}
"""Options whose larger values ask for minutes of work, which is no finding: a long training is asked for, no hang."""
_IN_A_RUN: dict[str, Any] = {"num_envs": 2, "evaluations": 0, "validation_envs": 2, "test_envs": 2, "warmup_steps": 4}
_IN_A_RUN |= {"batch_size": 4, "buffer_size": 64, "n_steps": 2, "minibatch_size": 4, "pool": 64, "validation": 16}
_IN_A_RUN |= {"samples": 64, "local_samples": 64, "fusion_hidden": 8, "fusion_size": 8, "encoder_hidden": 8}
_IN_A_RUN |= {"actor_hidden": [8], "critic_hidden": [8], "hidden": [8], "channels": [4], "updates_per_step": 1}
_HEAVY = ("rllib-ppo", "ecc")
"""Agents that start processes of their own, or whose first step takes seconds: their settings alone are made."""


def small(env_id: str) -> dict[str, Any]:
    """Options that make an id small."""
    name = env_id.removesuffix("-v0")
    words = [word for word in SMALL if name.startswith(word)]
    known = GIVEN.get(name.removeprefix("ecc-"), SMALL[max(words, key=len)] if words else {})
    return dict(known)


def finite(what: str, tensors: Mapping[str, Tensor]) -> None:
    """NotFinite for the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise NotFinite(f"{name} of {what}")


def play(env_id: str, chosen: Mapping[str, Any], num_envs: int = 2, rounds: int = 2) -> bool:
    """Make a game and play a few rounds with random actions; False where it is too large to be played here."""
    config = make_config(env_id, **{**small(env_id), **chosen})
    if largest(config) > _PLAYED_NUMBERS:
        return False
    env = make_env(env_id, num_envs=num_envs, seed=1, **{**small(env_id), **chosen})
    finite("reset", {"observations": env.reset(seed=1), "state": env.state()})
    draw = torch.Generator().manual_seed(1)
    shape = (num_envs, len(env.agents), env.action_size)
    for _ in range(min(rounds, env.rounds)):
        step = env.step(2.4 * torch.rand(shape, generator=draw) - 1.2)
        metrics = {name: value for name, value in step.metrics.items() if isinstance(value, Tensor)}
        finite("step", {"observations": step.observations, "rewards": step.rewards, **metrics})
    finite("the game", {"estimate": env.estimate})
    return True


def largest(config: Any) -> float:
    """The largest number of numbers that a config says it holds, episode or site."""
    return float(max(getattr(config, "numbers_per_episode", 0), getattr(config, "numbers_per_site", 0)))


def environments() -> st.SearchStrategy[Case]:
    """Options of every id."""

    def of(env_id: str) -> st.SearchStrategy[Case]:
        config = make_config(env_id)
        old = tuple(getattr(config, "old_names", ()))
        return changes(options_of(config)).map(
            lambda chosen: Case(
                "environments", env_id, f"{chosen}", partial(play, env_id, chosen), (*chosen, *old, "site")
            )
        )

    return st.sampled_from(list_envs()).flatmap(of)


@cache
def _measured(family: str, name: str) -> VectorEnv:
    env_id = _HOMES[family]
    env = make_env(env_id, num_envs=2, seed=1, **{**small(env_id), **_NEEDS.get(name, {})})
    env.reset(seed=1)
    return env


def locate(name: str, family: str, chosen: Mapping[str, Any]) -> bool:
    """Make a policy and let it act once."""
    env = _measured(family, name if name in _NEEDS else "")
    policy = make_policy(name, env, **chosen)
    numbers = {key: value for key, value in chosen.items() if isinstance(value, (int, float))}
    wide = {key for key, value in numbers.items() if not _small(value) or value > _LONG.get(key, value)}
    if wide:
        return False
    finite("the policy", {"actions": policy.act_batch(env.observe())})
    return True


def _small(value: float) -> bool:
    """Whether a number asks for little work, as a count or as a distance of grid points."""
    return value == 0 or 0.5 <= abs(value) <= 1000


def policies() -> st.SearchStrategy[Case]:
    """Options of every policy in every family that it plays."""
    pairs = [(name, family) for name in list_policies() for family in policy_families(name) or tuple(_HOMES)]
    pairs = [(name, family) for name, family in pairs if family in _HOMES]

    def of(pair: tuple[str, str]) -> st.SearchStrategy[Case]:
        name, family = pair
        options = make_policy(name, _measured(family, name if name in _NEEDS else "")).options
        fields = options_of(options)
        brief = {field.name: _BRIEF[field.name] for field in fields if field.name in _BRIEF}
        if not fields:
            return st.just(Case("policies", name, family, partial(locate, name, family, {})))
        return changes(fields, 2).map(
            lambda chosen: Case(
                "policies",
                name,
                f"{family} {chosen}",
                partial(locate, name, family, {**brief, **chosen}),
                (*chosen, *brief, *(str(value) for value in chosen.values() if isinstance(value, Path))),
            )
        )

    return st.sampled_from(pairs).flatmap(of)


def train(name: str, chosen: Mapping[str, Any], run: bool) -> bool:
    """Make an agent, and train it for a moment."""
    known = config_class(name)
    brief = {key: value for key, value in _IN_A_RUN.items() if key in known.__dataclass_fields__}
    env_id = "ecc-urban-small-v0" if name.startswith("ecc") else "dcp-jar-v0"
    if name in _HEAVY:
        known.build({**brief, **chosen})
        return False
    agent = make_agent(name, env_id if name.startswith("ecc") else _measured("dcp", ""), **{**brief, **chosen})
    if not run or any(isinstance(value, int) and value > 64 for value in chosen.values()):
        return False
    results = agent.train(total_steps=64 if name.startswith("ecc") else 8, progress=False)
    finite("training", {key: torch.tensor(float(value)) for key, value in results.items()})
    return True


def agents() -> st.SearchStrategy[Case]:
    """Settings of every agent; one of six is trained for a few steps."""

    def of(name: str) -> st.SearchStrategy[Case]:
        fields = options_of(config_class(name)(), without=("compile", "threads"))
        return st.tuples(changes(fields), st.integers(0, 5)).map(
            lambda drawn: Case(
                "agents", name, f"{drawn[0]}", partial(train, name, drawn[0], drawn[1] == 0), (*drawn[0], *_IN_A_RUN)
            )
        )

    return st.sampled_from(list_agents()).flatmap(of)
