"""Reasons and the chi-squared gate."""

from __future__ import annotations

import pytest
import torch

from cfpos.baselines.validity import residuals_fit, tail_probability
from cfpos_envs.measurements.base import PositionEstimate, Reason, first_reason


def test_tail_of_one_and_two_degrees_of_freedom_by_hand() -> None:
    # f = 2: exp(-x/2). f = 1: erfc(sqrt(x/2)); 3.841459 is the 95 % quantile.
    found = tail_probability(torch.tensor([3.0, 3.841459, 7.0]), torch.tensor([2, 1, 0]))
    assert found.tolist() == pytest.approx([0.22313016, 0.05, 1.0], abs=1e-7)


def test_rounding_below_zero_is_no_reason_to_doubt() -> None:
    # A chi squared from which an exact fit has been subtracted may end at -1e-15.
    assert tail_probability(torch.tensor([-1e-15, -1.0]), torch.tensor([3, 1])).tolist() == [1.0, 1.0]


def test_the_gate_lets_999_of_1000_pass() -> None:
    # 99.9 % quantile of five degrees of freedom: 20.515006.
    assert residuals_fit(torch.tensor([20.514, 20.516]), torch.tensor([5, 5])).tolist() == [True, False]


def test_the_first_failure_is_the_reason() -> None:
    valid = torch.tensor([True, False, False, False])
    few, far = torch.tensor([True, True, False, False]), torch.tensor([False, True, True, False])
    reason = first_reason(valid, (Reason.TOO_FEW_LINKS, few), (Reason.OUTSIDE, far))
    assert [Reason(code) for code in reason.tolist()] == [
        Reason.VALID,
        Reason.TOO_FEW_LINKS,
        Reason.OUTSIDE,
        Reason.NOT_CONVERGED,
    ]
    assert all(code.advice for code in Reason)


def test_an_origin_moves_answers_in_double_precision() -> None:
    estimate = PositionEstimate(torch.tensor([[0.01, 0.21]]), None, torch.tensor([True]))
    moved = estimate.moved((455000.0, 5411000.0))
    assert moved.position.dtype == torch.float64
    assert moved.position[0].tolist() == pytest.approx([455000.01, 5411000.21], abs=1e-6)
    assert estimate.moved((0.0, 0.0)) is estimate
