"""The fuzzer sees what it is there for, and a short run of it finds nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from scripts.fuzzing import watched
from scripts.fuzzing.cases import Case, NotFinite
from scripts.fuzzing.files import FORMATS, damaged
from tests.scripts.commands import ROOT, environment


def raising(error: BaseException) -> bool:
    raise error


def case(run: object, *names: str) -> Case:
    return Case("files", "this", "", run, names)  # type: ignore[arg-type]


def test_every_way_to_end_is_told_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "HANG_S", 0.3)

    def turn() -> bool:
        while True:
            time.process_time()

    cases = [
        case(lambda: True),
        case(lambda: os.kill(os.getpid(), signal.SIGSEGV)),
        case(lambda: False),
        case(turn),
        case(lambda: raising(NotFinite("rewards"))),
        case(lambda: raising(ValueError("num_aps=0 must be at least 1")), "num_aps"),
        case(lambda: raising(ValueError("num_aps=0 must be at least 1")), "num_ues"),
        case(lambda: raising(ValueError("a\nb"))),
        case(lambda: raising(KeyError("a"))),
        case(lambda: os._exit(3)),
        case(lambda: True),
    ]
    outcomes = watched.watch(cases, workers=2)
    assert [outcome.kind for outcome in outcomes] == [
        *("played", "crash", "accepted", "hang", "silent NaN", "refused", "unclear", "unclear", "raw error", "crash"),
        "played",
    ]
    assert "SIGSEGV" in outcomes[1].detail
    assert "exit code 3" in outcomes[9].detail


def test_damage_is_damage() -> None:
    for name, kind in FORMATS.items():
        content = kind.content()
        changed = {
            how: damaged(content, how, 0.4, "nan") for how in ("flip", "cut", "word", "line", "double", "insert")
        }
        for how, other in changed.items():
            assert other != content, (name, how)
        assert damaged(content, "empty", 0.4, "nan") == b""


def test_a_short_run_finds_nothing() -> None:
    # In a process of its own: in this one jaxtyping's import hook answers first.
    arguments = ["--cases", "100", "--workers", "1", "--areas", "environments", "files"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "fuzz.py"), *arguments],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"^all +(\d+)", done.stdout, re.MULTILINE)
    assert counted is not None
    assert int(counted[1]) == 62
