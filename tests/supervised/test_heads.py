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


def mixed(made: BinHead, shares: list[float], places: list[list[float]]) -> torch.Tensor:
    """What a network says that gives each of several places a component and a share."""
    axes = [torch.cat([label[0] for label in made.labels(torch.tensor([place]))]) for place in places]
    return torch.cat([torch.tensor(shares).log(), *(axis.clamp(min=1e-30).log() for axis in axes)])


def test_a_mixture_of_one_is_the_product() -> None:
    plain, place = head(), torch.tensor([[9.0, 0.0, 1.5], [1.0, 20.0, 0.3]])
    outputs = torch.randn(2, 3, plain.size, generator=torch.Generator().manual_seed(0))
    # Two components that say the same, whatever their shares, are one.
    twice = BinHead(HALL, 20, components=2)
    assert twice.size == 2 + 2 * plain.size
    said = torch.cat([torch.tensor([0.3, -0.9]).expand(2, 3, 2), outputs, outputs], dim=-1)
    torch.testing.assert_close(twice.loss(said, place), plain.loss(outputs, place))
    torch.testing.assert_close(twice.position_m(said), plain.position_m(outputs))
    # And by hand: the sum over the axes of the cross-entropy.
    by_hand = torch.zeros(2, 3)
    for logits, labels in zip(outputs.split(plain.counts, dim=-1), plain.labels(place), strict=True):
        by_hand -= (labels[:, None] * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
    torch.testing.assert_close(plain.loss(outputs, place), (by_hand @ torch.tensor([1 / 6, 2 / 6, 3 / 6])).mean())


def test_loss_of_a_mixture_by_hand() -> None:
    made, place = BinHead(HALL, 20, components=2), torch.tensor([[9.0, 0.0, 1.5]])
    said = mixed(made, [0.25, 0.75], [[9.0, 0.0, 1.5], [9.0, 30.0, 1.5]])
    entropy = sum(-float((label * label.clamp(min=1e-30).log()).sum()) for label in made.labels(place))
    # The far component agrees with nothing.
    assert float(made.loss(said[None, None], place)) == pytest.approx(entropy - math.log(0.25), rel=1e-4)


def test_an_answer_is_where_the_mixture_has_most_around_a_mode() -> None:
    made = BinHead(HALL, 20, components=3)
    # Two components at almost one place have more together than the largest one has.
    said = mixed(made, [0.3, 0.3, 0.4], [[5.0, 10.0, 1.0], [7.0, 10.0, 1.0], [15.0, -5.0, 2.0]])
    torch.testing.assert_close(made.position_m(said), torch.tensor([6.0, 10.0, 1.0]), atol=0.03, rtol=0)


def test_modes_that_do_not_belong_together_are_no_answer_of_a_mixture() -> None:
    """Three places, two of which share their x: the likeliest x and the likeliest y are of different places."""
    places = torch.tensor([[2.0, -6.0, 1.5]] * 3 + [[2.0, 8.0, 1.5]] * 3 + [[18.0, 26.0, 1.5]] * 4)
    found = []
    for components in (1, 4):
        made = BinHead(HALL, 20, components)
        start = torch.randn(made.size, generator=torch.Generator().manual_seed(1))
        said = (0.5 * start).requires_grad_()
        optimiser = torch.optim.Adam([said], 0.1)
        for _ in range(150):
            optimiser.zero_grad()
            made.loss(said.expand(len(places), 1, -1), places).backward()
            optimiser.step()
        found.append(float((made.position_m(said.detach()) - places).norm(dim=-1).min()))
    product, mixture = found
    # (2, 26) is 16 m from the next place where anybody is.
    assert product == pytest.approx(16.0, abs=0.5)
    assert mixture < 0.5


def test_marginals_of_a_mixture_are_the_shares_of_its_components() -> None:
    made, places = BinHead(HALL, 20, components=2), [[5.0, 10.0, 1.0], [15.0, -5.0, 2.0]]
    labels = [made.labels(torch.tensor([place])) for place in places]
    for axis, found in enumerate(made.marginals(mixed(made, [0.25, 0.75], places))):
        torch.testing.assert_close(found.exp(), 0.25 * labels[0][axis][0] + 0.75 * labels[1][axis][0])
    outputs = torch.randn(3, head().size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.cat(head().marginals(outputs), dim=-1), outputs)
