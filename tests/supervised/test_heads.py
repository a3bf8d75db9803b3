"""How networks state positions: labels and read-out of bins against hand-computed values, coverage, both losses."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.supervised.heads import MARGIN_BINS, Area, BinHead, RegressionHead, make_head

HALL = Area((0.0, -10.0, 0.0), (20.0, 30.0, 3.0))


def head(bins: int = 20) -> BinHead:
    """Bins of 2 m, vertical ones of 1 m: 10, 20 and 3 inside."""
    return BinHead(HALL, bins)


def test_bins_cover_the_area_and_a_margin() -> None:
    made = head()
    assert made.counts == [10 + 2 * MARGIN_BINS, 20 + 2 * MARGIN_BINS, 3 + 2 * MARGIN_BINS]
    x, y, z = made.centres_m.split(made.counts)
    assert (float(x[0]), float(x[-1])) == (-7.0, 27.0)
    assert (float(y[MARGIN_BINS]), float(y[-1 - MARGIN_BINS])) == (-9.0, 29.0)
    assert z.diff().tolist() == pytest.approx([1.0] * 10)


def test_labels_of_a_user_in_the_middle_of_a_bin_by_hand() -> None:
    label = head().labels(torch.tensor([[9.0, 0.0, 1.5]]))[0][0]
    # exp(0), exp(-1/2), exp(-2), exp(-9/2) and exp(-8) on both sides, over their sum, 2.5066.
    middle = 4 + MARGIN_BINS
    assert label[middle].item() == pytest.approx(1 / 2.50663, rel=1e-4)
    assert (label[middle + 2] / label[middle]).item() == pytest.approx(math.exp(-2), rel=1e-5)


@given(st.floats(0, 20), st.floats(-10, 30), st.floats(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_network_that_says_the_labels_says_the_place(x: float, y: float, z: float) -> None:
    made, place = head(), torch.tensor([[x, y, z]])
    said = torch.cat([label.clamp(min=1e-30).log() for label in made.labels(place)], dim=-1)
    # The read-out leaves out what lies more than four bins from the mode: a thousandth of a bin.
    torch.testing.assert_close(made.position_m(said), place, atol=4e-3, rtol=0)


def test_two_far_places_are_not_averaged() -> None:
    made = head()
    near, far = (made.labels(torch.tensor([[10.0, place, 1.5]])) for place in (-5.0, 25.0))
    said = torch.cat([(0.6 * a + 0.4 * b).log() for a, b in zip(near, far, strict=True)], dim=-1)
    assert made.position_m(said)[0, 1].item() == pytest.approx(-5.0, abs=0.01)


def test_loss_is_least_where_the_labels_are_said_and_is_their_entropy() -> None:
    made, place = head(), torch.tensor([[9.0, 0.0, 1.5], [1.0, 20.0, 0.3]])
    labels = made.labels(place)
    said = torch.cat([label.clamp(min=1e-30).log() for label in labels], dim=-1)[:, None].requires_grad_()
    loss = made.loss(said, place)
    entropy = sum(-(label * label.clamp(min=1e-30).log()).sum(dim=-1).mean() for label in labels)
    torch.testing.assert_close(loss, entropy)
    (gradient,) = torch.autograd.grad(loss, said)
    assert float(gradient.abs().max()) < 1e-6
    noise = torch.randn(said.shape, generator=torch.Generator().manual_seed(0))
    assert float(made.loss(said.detach() + noise, place)) > float(loss.detach())


def test_the_last_output_weighs_most() -> None:
    made, place = head(), torch.tensor([[9.0, 0.0, 1.5]])
    right = torch.cat([label.clamp(min=1e-30).log() for label in made.labels(place)], dim=-1)[:, None]
    wrong = torch.zeros_like(right)
    early, late = (made.loss(torch.cat(pair, dim=1), place) for pair in ((wrong, right), (right, wrong)))
    alone = [float(made.loss(rows, place)) for rows in (right, wrong)]
    # Weights 1/3 and 2/3.
    assert float(early) == pytest.approx((alone[1] + 2 * alone[0]) / 3, rel=1e-5)
    assert float(late) == pytest.approx((alone[0] + 2 * alone[1]) / 3, rel=1e-5)


def test_places_beyond_the_bins_are_refused() -> None:
    made = head()
    made.check_covers(torch.tensor([[-6.0, 30.0, 1.0], [20.0, -10.0, 3.0]]))
    with pytest.raises(ValueError, match=r"y=-10 to 60 m, the bins from -17 to 37; state the area"):
        made.check_covers(torch.tensor([[0.0, -10.0, 1.0], [0.0, 60.0, 1.0]]))


@pytest.mark.parametrize("kind", ["regression", "bins"])
def test_a_head_has_no_weights_and_no_state_in_files(kind: str) -> None:
    made = make_head(kind, HALL, 20, distance=True)
    assert list(made.parameters()) == []
    assert made.state_dict() == {}
    outputs = torch.zeros(2, 5, made.size)
    assert made.position_m(outputs).shape == (2, 5, 3)


def test_regression_says_units_of_the_area() -> None:
    made = RegressionHead(HALL, distance=True)
    torch.testing.assert_close(made.position_m(torch.tensor([0.5, 0.0, -0.1])), torch.tensor([20.0, 10.0, -0.5]))
