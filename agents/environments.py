"""Whatever a caller calls an environment, seen as one batched tensor environment."""

from __future__ import annotations

from cfpos_envs.front_ends.base import BatchedEnv, Env, begin_by_reset
from cfpos_envs.registry import checked_device, make_env

from .adapters import PettingZooGame, PettingZooVectorEnv


def as_vector_env(env: object, num_envs: int, seed: int, device: str = "cpu") -> BatchedEnv:
    """A batched environment for a trainer.

    Args:
        env: an id, one of our front ends, or any PettingZoo parallel environment with Box actions.
        num_envs: parallel episodes where a batched environment has to be made here.
        seed: its seed; a batched environment that is handed in keeps its own.
        device: torch device for an id, and of the trainer; an environment that is handed in keeps its own.

    Raises:
        ValueError: something else was given, a device that is not there, or an environment whose episodes begin anew
            by themselves.
    """
    checked_device(device)
    if isinstance(env, str):
        return make_env(env, num_envs=num_envs, seed=seed, device=device)
    if isinstance(env, Env):
        batched = env.batched(num_envs, seed)
        begin_by_reset(batched)
        return batched
    if isinstance(env, PettingZooGame):
        return PettingZooVectorEnv(env, seed=seed)
    raise ValueError(
        f"cannot train on a {type(env).__name__}; give an environment id, a VectorEnv, or a PettingZoo ParallelEnv."
    )
