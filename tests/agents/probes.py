"""Games whose optimum is known by hand, each isolating one way in which a trainer can be broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import pettingzoo
import torch
from torch import Tensor

from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.scenarios.base import Entities, Scenario, TensorState, Transition
from cfpos_envs.streams import Streams


@dataclass(frozen=True)
class ProbeConfig:
    split: str = "train"
    num_agents: int = 2
    num_ues: int = 1
    rounds: int = 1
    terminates: bool = True


@dataclass
class ProbeState(TensorState):
    observation: Tensor  # [B, n, K * F]
    time: Tensor  # [B]


class Probe(Scenario[ProbeState]):
    """Observations are uniform; subclasses say what is paid."""

    config_class = ProbeConfig
    part_observation, part_action = 2, 1
    state_size = 1

    def __init__(self, config: ProbeConfig, device: Any = "cpu") -> None:
        self.config = config
        self.agents = tuple(f"ap_{index}" for index in range(config.num_agents))
        self.rounds = config.rounds
        self.observation_size = config.num_ues * self.part_observation
        self.action_size = config.num_ues * self.part_action
        if config.num_ues > 1:
            self.entities = Entities(config.num_ues, self.part_observation, self.part_action)
            self.differentiable = True

    def reset(self, streams: Streams, num_envs: int) -> ProbeState:
        shape = (num_envs, len(self.agents), self.observation_size)
        observation = 2.0 * torch.rand(shape, generator=streams["drop"]) - 1.0
        return ProbeState(observation, torch.zeros(num_envs))

    def observe(self, state: ProbeState) -> Tensor:
        return state.observation

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        """[B, n] rewards, or [B, n, K] where the game has entities."""
        raise AssertionError("every probe pays")

    def step(self, state: ProbeState, actions: Tensor) -> Transition[ProbeState]:
        paid = self.pay(state, actions)
        metrics = {}
        if self.entities is not None:
            metrics = {"entity_rewards": paid, "objective": paid.mean(1)}
            paid = paid.sum(-1)
        metrics["score"] = paid.mean(1)
        after = state.replace(time=state.time + 1)
        over = after.time >= self.rounds
        never = torch.zeros_like(over)
        flags = (over, never) if self.config.terminates else (never, over)
        return Transition(after, paid, *flags, metrics)

    def global_state(self, state: ProbeState) -> Tensor:
        return state.time[:, None] / self.rounds

    def estimate(self, state: ProbeState) -> Tensor:
        return torch.zeros(len(state.time), self.config.num_ues, 2)

    def truth(self, state: ProbeState) -> dict[str, Tensor]:
        error = state.time[:, None] + 2.0 * torch.ones(len(state.time), self.config.num_ues)
        return {"true_position": self.estimate(state), "error_m": error, "rmse_m": error[:, 0], "peb_m": error / 2}

    def measurements(self, state: ProbeState) -> None:
        return None

    def encode_estimate(self, state: ProbeState, positions: Tensor) -> Tensor:
        return torch.zeros(len(state.time), len(self.agents), self.action_size)

    def with_estimate(self, state: ProbeState, positions: Tensor) -> ProbeState:
        return state

    def describe(self) -> str:
        return "a probe"

    def fronthaul_bits(self) -> float:
        return 0.0


class Constant(Probe):
    """Always 1."""

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        return torch.ones(actions.shape[:2])


class Seen(Probe):
    """The first observation entry of the agent itself."""

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        return state.observation[..., 0]


class Follow(Probe):
    """Best action: half the first observation entry; per entity where there are several."""

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        parts = state.observation.unflatten(-1, (-1, self.part_observation))
        paid = -((actions - 0.5 * parts[..., 0]) ** 2)
        return paid if self.entities is not None else paid.sum(-1)


class Product(Probe):
    """Every agent earns the product of all actions: no critic that sees its own action alone can predict it."""

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        return actions[..., 0].prod(-1, keepdim=True).expand(-1, len(self.agents))


class Roles(Probe):
    """Equal observations, but agent i's best action is +0.5 for even and -0.5 for odd i."""

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        best = torch.tensor([0.5 if index % 2 == 0 else -0.5 for index in range(len(self.agents))])
        return -((actions[..., 0] - best) ** 2)

    def reset(self, streams: Streams, num_envs: int) -> ProbeState:
        state = super().reset(streams, num_envs)
        return state.replace(observation=torch.zeros_like(state.observation))


class Broken(Probe):
    """NaN from the third round on."""

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        return torch.where(state.time[:, None] >= 2, torch.nan, 1.0).expand(-1, len(self.agents))


