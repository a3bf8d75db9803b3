"""The batched update is the same arithmetic as one network, one optimiser and one loss per agent, written as loops."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.config import MaddpgConfig
from agents.critics import ConcatenatedCritic, PermutationInvariantCritic, make_critic
from agents.learner import CriticLearner, bellman_targets
from agents.networks import Actor, BatchedMlp, GameShape
from agents.optimisation import soft_update
from agents.replay import Batch

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


def plain_net(batched: BatchedMlp, index: int) -> nn.Sequential:
    """Network ``index`` of the batch as ordinary layers."""
    layers: list[nn.Module] = []
    for weight, bias in zip(batched.weights, batched.biases, strict=True):
        linear = nn.Linear(weight.shape[2], weight.shape[1], dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(weight[index])
            linear.bias.copy_(bias[index, :, 0])
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PlainMaddpg:
    """MADDPG as a loop over agents, from the same initial weights."""

    def __init__(self, learner: CriticLearner) -> None:
        self.config, nets = learner.config, learner.nets
        agents = range(SHAPE.agents)
        self.actors = [plain_net(nets["actor"].net, i) for i in agents]  # type: ignore[union-attr]
        self.critics = [[plain_net(c.net, i) for i in agents] for c in nets["critics"]]  # type: ignore[union-attr]
        self.target_actors, self.target_critics = copy.deepcopy(self.actors), copy.deepcopy(self.critics)
        self.actor_steps = [torch.optim.Adam(net.parameters(), lr=self.config.lr_actor) for net in self.actors]
        self.critic_steps = [
            [torch.optim.Adam(net.parameters(), lr=self.config.lr_critic) for net in twin] for twin in self.critics
        ]

    def inputs(self, observations: Tensor, actions: Tensor, agent: int) -> Tensor:
        if self.config.critic == "own":
            return torch.cat([observations[:, agent], actions[:, agent]], 1)
        return torch.cat([observations.flatten(1), actions.flatten(1)], 1)

    def update(self, batch: Batch) -> None:
        following = batch.next_observations
        assert following is not None
        next_actions = torch.stack([torch.tanh(net(following[:, i])) for i, net in enumerate(self.target_actors)], 1)
        for i in range(SHAPE.agents):
            with torch.no_grad():
                inputs = self.inputs(following, next_actions, i)
                value = torch.stack([twin[i](inputs)[:, 0] for twin in self.target_critics]).amin(0)
                target = batch.rewards[:, i] + self.config.gamma * value * (~batch.terminated[:, i])
            for twin, steps in zip(self.critics, self.critic_steps, strict=True):
                seen = twin[i](self.inputs(batch.observations, batch.actions, i))[:, 0]
                self.descend(((seen - target) ** 2).mean(), twin[i], steps[i])
        # Simultaneous gradients: every actor sees the actions of the memory, so the order does not matter.
        for i, net in enumerate(self.actors):
            raw = net(batch.observations[:, i])
            actions = batch.actions.clone()
            actions[:, i] = torch.tanh(raw)
            value = self.critics[0][i](self.inputs(batch.observations, actions, i))[:, 0]
            loss = (self.config.saturation_penalty * raw.square().mean(-1) - value).mean()
            self.descend(loss, net, self.actor_steps[i])
        pairs = list(zip(self.target_actors, self.actors, strict=True))
        for olds, news in zip(self.target_critics, self.critics, strict=True):
            pairs += list(zip(olds, news, strict=True))
        for old, new in pairs:
            soft_update(list(old.parameters()), list(new.parameters()), self.config.tau)

    def descend(self, loss: Tensor, net: nn.Module, step: torch.optim.Optimizer) -> None:
        step.zero_grad()
        loss.backward()
        if self.config.grad_clip > 0:
            nn.utils.clip_grad_norm_(net.parameters(), self.config.grad_clip)
        step.step()


@pytest.mark.parametrize("critic", ["concatenated", "own"])
@pytest.mark.parametrize("twin", [False, True])
@pytest.mark.parametrize("grad_clip", [0.0, 0.05])
def test_three_updates_equal_a_loop_over_agents(critic: str, twin: bool, grad_clip: float) -> None:
    settings: dict[str, Any] = {"actor_hidden": (8,), "critic_hidden": (8, 8), "saturation_penalty": 0.1, "tau": 0.1}
    config = MaddpgConfig(critic=critic, twin_critics=twin, grad_clip=grad_clip, **settings)
    learner = CriticLearner(config, SHAPE, torch.Generator().manual_seed(1), torch.float64)
    plain = PlainMaddpg(learner)
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


def batch_last(vectors: Tensor) -> Tensor:
    return vectors.permute(1, 2, 0)


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
    with torch.no_grad():
        joint = critic.join(batch_last(batch.observations), batch_last(batch.actions))
        values, kept = critic.own_values(joint, batch_last(own))
        by_own = critic.own_slopes(kept, slopes.mT)
    assert torch.allclose(values.mT, anew, atol=1e-12)
    assert torch.allclose(by_own, batch_last(wanted), atol=1e-12)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
@pytest.mark.parametrize("kind", ["concatenated", "permutation-invariant", "own"])
@pytest.mark.parametrize("share", ["separate", "shared"])
def test_written_gradients_of_critics_are_those_of_autograd(kind: str, share: str, hidden: tuple[int, ...]) -> None:
    critic = make_critic(kind, SHAPE, share, hidden, torch.Generator().manual_seed(2), torch.float64)
    batch, slopes = random_batch(5), random_batch(7).rewards
    parameters = list(critic.parameters())
    wanted = torch.autograd.grad(critic(batch.observations, batch.actions), parameters, slopes)
    with torch.no_grad():
        values, kept = critic.values(critic.join(batch_last(batch.observations), batch_last(batch.actions)))
        critic.learn(kept, slopes.mT)
    assert values.shape == (SHAPE.agents, 32)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-12)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
@pytest.mark.parametrize("share", ["separate", "shared", "entity"])
def test_written_gradients_of_actors_are_those_of_autograd(share: str, hidden: tuple[int, ...]) -> None:
    shape = GameShape(3, 4, 2, entities=2)
    actor = Actor(shape, share, hidden, torch.Generator().manual_seed(2), torch.float64)
    batch, slopes = random_batch(5), random_batch(7).actions
    parameters = list(actor.parameters())
    outputs = actor.pre_tanh(batch.observations)
    wanted = torch.autograd.grad(outputs, parameters, slopes)
    with torch.no_grad():
        again, kept = actor.trace(batch_last(batch.observations))
        actor.learn(kept, batch_last(slopes))
    assert torch.allclose(again, batch_last(outputs), atol=1e-12)
    for parameter, gradient in zip(parameters, wanted, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-12)


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


def test_bellman_targets_by_hand() -> None:
    targets = bellman_targets(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[True, False]]), torch.tensor([[10.0, 10.0]]), 0.5
    )
    assert targets.tolist() == [[1.0, 7.0]]


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


def test_the_untrained_policy_is_near_the_neutral_action() -> None:
    learner = CriticLearner(MaddpgConfig(), SHAPE, torch.Generator().manual_seed(1))
    assert learner.actor(torch.randn(100, 3, 4, generator=torch.Generator().manual_seed(2))).abs().max() < 0.02
