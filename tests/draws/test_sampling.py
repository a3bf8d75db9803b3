"""What is made of the counter's words: distributions, the same numbers in any batch, the same bits compiled or not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cfpos_envs import draws
from cfpos_envs.draws import CounterSource, exact, native

COUNT = 20_000
# Seeds are fixed: a threshold of 1e-5 says by how little a right generator could have failed when they were chosen.
CHANCE = 1e-5


def source(seed: int, episodes: list[int]) -> CounterSource:
    return CounterSource(torch.full((len(episodes),), seed), torch.tensor(episodes))


def flat(drawn: torch.Tensor) -> np.ndarray:
    return drawn.flatten().double().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform(dtype: torch.dtype) -> None:
    drawn = source(1, [0, 1]).uniform(2, COUNT, dtype=dtype)
    assert drawn.dtype == dtype
    assert float(drawn.min()) >= 0.0
    assert float(drawn.max()) < 1.0
    assert stats.kstest(flat(drawn), "uniform").pvalue > CHANCE


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal(dtype: torch.dtype) -> None:
    drawn = source(2, [0, 1]).normal(2, COUNT, dtype=dtype)
    assert drawn.dtype == dtype
    assert stats.kstest(flat(drawn), "norm").pvalue > CHANCE
    # The four parts of a block, of which two share a radius each, know nothing of one another.
    parts = drawn[0].unflatten(0, (4, -1)) if dtype == torch.float32 else drawn[0].unflatten(0, (2, -1))
    assert float(np.abs(np.corrcoef(parts.numpy()) - np.eye(len(parts))).max()) < 5 / math.sqrt(COUNT / 4)
    assert stats.kstest(flat(parts[0] ** 2 + parts[1] ** 2), "chi2", args=(2,)).pvalue > CHANCE


def test_normal_reaches_beyond_five_sigma_at_its_rate() -> None:
    drawn = source(3, [0]).normal(1, 2**21)
    beyond = int((drawn.abs() > 4.5).sum())
    assert stats.binomtest(beyond, 2**21, 2 * stats.norm.sf(4.5)).pvalue > CHANCE


@pytest.mark.parametrize("shape", [0.3, 0.999, 1.0, 2.5, 96.0, 1e4])
def test_gamma(shape: float) -> None:
    drawn = source(4, [0, 1]).gamma(torch.full((2, COUNT), shape))
    assert stats.kstest(flat(drawn), "gamma", args=(shape,)).pvalue > CHANCE


def test_gamma_of_many_shapes_at_once() -> None:
    shapes = torch.linspace(0.2, 200.0, COUNT).expand(2, -1)
    drawn = source(5, [0, 1]).gamma(shapes)
    shares = stats.gamma.cdf(drawn.double().numpy(), shapes.double().numpy())
    assert stats.kstest(shares.ravel(), "uniform").pvalue > CHANCE


def test_complex_normal() -> None:
    drawn = draws.complex_normal(source(6, [0, 1]), 2, COUNT)
    assert drawn.dtype == torch.complex64
    assert stats.kstest(flat(drawn.abs().square()), "expon").pvalue > CHANCE
    assert stats.kstest(flat(drawn.angle() / (2 * math.pi) + 0.5), "uniform").pvalue > CHANCE


def test_whole_numbers_and_permutations() -> None:
    drawn = draws.integers(source(7, [0, 1]), 10, 2, COUNT)
    assert stats.chisquare(np.bincount(drawn.flatten().numpy(), minlength=10)).pvalue > CHANCE
    order = draws.permutation(source(7, [0]), 1000)
    assert sorted(order.tolist()) == list(range(1000))
    assert order.tolist() != list(range(1000))


def test_logarithm_and_sine_are_right() -> None:
    words = torch.tensor([0, 1, 2, 2**31 - 2, 2**31, 2**32 - 1, 12345678])
    cosine, sine = exact.normal32(words, torch.arange(7) * 613566756)
    # Uniform numbers in single precision: the last one is 1.
    share = (((words >> 1).float() + 0.5) * 2.0**-31).double()
    size, angle = (-2 * share.log()).clamp(min=0).sqrt(), torch.arange(7).double() * 613566756 * 2 * math.pi / 2**32
    assert torch.allclose(cosine.double(), size * angle.cos(), atol=1e-6)
    assert torch.allclose(sine.double(), size * angle.sin(), atol=1e-6)


DRAWS: dict[str, Callable[[CounterSource, int], torch.Tensor]] = {
    "words": lambda drawn, rows: drawn.words(13),
    "uniform": lambda drawn, rows: drawn.uniform(rows, 3, 5),
    "uniform64": lambda drawn, rows: drawn.uniform(rows, 3, 5, dtype=torch.float64),
    "normal": lambda drawn, rows: drawn.normal(rows, 3, 5),
    "normal64": lambda drawn, rows: drawn.normal(rows, 3, 5, dtype=torch.float64),
    "complex": lambda drawn, rows: draws.complex_normal(drawn, rows, 7),
    "gamma": lambda drawn, rows: drawn.gamma(torch.linspace(0.1, 3.0, 21).repeat(rows, 1)),
    "integers": lambda drawn, rows: draws.integers(drawn, 100, rows, 9),
}


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    episodes=st.lists(st.integers(0, 2**62), min_size=1, max_size=6),
    order=st.permutations(list(DRAWS)),
)
def test_an_episode_is_the_same_alone_and_in_any_batch(seed: int, episodes: list[int], order: list[str]) -> None:
    together = source(seed, episodes)
    batch = [DRAWS[name](together, len(episodes)) for name in order]
    for row, episode in enumerate(episodes):
        alone = source(seed, [episode])
        for name, drawn in zip(order, batch):
            assert torch.equal(DRAWS[name](alone, 1)[0], drawn[row])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(-(2**63), 2**63 - 1), count=st.integers(1, 700))
def test_compiled_numbers_are_those_of_torch_bit_for_bit(seed: int, count: int) -> None:
    shapes = torch.rand(2, count, generator=torch.Generator().manual_seed(count)) * 4

    def drawn() -> list[torch.Tensor]:
        numbers = source(seed, [0, 2**40])
        return [numbers.uniform(2, count), numbers.normal(2, count), numbers.gamma(shapes), numbers.gamma(shapes * 99)]

    compiled = drawn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "draw", lambda *given: None)
        for one, other in zip(compiled, drawn(), strict=True):
            assert torch.equal(one, other)


def test_threads_change_nothing() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = source(8, list(range(40))).normal(40, 1000)
        torch.set_num_threads(3)
        assert torch.equal(source(8, list(range(40))).normal(40, 1000), one)
    finally:
        torch.set_num_threads(before)


def test_rejected_proposals_take_nothing_from_what_follows() -> None:
    # Shapes just above 1 are rejected most often, large ones hardly ever.
    after = []
    for shape in (1.0, 1e3):
        numbers = source(9, [0])
        numbers.gamma(torch.full((1, 100), shape))
        after.append(numbers.words(4))
    assert torch.equal(*after)


def test_tries_are_places_of_their_own() -> None:
    numbers, whole = source(10, [3, 4]), source(10, [3, 4])
    tries = numbers.tries(3, 2, 8)
    assert [part.words(8).tolist() for part in tries] == [whole.words(8).tolist() for _ in range(3)]
    assert torch.equal(numbers.words(4), whole.words(4))


def test_a_part_of_the_episodes_goes_on_where_all_stand() -> None:
    numbers = source(11, [5, 6, 7])
    numbers.uniform(3, 9)
    part = numbers.select(slice(1, 3))
    assert torch.equal(part.normal(2, 5), numbers.normal(3, 5)[1:])


def test_a_shape_that_episodes_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="7 numbers of shape \\(7,\\) cannot be shared out to 2 episodes"):
        source(12, [0, 1]).uniform(7)


def test_a_generator_gives_what_torch_gives() -> None:
    def fresh() -> torch.Generator:
        return torch.Generator().manual_seed(5)

    shapes = torch.rand(4, 5) + 0.5
    assert torch.equal(draws.uniform(fresh(), 3, 2), torch.rand(3, 2, generator=fresh()))
    assert torch.equal(draws.normal(fresh(), 3, 2), torch.randn(3, 2, generator=fresh()))
    assert torch.equal(draws.complex_normal(fresh(), 6), torch.randn(6, dtype=torch.complex64, generator=fresh()))
    assert torch.equal(draws.gamma(fresh(), shapes), torch._standard_gamma(shapes, generator=fresh()))
    assert torch.equal(draws.integers(fresh(), 9, 4), torch.randint(9, (4,), generator=fresh()))
    assert torch.equal(draws.permutation(fresh(), 9), torch.randperm(9, generator=fresh()))
