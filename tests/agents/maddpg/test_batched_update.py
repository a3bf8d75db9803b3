"""The batched update is the same arithmetic as one network, one optimiser and one loss per agent, written as loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from agents.maddpg import optimisation
from agents.maddpg.config import MaddpgConfig
from agents.maddpg.critics import ConcatenatedCritic, PermutationInvariantCritic, make_critic
from agents.maddpg.learner import CriticLearner, set_learning_rates
from agents.maddpg.networks import BatchedMlp, GameShape
from agents.maddpg.replay import Batch
from scripts.benchmarks import trainers
from scripts.benchmarks.trainer_loop import LoopedMaddpg, plain_net
from scripts.benchmarks.trainer_sizes import Size

SHAPE = GameShape(agents=3, observation_size=4, action_size=2)


def random_batch(seed: int, count: int = 32) -> Batch:
    draw = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw, dtype=torch.float64)

    n, obs, act = SHAPE.agents, SHAPE.observation_size, SHAPE.action_size
    terminated = torch.rand(count, n, generator=draw) < 0.3
    return Batch(
        normal(count, n, obs), torch.tanh(normal(count, n, act)), normal(count, n), terminated, normal(count, n, obs)
    )


@pytest.mark.parametrize("critic", ["concatenated", "own"])
@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("grad_clip", [0.0, 0.05])
def test_three_updates_equal_a_loop_over_agents(critic: str, twin: bool, grad_clip: float) -> None:
    settings: dict[str, Any] = {"actor_hidden": (8,), "critic_hidden": (8, 8), "saturation_penalty": 0.1, "tau": 0.1}
    config = MaddpgConfig(critic=critic, twin_critics=twin, grad_clip=grad_clip, **settings)
    learner = CriticLearner(config, SHAPE, torch.Generator().manual_seed(1), torch.float64)
    plain = LoopedMaddpg(learner)
    for seed in range(3):
        learner.update(random_batch(seed))
        plain.update(random_batch(seed))
    for i in range(SHAPE.agents):
        assert distance(learner.nets["actor"].net, i, plain.actors[i]) < 1e-10
        assert distance(learner.nets["target_actor"].net, i, plain.target_actors[i]) < 1e-10
        for batched, loop in zip(learner.nets["critics"], plain.critics, strict=True):
            assert distance(batched.net, i, loop[i]) < 1e-10
        for batched, loop in zip(learner.nets["target_critics"], plain.target_critics, strict=True):
            assert distance(batched.net, i, loop[i]) < 1e-10


def distance(batched: BatchedMlp, index: int, loop: nn.Module) -> float:
    mine, theirs = plain_net(batched, index).parameters(), loop.parameters()
    return max(float((a - b).detach().abs().max()) for a, b in zip(mine, theirs, strict=True))


def test_steps_are_those_of_the_optimiser_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for kernel in (optimisation._FUSED_ADAM, None):
        monkeypatch.setattr(optimisation, "_FUSED_ADAM", kernel)
        config = MaddpgConfig(actor_hidden=(8,), critic_hidden=(8,))
        learner = CriticLearner(config, SHAPE, torch.Generator().manual_seed(1), torch.float64)
        for seed in range(4):
            set_learning_rates(learner, 1.0 / (1 + seed))
            learner.update(random_batch(seed))
        results.append(list(learner.nets.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_the_work_of_an_update_is_counted_right() -> None:
    size = Size(agents=3, batch=16, hidden=8)
    learner = trainers.learner(size, trainers.CONCATENATED, torch.float64)
    batch = trainers.random_batch(size, torch.float64)
    with FlopCounterMode(display=False) as counter:
        learner.update(batch)
    assert counter.get_total_flops() == trainers.concatenated_flops(size)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
@pytest.mark.parametrize("kind", ["concatenated", "permutation-invariant", "own"])
@pytest.mark.parametrize("share", ["separate", "shared"])
def test_exchanging_the_own_action_equals_evaluating_each_joint_action_anew(
    kind: str, share: str, hidden: tuple[int, ...]
) -> None:
    critic = make_critic(kind, SHAPE, share, hidden, torch.Generator().manual_seed(2), torch.float64)
    batch = random_batch(5)
    own = torch.tanh(random_batch(6).actions).requires_grad_()
    slow = []
    for i in range(SHAPE.agents):
        actions = batch.actions.clone()
        actions[:, i] = own[:, i]
        slow.append(critic(batch.observations, actions)[:, i])
    anew = torch.stack(slow, 1)
    slopes = random_batch(7).rewards
    wanted = torch.autograd.grad(anew, own, slopes)[0]
    values = critic.own_values(batch.observations, batch.actions, own)
    assert torch.allclose(values, anew, atol=1e-12)
    assert torch.allclose(torch.autograd.grad(values, own, slopes)[0], wanted, atol=1e-12)


def test_a_permutation_invariant_critic_ignores_the_order_of_the_others() -> None:
    generator = torch.Generator().manual_seed(3)
    critic = PermutationInvariantCritic(SHAPE, "shared", (8,), generator, torch.float64)
    joint = ConcatenatedCritic(SHAPE, (8,), generator, torch.float64)
    batch = random_batch(7)
    swap = torch.tensor([0, 2, 1])
    for net, same in ((critic, True), (joint, False)):
        before = net(batch.observations, batch.actions)[:, 0]
        after = net(batch.observations[:, swap], batch.actions[:, swap])[:, 0]
        assert torch.allclose(before, after, atol=1e-12) is same


def test_without_discount_there_are_no_target_networks() -> None:
    learner = CriticLearner(MaddpgConfig(gamma=0), SHAPE, torch.Generator().manual_seed(1))
    assert set(learner.nets.keys()) == {"actor", "critics"}


def test_policies_and_targets_wait_for_their_turn() -> None:
    config = MaddpgConfig(policy_delay=3, actor_hidden=(8,), critic_hidden=(8,))
    learner = CriticLearner(config, SHAPE, torch.Generator().manual_seed(1), torch.float64)
    watched = ("actor", "target_actor", "target_critics")
    before = {name: [p.clone() for p in learner.nets[name].parameters()] for name in watched}

    def moved(name: str) -> bool:
        return any(not torch.equal(a, b) for a, b in zip(before[name], learner.nets[name].parameters(), strict=True))

    for seed in range(2):
        learner.update(random_batch(seed))
        assert not any(moved(name) for name in watched)
    learner.update(random_batch(2))
    assert all(moved(name) for name in watched)


class _NoHost(TorchDispatchMode):
    """Refuses whatever makes the host wait for a number of a tensor: item(), bool(), float(), cpu() and numpy()."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("asks", [Tensor.item, bool, float, lambda flag: torch.ones(1)[flag]])
