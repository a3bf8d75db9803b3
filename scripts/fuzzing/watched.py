"""Cases in forked child processes: one that kills its process or never ends is seen, counted, and stops no other."""

from __future__ import annotations

import faulthandler
import json
import os
import resource
import select
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cfpos.scripts.fuzzing.cases import Case, Outcome, attempt

Told = Callable[[int, Outcome], None]
HANG_S = 10.0
"""Processor time after which a case counts as hanging; on a busy machine the wall clock says nothing."""
_HANG_WALL_S = 600.0
_EACH = 40
"""Most cases per child; fewer where all workers would not have some of them."""
_CHILDREN_PER_WORKER = 4
_MOST_BYTES = 6 << 30
"""What a child may take beyond what it is born with: larger requests fail instead of ending the machine."""


@dataclass
class _Child:
    """A process that tries ``cases[at:end]``, and what it has said."""

    pid: int
    pipe: int
    end: int
    at: int
    begun: float
    begun_cpu: float
    unread: bytes = b""


def watch(cases: Sequence[Case], workers: int, told: Told = lambda index, outcome: None) -> list[Outcome]:
    """What becomes of every case.

    Args:
        cases: tried in this order, several at a time.
        workers: processes at a time.
        told: called with every case's number and outcome.
    """
    outcomes: list[Outcome | None] = [None] * len(cases)
    reported: set[int] = set()
    each = max(1, min(_EACH, len(cases) // (_CHILDREN_PER_WORKER * workers)))
    waiting = [(begin, min(begin + each, len(cases))) for begin in range(0, len(cases), each)][::-1]
    children: list[_Child] = []
    while waiting or children:
        while waiting and len(children) < workers:
            children.append(_born(cases, *waiting.pop()))
        ready, _, _ = select.select([child.pipe for child in children], [], [], 0.5)
        for child in list(children):
            gone = child.pipe in ready and not _heard(child, outcomes)
            if not gone and _hangs(child):
                os.kill(child.pid, signal.SIGKILL)
                outcomes[child.at] = Outcome("hang", f"more than {HANG_S:g} s")
                gone = True
            if gone:
                children.remove(child)
                _buried(child, outcomes)
                if child.at < child.end:
                    waiting.append((child.at, child.end))
        for index, outcome in enumerate(outcomes):
            if outcome is not None and index not in reported:
                reported.add(index)
                told(index, outcome)
    return [outcome or Outcome("crash", "nothing was heard of it") for outcome in outcomes]


def _born(cases: Sequence[Case], begin: int, end: int) -> _Child:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(cases, begin, end, writing)
    os.close(writing)
    return _Child(pid, reading, end, begin, time.monotonic(), 0.0)


def _live(cases: Sequence[Case], begin: int, end: int, writing: int) -> None:
    faulthandler.disable()  # what ends this process is told by its parent
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    born_with = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (born_with + _MOST_BYTES, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for index in range(begin, end):
        found = attempt(cases[index])
        os.write(writing, json.dumps([index, found.kind, found.detail]).encode() + b"\n")
    os._exit(0)


def _heard(child: _Child, outcomes: list[Outcome | None]) -> bool:
    """Take in what a child says; False: it has ended."""
    said = os.read(child.pipe, 1 << 16)
    *lines, child.unread = (child.unread + said).split(b"\n")
    for line in lines:
        index, kind, detail = json.loads(line)
        outcomes[index] = Outcome(kind, detail)
        child.at, child.begun, child.begun_cpu = index + 1, time.monotonic(), _cpu_s(child.pid)
    return bool(said)


def _hangs(child: _Child) -> bool:
    wall = time.monotonic() - child.begun
    return wall > HANG_S and (_cpu_s(child.pid) - child.begun_cpu > HANG_S or wall > _HANG_WALL_S)


def _cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _buried(child: _Child, outcomes: list[Outcome | None]) -> None:
    """Note what ended a child, and pass over the case that did."""
    os.close(child.pipe)
    _, status = os.waitpid(child.pid, 0)
    if child.at < child.end:
        if outcomes[child.at] is None:
            code = os.waitstatus_to_exitcode(status)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            outcomes[child.at] = Outcome("crash", f"the process ended by {how}")
        child.at += 1
