"""Playing rounds and learning from them; everything that a run's next round depends on lives in one of these."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.base import VectorStep
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.streams import derive_seed

from ..training import Round
from .exploration import ActionNoise
from .learner import CriticLearner, ModelLearner, set_learning_rates
from .policies import MaddpgPolicies
from .replay import Batch, Replay
from .schedules import cosine_factor, noise_scale


class CriticRollout:
    """Explore, store, update: one call of ``play`` per round.

    Args:
        agent: with a learned critic.
    """

    def __init__(self, agent: MaddpgPolicies) -> None:
        config = agent.config
        assert isinstance(agent.learner, CriticLearner)
        self.agent, self.learner = agent, agent.learner
        self._game, pairs = agent.shape, 1
        if config.samples_rows:
            self._game, pairs = agent.shape.rows, agent.shape.agents * agent.shape.entities
        self.replay = Replay(
            config.buffer_size * pairs,
            self._game.agents,
            self._game.observation_size,
            self._game.action_size,
            keep_next=config.gamma > 0,
            generator=_generator(config.seed, "replay", config.device),
            device=config.device,
            keep_acted=agent.env.agents_leave,
        )
        self.noise = ActionNoise(config.noise, _generator(config.seed, "noise", config.device), config.ou_theta)
        self.observations: Tensor | None = None
        self.ended: Tensor | None = None
        self.rounds = 0

    def play(self, steps: int, fraction: float) -> list[Round]:
        """One round of all parallel episodes, and the updates that are due; see ``agents.training.Rollout``."""
        agent, config, env = self.agent, self.agent.config, self.agent.env
        noise, rate = _scheduled(agent, fraction)
        observations = self._begin() if self.observations is None else self.observations
        actions = self._explore(observations, steps, noise)
        step = env.step(actions)
        self._remember(observations, actions, step)
        self.observations = step.observations.to(config.device)
        over = step.terminated | step.truncated
        self.ended = over if self.ended is None else self.ended | over
        done = bool(self.ended.all())
        if done:
            self.observations = None
        self.rounds += 1
        scalars: dict[str, Tensor] = {}
        enough = steps >= config.warmup_steps and self.replay.size >= config.batch_size
        if enough and self.rounds % config.update_every == 0:
            for _ in range(config.updates_per_step):
                scalars.update(self.learner.update(self._sample(agent)))
        return [Round(step.rewards, step.metrics, scalars, done, {"explore/noise": noise, "rate/actor": rate})]

    def state_dict(self) -> State:
        """Everything that decides how the run goes on."""
        return {
            "learner": self.learner.state_dict(),
            "replay": self.replay.state_dict(),
            "noise": self.noise.state_dict(),
            "env": self.agent.env.state_dict(),
            "observations": self.observations,
            "ended": self.ended,
            "rounds": self.rounds,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state_dict``."""
        self.learner.load_state_dict(state["learner"])
        self.replay.load_state_dict(state["replay"])
        self.noise.load_state_dict(state["noise"])
        self.agent.env.load_state_dict(state["env"])
        self.observations, self.ended = state["observations"], state["ended"]
        self.rounds = int(state["rounds"])

    def close(self) -> None:
        """Nothing is open."""

    def _begin(self) -> Tensor:
        self.noise.reset()
        self.ended = None
        return self.agent.env.reset().to(self.agent.config.device)

    def _explore(self, observations: Tensor, steps: int, noise_scale: float) -> Tensor:
        shape = (*observations.shape[:2], self.agent.shape.action_size)
        if steps < self.agent.config.warmup_steps:
            return self.noise.uniform(shape)
        actions = self.agent.act_batch(observations)
        return (actions + noise_scale * self.noise.sample(shape)).clamp(-1.0, 1.0)

    def _remember(self, observations: Tensor, actions: Tensor, step: VectorStep) -> None:
        config = self.agent.config
        running = slice(None) if self.ended is None or not self.ended.any() else ~self.ended
        acted = step.metrics["agent_valid"] if self.replay.keep_acted else None
        if self.agent.normaliser is not None:
            self.agent.normaliser.update(observations[running])
        valid = step.metrics.get("entity_valid") if config.samples_rows else None
        valid = None if valid is None else valid.flatten(1)
        counted = acted if valid is None else valid
        rewards = scale_rewards(self._rewards(step), config.reward_normalisation, config.reward_clip, counted)
        # Where agents leave a game one by one, each has its own end.
        terminated = step.metrics.get("agent_terminated")
        if terminated is None:
            terminated = step.terminated[:, None].expand_as(rewards)
        following = step.observations if self.replay.keep_next else None
        # Single pairs are games of one agent, however many of them a round holds.
        agents = self.replay.agents
        self.replay.add(
            observations[running].reshape(-1, agents, self._game.observation_size),
            actions[running].reshape(-1, agents, self._game.action_size),
            rewards[running].reshape(-1, agents),
            terminated[running].reshape(-1, agents),
            None if following is None else following[running].reshape(-1, agents, self._game.observation_size),
            None if valid is None else valid[running].flatten(),
            None if acted is None else acted[running],
        )

    def _rewards(self, step: VectorStep) -> Float[Tensor, "B rewards"]:
        if not self.agent.config.samples_rows:
            return step.rewards
        if "entity_rewards" not in step.metrics:
            raise ValueError("share=entity critic=own needs entity_rewards from the environment; use another critic.")
        return step.metrics["entity_rewards"].flatten(1)

    def _sample(self, agent: MaddpgPolicies) -> Batch:
        batch = self.replay.sample(agent.config.batch_size)
        if agent.normaliser is None:
            return batch
        following = batch.next_observations
        return Batch(
            agent.normaliser(batch.observations),
            batch.actions,
            batch.rewards,
            batch.terminated,
            None if following is None else agent.normaliser(following),
            batch.acted,
        )


