"""The command that installs optional dependencies, right for an installed package and for a bare checkout alike."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path


def install_command(extra: str) -> str:
    """The command that installs an extra of ``pyproject.toml``.

    An installed cfpos meets the requirement itself, so that pip adds the extra's packages alone and asks no index for
    cfpos; a checkout that is only on the path is installed along.

    Args:
        extra: e.g. ``ray``.
    """
    try:
        importlib.metadata.distribution("cfpos")
    except importlib.metadata.PackageNotFoundError:
        return f'pip install -e "{Path(__file__).resolve().parent.parent}[{extra}]"'
    return f'pip install "cfpos[{extra}]"'
