"""Whatever a caller calls an environment, seen as one batched tensor environment."""

from __future__ import annotations

import dataclasses
from typing import Any

from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.registry import make_env

from .maddpg.networks import GameShape

# Config fields that change what the numbers in observations and actions mean: a policy does not move across them.
_GAME_FIELDS = ("stage", "formulation", "action", "fusion")


def as_vector_env(env: Any, num_envs: int, seed: int, device: str = "cpu") -> Any:
    """An object with the interface of ``cfpos_envs.front_ends.vector.VectorEnv``.

    Args:
        env: an id, one of our front ends, or any PettingZoo parallel environment with Box actions.
        num_envs: parallel episodes where a batched environment has to be made here.
        seed: its seed; a batched environment that is handed in keeps its own.
        device: torch device for an id.

    Raises:
        ValueError: something else was given.
    """
    if isinstance(env, str):
        return make_env(env, num_envs=num_envs, seed=seed, device=device)
    if hasattr(env, "num_envs") and hasattr(env, "observation_size"):
        return env
    if hasattr(env, "scenario"):
        return VectorEnv(env.scenario, num_envs, seed=seed, env_id=getattr(env, "env_id", None))
    if hasattr(env, "possible_agents") and hasattr(env, "action_space"):
        from .adapters import PettingZooVectorEnv

        return PettingZooVectorEnv(env, seed=seed)
    raise ValueError(
        f"cannot train on a {type(env).__name__}; give an environment id, a VectorEnv, or a PettingZoo ParallelEnv."
    )


def sibling(env: Any, num_envs: int, seed: int, split: str | None = None) -> Any:
    """A second environment like ``env`` that shares no running state with it.

    Args:
        env: from ``as_vector_env``.
        num_envs: its number of episodes (a single-episode adapter stays one).
        seed: start of its random streams.
        split: another data split (``"test"``), or None for the same.
    """
    if hasattr(env, "clone"):
        return env.clone(seed)
    scenario = env.scenario
    if split is not None and getattr(scenario.config, "split", split) != split:
        config = dataclasses.replace(scenario.config, split=split)
        scenario = type(scenario)(config, device=env.device)
    return VectorEnv(scenario, num_envs, seed=seed, env_id=getattr(env, "env_id", None))


def game_shape(env: Any) -> GameShape:
    """The sizes that networks for ``env`` need."""
    entities = env.entities.count if env.entities is not None else 1
    return GameShape(len(env.agents), env.observation_size, env.action_size, entities)


def game_signature(env: Any) -> dict[str, str]:
    """What must agree between the game a policy was trained on and the one it is used in, apart from sizes."""
    config = getattr(env, "config", None)
    kind = type(env.scenario).__name__ if hasattr(env, "scenario") else getattr(env, "env_id", type(env).__name__)
    fields = {name: str(getattr(config, name)) for name in _GAME_FIELDS if hasattr(config, name)}
    return {"game": kind, **fields}


def check_signature(env: Any, trained_on: dict[str, str]) -> None:
    """ValueError if policies with the signature ``trained_on`` belong to another game than ``env``."""
    here = game_signature(env)
    wrong = [name for name in here if name in trained_on and here[name] != trained_on[name]]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"the checkpoint is of another environment ({name} {trained_on[name]}, here {here[name]}); "
            "load it with the environment it was trained on."
        )
