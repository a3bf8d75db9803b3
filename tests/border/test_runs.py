"""Evaluation plays what was trained; folders of runs belong to one run; sweeps grow."""

from __future__ import annotations

import importlib
import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from agents import make_agent
from agents.ecc.weights import weights
from baselines import make_policy
from cfpos_envs import evaluate, locks, make_env
from scripts import cli, runs, sweeps
from scripts.cli import run_hydra
from scripts.settings import CONF, plain, register_folders, register_schemas, reserved_folder
from tests.locked import held_elsewhere
from tests.scripts.commands import files_below

register_schemas()
SMALL = ("env.num_aps=9", "env.num_ues=2", "env.num_antennas=4", "env.num_sites=2")
Command = Callable[..., str]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process: what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(cli, "register_schemas", int)  # once is enough

    def call(script: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        capsys.readouterr()
        run_hydra(importlib.import_module(f"scripts.{script}").main, script)
        out, err = capsys.readouterr()
        return out + "".join(line for line in err.splitlines() if line.startswith("warning"))

    return call


def composed(script: str, *overrides: str) -> Any:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(script, overrides=list(overrides))


def followed(*typed: str) -> tuple[dict[str, Any], str | None]:
    """The game that an evaluation plays, and what it says of the difference to the training of its first policy."""
    typed = (*typed, *runs.game_to_follow(typed))
    config = composed("evaluate", *typed)
    played = runs.followed(config, typed)
    game = runs.trained_game(config.policy[0])
    return plain(played), None if game is None else runs.difference(game, played)


def made_run(folder: Path, *overrides: str) -> Path:
    """What a training leaves, with the policy that it begins with."""
    config = composed("train", *overrides)
    env = make_env(config.env.id, num_envs=1, seed=0, **plain(config.env, "id"))
    folder.mkdir()
    make_agent(config.agent.name, env, **plain(config.agent, "name")).save(folder / "best.pt")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("runs") / "run", "env=dcp-rss", *SMALL, "env.site=hard", "env.side_m=60")


def settings_in(folder: Path) -> Any:
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["env"]


def test_a_resumed_run_advises_the_game_that_it_was_trained_in(tmp_path: Path, command: Command) -> None:
    own = ("env.site={preset:hard,bias_db:3}", "env.speed_m_s=1.5", "env.side_m=60")
    short = ("agent.num_envs=2", "agent.evaluations=0", "total_steps=2", "hydra.run.dir=run")
    printed = command("train", "env=dcp-rss", *SMALL, *own, *short), command("train", "resume=run", "total_steps=4")
    advice = [shlex.split(text.split("evaluate: ")[1].splitlines()[0]) for text in printed]
    assert advice[0] == advice[1]
    assert advice[1][:2] == ["cfpos", "evaluate"]
    trained = settings_in(tmp_path / "run")
    assert (trained["id"], trained["num_aps"], trained["side_m"]) == ("dcp-rss-v0", 9, 60.0)
    assert plain(composed("evaluate", *advice[1][2:]).env) == trained


def test_a_run_is_scored_with_its_own_settings_where_none_are_given(
    run: Path, tmp_path: Path, command: Command
) -> None:
    printed = command("evaluate", f"policy=[{run},centroid]", "episodes=1", "env.side_m=50", "hydra.run.dir=report")
    assert f"dcp-rss-v0 with the settings of {run}" in printed
    assert printed.endswith(f"warning: {run} was trained with env.side_m=60.0; here it plays with env.side_m=50.0")
    assert settings_in(tmp_path / "report") == {**settings_in(run), "side_m": 50.0}
    bounds = {row["bound_m"] for row in json.loads((tmp_path / "report" / "results.json").read_text())["policies"]}
    env = make_env("dcp-rss-v0", **{**plain(OmegaConf.create(settings_in(run)), "id"), "side_m": 50.0})
    assert bounds == {evaluate(env, make_policy("centroid"), episodes=1, seed=7).bound_rmse}


