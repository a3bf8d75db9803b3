"""Files appear whole or not at all, tables show what they are given, labels stay apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scripts import reports
from scripts.cli import UsageError, suggest
from scripts.policies import labelled


def test_a_failed_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = reports.write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UnicodeEncodeError):
        reports.write_text(path, "half \udc80")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_json_takes_numpy_numbers_and_refuses_objects(tmp_path: Path) -> None:
    path = reports.write_json(tmp_path / "a.json", {"x": np.float32(0.5), "y": np.arange(2)})
    assert json.loads(path.read_text()) == {"x": 0.5, "y": [0, 1]}
    with pytest.raises(TypeError, match="object has no JSON form"):
        reports.write_json(tmp_path / "b.json", object())
    assert not (tmp_path / "b.json").exists()


def test_an_unwritable_folder_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="choose an output folder you may write to"):
        reports.check_writable(tmp_path / "file" / "x")
    assert list(reports.check_writable(tmp_path / "new").iterdir()) == []


def test_tables_are_aligned_and_show_three_digits() -> None:
    lines = reports.table([{"policy": "a", "rmse_m": 0.12345}, {"policy": "long name", "rmse_m": None}]).splitlines()
    assert lines[0].split() == ["policy", "rmse_m"]
    assert lines[2].split() == ["a", "0.123"]
    assert lines[3].endswith("-")
    assert len({len(line) for line in lines}) == 1


def test_suggestions_name_the_nearest_and_all() -> None:
    assert suggest("musik", ["music", "gpr"]) == "did you mean music? Allowed: gpr, music"
    assert suggest("zzz", ["music", "gpr"]) == "Allowed: gpr, music"
    # 8 letters and two for each of 600: 60 fit.
    told = suggest("zzz", [f"option{i:02}" for i in range(99)])
    assert told.endswith("option58, option59 and 39 more")


def test_labels_of_policies() -> None:
    assert list(labelled("music")) == ["music"]
    entries = labelled(["music", "music", {"name": "music", "steps": 3}, "some/run"])
    assert list(entries) == ["music", "music #2", "music (steps=3)", "run"]
    with pytest.raises(UsageError, match="names no policy"):
        labelled([])
