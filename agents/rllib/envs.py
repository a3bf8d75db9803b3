"""Our environments as RLlib makes them in its workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.rllib.env.wrappers.pettingzoo_env import ParallelPettingZooEnv

from cfpos_envs.registry import make_env
from cfpos_envs.streams import derive_seed

ENV_NAME = "cfpos"
"""Under which ``register`` makes ``make_rllib_env`` known to RLlib."""


def make_rllib_env(config: Mapping[str, Any]) -> ParallelPettingZooEnv:
    """An environment of ours for RLlib, with its own random streams in every worker.

    Args:
        config: ``id``, ``seed`` (any integer, default 0) and overrides of the environment; RLlib's own
            ``EnvContext`` also says which worker and which of its environments it is for.

    Raises:
        ValueError: no or an unknown id, or a wrong override.
    """
    overrides = dict(config)
    if "id" not in overrides:
        raise ValueError("env_config has no id; give one of list_envs(), e.g. {'id': 'dcp-rss-v0'}.")
    env_id, seed = str(overrides.pop("id")), overrides.pop("seed", 0)
    place = (getattr(config, "worker_index", 0), getattr(config, "vector_index", 0))
    return ParallelPettingZooEnv(make_env(env_id, seed=derive_seed(seed, "rllib", *place) % 2**31, **overrides))


def register() -> str:
    """Tell RLlib of :func:`make_rllib_env`; the name to give as ``environment``."""
    from ray.tune.registry import register_env

    register_env(ENV_NAME, make_rllib_env)
    return ENV_NAME
