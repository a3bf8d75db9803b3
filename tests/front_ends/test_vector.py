from __future__ import annotations

import pytest
import torch

from cfpos_envs import make_env
from tests.front_ends.toy import register_toy

TOY = register_toy()


def test_episodes_end_together_and_must_then_be_reset() -> None:
    env = make_env(TOY, num_envs=2, seed=0)
    idle = torch.zeros(2, 3, 4)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(idle)
    env.reset()
    flags = [env.step(idle).truncated.tolist() for _ in range(env.rounds)]
    assert flags == [[False, False]] * (env.rounds - 1) + [[True, True]]
    with pytest.raises(RuntimeError, match="ended after 4 rounds"):
        env.step(idle)
    env.reset()
    env.step(idle)


def test_wrong_actions_name_the_shape_wanted() -> None:
    env = make_env(TOY, num_envs=2, seed=0)
    env.reset()
    with pytest.raises(ValueError, match=r"\(2, 3, 5\).*\(2, 3, 4\)"):
        env.step(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match="NaN"):
        env.step(torch.full((2, 3, 4), torch.nan))
    assert torch.equal(env.estimate, torch.full((2, 2, 2), 5.0)), "a refused action moved the game"


def test_gradients_stop_at_the_border() -> None:
    env = make_env(TOY, num_envs=2, seed=0)
    env.reset()
    taken = env.step(torch.zeros(2, 3, 4, requires_grad=True))
    assert not taken.metrics["objective"].requires_grad


def test_encoded_estimates_move_the_estimate_there() -> None:
    env = make_env(TOY, num_envs=2, seed=0)
    env.reset()
    target = env.estimate + 0.5
    env.step(env.encode_estimate(target))
    torch.testing.assert_close(env.estimate, target)


def test_set_state_runs_again_from_there() -> None:
    env = make_env(TOY, num_envs=2, seed=0)
    env.reset()
    start = env.game_state
    first = [env.step(torch.ones(2, 3, 4)).rewards for _ in range(4)]
    env.game_state = start
    assert all(torch.equal(reward, env.step(torch.ones(2, 3, 4)).rewards) for reward in first)


def test_saved_end_of_episode_stays_the_end() -> None:
    env, other = make_env(TOY, num_envs=1, seed=0, rounds=1), make_env(TOY, num_envs=1, seed=1, rounds=1)
    env.reset()
    env.step(torch.zeros(1, 3, 4))
    other.load_state_dict(env.state_dict())
    with pytest.raises(RuntimeError, match="reset"):
        other.step(torch.zeros(1, 3, 4))


def test_saved_state_of_another_size_is_refused_and_changes_nothing() -> None:
    small, large = make_env(TOY, num_envs=2, seed=0), make_env(TOY, num_envs=3, seed=0)
    small.reset()
    saved = small.state_dict()
    with pytest.raises(ValueError, match="num_envs"):
        large.load_state_dict(saved)
    assert torch.equal(large.reset(), make_env(TOY, num_envs=3, seed=0).reset())
    saved["game"] = {"something": torch.zeros(2)}
    with pytest.raises(ValueError, match="another scenario"):
        small.load_state_dict(saved)


@pytest.mark.parametrize("count", [0, -1])
def test_impossible_num_envs(count: int) -> None:
    with pytest.raises(ValueError, match="num_envs"):
        make_env(TOY, num_envs=count)


def test_unseeded_environments_differ() -> None:
    assert not torch.equal(make_env(TOY, num_envs=2).reset(), make_env(TOY, num_envs=2).reset())
