"""SIGKILL at any moment: the run goes on, and ends with the weights of the run that nobody killed."""

from __future__ import annotations

import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from cfpos.scripts.faulty.processes import Killer, forked
from cfpos.scripts.faulty.subjects import Subject, same, weights
from cfpos_envs.checkpoints import holds_run

_KILLS_PER_RUN = 4
"""On average; moments are drawn so that a run gets to its end now and then."""


def killed_runs(subject: Subject, kills: int, seed: int) -> dict[str, Any]:
    """Kill a kind of run ``kills`` times, at moments drawn by ``seed``, and go on every time.

    Returns:
        ``kills`` that hit, ``resumed`` (starts after a kill without an error), ``runs`` that got to their end,
        ``equal`` ones among them, ``errors`` seen.
    """
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole"
        moments = train_until(subject, whole, None)
        wanted = weights(whole)
        drawn = random.Random(seed)
        row: dict[str, Any] = {"run": subject.name, "kills": 0, "resumed": 0, "runs": 0, "equal": 0, "errors": ""}
        while row["kills"] < kills:
            folder = Path(place) / f"run{row['runs']}"
            ended = False
            while not ended and not row["errors"]:
                # The last ones of all kills may be more than are wanted: every run is brought to its end.
                moment = drawn.randrange(1 + 2 * moments // _KILLS_PER_RUN) if row["kills"] < kills else None
                after_kill = folder.exists()
                end = forked(partial(_go_on, subject, folder, moment))
                row["kills"] += end.killed
                row["resumed"] += after_kill and end.error is None
                row["errors"] = end.error or ""
                ended = not end.killed
            if row["errors"]:
                return row
            row["runs"] += 1
            row["equal"] += same(weights(folder), wanted)
    return row


def train_until(subject: Subject, folder: Path, moment: int | None) -> int:
    """Train, killed at a moment (None: not at all); how many moments there were until the end, 0 if killed.

    Raises:
        RuntimeError: the training itself failed.
    """
    count = folder.with_name("count")

    def work() -> None:
        killer = Killer(moment)
        killer.watch()
        subject.train(folder, resume=False, callback=killer)
        count.write_text(str(killer.seen))

    end = forked(work)
    if end.error is not None:
        raise RuntimeError(f"{subject.name} cannot be trained: {end.error}")
    return 0 if end.killed else int(count.read_text())


def _go_on(subject: Subject, folder: Path, moment: int | None) -> None:
    killer = Killer(moment)
    killer.watch()
    subject.train(folder, resume=holds_run(folder), callback=killer)
