"""Runs that are stopped go on bit for bit; whatever cannot go on says why in one line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import load_agent, make_agent
from cfpos_envs.checkpoints import write_checkpoint
from tests.agents import probes
from tests.agents.interrupted_run import SETTINGS, TOTAL, agent_for
from tests.agents.probes import probe_env

ROOT = Path(__file__).resolve().parents[2]


def equal(left: Any, right: Any, where: str = "") -> list[str]:
    """The places where two nested structures differ."""
    if isinstance(left, torch.Tensor):
        return [] if torch.equal(left, right) else [where]
    if isinstance(left, dict):
        if left.keys() != right.keys():
            return [where]
        return [place for key in left for place in equal(left[key], right[key], f"{where}/{key}")]
    if isinstance(left, (list, tuple)):
        if len(left) != len(right):
            return [where]
        pairs = enumerate(zip(left, right, strict=True))
        return [place for index, (a, b) in pairs for place in equal(a, b, f"{where}/{index}")]
    return [] if left == right else [where]


@pytest.mark.parametrize("game", ["entity", "paper", "model", "zoo"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(game: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.agents.interrupted_run", game, str(tmp_path / "killed"), "270"]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    stopped_at = torch.load(tmp_path / "killed" / "last.pt", weights_only=True)["run"]["steps"]
    assert 200 <= stopped_at < 270

    whole = agent_for(game)
    whole.train(TOTAL, log_dir=tmp_path / "whole", progress=False)
    resumed = agent_for(game)
    resumed.train(resume=tmp_path / "killed", progress=False)

    for name in ("last.pt", "best.pt"):
        one, two = (torch.load(tmp_path / run / name, weights_only=True) for run in ("whole", "killed"))
        assert equal(one, two) == []
    assert equal(whole.policy_state(), resumed.policy_state()) == []


def test_two_equal_runs_are_equal_and_another_seed_is_not(tmp_path: Path) -> None:
    states = []
    for seed in (3, 3, 4):
        env = probe_env(probes.Follow, num_envs=8, num_ues=2)
        agent = make_agent("maddpg", env, **{**SETTINGS, "seed": seed})
        agent.train(320, progress=False)
        states.append(agent.policy_state()["actor"])
    assert equal(states[0], states[1]) == []
    assert equal(states[0], states[2]) != []


@pytest.fixture
def python_handler() -> Iterator[Any]:
    """Python's own reaction to Ctrl-C, which a process started in the background of a shell lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_ends_the_round_and_leaves_a_checkpoint_to_go_on_from(tmp_path: Path, python_handler: Any) -> None:
    def press(step: int) -> None:
        if step == 200:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="resume="):
        agent_for("entity").train(TOTAL, log_dir=tmp_path / "run", callback=press, progress=False)
    assert signal.getsignal(signal.SIGINT) is python_handler
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["run"]["steps"] == 208
    resumed, whole = agent_for("entity"), agent_for("entity")
    resumed.train(resume=tmp_path / "run", progress=False)
    whole.train(TOTAL, progress=False)
    assert equal(resumed.policy_state(), whole.policy_state()) == []


