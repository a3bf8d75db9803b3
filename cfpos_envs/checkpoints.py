"""Files of a run: written whole or not at all, read back without executing anything."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch

BEST, LAST = "best.pt", "last.pt"
_FORMAT = 2


def write_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write to a temporary file beside ``path``, force it to the disk, then rename: readers never see half a file.

    Raises:
        OSError: the folder cannot be written; the message names it.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; choose a folder you may write to.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": _FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_checkpoint(path: str | Path, prefer: str = BEST) -> dict[str, Any]:
    """Read a checkpoint, or the one called ``prefer`` of a run's folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, damaged or not one of ours.
    """
    path = checkpoint_path(path, prefer)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    # A file that ends early shows as any of these, an OSError among them (a seek before its beginning).
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError):
        raise ValueError(
            f"{path} is truncated or no checkpoint of ours; use another checkpoint of the run or train again."
        ) from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT or "agent" not in content:
        raise ValueError(f"{path} is not a checkpoint of this version; use a file written by save() or train().")
    return content


def checkpoint_path(path: str | Path, prefer: str = BEST) -> Path:
    """The checkpoint file meant by a file or a run's folder.

    Raises:
        FileNotFoundError: nothing there; the message says what was looked for.
    """
    path = Path(path)
    if path.is_dir():
        for name in (prefer, LAST):
            if (path / name).is_file():
                return path / name
        raise FileNotFoundError(f"no {prefer} in {path}; give a run's folder or a checkpoint file.")
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}; give a run's folder or a file written by save().")
    return path
