from __future__ import annotations

import gymnasium
import pettingzoo
import pytest

import cfpos_envs
from cfpos_envs import (
    list_envs,
    make_env,
    make_scenario,
    register,
)
from tests.front_ends.toy import ToyScenario, register_toy

TOY = register_toy()


def test_the_four_games_are_there() -> None:
    assert {"dcp-rss-v0", "dcp-aoa-v0", "dcp-v0", "dcp-jar-v0"} <= set(list_envs())
    assert list_envs() == sorted(list_envs())
    assert cfpos_envs.__version__


@pytest.mark.parametrize("env_id", list_envs())
def test_other_registries_know_the_same_ids(env_id: str) -> None:
    assert gymnasium.spec(f"cfpos/{env_id}").kwargs == {"env_id": env_id}
    assert pettingzoo.spec("parallel", f"cfpos/{env_id}").kwargs == {"env_id": env_id}
    assert pettingzoo.spec("aec", f"cfpos/{env_id}").kwargs == {"env_id": env_id}


def test_unknown_id_lists_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"did you mean dcp-rss-v0.*Registered: dcp-aoa-v0") as caught:
        make_env("dcp-rs-v0")
    assert "\n" not in str(caught.value)


def test_unknown_override_lists_the_nearest_and_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'num_ap'; did you mean num_aps.*Valid overrides: num_aps, num_ues, rounds"):
        make_env(TOY, num_ap=3)
    with pytest.raises(ValueError, match="did you mean render_mode"):
        make_env(TOY, render_mod="human")
    with pytest.raises(ValueError, match="num_aps is 0"):
        make_env(TOY, num_aps=0)


def test_defaults_of_an_id_give_way_to_overrides() -> None:
    register("toy-wide-v0", "tests.front_ends.toy:ToyScenario", num_aps=7)
    assert make_scenario("toy-wide-v0").config.num_aps == 7
    assert make_scenario("cfpos/toy-wide-v0", num_aps=2).config.num_aps == 2
    assert isinstance(make_scenario(TOY), ToyScenario)


def test_an_id_is_given_once() -> None:
    register_toy()
    with pytest.raises(ValueError, match="taken"):
        register(TOY, "elsewhere:Scenario")
    with pytest.raises(ValueError, match="module:ClassName"):
        register("new-v0", "no_colon_here")
    assert "new-v0" not in list_envs()


@pytest.mark.parametrize(("device", "message"), [("cuda:97", "not there"), ("tpu", "must be"), ("meta", "only 'cpu'")])
def test_devices_are_checked(device: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_env(TOY, device=device)
