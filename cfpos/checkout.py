"""In a checkout ``cfpos.agents`` is the folder ``agents`` beside ``cfpos``: one module object under two names.

Where another distribution owns the name ``agents``, the folder is loaded as ``cfpos.agents`` alone and the other's
package stays what it is. The wheel does not need this module: there the folders lie inside ``cfpos``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

PREFIX = "cfpos."
FOLDERS = ("agents", "baselines", "scripts")
"""Packages at the top of a checkout that the wheel has inside ``cfpos``."""
ROOT = Path(__file__).resolve().parent.parent


class AliasFinder(MetaPathFinder, InspectLoader):
    """Finds ``cfpos.FOLDER...`` and answers with the module ``FOLDER...`` of this checkout, imported if need be."""

    def __init__(self) -> None:
        self._specs: dict[str, ModuleSpec | None] = {}
        self._ours: dict[str, bool] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for names below ``cfpos`` that stand for folders of the checkout; None for all others."""
        if not fullname.startswith(PREFIX) or fullname.split(".")[1] not in FOLDERS:
            return None
        _, folder, *deeper = fullname.split(".")
        if not self._owns(folder):
            # The packages below are found through the folder's __path__.
            return None if deeper else _spec_of_folder(fullname, ROOT / folder)
        found = importlib.util.find_spec(fullname.removeprefix(PREFIX))
        return None if found is None else ModuleSpec(fullname, self, origin=found.origin)

    def _owns(self, folder: str) -> bool:
        """Whether the top-level name of a folder means the folder of this checkout."""
        if folder not in self._ours:
            found = importlib.util.find_spec(folder)
            places = [] if found is None else list(found.submodule_search_locations or ())
            self._ours[folder] = any(Path(place).resolve() == ROOT / folder for place in places)
        return self._ours[folder]

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
        loader, name = _loader(fullname)
        return None if loader is None else loader.get_code(name)

    def get_source(self, fullname: str) -> str | None:
        """The source text of the module."""
        loader, name = _loader(fullname)
        return None if loader is None else loader.get_source(name)

    def is_package(self, fullname: str) -> bool:
        """Whether the name is a folder."""
        loader, name = _loader(fullname)
        return loader is not None and loader.is_package(name)


def install_aliases() -> None:
    """Make the aliases known to the import system, once per process."""
    if not any(isinstance(finder, AliasFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, AliasFinder())


def _spec_of_folder(fullname: str, folder: Path) -> ModuleSpec | None:
    return importlib.util.spec_from_file_location(
        fullname, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )


def _loader(fullname: str) -> tuple[Any, str]:
    name = fullname.removeprefix(PREFIX)
    found = importlib.util.find_spec(name)
    return (None if found is None else found.loader), name
