"""Ids of the suite's own games, without what tests or plug-ins register."""

from __future__ import annotations

from cfpos_envs import list_envs
from cfpos_envs.registry import make_config

OWN_GAMES = tuple(name for name in list_envs() if type(make_config(name)).__module__.startswith("cfpos_envs."))
"""As of the import, before a test runs and registers a further name of one of them."""
