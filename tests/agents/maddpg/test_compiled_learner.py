"""The compiled kernel's updates are those of the tensor operations, for every kind of critic, sharing and size."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from agents.maddpg import compiled as compiled_learner
from agents.maddpg.compiled_products import kernels
from agents.maddpg.config import MaddpgConfig
from agents.maddpg.learner import CriticLearner
from agents.maddpg.networks import GameShape
from agents.maddpg.replay import Batch

pytestmark = pytest.mark.skipif(kernels() is None, reason="no compiler here: there is no kernel to compare with")


def _batch(count: int, shape: GameShape, seed: int = 0) -> Batch:
    draw = torch.Generator().manual_seed(seed)

    def normal(size: int) -> torch.Tensor:
        return torch.randn(count, shape.agents, size, generator=draw)

    terminated = torch.rand(count, shape.agents, generator=draw) < 0.3
    return Batch(
        normal(shape.observation_size),
        torch.tanh(normal(shape.action_size)),
        normal(1)[..., 0],
        terminated,
        normal(shape.observation_size),
    )


def _learner(compiled: bool, shape: GameShape, **settings: Any) -> CriticLearner:
    hidden = settings.pop("hidden", (24, 16))
    settings = {"gamma": 0.9, "saturation_penalty": 0.1, "target_smoothing": 0.2, "tau": 0.3, **settings}
    config = MaddpgConfig(actor_hidden=hidden, critic_hidden=hidden, **settings)
    learner = CriticLearner(config, shape, torch.Generator().manual_seed(1))
    learner.compiled = compiled
    return learner


def _no_kernel(*_: object) -> torch.Tensor:
    raise AssertionError("the kernel was asked")


KINDS = [
    (critic, share) for critic in ("concatenated", "permutation-invariant", "own") for share in ("separate", "shared")
]


@pytest.mark.parametrize(("critic", "share"), KINDS)
@pytest.mark.parametrize(
    ("agents", "hidden", "count", "settings"),
    [
        (3, (64, 64), 300, {}),
        (3, (), 20, {"gamma": 0.0}),
        (1, (33, 17, 5), 40, {"twin_critics": True}),
        (30, (20,), 103, {"twin_critics": True, "target_smoothing": 0.0}),
        (300, (16,), 2, {}),
    ],
)
def test_updates_are_those_of_tensor_operations(
    critic: str, share: str, agents: int, hidden: tuple[int, ...], count: int, settings: dict[str, Any]
) -> None:
    shape = GameShape(9 if agents == 300 and critic == "concatenated" else agents, 7, 3)
    one, other = (
        _learner(compiled, shape, critic=critic, share=share, hidden=hidden, **settings) for compiled in (True, False)
    )
    assert one.kernel.serves(_batch(count, shape))
    for seed in range(3):
        mine, theirs = (learner.update(_batch(count, shape, seed)) for learner in (one, other))
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert float(mine[name]) == pytest.approx(float(value), rel=2e-4, abs=2e-6), name
        if seed > 0:
            continue
        for (name, mine_parameter), parameter in zip(one.nets.named_parameters(), other.nets.parameters(), strict=True):
            assert (mine_parameter.grad is None) == (parameter.grad is None)
            if parameter.grad is not None and mine_parameter.grad is not None:
                largest = float(parameter.grad.abs().max())
                assert float((mine_parameter.grad - parameter.grad).abs().max()) <= 2e-5 * largest, name
    # Adam divides by the gradient's size: single weights whose gradient is near 0 may differ.
    for mine_parameter, parameter in zip(one.nets.parameters(), other.nets.parameters(), strict=True):
        assert float((mine_parameter - parameter).detach().abs().mean()) < 1e-6


@pytest.mark.parametrize(("critic", "share"), KINDS)
@pytest.mark.parametrize("twin", [False, True])
def test_gradients_are_those_of_the_losses_in_double_precision(critic: str, share: str, twin: bool) -> None:
    shape = GameShape(5, 7, 3)
    settings: dict[str, Any] = {"critic": critic, "share": share, "twin_critics": twin}
    kernel = _learner(True, shape, grad_clip=0.0, target_smoothing=0.0, **settings)
    exact = CriticLearner(kernel.config, shape, torch.Generator().manual_seed(1), torch.float64)
    exact.nets.load_state_dict(kernel.nets.state_dict())
    # With seed 0 single precision puts one unit of the head on the other side of its ReLU, by either way.
    batch = _batch(200, shape, seed=1)
    given = (batch.observations, batch.actions, batch.rewards, batch.terminated, batch.next_observations)
    kernel.update(batch)
    exact.update(Batch(*(x if x is None or x.dtype is torch.bool else x.double() for x in given)))  # type: ignore[arg-type]
    for name in ("actor", "critics"):
        mine, wanted = (
            torch.cat([x.grad.flatten().double() for x in learner.nets[name].parameters() if x.grad is not None])
            for learner in (kernel, exact)
        )
        assert mine.shape == wanted.shape
        assert float((mine - wanted).norm() / wanted.norm()) < 1e-6, name


def test_the_kernel_is_what_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_learner.CompiledUpdates, "_run", _no_kernel)
    shape = GameShape(3, 7, 3)
    with pytest.raises(AssertionError, match="the kernel was asked"):
        _learner(True, shape).update(_batch(8, shape))
    _learner(False, shape).update(_batch(8, shape))


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_share_the_work(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = GameShape(4, 7, 3)
    alone = _learner(True, shape, critic="permutation-invariant")
    together = copy.deepcopy(alone)
    alone.update(_batch(500, shape))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    together.update(_batch(500, shape))
    for parameter, other in zip(alone.nets.parameters(), together.nets.parameters(), strict=True):
        if parameter.grad is not None and other.grad is not None:
            assert torch.allclose(parameter.grad, other.grad, atol=1e-6)


def test_a_copy_has_networks_of_its_own() -> None:
    shape = GameShape(3, 7, 3)
    learner = _learner(True, shape)
    learner.update(_batch(8, shape))
    twin = copy.deepcopy(learner)
    before = [parameter.detach().clone() for parameter in learner.nets.parameters()]
    twin.update(_batch(8, shape, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(before, learner.nets.parameters(), strict=True))
    learner.update(_batch(8, shape, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(twin.nets.parameters(), learner.nets.parameters(), strict=True))


def test_parameters_that_moved_are_found() -> None:
    shape = GameShape(3, 7, 3)
    learner, moved = (_learner(True, shape) for _ in range(2))
    for seed in range(2):
        learner.update(_batch(8, shape, seed))
        moved.update(_batch(8, shape, seed))
        for parameter in moved.nets.parameters():
            parameter.data = parameter.data.clone()
    assert all(torch.equal(a, b) for a, b in zip(learner.nets.parameters(), moved.nets.parameters(), strict=True))


def test_batches_are_read_where_they_lie() -> None:
    shape = GameShape(3, 7, 3)
    batch = _batch(9, shape)
    apart = Batch(
        *(torch.stack([x, x], -1)[..., 0] for x in (batch.observations, batch.actions, batch.rewards)),
        batch.terminated.mT.contiguous().mT,
        torch.cat([batch.next_observations, batch.next_observations], 1)[:, 3:],  # type: ignore[list-item]
    )
    learner, other = (_learner(True, shape) for _ in range(2))
    learner.update(batch)
    other.update(apart)
    assert all(torch.equal(a, b) for a, b in zip(learner.nets.parameters(), other.nets.parameters(), strict=True))


@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "next_observations"])
def test_what_is_not_a_number_stays_so(name: str) -> None:
    shape = GameShape(3, 7, 3)
    batch = _batch(9, shape)
    getattr(batch, name).fill_(float("nan"))
    batch.terminated.fill_(False)
    assert torch.isnan(_learner(True, shape).update(batch)["loss/critic"])


def test_a_large_joint_layer_is_left_to_tensor_operations() -> None:
    shapes = GameShape(8, 24, 12), GameShape(36, 24, 12)
    assert [_learner(True, shape).kernel.serves(_batch(4, shape)) for shape in shapes] == [True, False]


def test_other_types_are_left_to_tensor_operations() -> None:
    learner = CriticLearner(MaddpgConfig(), GameShape(3, 7, 3), torch.Generator().manual_seed(0), torch.float64)
    assert not learner.kernel.serves(_batch(4, GameShape(3, 7, 3)))
    entities = CriticLearner(
        MaddpgConfig(share="entity", critic="permutation-invariant"),
        GameShape(3, 8, 4, entities=2),
        torch.Generator().manual_seed(0),
    )
    assert not entities.kernel.serves(_batch(4, GameShape(3, 8, 4)))
