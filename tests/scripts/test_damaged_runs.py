"""Runs of the command line whose files are damaged: what is said, what takes their place, what is never lost."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from cfpos_envs.checkpoints import LAST, DamagedWarning, read_checkpoint, write_checkpoint
from cfpos_envs.checks import Notice
from scripts import runs, sweeps, train
from tests.scripts.commands import run_here

Refusal = Callable[..., str]


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def cut(path: Path, kept: float = 0.6) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])


def without_note(run: Path) -> None:
    """As runs of the build before were: their checkpoints hold no settings."""
    for name in ("last.pt", "best.pt"):
        content = read_checkpoint(run / name)
        del content["note"]
        write_checkpoint(run / name, content)
    (run / "previous.pt").unlink(missing_ok=True)


def test_settings_that_are_cut_short_come_from_the_checkpoint(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "config.yaml"
    whole = path.read_text()
    for kept in (0.0, 0.5, 0.9):
        path.write_text(whole)
        cut(path, kept)
        with pytest.warns(DamagedWarning, match=r"config\.yaml is damaged; the settings that last\.pt notes are used"):
            assert runs.run_config(run) == OmegaConf.create(whole)
    capsys.readouterr()
    run_here("train", "resume=run", "total_steps=128", folder=tmp_path)
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warned == ["warning: run/config.yaml is damaged; the settings that last.pt notes are used"]
    assert path.read_text() == whole
    assert read_checkpoint(run, LAST)["run"]["steps"] == 128


def test_a_run_of_a_build_before_heads_goes_on_with_three_numbers_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "overrides_given", dict)
    write_checkpoint(tmp_path / LAST, {})
    agent: dict[str, Any] = {"name": "ecc-fast", "channels": [4]}
    saved = {"env": {"id": "ecc-urban-small-v0"}, "agent": agent, "seed": 0, "device": "cpu", "threads": 1}
    asked = OmegaConf.create({"resume": str(tmp_path)})
    OmegaConf.save({**saved, "total_steps": 64}, tmp_path / "config.yaml")
    with pytest.warns(Notice, match="^the ECC file is of a build before head: it means head=regression"):
        resumed = train.resumed_config(asked).agent
    assert (resumed.head, resumed.set_aside, list(resumed.channels)) == ("regression", 0, [4])
    agent["head"] = "bins"
    OmegaConf.save({**saved, "total_steps": 64}, tmp_path / "config.yaml")
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        assert train.resumed_config(asked).agent.head == "bins"


def test_settings_that_nothing_holds_are_named(run: Path, refusal: Refusal) -> None:
    without_note(run)
    path = run / "config.yaml"
    whole = path.read_text()
    cut(path)
    said = refusal("train", f"resume={run}")
    assert said.startswith(
        f"error: {path} is damaged, cut short or was changed: restore it, or take its first and last"
    )
    # A file of the build before has no digest.
    plain = "".join(line for line in whole.splitlines(keepends=True) if not line.startswith("#"))
    path.write_text(plain[: plain.index("device:")])
    assert f"{path} is cut short: it does not say" in refusal("train", f"resume={run}")
    path.write_text(plain)
    assert runs.saved_config(path) == OmegaConf.create(whole)


def test_every_change_of_the_settings_is_found(run: Path) -> None:
    path = run / "config.yaml"
    whole = path.read_text()
    for old, new in (("seed: 3", "seed: 4"), ("num_aps: 9", "num_aps: 8"), ("# sha256", "# sha25 "), ("9", "9 ")):
        assert old in whole
        path.write_text(whole.replace(old, new, 1))
        with pytest.raises(ValueError, match="is damaged, cut short or was changed"):
            runs.saved_config(path)


def test_results_that_a_killed_run_did_not_write_are_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = (run / "results.json").read_text()
    (run / "results.json").unlink()
    before = (run / "last.pt").read_bytes()
    run_here("train", "resume=run", folder=tmp_path)
    assert (run / "results.json").read_text() == results
    assert (run / "last.pt").read_bytes() == before
    # A longer run is another matter.
    (run / "results.json").unlink()
    assert train._unwritten_results(run, 97) is None
    assert train._unwritten_results(run, 96) == json.loads(results)


def test_a_run_whose_plan_was_changed_keeps_to_it(run: Path, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise RuntimeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cfpos.agents.training.Trainer._finish", stop)
        with pytest.raises(RuntimeError):
            run_here("train", "resume=run", "total_steps=192", "debug=true", folder=tmp_path)
    assert "finished" not in read_checkpoint(run / "best.pt")
    run_here("train", "resume=run", folder=tmp_path)
    assert json.loads((run / "results.json").read_text())["steps"] == 192


def test_a_sweep_that_was_killed_before_it_noted_the_end_of_a_run_notes_it(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*_: Any, **__: Any) -> None:
        raise AssertionError("the run has finished")

    monkeypatch.setattr(sweeps.subprocess, "run", begun)
    told = {"overrides": ["seed=3"], "status": "running", "reason": None}
    (run / sweeps.STATUS).write_text(json.dumps(told))
    sweeps.run_apart(Path("train.py"), ["seed=3"], run, tmp_path, quiet=True)
    assert sweeps.status(run) == {**told, "status": "finished"}
    assert sweeps.unfinished(tmp_path) == []
