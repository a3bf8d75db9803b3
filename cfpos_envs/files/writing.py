"""Files that appear whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfpos_envs.disk import is_full, sync


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path with the same ending; it takes the place of ``path`` only if the block succeeds.

    Raises:
        OSError: the folder cannot be written, or the disk is full; the message names the file and what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; choose an output folder you may write to") from error
    os.close(handle)
    try:
        yield Path(name)
        os.chmod(name, 0o644)
        sync(Path(name))
        os.replace(name, path)
    except OSError as error:
        if not is_full(error):
            raise
        raise OSError(f"cannot write {path}: {error.strerror}; free some space") from error
    finally:
        Path(name).unlink(missing_ok=True)
