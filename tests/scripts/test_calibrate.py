"""``cfpos calibrate`` adds an uncertainty to a file and nothing else; ``cfpos plot coverage`` draws what it holds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from agents import load_agent
from agents.ecc.weights import weights
from cfpos_envs import evaluate
from cfpos_envs.checkpoints import read_checkpoint, write_checkpoint
from cfpos_envs.results import EvaluationResult
from scripts import calibrate, plot


def test_a_file_gets_a_calibration_and_keeps_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = read_checkpoint(weights("ecc-fast-small"))
    content["agent"].pop("calibration", None)
    write_checkpoint(tmp_path / "old.pt", content)
    calibrate.main([str(tmp_path / "old.pt"), "--places", "250", "--out", str(tmp_path / "new.pt")])
    assert "250 places set aside" in capsys.readouterr().out
    old, new = (read_checkpoint(tmp_path / name)["agent"] for name in ("old.pt", "new.pt"))
    assert new.pop("calibration")["places"] == 250
    assert new.keys() == old.keys()
    for name, value in old["network"].items():
        assert value.dtype == new["network"][name].dtype
        assert torch.equal(value, new["network"][name])
    with pytest.raises(SystemExit):
        calibrate.main([str(tmp_path / "old.pt"), "--places", "100"])
    assert "100 places set aside are too few" in capsys.readouterr().err


def test_the_networks_that_come_along_are_calibrated_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = load_agent(weights("ecc-fast-small"), "ecc-urban-small-v0")
    result = evaluate("ecc-urban-small-v0", agent, episodes=100)
    path = result.to_json(tmp_path / "result.json")
    plot.main(["coverage", str(path), "--out", str(tmp_path / "stated.png")])
    assert "in sight" in capsys.readouterr().out
    assert (tmp_path / "stated.png").stat().st_size > 10_000
    with pytest.raises(SystemExit):
        plot.main(["coverage", str(_without(path)), "--out", str(tmp_path / "none.png")])
    assert "no valid answer has a covariance" in capsys.readouterr().err


def _without(path: Path) -> Path:
    silent = dataclasses.replace(EvaluationResult.from_json(path), covariance_m2=None)
    return silent.to_json(path.with_name("silent.json"))