def test_the_guard_against_waiting_sees_who_asks(asks: Any) -> None:
    with pytest.raises(AssertionError, match="waits"), _NoHost():
        asks(torch.ones(1)[0] > 0)


@pytest.mark.parametrize("critic", ["concatenated", "permutation-invariant", "own"])
@pytest.mark.parametrize("share", ["separate", "shared", "entity"])
def test_an_update_never_waits_for_a_number(critic: str, share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MaddpgConfig(critic=critic, share=share, twin_critics=True, target_smoothing=0.1)
    learner = CriticLearner(config, SHAPE, torch.Generator().manual_seed(1), torch.float64)
    learner.update(random_batch(0))  # makes the optimisers' state
    batch = random_batch(1)

    def refuse(self: Tensor, *args: Any, **kwargs: Any) -> None:
        raise AssertionError("fetched to the host")

    for name in ("cpu", "numpy", "item", "tolist", "__bool__", "__float__", "__array__"):
        monkeypatch.setattr(Tensor, name, refuse)
    with _NoHost():
        learner.update(batch)


def test_the_untrained_policy_is_near_the_neutral_action() -> None:
    learner = CriticLearner(MaddpgConfig(), SHAPE, torch.Generator().manual_seed(1))
    assert learner.actor(torch.randn(100, 3, 4, generator=torch.Generator().manual_seed(2))).abs().max() < 0.02
