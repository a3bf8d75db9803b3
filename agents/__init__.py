"""Trainable agents: ``make_agent``, ``load_agent``, ``list_agents``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agents.config import MaddpgConfig, default_overrides, unknown_name
from agents.environments import as_vector_env
from agents.maddpg import Maddpg

__all__ = ["Maddpg", "MaddpgConfig", "list_agents", "load_agent", "make_agent"]

_AGENTS = {"maddpg": Maddpg}


def list_agents() -> list[str]:
    """The names that ``make_agent`` knows."""
    return sorted(_AGENTS)


def make_agent(name: str, env: Any, *, preset: str | None = None, **overrides: Any) -> Maddpg:
    """An untrained agent for an environment.

    Args:
        name: one of ``list_agents()``.
        env: an id (a batched environment of ``num_envs`` episodes is made), one of our front ends, or a PettingZoo
            parallel environment with Box actions.
        preset: a named setting of ``MaddpgConfig``; None: the one that suits the environment.
        overrides: fields of ``MaddpgConfig``.

    Raises:
        ValueError: unknown name, preset or setting (the nearest are listed), or settings the environment cannot serve.
    """
    if name not in _AGENTS:
        raise ValueError(unknown_name("agent", name, _AGENTS))
    if preset is not None:
        config = MaddpgConfig.preset(preset, **overrides)
        agent = _AGENTS[name](env, config)
    else:
        base = MaddpgConfig.build(overrides)
        env = as_vector_env(env, base.num_envs, base.seed, base.device)
        agent = _AGENTS[name](env, MaddpgConfig.build({**default_overrides(env, overrides.get("critic")), **overrides}))
    agent.check_trainable()
    return agent


def load_agent(path: str | Path, env: Any) -> Maddpg:
    """The trained agent in a file or in a run's folder (its best policy), for ``env``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged file, or policies of another game or of other sizes.
    """
    return Maddpg.load(path, env)
