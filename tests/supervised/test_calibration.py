"""Uncertainties of learned positions: moments by hand, conformal quantiles, coverage of synthetic errors, files."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cfpos_envs.supervised.beliefs import Answers, Belief, axis_doubts, axis_moments
from cfpos_envs.supervised.calibration import (
    Calibration,
    learn_calibration,
    mahalanobis_squared,
    signs_of_doubt,
    stored_calibration,
    too_few_places,
)
from cfpos_envs.supervised.conformal import conformal_radius, least_places
from cfpos_envs.supervised.error_scales import student_loss, whitening
from cfpos_envs.supervised.heads import Area, BinHead, RegressionHead

HALL = Area((0.0, -10.0, 0.0), (20.0, 30.0, 3.0))


def synthetic(count: int, seed: int) -> tuple[Answers, torch.Tensor]:
    """Answers of known doubt d_0 whose error along x is e^{d_0}, along y half, along z a tenth; 10 % are 4 x as far."""
    generator = torch.Generator().manual_seed(seed)
    doubts = torch.randn(count, 2, generator=generator)
    far = 1 + 3 * (torch.rand(count, 1, generator=generator) < 0.1)
    error = torch.randn(count, 3, generator=generator) * doubts[:, :1].exp() * torch.tensor([1.0, 0.5, 0.1]) * far
    position = torch.rand(count, 3, generator=generator)
    belief = Belief(position, torch.eye(3).expand(count, 3, 3), doubts)
    return Answers(belief, torch.zeros(count, 2), torch.ones(count, 2, dtype=torch.bool)), position - error


@pytest.fixture(scope="module")
def learned() -> Calibration:
    """From 2 000 synthetic places."""
    return learn_calibration(*synthetic(2000, 0), HALL, 0)


def test_moments_of_two_bins_by_hand() -> None:
    centres, share = torch.tensor([1.0, 5.0]), torch.tensor([0.25, 0.75])
    # Around the mean 4: p q d^2 = 3/16 of 16; around the mode 5: 1/4 of 16.
    assert float(axis_moments(share, centres, torch.tensor(4.0))) == pytest.approx(3.0)
    assert float(axis_moments(share, centres, torch.tensor(5.0))) == pytest.approx(4.0)


def test_belief_of_bins_of_two_modes_by_hand() -> None:
    made = BinHead(HALL, 20)
    outputs = torch.full((1, made.size), -1e4)
    x, y, z = outputs.split(made.counts, dim=-1)
    # 10 m apart along x, 0.8 and 0.2; certain along y and z.
    x[0, 4], x[0, 9], y[0, 8], z[0, 5] = math.log(0.8), math.log(0.2), 0.0, 0.0
    belief = made.belief(outputs)
    assert belief.position_m[0].tolist() == pytest.approx([1.0, -1.0, 1.5])
    assert belief.covariance_m2 is not None
    torch.testing.assert_close(belief.covariance_m2[0], torch.diag(torch.tensor([20.0, 0.0, 0.0])))
    own, spread, away, second, entropy = belief.doubts[0, :5].tolist()
    assert own == pytest.approx(math.log(1e-6))
    assert spread == pytest.approx(math.log(math.sqrt(20) / 2))
    assert (away, second) == pytest.approx((math.log(0.2), math.log(0.2)))
    assert entropy == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.2), rel=1e-5)


def test_the_own_mode_reaches_as_far_as_the_read_out() -> None:
    centres, logits = torch.arange(21.0) * 2, torch.full((21,), -1e4)
    logits[10], logits[14] = math.log(0.5), math.log(0.5)
    away = [float(axis_doubts(logits, centres, torch.tensor(20.0), 2.0, bins)[2].exp()) for bins in (4, 3)]
    assert away == pytest.approx([1e-6, 0.5])


def test_three_numbers_state_nothing_of_their_own() -> None:
    belief = RegressionHead(HALL, distance=True).belief(torch.zeros(4, 3))
    assert belief.covariance_m2 is None
    assert belief.doubts.shape == (4, 0)


def test_conformal_radius_by_hand() -> None:
    scores = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0, 9.0, 8.0, 6.0, 7.0])
    # ceil(10 / 2) = 5, ceil(10 * 0.9) = 9.
    assert (conformal_radius(scores, 0.5), conformal_radius(scores, 0.9)) == (5.0, 9.0)
    assert [least_places(level) for level in (0.5, 0.9, 0.99)] == [1, 9, 99]
    with pytest.raises(ValueError, match=r"8 places set aside cannot bound a risk of 10 %; set at least 9 aside"):
        conformal_radius(scores[:8], 0.9)
    with pytest.raises(ValueError, match=r"level=1 must lie in \(0, 1\)"):
        conformal_radius(scores, 1)


@given(st.integers(9, 60), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_a_conformal_radius_holds_its_share_of_its_own_set(count: int, seed: int) -> None:
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    for level in (0.5, 0.9):
        inside = int((scores <= conformal_radius(scores, level)).sum())
        assert level <= inside / (count + 1) < level + 1 / (count + 1) + 1e-12


def test_whitening_by_hand() -> None:
    factor = whitening(torch.tensor([[math.log(2.0), 0.0, math.log(0.5), 3.0, 0.0, -1.0]]))[0]
    torch.testing.assert_close(factor, torch.tensor([[0.5, 0.0, 0.0], [1.5, 1.0, 0.0], [0.0, -1.0, 2.0]]))


def test_student_loss_is_the_density() -> None:
    error = torch.tensor([[0.3, -1.0, 2.0]])
    numbers = torch.tensor([[0.1, -0.2, 0.3, 0.4, -0.5, 0.6]])
    whitened = whitening(numbers)[0] @ error[0]
    # Three-dimensional Cauchy: Gamma(2) / (Gamma(1/2) pi^(3/2)) (1 + r^2)^-2, without the pi.
    density = 1 / math.sqrt(math.pi) * (1 + float(whitened.square().sum())) ** -2 * math.exp(-0.2)
    assert float(student_loss(numbers, error, torch.tensor(1.0))) == pytest.approx(-math.log(density), rel=1e-5)


def test_coverage_of_unseen_places_which_a_missing_calibration_fails(learned: Calibration) -> None:
    answers, truth = synthetic(6000, 1)
    error, stated = answers.belief.position_m - truth, learned.states(answers, HALL)
    squared = mahalanobis_squared(error, stated.covariance_m2)
    inside = (squared.sqrt().unsqueeze(-1) <= stated.radii).double().mean(dim=0).tolist()
    assert inside == pytest.approx([0.5, 0.9], abs=0.03)
    # The 90 % ellipsoid of a Gaussian is that region; 6.2514 is the quantile of chi^2 with 3 degrees of freedom.
    assert float(stated.radii[0, 1]) == pytest.approx(math.sqrt(6.2514), rel=1e-4)
    assert float(stated.radii[0, 0]) < math.sqrt(2.366)
    assert answers.belief.covariance_m2 is not None
    uncalibrated = mahalanobis_squared(error, answers.belief.covariance_m2)
    assert abs(float((uncalibrated <= 6.2514).double().mean()) - 0.9) > 0.05
    spread = stated.covariance_m2.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    assert spearmanr(spread, error.norm(dim=-1)).statistic > 0.7
    # Axes keep their own sizes: 1 to 0.5 to 0.1.
    ratios = (stated.covariance_m2[:, 0, 0] / stated.covariance_m2[:, 2, 2]).sqrt().median()
    assert float(ratios) == pytest.approx(10, rel=0.1)


def test_radii_are_measured_on_places_that_teach_no_covariance() -> None:
    answers, truth = synthetic(300, 0)
    # The last two fifths, and they alone, are ten times as far away.
    farther = truth.clone()
    farther[180:] = answers.belief.position_m[180:] - 10 * (answers.belief.position_m[180:] - truth[180:])
    first, second = (learn_calibration(answers, places, HALL, 0) for places in (truth, farther))
    for name, value in first.scales.network.state_dict().items():
        assert torch.equal(value, second.scales.network.state_dict()[name])
    assert second.factor / first.factor == pytest.approx(100, rel=1e-3)
    assert second.radii == pytest.approx(first.radii, rel=1e-3)


def test_stored_and_loaded_it_states_the_same_to_the_last_bit(learned: Calibration) -> None:
    answers, _ = synthetic(50, 2)
    again = Calibration.restored(learned.state()).states(answers, HALL)
    first = learned.states(answers, HALL)
    assert torch.equal(again.covariance_m2, first.covariance_m2)
    assert torch.equal(again.radii, first.radii)
    assert Calibration.restored(learned.state()).places == 2000


@pytest.mark.parametrize(
    "damage",
    [
        {"network": {}},
        {"radii": [2.5]},
        {"radii": None},
        {"radii": [2.5, 1.4]},
        {"radii": [0.0, 0.0]},
        {"places": 0},
        {"places": 199},
        {"fewest": -1},
        {"mean": torch.zeros(3)},
        {"mean": torch.zeros(3), "deviation": torch.ones(3)},
        {"factor": float("nan")},
        {"scale_m": 0.0},
        {"scale_m": None},
    ],
)
def test_a_damaged_calibration_is_refused_in_one_line(learned: Calibration, damage: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^the file's calibration is damaged; learn it again by calibrate") as refused:
        Calibration.restored({**learned.state(), **damage})
    assert "\n" not in str(refused.value)


def test_a_calibration_of_another_head_or_network_is_refused_in_one_line(learned: Calibration) -> None:
    state = {"calibration": learned.state()}
    assert stored_calibration({}, 2, 2) is None
    found = stored_calibration(state, 2, 2)
    assert found is not None
    assert found.places == 2000
    # Two doubts, gains and flags of two stations, a place.
    for doubts, stations, signs in ((0, 2, 7), (15, 2, 22), (2, 3, 11)):
        said = (
            rf"^the file's calibration is of another head or network: it reads 9 signs of doubt, the answers of this "
            rf"one \({stations} base stations\) have {signs}; learn it again by calibrate\.$"
        )
        with pytest.raises(ValueError, match=said):
            stored_calibration(state, doubts, stations)
    with pytest.raises(ValueError, match=r"^the file's calibration is damaged"):
        stored_calibration({"calibration": {**learned.state(), "fewest": 3}}, 2, 2)


def test_heads_count_their_doubts() -> None:
    for made in (RegressionHead(HALL, distance=True), BinHead(HALL, 20), BinHead(HALL, 20, 3)):
        assert made.belief(torch.zeros(2, made.size)).doubts.shape == (2, made.num_doubts)


def test_answers_without_any_error_state_regions_that_a_file_keeps() -> None:
    answers, _ = synthetic(300, 0)
    exact = learn_calibration(answers, answers.belief.position_m, HALL, 0)
    assert Calibration.restored(exact.state()).radii == exact.radii
    assert float(exact.states(answers, HALL).covariance_m2.diagonal(dim1=-2, dim2=-1).max()) < 1e-6


def test_learned_twice_it_is_the_same() -> None:
    first, second = (learn_calibration(*synthetic(300, 0), HALL, 5).state() for _ in range(2))
    assert first["factor"] == second["factor"]
    for name, value in first["network"].items():
        assert torch.equal(value, second["network"][name])


def test_too_few_places_are_refused() -> None:
    answers, truth = synthetic(199, 0)
    with pytest.raises(ValueError, match=r"199 places set aside are too few to calibrate an uncertainty; at least 200"):
        learn_calibration(answers, truth, HALL, 0)


def test_what_is_said_of_too_few_places() -> None:
    assert too_few_places(200) == ""
    said = "40 places set aside are too few to calibrate an uncertainty; at least 200"
    assert too_few_places(40) == f"{said}."
    assert too_few_places(40, tenth=True) == f"{said}, a tenth of 2000 or more to train on."


def test_signs_of_doubt_by_hand() -> None:
    belief = Belief(torch.tensor([[20.0, 10.0, 0.5]]), None, torch.tensor([[3.0]]))
    answers = Answers(belief, torch.tensor([[-1.5, 7.0]]), torch.tensor([[True, False]]))
    # The doubt, gains and flags of links that are heard, and the place from the middle in units of 20 m.
    expected = [[3.0, -1.5, 0.0, 1.0, 0.0, 0.5, 0.0, -0.05]]
    torch.testing.assert_close(signs_of_doubt(answers, HALL), torch.tensor(expected))


def test_shares_heard_are_the_flags_among_the_signs(learned: Calibration) -> None:
    answers, truth = synthetic(300, 0)
    flags = torch.ones(300, 2, dtype=torch.bool)
    # Half of the 180 places that teach covariances.
    flags[:90, 1] = False
    known = learn_calibration(dataclasses.replace(answers, valid=flags), truth, HALL, 0)
    assert known.heard_share(2).tolist() == pytest.approx([1.0, 0.5])


def test_links_that_are_not_heard_do_not_count(learned: Calibration) -> None:
    answers, _ = synthetic(20, 3)
    silent = dataclasses.replace(answers, valid=torch.zeros_like(answers.valid))
    loud = dataclasses.replace(silent, log_gain=torch.full_like(silent.log_gain, 7.0))
    assert torch.equal(learned.states(silent, HALL).covariance_m2, learned.states(loud, HALL).covariance_m2)