def test_nan_stops_the_run_and_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    env = probe_env(probes.Broken, num_envs=8, rounds=4)
    agent = make_agent("maddpg", env, **{**SETTINGS, "evaluations": 0, "checkpoint_every": 8})
    with pytest.raises(FloatingPointError, match=r"the reward became NaN .* step 16; last good .*last\.pt") as caught:
        agent.train(TOTAL, log_dir=tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    content = torch.load(tmp_path / "last.pt", weights_only=True)
    assert content["run"]["steps"] == 16
    assert all(bool(torch.isfinite(value).all()) for value in content["agent"]["actor"].values())


def test_the_best_policy_by_score_is_the_result(tmp_path: Path) -> None:
    agent = agent_for("entity")
    results = agent.train(TOTAL, log_dir=tmp_path, progress=False)
    best = load_agent(tmp_path, probe_env(probes.Follow, num_agents=2, num_ues=2, rounds=3))
    assert equal(best.policy_state()["actor"], agent.policy_state()["actor"]) == []
    assert results["best_score"] >= results["final_score"]
    assert results["rmse_m"] == pytest.approx(2 * results["bound_rmse_m"])
    names = {path.name for path in tmp_path.iterdir()}
    assert {"best.pt", "last.pt"} < names
    assert not [name for name in names if name.startswith(".")]


def test_a_training_that_makes_things_worse_returns_the_untrained_policy(tmp_path: Path) -> None:
    class Neutral(probes.Probe):
        """The untrained action 0 is best, but what is paid during exploration says otherwise."""

        def pay(self, state: probes.ProbeState, actions: torch.Tensor) -> torch.Tensor:
            exploring = len(state.time) == 8
            return actions.abs().sum(-1) * (1.0 if exploring else -1.0)

    settings = {**SETTINGS, "validation_envs": 9, "observation_normalisation": False, "lr_actor": 0.05}
    agent = make_agent("maddpg", probe_env(Neutral, num_envs=8), **settings)
    untrained = agent.policy_state()["actor"]
    results = agent.train(TOTAL, progress=False)
    assert equal(agent.policy_state()["actor"], untrained) == []
    assert results["final_score"] < results["best_score"]


def message(caught: pytest.ExceptionInfo) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_finished_run_cannot_be_resumed(tmp_path: Path) -> None:
    agent_for("entity").train(160, log_dir=tmp_path, progress=False)
    with pytest.raises(ValueError, match="finished") as caught:
        agent_for("entity").train(resume=tmp_path, progress=False)
    assert "raise total_steps" in message(caught)
    assert agent_for("entity").train(320, resume=tmp_path, progress=False)["steps"] == 320


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    agent_for("entity").train(160, log_dir=tmp_path, progress=False)
    with pytest.raises(ValueError, match="already holds a run"):
        agent_for("entity").train(160, log_dir=tmp_path, progress=False)


def test_resuming_with_other_settings_is_refused(tmp_path: Path) -> None:
    agent_for("entity").train(160, log_dir=tmp_path, progress=False)
    env = probe_env(probes.Follow, num_envs=8, num_agents=2, num_ues=2, rounds=3, terminates=False)
    other = make_agent("maddpg", env, **{**SETTINGS, "lr_actor": 0.5})
    with pytest.raises(ValueError, match=r"lr_actor=0\.001"):
        other.train(TOTAL, resume=tmp_path, progress=False)


def test_a_policy_file_is_no_run(tmp_path: Path) -> None:
    agent_for("entity").save(tmp_path / "policy.pt")
    with pytest.raises(ValueError, match="no training state"):
        agent_for("entity").train(TOTAL, resume=tmp_path / "policy.pt", progress=False)


def test_missing_truncated_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    env = probe_env(probes.Follow, num_ues=2)
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        load_agent(tmp_path / "nothing.pt", env)
    with pytest.raises(FileNotFoundError, match=r"no best\.pt in"):
        load_agent(tmp_path, env)
    path = tmp_path / "policy.pt"
    agent_for("entity").save(path)
    whole = path.read_bytes()
    for kept in (0, 10, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:kept])
        with pytest.raises(ValueError, match="truncated") as caught:
            load_agent(path, env)
        assert str(path) in message(caught)
    torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match="not a checkpoint of this version"):
        load_agent(path, env)


def test_policies_of_another_game_or_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    make_agent("maddpg", probe_env(probes.Seen, num_agents=2), **SETTINGS).save(path)
    with pytest.raises(ValueError, match="another environment"):
        load_agent(path, probe_env(probes.Follow, num_agents=2))
    with pytest.raises(ValueError, match="2 agents") as caught:
        load_agent(path, probe_env(probes.Seen, num_agents=3))
    assert "3 agents" in message(caught)


@pytest.mark.parametrize(("share", "agents", "ues"), [("shared", 5, 2), ("entity", 4, 7)])
def test_shared_actors_move_to_games_of_another_size(share: str, agents: int, ues: int, tmp_path: Path) -> None:
    env = probe_env(probes.Follow, num_agents=2, num_ues=2)
    agent = make_agent("maddpg", env, **{**SETTINGS, "share": share, "critic": "own"})
    agent.save(tmp_path / "policy.pt")
    moved = load_agent(tmp_path / "policy.pt", probe_env(probes.Follow, num_agents=agents, num_ues=ues))
    assert moved.act_batch(torch.zeros(3, agents, 2 * ues)).shape == (3, agents, ues)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    write_checkpoint(path, {"agent": {"value": 1}})
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        write_checkpoint(path, {"agent": lambda: None})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.pt"]


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OSError, match="cannot write") as caught:
        agent_for("entity").save(blocked / "policy.pt")
    assert "choose a folder" in message(caught)


def test_a_run_killed_before_its_last_figures_gets_them_on_resuming(tmp_path: Path) -> None:
    results = agent_for("entity").train(TOTAL, log_dir=tmp_path, progress=False)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    with pytest.raises(ValueError, match="is finished"):
        agent_for("entity").train(resume=tmp_path, progress=False)
    del best["finished"], best["format"]
    write_checkpoint(tmp_path / "best.pt", best)
    assert agent_for("entity").train(resume=tmp_path, progress=False) == results
    with pytest.raises(ValueError, match="is finished"):
        agent_for("entity").train(resume=tmp_path, progress=False)
