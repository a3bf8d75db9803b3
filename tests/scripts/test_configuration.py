"""What Hydra composes is what the dataclasses say, for every registered id and preset, and nothing else is accepted."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from agents import list_agents
from agents.registry import config_class
from cfpos_envs import list_envs, register
from cfpos_envs.registry import make_config
from scripts.conf_values import written
from scripts.settings import (
    CONF,
    GIVEN_BY_THE_RUN,
    EvaluateSettings,
    TrainSettings,
    agent_preset,
    check_counts,
    plain,
    register_schemas,
    schema,
)
from scripts.train import evaluation_command

register_schemas()
# Other tests of this process may have registered their toy.
ENV_IDS = [name for name in list_envs() if not name.startswith("toy")]


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def group(name: str) -> list[str]:
    return sorted(path.stem for path in (CONF / name).glob("*.yaml"))


def test_every_file_is_of_a_registered_environment() -> None:
    assert {f"{name}-v0" for name in group("env")} <= set(ENV_IDS)


@pytest.mark.parametrize("env_id", ENV_IDS)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_environment_settings_are_those_of_the_dataclass(command: str, env_id: str) -> None:
    config = composed(command, f"env={env_id.removesuffix('-v0')}")
    assert config.env.id == env_id
    assert make_config(env_id, **plain(config.env, "id")) == make_config(env_id)


@pytest.mark.parametrize("path", [*sorted(CONF.glob("agent/*.yaml")), *sorted(CONF.glob("env/*.yaml"))], ids=str)
def test_files_show_every_value_that_their_dataclass_has(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert written(path, text) == text, "run python scripts/check_docs.py --write"
    shown = {key: value for key, value in yaml.safe_load(text).items() if key != "defaults"}
    if path.parent.name == "agent":
        agent, preset = agent_preset(path)
        wanted = {**config_class(agent).preset(preset).to_dict(), **{name: f"${{{name}}}" for name in GIVEN_BY_THE_RUN}}
        assert shown == wanted
    else:
        env_id = f"{path.stem}-v0"
        assert list(shown) == [entry.name for entry in dataclasses.fields(make_config(env_id))]
        assert make_config(env_id, **shown) == make_config(env_id)


@pytest.mark.parametrize("name", group("agent"))
def test_agent_settings_are_those_of_the_dataclass(name: str) -> None:
    config = composed("train", f"agent={name}", "seed=5", "threads=2")
    agent, preset = agent_preset(CONF / "agent" / f"{name}.yaml")
    wanted = config_class(agent).preset(preset, seed=5, threads=2).to_dict()
    assert config.agent.name == agent
    assert plain(config.agent, "name") == wanted
    assert config_class(agent).build(wanted).to_dict() == wanted


@pytest.mark.parametrize("env", ["ris", "ris-phase"])
@pytest.mark.parametrize("name", group("agent"))
def test_a_game_without_entities_is_composed_with_what_suits_it(name: str, env: str) -> None:
    agent, preset = agent_preset(CONF / "agent" / f"{name}.yaml")
    chosen = config_class(agent).preset(preset)
    if getattr(chosen, "share", None) != "entity":
        wanted = chosen
    elif preset == "model":
        wanted = config_class(agent).preset("default", critic="model", share="shared", lr_actor=2e-3)
    else:
        wanted = config_class(agent).preset("default")
    found = composed("train", f"agent={name}", f"env={env}").agent
    assert plain(found, "name", *GIVEN_BY_THE_RUN) == {
        key: value for key, value in wanted.to_dict().items() if key not in GIVEN_BY_THE_RUN
    }


def test_what_is_typed_stays_whatever_the_game() -> None:
    agent = composed("train", "env=ris-phase", "agent.batch_size=333", "agent.share=shared").agent
    assert (agent.batch_size, agent.share, agent.critic) == (333, "shared", "concatenated")


def test_what_is_registered_elsewhere_is_composed_without_a_file() -> None:
    register("toy-of-others-v0", "cfpos_envs.scenarios.ris.game:RisScenario", preset="small", rounds=3)
    register_schemas()
    config = composed("train", "env=toy-of-others", "env.rounds=4")
    assert (config.env.id, config.env.rounds, config.env.preset) == ("toy-of-others-v0", 4, "small")
    assert (config.agent.share, config.agent.batch_size) == ("separate", 1024)


@pytest.mark.parametrize(
    ("override", "site"),
    [
        ("env.site=hard", "hard"),
        ("env.site={preset:hard,bandwidth_hz:3e5}", {"preset": "hard", "bandwidth_hz": 3e5}),
        ("env.site.bandwidth_hz=3e5", {"preset": "shadowed", "bandwidth_hz": 3e5}),
    ],
)
def test_sites_are_named_or_changed_field_by_field(override: str, site: Any) -> None:
    config = make_config("dcp-jar-v0", **plain(composed("train", override).env, "id"))
    assert config == make_config("dcp-jar-v0", site=site)


def test_old_names_of_options_are_taken() -> None:
    composition = composed("train", "env.mobility=3").env
    with pytest.warns(DeprecationWarning, match="old name of speed_m_s"):
        assert make_config("dcp-jar-v0", **plain(composition, "id")).speed_m_s == 3.0


def test_every_agent_has_a_composition() -> None:
    assert {composed("train", f"agent={name}").agent.name for name in group("agent")} == set(list_agents())


@pytest.mark.parametrize(("command", "settings"), [("train", TrainSettings), ("evaluate", EvaluateSettings)])
def test_command_settings_are_those_of_the_dataclass(command: str, settings: type) -> None:
    config = composed(command)
    for entry in dataclasses.fields(settings):
        if entry.name not in ("env", "agent"):
            assert config[entry.name] == getattr(settings(), entry.name), entry.name
    assert set(config) == {entry.name for entry in dataclasses.fields(settings)}


@pytest.mark.parametrize("override", ["env.num_apps=3", "agent.lr_actr=1", "sede=1", "env.num_aps=abc", "seed=1.5"])
def test_unknown_keys_and_wrong_types_are_refused(override: str) -> None:
    with pytest.raises(HydraException):
        composed("train", override)


def test_optional_numbers_take_numbers_and_null() -> None:
    assert composed("train", "env.num_aps=16").env.num_aps == 16
    assert composed("train", "env.snr_db=-3.5").env.snr_db == -3.5
    assert composed("train", "env.num_aps=null").env.num_aps is None


def test_counts_below_one_are_named() -> None:
    with pytest.raises(ValueError, match="threads=0 must be at least 1"):
        check_counts(composed("train", "threads=0"), "total_steps", "threads")


def test_a_schema_keeps_values_of_the_instance_and_enforces_types() -> None:
    @dataclasses.dataclass(frozen=True)
    class Example:
        count: int = 1
        ratio: float | None = None
        widths: tuple[int, ...] = (2, 3)

    node = schema({"id": "x"}, Example(count=4))
    assert OmegaConf.to_container(node) == {"id": "x", "count": 4, "ratio": None, "widths": [2, 3]}
    node.ratio = 2
    assert node.ratio == 2.0
    with pytest.raises(ValueError, match="could not be converted"):
        node.count = "many"
    with pytest.raises(AttributeError):
        node.other = 1


def test_the_command_that_evaluates_a_run_names_what_differs_from_the_defaults() -> None:
    typed = ("env=dcp-jar", "env.num_aps=9", "env.mobility=1.0", "env.site={preset:hard,bias_db:3}")
    words = shlex.split(evaluation_command(composed("train", *typed), Path("runs/one")))
    assert words[:3] == ["cfpos", "evaluate", "env=dcp-jar"]
    again = composed("evaluate", *words[2:])
    assert (again.env.num_aps, again.env.speed_m_s) == (9, 1.0)
    assert again.env.site == {"preset": "hard", "bias_db": 3}
    assert list(again.policy) == ["runs/one"]
