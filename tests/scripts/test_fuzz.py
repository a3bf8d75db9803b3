"""The fuzzer sees what it is there for, and a short run of it finds nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from scripts import fuzz
from scripts.fuzzing import watched
from scripts.fuzzing.cases import Case, NotFinite, Outcome
from scripts.fuzzing.files import FORMATS, damaged, read
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


def test_a_report_keeps_the_areas_that_are_not_tried_anew() -> None:
    found = [{"area": "files", "kind": "crash"}, {"area": "agents", "kind": "hang"}]
    rows = [
        fuzz.counted(a, [Outcome("refused"), Outcome(k)], seed=0, workers=2)
        for a, k in (("files", "crash"), ("agents", "hang"))
    ]
    first = fuzz.merged({}, rows, found)
    again = fuzz.merged(first, [fuzz.counted("files", [Outcome("played")], seed=1, workers=2)], [])
    assert again["findings"] == found[1:]
    assert [(row["area"], row["cases"]) for row in again["cases"]] == [("agents", 2), ("files", 1), ("all", 3)]
    total = again["cases"][-1]
    assert (total["refused"], total["hang"], total["crash"], total["played"]) == (1, 1, 0, 1)
    assert (total["seed"], total["workers"]) == (None, 2)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_is_not_damaged_is_read(name: str) -> None:
    assert read(name, FORMATS[name].content())


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
