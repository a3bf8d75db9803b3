"""A checkpoint knows its game: policies load where their numbers mean the same, and nowhere else."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import load_agent, make_agent
from agents.ecc.weights import list_weights, weights
from cfpos_envs import make_env
from cfpos_envs.checkpoints import FORMAT_VERSION, check_game, game_of, read_checkpoint, write_checkpoint
from cfpos_envs.front_ends.vector import VectorEnv
from tests.agents import probes
from tests.agents.probes import probe_env
from tests.own_games import OWN_GAMES

SIZES: Mapping[str, dict[str, Any]] = {
    "dcp": {"num_aps": 4, "num_ues": 2},
    "toa": {"num_aps": 4, "num_ues": 2},
    "tdoa": {"num_aps": 4, "num_ues": 2},
    "rtt": {"num_aps": 4, "num_ues": 2},
}


@pytest.fixture(scope="module")
def games() -> dict[str, VectorEnv]:
    return {name: make_env(name, num_envs=1, seed=0, **SIZES.get(name.split("-")[0], {})) for name in OWN_GAMES}


def test_no_game_takes_the_policies_of_another(games: dict[str, VectorEnv]) -> None:
    # Measured ranges are played by the rules of rtt-v0, so that what was trained there acts on them.
    alike = {"rtt-v0", "measured-v0"}
    for trained, played in itertools.permutations(games, 2):
        if {trained, played} == alike:
            check_game(game_of(games[trained]), games[played])
            continue
        with pytest.raises(ValueError, match="another environment") as caught:
            check_game(game_of(games[trained]), games[played])
        assert {trained, played} <= set(str(caught.value).replace(";", "").split())
        assert "\n" not in str(caught.value)
    for env in games.values():
        check_game(game_of(env), env)


@pytest.mark.parametrize(
    ("trained", "played", "overrides", "told"),
    [
        ("toa-v0", "tdoa-v0", {}, "trained in toa-v0 with family=toa, here tdoa-v0 with tdoa"),
        ("tdoa-v0", "rtt-v0", {}, "trained in tdoa-v0 with family=tdoa, here rtt-v0 with rtt"),
        ("ris-v0", "ris-v0", {"reach_m": 0.5}, "reach_m"),
        ("dcp-rss-v0", "dcp-aoa-v0", {}, "stage"),
    ],
)
def test_a_saved_agent_is_refused_with_both_games_and_what_differs(
    games: dict[str, VectorEnv], trained: str, played: str, overrides: dict[str, Any], told: str, tmp_path: Path
) -> None:
    make_agent("maddpg", games[trained]).save(tmp_path / "policy.pt")
    other = make_env(played, num_envs=1, **{**SIZES.get(played.split("-")[0], {}), **overrides})
    with pytest.raises(ValueError, match=told):
        load_agent(tmp_path / "policy.pt", other)
    load_agent(tmp_path / "policy.pt", games[trained])


def test_sizes_that_an_actor_does_not_depend_on_may_differ(games: dict[str, VectorEnv], tmp_path: Path) -> None:
    make_agent("maddpg", games["toa-v0"]).save(tmp_path / "policy.pt")
    larger = make_env("toa-v0", num_envs=1, num_aps=6, num_ues=3)
    moved = load_agent(tmp_path / "policy.pt", larger)
    assert moved.act_batch(larger.reset(seed=0)).shape == (1, 6, larger.action_size)


def as_before(path: Path, game: str, **noted: str) -> Path:
    """A file as the builds before wrote it: the game's class and a few of its options, no version."""
    content = read_checkpoint(path)
    del content["format_version"], content["agent"]["env_id"]
    content["agent"]["signature"] = {"game": game, **noted}
    torch.save(content, path)
    return path


def test_files_of_the_builds_before_load_by_the_names_of_then(games: dict[str, VectorEnv], tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    make_agent("maddpg", games["toa-v0"]).save(path)
    as_before(path, "ToaScenario")
    for name in ("toa-v0", "tdoa-v0"):
        with pytest.warns(UserWarning, match=rf"did not note family.*taken to be of {name}") as noticed:
            load_agent(path, games[name])
        (notice,) = noticed
        assert "\n" not in str(notice.message)
    with pytest.raises(ValueError, match="another environment: trained in ToaScenario"):
        load_agent(path, games["dcp-rss-v0"])

    make_agent("maddpg", games["dcp-rss-v0"]).save(path)
    as_before(path, "DcpScenario", stage="rss")
    with pytest.raises(ValueError, match="with stage=rss, here dcp-aoa-v0 with aoa"):
        load_agent(path, games["dcp-aoa-v0"])


def test_other_peoples_games_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    make_agent("maddpg", probe_env(probes.Seen)).save(path)
    as_before(path, "Seen")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_agent(path, probe_env(probes.Seen))
    with pytest.raises(ValueError, match="trained in Seen with family=Seen, here Follow"):
        load_agent(path, probe_env(probes.Follow))


@pytest.mark.parametrize("name", list_weights())
def test_networks_that_ship_load_without_a_word(name: str) -> None:
    env = make_env("ecc-urban-v0" if name.endswith("urban") else "ecc-urban-small-v0", num_envs=1, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = load_agent(weights(name), env)
    assert agent.policy_state()["signature"] == env.signature()


def test_files_carry_the_version_and_later_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.pt"
    write_checkpoint(path, {"agent": {}})
    assert read_checkpoint(path)["format_version"] == FORMAT_VERSION == 2
    write_checkpoint(path, {"agent": {}, "format_version": FORMAT_VERSION + 1})
    with pytest.raises(ValueError, match=r"has format version 3, this build reads up to 2; update cfpos"):
        read_checkpoint(path)


def test_training_begins_with_the_policy_of_another_run(games: dict[str, VectorEnv], tmp_path: Path) -> None:
    trained = make_agent("maddpg", games["rtt-v0"], share="entity", seed=1)
    trained.steps_trained = 500
    trained.save(tmp_path / "policy.pt")
    measured = games["measured-v0"]
    begun = make_agent("maddpg", measured, share="entity", seed=2)
    seen = measured.reset(seed=0)
    before = begun.act_batch(seen)
    begun.begin_with(tmp_path / "policy.pt")
    assert not torch.equal(begun.act_batch(seen), before)
    assert torch.equal(begun.act_batch(seen), load_agent(tmp_path / "policy.pt", measured).act_batch(seen))
    assert begun.steps_trained == 0
    state = read_checkpoint(tmp_path / "policy.pt")
    write_checkpoint(tmp_path / "other.pt", {"agent": {**state["agent"], "name": "sb3-ppo"}})
    with pytest.raises(ValueError, match=r"other\.pt is of the agent sb3-ppo, not maddpg"):
        begun.begin_with(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="another environment"):
        make_agent("maddpg", games["toa-v0"], share="entity").begin_with(tmp_path / "policy.pt")
