"""Damaged files and full disks: found, said in one line, and no more lost than must be."""

from __future__ import annotations

import contextlib
import random
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from cfpos.scripts.faulty.kills import train_until
from cfpos.scripts.faulty.processes import forked
from cfpos.scripts.faulty.subjects import Subject, same, weights
from cfpos_envs.checkpoints import BEST, LAST, PREVIOUS, DamagedError, read_checkpoint

_STOPPED_AFTER = 0.7
"""Part of a run's moments."""
Harm = Callable[[Path], object]
HARMS: dict[str, Harm] = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped bit": lambda path: flip(path, random.Random(1)),
    "removed": lambda path: path.unlink(),
}


FEW_HARMS = {"a flipped bit": HARMS["a flipped bit"]}


def flip(path: Path, drawn: random.Random) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    path.write_bytes(content)


def flipped_bits(subject: Subject, flips: int, seed: int) -> dict[str, Any]:
    """How many flipped bits of a checkpoint are found when it is read."""
    drawn, found = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / LAST
        subject.make().save(path)
        whole = path.read_bytes()
        for _ in range(flips):
            path.write_bytes(whole)
            flip(path, drawn)
            with contextlib.suppress(DamagedError):
                read_checkpoint(path)
                continue
            found += 1
    return {"run": subject.name, "flipped bits": flips, "found": found}


def damaged_files(subject: Subject, harms: Mapping[str, Harm]) -> list[dict[str, Any]]:
    """A stopped run, with each of its files damaged in every way: what becomes of it when it goes on."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        whole, stopped = Path(place) / "whole", Path(place) / "stopped"
        seen = train_until(subject, whole, None)
        wanted = weights(whole)
        train_until(subject, stopped, int(_STOPPED_AFTER * seen))
        files = [name for name in (LAST, PREVIOUS, BEST) if (stopped / name).exists()]
        for name in files:
            for how, harm in harms.items():
                folder = Path(shutil.copytree(stopped, Path(place) / "harmed"))
                harm(folder / name)
                end = forked(partial(subject.train, folder, resume=True))
                outcome = end.error or ("the same weights" if same(weights(folder), wanted) else "OTHER WEIGHTS")
                rows.append({"run": subject.name, "file": name, "harm": how, "outcome": outcome})
                shutil.rmtree(folder)
    return rows


def full_disk(subject: Subject) -> dict[str, Any]:
    """A run whose checkpoint finds no more room (a limit on the size of files), and goes on when there is some."""
    with tempfile.TemporaryDirectory() as place:
        whole, folder = Path(place) / "whole", Path(place) / "run"
        seen = train_until(subject, whole, None)
        train_until(subject, folder, seen // 2)
        room = (folder / LAST).stat().st_size // 2

        def work() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            subject.train(folder, resume=True)

        full = forked(work)
        left = sorted(path.name for path in folder.glob(".*"))
        again = forked(lambda: subject.train(folder, resume=True))
        equal = again.error is None and same(weights(folder), weights(whole))
        said = (full.error or "nothing").replace(str(folder), "RUN")
        return {"run": subject.name, "said": said, "left over": len(left), "afterwards": again.error or _words(equal)}


def _words(equal: bool) -> str:
    return "the same weights" if equal else "OTHER WEIGHTS"
