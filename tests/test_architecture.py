"""Who imports whom: arrows run down only, there are no circles, and agents and estimators stand side by side."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("cfpos", "cfpos_envs", "agents", "baselines", "scripts")
# From the bottom to the top; an entry may import those above it in this list and itself.
FLOORS = (
    (
        "cfpos_envs.checks",
        "cfpos_envs.extras",
        "cfpos_envs.results",
        "cfpos_envs.checkpoints",
        "cfpos_envs.disk",
        "cfpos_envs.locks",
        "cfpos_envs.sealing",
        "cfpos_envs.ray_address",
        "cfpos_envs.extras",
        "cfpos_envs.arithmetic_threads",
    ),
    ("cfpos_envs.fields",),
    ("cfpos_envs.settings", "cfpos_envs.native", "cfpos_envs.draws", "cfpos_envs.streams"),
    ("cfpos_envs.physics",),
    ("cfpos_envs.measurements",),
    ("cfpos_envs.files",),
    ("cfpos_envs.coverage",),
    ("cfpos_envs.importers",),
    ("cfpos_envs.datasets",),
    ("cfpos_envs.channels", "cfpos_envs.drawing", "cfpos_envs.supervised"),
    ("cfpos_envs.scenarios",),
    ("cfpos_envs.front_ends",),
    ("cfpos_envs.registry",),
    ("cfpos_envs.evaluation", "cfpos_envs.tracking"),
    ("cfpos_envs",),
    ("agents", "baselines"),
    ("scripts",),
    ("cfpos",),
)
# Side by side on one floor, and yet not to be mixed.
APART = (("agents", "baselines"), ("cfpos_envs.channels", "cfpos_envs.supervised"))


def modules() -> dict[str, Path]:
    """Every module of the suite by its name in a checkout."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str, path: Path, text: str | None = None) -> Iterator[str]:
    """Modules of the suite that a module imports, anywhere in it; what only type checkers read counts too."""
    tree = ast.parse(path.read_text(encoding="utf-8") if text is None else text)
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            targets = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            # ``cfpos.agents`` is the folder ``agents``.
            names = (target, target.rpartition(".")[0])
            aliased = [name.removeprefix("cfpos.") for name in names]
            yield from [name for name in (*names, *aliased) if name in MODULES][:1]


EDGES = {name: sorted(set(imported(name, path)) - {name}) for name, path in MODULES.items()}


def floor(name: str) -> int:
    """The floor of a module: that of the longest matching entry."""
    matches = [
        (len(entry), index)
        for index, entries in enumerate(FLOORS)
        for entry in entries
        if name == entry or name.startswith(f"{entry}.")
    ]
    assert matches, f"{name} stands on no floor; add it to FLOORS"
    return max(matches)[1]


def test_imports_run_down_only() -> None:
    upward = [
        f"{name} -> {target}" for name, targets in EDGES.items() for target in targets if floor(target) > floor(name)
    ]
    assert upward == []


@pytest.mark.parametrize(("one", "other"), APART)
def test_neighbours_do_not_lean_on_each_other(one: str, other: str) -> None:
    def leans(left: str, right: str) -> list[str]:
        return [
            f"{name} -> {target}"
            for name, targets in EDGES.items()
            for target in targets
            if f"{name}.".startswith(f"{left}.") and f"{target}.".startswith(f"{right}.")
        ]

    assert leans(one, other) + leans(other, one) == []


def test_there_are_no_circles() -> None:
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name in done:
            return
        for target in EDGES[name]:
            visit(target, (*way, name))
        done.add(name)

    for name in EDGES:
        visit(name, ())


def test_imports_of_all_forms_are_seen() -> None:
    text = "from ..dcp import search\nfrom cfpos.agents.base import Agent\ndef late():\n    import cfpos_envs.streams\n"
    seen = list(imported("baselines.toa.wls", MODULES["baselines.toa.wls"], text))
    assert seen == ["baselines.dcp.search", "agents.base", "cfpos_envs.streams"]
