"""What is stated of a network's answers where messages are missing that its calibration has always had."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from cfpos import load_agent, make_env
from cfpos_envs.measurements.base import Reason
from cfpos_envs.supervised.beliefs import Answers, Belief
from cfpos_envs.supervised.calibration import Calibration
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.error_scales import ErrorScales
from cfpos_envs.supervised.missing import lacks_messages, leave_one_out

TRAINED = Path(__file__).parents[2] / "agents" / "ecc" / "trained"


class Centroid:
    """Answers with the mean place of the stations that are heard, (1, 0, 0), (0, 2, 0) and (0, 0, 0)."""

    def answers(self, batch: Batch) -> Answers:
        places = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
        weight = batch.valid / batch.valid.sum(dim=1, keepdim=True)
        return Answers(Belief(weight @ places, None, torch.zeros(len(batch), 0)), batch.log_gain, batch.valid)


def test_moves_by_hand() -> None:
    heard = torch.tensor([[True, True, False], [True, False, False]])
    batch = Batch(torch.zeros(2, 3, 1), torch.zeros(2, 3), heard, torch.zeros(2, 3))
    anywhere = torch.diag(torch.tensor([3.0, 3.0, 0.0]))
    found = leave_one_out(Centroid(), batch, Centroid().answers(batch).belief.position_m, anywhere)
    # Answer (.5, 1); without either (0, 2) and (1, 0): moves -+(.5, -1). 3 / 2 of their mean square m; half of it is
    # spread evenly over x and y: 3 / 4 (m + trace m diag(.5, .5, 0)) with m = [[.25, -.5], [-.5, 1]].
    even = 1.25 / 2
    by_hand = 0.75 * np.array([[0.25 + even, -0.5, 0], [-0.5, 1 + even, 0], [0, 0, 0]])
    np.testing.assert_allclose(found[0], by_hand, atol=1e-6)
    np.testing.assert_allclose(found[1], anywhere)


def calibration(shares: list[float], fewest: int) -> Calibration:
    mean = torch.tensor([*([0.0] * 3), *shares, *([0.0] * 3)])
    return Calibration(ErrorScales(mean, torch.ones_like(mean), 1.0, torch.nn.Identity()), 1.0, (1.0, 2.0), 500, fewest)


def test_who_is_missing_is_unusual_where_the_calibration_heard_it() -> None:
    heard = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 0, 0]]).bool()
    # The second and third stations are often silent there, but never both.
    assert lacks_messages(heard, calibration([1.0, 0.8, 0.7], 2)).tolist() == [False, True, False, True, False]
    assert lacks_messages(heard, calibration([1.0, 0.8, 0.7], 0)).tolist() == [False, True, False, False, False]
    assert lacks_messages(heard, None).tolist() == [False, True, True, True, False]


def test_a_trained_network_states_what_lost_stations_cost() -> None:
    env = make_env("ecc-urban-small-v0", num_envs=40, seed=1, split="test")
    env.reset(seed=1)
    agent, measured, truth = load_agent(TRAINED / "ecc-fast-small.pt", env), env.measurements, env.truth()
    shares = []
    for lost in (1, 3, 5):
        order = torch.rand(measured.valid.shape, generator=torch.Generator().manual_seed(lost)).argsort(dim=-1)
        found = agent.locate(dataclasses.replace(measured, valid=order.argsort(dim=-1) >= lost))
        away = (found.position - truth["true_position"]).double().unsqueeze(-1)
        assert found.covariance is not None
        assert found.reason is not None
        squared = (away * torch.linalg.solve(found.covariance.double(), away)).sum(dim=(-2, -1))
        # Of a Gaussian's ellipsoids that hold nine tenths and, five deviations along every axis, all but everything.
        held = squared[found.valid]
        assert float((held > 75).double().sum()) == 0
        if lost < 5:
            assert float((held < 6.25).double().mean()) > 0.85
        shares.append(float(found.valid.double().mean()))
    assert shares[0] == 1.0
    assert 0.3 < shares[1] < 1.0
    assert shares[2] == 0.0
    assert set(found.reason.unique().tolist()) == {int(Reason.TOO_FEW_LINKS)}


def test_nothing_that_is_complete_is_asked_again() -> None:
    env = make_env("ecc-urban-small-v0", num_envs=4, seed=1, split="test")
    env.reset(seed=1)
    agent = load_agent(TRAINED / "ecc-fast-small.pt", env)
    before = agent.locate(env.measurements)
    lone = dataclasses.replace(env.measurements, valid=env.measurements.valid.clone())
    lone.valid[0, 0, 1:] = False
    after = agent.locate(lone)
    assert after.reason.flatten().tolist() == [int(Reason.TOO_FEW_LINKS), 0, 0, 0]
    for one, other in ((before.position, after.position), (before.covariance, after.covariance)):
        torch.testing.assert_close(one[1:], other[1:], rtol=1e-5, atol=1e-5)
