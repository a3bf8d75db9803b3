"""Settings that are made for games with entities give way where a game has none."""

from __future__ import annotations

import pytest

from agents.maddpg.config import MaddpgConfig
from agents.registry import config_class
from cfpos_envs import make_env
from scripts.settings import fitted


def settings(preset, agent="maddpg"):
    return config_class(agent).preset(preset).to_dict()


def test_a_game_without_entities_gets_what_suits_it():
    env = make_env("ris-phase-v0", num_envs=2, seed=0)
    assert fitted("maddpg", settings("entity"), env) == MaddpgConfig().to_dict()
    assert fitted("maddpg", settings("default"), env) == settings("default")


def test_what_was_typed_stays():
    env = make_env("ris-phase-v0", num_envs=2, seed=0)
    chosen = fitted("maddpg", {**settings("entity"), "batch_size": 333}, env, ["batch_size"])
    assert chosen["batch_size"] == 333
    assert chosen["share"] == "separate"
    asked = settings("entity")
    assert fitted("maddpg", asked, env, ["share"]) == asked


def test_a_model_critic_stays_one():
    chosen = fitted("maddpg", settings("model"), make_env("ris-phase-v0", num_envs=2, seed=0))
    assert (chosen["critic"], chosen["share"], chosen["lr_actor"]) == ("model", "shared", 2e-3)


@pytest.mark.parametrize("preset", ["entity", "model"])
def test_games_with_entities_keep_their_settings(preset):
    env = make_env("toa-v0", num_envs=2, seed=0, num_aps=4, num_sites=1)
    assert fitted("maddpg", settings(preset), env) == settings(preset)


def test_other_trainers_too():
    env = make_env("ris-phase-v0", num_envs=2, seed=0)
    chosen = fitted("sb3-ppo", settings("entity", "sb3-ppo"), env)
    assert chosen == settings("default", "sb3-ppo")