class Clock(Probe):
    """The observation is the round, the reward 1 in the last round only."""

    def observe(self, state: ProbeState) -> Tensor:
        shown = (state.time / self.rounds)[:, None, None]
        return shown.expand(-1, len(self.agents), self.observation_size).contiguous()

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        last = (state.time == self.rounds - 1).float()
        return last[:, None].expand(-1, len(self.agents))


class Steady(Probe):
    """The observation never changes and every round pays 1: worth 1 / (1 - gamma) if only the clock ends it."""

    def observe(self, state: ProbeState) -> Tensor:
        return torch.zeros_like(state.observation)

    def pay(self, state: ProbeState, actions: Tensor) -> Tensor:
        return torch.ones(actions.shape[:2])


def probe_env(kind: type[Probe], num_envs: int = 32, seed: int = 0, **config: Any) -> VectorEnv:
    return VectorEnv(kind(ProbeConfig(**config)), num_envs, seed=seed)


class UnequalZoo(pettingzoo.ParallelEnv):
    """A third-party game: agents with different spaces, ``short`` terminates after one round, ``long`` is cut off.

    ``long`` (2 observations, actions in [0, 4] x [-1, 1]) should answer [3, 0]; ``short`` (1 observation, action in
    [-3, -1]) should answer -2.5.
    """

    metadata = {"name": "unequal_v0"}

    def __init__(self, rounds: int = 2) -> None:
        self.possible_agents = ["long", "short"]
        self.agents: list[str] = []
        self.rounds = rounds
        box = gymnasium.spaces.Box
        self._observations = {
            "long": box(-np.inf, np.inf, (2,), np.float32),
            "short": box(0.0, 10.0, (1,), np.float32),
        }
        self._actions = {
            "long": box(np.array([0.0, -1.0], np.float32), np.array([4.0, 1.0], np.float32)),
            "short": box(-3.0, -1.0, (1,), np.float32),
        }

    def observation_space(self, agent: str) -> gymnasium.Space:
        return self._observations[agent]

    def action_space(self, agent: str) -> gymnasium.Space:
        return self._actions[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.random = np.random.default_rng(seed)
        self.agents, self.time = list(self.possible_agents), 0
        return self._see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == set(self.agents)
        for agent, action in actions.items():
            assert self._actions[agent].contains(action)
        self.time += 1
        best = {"long": np.array([3.0, 0.0]), "short": np.array([-2.5])}
        rewards = {agent: -float(((action - best[agent]) ** 2).sum()) for agent, action in actions.items()}
        terminated = {agent: agent == "short" for agent in self.agents}
        truncated = {agent: agent == "long" and self.time >= self.rounds for agent in self.agents}
        observations = self._see()
        infos: dict = {agent: {} for agent in self.agents}
        self.agents = [agent for agent in self.agents if not (terminated[agent] or truncated[agent])]
        return observations, rewards, terminated, truncated, infos

    def _see(self) -> dict:
        return {agent: self._observations[agent].sample() * 0 + self.random.random() for agent in self.agents}


class OwnLimits(pettingzoo.ParallelEnv):
    """A third-party game in which nothing is to be seen and every round pays 1 to whoever acts.

    ``first`` is cut off by a limit of its own after ``limits[0]`` rounds while ``second`` plays on to ``limits[1]``:
    what each of them does is worth 1 / (1 - gamma).

    Args:
        limits: rounds of each agent.
        stays: agents that are done are never taken off ``agents``.
        terminates: ends are terminations.
        forgets: what an agent saw last is not told.
    """

    metadata = {"name": "own_limits_v0"}

    def __init__(
        self,
        limits: tuple[int, int] = (1, 3),
        stays: bool = False,
        terminates: bool = False,
        forgets: bool = False,
    ) -> None:
        self.possible_agents = ["first", "second"]
        self.agents: list[str] = []
        self.limits = dict(zip(self.possible_agents, limits, strict=True))
        self.stays, self.terminates, self.forgets = stays, terminates, forgets

    def observation_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def action_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        self.agents, self.time = list(self.possible_agents), 0
        return {agent: np.zeros(1, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        assert set(actions) == set(self.agents)
        self.time += 1
        over = {agent: self.time >= self.limits[agent] for agent in self.agents}
        never = dict.fromkeys(self.agents, False)
        ends = (over, never) if self.terminates else (never, over)
        seen = {agent: np.zeros(1, np.float32) for agent in self.agents if not (self.forgets and over[agent])}
        rewards, infos = dict.fromkeys(self.agents, 1.0), {agent: {} for agent in self.agents}
        if not self.stays:
            self.agents = [agent for agent in self.agents if not over[agent]]
        return seen, rewards, *ends, infos
