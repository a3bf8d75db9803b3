"""Runs whose files are damaged, whose disk is full or whose keyboard is impatient lose no more than they must."""

from __future__ import annotations

import errno
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import runs
from agents.interruption import Interruption
from agents.metrics import RunLog
from cfpos_envs import locks
from cfpos_envs.checkpoints import DamagedWarning, UnwritableError, read_checkpoint, write_checkpoint
from tests.agents.interrupted_run import TOTAL, agent_for
from tests.agents.maddpg.test_resume import equal
from tests.locked import held_elsewhere


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped at step 304 of 480, after checkpoints at 0, 56, 104, ..., 256."""
    folder = tmp_path_factory.mktemp("run")

    def press(step: int) -> None:
        if step == 296:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt, match="step 304"):
        agent_for("entity").train(TOTAL, log_dir=folder, callback=press, progress=False)
    signal.signal(signal.SIGINT, before)
    return folder


@pytest.fixture(scope="module")
def end() -> Any:
    agent = agent_for("entity")
    agent.train(TOTAL, progress=False)
    return agent.policy_state()


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def resumed(run: Path) -> Any:
    agent = agent_for("entity")
    agent.train(resume=run, progress=False)
    return agent.policy_state()


def test_a_run_goes_on_from_the_checkpoint_before(run: Path, end: Any) -> None:
    assert read_checkpoint(run / "previous.pt")["run"]["steps"] == 256
    cut(run / "last.pt")
    with pytest.warns(DamagedWarning, match=r"previous\.pt is used instead"):
        assert equal(resumed(run), end) == []
    # The damaged file has not taken the place of the good one before it.
    assert read_checkpoint(run / "previous.pt")["run"]["steps"] in range(400, TOTAL)


def test_a_damaged_best_policy_is_written_again_and_stops_nobody(run: Path, end: Any) -> None:
    held = read_checkpoint(run / "last.pt")["run"]["best"]
    cut(run / "best.pt")
    (run / ".last.pt.killed").touch()
    agent, seen = agent_for("entity"), []

    def look(step: int) -> None:
        seen.append(read_checkpoint(run / "best.pt")["agent"])

    with pytest.warns(DamagedWarning, match=r"best\.pt was damaged and is written again"):
        agent.train(resume=run, callback=look, progress=False)
    assert equal(seen[0], held) == []
    assert equal(agent.policy_state(), end) == []
    assert not list(run.glob(".*"))
    # A finished run too: only its last figures are computed again.
    cut(run / "best.pt")
    assert equal(resumed(run), end) == []
    with pytest.raises(ValueError, match="is finished"):
        resumed(run)


def test_a_run_of_the_build_before_goes_on(run: Path, end: Any) -> None:
    for name in ("last.pt", "best.pt"):
        content = torch.load(run / name, weights_only=True)
        torch.save({"format": 2, "format_version": 1, "agent": content["agent"], "run": content.get("run")}, run / name)
    (run / "previous.pt").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedWarning)
        assert equal(resumed(run), end) == []


def test_every_entry_takes_the_lock(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.0)
    with held_elsewhere(run):
        for how in ({"resume": run}, {"resume": run / "last.pt"}, {"log_dir": run, "total_steps": 8}):
            with pytest.raises(ValueError, match="another run is writing to"):
                agent_for("entity").train(**how, progress=False)
    with pytest.raises(ValueError, match="total_steps=0"):
        agent_for("entity").train(0, log_dir=tmp_path / "new", progress=False)
    assert not (tmp_path / "new").exists()


def test_a_run_does_not_go_on_in_the_folder_of_another(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "other")
    with pytest.raises(ValueError, match="other already holds a run"):
        agent_for("entity").train(resume=run, log_dir=tmp_path / "other", progress=False)


def test_a_full_disk_names_the_last_good_step_and_how_to_go_on(
    run: Path, end: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *rest: object) -> None:
        if path.name == "last.pt":
            raise UnwritableError(f"cannot write {path}: No space left on device; free some space.")

    with monkeypatch.context() as patch:
        patch.setattr(runs, "write_checkpoint", full)
        with pytest.raises(OSError) as told:
            resumed(run)
        assert str(told.value) == (
            f"cannot write {run / 'last.pt'}: No space left on device; free some space; "
            f"go on with resume={run} from environment step 304"
        )
        with pytest.raises(OSError, match=r"free some space; nothing was kept yet$"):
            agent_for("entity").train(TOTAL, log_dir=tmp_path / "new", progress=False)
    assert equal(resumed(run), end) == []


def test_scalars_that_cannot_be_written_say_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = threading.excepthook
    log = RunLog(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert log._writer is not None
    monkeypatch.setattr(log._writer.file_writer.event_writer._async_writer._writer, "write", full)
    with pytest.raises(UnwritableError, match=f"TensorBoard's files into {tmp_path}: No space left on device"):
        log.scalars(1, {f"x{number}": 1.0 for number in range(1000)})
    with pytest.raises(UnwritableError):
        log.close()
    assert threading.excepthook is before
    assert capfd.readouterr().err == ""


@pytest.fixture
def python_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handler")
def test_the_second_ctrl_c_waits_and_the_third_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    asked = Interruption()

    def press(times: int) -> None:
        with asked.noted():
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    assert not asked.asked
    press(2)
    assert asked.asked
    with pytest.raises(KeyboardInterrupt):
        press(1)
    assert capfd.readouterr().err.strip() == "stopping after a checkpoint; press Ctrl-C once more to stop without one"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("python_handler")
def test_two_ctrl_c_lose_no_step(tmp_path: Path) -> None:
    def press(step: int) -> None:
        if step == 200:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="step 208; go on with resume="):
        agent_for("entity").train(TOTAL, log_dir=tmp_path / "run", callback=press, progress=False)
    assert read_checkpoint(tmp_path / "run" / "last.pt")["run"]["steps"] == 208


def test_a_note_travels_with_the_run(tmp_path: Path) -> None:
    agent_for("entity").train(8, log_dir=tmp_path, progress=False, note="seen")
    assert [read_checkpoint(tmp_path / name)["note"] for name in ("last.pt", "best.pt")] == ["seen", "seen"]
    write_checkpoint(tmp_path / "plain.pt", {"agent": {}})
    assert "note" not in read_checkpoint(tmp_path / "plain.pt")
