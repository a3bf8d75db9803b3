"""Stable-Baselines3 sees every agent, or every pair of agent and entity, as an environment with correct ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO, TD3
from stable_baselines3.common.evaluation import evaluate_policy
from torch.testing import assert_close

from agents.adapters import PettingZooVectorEnv
from cfpos_envs import make_env
from cfpos_envs.front_ends.sb3 import Rows, Sb3VecEnv
from tests.agents import probes
from tests.agents.probes import probe_env

TRUNCATED: dict[str, Any] = {"terminates": False}


@given(
    batch=st.integers(1, 4),
    agents=st.integers(1, 4),
    entities=st.integers(1, 3),
    part=st.integers(1, 3),
    by_entity=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_rows_put_together_again_are_the_joint_vectors(
    batch: int, agents: int, entities: int, part: int, by_entity: bool
) -> None:
    parts = entities if by_entity else 1
    rows = Rows(agents, parts, entities * part, entities * part)
    joint = torch.randn(batch, agents, entities * part, generator=torch.Generator().manual_seed(0))
    cut = rows.observations(joint)
    assert cut.shape == (batch * agents * parts, entities * part // parts)
    assert torch.equal(rows.actions(cut, agents), joint)


def test_rows_come_in_the_order_episode_agent_entity() -> None:
    rows = Rows(2, 3, 3, 3, agent_id=True)
    joint = torch.arange(12.0).reshape(2, 2, 3)
    cut = rows.observations(joint)
    assert cut[:, 0].tolist() == list(range(12))
    assert cut[:, 1:].tolist() == ([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3) * 2
    with pytest.raises(ValueError, match="made for 2 agents, not 1"):
        rows.observations(joint[:, :1])


def test_every_pair_gets_its_own_reward_and_acts_on_its_own_part() -> None:
    env = probe_env(probes.Follow, num_envs=2, num_agents=2, num_ues=3, rounds=2, **TRUNCATED)
    venv = Sb3VecEnv(env, share="entity")
    assert venv.num_envs == 12
    observations = venv.reset()
    best = 0.5 * observations[:, :1]
    _, rewards, _, _ = venv.step(best)
    assert_close(torch.from_numpy(rewards), torch.zeros(12), atol=1e-12, rtol=0)
    away = best.copy()
    away[5] = np.clip(best[5], -0.5, 0.4) + 0.25
    _, rewards, _, _ = venv.step(away)
    assert np.flatnonzero(rewards).tolist() == [5]
    assert rewards[5] == pytest.approx(-float((away[5, 0] - best[5, 0]) ** 2), rel=1e-4)


@pytest.mark.parametrize("terminates", [True, False])
def test_an_episode_ends_with_what_was_seen_last_and_the_next_has_begun(terminates: bool) -> None:
    env = probe_env(probes.Clock, num_envs=2, num_agents=3, rounds=4, terminates=terminates)
    venv = Sb3VecEnv(env)
    assert venv.reset().max() == 0.0
    still = np.zeros((6, 1), np.float32)
    for shown in (0.25, 0.5, 0.75):
        observations, rewards, dones, infos = venv.step(still)
        assert observations.min() == observations.max() == shown
        assert not dones.any()
        assert not rewards.any()
        assert infos == [{}] * 6
    observations, rewards, dones, infos = venv.step(still)
    assert dones.all()
    assert observations.max() == 0.0
    assert rewards.tolist() == [1.0] * 6
    for info in infos:
        assert info["terminal_observation"].tolist() == [1.0, 1.0]
        assert info["TimeLimit.truncated"] is not terminates
        assert (info["episode"]["r"], info["episode"]["l"]) == (1.0, 4)
    assert venv.step(still)[0].max() == 0.25
    assert venv.reset().max() == 0.0


@pytest.mark.parametrize("terminates", [True, False])
def test_sb3_bootstraps_through_time_limits_only(terminates: bool) -> None:
    env = probe_env(probes.Clock, num_envs=2, num_agents=1, rounds=3, terminates=terminates)
    model = TD3("MlpPolicy", Sb3VecEnv(env), learning_starts=100, buffer_size=100, policy_kwargs={"net_arch": [4]})
    model.learn(12)
    memory = model.replay_buffer
    assert memory is not None
    ends = (memory.dones * (1 - memory.timeouts))[:6, 0]
    assert ends.tolist() == ([0, 0, 1, 0, 0, 1] if terminates else [0] * 6)
    assert_close(torch.from_numpy(memory.next_observations[:6, 0, 0]), torch.tensor([1 / 3, 2 / 3, 1.0] * 2))
    assert_close(torch.from_numpy(memory.observations[:6, 0, 0]), torch.tensor([0, 1 / 3, 2 / 3] * 2))


def test_sb3_measures_the_return_that_was_paid() -> None:
    env = probe_env(probes.Steady, num_envs=3, num_agents=2, rounds=5, **TRUNCATED)
    venv = Sb3VecEnv(env, scale=lambda paid, step: 10.0 * paid)
    assert venv.reset().shape == (6, 2)
    assert venv.step(np.zeros((6, 1), np.float32))[1].tolist() == [10.0] * 6
    model = PPO("MlpPolicy", venv, n_steps=2, batch_size=12, policy_kwargs={"net_arch": [4]})
    mean, spread = evaluate_policy(model, venv, n_eval_episodes=12, warn=False)
    # SB3 takes the return from ``episode`` where there is a monitor and sums rewards else.
    assert (mean, spread) == (50.0, 0.0)
    model.learn(60)
    assert model.ep_info_buffer is not None
    assert {entry["r"] for entry in model.ep_info_buffer} == {5.0}


def test_agents_that_leave_earlier_end_earlier() -> None:
    venv = Sb3VecEnv(PettingZooVectorEnv(probes.UnequalZoo(rounds=2)))
    venv.reset()
    still = np.zeros((2, 2), np.float32)
    venv.step(still)
    _, _, dones, infos = venv.step(still)
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, False]


def test_seeds_name_episodes_and_states_go_on() -> None:
    venv = Sb3VecEnv(probe_env(probes.Follow, num_envs=2, rounds=2, **TRUNCATED))

    def first(seed: int) -> np.ndarray:
        venv.seed(seed)
        return venv.reset()

    assert np.array_equal(first(4), first(4))
    assert not np.array_equal(first(4), first(5))
    saved = venv.state_dict()
    still = np.zeros((4, 1), np.float32)
    one = [venv.step(still)[0] for _ in range(4)]
    venv.load_state_dict(saved)
    assert all(np.array_equal(a, venv.step(still)[0]) for a in one)


def test_what_it_is_given_is_not_its_own_memory() -> None:
    venv = Sb3VecEnv(probe_env(probes.Follow, num_envs=2, rounds=3, **TRUNCATED))
    venv.reset()[:] = 99.0
    assert venv.step(np.zeros((4, 1), np.float32))[0].max() <= 1.0


def test_an_environment_of_ours_trains_with_three_lines() -> None:
    env = make_env("dcp-rss-v0", num_envs=2, seed=0, num_aps=4, num_ues=2)
    venv = Sb3VecEnv(env, share="entity", agent_id=True)
    assert venv.observation_space.shape == (env.observation_size // 2 + 4,)
    assert venv.get_attr("env_id", indices=[0, 3]) == ["dcp-rss-v0"] * 2
    assert venv.env_is_wrapped(object) == [False] * 16
    PPO("MlpPolicy", venv, n_steps=env.rounds, batch_size=32, n_epochs=1).learn(env.rounds * venv.num_envs)


def test_wrong_environments_and_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"make one with make_env\(id, num_envs=16\)"):
        Sb3VecEnv(probes.UnequalZoo())
    env = probe_env(probes.Follow)
    with pytest.raises(ValueError, match="needs an environment with entities"):
        Sb3VecEnv(env, share="entity")
