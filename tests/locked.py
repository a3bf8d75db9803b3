"""A folder that somebody else writes to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cfpos_envs.locks import LOCK, exclusive


@contextmanager
def held_elsewhere(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Another thread holds the lock of ``folder`` meanwhile, as another process would."""
    taken, over = threading.Event(), threading.Event()

    def hold() -> None:
        with exclusive(folder, name):
            taken.set()
            over.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    try:
        yield
    finally:
        over.set()
        holder.join()
