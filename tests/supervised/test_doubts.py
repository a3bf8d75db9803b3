"""What tells that a network is asked about something else than it was trained for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from cfpos import load_agent, make_env
from cfpos_envs.measurements.base import Reason
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.supervised.beliefs import Answers, Belief
from cfpos_envs.supervised.calibration import Calibration
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.doubts import judge, learned_doubts
from cfpos_envs.supervised.error_scales import ErrorScales
from cfpos_envs.supervised.layers import mlp

TRAINED = Path(__file__).parents[2] / "agents" / "ecc" / "trained"
SYSTEM = CsiSystem(
    3.5e9, 1e6, 8, 1, (2, 2), 0.5, 2, (0.0, 0.0, 0.0), (100.0, 60.0, 10.0), 1.0, 1e-12, (0.0, 0.0), (1.0, 1.0)
)


def test_gains_and_places_by_hand() -> None:
    gains = torch.tensor(
        [[3.0, 3.9], [3.3, 3.9], [-3.6, -9.0], [4.0, -2.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    )
    heard = torch.tensor([[True, True]] * 2 + [[True, False]] + [[True, True]] * 4 + [[False, False]])
    middle = [50.0, 30.0, 5.0]
    # A tenth of 100 m beyond the area is still believed.
    places = torch.tensor([middle] * 4 + [[-9.9, 30, 5], [-10.1, 30, 5], [50, 30, torch.nan], middle])
    batch = Batch(torch.zeros(8, 2, 1), gains, heard, torch.zeros(8, 3))
    expected = [
        Reason.VALID,
        Reason.UNFAMILIAR,
        Reason.UNFAMILIAR,
        Reason.VALID,
        Reason.VALID,
        Reason.OUTSIDE,
        Reason.OUTSIDE,
        Reason.TOO_FEW_LINKS,
    ]
    assert [Reason(code) for code in learned_doubts(SYSTEM, batch, places).tolist()] == expected


class Middle:
    """Answers with the middle of the area."""

    def answers(self, batch: Batch) -> Answers:
        belief = Belief(torch.tensor([[50.0, 30.0, 5.0]]).expand(len(batch), -1), None, torch.zeros(len(batch), 0))
        return Answers(belief, batch.log_gain, batch.valid)


def test_who_is_not_heard_could_be_anywhere() -> None:
    scales = ErrorScales(torch.zeros(7), torch.ones(7), 1.0, mlp((7, 4, 6), torch.Generator().manual_seed(0)))
    known = Calibration(scales, 1.0, (1.0, 2.5), 200)
    batch = Batch(
        torch.zeros(2, 2, 1), torch.zeros(2, 2), torch.tensor([[True, True], [False, False]]), torch.zeros(2, 3)
    )
    judged = judge(SYSTEM, batch, Middle().answers(batch), known, Middle())
    assert judged.covariance_m2 is not None
    # A uniform place along an edge of a has the variance a^2 / 12.
    expected = torch.diag(torch.tensor([100.0, 60.0, 10.0]).square() / 12)
    torch.testing.assert_close(judged.covariance_m2[1], expected)
    assert float(judged.covariance_m2[0].trace()) < 100
    assert judged.reason.tolist() == [int(Reason.VALID), int(Reason.TOO_FEW_LINKS)]


def test_a_trained_network_does_not_believe_other_units() -> None:
    env = make_env("ecc-urban-small-v0", num_envs=100, seed=1, split="test")
    env.reset(seed=1)
    agent, measured = load_agent(TRAINED / "ecc-fast-small.pt", env), env.measurements
    assert agent.locate(measured).valid.all()
    for factor in (1e-3, 1e3):
        found = agent.locate(dataclasses.replace(measured, csi=measured.csi * factor))
        assert float(found.valid.double().mean()) < 0.1
        assert found.reason is not None
        assert set(found.reason.unique().tolist()) <= {Reason.VALID, Reason.UNFAMILIAR}
