"""Fingerprints over a person's own survey: precision, types, censored readings, repeated scans, floors, validity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines import Fingerprint, make_policy
from baselines.dcp.floors import FingerprintEstimate, score
from baselines.dcp.gpr import FittedProcess
from baselines.dcp.nearest import separation
from baselines.dcp.own_survey import detection_limits_dbm
from baselines.dcp.survey import survey_from_arrays
from cfpos_envs.measurements.base import PositionEstimate, Reason

CORNERS = np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0], [40.0, 40.0]])


def rss_at(points: np.ndarray, aps: np.ndarray = CORNERS) -> np.ndarray:
    return -40.0 - 35.0 * np.log10(np.linalg.norm(points[:, None] - aps, axis=2) + 1.0)


def mean_error_m(estimate: PositionEstimate, truth: np.ndarray) -> float:
    return float(np.linalg.norm(estimate.position.numpy() - truth, axis=1).mean())


@pytest.mark.parametrize("origin", [(0.0, 0.0), (-7600.0, 4864900.0), (455000.0, 5411000.0)])
def test_coordinates_of_maps_lose_nothing(origin: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    local = rng.uniform(0, 40, (200, 2)).round(2)
    places = local + np.array(origin)
    estimate = Fingerprint.from_survey(places, rss_at(local), matching="nn").locate(rss_at(local))
    assert estimate.position.dtype == torch.float64
    assert np.abs(estimate.position.numpy() - places).max() < 1e-8
    near = Fingerprint.from_survey([[0, 0], [0, 0.2]] + np.array(origin), [[-50], [-60]], neighbours=1)
    assert near.locate([[-50], [-60]]).position[:, 1].diff().item() == pytest.approx(0.2, abs=1e-8)


@pytest.mark.parametrize(
    "cast",
    [
        np.float32,
        np.float16,
        np.int64,
        np.int8,
        lambda rss: rss.tolist(),
        lambda rss: torch.tensor(rss, dtype=torch.float32, requires_grad=True),
        lambda rss: torch.tensor(rss).round().to(torch.int32),
        np.ma.masked_array,
        np.asfortranarray,
    ],
)
def test_any_real_type_is_taken(cast: Any) -> None:
    grid = np.stack(np.meshgrid(np.arange(2.0, 40, 4), np.arange(2.0, 40, 4)), -1).reshape(-1, 2)
    rss = rss_at(grid).round()
    expected = Fingerprint.from_survey(grid, rss).locate(rss)
    estimate = Fingerprint.from_survey(grid, cast(rss)).locate(cast(rss))
    assert estimate.position.dtype == torch.float64
    torch.testing.assert_close(estimate.position, expected.position)


@pytest.mark.parametrize("values", [[[1j, 2j]], [["loud", "quiet"]], [[True, False]], [[1, 2], [3]]])
def test_what_is_no_table_of_numbers_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="rss is not a rectangular array of numbers"):
        Fingerprint.from_survey([[0.0, 0.0]], values)


# Six APs, readings down to -92 dBm, everything weaker marked.
APS = np.array([[0.0, 0], [40, 0], [0, 40], [40, 40], [20, 20], [20, 0]])
GRID = np.array([[x, y] for x in range(2, 40, 4) for y in range(2, 40, 4)], float)
LIMIT_DBM = -92.0


def marked(rss: np.ndarray, mark: float) -> np.ndarray:
    return np.where(rss > LIMIT_DBM, rss, mark)


def drawn() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    user = rng.uniform(2, 38, (200, 2))
    return user, rss_at(GRID, APS), rss_at(user, APS) + rng.normal(0, 1, (200, 6))


@pytest.mark.parametrize("mark", [100.0, 0.0, -110.0, -200.0, math.nan, -math.inf])
def test_all_marks_for_not_heard_give_the_same(mark: float) -> None:
    user, surveyed, measured = drawn()
    declared = {} if math.isnan(mark) or math.isinf(mark) else {"not_heard": mark}
    estimate = Fingerprint.from_survey(GRID, marked(surveyed, mark), **declared).locate(marked(measured, mark))
    assert estimate.valid.all()
    assert mean_error_m(estimate, user) == pytest.approx(1.85, abs=0.05)
    masked = Fingerprint.from_survey(GRID, np.ma.masked_less_equal(surveyed, LIMIT_DBM))
    hidden = masked.locate(np.ma.masked_less_equal(measured, LIMIT_DBM))
    torch.testing.assert_close(hidden.position, estimate.position)


def test_marks_are_not_heard_in_a_complete_survey_too() -> None:
    user, surveyed, measured = drawn()
    full = Fingerprint.from_survey(GRID, surveyed, not_heard=100)
    for query in (
        marked(measured, 100.0),
        marked(measured, math.nan),
        np.ma.masked_equal(marked(measured, 100.0), 100.0),
    ):
        # Nobody knows the limit of an AP that was heard everywhere: its silence is left out.
        assert mean_error_m(full.locate(query), user) < 1.6


def test_a_mark_that_is_not_declared_is_refused_with_a_hint() -> None:
    _, surveyed, measured = drawn()
    with pytest.raises(ValueError, match=r"first 100 \(row 0, AP 1\).*if 100 \(\d+ times\) means not heard.*=100"):
        Fingerprint.from_survey(GRID, marked(surveyed, 100.0))
    with pytest.raises(ValueError, match=r"RSS of 0 dBm or more.*not_heard=100.*on_bad='drop'"):
        Fingerprint.from_survey(GRID, surveyed).locate(marked(measured, 100.0))
    with pytest.raises(ValueError, match=r"RSS of 0 dBm or more, the first inf \(row 0, AP 0\); on_bad="):
        Fingerprint.from_survey(GRID, surveyed).locate([[math.inf, -50, -50, -50, -50, -50]])
    for other in (-measured, 10 ** (measured / 10)):
        with pytest.raises(ValueError, match=r"look like path loss in dB, .*, or milliwatts: give dBm"):
            Fingerprint.from_survey(GRID, surveyed).locate(other)


def test_places_in_degrees_or_kilometres_are_refused() -> None:
    """They were taken for metres, with a standard deviation of micrometres."""
    _, surveyed, _ = drawn()
    for places in (GRID * 1e-5 + [48.1, 11.5], GRID / 1e3):
        with pytest.raises(
            ValueError, match=r"100 positions lie within 0\.0\d+ m of each other; these look like degrees"
        ):
            Fingerprint.from_survey(places, surveyed)
    Fingerprint.from_survey(GRID / 100, surveyed)  # a table of 36 cm


def test_a_reading_that_cannot_be_costs_that_reading_only() -> None:
    user, surveyed, measured = drawn()
    spoilt = measured.copy()
    spoilt[:, 2] = 0.0
    with pytest.warns(UserWarning, match=r"left out 200 RSS of 0 dBm or more"):
        estimate = Fingerprint.from_survey(GRID, surveyed, on_bad="drop").locate(spoilt)
    assert estimate.valid.all()
    assert mean_error_m(estimate, user) < 2.0
    with pytest.warns(UserWarning, match="left out 6 RSS"):
        lost = Fingerprint.from_survey(GRID, surveyed, on_bad="drop").locate(np.full((1, 6), 7.0))
    assert lost.reason.tolist() == [Reason.BAD_INPUT]


def uji_like(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """30 APs on 100 m x 100 m, 38 % of the readings heard, whole dBm, 100 for the others."""
    rng = np.random.default_rng(seed)
    aps = rng.uniform(0, 100, (30, 2))
    grid = np.stack(np.meshgrid(np.arange(2.5, 100, 5), np.arange(2.5, 100, 5)), -1).reshape(-1, 2)
    user = rng.uniform(5, 95, (150, 2))
    surveyed, measured = (rss_at(points, aps) + rng.normal(0, 2, (len(points), 30)) for points in (grid, user))
    limit = np.quantile(surveyed, 0.62)
    return grid, *(np.where(rss > limit, rss.round(), 100.0) for rss in (surveyed, measured)), user


def test_silence_is_information_in_survey_and_query() -> None:
    grid, surveyed, measured, user = uji_like(0)
    assert (surveyed != 100).mean() == pytest.approx(0.38, abs=0.005)
    errors = {
        name: mean_error_m(Fingerprint.from_survey(grid, surveyed, not_heard=100, **options).locate(measured), user)
        for name, options in {
            "limit": {},
            "ignored": {"missing": "ignored"},
            "told": {"detection_limit_dbm": -96},
        }.items()
    }
    filled = Fingerprint.from_survey(grid, np.where(surveyed == 100, -110, surveyed))
    errors["as -110 dBm"] = mean_error_m(filled.locate(np.where(measured == 100, -110, measured)), user)
    assert errors["limit"] < 2.6
    assert errors["limit"] < errors["ignored"] < 3.0
    assert errors["as -110 dBm"] > 3.5
    assert errors["told"] != errors["limit"]


def test_detection_limits_are_the_weakest_readings_of_aps_that_somebody_did_not_hear() -> None:
    nan = math.nan
    survey = survey_from_arrays(CORNERS[:3], [[-50, -60, nan, -70], [-80, nan, nan, -71], [-90, -65, nan, nan]])
    np.testing.assert_array_equal(detection_limits_dbm(survey), [nan, -65, nan, -71])
    np.testing.assert_array_equal(detection_limits_dbm(survey, -99.0), [-99.0] * 4)


def test_a_silent_reference_is_no_farther_than_the_limit_says() -> None:
    # AP 1 is heard at -80 or weaker than -80: a query that does not hear it is as near to one as to the other.
    estimator = Fingerprint.from_survey(
        [[0, 0], [10, 0], [20, 0]], [[-50, -80], [-50, math.nan], [-50, -60]], neighbours=2
    )
    assert estimator.locate([[-50, math.nan]]).position.tolist() == [[5.0, 0.0]]
    ignored = Fingerprint.from_survey(
        [[0, 0], [10, 0], [20, 0]], [[-50, -80], [-50, math.nan], [-50, -60]], neighbours=3, missing="ignored"
    )
    assert ignored.locate([[-50, math.nan]]).position.tolist() == [[10.0, 0.0]]


def test_repeated_scans_are_averaged_with_their_silence_or_kept() -> None:
    places = [[0, 0], [0, 0], [0, 0], [9, 0]]
    rss = [[-40, -70], [-44, math.nan], [-42, -78], [-60, -50]]
    averaged = Fingerprint.from_survey(places, rss, neighbours=1)._own
    kept = Fingerprint.from_survey(places, rss, neighbours=1, repeated="keep")._own
    assert averaged is not None
    assert kept is not None
    # The silent scan counts with the AP's weakest reading, -78 dBm.
    np.testing.assert_allclose(averaged.database.rss_dbm, [[-42, (-70 - 78 - 78) / 3], [-60, -50]])
    assert averaged.database.positions_m.tolist() == [[0, 0], [9, 0]]
    assert len(kept.database) == 4
    spectra = np.array([[[2.0, 0.0]], [[0.0, 8.0]], [[0.0, 1.0]]])
    both = Fingerprint.from_survey([[0, 0], [0, 0], [5, 0]], [[-40], [-40], [-41]], spectra, neighbours=1)._own
    assert both is not None
    # Spectra have any scale: each scan has one voice.
    np.testing.assert_allclose(both.database.unit_spectra()[0, 0], [math.sqrt(0.5)] * 2)


def test_scans_on_two_floors_are_two_places() -> None:
    estimator = Fingerprint.from_survey(
        [[0, 0], [0, 0], [0, 0]], [[-40, -70], [-70, -40], [-72, -42]], floors=[0, 1, 1], neighbours=1
    )
    assert estimator._own is not None
    np.testing.assert_allclose(estimator._own.database.rss_dbm, [[-40, -70], [-71, -41]])
    estimate = estimator.locate([[-41, -69], [-69, -41], [math.nan, math.nan]])
    assert isinstance(estimate, FingerprintEstimate)
    assert estimate.floors == ["0", "1", None]
    assert estimate.buildings is None
    assert estimate.select(slice(1, 2)).floors == ["1"]


def test_the_position_is_that_of_the_neighbours_on_the_chosen_floor() -> None:
    # The nearest is in the hall, but two of three votes are in the tower: 1/1 against 1/1.5 + 1/2.
    survey = {"positions": [[0, 0], [100, 0], [104, 0]], "rss": [[-51.0], [-48.5], [-48.0]]}
    estimate = Fingerprint.from_survey(
        **survey, buildings=["hall", "tower", "tower"], floors=["G", "1", "1"], neighbours=3
    ).locate([[-50.0]])
    assert (estimate.buildings, estimate.floors) == (["tower"], ["1"])
    weights = np.array([1 / 1.5, 1 / 2])
    assert estimate.position[0, 0].item() == pytest.approx(100 + 4 * weights[1] / weights.sum())


def test_scores_by_hand() -> None:
    estimate = FingerprintEstimate(
        torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0], [9.0, 9.0]]),
        None,
        torch.tensor([True, True, True, False]),
        place=torch.tensor([0, 1, 2, -1]),
        places=(("A", "0"), ("A", "1"), ("B", "1")),
    )
    found = score(estimate, np.zeros((4, 2)), [0, 0, 1, 0], ["A", "A", "A", "A"])
    assert (found.users, found.answered, found.mean_m, found.median_m) == (4, 0.75, 2.0, 1.0)
    # The third is on floor 1 of another building.
    assert (found.floor_hit_rate, found.building_hit_rate) == (0.25, 0.5)
    assert "floor 25.0%, building 50.0%" in str(found)
    assert score(estimate, np.zeros((4, 2))).floor_hit_rate is None
    with pytest.raises(ValueError, match="floors has 1 entries, the estimate 4 users"):
        score(estimate, np.zeros((4, 2)), [0])


def test_powed_and_sorensen_by_hand() -> None:
    first, second = torch.tensor([[0.0, 3.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(separation(first, second, "sorensen"), torch.tensor([3.0 / 5.0, 1.0]))
    torch.testing.assert_close(separation(first, second, "euclidean"), torch.tensor([5.0**0.5, 0.0]))
    estimator = Fingerprint.from_survey(
        CORNERS[:3], [[-40, math.nan], [-99, -60], [-80, -70]], feature="powed", distance="sorensen", neighbours=2
    )
    assert estimator._own is not None
    database = estimator._own.database
    # Zero is 1 dB below the weakest reading of all, -100 dBm.
    np.testing.assert_allclose(
        database.features("powed", torch.tensor([0, 1])),
        np.array([[0.6, 0.0], [0.01, 0.4], [0.2, 0.3]]) ** math.e,
        rtol=1e-9,
        atol=0,
    )
    a, b, c = (np.array(pair) ** math.e for pair in ([0.5, 0.0], [0.6, 0.0], [0.2, 0.3]))
    distances = [abs(a - other).sum() / (a + other).sum() for other in (b, c)]
    weights = 1 / np.array(distances)
    expected = (CORNERS[[0, 2]] * (weights / weights.sum())[:, None]).sum(axis=0)
    np.testing.assert_allclose(estimator.locate([[-50, math.nan]]).position[0].numpy(), expected)


def test_sorensen_finds_the_same_as_a_search_of_all() -> None:
    grid, surveyed, measured, user = uji_like(1)
    options = {"feature": "powed", "distance": "sorensen", "not_heard": 100, "matching": "nn"}
    estimator = Fingerprint.from_survey(grid, surveyed, **options)
    zero = surveyed[surveyed != 100].min() - 1
    powed = [np.where(rss == 100, 0, (np.clip(rss, zero, 0) - zero) / -zero) ** math.e for rss in (surveyed, measured)]
    difference = np.abs(powed[0][None] - powed[1][:, None]).sum(axis=-1) / (powed[0][None] + powed[1][:, None]).sum(
        axis=-1
    )
    found = estimator.locate(measured)
    np.testing.assert_array_equal(found.position.numpy(), grid[difference.argmin(axis=1)])
    assert mean_error_m(found, user) < 4.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distance": "sorensen", "feature": "rss-db"}, "distance='sorensen' compares numbers that are not negative"),
        ({"distance": "sorenson", "feature": "powed"}, "did you mean sorensen"),
        ({"missing": "ignore"}, "did you mean ignored"),
        ({"repeated": "mean"}, "repeated='mean' is not one of average, keep"),
        ({"on_bad": "skip"}, "on_bad='skip' is not one of refuse, drop"),
        ({"layout": "UJI"}, "layout='UJI' is not one of plain, uji, ipin"),
        ({"detection_limit_dbm": 5.0}, "detection_limit_dbm=5.0 must be at most 0"),
    ],
)
def test_options_check_themselves(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy("fingerprint", **options)


def test_own_scans_nobody_heard_are_invalid_with_the_reason() -> None:
    _, surveyed, measured = drawn()
    estimate = Fingerprint.from_survey(GRID, surveyed).locate([[math.nan] * 6, [-50] * 6, measured[0]])
    assert estimate.valid.tolist() == [False, False, True]
    assert estimate.reason.tolist() == [Reason.TOO_FEW_LINKS, Reason.UNFAMILIAR, Reason.VALID]
    assert torch.isfinite(estimate.position).all()


def test_names_in_any_order_are_the_same_scan() -> None:
    user, surveyed, measured = drawn()
    names = ["a", "b", "c", "d", "e", "f"]
    estimator = Fingerprint.from_survey(GRID, surveyed, ap_names=names)
    expected = estimator.locate(measured).position
    order = [3, 1, 5, 0, 2, 4]
    strange = np.column_stack([measured[:, order], np.full(len(user), -30.0)])
    found = estimator.locate(strange, ap_names=[*(names[column] for column in order), "stranger"])
    torch.testing.assert_close(found.position, expected)
    with pytest.raises(ValueError, match="with 2 ap_names it must be"):
        estimator.locate(measured, ap_names=["a", "b"])
    with pytest.raises(ValueError, match="names its APs, the survey does not"):
        Fingerprint.from_survey(GRID, surveyed).locate(measured, ap_names=names)
    with pytest.raises(ValueError, match="ap_names has 2 names; it must be 6 different ones"):
        Fingerprint.from_survey(GRID, surveyed, ap_names=["a", "b"])


def test_positions_that_are_not_finite_are_refused_or_dropped() -> None:
    places = GRID.copy()
    places[7, 1] = math.nan
    with pytest.raises(ValueError, match="1 positions have NaN or infinite entries, the first in row 7"):
        Fingerprint.from_survey(places, drawn()[1])
    with pytest.warns(UserWarning, match="left out 1 positions"):
        estimator = Fingerprint.from_survey(places, drawn()[1], on_bad="drop")
    assert estimator._own is not None
    assert len(estimator._own.database) == len(GRID) - 1


def test_gpr_says_what_is_wrong_with_a_survey_and_keeps_northings() -> None:
    places = torch.tensor(GRID[:40]) + torch.tensor([455000.0, 5411000.0], dtype=torch.float64)
    rss = torch.tensor(rss_at(GRID[:40], APS))
    with pytest.raises(ValueError, match="all 40 surveyed fingerprints are the same; gpr needs readings that differ"):
        FittedProcess("rss-db", 40.0, False, 40).fit(places, torch.full_like(rss, -60.0), torch.ones(40, 6, 1))
    with pytest.raises(ValueError, match="gpr cannot leave links out"):
        FittedProcess("rss-db", 40.0, False, 40).fit(places, rss * math.nan, torch.ones(40, 6, 1))
    process = FittedProcess("rss-db", 40.0, False, 40)
    process.fit(places, rss, torch.ones(40, 6, 1))
    located, _ = process.predict(rss, torch.ones(40, 6, 1))
    assert (located - places).abs().max() < 0.1


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(
        [{}, {"feature": "powed", "distance": "sorensen"}, {"feature": "rss-linear"}, {"missing": "ignored"}]
    ),
)
def test_answers_lie_among_the_surveyed_places_whatever_is_missing(seed: int, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    places, rss, query = rng.normal(0, 50, (8, 2)), -rng.uniform(30, 95, (8, 5)), -rng.uniform(20, 110, (6, 5))
    rss[rng.random(rss.shape) < 0.4] = math.nan
    query[rng.random(query.shape) < 0.4] = math.nan
    rss[0, 0] = -50.0
    estimator = Fingerprint.from_survey(places, rss, **options)
    estimate = estimator.locate(query)
    known = np.isfinite(rss).any(axis=0)
    np.testing.assert_array_equal(estimate.valid.numpy(), (np.isfinite(query) & known).any(axis=1))
    assert (estimate.position.numpy() >= places.min(axis=0) - 1e-9).all()
    assert (estimate.position.numpy() <= places.max(axis=0) + 1e-9).all()
