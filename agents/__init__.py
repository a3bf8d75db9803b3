"""Trainable agents: ``make_agent``, ``load_agent``, ``list_agents``."""

from __future__ import annotations

from pathlib import Path

from cfpos_envs.checkpoints import read_checkpoint

from .base import Agent
from .environments import as_vector_env
from .maddpg.agent import Maddpg
from .maddpg.config import MaddpgConfig
from .registry import agent_class, config_class, list_agents, register_agent

__all__ = ["Agent", "Maddpg", "MaddpgConfig", "list_agents", "load_agent", "make_agent", "register_agent"]


def make_agent(name: str, env: object, *, preset: str | None = None, **overrides: object) -> Agent:
    """An untrained agent for an environment.

    Args:
        name: one of ``list_agents()``.
        env: an id (a batched environment of ``num_envs`` episodes is made), one of our front ends, or a PettingZoo
            parallel environment with Box actions.
        preset: a named setting of the agent's config class; None: the one that suits the environment.
        overrides: fields of the agent's config class.

    Returns:
        An ``Agent``.

    Raises:
        ValueError: unknown name, preset or setting (the nearest are listed), settings the environment cannot serve,
            or an optional package that is not installed.
    """
    settings = config_class(name)
    if preset is not None:
        config = settings.preset(preset, **overrides)
    else:
        base = settings.build(overrides)
        env = batched = as_vector_env(env, base.num_envs, base.seed, base.device)
        config = settings.build({**settings.suited(batched, overrides), **overrides})
    agent = agent_class(name)(env, config)
    agent.check_trainable()
    return agent


def load_agent(path: str | Path, env: object) -> Agent:
    """The trained agent in a file or in a run's folder (its best policy), for ``env``; the file names the agent.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged file, policies of another game or of other sizes, or an optional package that is missing.
    """
    state = read_checkpoint(path)["agent"]
    return agent_class(str(state["name"])).from_state(state, env)
