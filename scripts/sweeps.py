"""Runs of a sweep: each in a process of its own, kept when finished, gone on with when not, reported when it died.

Whatever launcher distributes the runs, a run that crashes or is killed stops no other, and a sweep that is given
the same folder again (``hydra.sweep.dir``) does only what is still missing. A run is known by its settings, not by its
number, so such a sweep may also have further values than the first time.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from cfpos.scripts.reports import write_json
from cfpos_envs.checkpoints import holds_run
from cfpos_envs.locks import exclusive

STATUS = "run.json"
OUTPUT = "output.log"
RESULTS = "results.json"
_TURN = ".turn"
_NUMBERS = ".numbers"
INTERRUPTED = 130
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class SweepReport(Callback):
    """Notes where the sweep of this process writes, so that it can be reported at the end.

    Attributes:
        folder: of the sweep; None: none was started.
    """

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Hydra begins a sweep."""
        type(self).folder = Path(str(config.hydra.sweep.dir)).absolute()


def run_apart(script: Path, overrides: Sequence[str], folder: Path, cwd: Path, quiet: bool) -> None:
    """One run of a sweep in a process of its own; what becomes of it stands in ``run.json``.

    A caller that is given a run that another process computes already waits for it.

    Args:
        script: the command.
        overrides: its settings.
        folder: where it writes, see ``place_of``. A finished run is kept, one that was started is continued.
        cwd: where the command was called.
        quiet: write what it prints to ``output.log`` instead of showing it.

    Raises:
        ValueError: the folder is taken by a run of other settings.
        KeyboardInterrupt: it was interrupted.
    """
    folder = place_of(overrides, folder)
    with exclusive(folder, _TURN, math.inf):
        if not _has_finished(folder):
            _do(script, overrides, folder, cwd, quiet)
        elif (known := status(folder)) is not None and known["status"] != "finished":
            write_json(folder / STATUS, {**known, "status": "finished", "reason": None})


def place_of(overrides: Sequence[str], folder: Path) -> Path:
    """The folder of one run of a sweep: where it was begun before, else ``folder``, else the first number that is free.

    Args:
        overrides: its settings, in any order.
        folder: the one that it would have in a new sweep; the others are beside it.

    Raises:
        ValueError: a run of other settings is in ``folder``, which has no number.
    """
    sweep = folder.parent
    with exclusive(sweep, _NUMBERS, math.inf):
        for path in sorted(sweep.glob(f"*/{STATUS}")):
            if sorted((status(path.parent) or {})["overrides"]) == sorted(overrides):
                return path.parent
        if not _is_free(folder):
            if not folder.name.isdecimal():
                held = " ".join((status(folder) or {"overrides": ["unknown settings"]})["overrides"])
                raise ValueError(
                    f"{folder} holds a run with {held}, not with {' '.join(overrides)}; choose another hydra.sweep.dir"
                )
            folder = next(place for place in (sweep / str(n) for n in itertools.count()) if _is_free(place))
        folder.mkdir(exist_ok=True)
        write_json(folder / STATUS, _begun(overrides))
    return folder


def status(folder: Path) -> dict[str, Any] | None:
    """What is known of the run in a folder of a sweep; None: nothing."""
    path = folder / STATUS
    if not path.is_file():
        return None
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def unfinished(sweep: Path) -> list[str]:
    """A line for every run of a sweep that was started and has not finished: its settings and what happened."""
    lines = []
    for path, run in _runs(sweep):
        if run["status"] != "finished":
            what = run["reason"] or "its worker died"
            lines.append(f"{' '.join(run['overrides'])}: {what} ({path})")
    return lines


def orphaned(sweep: Path) -> bool:
    """Whether a run of a sweep was started by a worker that has died or still computes it."""
    return any(run["status"] == "running" for _, run in _runs(sweep))


def _runs(sweep: Path) -> list[tuple[Path, dict[str, Any]]]:
    found = [(path.parent, status(path.parent)) for path in sorted(sweep.rglob(STATUS))]
    return [(folder, run) for folder, run in found if run is not None]


def _has_finished(folder: Path) -> bool:
    """Whether the run in a folder of a sweep is over, also if the sweep was killed before it could note that."""
    known = status(folder) or {}
    # A training writes its results last; other commands are simply done again.
    return known.get("status") == "finished" or (holds_run(folder) and (folder / RESULTS).is_file())


def _do(script: Path, overrides: Sequence[str], folder: Path, cwd: Path, quiet: bool) -> None:
    if holds_run(folder):
        arguments = [f"resume={folder}"]
    else:
        arguments = [*overrides, f"hydra.run.dir={folder}"]
    run = _begun(overrides)
    write_json(folder / STATUS, run)
    with open(folder / OUTPUT, "a", encoding="utf-8") if quiet else contextlib.nullcontext() as output:
        code = subprocess.run(
            [sys.executable, str(script), *arguments],
            cwd=cwd,
            stdout=output,
            stderr=output,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            check=False,
        ).returncode
    if code in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt(f"stopped; the same command with hydra.sweep.dir={folder.parent} goes on")
    if code == 0:
        write_json(folder / STATUS, {**run, "status": "finished"})
        return
    reason = _reason(code, folder / OUTPUT if quiet else None)
    write_json(folder / STATUS, {**run, "status": "failed", "reason": reason})
    print(f"failed: {' '.join(overrides)}: {reason} ({folder})", file=sys.stderr)


def _begun(overrides: Sequence[str]) -> dict[str, Any]:
    return {"overrides": list(overrides), "status": "running", "reason": None}


def _is_free(folder: Path) -> bool:
    return not (folder / STATUS).exists() and not holds_run(folder)


def _reason(code: int, output: Path | None) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    lines = [] if output is None else output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {code}"


def _die_with_parent() -> None:
    # Else a training would go on, and write, after a lost node's work has been given to another.
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
