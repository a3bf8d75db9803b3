"""Pieces of work in processes that may be killed: forks of this one, which has imported everything already."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Not used here: what every child would import for itself.
import torch.utils.tensorboard  # noqa: F401

from cfpos_envs.sealing import SealingFile

_FAILED = 3
_OPERATIONS = ("fsync", "link", "replace")


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        killed: by SIGKILL.
        error: what it raised, as a command would print it; None: nothing.
    """

    killed: bool
    error: str | None


def forked(work: Callable[[], object]) -> Ended:
    """Run ``work`` in a fork of this process and wait for its end.

    Raises:
        RuntimeError: the system has no fork, or the process was ended by another signal than SIGKILL.
    """
    if not hasattr(os, "fork"):
        raise RuntimeError("this system cannot fork processes; run make faults on Linux or macOS")
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "error"
        child = os.fork()
        if child == 0:
            _work(work, told)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        error = told.read_text(encoding="utf-8") if code == _FAILED else None
    if code not in (0, _FAILED, -signal.SIGKILL):
        raise RuntimeError(f"a process ended with {code}")
    return Ended(code == -signal.SIGKILL, error)


def _work(work: Callable[[], object], told: Path) -> None:
    code = _FAILED
    try:
        # Progress, warnings and what a dying thread says are no part of the tables.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        work()
        code = 0
    except BaseException as error:
        told.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    finally:
        os._exit(code)


class Killer:
    """Kills its own process at the n-th moment: the end of a round, or an operation on the disk.

    Args:
        moment: how many moments pass before; None: never.
    """

    def __init__(self, moment: int | None) -> None:
        self.left = moment
        self.seen = 0

    def __call__(self, *_: object) -> None:
        """A moment has come."""
        self.seen += 1
        if self.left is not None and self.seen > self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count operations on the disk as moments, in the middle of a file too; only in a process that ends soon."""
        for place, name in (*((os, name) for name in _OPERATIONS), (SealingFile, "write")):
            setattr(place, name, self._counted(getattr(place, name)))

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self()
            return operation(*arguments, **named)

        return counted
