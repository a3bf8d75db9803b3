"""Positions in space from ranges: exact where they are exact, both sides of anchors in one plane, what decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from baselines.toa.spatial import locate_ranges_in_space
from cfpos_envs.measurements.base import Reason

CEILING = np.array([[0.0, 0.0, 3.0], [10.0, 0.0, 3.0], [0.0, 8.0, 3.0], [10.0, 8.0, 3.0], [5.0, 4.0, 3.0]])
TAGS = np.array([[2.0, 3.0, 1.0], [7.0, 5.0, 1.4]])
IMAGES = np.array([[2.0, 3.0, 5.0], [7.0, 5.0, 4.6]])


def distances(anchors: np.ndarray, tags: np.ndarray = TAGS) -> np.ndarray:
    return np.linalg.norm(tags[:, None] - anchors[None], axis=2)


@pytest.mark.parametrize(
    ("known", "place", "valid"),
    [
        ({}, TAGS, False),
        ({"side": "below"}, TAGS, True),
        ({"side": "above"}, IMAGES, True),
        ({"floor_m": 2.0}, IMAGES, True),
        ({"floor_m": 0.0}, TAGS, False),
    ],
)
def test_a_ceiling_of_anchors_has_two_answers(known: dict[str, Any], place: np.ndarray, valid: bool) -> None:
    found = locate_ranges_in_space(CEILING, distances(CEILING), 0.1, **known)
    np.testing.assert_allclose(found.position.numpy(), place, atol=1e-5)
    assert found.mirror_m is not None
    np.testing.assert_allclose(found.mirror_m.numpy(), IMAGES + TAGS - place, atol=1e-5)
    assert found.valid.tolist() == [valid] * 2
    assert found.reason is not None
    assert found.reason.tolist() == [0 if valid else int(Reason.AMBIGUOUS)] * 2


def test_the_mirror_of_a_tilted_plane() -> None:
    # Anchors on z = x: reflection exchanges x and z.
    anchors = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 6.0], [0.0, 5.0, 0.0], [6.0, 5.0, 6.0]])
    tag = np.array([[4.0, 2.0, 1.0]])
    found = locate_ranges_in_space(anchors, distances(anchors, tag), 0.1, side="below")
    np.testing.assert_allclose(found.position.numpy(), tag, atol=1e-5)
    assert found.mirror_m is not None
    np.testing.assert_allclose(found.mirror_m.numpy(), [[1.0, 2.0, 4.0]], atol=1e-5)


def test_anchors_at_several_heights_decide_themselves() -> None:
    anchors = CEILING.copy()
    anchors[4, 2] = 0.5
    found = locate_ranges_in_space(anchors, distances(anchors), 0.1)
    np.testing.assert_allclose(found.position.numpy(), TAGS, atol=1e-5)
    assert found.valid.all()


def test_errors_are_as_large_as_stated() -> None:
    generator = np.random.default_rng(0)
    anchors = np.concatenate((CEILING, CEILING * [1, 1, 0.1]))
    tags = np.column_stack((generator.uniform(1, 9, 400), generator.uniform(1, 7, 400), generator.uniform(0.8, 2, 400)))
    ranges = distances(anchors, tags) + 0.1 * generator.standard_normal((400, len(anchors)))
    found = locate_ranges_in_space(anchors, ranges, 0.1)
    assert found.covariance is not None
    off = found.position.numpy() - tags
    squared = np.einsum("ni,nij,nj->n", off, np.linalg.inv(found.covariance.numpy()), off)
    # Chi squared of three degrees of freedom: mean 3, standard deviation of the mean of 400 sqrt(6/400) = 0.12.
    assert squared.mean() == pytest.approx(3.0, abs=0.5)
    assert found.valid.float().mean() > 0.98


def test_a_frame_of_the_plane_moves_both_places_and_no_height() -> None:
    found = locate_ranges_in_space(CEILING, distances(CEILING), 0.1, side="below")
    moved = found.moved((100.0, 200.0))
    assert found.mirror_m is not None
    assert moved.mirror_m is not None
    np.testing.assert_allclose(moved.position - found.position, [[100.0, 200.0, 0.0]] * len(found.position))
    np.testing.assert_allclose(moved.mirror_m - found.mirror_m, [[100.0, 200.0, 0.0]] * len(found.position))


def test_too_few_links_and_too_large_residuals() -> None:
    ranges = distances(CEILING)
    ranges[0, 2:] = np.nan
    ranges[1, 0] += 5.0
    found = locate_ranges_in_space(CEILING, ranges, 0.1, side="below")
    assert found.reason is not None
    assert found.reason.tolist() == [int(Reason.TOO_FEW_LINKS), int(Reason.LARGE_RESIDUALS)]


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="side='left' is not one of unknown, below, above"):
        locate_ranges_in_space(CEILING, distances(CEILING), 0.1, side="left")
    with pytest.raises(ValueError, match=r"ap_positions_m has shape \(5, 2\)"):
        locate_ranges_in_space(CEILING[:, :2], distances(CEILING), 0.1)
