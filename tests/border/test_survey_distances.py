"""Feature maps and distances of the field, by hand and against a search of all references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from baselines import Fingerprint, make_policy
from baselines.dcp.nearest import DISTANCES, OF_NOT_NEGATIVE, separation

PLACES = np.array([[x, y] for x in range(0, 40, 4) for y in range(0, 40, 4)], float)
APS = np.array([[0.0, 0], [40, 0], [0, 40], [40, 40], [20, 20]])


def readings(points: np.ndarray, seed: int) -> np.ndarray:
    distance = np.linalg.norm(points[:, None] - APS, axis=2) + 1.0
    rss = -40 - 33 * np.log10(distance) + np.random.default_rng(seed).normal(0, 3, distance.shape)
    return np.where(rss < -90, np.nan, rss)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("euclidean", math.sqrt(9 + 4 + 0)),
        ("manhattan", 5.0),
        ("cosine", 1 - 12 / (math.sqrt(17) * math.sqrt(20))),
        ("sorensen", 5 / 11),
        ("canberra", 3 / 5 + 2 / 6),
        ("chi-squared", 9 / 5 + 4 / 6),
        ("squared-chord", 1.0 + (2 - math.sqrt(2)) ** 2),
    ],
)
def test_distances_by_hand(distance: str, expected: float) -> None:
    first, second = torch.tensor([1.0, 4.0, 0.0]).double(), torch.tensor([4.0, 2.0, 0.0]).double()
    assert separation(first, second, distance).item() == pytest.approx(expected, rel=1e-12)
    assert separation(first, first, distance).item() == pytest.approx(0.0, abs=1e-12)


def test_vectors_of_nothing_have_nothing_in_common() -> None:
    nothing, something = torch.zeros(2), torch.tensor([1.0, 2.0])
    for distance in ("cosine", "sorensen"):
        assert separation(nothing, something, distance).item() == 1.0
    assert separation(nothing, nothing, "sorensen").item() == 1.0
    assert separation(nothing, nothing, "canberra").item() == 0.0


def test_feature_maps_by_hand() -> None:
    estimator = Fingerprint.from_survey(PLACES[:2], [[-40, -99], [-60, -80]], neighbours=1, feature="positive")
    assert estimator._own is not None
    both = torch.tensor([0, 1])
    # Zero is 1 dB below the weakest reading of all, -100 dBm.
    database = estimator._own.database
    np.testing.assert_allclose(database.features("positive", both), [[60.0, 1.0], [40.0, 20.0]])
    np.testing.assert_allclose(
        database.features("exponential", both), np.exp(np.array([[60.0, 1.0], [40.0, 20.0]]) / 24) / np.exp(100 / 24)
    )
    np.testing.assert_allclose(database.features("powed", both), np.array([[0.6, 0.01], [0.4, 0.2]]) ** math.e)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("feature", ["positive", "powed", "exponential"])
def test_the_answer_is_that_of_a_search_of_all(distance: str, feature: str) -> None:
    surveyed, users = readings(PLACES, 0), np.random.default_rng(1).uniform(0, 40, (60, 2))
    asked = readings(users, 2)
    found = Fingerprint.from_survey(PLACES, surveyed, feature=feature, distance=distance, matching="nn").locate(asked)
    zero = np.nanmin(surveyed) - 1
    p, q = (np.clip(np.nan_to_num(rss, nan=zero) - zero, 0, None) for rss in (surveyed, asked))
    if feature == "powed":
        p, q = (p / -zero) ** math.e, (q / -zero) ** math.e
    elif feature == "exponential":
        p, q = np.exp((p + zero) / 24), np.exp((q + zero) / 24)
    if distance in ("chi-squared", "squared-chord"):
        a, b = q[:, None], p[None]
        with np.errstate(invalid="ignore"):
            term = (a - b) ** 2 / (a + b) if distance == "chi-squared" else (np.sqrt(a) - np.sqrt(b)) ** 2
        matrix = np.nansum(term, axis=2)
    else:
        names = {"manhattan": "cityblock", "sorensen": "braycurtis"}
        matrix = cdist(q, p, names.get(distance, distance))
    np.testing.assert_array_equal(found.position.numpy(), PLACES[matrix.argmin(axis=1)])


@pytest.mark.parametrize("distance", OF_NOT_NEGATIVE)
def test_distances_of_numbers_that_are_not_negative_refuse_decibels(distance: str) -> None:
    with pytest.raises(ValueError, match=f"distance='{distance}' compares numbers that are not negative"):
        make_policy("fingerprint", feature="rss-db", distance=distance)


def test_spectra_have_their_own_criterion() -> None:
    with pytest.raises(ValueError, match="feature='joint-db' has its own criterion"):
        make_policy("fingerprint", distance="manhattan")
