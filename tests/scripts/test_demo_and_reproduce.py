"""The demo and every experiment run through in quick mode and leave what they promise."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos_envs.physics.dcp.covariance.information import TableSettings, simulate_information
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw, LinkNetwork
from scripts import demo, link_information, link_network, reproduce, update_results
from scripts.experiments import EXPERIMENTS
from scripts.experiments.dcp.convergence import steps_to_converge
from tests.scripts.commands import files_below, run


def test_demo_trains_compares_and_leaves_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    demo.main(["--quick", "--workers", "1", "--out", "here"])
    said = capsys.readouterr().out
    names = files_below(tmp_path / "here")
    assert {"results.json", "cdf.png", "episode.png", "clean/best.pt", "hard/best.pt"} < names
    assert any(name.startswith("clean/events.out.tfevents") for name in names)
    sites = json.loads((tmp_path / "here" / "results.json").read_text())["sites"]
    for rows in sites.values():
        assert {"joint-gn", "untrained", "centroid", "DCP-MADDPG"} <= {row["policy"] for row in rows}
        assert all(np.isfinite(row["rmse_m"]) for row in rows)
    assert "here/results.json" in said
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    update_results.main([str(tmp_path / "here" / "results.json"), "--page", str(page)])
    text = page.read_text()
    assert "old" not in text
    assert text.endswith("<!-- end of results -->\nafter\n")
    assert all(f"| {row['policy']} | {row['rmse_m']:.3f} |" in text for rows in sites.values() for row in rows)
    assert "position error bound" in said


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_leaves_a_picture_and_its_numbers(name: str, tmp_path: Path) -> None:
    reproduce.main([name, "--quick", "--out", str(tmp_path)])
    assert files_below(tmp_path) == {f"{name}.png", f"{name}.json"}
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert content["rows"]
    assert content["effort"]["small"]


def test_an_experiment_runs_from_outside(tmp_path: Path) -> None:
    done = run("reproduce", "bounds", "--quick", "--out", "x", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "x/bounds.json" in done.stdout


def test_wrong_efforts_and_folders_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    for command, words, said in (
        (reproduce, ["bounds", "--seeds", "0"], "--seeds=0 must be at least 1"),
        (demo, ["--quick", "--steps", "0"], "--steps=0"),
        (demo, ["--quick", "--out", "file/x"], "cannot write"),
    ):
        with pytest.raises(SystemExit) as ended:
            command.main(words)
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert ended.value.code == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert said in lines[0]
    assert files_below(tmp_path) == {"file"}


def test_convergence_is_where_95_percent_of_the_improvement_is_made() -> None:
    assert steps_to_converge([0, 10, 20, 30], [2.0, 1.2, 1.04, 1.0]) == 20
    assert steps_to_converge([0, 10, 20], [1.0, 1.5, 2.0]) == 0


def test_a_table_of_information_is_simulated_and_saved(tmp_path: Path) -> None:
    link_information.main(["--antennas", "2", "--paths", "2", "--links", "2", "--sweeps", "3", "--out", str(tmp_path)])
    (found,) = tmp_path.iterdir()
    wanted = simulate_information(ArrayLaw(2, 0.5, math.radians(10.0), 2, 100), TableSettings(2, 3))
    assert found.name == "L2-d0.5-s10-N2-T100.json"
    assert json.loads(found.read_text()) == wanted.content()


def test_a_link_network_is_learned_and_saved(tmp_path: Path) -> None:
    link_network.main(["--antennas", "2", "--links", "300", "--epochs", "1", "--out", str(tmp_path)])
    state = torch.load(tmp_path / "L2-d0.5-s10-N20-T100.pt", weights_only=True)
    assert LinkNetwork.of_state(state).weights[-1].shape == (64, 4)
