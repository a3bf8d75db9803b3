"""Whatever a person gets wrong is refused in one line with exit code 2, and nothing is written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from cfpos_envs.checks import Notice
from scripts.cli import user_errors
from tests.scripts.commands import SCENE, TRAINER, error_line, files_below, run, run_here

Refusal = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["env=dcp-rs"], "did you mean dcp-rss"),
        (["agent=madpg"], "did you mean maddpg"),
        (["env.num_apps=3"], "did you mean env.num_aps"),
        (["agent.lr_actr=1"], "did you mean agent.lr_actor"),
        (["sede=1"], "did you mean seed"),
        (["env.num_aps=abc"], "env.num_aps=abc: Value 'abc' of type 'str' could not be converted to Integer"),
        (["env.num_aps=0"], "num_aps=0 must be at least 1"),
        (["env.num_ues=0"], "num_ues=0 must be at least 1"),
        (["env.num_pilots=2"], "give at least one per UE"),
        (["env.site=nowhere"], "unknown site 'nowhere'; choose one of clean"),
        (["env.site={preset:hard,bias_bd:3}"], "unknown site field 'bias_bd'; did you mean bias_db"),
        (["env.site.bias_bd=3"], "unknown site field 'bias_bd'; did you mean bias_db"),
        (["agent.lr_actor=-1"], "lr_actor=-1.0 must be at least 0"),
        (["total_steps=0"], "total_steps=0 must be at least 1"),
        (["device=tpu"], "it must be 'cpu', 'cuda' or 'cuda:N'"),
        (["resume=nowhere"], "holds no run"),
    ],
)
def test_training_refuses_in_one_line_and_writes_nothing(
    arguments: list[str], said: str, tmp_path: Path, refusal: Refusal
) -> None:
    assert said in refusal("train", *arguments)
    assert files_below(tmp_path) == set()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("num_aps: 0", "num_aps=0 must be at least 1"),
        ("num_aps: many", "'many' of type 'str' could not be converted to Integer"),
        ("num_apps: 3", "num_apps"),
        ("site: {bias_bd: 3}", "did you mean bias_db"),
    ],
)
def test_a_value_in_a_file_that_the_dataclass_refuses(value: str, said: str, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "mine" / "env").mkdir(parents=True)
    file = tmp_path / "mine" / "env" / "hall.yaml"
    file.write_text(f"defaults:\n  - schema@_here_: dcp-jar-v0\n  - _self_\n{value}\n", encoding="utf-8")
    assert said in refusal("train", f"--config-dir={tmp_path / 'mine'}", "env=hall")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["policy=[joint-ng]"], "did you mean joint-gn"),
        (["policy=[]"], "names no policy"),
        (["policy=[{spacing:3}]"], "has no name"),
        (["policy=[{name:fingerprint,spacin:3}]"], "did you mean spacing"),
        (["policy=[{name:fingerprint,spacing:-3}]"], "spacing=-3 must be at least 0.001"),
        (["policy=[no/where]"], "no checkpoint at no/where"),
        (["episodes=0"], "episodes=0 must be at least 1"),
    ],
)
def test_evaluation_refuses_in_one_line_and_writes_nothing(
    arguments: list[str], said: str, tmp_path: Path, refusal: Refusal
) -> None:
    assert said in refusal("evaluate", *SCENE, *arguments)
    assert files_below(tmp_path) == set()


def test_checkpoints_that_do_not_fit_are_refused(finished: Path, tmp_path: Path, refusal: Refusal) -> None:
    policy = f"policy=[{finished}]"
    assert "another environment" in refusal("evaluate", "env=dcp-rss", *SCENE, policy)
    correcting = "env.action=confidence-correction"
    assert "confidence" in refusal("evaluate", correcting, *SCENE, policy)
    truncated = tmp_path / "half.pt"
    truncated.write_bytes((finished / "best.pt").read_bytes()[:2000])
    assert "truncated" in refusal("evaluate", *SCENE, f"policy=[{truncated}]")
    assert files_below(tmp_path) == {"half.pt"}


def test_a_finished_run_is_left_as_it_is(finished: Path, tmp_path: Path, refusal: Refusal) -> None:
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    assert "is finished" in refusal("train", f"resume={finished}")
    assert "cannot change while resuming" in refusal("train", f"resume={finished}", "seed=9")
    assert "already holds a run" in refusal("train", f"hydra.run.dir={finished}", *SCENE, *TRAINER)
    assert {path.name: path.read_bytes() for path in finished.iterdir()} == before


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_an_unwritable_folder_is_named(script: str, tmp_path: Path, refusal: Refusal) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refusal(script, "hydra.run.dir=file/run", *SCENE)
    assert "cannot write" in line
    assert "hydra.run.dir=" in line


def test_a_refusal_is_the_same_from_outside(tmp_path: Path) -> None:
    # The others take the same way (``run_hydra``) in this process.
    assert "did you mean music" in error_line(run("evaluate", "policy=[musik]", *SCENE, folder=tmp_path))
    assert files_below(tmp_path) == set()


def test_debug_lets_the_error_through(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_aps=0 must be at least 1"):
        run_here("train", "env.num_aps=0", "debug=true", folder=tmp_path)


def test_every_command_says_notices_once_and_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with user_errors(debug=False):
        for _ in range(2):
            warnings.warn("this file is old", Notice, stacklevel=1)
    assert capsys.readouterr().err == "warning: this file is old\n"
