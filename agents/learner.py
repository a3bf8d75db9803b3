"""The two ways of improving the actors: MADDPG's learned critics, and ascent of the environment's own objective."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from agents.config import MaddpgConfig
from agents.networks import Actor, BatchedMlp, GameShape, make_critic
from agents.replay import Batch

# A pre-tanh output beyond this puts the action within 1 % of its limit.
_SATURATED = 2.65
# Added to gradient norms before dividing by them; the same number as in torch.nn.utils.clip_grad_norm_.
_NORM_FLOOR = 1e-6


def bellman_targets(
    rewards: Float[Tensor, "N n"], terminated: Bool[Tensor, "N n"], next_values: Float[Tensor, "N n"], gamma: float
) -> Float[Tensor, "N n"]:
    """Targets y = r + gamma (1 - terminated) Q'(s', mu'(s')): a time limit ends an episode, not its value."""
    return rewards + gamma * next_values * (~terminated).to(rewards)


def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Polyak step theta' <- theta' + tau (theta - theta') for every parameter, without gradients."""
    with torch.no_grad():
        torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)


def apply_gradients(
    loss: Tensor, module: nn.Module, optimiser: torch.optim.Optimizer, max_norm: float
) -> Float[Tensor, ""]:
    """One optimiser step on ``loss`` for the parameters of ``module`` only.

    Every network of a batch has its own gradient norm, so clipping one agent leaves the others as they are.

    Args:
        loss: scalar.
        module: its ``BatchedMlp`` parts carry the parameters.
        optimiser: over exactly these parameters.
        max_norm: largest norm per network; 0: no clipping.

    Returns:
        The mean gradient norm before clipping.
    """
    parameters = list(module.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        # The fused optimiser reads gradients in the memory order of the parameters, whatever their strides say.
        parameter.grad = gradient.contiguous()
    norms = []
    for net in (part for part in module.modules() if isinstance(part, BatchedMlp)):
        gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
        norm = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        norms.append(norm)
        if max_norm > 0:
            scale = (max_norm / (norm + _NORM_FLOOR)).clamp_max(1.0)[:, None, None]
            for gradient in gradients:
                gradient.mul_(scale)
    optimiser.step()
    return torch.cat(norms).mean()


def saturation(pre_tanh: Tensor) -> Tensor:
    """The fraction of actions within 1 % of their limits."""
    return (pre_tanh.detach().abs() > _SATURATED).to(pre_tanh).mean()


class CriticLearner:
    """MADDPG: deterministic policy gradients through learned critics (Lowe et al. 2017, eqs. 5 and 6).

    Critic: minimise (Q_i(o, a) - y_i)^2. Actor: maximise Q_i(o, a_1, .., mu_i(o_i), .., a_n), the other agents'
    actions coming from the memory. Twin critics, target smoothing and delayed policy updates as in TD3. Without
    discounting there is nothing to bootstrap, and no target network exists.

    Args:
        config: settings.
        shape: the game as the updates see it (``GameShape.rows`` if single pairs are sampled).
        generator: initial weights and target smoothing.
        dtype: of all parameters.
    """

    def __init__(
        self,
        config: MaddpgConfig,
        shape: GameShape,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.shape, self.generator = config, shape, generator
        critics = 2 if config.twin_critics else 1
        self.nets = nn.ModuleDict({"actor": Actor(shape, config.share, config.actor_hidden, generator, dtype)})
        self.nets["critics"] = nn.ModuleList(
            make_critic(config.critic, shape, config.share, config.critic_hidden, generator, dtype)
            for _ in range(critics)
        )
        if config.gamma > 0:
            self.nets["target_actor"] = Actor(shape, config.share, config.actor_hidden, generator, dtype)
            self.nets["target_critics"] = nn.ModuleList(
                make_critic(config.critic, shape, config.share, config.critic_hidden, generator, dtype)
                for _ in range(critics)
            )
            self._move_targets(1.0)
        self.nets.to(config.device)
        self.optimisers = {
            "actor": torch.optim.Adam(self.nets["actor"].parameters(), lr=config.lr_actor, fused=True),
            "critics": torch.optim.Adam(self.nets["critics"].parameters(), lr=config.lr_critic, fused=True),
        }
        self.updates = 0

    @property
    def actor(self) -> Actor:
        """The policies."""
        actor = self.nets["actor"]
        assert isinstance(actor, Actor)
        return actor

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic update and, every ``policy_delay`` times, one policy and target update.

        Returns:
            Scalars for the log.
        """
        self.updates += 1
        scalars = self._update_critics(batch)
        if self.updates % self.config.policy_delay == 0:
            scalars.update(self._update_actor(batch))
            if self.config.gamma > 0:
                self._move_targets(self.config.tau)
        return scalars

    def targets(self, batch: Batch) -> Float[Tensor, "N n"]:
        """The values that the critics shall have."""
        if self.config.gamma == 0:
            return batch.rewards
        if batch.next_observations is None:
            raise ValueError("gamma > 0 needs next observations in the replay memory; build it with keep_next=True.")
        with torch.no_grad():
            actions = self.nets["target_actor"](batch.next_observations)
            if self.config.target_smoothing > 0:
                noise = torch.randn(actions.shape, generator=self.generator).to(actions) * self.config.target_smoothing
                limit = self.config.target_smoothing_clip
                actions = (actions + noise.clamp(-limit, limit)).clamp(-1.0, 1.0)
            values = [critic(batch.next_observations, actions) for critic in _members(self.nets["target_critics"])]
            lowest = values[0] if len(values) == 1 else torch.minimum(values[0], values[1])
            return bellman_targets(batch.rewards, batch.terminated, lowest, self.config.gamma)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers, counters and the state of the random numbers."""
        return {
            "nets": self.nets.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "updates": self.updates,
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.nets.load_state_dict(state["nets"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.updates = int(state["updates"])
        self.generator.set_state(state["generator"])

    def _update_critics(self, batch: Batch) -> dict[str, Tensor]:
        targets = self.targets(batch)
        values = [critic(batch.observations, batch.actions) for critic in _members(self.nets["critics"])]
        loss = torch.stack([self._over_agents((value - targets) ** 2) for value in values]).sum()
        norm = apply_gradients(loss, self.nets["critics"], self.optimisers["critics"], self.config.grad_clip)
        return {"loss/critic": loss.detach(), "gradient/critic": norm, "value/mean": values[0].detach().mean()}

    def _update_actor(self, batch: Batch) -> dict[str, Tensor]:
        pre_tanh = self.actor.pre_tanh(batch.observations)
        critic = _members(self.nets["critics"])[0]
        values = critic.with_own(batch.observations, batch.actions, torch.tanh(pre_tanh))
        penalty = self.config.saturation_penalty * pre_tanh.square().mean(-1)
        loss = self._over_agents(penalty - values)
        norm = apply_gradients(loss, self.actor, self.optimisers["actor"], self.config.grad_clip)
        return {"loss/actor": loss.detach(), "gradient/actor": norm, "policy/saturation": saturation(pre_tanh)}

    def _over_agents(self, losses: Float[Tensor, "N n"]) -> Float[Tensor, ""]:
        # Summed over separate networks every one gets the gradient it would get alone; a common one gets the mean.
        per_agent = losses.mean(0)
        return per_agent.sum() if self.config.share == "separate" else per_agent.mean()

    def _move_targets(self, tau: float) -> None:
        soft_update(self.nets["target_actor"], self.nets["actor"], tau)
        soft_update(self.nets["target_critics"], self.nets["critics"], tau)


class ModelLearner:
    """Analytic critic: the central unit knows its fusion and its score, so the return of a round is a known function.

    One Adam step on -mean(objective) per round of the batch, backpropagated through ``scenario.step``; the state is
    cut between rounds (no discounting), and no exploration is needed.

    Args:
        config: settings.
        shape: the game.
        generator: initial weights.
        dtype: of the parameters.
    """

    def __init__(
        self,
        config: MaddpgConfig,
        shape: GameShape,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.shape, self.generator = config, shape, generator
        self.nets = nn.ModuleDict({"actor": Actor(shape, config.share, config.actor_hidden, generator, dtype)})
        self.nets.to(config.device)
        self.optimisers = {"actor": torch.optim.Adam(self.nets["actor"].parameters(), lr=config.lr_actor, fused=True)}
        self.updates = 0

    @property
    def actor(self) -> Actor:
        """The policies."""
        actor = self.nets["actor"]
        assert isinstance(actor, Actor)
        return actor

    def play(self, scenario: Any, state: Any, observations: Float[Tensor, "B n obs"]) -> tuple[Any, dict[str, Tensor]]:
        """One round with the present actor and one gradient step on its outcome.

        Args:
            scenario: with ``differentiable`` true.
            state: its present state.
            observations: (normalised) observations of that state.

        Returns:
            The transition with its state cut from the graph, and scalars for the log.
        """
        self.updates += 1
        pre_tanh = self.actor.pre_tanh(observations)
        transition = scenario.step(state, torch.tanh(pre_tanh))
        objective = transition.metrics["objective"].mean()
        loss = self.config.saturation_penalty * pre_tanh.square().mean() - objective
        norm = apply_gradients(loss, self.actor, self.optimisers["actor"], self.config.grad_clip)
        transition.state = transition.state.detach()
        scalars = {
            "loss/actor": loss.detach(),
            "gradient/actor": norm,
            "policy/saturation": saturation(pre_tanh),
            "value/objective": objective.detach(),
        }
        return transition, scalars

    def state_dict(self) -> dict[str, Any]:
        """Network, optimiser and counter."""
        return {
            "nets": self.nets.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.nets.load_state_dict(state["nets"])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.updates = int(state["updates"])


def set_learning_rates(learner: CriticLearner | ModelLearner, factor: float) -> None:
    """Set every optimiser to its configured rate times ``factor``."""
    rates = {"actor": learner.config.lr_actor, "critics": learner.config.lr_critic}
    for name, optimiser in learner.optimisers.items():
        for group in optimiser.param_groups:
            group["lr"] = rates[name] * factor


def _members(modules: nn.Module) -> list[Any]:
    return list(modules.children())
