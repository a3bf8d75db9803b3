"""Where built libraries are kept: what lies there is loaded into the process, so it has to be the user's own and whole.

The name of a library ends with the digest of its content. One that is cut, changed, a link, of another user or one that
others may write to is no library, and is built again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from cfpos_envs.disk import sync

_PRIVATE = 0o700
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
_DIGEST_CHARACTERS = 32


def cache_folder() -> Path:
    """Where libraries are kept: ``$CFPOS_CACHE``, else ``cfpos`` in the user's cache folder.

    Raises:
        OSError: it cannot be made, or is not the user's alone.
    """
    chosen = os.environ.get("CFPOS_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(chosen) if chosen else Path(base) / "cfpos"
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    found = folder.stat()
    if not _is_ours(found):
        raise OSError(f"{folder} belongs to another user; set CFPOS_CACHE to a folder of your own")
    if found.st_mode & _OTHERS_MAY_WRITE:
        raise OSError(f"others may write to {folder}; take that right from them (chmod go-w) or set CFPOS_CACHE")
    return folder


def kept_library(folder: Path, key: str) -> Path | None:
    """The library of a key; None: there is none, or none that is whole and the user's own."""
    return next((path for path in _named(folder, key) if _is_trusted(path)), None)


def keep_library(made: Path, folder: Path, key: str) -> Path:
    """Move a library that was built to its place, whole or not at all; what was wrong there goes.

    Args:
        made: the file, on the same disk.
        folder: of all libraries.
        key: what it was built from.

    Raises:
        OSError: no room.
    """
    os.chmod(made, _PRIVATE)
    sync(made)
    path = folder / f"kernels-{key}-{_digest(made)}.so"
    for wrong in _named(folder, key):
        with contextlib.suppress(OSError):
            wrong.unlink()
    os.replace(made, path)
    sync(folder)
    return path


def _named(folder: Path, key: str) -> Iterator[Path]:
    return folder.glob(f"kernels-{key}-*.so")


def _is_trusted(path: Path) -> bool:
    try:
        found = path.lstat()
        regular = stat.S_ISREG(found.st_mode) and _is_ours(found) and not found.st_mode & _OTHERS_MAY_WRITE
        return regular and path.stem.endswith(f"-{_digest(path)}")
    except OSError:
        return False


def _is_ours(found: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or found.st_uid == os.getuid()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGEST_CHARACTERS]
