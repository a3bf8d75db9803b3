"""The two ways of improving the actors: MADDPG's learned critics, and ascent of the environment's own objective."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..memory import keep_freed_memory
from .compiled import CompiledUpdates, Networks, Settings
from .config import MaddpgConfig
from .critics import Critic, make_critic
from .networks import Actor, GameShape
from .optimisation import Trained
from .replay import Batch

# A pre-tanh output beyond this puts the action within 1 % of its limit.
_SATURATED = 2.65
# Common networks take the samples in parts of so many agents' vectors, whose activations stay in the cache: beyond it
# the time would grow faster than the number of agents.
_COLUMNS_AT_ONCE = 10_000


def bellman_targets(
    rewards: Float[Tensor, "N n"], terminated: Bool[Tensor, "N n"], next_values: Float[Tensor, "N n"], gamma: float
) -> Float[Tensor, "N n"]:
    """Targets y = r + gamma (1 - terminated) Q'(s', mu'(s')): a time limit ends an episode, not its value."""
    return rewards + gamma * next_values * (~terminated).to(rewards)


def saturation(pre_tanh: Tensor) -> Tensor:
    """The fraction of actions within 1 % of their limits."""
    return (pre_tanh.detach().abs() > _SATURATED).to(pre_tanh).mean()


class _Part(NamedTuple):
    """Some of a batch's samples, with what critics and actors read."""

    batch: Batch
    observations: Tensor  # [n, obs, N]
    joint: Tensor


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

    Attributes:
        kernel: the compiled kernel on this learner's networks.
        compiled: whether it does the updates that it can do.
    """

    def __init__(
        self,
        config: MaddpgConfig,
        shape: GameShape,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.shape, self.generator = config, shape, generator
        self.compiled = True
        keep_freed_memory()
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
        self.nets.to(config.device)
        self._critics: list[Critic] = _members(self.nets["critics"])
        bootstraps = config.gamma > 0
        networks = Networks(
            self.actor,
            self._critics,
            self.nets["target_actor"] if bootstraps else None,  # type: ignore[arg-type]
            _members(self.nets["target_critics"]) if bootstraps else [],
        )
        self.kernel = CompiledUpdates(networks)
        rates = {"actor": config.lr_actor, "critics": config.lr_critic}
        self._trained = {}
        for name, rate in rates.items():
            target = self.nets[f"target_{name}"] if config.gamma > 0 else None
            self._trained[name] = Trained(self.nets[name], rate, config.grad_clip, target)
            self._trained[name].lead(1.0)
        self.optimisers = {name: trained.optimiser for name, trained in self._trained.items()}
        self.updates = 0

    @property
    def actor(self) -> Actor:
        """The policies."""
        actor = self.nets["actor"]
        assert isinstance(actor, Actor)
        return actor

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One critic update and, every ``policy_delay`` times, one policy and target update.

        Nothing in here asks for a number on the host.

        Returns:
            Scalars for the log.
        """
        self.updates += 1
        weight = self._weight(batch.rewards)
        if self.compiled and self.kernel.pay(batch):
            return self._update_compiled(batch, weight)
        parts = [self._part(part) for part in batch.split(self._samples_at_once(len(batch.rewards)))]
        scalars = self._update_critics(parts, weight)
        if self.updates % self.config.policy_delay == 0:
            scalars.update(self._update_actor(parts, weight))
            self._lead()
        return scalars

    @torch.no_grad()
    def targets(self, batch: Batch) -> Float[Tensor, "N n"]:
        """The values that the critics shall have."""
        if self.config.gamma == 0:
            return batch.rewards
        if batch.next_observations is None:
            raise ValueError("gamma > 0 needs next observations in the replay memory; build it with keep_next=True.")
        following = _batch_last(batch.next_observations)
        actor = self.nets["target_actor"]
        assert isinstance(actor, Actor)
        actions = actor.trace(following)[0].tanh_()
        if self.config.target_smoothing > 0:
            actions = (actions + self._smoothing(actions)).clamp(-1.0, 1.0)
        critics = _members(self.nets["target_critics"])
        joint = critics[0].join(following, actions)
        values = [critic.values(joint)[0] for critic in critics]
        lowest = values[0] if len(values) == 1 else torch.minimum(values[0], values[1])
        return bellman_targets(batch.rewards, batch.terminated, lowest.mT, self.config.gamma)

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

    def _samples_at_once(self, samples: int) -> int:
        if self.config.share == "separate" or self.config.critic == "concatenated":
            # Every agent's matrices, or the large common one, would be read anew for every part.
            return samples
        return max(_COLUMNS_AT_ONCE // self.shape.agents, 1)

    def _part(self, batch: Batch) -> _Part:
        observations = _batch_last(batch.observations)
        return _Part(batch, observations, self._critics[0].join(observations, _batch_last(batch.actions)))

    def _update_critics(self, parts: list[_Part], weight: float) -> dict[str, Tensor]:
        trained, losses, means = self._trained["critics"], [], []
        for part in parts:
            targets = self.targets(part.batch).mT
            for critic in self._critics:
                values, kept = critic.values(part.joint)
                error = values - targets
                losses.append(torch.linalg.vector_norm(error).square())
                means.append(values.mean())
                critic.learn(kept, error.mul_(2.0 * weight))
            trained.collect()
        scalars = {"loss/critic": torch.stack(losses).sum() * weight, "gradient/critic": trained.step()}
        return {**scalars, "value/mean": torch.stack(means[:: len(self._critics)]).mean()}

    def _update_actor(self, parts: list[_Part], weight: float) -> dict[str, Tensor]:
        trained, critic, losses, saturated = self._trained["actor"], self._critics[0], [], []
        for part in parts:
            pre_tanh, actor_kept = self.actor.trace(part.observations)
            own = torch.tanh(pre_tanh)
            values, kept = critic.own_values(part.joint, own)
            penalty = self.config.saturation_penalty / pre_tanh.shape[1]
            losses.append(penalty * torch.linalg.vector_norm(pre_tanh).square() - values.sum())
            saturated.append(saturation(pre_tanh))
            by_own = critic.own_slopes(kept, torch.full_like(values, -weight))
            slopes = torch.ops.aten.tanh_backward(by_own, own)
            self.actor.learn(actor_kept, slopes.add_(pre_tanh, alpha=2.0 * weight * penalty))
            trained.collect()
        scalars = {"loss/actor": torch.stack(losses).sum() * weight, "gradient/actor": trained.step()}
        return {**scalars, "policy/saturation": torch.stack(saturated).mean()}

    def _update_compiled(self, batch: Batch, weight: float) -> dict[str, Tensor]:
        """``update`` by the compiled kernel."""
        config, count = self.config, batch.rewards.numel()
        penalty = config.saturation_penalty / batch.actions.shape[2]
        settings = Settings(config.gamma, weight, penalty, _SATURATED)
        noise = None
        if config.target_smoothing > 0 and config.gamma > 0:
            noise = self._smoothing(batch.actions.permute(1, 2, 0))
        squares, values = self.kernel.critics(batch, settings, noise)
        scalars = {
            "loss/critic": squares.sum() * weight,
            "gradient/critic": self._trained["critics"].step(),
            "value/mean": values[0] / count,
        }
        if self.updates % config.policy_delay == 0:
            outputs, values, saturated = self.kernel.actor(batch, settings).unbind()
            scalars["loss/actor"] = (penalty * outputs - values) * weight
            scalars["gradient/actor"] = self._trained["actor"].step()
            scalars["policy/saturation"] = saturated / batch.actions.numel()
            self._lead()
        return scalars

    def _smoothing(self, actions: Float[Tensor, "n act N"]) -> Float[Tensor, "n act N"]:
        noise = torch.randn(actions.shape, generator=self.generator).to(actions) * self.config.target_smoothing
        limit = self.config.target_smoothing_clip
        return noise.clamp(-limit, limit)

    def _lead(self) -> None:
        for trained in self._trained.values():
            trained.lead(self.config.tau)

    def _weight(self, values: Tensor) -> float:
        """Weight of one agent's value of one sample in a loss: the mean over samples, for separate networks the sum
        over agents (each gets the gradient it would get alone), for a common one the mean."""
        samples = values.numel() / self.shape.agents
        return 1.0 / (samples if self.config.share == "separate" else values.numel())


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
        keep_freed_memory()
        self.nets = nn.ModuleDict({"actor": Actor(shape, config.share, config.actor_hidden, generator, dtype)})
        self.nets.to(config.device)
        self._trained = Trained(self.nets["actor"], config.lr_actor, config.grad_clip, target=None)
        self.optimisers = {"actor": self._trained.optimiser}
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
        parameters = self._trained.parameters
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            # The fused optimiser reads gradients in the memory order of the parameters, whatever their strides say.
            parameter.grad = gradient.contiguous()
        with torch.no_grad():
            norm = self._trained.step()
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


def _batch_last(vectors: Float[Tensor, "N n size"]) -> Float[Tensor, "n size N"]:
    return vectors.permute(1, 2, 0)


def _members(modules: nn.Module) -> list[Any]:
    return list(modules.children())
