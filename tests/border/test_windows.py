"""Links that come one by one, gathered to epochs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfpos_envs.files.windows import gathered


def test_a_turn_of_anchors_is_one_epoch_wherever_a_clock_would_cut() -> None:
    # Windows of 0.1 s from zero would cut the second turn in two.
    times = np.array([0.0, 0.01, 0.02, 0.099, 0.109, 0.119])
    assert gathered(times, np.array([0, 1, 2, 0, 1, 2]), 0.05).tolist() == [0, 0, 0, 1, 1, 1]


def test_an_anchor_that_answers_again_begins_the_next_epoch() -> None:
    assert gathered(np.array([0.0, 0.01, 0.02]), np.array([0, 1, 0]), 1.0).tolist() == [0, 0, 1]


def test_a_window_ends_even_if_nobody_answers_again() -> None:
    assert gathered(np.array([0.0, 0.1, 0.1001]), np.array([0, 1, 2]), 0.1).tolist() == [0, 0, 1]


def test_users_do_not_share_epochs_and_order_does_not_matter() -> None:
    times, aps, users = np.array([0.02, 0.0, 0.01]), np.array([1, 0, 0]), np.array(["a", "a", "b"])
    assert gathered(times, aps, 1.0, users).tolist() == [0, 0, 1]


@pytest.mark.parametrize(("times", "window"), [([0.0, np.nan], 1.0), ([0.0, 1.0], 0.0)])
def test_what_cannot_be(times: list[float], window: float) -> None:
    with pytest.raises(ValueError, match=r"time_s has 1 entries|window_s=0.0 must be above 0"):
        gathered(np.array(times), np.array([0, 0]), window)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(0, 3), st.integers(0, 1)), min_size=1), st.floats(0.01, 3))
def test_no_epoch_is_longer_than_the_window_or_hears_an_anchor_twice(
    links: list[tuple[float, int, int]], window_s: float
) -> None:
    times, aps, users = (np.array(column) for column in zip(*links))
    epoch = gathered(times, aps, window_s, users)
    assert sorted(set(epoch.tolist())) == list(range(epoch.max() + 1))
    for number in range(epoch.max() + 1):
        rows = epoch == number
        assert np.ptp(times[rows]) <= window_s
        assert len(set(aps[rows].tolist())) == rows.sum()
        assert len(set(users[rows].tolist())) == 1
