"""Third-party PettingZoo games through the batched interface: scaling, padding, ends and restarts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents import make_agent
from agents.adapters import PettingZooVectorEnv
from tests.agents.probes import UnequalZoo


def test_vectors_are_scaled_to_the_unit_box_and_padded() -> None:
    env = PettingZooVectorEnv(UnequalZoo())
    assert (env.agents, env.observation_size, env.action_size) == (("long", "short"), 2, 2)
    packed = env.pack({"long": np.array([0.4, -7.0], np.float32), "short": np.array([2.5], np.float32)})
    assert torch.allclose(packed, torch.tensor([[[0.4, -7.0], [-0.5, 0.0]]]))
    actions = env.unpack(torch.tensor([[[0.5, -2.0], [-1.0, 9.0]]]), ["short", "long"])
    assert np.allclose(actions["long"], [3.0, -1.0])
    assert np.allclose(actions["short"], [-3.0])
    assert actions["short"].dtype == np.float32


def test_termination_and_time_limit_stay_apart_for_every_agent() -> None:
    env = PettingZooVectorEnv(UnequalZoo(rounds=3))
    env.reset()
    neutral = torch.zeros(1, 2, 2)
    first = env.step(neutral)
    assert first.metrics["agent_terminated"].tolist() == [[False, True]]
    assert (first.terminated.item(), first.truncated.item()) == (False, False)
    assert first.rewards[0].tolist() == pytest.approx([-1.0, -0.25])
    second = env.step(neutral)
    # ``short`` has left: it sees zeros, earns nothing, and nothing is bootstrapped from it.
    assert second.observations[0, 1].tolist() == [0.0, 0.0]
    assert second.rewards[0, 1].item() == 0.0
    assert second.metrics["agent_terminated"].tolist() == [[False, True]]
    third = env.step(neutral)
    assert third.metrics["agent_terminated"].tolist() == [[False, True]]
    assert (third.terminated.item(), third.truncated.item()) == (False, True)
    assert third.observations[0, 0].abs().sum() > 0  # the true last observation, for bootstrapping
    assert third.metrics["score"].item() == pytest.approx((-3.0 - 0.25) / 2)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(neutral)


def test_an_episode_in_which_all_terminate_is_not_truncated() -> None:
    game = UnequalZoo()
    game.possible_agents = ["short"]
    env = PettingZooVectorEnv(game)
    env.reset()
    step = env.step(torch.zeros(1, 1, 1))
    assert (step.terminated.item(), step.truncated.item()) == (True, False)


@pytest.mark.parametrize("actions", [torch.zeros(1, 2, 1), torch.full((1, 2, 2), torch.nan)])
def test_actions_of_wrong_shape_or_nan_are_refused(actions: torch.Tensor) -> None:
    env = PettingZooVectorEnv(UnequalZoo())
    env.reset()
    with pytest.raises(ValueError, match="finite and of shape"):
        env.step(actions)


def test_episodes_follow_from_the_seed_and_differ_from_each_other() -> None:
    one, two = PettingZooVectorEnv(UnequalZoo(), seed=3), PettingZooVectorEnv(UnequalZoo(), seed=3)
    starts = [env.reset() for env in (one, one, two, two)]
    assert torch.equal(starts[0], starts[2])
    assert torch.equal(starts[1], starts[3])
    assert not torch.equal(starts[0], starts[1])
    assert torch.equal(one.reset(seed=3), starts[0])


def test_a_saved_episode_is_replayed_to_the_same_place() -> None:
    env, other = PettingZooVectorEnv(UnequalZoo(rounds=4), seed=1), PettingZooVectorEnv(UnequalZoo(rounds=4), seed=8)
    env.reset()
    env.reset()
    env.step(torch.full((1, 2, 2), 0.3))
    other.load_state_dict(env.state_dict())
    for _ in range(3):
        mine, theirs = (each.step(torch.full((1, 2, 2), -0.2)) for each in (env, other))
        assert torch.equal(mine.observations, theirs.observations)
        assert torch.equal(mine.metrics["score"], theirs.metrics["score"])
    assert torch.equal(env.reset(), other.reset())


def test_a_game_that_cannot_be_copied_says_how_to_train_it() -> None:
    class Single(UnequalZoo):
        def __deepcopy__(self, memo: dict) -> Single:
            raise TypeError("has a window")

    settings = {"warmup_steps": 4, "batch_size": 4}
    agent = make_agent("maddpg", Single(), **settings)
    with pytest.raises(ValueError, match=r"cannot be copied .* evaluations=0"):
        agent.train(8, progress=False)
    without = make_agent("maddpg", Single(), evaluations=0, **settings)
    assert without.train(8, progress=False) == {"steps": 8.0}


def test_a_policy_answers_only_the_agents_that_are_there() -> None:
    game = UnequalZoo()
    agent = make_agent("maddpg", game)
    game.reset(seed=1)
    observations, *_ = game.step(agent.act(game._see()))
    del observations["short"]
    actions = agent.act(observations)
    assert list(actions) == ["long"]
    assert game.action_space("long").contains(actions["long"])
