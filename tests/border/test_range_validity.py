"""Answers from ranges say when they are not to be believed, and why: 1 000 users a case."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from cfpos.baselines import make_policy
from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.geometry import metres_outside

USERS, STD_M = 1000, 0.1
SQUARE = np.array([[0, 0], [40, 0], [0, 40], [40, 40.0]])
FIVE = np.vstack((SQUARE, [[20, 2]]))
EIGHT = np.vstack((FIVE, [[2, 20], [38, 22], [21, 37]]))
NEAR_LINE = np.array([[2, 20.01], [10, 19.99], [21, 20.015], [30, 19.985], [38, 20.0]])
TWELVE = np.vstack((EIGHT, [[12, 13], [28, 12], [13, 29], [27, 28]]))
LINE = NEAR_LINE * [1.0, 0.0]
HALL = [[0, 0], [40, 40]]


@dataclass(frozen=True)
class Case:
    """Where access points and users are, what is done to the ranges, and what is told of them."""

    aps: np.ndarray
    low: tuple[float, float] = (0.0, 0.0)
    high: tuple[float, float] = (40.0, 40.0)
    height_m: float = 0.0
    spoilt: float = 1.0
    blocked: float = 0.0
    excess_m: float = 5.0
    told_std_m: float = STD_M
    told_aps: np.ndarray | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def located(self, name: str, family: str, seed: int = 5) -> tuple[PositionEstimate, torch.Tensor, torch.Tensor]:
        """The answers, their errors and their own standard deviations."""
        rng = np.random.default_rng(seed)
        users = rng.uniform(self.low, self.high, (USERS, 2))
        ranges = np.sqrt(((users[:, None] - self.aps) ** 2).sum(-1) + self.height_m**2)
        ranges += STD_M * rng.standard_normal(ranges.shape)
        if self.blocked:
            ranges += (rng.random(ranges.shape) < self.blocked) * rng.exponential(self.excess_m, ranges.shape)
        if family == "tdoa":
            ranges += rng.uniform(-20, 20, (USERS, 1))
        options = {"height_diff_m": self.height_m, "on_bad": "drop", **self.options}
        aps = self.aps if self.told_aps is None else self.told_aps
        measured = TimingMeasurements.from_arrays(
            aps, self.spoilt * ranges, self.told_std_m, family=family, nlos_mean_m=self.excess_m, **options
        )
        found = make_policy(name).locate(measured)
        error = torch.linalg.vector_norm(found.position[0] - torch.tensor(users), dim=-1)
        assert found.covariance is not None
        return found, error, found.covariance[0].diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()


GOOD = {
    "four": Case(SQUARE),
    "eight": Case(EIGHT),
    "ceiling": Case(FIVE, height_m=2.5),
    "three": Case(FIVE[:3], options={"area_m": HALL}),
    "outside": Case(EIGHT, low=(-40.0, -40.0), high=(80.0, 80.0)),
}
pytestmark = pytest.mark.filterwarnings("ignore:range_m. left out")


@pytest.mark.parametrize(
    ("case", "family", "name"),
    [
        *((case, "toa", "toa-wls") for case in GOOD),
        *((case, "tdoa", "tdoa-chan") for case in ("four", "eight", "outside")),
        *((case, "tdoa", "tdoa-wls") for case in ("three", "outside")),
        ("four", "tdoa", "toa-em"),
        ("eight", "toa", "toa-em"),
        ("four", "toa", "toa-huber"),
    ],
)
def test_right_answers_stay_valid(case: str, family: str, name: str) -> None:
    found, error, std = GOOD[case].located(name, family)
    # Beyond five standard deviations lies one of 1.7 million Gaussian errors: one of a thousand is p = 6e-4.
    assert not (found.valid[0] & (error > 5 * std)).any()
    assert float(found.valid[0][error < 5 * std].double().mean()) >= 0.99
    assert found.chi_squared is not None
    assert found.degrees_of_freedom is not None
    freedom = found.degrees_of_freedom[0].double()
    if name in ("toa-wls", "tdoa-wls"):  # chi squared of f has mean f and variance 2 f
        excess = (found.chi_squared[0] - freedom).mean() / (2 * freedom.mean().clamp(min=1) / USERS).sqrt()
        assert abs(float(excess)) < 4.5


DOUBTFUL = {
    "near a line": (Case(NEAR_LINE), {Reason.AMBIGUOUS}, 0.05),
    "on a line": (Case(LINE), {Reason.POOR_GEOMETRY}, 0.0),
    "two": (Case(SQUARE[:2]), {Reason.TOO_FEW_LINKS}, 0.0),
    "one place": (Case(np.repeat(SQUARE[:1], 5, axis=0)), {Reason.POOR_GEOMETRY}, 0.0),
    "millimetres": (Case(EIGHT, spoilt=1000.0), {Reason.LARGE_RESIDUALS, Reason.OUTSIDE}, 0.0),
}


@pytest.mark.parametrize(
    ("case", "family", "name"),
    [
        *((case, "toa", "toa-wls") for case in DOUBTFUL if case != "millimetres"),
        *((case, "tdoa", "tdoa-chan") for case in ("near a line", "on a line", "millimetres")),
        ("near a line", "tdoa", "tdoa-wls"),
        ("one place", "tdoa", "toa-em"),
    ],
)
def test_what_cannot_be_known_is_not_valid_and_says_why(case: str, family: str, name: str) -> None:
    layout, reasons, share = DOUBTFUL[case]
    found, error, std = layout.located(name, family)
    assert not (found.valid[0] & (error > 5 * std)).any()
    assert float(found.valid.double().mean()) <= share
    assert found.reason is not None
    assert bool(((found.reason == 0) == found.valid).all())
    told = torch.isin(found.reason[~found.valid], torch.tensor([int(reason) for reason in reasons]))
    assert float(told.double().mean()) > (0.85 if case == "near a line" else 0.999)
    assert bool(torch.isfinite(found.position).all() and torch.isfinite(found.covariance).all())


@pytest.mark.parametrize("name", ["tdoa-wls", "tdoa-chan"])
def test_differences_with_the_wrong_sign_are_bad_input(name: str) -> None:
    # With four access points every fifteenth user alone fits the reversed differences somewhere, up to 39 m away.
    found, _, _ = Case(SQUARE, spoilt=-1.0).located(name, "tdoa")
    assert found.reason is not None
    assert (found.reason == int(Reason.BAD_INPUT)).all()


@pytest.mark.parametrize(
    ("family", "name", "area"),
    [("toa", "toa-wls", HALL), ("tdoa", "tdoa-wls", [[0, 0], [40, 0], [40, 40], [0, 40]])],
)
def test_a_line_of_access_points_is_enough_where_the_hall_excludes_the_image(family: str, name: str, area: Any) -> None:
    found, error, std = Case(LINE, low=(0.0, 5.0), options={"area_m": area}).located(name, family)
    assert not (found.valid[0] & (error > 5 * std)).any()
    assert float(found.valid.double().mean()) > 0.985
    # Within a few standard deviations of the line the covariance is no description, and the answer says so.
    if family == "tdoa":
        closed, error, std = Case(LINE, low=(0.0, 5.0), options={"area_m": area}).located("tdoa-chan", "tdoa")
        assert not (closed.valid[0] & (error > 5 * std)).any()
        assert float(closed.valid.double().mean()) > 0.9
        return
    near, error, std = Case(LINE, high=(40.0, 1.0), options={"area_m": area}).located(name, family)
    assert not (near.valid[0] & (error > 5 * std)).any()


def test_users_outside_the_stated_area_are_told_so() -> None:
    hall = {"area_m": [[0, 0], [40, 30]]}
    found, error, _ = Case(EIGHT, low=(0.0, 33.0), options=hall).located("toa-wls", "toa")
    assert float(error.max()) < 1.0
    assert found.reason is not None
    assert float((found.reason == int(Reason.OUTSIDE)).double().mean()) > 0.995


def test_links_without_line_of_sight_are_noticed_by_least_squares_and_left_out_by_em() -> None:
    rng = np.random.default_rng(3)
    users = rng.uniform(0, 40, (USERS, 2))
    ranges = np.linalg.norm(users[:, None] - EIGHT, axis=-1) + STD_M * rng.standard_normal((USERS, 8))
    ranges[:, [2, 5]] += rng.exponential(5.0, (USERS, 2)) + 1.0
    measured = TimingMeasurements.from_arrays(EIGHT, ranges, STD_M, on_bad="drop")
    plain, robust = (make_policy(name).locate(measured) for name in ("toa-wls", "toa-em"))
    assert plain.reason is not None
    assert float((plain.reason == int(Reason.LARGE_RESIDUALS)).double().mean()) > 0.99
    assert "links without line of sight" in Reason.LARGE_RESIDUALS.advice
    error = torch.linalg.vector_norm(robust.position[0] - torch.tensor(users), dim=-1)
    assert float(robust.valid.double().mean()) > 0.98
    assert float(error[robust.valid[0]].max()) < 1.0
    # Its chi squared is over the links that it believes: two fewer.
    assert robust.degrees_of_freedom is not None
    assert float((robust.degrees_of_freedom[0] <= 4).double().mean()) > 0.95


@pytest.mark.parametrize(
    ("case", "family", "name"),
    [
        (Case(EIGHT, blocked=0.3), "toa", "toa-huber"),
        (Case(EIGHT, blocked=0.3), "toa", "toa-em"),
        (Case(TWELVE, blocked=0.3, excess_m=1.0), "toa", "toa-huber"),
        (Case(TWELVE, blocked=0.5), "toa", "toa-em"),
        (Case(TWELVE, blocked=0.3), "tdoa", "toa-huber"),
    ],
    ids=["huber", "em", "short excess", "half", "tdoa"],
)
def test_blocked_links_widen_a_robust_answer_as_far_as_they_may_have_moved_it(
    case: Case, family: str, name: str
) -> None:
    found, error, std = case.located(name, family)
    # The mixture itself has longer tails than a Gaussian: one in a thousand, where 13 to 90 were.
    assert int((found.valid[0] & (error > 5 * std)).sum()) <= 2
    assert float(found.valid[0][error < 5 * std].double().mean()) >= 0.99


@pytest.mark.parametrize("name", ["toa-huber", "toa-em"])
@pytest.mark.parametrize(
    "case",
    [Case(aps, told_aps=aps[[1, 0, *range(2, len(aps))]]) for aps in (SQUARE, EIGHT)]
    + [Case(aps, told_std_m=STD_M / 10) for aps in (SQUARE, EIGHT)],
    ids=["swapped, four", "swapped, eight", "deviation, four", "deviation, eight"],
)
def test_robust_answers_notice_what_blocked_links_do_not_explain(case: Case, name: str) -> None:
    found, _, _ = case.located(name, "toa")
    assert found.reason is not None
    assert not found.valid.any()
    assert float((found.reason == int(Reason.LARGE_RESIDUALS)).double().mean()) > 0.99


def test_two_places_that_are_as_likely_are_both_in_the_covariance() -> None:
    """Four ranges meet in one place, four in another, each longer than the other place explains."""
    aps = np.array([[40, 10], [42, 20], [40, 30], [36, 2], [0, 12], [-2, 20], [1, 31], [4, 38.0]])
    places = np.array([[18, 20], [22, 20.0]])
    ranges = np.linalg.norm(aps - np.where(np.arange(8)[:, None] < 4, *places[:, None]), axis=1)
    for name in ("toa-em", "toa-huber"):
        found = make_policy(name).locate(TimingMeasurements.from_arrays(aps, ranges[None], STD_M))
        covariance = found.covariance
        assert covariance is not None
        off = torch.tensor(places) - found.position[0, 0]
        # Second moment of two places of probability one half around wherever the answer is.
        moment = (off.unsqueeze(-1) * off.unsqueeze(-2)).mean(dim=0)
        torch.testing.assert_close(covariance[0, 0], moment, rtol=0.1, atol=0.1)
        assert found.valid.all()


def test_a_range_shorter_than_the_geometry_is_no_blocked_link() -> None:
    users = np.array([[12, 27], [30, 9.0]])
    ranges = np.linalg.norm(users[:, None] - EIGHT, axis=-1)
    ranges[0, 3] -= 0.55
    for name in ("toa-em", "toa-huber"):
        found = make_policy(name).locate(TimingMeasurements.from_arrays(EIGHT, ranges, STD_M))
        assert found.reason is not None
        assert found.reason[0].tolist() == [int(Reason.LARGE_RESIDUALS), 0]


def test_a_few_users_are_judged_each_for_itself() -> None:
    # Two access points are swapped; three users happen to be as far from both.
    told = EIGHT[[1, 0, *range(2, 8)]]
    users = np.array([[20, 10], [20, 25], [20, 35], [5, 5], [35, 30], [3, 38], [31, 4], [8, 20.0]])
    ranges = np.linalg.norm(users[:, None] - EIGHT, axis=-1)
    for count, valid in ((7, [True] * 3 + [False] * 4), (8, [False] * 8)):
        found = make_policy("toa-em").locate(TimingMeasurements.from_arrays(told, ranges[:count], STD_M))
        assert found.valid[0].tolist() == valid


def test_distance_to_a_polygon_by_hand() -> None:
    corner = torch.tensor([[0, 0], [4, 0], [4, 2], [2, 2], [2, 4], [0, 4.0]])
    points = torch.tensor([[1, 1], [1, 3.9], [3, 3], [5, 1], [-3, -4], [3, 2.5], [0, 2.0]])
    for order in (corner, corner.flip(0)):
        assert metres_outside(points, order).tolist() == pytest.approx([0, 0, 1, 1, 5, 0.5, 0])


def test_a_huber_fix_knows_how_wide_it_is() -> None:
    """Gaussian ranges from eight APs on a circle: NEES of mean 2; with one range 3 m too long, still covered."""
    generator = torch.Generator().manual_seed(5)
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    aps = 20 * torch.stack((angle.cos(), angle.sin()), dim=-1) + 20
    users = torch.rand(1000, 2, generator=generator, dtype=torch.float64) * 20 + 10
    ranges = torch.cdist(users, aps) + 0.1 * torch.randn(1000, 8, generator=generator, dtype=torch.float64)
    far = ranges.clone()
    far[:, 0] += 3.0
    for measured, low, high in ((ranges, 1.85, 2.15), (far, 0.8, 2.15)):
        estimate = make_policy("toa-huber").locate(TimingMeasurements.from_arrays(aps, measured, 0.1))
        error = estimate.position[0] - users
        covariance = estimate.covariance
        assert covariance is not None
        nees = (error.unsqueeze(-2) @ torch.linalg.inv(covariance[0]) @ error.unsqueeze(-1))[..., 0, 0]
        assert low < float(nees.mean()) < high, nees.mean()
        assert estimate.valid.double().mean() > 0.98