def test_what_is_typed_is_put_over_the_settings_of_the_run(run: Path) -> None:
    assert followed(f"policy=[{run}]") == (settings_in(run), None)
    played, said = followed(f"policy=[{run}]", "env.site.bias_db=2")
    assert played == {**settings_in(run), "site": {"preset": "hard", "bias_db": 2}}
    assert said == (
        f"{run} was trained with env.site={{preset:hard}}; here it plays with env.site={{preset:hard,bias_db:2}}"
    )


def test_a_game_on_the_command_line_is_played_and_the_difference_said(run: Path) -> None:
    same = ("env.site=hard", "env.side_m=60")
    played, said = followed("env=dcp-rss", *SMALL[1:], *same, f"policy=[{run}]")
    assert played["num_aps"] is None
    assert said == f"{run} was trained with env.num_aps=9; here it plays with env.num_aps=null"
    assert followed("env=dcp-rss", *SMALL, *same, f"policy=[{run}]") == (settings_in(run), None)


def test_estimators_are_scored_with_the_settings_of_a_run(run: Path) -> None:
    assert followed(f"settings_of={run}", "policy=[centroid]") == (settings_in(run), None)
    with pytest.raises(ValueError, match="run is a run of dcp-rss-v0, but env=dcp-jar; leave out env="):
        followed("env=dcp-jar", f"settings_of={run}", "policy=[centroid]")
    with pytest.raises(ValueError, match="settings_of=nowhere is no run; give the folder of a training run"):
        followed("settings_of=nowhere", "policy=[centroid]")


def test_runs_of_different_games_in_one_list_are_refused(run: Path, tmp_path: Path) -> None:
    other = made_run(tmp_path / "other", "env=toa")
    with pytest.raises(ValueError) as refused:
        runs.game_to_follow([f"policy=[{run},music,{other}]"])
    assert str(refused.value) == (
        f"policy lists runs of different games: {run} of dcp-rss-v0, {other} of toa-v0; evaluate them one at a time"
    )
    assert runs.game_to_follow([f"policy=[{run}],[{other}]", "--multirun"]) == []


def test_a_checkpoint_alone_says_its_game_and_that_its_settings_are_unknown(run: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(run / "best.pt", tmp_path / "kept.pt"))
    played, said = followed(f"policy=[{alone}]")
    assert played == plain(composed("evaluate", "env=dcp-rss").env)
    assert said is not None
    assert said.startswith(f"{alone} has no config.yaml beside it")


def test_a_file_that_names_no_game_is_a_policy_without_settings() -> None:
    shipped = weights("ecc-small")
    assert runs.trained_game(shipped) is None
    assert runs.game_to_follow([f"policy=[{shipped}]"]) == []
    with pytest.raises(ValueError, match="is no run"):
        runs.followed(SimpleNamespace(settings_of=str(shipped), env=None), [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("env: {id: dcp-rss-v0, gone: 3}", "sets env.gone, which dcp-rss-v0 does not know"),
        ("env: [", "config.yaml is damaged"),
        ("policy: [music]", "config.yaml is no configuration of a run"),
    ],
)
def test_settings_that_cannot_be_read_are_named(text: str, said: str, run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "best.pt", tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=said):
        followed(f"policy=[{tmp_path}]")


@pytest.mark.parametrize(
    "value", ["hall.yaml", "my hall, new.yaml", "it's=1", "a\\b\\", "\\'", {"file": "x y"}, [1, "a b"], True, ""]
)
def test_values_are_read_back_from_the_command_line(value: Any) -> None:
    assert OverridesParser.create().parse_override(f"key={runs.in_hydra(value)}").value() == value


def test_runs_that_begin_in_one_second_never_share_a_folder(tmp_path: Path) -> None:
    wanted = str(tmp_path / "outputs" / "now")
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: reserved_folder(wanted), range(32)))
    assert sorted(folders) == sorted([wanted, *(f"{wanted}_{number}" for number in range(2, 33))])
    assert all(Path(folder).is_dir() for folder in folders)


