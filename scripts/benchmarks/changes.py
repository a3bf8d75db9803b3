"""What a figure was in one benchmark and is in another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cfpos.scripts.benchmarks.common import Rows

# table -> (columns that say what was measured, the figure, whether more of it is better)
COMPARED: dict[str, tuple[tuple[str, ...], str, bool]] = {
    "environments": (("environment", "front end", "B"), "agent-steps/s", True),
    "locating": (("method",), "us/user", False),
    "bounds": (("bound", "M"), "CPU s per million", False),
    "growth": (("environment", "reward", "M", "K"), "ms/episode", False),
    "exponents": (("environment", "reward"), "exponent in M", False),
    "memory": (("environment", "B"), "peak MiB", False),
    "roofline": (("environment",), "times fused", False),
    "ratios": (("game", "front end", "against"), "ratio", True),
}


def benchmark_tables(content: Mapping[str, Any]) -> dict[str, Rows]:
    """All tables of a benchmark by name, ``ratios`` and ``reset ratios`` among them."""
    found = {name: rows for part in content["parts"].values() for name, rows in part["tables"].items()}
    return {**found, **{name: content[name] for name in ("ratios", "reset ratios") if name in content}}


def changes(table: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Rows:
    """One row per line of ``table`` in ``after``; of several execution modes the best one counts.

    Args:
        table: a name in ``COMPARED``.
        before, after: contents of two benchmark files; a line that ``before`` lacks is marked as missing there.

    Raises:
        ValueError: a table that is not compared.
    """
    if table not in COMPARED:
        raise ValueError(f"table {table!r} is not compared; choose one of {', '.join(COMPARED)}")
    keys, figure, _ = COMPARED[table]
    old, new = (_best(table, content) for content in (before, after))
    return [
        {
            **dict(zip(keys, key)),
            f"{figure}, before": old.get(key),
            "after": value,
            "times": value / old[key] if key in old else None,
        }
        for key, value in new.items()
    ]


def _best(table: str, content: Mapping[str, Any]) -> dict[tuple[Any, ...], float]:
    keys, figure, is_more_better = COMPARED[table]
    better = max if is_more_better else min
    found: dict[tuple[Any, ...], float] = {}
    for row in benchmark_tables(content).get(table, []):
        key = tuple(row[name] for name in keys)
        value = float(row[figure])
        found[key] = better(found.get(key, value), value)
    return found
