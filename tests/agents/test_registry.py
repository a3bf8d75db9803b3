"""Agents by name: what a registered one offers, and what is said when a name or a package is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from agents import Agent, list_agents, load_agent, make_agent, register_agent
from agents import registry as registry_module
from agents.base import Plan
from agents.registry import agent_class, config_class
from cfpos_envs.checkpoints import write_checkpoint
from cfpos_envs.settings import Settings
from tests.agents import probes
from tests.agents.probes import probe_env


@dataclasses.dataclass(frozen=True)
class ConstantSettings(Settings):
    value: float = 0.25


class Constant(Agent):
    """The smallest agent: always the same action."""

    name = "constant"
    config_class = ConstantSettings

    def __init__(self, env: Any, config: ConstantSettings) -> None:
        self.env, self.config = env, config
        self.offset = 0.0

    def run(self, plan: Plan) -> dict[str, float]:
        self.offset = 0.5
        return {"steps": float(plan.total_steps or 0)}

    def act_batch(self, observations: torch.Tensor) -> torch.Tensor:
        return torch.full((*observations.shape[:2], self.env.action_size), self.config.value + self.offset)

    def network_state(self) -> dict[str, Any]:
        return {"offset": self.offset}

    def load_networks(self, state: Mapping[str, Any]) -> None:
        self.offset = float(state["offset"])


@pytest.fixture
def constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name ``constant``, for one test."""
    monkeypatch.setattr(registry_module, "_entries", dict(registry_module._entries))
    here = __name__
    monkeypatch.setattr(registry_module, "_imported", _finding(here, registry_module._imported))
    register_agent("constant", f"{here}:Constant", f"{here}:ConstantSettings")


def _finding(module: str, ordinary: Any) -> Any:
    # Test modules are not importable by name.
    def imported(path: str) -> Any:
        return globals()[path.partition(":")[2]] if path.startswith(module) else ordinary(path)

    return imported


@pytest.mark.parametrize("name", list_agents())
def test_settings_of_every_agent_keep_the_rules_of_the_command_line(name: str) -> None:
    settings = config_class(name)
    fields = {entry.name for entry in dataclasses.fields(settings)}  # type: ignore[arg-type]
    assert {"num_envs", "seed", "device", "threads"} <= fields
    for preset in settings.presets:
        config = settings.preset(preset, seed=3)
        assert settings.build(config.to_dict()) == config
    assert settings.preset("default") == settings.build({})
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.build({}).seed = 1


def test_the_class_of_a_name_has_that_name_and_those_settings() -> None:
    found = agent_class("maddpg")
    assert issubclass(found, Agent)
    assert (found.name, found.config_class) == ("maddpg", config_class("maddpg"))


def test_a_new_agent_is_made_trained_saved_and_recognised(constant: None, tmp_path: Path) -> None:
    env = probe_env(probes.Follow, num_envs=2)
    agent = make_agent("constant", env, value=0.125)
    assert agent.train(8) == {"steps": 8.0}
    agent.save(tmp_path / "agent.pt")
    again = load_agent(tmp_path / "agent.pt", env)
    assert isinstance(again, Constant)
    observations = env.reset()
    assert torch.equal(again.act_batch(observations), torch.full((2, 2, 1), 0.625))
    played = again.act({"ap_1": observations[0, 1].numpy(), "ap_0": observations[0, 0].numpy()})
    assert {name: action.tolist() for name, action in played.items()} == {"ap_1": [0.625], "ap_0": [0.625]}
    with pytest.raises(ValueError, match="is of the agent constant, not maddpg"):
        agent_class("maddpg").load(tmp_path / "agent.pt", env)


def test_a_checkpoint_of_an_unknown_agent_is_refused_by_name(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "agent.pt", {"agent": {"name": "madpg", "config": {}}})
    with pytest.raises(ValueError, match=r"unknown agent 'madpg'; did you mean maddpg"):
        load_agent(tmp_path / "agent.pt", probe_env(probes.Follow))


def test_a_missing_package_names_its_extra(constant: None) -> None:
    register_agent("far", "no_such_package.agent:Far", "agents.maddpg.config:MaddpgConfig", extra="far")
    with pytest.raises(ValueError, match=r'needs the package no_such_package.*pip install "cfpos\[far\]"'):
        make_agent("far", probe_env(probes.Follow))


def test_a_name_is_given_once(constant: None) -> None:
    register_agent("maddpg", ".maddpg.agent:Maddpg", ".maddpg.config:MaddpgConfig")
    with pytest.raises(ValueError, match=r"'maddpg' is taken by \.maddpg\.agent:Maddpg"):
        register_agent("maddpg", "agents.other:Other", "agents.maddpg.config:MaddpgConfig")
    with pytest.raises(ValueError, match=r"must look like 'package\.module:ClassName'"):
        register_agent("new", "agents.other", "agents.maddpg.config:MaddpgConfig")


def test_a_setting_of_an_agent_is_refused_under_its_title(constant: None) -> None:
    with pytest.raises(ValueError, match=r"unknown agent setting 'valu'; did you mean value"):
        make_agent("constant", probe_env(probes.Follow), valu=1.0)
