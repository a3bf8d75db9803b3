"""Any PettingZoo parallel environment with Box actions, behind the interface of our batched environments."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.base import BatchedEnv, VectorStep
from cfpos_envs.front_ends.resets import Options, Seed, episode_seeds, is_single, reset_mask
from cfpos_envs.streams import derive_seed


@runtime_checkable
class PettingZooGame(Protocol):
    """PettingZoo's parallel interface, as far as it is used here."""

    possible_agents: list[str]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin an episode: observations and infos by agent."""

    def step(self, actions: dict[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Play a round: observations, rewards, terminations, truncations and infos by agent."""

    def observation_space(self, agent: str) -> Space[Any]:
        """What an agent sees."""

    def action_space(self, agent: str) -> Space[Any]:
        """What an agent does."""


class PettingZooVectorEnv(BatchedEnv):
    """One episode at a time of an external game, as tensors [1, n, dim].

    Actions in [-1, 1] are stretched to each agent's Box; bounded observations are squeezed into [-1, 1], unbounded
    ones pass as they are. Vectors of agents with smaller spaces are filled up with zeros. An agent that has left (or
    has not come yet) observes zeros, earns nothing and counts as terminated. One that is cut off by a time limit, of
    its own or of all, is not terminated in the round that it played last: its value goes on from what it saw then. The
    step metrics hold ``agent_terminated`` [1, n], ``agent_valid`` [1, n], false where there is nothing to learn because
    the agent did not act in the round or nobody knows what followed, and ``score``, the mean return of the agents so
    far. The episode is over when no agent is left or all that are have been terminated or truncated.

    Every episode is started with its own seed, which makes a run resumable for games that are deterministic given
    their seed: the state that is saved is the seed and the actions of the running episode, and loading replays them.

    Args:
        env: a PettingZoo parallel environment.
        seed: start of the sequence of episode seeds.

    Raises:
        ValueError: no agents, or a space that is not a Box (actions: with finite bounds).
    """

    num_envs = 1
    agents_leave: ClassVar[bool] = True

    def __init__(self, env: PettingZooGame, seed: int = 0) -> None:
        self.env: Any = env  # ``agents`` is there only after the first reset
        self.device = torch.device("cpu")
        self.agents = tuple(env.possible_agents)
        if not self.agents:
            raise ValueError("the environment has no possible_agents; MADDPG needs at least one.")
        self.env_id = str(getattr(env, "metadata", {}).get("name", type(env).__name__))
        self._observations = {agent: _checked_box(env.observation_space(agent), agent, False) for agent in self.agents}
        self._actions = {agent: _checked_box(env.action_space(agent), agent, True) for agent in self.agents}
        self.observation_size = max(_size(box) for box in self._observations.values())
        self.action_size = max(_size(box) for box in self._actions.values())
        self._seed, self._episode = seed, 0
        self._returns = torch.zeros(1)
        self._terminated = torch.zeros(1, len(self.agents), dtype=torch.bool)
        self._left = torch.zeros_like(self._terminated)
        self._history: list[Tensor] = []
        self._done = True

    def reset(self, seed: Seed = None, options: Options = None) -> Float[Tensor, "1 n obs"]:
        """Start the next episode; an integer, or a list of one, restarts the sequence of episode seeds."""
        reset_mask(options, 1)
        first = seed if seed is None or is_single(seed) else episode_seeds(seed, 1)[0]
        if first is not None:
            self._seed, self._episode = operator.index(first), 0  # type: ignore[arg-type]
        self._episode += 1
        return self._start()

    def step(self, actions: Float[Tensor, "1 n act"]) -> VectorStep:
        """Play one round.

        Raises:
            ValueError: wrong shape, NaN or infinite actions.
            RuntimeError: the episode is over.
        """
        if self._done:
            raise RuntimeError("the episode is over; call reset() before step().")
        if tuple(actions.shape) != (1, len(self.agents), self.action_size) or not bool(torch.isfinite(actions).all()):
            raise ValueError(
                f"actions must be finite and of shape {(1, len(self.agents), self.action_size)}, "
                f"not {tuple(actions.shape)}."
            )
        self._history.append(actions.detach().clone())
        present = list(self.env.agents)
        observations, rewards, terminations, truncations, _ = self.env.step(self.unpack(actions, present))
        reward = self._by_agent(rewards)
        # An agent that did not act in this round has left the episode, or has not come yet.
        acted = self._named(present) & ~self._left
        ended, cut = self._by_agent(terminations).bool(), self._by_agent(truncations).bool()
        self._terminated = ~acted | ended
        self._left |= ended | cut
        # Some games keep the names of agents that are done, and would play on with them for ever.
        self._done = bool((self._left | ~self._named(self.env.agents)).all())
        self._returns = self._returns + reward.mean(1)
        all_terminated = self._terminated.all(1) if self._done else torch.zeros(1, dtype=torch.bool)
        truncated = torch.tensor([self._done]) & ~all_terminated
        valid = acted & (ended | self._named(observations))
        metrics = {"score": self._returns, "agent_terminated": self._terminated, "agent_valid": valid}
        return VectorStep(self.pack(observations), reward, all_terminated, truncated, metrics)

    def pack(self, observations: Mapping[str, np.ndarray]) -> Float[Tensor, "1 n obs"]:
        """Observations by agent name as one padded tensor; absent agents see zeros."""
        packed = np.zeros((1, len(self.agents), self.observation_size), dtype=np.float32)
        for index, agent in enumerate(self.agents):
            if agent in observations:
                box = self._observations[agent]
                packed[0, index, : _size(box)] = _squeeze(np.asarray(observations[agent]), box)
        return torch.from_numpy(packed)

    def unpack(self, actions: Float[Tensor, "1 n act"], agents: Sequence[str]) -> dict[str, np.ndarray]:
        """The actions of ``agents`` by name, in their own spaces."""
        values = actions[0].detach().cpu().numpy().astype(np.float64)
        return {agent: _stretch(values[self.agents.index(agent)], self._actions[agent]) for agent in agents}

    def sibling(self, num_envs: int, seed: int, split: str | None = None) -> PettingZooVectorEnv:
        """A second, independent copy of the game, one episode at a time too.

        Raises:
            ValueError: the environment cannot be copied.
        """
        try:
            return PettingZooVectorEnv(copy.deepcopy(self.env), seed)
        except (TypeError, RuntimeError, NotImplementedError) as error:
            raise ValueError(
                f"{self.env_id} cannot be copied for evaluation ({error}); train it with evaluations=0."
            ) from None

    def state_dict(self) -> State:
        """Seeds and the actions of the running episode."""
        return {"seed": self._seed, "episode": self._episode, "history": list(self._history), "done": self._done}

    def load_state_dict(self, state: State) -> None:
        """Start the stored episode again and replay its actions."""
        self._seed, self._episode = int(state["seed"]), int(state["episode"])
        self._done = True
        self._history = []
        if self._episode:
            self._start()
            for actions in state["history"]:
                self.step(actions)

    def _by_agent(self, values: Mapping[str, Any]) -> Float[Tensor, "1 n"]:
        return torch.tensor([[float(values.get(agent, 0.0)) for agent in self.agents]])

    def _named(self, agents: Collection[str]) -> Bool[Tensor, "1 n"]:
        return torch.tensor([[agent in agents for agent in self.agents]])

    def _start(self) -> Tensor:
        observations, _ = self.env.reset(seed=derive_seed(self._seed, "episode", self._episode) % 2**31)
        self._returns = torch.zeros(1)
        self._left = torch.zeros_like(self._left)
        self._history = []
        self._done = False
        return self.pack(observations)