def test_a_folder_that_cannot_be_made_is_left_to_whoever_writes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert reserved_folder(f"{tmp_path}/file/run") == f"{tmp_path}/file/run"


def test_two_commands_at_one_time_get_two_folders_and_showing_one_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        register_folders(reserve=True)
        one, other = (
            OmegaConf.create({"dir": "${run_folder:null,x/now}", "old": "${run_folder:y,x/now}"}) for _ in "ab"
        )
        assert [one.dir, one.dir, other.dir, one.dir, one.old] == ["x/now", "x/now", "x/now_2", "x/now", "y"]
    finally:
        register_folders(reserve=False)
    assert OmegaConf.create({"dir": "${run_folder:null,z}"}).dir == "z"
    assert files_below(tmp_path) == {"x", "x/now", "x/now_2"}
    for name in ("train", "evaluate"):
        node = OmegaConf.load(CONF / f"{name}.yaml").hydra
        assert all("${run_folder:" in OmegaConf.to_container(node)[part]["dir"] for part in ("run", "sweep"))  # type: ignore[index, call-overload]


def test_settings_are_written_by_whoever_holds_the_lock(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.1)
    small = (*SMALL, "agent.evaluations=0", "total_steps=2", "hydra.run.dir=run")
    with held_elsewhere(tmp_path / "run"), pytest.raises(SystemExit) as ended:
        command("train", *small)
    assert ended.value.code == 2
    assert files_below(tmp_path) == set()


def test_a_finished_sweep_takes_further_values_and_runs_these_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def process(arguments: Sequence[str], **rest: Any) -> Any:
        done.append(" ".join(arguments[2:4]))
        return SimpleNamespace(returncode=0)

    def sweep(*values: Sequence[str]) -> dict[str, str]:
        for number, overrides in enumerate(itertools.product(*values)):
            sweeps.run_apart(Path("train.py"), overrides, tmp_path / str(number), tmp_path, quiet=False)
        assert sweeps.unfinished(tmp_path) == []
        return {
            path.parent.name: " ".join(json.loads(path.read_text())["overrides"])
            for path in tmp_path.glob("*/run.json")
        }

    monkeypatch.setattr(sweeps.subprocess, "run", process)
    before = sweep(["seed=0", "seed=1"], ["ues=2", "ues=3"])
    assert len(done) == 4
    # Numbers of the old runs shift in the larger product; settings do not.
    after = sweep(["seed=0", "seed=1"], ["ues=2", "ues=4", "ues=3"])
    assert done[4:] == ["seed=0 ues=4", "seed=1 ues=4"]
    assert after == {**before, "4": "seed=0 ues=4", "5": "seed=1 ues=4"}
    assert sweep(["ues=4", "ues=3"], ["seed=1"]) == after
    assert len(done) == 6


def test_parallel_workers_give_every_run_its_own_number(tmp_path: Path) -> None:
    for seed in range(3):
        sweeps.place_of([f"seed={seed}"], tmp_path / str(seed))
    wanted = [(seed, tmp_path / str(number)) for number, seed in enumerate(range(19, -1, -1))]
    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(lambda run: sweeps.place_of([f"seed={run[0]}"], run[1]), wanted))
    assert sorted(int(place.name) for place in places) == list(range(20))
    assert [places[19 - seed].name for seed in range(3)] == ["0", "1", "2"]


def test_a_folder_without_a_number_holds_one_run(tmp_path: Path) -> None:
    assert sweeps.place_of(["seed=1", "agent=maddpg"], tmp_path / "maddpg") == tmp_path / "maddpg"
    assert sweeps.place_of(["agent=maddpg", "seed=1"], tmp_path / "other") == tmp_path / "maddpg"
    with pytest.raises(ValueError, match="maddpg holds a run with seed=1 agent=maddpg, not with seed=2; choose"):
        sweeps.place_of(["seed=2"], tmp_path / "maddpg")
