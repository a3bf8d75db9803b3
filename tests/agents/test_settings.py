"""Wrong settings and environments are refused in one line that says what is allowed."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from agents import MaddpgConfig, list_agents, make_agent
from agents.maddpg.config import PRESETS
from tests.agents import probes
from tests.agents.probes import probe_env


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"lr_actr": 1e-3}, "did you mean lr_actor"),
        ({"gamma": 1.5}, r"gamma=1\.5 must be at most 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"lr_actor": float("nan")}, "lr_actor=nan"),
        ({"share": "all"}, "share='all' is not one of separate, shared, entity"),
        ({"critic": "joint"}, "concatenated, permutation-invariant, own, model"),
        ({"noise": "pink"}, "gaussian, ou"),
        ({"actor_hidden": (64, 0)}, "actor_hidden=0 must be at least 1"),
        ({"batch_size": 500, "buffer_size": 100}, "raise buffer_size"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        MaddpgConfig.build(wrong)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["nowhere", "mps", "cuda:7"])
def test_a_device_is_refused_whoever_made_the_environment(device: str) -> None:
    with pytest.raises(ValueError, match=f"^device (is )?'{device}'"):
        make_agent("maddpg", probe_env(probes.Seen), device=device)


def test_every_number_has_a_range_and_every_range_a_field() -> None:
    fields = {field.name: getattr(MaddpgConfig(), field.name) for field in dataclasses.fields(MaddpgConfig)}
    numbers = {name for name, value in fields.items() if isinstance(value, (int, float)) and value not in (True, False)}
    assert numbers - {"seed"} <= set(MaddpgConfig.all_ranges()) <= set(fields)


def test_a_config_survives_its_plain_form() -> None:
    config = MaddpgConfig.preset("paper", seed=4, actor_hidden=[7, 8])
    assert config.actor_hidden == (7, 8)
    assert MaddpgConfig.build(config.to_dict()) == config


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_valid(name: str) -> None:
    assert (
        MaddpgConfig.preset(name).to_dict().items()
        >= {key: list(value) if isinstance(value, tuple) else value for key, value in PRESETS[name].items()}.items()
    )


def test_unknown_preset_and_agent_name_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean paper"):
        MaddpgConfig.preset("papr")
    with pytest.raises(ValueError, match="did you mean maddpg"):
        make_agent("madpg", probe_env(probes.Seen))
    assert "maddpg" in list_agents()


def test_defaults_follow_the_environment() -> None:
    with_entities = make_agent("maddpg", probe_env(probes.Follow, num_ues=2)).config
    assert (with_entities.share, with_entities.critic, with_entities.gamma) == ("entity", "own", 0.0)
    without = make_agent("maddpg", probe_env(probes.Follow)).config
    assert (without.share, without.critic) == ("separate", "concatenated")


def test_settings_that_the_environment_cannot_serve_are_refused() -> None:
    with pytest.raises(ValueError, match="differentiable"):
        make_agent("maddpg", probe_env(probes.Follow), critic="model")
    with pytest.raises(ValueError, match="entities"):
        make_agent("maddpg", probe_env(probes.Follow), share="entity", critic="own")
    with pytest.raises(ValueError, match="cannot train on a dict"):
        make_agent("maddpg", {})


@pytest.mark.parametrize("steps", [None, 0, -5])
def test_a_run_needs_steps(steps: int | None) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make_agent("maddpg", probe_env(probes.Follow)).train(steps)


def test_spaces_that_are_no_bounded_boxes_are_refused_by_agent() -> None:
    game = probes.UnequalZoo()
    game._actions["short"] = gymnasium.spaces.Discrete(3)
    with pytest.raises(ValueError, match="action space of short is Discrete"):
        make_agent("maddpg", game)
    game._actions["short"] = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    with pytest.raises(ValueError, match="action space of short is unbounded"):
        make_agent("maddpg", game)
    game._observations["long"] = gymnasium.spaces.Discrete(3)
    with pytest.raises(ValueError, match="observation space of long is Discrete"):
        make_agent("maddpg", game)


def test_global_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the point is that nobody draws from it
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    agent = make_agent("maddpg", probe_env(probes.Follow, num_envs=8), warmup_steps=8, batch_size=8)
    agent.train(64, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    assert numpy_before == np.random.get_state()[1].tolist()  # noqa: NPY002
