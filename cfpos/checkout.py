"""In a checkout ``cfpos.agents`` is the folder ``agents`` beside ``cfpos``: one module object under two names.

The wheel does not need this: there the folders lie inside ``cfpos``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

PREFIX = "cfpos."
FOLDERS = ("agents", "baselines", "conf", "scripts")
"""Top-level folders of a checkout that the wheel has inside ``cfpos``."""


class AliasFinder(MetaPathFinder, InspectLoader):
    """Finds ``cfpos.FOLDER...`` and answers with the module ``FOLDER...`` itself, imported if need be."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for names below ``cfpos`` that stand for folders of the checkout; None for all others."""
        if not fullname.startswith(PREFIX) or fullname.split(".")[1] not in FOLDERS:
            return None
        found = importlib.util.find_spec(fullname.removeprefix(PREFIX))
        if found is None:
            return None
        return ModuleSpec(fullname, self, origin=found.origin)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module of the checkout."""
        module = importlib.import_module(spec.name.removeprefix(PREFIX))
        self._specs[module.__name__] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is executed again; the import system has replaced the module's own spec, which comes back."""
        module.__spec__ = self._specs[module.__name__]

    def get_code(self, fullname: str) -> CodeType | None:
        """The code of the module, for ``python -m``."""
        found = importlib.util.find_spec(fullname.removeprefix(PREFIX))
        loader: Any = None if found is None else found.loader
        return None if loader is None else loader.get_code(fullname.removeprefix(PREFIX))

    def get_source(self, fullname: str) -> str | None:
        """The source text of the module."""
        found = importlib.util.find_spec(fullname.removeprefix(PREFIX))
        loader: Any = None if found is None else found.loader
        return None if loader is None else loader.get_source(fullname.removeprefix(PREFIX))

    def is_package(self, fullname: str) -> bool:
        """Whether the name is a folder."""
        found = importlib.util.find_spec(fullname.removeprefix(PREFIX))
        return found is not None and found.submodule_search_locations is not None


def install_aliases() -> None:
    """Make the aliases known to the import system, once per process."""
    if not any(isinstance(finder, AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AliasFinder())
