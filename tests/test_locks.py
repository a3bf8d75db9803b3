"""One writer per folder, whoever asks; nothing is left behind."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cfpos_envs import locks
from cfpos_envs.locks import exclusive
from tests.locked import held_elsewhere


def test_another_thread_is_refused_and_the_holder_is_not(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path):
        refused = pytest.raises(ValueError, match=f"another run is writing to {tmp_path}; choose another")
        with refused, exclusive(tmp_path, patience_s=0.0):
            pass
        with exclusive(tmp_path, ".other", patience_s=0.0):
            pass
    with exclusive(tmp_path), exclusive(tmp_path, patience_s=0.0):
        assert (tmp_path / locks.LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_who_waits_gets_the_lock_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PAUSE_S", 0.0)
    inside, most, turns = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, turns
        for _ in range(20):
            with exclusive(tmp_path, patience_s=60.0):
                inside += 1
                most, turns = max(most, inside), turns + 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, turns) == (1, 60)


def test_folders_made_for_the_lock_go_again_if_they_stay_empty(tmp_path: Path) -> None:
    with exclusive(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / locks.LOCK).exists()
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r"cannot write .*file/run: .*; choose a folder"),
        exclusive(tmp_path / "file/run"),
    ):
        pass
