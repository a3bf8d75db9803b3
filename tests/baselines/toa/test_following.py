"""Ranges one at a time: a walking user is followed, users do not disturb each other, the stated region holds."""

from __future__ import annotations

import numpy as np
import pytest

from baselines.toa.following import follow_ranges
from cfpos_envs.measurements.base import PositionEstimate, Reason

APS = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 15.0], [20.0, 15.0], [10.0, 7.0]])
STD_M = 0.1


def walk(seconds: float = 30.0, seed: int = 0, drop_m: float = 0.0) -> tuple[np.ndarray, ...]:
    """Anchors asked in turn every 20 ms of somebody who walks along an arc: ap, range, time, place."""
    generator = np.random.default_rng(seed)
    time = np.arange(0.0, seconds, 0.02)
    ap = np.arange(len(time)) % len(APS)
    place = np.stack((10 + 5 * np.cos(0.2 * time), 7 + 5 * np.sin(0.2 * time)), axis=1)
    ranges = np.hypot(np.linalg.norm(place - APS[ap], axis=1), drop_m) + STD_M * generator.standard_normal(len(time))
    return ap, ranges, time, place


def errors_m(found: PositionEstimate, place: np.ndarray) -> np.ndarray:
    return np.linalg.norm(found.position.numpy() - place, axis=1)


def test_a_walking_user_is_followed_link_by_link() -> None:
    ap, ranges, time, place = walk()
    found = follow_ranges(APS, ap, ranges, np.full(len(ap), STD_M), time)
    later = time > 3
    assert found.valid[later].all()
    # A snapshot of five links has a root mean square error of about 2 sigma / sqrt(5) = 0.09 m, and it is late: here
    # the user is where it is at the time of each link.
    assert np.sqrt(np.mean(errors_m(found, place)[later] ** 2)) < 0.1
    off = found.position.numpy() - place
    assert found.covariance is not None
    squared = np.einsum("ni,nij,nj->n", off, np.linalg.inv(found.covariance.numpy()), off)[later]
    # Consecutive errors belong together: 27 s hold some 50 independent ones.
    assert 0.75 < (squared <= -2 * np.log(0.1)).mean() <= 1.0


def test_before_the_first_fix_nothing_is_valid() -> None:
    ap, ranges, time, _ = walk(seconds=2.0)
    found = follow_ranges(APS, ap, ranges, np.full(len(ap), STD_M), time, start_s=0.5)
    assert not found.valid[:5].any()
    assert found.valid[10:].all()
    lonely = follow_ranges(APS, ap[:2], ranges[:2], np.full(2, STD_M), time[:2])
    assert lonely.reason is not None
    assert lonely.reason.tolist() == [int(Reason.TOO_FEW_LINKS)] * 2


def test_two_users_and_any_order_are_two_runs() -> None:
    one, two = walk(seed=1, seconds=5.0), walk(seed=2, seconds=5.0)
    both = [np.concatenate(pair) for pair in zip(one, two)]
    user = np.repeat(["b", "a"], len(one[0]))
    shuffled = np.random.default_rng(0).permutation(len(user))
    ap, ranges, time, _ = (values[shuffled] for values in both)
    found = follow_ranges(APS, ap, ranges, np.full(len(ap), STD_M), time, user=user[shuffled])
    alone = follow_ranges(APS, *one[:2], np.full(len(one[0]), STD_M), one[2])
    back = np.argsort(shuffled)[: len(one[0])]
    np.testing.assert_allclose(found.position.numpy()[back], alone.position.numpy(), rtol=1e-12)


def test_a_range_that_is_far_too_long_moves_little() -> None:
    ap, ranges, time, place = walk(seconds=10.0)
    spoilt = ranges.copy()
    spoilt[250] += 8.0
    found = follow_ranges(APS, ap, spoilt, np.full(len(ap), STD_M), time)
    assert errors_m(found, place)[250] < 0.5


def test_heights_are_taken_into_account() -> None:
    ap, ranges, time, place = walk(seconds=5.0, drop_m=2.0)
    std = np.full(len(ap), STD_M)
    aps = np.column_stack((APS, np.full(len(APS), 3.0)))
    for told in ({"height_diff_m": 2.0}, {"ap_height_m": 3.0, "user_height_m": 1.0}):
        assert errors_m(follow_ranges(APS, ap, ranges, std, time, **told), place)[100:].max() < 0.4
    assert errors_m(follow_ranges(aps, ap, ranges, std, time, user_height_m=1.0), place)[100:].max() < 0.4


def test_what_cannot_be() -> None:
    ap, ranges, time, _ = walk(seconds=1.0)
    std = np.full(len(ap), STD_M)
    with pytest.raises(ValueError, match=r"range_m must be \[50 links\] and positive"):
        follow_ranges(APS, ap, -ranges, std, time)
    with pytest.raises(ValueError, match=r"std_m must be \[50 links\] and positive"):
        follow_ranges(APS, ap, ranges, 0 * std, time)
    with pytest.raises(ValueError, match="acceleration_m_s2=0"):
        follow_ranges(APS, ap, ranges, std, time, acceleration_m_s2=0.0)
