"""The counter's integers: published vectors, words by place, independence of neighbours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cfpos_envs.draws import CounterSource, native
from cfpos_envs.draws.philox import Words, philox

ONES = 0xFFFFFFFF
# Counter, key and block: the three known answers for philox4x32 with ten rounds in ``kat_vectors`` of Random123.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def signed(low: int, high: int) -> int:
    """Two words as a 64-bit integer of torch."""
    number = high << 32 | low
    return number - (number >> 63 << 64)


def source(seed: int, episodes: list[int]) -> CounterSource:
    return CounterSource(torch.full((len(episodes),), seed), torch.tensor(episodes))


@pytest.fixture(params=["native", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the compiled twin where there is a compiler, and without it."""
    if request.param == "torch":
        monkeypatch.setattr(native, "draw", lambda *given: None)
    return str(request.param)


@pytest.mark.parametrize(("counter", "key", "block"), PUBLISHED)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], block: tuple[int, ...]) -> None:
    c0, c1, c2, c3 = (torch.tensor(word) for word in counter)
    words: Words = (c0, c1, c2, c3)
    found = philox(words, (torch.tensor(key[0]), torch.tensor(key[1])))
    assert tuple(int(word) for word in found) == block


@pytest.mark.parametrize(("counter", "key", "block"), PUBLISHED)
def test_a_source_counts_blocks_and_episodes_and_is_keyed(
    arithmetic: str, counter: tuple[int, ...], key: tuple[int, int], block: tuple[int, ...]
) -> None:
    drawn = CounterSource(torch.tensor([signed(*key)]), torch.tensor([signed(counter[2], counter[3])]))
    drawn.claim(signed(counter[0], counter[1]))
    assert tuple(drawn.words(4)[0].tolist()) == block


def test_words_follow_one_another_by_word_of_the_blocks(arithmetic: str) -> None:
    blocks = torch.stack([source_at(3, 5, block) for block in range(3)])
    assert source(3, [5]).words(12)[0].tolist() == blocks.T.flatten().tolist()
    assert source(3, [5]).words(10)[0].tolist() == blocks.T.flatten()[:10].tolist()


def source_at(seed: int, episode: int, block: int) -> torch.Tensor:
    drawn = source(seed, [episode])
    drawn.claim(block)
    return drawn.words(4)[0]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    episode=st.integers(0, 2**62),
    first=st.integers(0, 2**40),
    count=st.integers(1, 70),
)
def test_compiled_words_are_those_of_torch(seed: int, episode: int, first: int, count: int) -> None:
    keys, episodes = torch.tensor([seed, 1]), torch.tensor([episode, episode + 1])
    fast, slow = CounterSource(keys, episodes), CounterSource(keys, episodes)
    assert fast.claim(first) == slow.claim(first) == 0
    with pytest.MonkeyPatch.context() as patch:
        expected = slow.words(count)
        patch.setattr(native, "draw", lambda *given: None)
        slow = CounterSource(keys, episodes)
        slow.claim(first)
        assert torch.equal(slow.words(count), expected)
    assert torch.equal(fast.words(count), expected)
    assert int(expected.min()) >= 0
    assert int(expected.max()) < 2**32


NEIGHBOURS = {
    "keys": lambda: (source(11, [0]), source(12, [0])),
    "episodes": lambda: (source(11, [4]), source(11, [5])),
    "high words": lambda: (source(11, [4]), source(11, [4 + 2**32])),
    "draws": lambda: ((drawn := source(11, [4])), drawn),
}


@pytest.mark.parametrize("pair", NEIGHBOURS)
def test_neighbours_are_independent(pair: str) -> None:
    # 2^16 words each: the joint distribution over 16 x 16 cells, and bits that agree; thresholds of 1e-6.
    one, other = NEIGHBOURS[pair]()
    a, b = one.words(2**16)[0], other.words(2**16)[0]
    cells = torch.bincount((a >> 28) * 16 + (b >> 28), minlength=256)
    assert stats.chisquare(cells.numpy()).pvalue > 1e-6
    agreeing = int(sum(int(((~(a ^ b)) >> bit & 1).sum()) for bit in range(32)))
    assert stats.binomtest(agreeing, 32 * 2**16, 0.5).pvalue > 1e-6


def test_every_bit_is_fair() -> None:
    words = source(21, [0]).words(2**16)[0]
    ones = [int((words >> bit & 1).sum()) for bit in range(32)]
    assert min(stats.binomtest(count, 2**16, 0.5).pvalue for count in ones) > 1e-7
