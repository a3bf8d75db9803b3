"""What Hydra composes is what the dataclasses say, for every registered id and preset, and nothing else is accepted."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from agents import list_agents
from agents.registry import config_class
from cfpos_envs import list_envs, make_scenario
from scripts.cli import CONF
from scripts.settings import (
    EvaluateSettings,
    TrainSettings,
    check_counts,
    plain,
    register_schemas,
    schema,
)

register_schemas()
# Other tests of this process may have registered their toy.
ENV_IDS = [name for name in list_envs() if not name.startswith("toy")]
GIVEN_BY_THE_RUN = ("seed", "device", "threads")


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))


def as_plain(config: Any) -> dict[str, Any]:
    return {name: _listed(value) for name, value in dataclasses.asdict(config).items()}


def _listed(value: Any) -> Any:
    return [_listed(entry) for entry in value] if isinstance(value, tuple) else value


def group(name: str) -> list[str]:
    return sorted(path.stem for path in (CONF / name).glob("*.yaml"))


def test_every_registered_environment_has_a_composition_and_the_other_way_round() -> None:
    assert {f"{name}-v0" for name in group("env")} == set(ENV_IDS)


@pytest.mark.parametrize("env_id", ENV_IDS)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_environment_settings_are_those_of_the_dataclass(command: str, env_id: str) -> None:
    config = composed(command, f"env={env_id.removesuffix('-v0')}")
    assert config.env.id == env_id
    assert plain(config.env, "id") == as_plain(make_scenario(env_id).config)


@pytest.mark.parametrize("name", group("agent"))
def test_agent_settings_are_those_of_the_dataclass(name: str) -> None:
    config = composed("train", f"agent={name}", "seed=5", "threads=2")
    agent = config.agent.name
    assert (config.agent.seed, config.agent.threads, config.agent.device) == (5, 2, "cpu")
    # The file names its schema, AGENT-PRESET.
    (schema_name,) = [
        entry["schema@_here_"]
        for entry in yaml.safe_load((CONF / "agent" / f"{name}.yaml").read_text(encoding="utf-8"))["defaults"]
        if isinstance(entry, dict)
    ]
    wanted = as_plain(config_class(agent).preset(schema_name.removeprefix(f"{agent}-")))
    left_out = set(GIVEN_BY_THE_RUN)
    found = plain(config.agent, "name")
    assert {key: value for key, value in found.items() if key not in left_out} == {
        key: value for key, value in wanted.items() if key not in left_out
    }
    assert config_class(agent).build(found).to_dict() == found


def test_every_agent_has_a_composition() -> None:
    assert {composed("train", f"agent={name}").agent.name for name in group("agent")} == set(list_agents())


@pytest.mark.parametrize(("command", "settings"), [("train", TrainSettings), ("evaluate", EvaluateSettings)])
def test_command_settings_are_those_of_the_dataclass(command: str, settings: type) -> None:
    config = composed(command)
    for entry in dataclasses.fields(settings):
        if entry.name not in ("env", "agent"):
            assert config[entry.name] == getattr(settings(), entry.name), entry.name
    assert set(config) == {entry.name for entry in dataclasses.fields(settings)}


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.stem)
def test_yaml_files_compose_and_define_no_default(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    allowed = {"defaults", "hydra", *GIVEN_BY_THE_RUN}
    assert set(content) <= allowed
    assert all(str(content[key]).startswith("${") for key in GIVEN_BY_THE_RUN if key in content)


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
