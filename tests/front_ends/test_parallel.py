from __future__ import annotations

import math

import numpy as np
import pytest

from cfpos_envs import make_env
from tests.front_ends.toy import register_toy

TOY = register_toy()


def test_infos_hold_the_truth_in_metres() -> None:
    env = make_env(TOY, seed=0)
    _, infos = env.reset()
    info = infos["ap_1"]
    error = np.linalg.norm(info["true_position"] - 5.0, axis=-1)
    np.testing.assert_allclose(info["error_m"], error, rtol=1e-5)
    assert info["rmse_m"] == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5)
    assert math.isnan(info["score"])
    *_, infos = env.step({agent: np.zeros(4) for agent in env.agents})
    assert infos["ap_1"]["score"] < 0


def test_reset_to_plays_one_episode_of_a_batch() -> None:
    venv, env = make_env(TOY, num_envs=5, seed=1), make_env(TOY, seed=2)
    batch = venv.reset()
    observations, infos = env.reset_to(venv.game_state.select(slice(3, 4)))
    np.testing.assert_array_equal(observations["ap_0"], batch[3, 0].numpy())
    np.testing.assert_array_equal(infos["ap_0"]["error_m"], venv.truth()["error_m"][3].numpy())


def test_observations_are_copies() -> None:
    env = make_env(TOY, seed=0)
    observations, _ = env.reset()
    kept = observations["ap_1"].copy()
    observations["ap_0"] += 1
    np.testing.assert_array_equal(observations["ap_1"], kept)
    np.testing.assert_array_equal(env.reset(seed=0)[0]["ap_1"], kept)


def test_pictures_must_be_asked_for() -> None:
    env = make_env(TOY, seed=0)
    env.reset()
    with pytest.raises(RuntimeError, match="render_mode='rgb_array'"):
        env.render()
    with pytest.raises(ValueError, match="ascii"):
        make_env(TOY, render_mode="ascii")
    with pytest.raises(ValueError, match="num_envs=None"):
        make_env(TOY, num_envs=2, render_mode="rgb_array")


def test_without_a_display_the_picture_is_kept_in_a_file() -> None:
    env = make_env(TOY, seed=0, render_mode="human")
    with pytest.warns(UserWarning, match="no display") as caught:
        env.reset()
    path = env._view.path
    assert str(path) in str(caught[0].message)
    before = path.read_bytes()
    env.step({agent: np.ones(4) for agent in env.agents})
    assert path.read_bytes() != before
    env.close()
    path.unlink()
