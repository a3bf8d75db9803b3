"""Which functions production code uses: the equation index names no function that only tests call."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

PRODUCTION = ("cfpos_envs", "agents", "baselines", "scripts")
"""Folders whose code counts; tests and documentation do not."""
_PATH = re.compile(r"\.*[\w.]+:\w+")


def used_names(root: Path, folders: Sequence[str] = PRODUCTION) -> set[str]:
    """Every top-level name, as ``module:name``, that a statement refers to outside its own definition.

    Imports alone are no use; names re-exported by a package's ``__init__`` are followed to where they are defined.

    Args:
        root: folder that holds ``folders``.
        folders: packages to read.
    """
    referred: set[str] = set()
    handed_on: dict[str, str] = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            module = ".".join(parts[:-1] if is_package else parts)
            package = module if is_package else module.rpartition(".")[0]
            tree = ast.parse(path.read_text(encoding="utf-8"))
            imported = dict(_imports(tree, package))
            handed_on.update({f"{module}:{name}": target for name, target in imported.items()})
            referred.update(_references(tree, module, package, imported))
    return referred | {_followed(name, handed_on) for name in referred}


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, str]]:
    """Local name -> ``module:name``, or ``module:`` for a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            source = _absolute("." * node.level + (node.module or ""), package)
            for alias in node.names:
                yield alias.asname or alias.name, f"{source}:{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    yield alias.asname, f"{_absolute(alias.name, package)}:"


def _absolute(name: str, package: str) -> str:
    level = len(name) - len(name.lstrip("."))
    if level == 0:
        return name.removeprefix("cfpos.")
    above = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*above, *filter(None, [name[level:]])])


def _references(tree: ast.Module, module: str, package: str, imported: dict[str, str]) -> Iterator[str]:
    for statement in tree.body:
        own = getattr(statement, "name", None)
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id != own:
                yield imported.get(node.id, f"{module}:{node.id}")
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
                source, _, name = imported[node.value.id].partition(":")
                yield f"{source}.{name}".rstrip(".") + f":{node.attr}"
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _PATH.fullmatch(node.value):
                path, _, name = node.value.partition(":")  # as registries name classes
                yield f"{_absolute(path, package)}:{name}"


def _followed(name: str, handed_on: dict[str, str]) -> str:
    seen = {name}
    while (target := handed_on.get(name)) is not None and target not in seen:
        seen.add(target)
        name = target
    return name
