"""What ``scripts/benchmark.py`` measures, one module per subject, each imported when it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from cfpos.scripts.benchmarks.common import Options

PARTS = (
    "imports",
    "environments",
    "phases",
    "resets",
    "links",
    "growth",
    "contention",
    "ecc",
    "locating",
    "policies",
    "ris",
    "roofline",
    "yardsticks",
    "trainers",
    "data-parallel",
)
"""Modules in this folder with ``run(options)``, in the order in which they run."""


def measure(part: str, options: Options) -> dict[str, Any]:
    """What ``run`` of a part returns, see ``common``."""
    found: dict[str, Any] = importlib.import_module(f".{part.replace('-', '_')}", __package__).run(options)
    return found
