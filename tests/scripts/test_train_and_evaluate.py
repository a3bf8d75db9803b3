"""Training and evaluation from the command line: what they leave and how they go on."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf

from cfpos_envs.files.positions import Positions
from tests.scripts.commands import SCENE, TRAINER, command, environment, files_below, run, run_here


def test_a_run_leaves_config_checkpoints_and_scalars(finished: Path) -> None:
    names = files_below(finished)
    assert {"config.yaml", "best.pt", "last.pt"} < names
    assert any(name.startswith("events.out.tfevents") for name in names)
    config = OmegaConf.load(finished / "config.yaml")
    assert (config.seed, config.agent.seed, config.env.id, config.env.num_aps) == (3, 3, "dcp-jar-v0", 9)
    assert "${" not in (finished / "config.yaml").read_text()


def test_evaluation_reports_every_policy_on_the_same_drops(finished: Path, tmp_path: Path) -> None:
    policies = f"policy=[{{name:fingerprint,spacing:5}},joint-gn,{finished},joint-gn]"
    said = run_here("evaluate", *SCENE, policies, "episodes=3", "hydra.run.dir=report", folder=tmp_path)
    report = json.loads((tmp_path / "report" / "results.json").read_text())
    rows = {row["policy"]: row for row in report["policies"]}
    assert list(rows) == ["fingerprint (spacing=5)", "joint-gn", "run", "joint-gn #2"]
    assert rows["joint-gn"]["rmse_m"] == rows["joint-gn #2"]["rmse_m"]
    assert len({row["bound_m"] for row in rows.values()}) == 1
    assert all(f"{row['rmse_m']:.3f}" in said for row in rows.values())
    table = Positions.read(tmp_path / "report" / report["positions"])
    assert table.policy is not None
    assert table.policy.tolist() == [name for name in rows for _ in range(3 * 2)]
    for name in ("cdf.png", "episode.png"):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_an_interrupted_run_goes_on_to_the_same_policy(tmp_path: Path) -> None:
    settings = [*SCENE, *TRAINER, "total_steps=960", "agent.checkpoint_every=48"]
    run_here("train", *settings, "hydra.run.dir=whole", folder=tmp_path)
    started = subprocess.Popen(
        command("train", *settings, "hydra.run.dir=cut"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoint = tmp_path / "cut" / "last.pt"
    while started.poll() is None and not (checkpoint.exists() and steps_in(checkpoint) > 0):
        time.sleep(0.02)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert 0 < steps_in(checkpoint) < 960
    run_here("train", "resume=cut", folder=tmp_path)
    ends = [torch.load(tmp_path / name / "last.pt", weights_only=True)["agent"]["actor"] for name in ("whole", "cut")]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def steps_in(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, weights_only=True)["run"]["steps"])


def test_ctrl_c_leaves_a_run_that_can_go_on(tmp_path: Path) -> None:
    started = subprocess.Popen(
        command("train", *SCENE, *TRAINER, "total_steps=1000000", "hydra.run.dir=run"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while started.poll() is None and not (tmp_path / "run" / "last.pt").exists():
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate()
    assert started.returncode == 130
    assert "Traceback" not in errors
    assert "resume=" in errors.splitlines()[-1]
    steps = steps_in(tmp_path / "run" / "last.pt")
    run_here("train", "resume=run", f"total_steps={steps + 8}", folder=tmp_path)
    assert steps_in(tmp_path / "run" / "last.pt") >= steps + 8


def test_a_sweep_makes_one_run_per_value(tmp_path: Path) -> None:
    done = run("train", "--multirun", "seed=0,1", "total_steps=16", *SCENE, *TRAINER, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "outputs" / "multirun").glob("*/*/config.yaml"))
    assert [OmegaConf.load(path).seed for path in runs] == [0, 1]


def test_agents_of_another_library_take_the_same_way(tmp_path: Path) -> None:
    small = ["agent=sb3-td3", "agent.evaluations=0", "agent.num_envs=4"]
    run_here("train", *SCENE, *small, "total_steps=24", "hydra.run.dir=run", folder=tmp_path)
    assert {"config.yaml", "best.pt", "last.pt", "results.json"} < files_below(tmp_path / "run")
    run_here("evaluate", *SCENE, "policy=[run]", "episodes=2", "hydra.run.dir=report", folder=tmp_path)
    assert "results.json" in files_below(tmp_path / "report")
