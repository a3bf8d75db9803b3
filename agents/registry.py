"""The names of the agents: name -> class and settings, imported when first used."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any

from cfpos_envs.checks import unknown_name
from cfpos_envs.extras import install_command
from cfpos_envs.settings import Settings

from .base import Agent

_OURS = ("cfpos", "cfpos_envs", "agents", "baselines")


@dataclass(frozen=True)
class _Entry:
    class_path: str
    config_path: str
    extra: str | None


_entries: dict[str, _Entry] = {}


def register_agent(name: str, class_path: str, config_path: str, extra: str | None = None) -> None:
    """Give an agent a name: for ``make_agent``, for checkpoints and, through its settings, for the command line.

    Args:
        name: new name, equal to ``name`` of the class.
        class_path: ``"package.module:ClassName"`` of an ``agents.base.Agent``; imported at the first use.
        config_path: likewise of its ``cfpos_envs.settings.Settings``. Its module must import without optional packages:
            the command line shows all settings whether or not these are installed.
        extra: optional dependencies of ours that the class needs, a name of ``pyproject.toml``.

    Raises:
        ValueError: the name is taken by something else, or a path is not of the form ``module:Class``.
    """
    entry = _Entry(class_path, config_path, extra)
    for path in (class_path, config_path):
        module, _, found = path.partition(":")
        if not module or not found:
            raise ValueError(f"{path!r} is not a path to a class; it must look like 'package.module:ClassName'.")
    if _entries.get(name, entry) != entry:
        raise ValueError(f"agent name {name!r} is taken by {_entries[name].class_path}; choose another name.")
    _entries[name] = entry


def list_agents() -> list[str]:
    """The names that ``make_agent`` knows, sorted."""
    return sorted(_entries)


def agent_class(name: str) -> type[Agent]:
    """The class behind a name.

    Raises:
        ValueError: unknown name (the nearest are listed), or packages are missing (the extra is named).
    """
    entry = _entry(name)
    try:
        found: type[Agent] = _imported(entry.class_path)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        # A package that is there but lacks a module is another release, not a missing one.
        if entry.extra is None or package in _OURS or importlib.util.find_spec(package) is not None:
            raise
        raise ValueError(
            f"agent {name} needs the package {package}, which is not installed; {install_command(entry.extra)}."
        ) from None
    return found


def config_class(name: str) -> type[Settings]:
    """The settings of an agent; ValueError for an unknown name (the nearest are listed)."""
    found: type[Settings] = _imported(_entry(name).config_path)
    return found


def _entry(name: str) -> _Entry:
    if name not in _entries:
        raise ValueError(unknown_name("agent", name, _entries))
    return _entries[name]


def _imported(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module, __package__), name)


register_agent("maddpg", ".maddpg.agent:Maddpg", ".maddpg.config:MaddpgConfig")
register_agent("ecc", ".ecc.agent:Ecc", "cfpos_envs.supervised.agent_config:EccAgentConfig")
register_agent("ecc-fast", ".ecc.agent:EccFast", "cfpos_envs.supervised.agent_config:EccFastAgentConfig")
register_agent("sb3-ppo", ".sb3.agent:Sb3Ppo", ".sb3.settings:PpoSettings")
register_agent("sb3-sac", ".sb3.agent:Sb3Sac", ".sb3.settings:SacSettings")
register_agent("sb3-td3", ".sb3.agent:Sb3Td3", ".sb3.settings:Td3Settings")
register_agent("rllib-ppo", ".rllib.agent:RllibPpo", ".rllib.settings:RllibPpoSettings", extra="ray")
