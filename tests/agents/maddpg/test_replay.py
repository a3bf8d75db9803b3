"""The memory gives back what was put in, from everywhere, and the same again after a restart."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.maddpg.exploration import ActionNoise, Normaliser
from agents.maddpg.replay import Replay
from agents.maddpg.rollout import scale_rewards


def replay(capacity: int = 5, seed: int = 0, keep_next: bool = True) -> Replay:
    return Replay(capacity, 2, 3, 1, keep_next, torch.Generator().manual_seed(seed))


def put(memory: Replay, first: int, count: int) -> None:
    """Transitions whose every entry tells their number."""
    number = torch.arange(first, first + count, dtype=torch.float32)[:, None]
    wide = number[:, :, None].expand(-1, 2, 3)
    terminated = (number.expand(-1, 2) % 2) == 1
    memory.add(wide, wide[..., :1] + 0.25, number.expand(-1, 2) + 0.5, terminated, wide + 1)


def test_samples_are_whole_transitions() -> None:
    memory = replay(8)
    put(memory, 0, 6)
    batch = memory.sample(200)
    number = batch.observations[:, :1, 0]
    assert torch.equal(batch.actions[..., 0], (number + 0.25).expand(-1, 2))
    assert torch.equal(batch.rewards, (number + 0.5).expand(-1, 2))
    assert torch.equal(batch.terminated, ((number % 2) == 1).expand(-1, 2))
    assert batch.next_observations is not None
    assert torch.equal(batch.next_observations, batch.observations + 1)
    assert set(number.flatten().tolist()) == set(range(6))


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6))
def test_the_ring_keeps_exactly_the_last_transitions(sizes: list[int]) -> None:
    memory, total = replay(5), 0
    for size in sizes:
        put(memory, total, size)
        total += size
    assert memory.size == min(total, 5)
    kept = set(memory.sample(300).observations[:, 0, 0].int().tolist())
    assert kept == set(range(max(0, total - 5), total))


def test_a_memory_without_next_observations_gives_none() -> None:
    memory = replay(keep_next=False)
    put(memory, 0, 3)
    assert memory.sample(4).next_observations is None
    assert memory.state_dict()["rows"].shape == (3, 2 * (3 + 1 + 1 + 1))


@settings(max_examples=40, deadline=None)
@given(adds=st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=6))
def test_exactly_the_valid_ones_of_the_last_transitions_are_drawn(adds: list[list[bool]]) -> None:
    memory = Replay(5, 1, 1, 1, False, torch.Generator().manual_seed(0))
    number, flags = 0, []
    for valid in adds:
        labels = torch.arange(number, number + len(valid), dtype=torch.float32)[:, None]
        memory.add(labels[..., None], labels[..., None], labels, labels < 0, valid=torch.tensor(valid))
        number, flags = number + len(valid), flags + valid
    wanted = {index for index in range(max(0, number - 5), number) if flags[index]}
    if not wanted:
        with pytest.raises(ValueError, match="empty"):
            memory.sample(1)
    else:
        assert set(memory.sample(300).rewards.flatten().int().tolist()) == wanted


def test_a_restored_memory_draws_the_same_samples() -> None:
    memory, other = replay(), replay(seed=9)
    put(memory, 0, 7)
    memory.sample(3)
    other.load_state_dict(memory.state_dict())
    put(memory, 7, 2)
    put(other, 7, 2)
    assert torch.equal(memory.sample(50).observations, other.sample(50).observations)


def test_a_memory_of_another_shape_is_refused() -> None:
    memory = replay()
    put(memory, 0, 2)
    with pytest.raises(ValueError, match="does not fit"):
        Replay(5, 2, 4, 1, True, torch.Generator()).load_state_dict(memory.state_dict())


def test_an_empty_memory_says_so() -> None:
    with pytest.raises(ValueError, match="empty"):
        replay().sample(1)


def test_ou_noise_has_unit_scale_and_the_promised_memory() -> None:
    noise = ActionNoise("ou", torch.Generator().manual_seed(0), theta=0.2)
    draws = torch.stack([noise.sample((4000,)) for _ in range(60)])[30:]
    assert abs(float(draws.std()) - 1) < 0.02
    assert abs(float((draws[1:] * draws[:-1]).mean()) - 0.8) < 0.02
    noise.reset()
    assert float(noise.sample((4000,)).std()) < 0.65  # sqrt(1 - 0.8^2) = 0.6: starts anew from zero


def test_gaussian_noise_has_unit_scale_and_no_memory() -> None:
    noise = ActionNoise("gaussian", torch.Generator().manual_seed(0))
    draws = torch.stack([noise.sample((4000,)) for _ in range(30)])
    assert abs(float(draws.std()) - 1) < 0.02
    assert abs(float((draws[1:] * draws[:-1]).mean())) < 0.02


def test_running_statistics_equal_those_of_all_data_at_once() -> None:
    data = 3.0 + 2.0 * torch.randn(60, 2, 4, generator=torch.Generator().manual_seed(0))
    for shape in ((2, 4), (4,), (2,)):
        normaliser = Normaliser(shape)
        for part in data.split([1, 9, 50]):
            normaliser.update(part)
        rows = data.reshape(-1, *shape).double()
        wanted = (rows - rows.mean(0)) / rows.std(0, correction=0)
        assert torch.allclose(normaliser(data), wanted.float().reshape(data.shape), atol=1e-5)


def test_rewards_are_normalised_before_they_are_clipped() -> None:
    rewards = torch.tensor([[10.0, -10.0], [1000.0, 20.0]])
    assert torch.allclose(scale_rewards(rewards, True, 2.0), torch.tensor([[10.0, -10.0], [520.0, 20.0]]) / 260)
    assert scale_rewards(rewards, False, 15.0).tolist() == [[10.0, -10.0], [15.0, 15.0]]
    assert torch.equal(scale_rewards(rewards, False, 0.0), rewards)