def _checked_box(space: Space[Any], agent: str, bounded: bool) -> Box:
    kind = "action" if bounded else "observation"
    if not isinstance(space, Box):
        raise ValueError(f"the {kind} space of {agent} is {type(space).__name__}; MADDPG needs a Box.")
    if bounded and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(f"the action space of {agent} is unbounded; give its Box finite low and high.")
    return space


def _size(box: Box) -> int:
    return int(np.prod(box.shape))


def _squeeze(observation: np.ndarray, box: Box) -> np.ndarray:
    flat, low, high = observation.astype(np.float64).ravel(), box.low.ravel(), box.high.ravel()
    bounded = np.isfinite(low) & np.isfinite(high) & (high > low)
    # Limits as wide as float32 itself are no limits: dividing by them would squeeze everything to zero.
    bounded &= np.maximum(np.abs(low), np.abs(high)) < 1e6
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = 2.0 * (flat - low) / (high - low) - 1.0
    return np.where(bounded, scaled, flat)


def _stretch(action: np.ndarray, box: Box) -> np.ndarray:
    low, high = box.low.ravel().astype(np.float64), box.high.ravel().astype(np.float64)
    share = (np.clip(action[: low.size], -1.0, 1.0) + 1.0) / 2.0
    return np.clip((low + share * (high - low)).astype(box.dtype), box.low.ravel(), box.high.ravel()).reshape(box.shape)
