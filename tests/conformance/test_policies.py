"""Every policy of ``baselines`` on a small network: answers fit, are finite, and repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cfpos_envs import evaluate, make_env
from cfpos_envs.measurements import PositionEstimate

SMALL = {"num_aps": 9, "num_ues": 2, "num_antennas": 4}
ENV_ID = "dcp-jar-v0"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    from baselines import list_policies

    if "policy_name" in metafunc.fixturenames:
        metafunc.parametrize("policy_name", list_policies())


def fresh(policy_name: str) -> tuple[Any, Any]:
    from baselines import make_policy

    env = make_env(ENV_ID, seed=3, **SMALL)
    return env, make_policy(policy_name, env)


def played(env: Any, policy: Any) -> list[np.ndarray]:
    """All joint actions of one episode."""
    policy.reset()
    observations, _ = env.reset(seed=5)
    taken = []
    while env.agents:
        actions = policy.act(observations)
        assert set(actions) == set(env.agents)
        assert all(env.action_space(agent).contains(action) for agent, action in actions.items())
        taken.append(np.stack(list(actions.values())))
        observations, *_ = env.step(actions)
    return taken


def test_acts_within_the_space_and_repeats_itself(policy_name: str) -> None:
    first, second = played(*fresh(policy_name)), played(*fresh(policy_name))
    assert len(first) == len(second) > 0
    for left, right in zip(first, second):
        np.testing.assert_array_equal(left, right)


def test_locates_every_user_or_says_that_it_cannot(policy_name: str) -> None:
    _, policy = fresh(policy_name)
    if not hasattr(policy, "locate"):
        assert callable(policy.act_batch)
        return
    venv = make_env(ENV_ID, num_envs=3, seed=4, **SMALL)
    venv.reset()
    first, second = policy.locate(venv.measurements), policy.locate(venv.measurements)
    assert first.position.shape == (3, SMALL["num_ues"], 2)
    assert first.valid.shape == (3, SMALL["num_ues"])
    assert first.valid.dtype == torch.bool
    assert torch.isfinite(first.position).all()
    assert torch.equal(first.position, second.position)
    if first.covariance is not None:
        assert first.covariance.shape == (3, SMALL["num_ues"], 2, 2)
        assert (torch.linalg.eigvalsh(first.covariance[first.valid]) >= 0).all()


def test_can_be_evaluated(policy_name: str) -> None:
    env, policy = fresh(policy_name)
    result = evaluate(env, policy, episodes=4)
    assert result.policy == policy.name
    assert result.errors.shape == (4, SMALL["num_ues"])
    assert np.isfinite(result.errors).all()
    env.reset()
    assert result.errors.max() <= env.measurements.radio.side_m * np.sqrt(2)


class Lost:
    """Has never an answer."""

    name = "lost"

    def locate(self, measurements: Any) -> PositionEstimate:
        position = torch.full((*measurements.rss_dbm.shape[::2], 2), torch.nan)
        return PositionEstimate(position, None, torch.zeros(position.shape[:-1], dtype=torch.bool))


def test_without_any_answer_the_centre_of_the_area_counts() -> None:
    result = evaluate(ENV_ID, Lost(), episodes=100, site="clean", **SMALL)
    # Users are uniform on a torus of 100 m: the root mean square distance from any point is 100 m / sqrt(6).
    assert result.rmse == pytest.approx(100 / np.sqrt(6), rel=0.1)
    assert result.valid_share == 0