class ModelRollout:
    """Play with the present actor and ascend the environment's objective in every round.

    Args:
        agent: with ``critic=model``.
    """

    def __init__(self, agent: MaddpgPolicies) -> None:
        assert isinstance(agent.learner, ModelLearner)
        assert isinstance(agent.env, VectorEnv)
        self.agent, self.learner, self.env = agent, agent.learner, agent.env
        self.running = False

    def play(self, steps: int, fraction: float) -> list[Round]:
        """One round and one gradient step, without exploration; see ``agents.training.Rollout``."""
        del steps
        agent, env = self.agent, self.env
        noise, rate = _scheduled(agent, fraction)
        observations = env.observe() if self.running else env.reset()
        if agent.normaliser is not None:
            agent.normaliser.update(observations)
        transition, scalars = self.learner.play(env.scenario, env.game_state, agent.normalise(observations))
        env.game_state = transition.state
        done = bool((transition.terminated | transition.truncated).all())
        self.running = not done
        metrics = {name: value.detach() for name, value in transition.metrics.items()}
        logged = {"explore/noise": noise, "rate/actor": rate}
        return [Round(transition.reward.detach(), metrics, scalars, done, logged)]

    def state_dict(self) -> State:
        """Everything that decides how the run goes on."""
        return {"learner": self.learner.state_dict(), "env": self.agent.env.state_dict(), "running": self.running}

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state_dict``."""
        self.learner.load_state_dict(state["learner"])
        self.agent.env.load_state_dict(state["env"])
        self.running = bool(state["running"])

    def close(self) -> None:
        """Nothing is open."""


def scale_rewards(
    rewards: Float[Tensor, "B units"], normalise: bool, clip: float, valid: Bool[Tensor, "B units"] | None = None
) -> Float[Tensor, "B units"]:
    """Rewards as they are learned from: divided by the mean |r| of the batch's valid units if asked for, then clipped
    if ``clip`` > 0."""
    if normalise:
        counted = rewards if valid is None else rewards[valid]
        rewards = rewards / counted.abs().mean().clamp_min(1e-8)
    return rewards.clamp(-clip, clip) if clip > 0 else rewards


def _scheduled(agent: MaddpgPolicies, fraction: float) -> tuple[float, float]:
    """Sets the learning rates for a part of the run; the noise and the actors' rate then."""
    config = agent.config
    factor = cosine_factor(fraction, config.final_lr_factor)
    set_learning_rates(agent.learner, factor)
    noise = noise_scale(fraction, config.noise_start, config.noise_end, config.noise_fraction)
    return noise, config.lr_actor * factor


def _generator(seed: int, name: str, device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(derive_seed(seed, name))
