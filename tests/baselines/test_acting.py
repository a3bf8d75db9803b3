"""Policies inside an environment: estimators report their fix, the yardsticks their constant or random actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines import make_policy
from cfpos_envs import make_env
from tests.baselines.dcp.synthetic import Drop, draw_drops


class Recorder:
    """The part of a ``VectorEnv`` that estimators use; remembers what was reported."""

    action_size = 4
    scenario = None

    def __init__(self, drop: Drop) -> None:
        self.measurements = drop.measurements
        self.reported: list[Tensor] = []

    def encode_estimate(self, positions: Tensor) -> Tensor:
        self.reported.append(positions)
        return positions.flatten(1)[:, None].expand(-1, 3, -1)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(draw_drops(2, seed=0, num_aps=9, num_ues=2, num_sites=1))


def test_an_estimator_reports_its_fix_and_computes_it_once(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    policy: Any = make_policy("centroid", recorder)
    calls = []
    locate = policy.locate
    monkeypatch.setattr(policy, "locate", lambda measurements: (calls.append(1), locate(measurements))[1])
    for _ in range(3):
        actions = policy.act_batch(torch.zeros(2, 3, 5))
    assert actions.shape == (2, 3, 4)
    assert len(calls) == 1
    assert torch.equal(recorder.reported[-1], locate(recorder.measurements).position)
    recorder.measurements = draw_drops(2, seed=1, num_aps=9, num_ues=2, num_sites=1).measurements
    policy.act_batch(torch.zeros(2, 3, 5))
    assert len(calls) == 2
    policy.reset()
    policy.act_batch(torch.zeros(2, 3, 5))
    assert len(calls) == 3


def test_random_actions_repeat_by_seed_and_fill_the_box(recorder: Recorder) -> None:
    observations = torch.zeros(50, 3, 5)
    first, again, other = (make_policy("random", recorder, seed=s).act_batch(observations) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (50, 3, 4)
    assert first.abs().max() <= 1
    assert first.min() < -0.9
    assert first.max() > 0.9
    assert abs(float(first.mean())) < 0.1


def test_random_leaves_the_global_generators_alone(recorder: Recorder) -> None:
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    make_policy("random", recorder).act_batch(torch.zeros(2, 3, 5))
    make_policy("fingerprint", spacing=20.0, database="surveyed").locate(recorder.measurements)
    make_policy("gpr", spacing=20.0).locate(recorder.measurements)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_untrained_is_neutral(recorder: Recorder) -> None:
    actions = make_policy("untrained", recorder).act_batch(torch.ones(2, 3, 5))
    assert torch.equal(actions, torch.zeros(2, 3, 4))


@pytest.mark.parametrize("name", ["joint-gn", "centroid", "random", "untrained"])
def test_actions_fit_a_parallel_environment_made_from_its_id(name: str) -> None:
    policy = make_policy(name, "dcp-jar-v0")
    env = policy.env
    observations, _ = env.reset(seed=1)
    actions = policy.act(observations)
    assert set(actions) == set(env.agents)
    assert all(env.action_space(agent).contains(action) for agent, action in actions.items())


def test_reporting_the_fix_brings_the_game_there() -> None:
    env = make_env("dcp-jar-v0", seed=1, num_aps=16, num_ues=3)
    policy: Any = make_policy("joint-gn", env)
    observations, _ = env.reset()
    fix = policy.locate(env.measurements).position[0]
    for _ in range(env.scenario.rounds):
        observations, *_ = env.step(policy.act(observations))
    reached = env.vector.estimate[0]
    difference = reached - fix
    assert torch.linalg.vector_norm(difference - 100 * torch.round(difference / 100), dim=-1).median() < 0.5
