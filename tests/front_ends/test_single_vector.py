"""The view in Gymnasium's vector interface, beside Gymnasium's own vector environments and in front of its wrappers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as wrappers

from cfpos_envs import make_env
from cfpos_envs.front_ends import SingleAgentVectorEnv
from tests.conformance.vectors import assert_alike, play_alike
from tests.front_ends.ending_toy import ending_toy, single_ending_toy
from tests.front_ends.toy import register_toy

TOY = register_toy()
PLACES = 5


def view(**kwargs: Any) -> SingleAgentVectorEnv:
    return SingleAgentVectorEnv(ending_toy(PLACES, **kwargs))


def random_actions(env: Any, index: int) -> np.ndarray:
    return np.random.default_rng(index).uniform(-1, 1, env.action_space.shape).astype(np.float32)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_it_plays_as_gymnasiums_own_with_episodes_that_end_one_by_one(mode: AutoresetMode) -> None:
    theirs = SyncVectorEnv([single_ending_toy] * PLACES, autoreset_mode=mode)
    ends = play_alike(view(autoreset_mode=mode), theirs, seeds=[3, 1, 4, 1, 5], rounds=9)
    assert ends.any(axis=0).all()
    assert any(0 < row.sum() < PLACES for row in ends), "all ended together"


def test_statistics_of_gymnasiums_wrapper_are_those_of_single_episodes() -> None:
    env = wrappers.RecordEpisodeStatistics(view(autoreset_mode="SameStep"))
    env.reset(seed=[0, 1, 2, 3, 4])
    returns, lengths, found = np.zeros(PLACES), np.zeros(PLACES, dtype=int), 0
    for index in range(8):
        if index == 2:
            mask = np.array([True, False, False, True, False])
            env.reset(options={"reset_mask": mask})
            returns[mask], lengths[mask] = 0.0, 0
        _, rewards, terminated, truncated, infos = env.step(random_actions(env, index))
        returns, lengths, over = returns + rewards, lengths + 1, terminated | truncated
        if over.any():
            np.testing.assert_array_equal(infos["_episode"], over)
            np.testing.assert_allclose(infos["episode"]["r"][over], returns[over])
            np.testing.assert_array_equal(infos["episode"]["l"][over], lengths[over])
        returns[over], lengths[over], found = 0.0, 0, found + over.sum()
    assert env.episode_count == found > PLACES


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_infos_by_episode_hold_what_was_seen_at_its_end(mode: AutoresetMode) -> None:
    env = wrappers.DictInfoToList(wrappers.NormalizeReward(view(autoreset_mode=mode)))
    plain = view()
    _, infos = env.reset(seed=2)
    plain.reset(seed=2)
    always = {"true_position", "error_m", "rmse_m", "peb_m", "score"}
    assert [set(info) for info in infos] == [always] * PLACES
    actions = random_actions(env, 0)
    seen, _, ended, _, infos = env.step(actions)
    last, _, over, _, told = plain.step(actions)
    np.testing.assert_array_equal(ended, over)
    assert 0 < over.sum() < PLACES
    for place, info in enumerate(infos):
        if mode == AutoresetMode.NEXT_STEP or not over[place]:
            assert set(info) == always
            np.testing.assert_array_equal(seen[place], last[place])
            continue
        np.testing.assert_array_equal(info["final_obs"], last[place])
        assert info["final_info"]["rmse_m"] == told["rmse_m"][place]
        assert np.isnan(info["score"])
        assert not np.array_equal(seen[place], last[place])


def test_one_seed_begins_what_the_batch_begins() -> None:
    env = view()
    seen, infos = env.reset(seed=7)
    np.testing.assert_array_equal(seen, ending_toy(PLACES).reset(seed=7).flatten(1).numpy())
    assert env.np_random_seed == 7
    assert np.isnan(infos["score"]).all()
    options = {"reset_mask": np.array([False] * 4 + [True])}
    _, infos = env.reset(options=options)
    assert infos["_error_m"].tolist() == [False] * 4 + [True]
    assert (infos["error_m"][:4] == 0).all()
    assert options.keys() == {"reset_mask"}, "the caller's options have been changed"


def test_ended_episodes_wait_for_their_reset() -> None:
    env = view()
    env.reset(seed=2)
    *_, terminated, _, _ = env.step(random_actions(env, 0))
    assert 0 < terminated.sum() < PLACES
    with pytest.raises(RuntimeError, match="reset_mask"):
        env.step(random_actions(env, 1))
    env.reset(options={"reset_mask": terminated})
    env.step(random_actions(env, 1))


def test_joint_reward_and_actions_are_checked() -> None:
    mean, total = (SingleAgentVectorEnv(make_env(TOY, num_envs=2), kind) for kind in ("mean", "sum"))
    paid = []
    for env in (mean, total):
        env.reset(seed=0)
        paid.append(env.step(np.ones(env.action_space.shape, np.float32))[1])
    assert_alike(paid[1], 3 * paid[0], "rewards")
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 12\)"):
        mean.step(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="NaN"):
        mean.step(np.full((2, 12), np.nan))
    with pytest.raises(ValueError, match="seed is -1; it must be an integer from 0"):
        mean.reset(seed=-1)
