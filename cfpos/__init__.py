"""Positioning in cell-free networks: environments, estimators, trainers and their evaluation under one name.

``from cfpos import make_env, make_policy, make_agent, evaluate`` works in an installed package and in a checkout alike.
So do the folders: ``cfpos.agents``, ``cfpos.baselines`` and ``cfpos.scripts`` are packages in the wheel; in a checkout
they are the top-level folders of the same names. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cfpos.agents import list_agents, load_agent, make_agent, register_agent
    from cfpos.baselines import (
        Fingerprint,
        calibrate_anchors,
        calibrate_ranges,
        list_policies,
        locate_csi,
        locate_ranges,
        locate_rss,
        locate_tdoa,
        make_policy,
        register_policy,
    )
    from cfpos_envs import __version__, evaluate, list_envs, make_env, make_scenario, register
    from cfpos_envs.files.positions import Positions

__all__ = [
    "Fingerprint",
    "Positions",
    "__version__",
    "calibrate_anchors",
    "calibrate_ranges",
    "evaluate",
    "list_agents",
    "list_envs",
    "list_policies",
    "load_agent",
    "locate_csi",
    "locate_ranges",
    "locate_rss",
    "locate_tdoa",
    "make_agent",
    "make_env",
    "make_policy",
    "make_scenario",
    "register",
    "register_agent",
    "register_policy",
]

_HOMES = {
    "cfpos.agents": ("list_agents", "load_agent", "make_agent", "register_agent"),
    "cfpos.baselines": (
        "Fingerprint",
        "calibrate_anchors",
        "calibrate_ranges",
        "list_policies",
        "locate_csi",
        "locate_ranges",
        "locate_rss",
        "locate_tdoa",
        "make_policy",
        "register_policy",
    ),
    "cfpos_envs.files.positions": ("Positions",),
    "cfpos_envs": ("__version__", "evaluate", "list_envs", "make_env", "make_scenario", "register"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

if not (Path(__file__).parent / "agents").is_dir():
    # A checkout: the folders stand beside this one.
    from cfpos.checkout import install_aliases

    install_aliases()


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'cfpos' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
