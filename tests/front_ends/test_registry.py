from __future__ import annotations

import gymnasium
import pettingzoo
import pytest

import cfpos_envs
from cfpos_envs import list_envs, make_env, make_scenario, register, registry
from cfpos_envs.scenarios.base import Scenario
from tests.front_ends.toy import ToyConfig, ToyScenario, register_toy

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


class Headless(ToyScenario):
    """A third party's game that forgot two methods."""

    observe = Scenario.observe  # type: ignore[assignment]
    measurements = Scenario.measurements


class Nameless(ToyScenario):
    """A third party's game that does not call the constructor of its parent."""

    def __init__(self, config: ToyConfig, device: object = "cpu") -> None:
        self.config, self.rounds = config, config.rounds


class Loose(ToyScenario):
    """A third party's game whose options are no dataclass."""

    config_class = type("Options", (), {})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Loose", "config_class Options of environment 'broken-v0' is no dataclass, .*; put @dataclass"),
        ("Headless", "Headless of environment 'broken-v0' lacks measurements, observe; define what"),
        ("Nameless", "Nameless of environment 'broken-v0' lacks agents, observation_size, action_size; set them"),
        ("TOY", "TOY of environment 'broken-v0' is no subclass of Scenario; make it one"),
    ],
)
def test_a_scenario_that_lacks_something_is_refused_by_name(
    name: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    registry._entries["broken-v0"] = registry._Entry(f"{__name__}:{name}", {})
    with pytest.raises(ValueError, match=told) as caught:
        registry.make_env("broken-v0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["no_such_module:Game", "cfpos_envs.streams:NoSuchGame"])
def test_a_path_that_leads_nowhere_is_named_with_its_id(path: str) -> None:
    name = f"lost-{path.partition(':')[2].lower()}-v0"
    register(name, path)
    try:
        with pytest.raises(ValueError, match=f"{name}.*cannot be loaded from {path}.*correct the path"):
            make_env(name)
    finally:
        del cfpos_envs.registry._entries[name]
