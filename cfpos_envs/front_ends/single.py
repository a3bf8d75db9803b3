"""The whole network as one agent: joint observation, joint action, one reward (Gymnasium's interface)."""

from __future__ import annotations

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from cfpos_envs.front_ends.base import Env, Game
from cfpos_envs.front_ends.parallel import ParallelEnv
from cfpos_envs.front_ends.vector import VectorEnv


class SingleAgentEnv(gymnasium.Env[np.ndarray, np.ndarray], Env):
    """One central controller that sees what all agents see and chooses what all agents do.

    Observation: the agents' observations one after another in the order of ``parallel.possible_agents``, float32 in
    [-1, 1], length n * observation_size. Action: likewise, length n * action_size. Reward: see ``joint_reward``.
    The episode is truncated after the scenario's rounds and never terminates earlier by itself. ``info`` holds
    ``true_position``, ``error_m``, ``rmse_m``, ``peb_m`` and ``score`` (NaN at the reset).

    Args:
        parallel: the multi-agent environment to present.
        joint_reward: ``"mean"`` (default: its size does not grow with the number of agents) or ``"sum"`` over agents.

    Raises:
        ValueError: unknown ``joint_reward``.
    """

    metadata = ParallelEnv.metadata
    scenario: Game

    def __init__(self, parallel: ParallelEnv, joint_reward: Literal["mean", "sum"] = "mean") -> None:
        if joint_reward not in ("mean", "sum"):
            raise ValueError(f"joint_reward is {joint_reward!r}; it must be 'mean' or 'sum'")
        self.parallel = parallel
        self.joint_reward = joint_reward
        self.env_id, self.scenario, self.device = parallel.env_id, parallel.scenario, parallel.device
        self.observation_size, self.action_size = parallel.observation_size, parallel.action_size
        self.entities = parallel.entities
        self.config = parallel.config
        self.render_mode = parallel.render_mode
        count = len(parallel.possible_agents)
        self._action_shape = (count, parallel.action_size)
        self.observation_space = Box(-1.0, 1.0, (count * parallel.observation_size,), np.float32)
        self.action_space = Box(-1.0, 1.0, (count * parallel.action_size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, object] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; ``seed`` restarts the random streams, ``options`` is not used."""
        super().reset(seed=seed)
        observations, infos = self.parallel.reset(seed=seed, options=options)
        return self._joined(observations), infos[self.parallel.possible_agents[0]]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Play one round.

        Raises:
            ValueError: wrong shape, NaN or infinite action.
            RuntimeError: no episode is running.
        """
        action = np.asarray(action, dtype=np.float32)
        if action.shape != self.action_space.shape:
            raise ValueError(f"action has shape {action.shape}; it must be {self.action_space.shape}")
        agents = self.parallel.possible_agents
        parts = dict(zip(agents, action.reshape(self._action_shape)))
        observations, rewards, terminated, truncated, infos = self.parallel.step(parts)
        reduce = np.mean if self.joint_reward == "mean" else np.sum
        reward = float(reduce([rewards[agent] for agent in agents]))
        return (
            self._joined(observations), reward, terminated[agents[0]], truncated[agents[0]], infos[agents[0]],
        )  # fmt: skip

    def batched(self, num_envs: int, seed: int) -> VectorEnv:
        """The multi-agent game as tensors, many episodes at once."""
        return self.parallel.batched(num_envs, seed)

    def render(self) -> np.ndarray | None:
        """A picture of the episode, see ``ParallelEnv.render``."""
        return self.parallel.render()

    def close(self) -> None:
        """Close the window, if one was opened."""
        self.parallel.close()

    def _joined(self, observations: dict[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([observations[agent] for agent in self.parallel.possible_agents])
