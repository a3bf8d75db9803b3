from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from tests.front_ends.toy import register_toy

TOY = f"cfpos/{register_toy()}"


def test_joint_reward_is_the_mean_unless_the_sum_is_asked_for() -> None:
    rewards = []
    for kind in ("mean", "sum"):
        env = gymnasium.make(TOY, joint_reward=kind)
        env.reset(seed=0)
        rewards.append(env.step(env.action_space.high)[1])
    assert rewards[1] == pytest.approx(3 * rewards[0])


def test_overrides_reach_the_scenario_and_the_end_truncates() -> None:
    env = gymnasium.make(TOY, num_aps=2, rounds=1)
    observation, _ = env.reset(seed=0)
    assert observation.shape == env.observation_space.shape == (12,)
    _, _, terminated, truncated, _ = env.step(np.zeros(8, np.float32))
    assert (terminated, truncated) == (False, True)


def test_wrong_action_shape() -> None:
    env = gymnasium.make(TOY).unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"\(3,\).*\(12,\)"):
        env.step(np.zeros(3))
