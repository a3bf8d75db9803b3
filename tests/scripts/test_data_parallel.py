"""Several processes of torchrun share one training: as typed, what they say when it ends before its time, going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.checkpoints import read_checkpoint
from cfpos_envs.supervised.processes import agreed, check_shared, others_missed
from scripts import cli
from tests.scripts.commands import SCENE, command, environment, files_below, run

SMALL = ["env=ecc-urban-small", "agent=ecc-fast", "agent.pool=600", "agent.validation=100", "agent.batch_size=64"]
SMALL += ["agent.fusion_hidden=32", "agent.encoder_hidden=16", "agent.precision=float32", "agent.bs_dropout=0.2"]
SMALL += ["agent.evaluations=2", "agent.checkpoint_every=20", "hydra.run.dir=run"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def start(folder: Path, *settings: str) -> subprocess.Popen[str]:
    """The command for two processes, which finds a free port by itself."""
    return subprocess.Popen(
        [*TORCHRUN, *command("train", *settings)[1:]],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun(started: subprocess.Popen[str], folder: Path) -> None:
    """Until the run has a checkpoint."""
    until = time.monotonic() + 240
    while not (folder / "run" / "last.pt").exists():
        assert started.poll() is None, started.communicate()[1]
        assert time.monotonic() < until, "no run began"
        time.sleep(0.05)


def said(errors: str) -> list[str]:
    """What our processes wrote about the end; progress bars and torchrun's own report left out."""
    lines = [line.split("\r")[-1] for line in errors.splitlines()]
    return [line for line in lines if line.startswith(("error", "stopped"))]


def losses(folder: Path) -> np.ndarray:
    kept: np.ndarray = read_checkpoint(folder / "run" / "last.pt")["run"]["fit"]["losses"].numpy()
    return kept


@pytest.mark.slow
def test_two_processes_train_as_one_and_only_the_first_writes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    assert run("train", *SMALL, "total_steps=3840", folder=tmp_path / "one").returncode == 0
    two = start(tmp_path / "two", *SMALL, "total_steps=3840")
    told, errors = two.communicate(timeout=600)
    assert two.returncode == 0, errors
    assert (told.count("writing to"), told.count("evaluate:"), said(errors)) == (1, 1, [])
    names = [{name.split(".vm.")[0][:24] for name in files_below(tmp_path / which)} for which in ("one", "two")]
    assert {Path(name).parts[0] for name in names[1]} == {"run"}
    assert len(files_below(tmp_path / "two")) == len(files_below(tmp_path / "one"))
    one, both = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == len(both) == 60
    assert one[-10:].mean() < 0.9 * one[:10].mean()
    # Sums are rounded in another order, and now and then that moves a number over an edge of the quantiser.
    np.testing.assert_allclose(both[:10], one[:10], rtol=1e-5)
    np.testing.assert_allclose(both, one, rtol=0.03)


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_any_number_of_processes(tmp_path: Path) -> None:
    steps = "total_steps=64000"
    started = start(tmp_path, *SMALL, steps)
    begun(started, tmp_path)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=120)
    (line,) = said(errors)
    assert line.startswith("stopped after ")
    assert line.endswith(f"go on with resume={tmp_path / 'run'}")
    before = losses(tmp_path)
    # One of two is killed: the other says so and ends, and what was kept is whole.
    started = start(tmp_path, "resume=run")
    until = time.monotonic() + 240
    while len(losses(tmp_path)) == len(before):
        assert started.poll() is None, started.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.1)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(max(int(child) for child in children), signal.SIGKILL)
    _, errors = started.communicate(timeout=120)
    assert started.returncode == 1
    assert said(errors) == [f"error: another process of this training has ended; go on with resume={tmp_path / 'run'}"]
    middle = losses(tmp_path)
    assert len(before) < len(middle) < 1000
    done = run("train", "resume=run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "whole").mkdir()
    assert run("train", *SMALL, steps, folder=tmp_path / "whole").returncode == 0
    whole, parts = losses(tmp_path / "whole"), losses(tmp_path)
    assert np.array_equal(parts[: len(before)], before)
    assert np.array_equal(parts[: len(middle)], middle)
    # Small differences of rounding grow from step to step.
    np.testing.assert_allclose(parts[:10], whole[:10], rtol=1e-5)
    np.testing.assert_allclose(parts[-200:].mean(), whole[-200:].mean(), rtol=0.05)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["agent=maddpg", *SCENE], "agent=maddpg trains in one process, not 2; start it without torchrun"),
        ([*SMALL, "agent.batch_size=33"], "batch_size=33 does not divide among 2 processes; choose a multiple of 2."),
        (["--multirun", "seed=0,1"], "a sweep starts processes of its own; use --multirun without torchrun"),
    ],
)
def test_what_several_processes_cannot_do_is_refused(
    settings: list[str], line: str, tmp_path: Path, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refusal("train", *settings) == f"error: {line}"
    assert files_below(tmp_path) == set()


def test_the_first_process_has_the_first_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    for rank, expected in (("0", "error: no\n"), ("1", "error in process 1: no\n")):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(SystemExit), cli.user_errors(debug=False):
            raise ValueError("no")
        assert capsys.readouterr().err == expected
        assert len(waited) == int(rank)
    with pytest.raises(SystemExit) as ended, cli.user_errors(debug=False):
        raise KeyboardInterrupt
    assert (ended.value.code, capsys.readouterr().err) == (cli.INTERRUPTED, "")


def test_alone_nobody_is_asked_or_missed() -> None:
    assert agreed(True, "cpu")
    assert not agreed(False, "cpu")
    check_shared(33, 3)
    with pytest.raises(ValueError, match="choose a multiple of 2"):
        check_shared(33, 2)
    with pytest.raises(RuntimeError, match="gloo"), others_missed():
        raise RuntimeError("gloo: connection closed")


@pytest.mark.slow
def test_the_benchmark_times_one_process_and_two(tmp_path: Path) -> None:
    done = run("benchmark", "--quick", "--parts", "data-parallel", "--out", "figures.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((tmp_path / "figures.json").read_text())["parts"]["data-parallel"]["tables"]["data-parallel"]
    assert row["speed_up"] == pytest.approx(row["one_ms"] / row["two_ms"])
    assert (row["lowest"], row["highest"]) == (row["speed_up"], row["speed_up"])
    assert min(row["one_ms"], row["two_ms"], row["averaging_ms"], row["cpu_ratio"]) > 0
