"""Threads of torch's arithmetic: one by default, never more than there are cores, never one that cannot be started.

Torch's threads wait for each other by spinning. On a machine that does anything else besides, they wait most of the
time (docs/benchmarks.md, part ``contention``). The networks of these games are too small to gain by a second one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch

DEFAULT_THREADS = 1
"""Of training, evaluation and commands, where nobody says otherwise."""


def cores() -> int:
    """Cores that this process may use, at least 1."""
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def usable_threads(count: int) -> int:
    """``count``, or fewer: no more than there are cores, and no more than the system lets this process start.

    Where a thread cannot be started (a container's limit on processes), OpenMP ends the process; so it is tried before.

    Args:
        count: at least 1.
    """
    wanted = min(count, cores())
    return wanted if wanted <= torch.get_num_threads() else 1 + _startable(wanted - 1)


@contextlib.contextmanager
def torch_threads(count: int | None = DEFAULT_THREADS) -> Iterator[None]:
    """Use ``count`` torch threads inside, see ``usable_threads`` (None: as many as outside)."""
    before = torch.get_num_threads()
    wanted = before if count is None else usable_threads(count)
    if wanted != before:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _startable(count: int) -> int:
    """How many of ``count`` threads could be started at once."""
    release = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=release.wait, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break
            started.append(thread)
    finally:
        release.set()
        for thread in started:
            thread.join()
    return len(started)
