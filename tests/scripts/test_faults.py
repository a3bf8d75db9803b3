"""The short form of ``make faults``: some kills, some damage and a full disk; what is lost is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cfpos_envs.checkpoints import LAST, write_checkpoint
from scripts import faults
from scripts.faulty import kills, measured, subjects
from scripts.faulty.processes import forked


def test_a_killed_run_ends_as_if_nobody_had_killed_it(capsys: pytest.CaptureFixture[str]) -> None:
    faults.main(["--quick", "--runs", "maddpg", "--parts", "kills"])
    told = capsys.readouterr().out
    assert told.splitlines()[3].split()[:-1] == ["maddpg", "1", "1", "1", "1"]
    assert told.endswith("nothing was lost\n")


@pytest.mark.slow
def test_a_little_of_everything_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    faults.main(["--quick", "--runs", "maddpg", "--parts", "kills,damage,full disk"])
    told = capsys.readouterr().out
    assert told.endswith("nothing was lost\n")
    tables = {block.split("\n")[0]: block.split("\n")[3:] for block in told.split("\n\n")}
    assert [row.split()[:-1] for row in tables["flipped bits"]] == [["maddpg", "40", "40"]]
    assert [row.split()[1] for row in tables["damaged files"]] == ["last.pt", "previous.pt", "best.pt"]
    assert "No space" in tables["full disk"][0] or "File too large" in tables["full disk"][0]
    assert "go on with resume=RUN from environment step" in tables["full disk"][0]


def test_memory_that_grows_is_told() -> None:
    row = {"steps": 100, "at a quarter, MB": 200.0, "growth, MB": 19.0}
    assert faults.lost({"growth": [row]}) == []
    assert faults.lost({"growth": [{**row, "growth, MB": 21.0}]}) == ["memory grew by 21.0 MB in 100 steps"]


def test_parts_that_are_made_anew_replace_only_themselves() -> None:
    old = {"kills": [{"run": "a", "kills": 1}, {"run": "b", "kills": 1}], "growth": [{"steps": 1}]}
    new = {"kills": [{"run": "b", "kills": 9}], "full disk": [{"run": "a"}]}
    assert faults.merged(old, new) == {
        "kills": [{"run": "a", "kills": 1}, {"run": "b", "kills": 9}],
        "growth": [{"steps": 1}],
        "full disk": [{"run": "a"}],
    }


def test_confident_answers_to_wrong_measurements_are_told() -> None:
    # Of 900 answers 9 may be wrong, and three deviations more: 18.
    row = {"what is wrong": "all", "game": "g", "policy": "p", "users": 900, "valid": 0.5, "beyond 5 std": 0.0399}
    assert faults.lost({"measurements": [row, {**row, "valid": 0.0, "beyond 5 std": None}]}) == []
    assert faults.lost({"measurements": [{**row, "beyond 5 std": 0.041}]}) == [
        "all, g, p: 50% valid, of these 4.1% off by more than five standard deviations"
    ]


def test_what_is_lost_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"run": "maddpg", "kills": 1, "resumed": 1, "runs": 2, "equal": 1, "errors": ""}
    monkeypatch.setattr(kills, "killed_runs", lambda *_: row)
    with pytest.raises(SystemExit) as ended:
        faults.main(["--runs", "maddpg", "--parts", "kills"])
    assert ended.value.code == 1
    assert capsys.readouterr().out.endswith("maddpg: 1 other weights, no error\n")


def test_a_kill_in_the_middle_of_a_file_is_one(tmp_path: Path) -> None:
    def killed(moment: int) -> None:
        killer = kills.Killer(moment)
        killer.watch()
        write_checkpoint(tmp_path / LAST, {"agent": {"n": moment}})

    ends = [forked(lambda moment=moment: killed(moment)) for moment in (0, 3, 10_000)]
    assert [end.killed for end in ends] == [True, True, False]
    assert forked(lambda: 1 / 0).error == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    ("name", "word"), [("--parts", "kill"), ("--runs", "madpg"), ("--commands", "torchrum"), ("--policies", "joint-cq")]
)
def test_unknown_words_are_refused(name: str, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        faults.main([name, word])
    assert f"{name} names '{word}': did you mean" in capsys.readouterr().err


def test_every_kind_of_training_is_there() -> None:
    assert set(subjects.subjects()) == {"maddpg", "sb3-ppo", "ecc-fast", "ecc"}


def test_policies_can_be_asked_alone() -> None:
    chosen = measured.asking(("joint-cp", "ecc-small"))
    assert {name for case in chosen for name in case.policies} == {"joint-cp", "ecc-small"}
    assert [case.what for case in measured.asking(())] == [case.what for case in measured.cases()]


def test_joint_cp_does_not_take_blocked_links_that_agree_by_chance_for_clear_ones() -> None:
    case = measured.asking(("joint-cp",))[0]
    assert (case.what, case.policies) == ("all links NLOS", ("joint-cp",))
    (row,) = measured.rows([case], users=40, seed=0)
    assert not measured.too_confident(row)
    assert row["reason"] == "LARGE_RESIDUALS"
