"""One writer per folder: locks between processes and threads that the death of their holder releases."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

LOCK = ".lock"
_PATIENCE_S = 5.0
_PAUSE_S = 0.2
_held: ContextVar[frozenset[Path]] = ContextVar("held", default=frozenset())
"""Locks of this flow of calls: who holds one may call what takes it again; other threads begin with none."""


@contextlib.contextmanager
def exclusive(folder: Path, name: str = LOCK, patience_s: float | None = None) -> Iterator[None]:
    """Lock ``folder`` against other writers meanwhile.

    Args:
        folder: made if it is not there, and removed again if it stays empty.
        name: of the lock's file in it, which is removed at the end.
        patience_s: how long to wait for another process; None: seconds, enough for a killed one to end.

    Raises:
        ValueError: another process, or another thread of this one, writes there.
        OSError: the folder cannot be written; the message names it.
    """
    path = (folder / name).absolute()
    if path in _held.get():
        yield
        return
    made = [place for place in path.parents if not place.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _lock(path, time.monotonic() + (_PATIENCE_S if patience_s is None else patience_s))
    except BlockingIOError:
        raise ValueError(f"another run is writing to {folder}; choose another folder") from None
    except OSError as error:
        raise OSError(f"cannot write {folder}: {error.strerror}; choose a folder you may write to") from None
    token = _held.set(_held.get() | {path})
    try:
        yield
    finally:
        _held.reset(token)
        with contextlib.suppress(OSError):
            # Before it is let go: who waits looks whether the file that it has locked is still the one that is there.
            path.unlink()
        os.close(handle)
        with contextlib.suppress(OSError):
            for place in made:
                place.rmdir()


def _lock(path: Path, until: float) -> int:
    """An open handle that holds the lock ``path``; BlockingIOError after ``until`` on the monotonic clock."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return handle
            os.close(handle)
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name: its holder before may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
