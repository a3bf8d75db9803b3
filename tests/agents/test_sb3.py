"""Agents of Stable-Baselines3: they learn, leave global random numbers alone, and go on where they were stopped."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import load_agent, make_agent
from agents.randomness import LentRandomness
from agents.sb3.settings import PpoSettings, SacSettings, Td3Settings
from cfpos_envs import evaluate, make_env
from tests.agents import probes
from tests.agents.maddpg.test_resume import equal
from tests.agents.probes import probe_env

NAMES = ("sb3-ppo", "sb3-sac", "sb3-td3")
SMALL: dict[str, Any] = {
    "hidden": (32,),
    "batch_size": 64,
    "learning_rate": 5e-3,
    "evaluations": 3,
    "validation_envs": 16,
    "test_envs": 8,
    "checkpoint_every": 64,
    "seed": 3,
}
OFF: dict[str, Any] = {"warmup_steps": 64, "buffer_size": 4000, "updates_per_step": 2}
OWN: dict[str, dict[str, Any]] = {"sb3-ppo": {"n_steps": 4}, "sb3-sac": {**OFF, "ent_coef": 0.01}, "sb3-td3": OFF}


def follow(name: str, **settings: Any) -> Any:
    env = probe_env(probes.Follow, num_envs=8, num_agents=2, num_ues=2, rounds=2, terminates=False)
    return make_agent(name, env, **{**SMALL, **OWN[name], **settings})


def global_states() -> tuple[Any, ...]:
    # Python's own generator is left out: the checker of types in these tests draws from it.
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 - the point is that nobody draws from it
    return kind, keys.tolist(), rest, torch.get_rng_state().tolist()


@pytest.mark.parametrize(
    ("name", "share"),
    [("sb3-td3", "entity"), *(pytest.param(name, "agent", marks=pytest.mark.slow) for name in NAMES)]
    + [("sb3-ppo", "entity"), ("sb3-sac", "entity")],
)
def test_it_learns_what_each_agent_should_answer(name: str, share: str) -> None:
    agent = follow(name, share=share, gamma=0.0, evaluations=4)
    # Doing nothing scores -2 E[(x/2)^2] = -1/6 for two entities, the best possible is 0.
    results = agent.train(2400 if name == "sb3-ppo" else 1200, progress=False)
    assert results["best_score"] > -1 / 6 / 3


@pytest.mark.parametrize("name", NAMES)
def test_global_random_numbers_are_left_alone_and_do_not_matter(name: str) -> None:
    ends = []
    for global_seed in (1, 2):
        random.seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002
        torch.manual_seed(global_seed)
        before = global_states()
        agent = follow(name)
        agent.train(160, progress=False)
        assert global_states() == before
        ends.append(agent.policy_state()["policy"])
    assert equal(ends[0], ends[1]) == []
    other = follow(name, seed=4)
    other.train(160, progress=False)
    assert equal(ends[0], other.policy_state()["policy"]) != []


def test_lent_numbers_come_back_after_an_error_and_go_on() -> None:
    def draw() -> list[float]:
        return [random.random(), float(np.random.random()), float(torch.rand(()))]  # noqa: NPY002

    def lent_draw(lender: LentRandomness) -> list[float]:
        with lender.lent():
            return draw()

    before, before_python = global_states(), random.getstate()
    lender = LentRandomness(5, "one")
    first = lent_draw(lender)

    def fail() -> None:
        with lender.lent():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (global_states(), random.getstate()) == (before, before_python)
    saved = lender.state_dict()
    second = lent_draw(lender)
    assert second != first
    lender.load_state_dict(saved)
    assert lent_draw(lender) == second
    assert lent_draw(LentRandomness(5, "one")) == first
    assert not set(lent_draw(LentRandomness(5, "two"))) & set(first)


class StopError(Exception):
    pass


@pytest.mark.parametrize("name", NAMES)
def test_a_stopped_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    def stop(step: int) -> None:
        if step >= 224:
            raise StopError

    whole = follow(name)
    whole.train(384, log_dir=tmp_path / "whole", progress=False)
    with pytest.raises(StopError):
        follow(name).train(384, log_dir=tmp_path / "cut", callback=stop, progress=False)
    assert 0 < torch.load(tmp_path / "cut" / "last.pt", weights_only=True)["run"]["steps"] < 384
    resumed = follow(name)
    resumed.train(resume=tmp_path / "cut", progress=False)
    for file in ("last.pt", "best.pt"):
        one, two = (torch.load(tmp_path / run / file, weights_only=True) for run in ("whole", "cut"))
        assert equal(one, two) == []
    assert equal(whole.policy_state(), resumed.policy_state()) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_policy_is_recognised_and_acts_the_same(name: str, tmp_path: Path) -> None:
    agent = follow(name)
    agent.train(64, progress=False)
    agent.save(tmp_path / "agent.pt")
    again = load_agent(tmp_path / "agent.pt", agent.env)
    assert (again.name, again.steps_trained, again.config) == (name, agent.steps_trained, agent.config)
    observations = agent.env.reset(seed=1)
    actions = again.act_batch(observations)
    assert torch.equal(actions, agent.act_batch(observations))
    assert actions.shape == (8, 2, 2)
    assert float(actions.abs().max()) <= 1.0
    by_name = again.act({"ap_0": observations[0, 0].numpy()})
    assert by_name["ap_0"].tolist() == pytest.approx(actions[0, 0].tolist(), abs=1e-6)


def test_a_pair_policy_moves_to_other_numbers_of_aps_and_users_and_is_evaluated(tmp_path: Path) -> None:
    env = make_env("dcp-rss-v0", num_envs=4, seed=0, num_aps=4, num_ues=2)
    agent = make_agent("sb3-td3", env, hidden=(8,), evaluations=0, warmup_steps=4, batch_size=16)
    assert agent.config.share == "entity"
    agent.train(env.rounds * 8, progress=False)
    agent.save(tmp_path / "agent.pt")
    larger = make_env("dcp-rss-v0", num_envs=2, seed=0, num_aps=9, num_ues=3)
    result = evaluate("dcp-rss-v0", load_agent(tmp_path / "agent.pt", larger), episodes=2, seed=7, num_aps=9, num_ues=3)
    assert np.isfinite(result.rmse)
    with pytest.raises(ValueError, match="another environment"):
        load_agent(tmp_path / "agent.pt", make_env("toa-v0", num_envs=2, num_aps=4, num_ues=2))


def test_agent_codes_tell_agents_apart_and_fix_their_number(tmp_path: Path) -> None:
    env = probe_env(probes.Roles, num_envs=16, num_agents=2)
    told = make_agent("sb3-td3", env, **{**SMALL, **OFF, "gamma": 0.0, "agent_id": True})
    # Equal observations, best actions 0.5 and -0.5: one answer for both loses at least 0.25 on average.
    assert told.train(1200, progress=False)["best_score"] > -0.1
    told.save(tmp_path / "agent.pt")
    with pytest.raises(ValueError, match="make the environment with the training overrides"):
        load_agent(tmp_path / "agent.pt", probe_env(probes.Roles, num_agents=3))


@pytest.mark.parametrize(("gamma", "terminates", "more"), [(0.5, False, 0.35), (0.5, True, 0.0), (0.0, False, 0.0)])
def test_returns_go_on_beyond_time_limits(gamma: float, terminates: bool, more: float) -> None:
    env = probe_env(probes.Steady, num_envs=4, num_agents=1, rounds=1, terminates=terminates)
    paid = {"reward_normalisation": False, "reward_clip": 0.0}
    agent = make_agent("sb3-ppo", env, gamma=gamma, n_steps=3, batch_size=12, **paid)
    with torch.no_grad():
        agent.model.policy.value_net.bias.fill_(0.7)
    agent.model.learn(12)
    assert agent.model.rollout_buffer.returns == pytest.approx(1.0 + more, abs=1e-5)


def test_somebody_elses_game_is_played() -> None:
    agent = make_agent("sb3-td3", probes.UnequalZoo(), **{**SMALL, **OFF, "evaluations": 0})
    agent.train(100, progress=False)
    observations, _ = agent.env.env.reset(seed=0)
    actions = agent.act(observations)
    assert {name: agent.env.env.action_space(name).contains(action) for name, action in actions.items()} == {
        "long": True,
        "short": True,
    }


@pytest.mark.parametrize(
    ("settings", "wrong", "told"),
    [
        (PpoSettings, {"clip_rang": 0.1}, "unknown SB3 PPO setting 'clip_rang'; did you mean clip_range"),
        (PpoSettings, {"n_steps": 0}, "n_steps=0 must be at least 1"),
        (SacSettings, {"tau": 2.0}, r"tau=2.0 must be at most 1"),
        (SacSettings, {"share": "entities"}, "is not one of agent, entity"),
        (Td3Settings, {"hidden": (0,)}, "hidden=0 must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(settings: Any, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        settings.build(wrong)
    assert "\n" not in str(caught.value)
