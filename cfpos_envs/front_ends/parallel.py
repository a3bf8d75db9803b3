"""One episode for people and libraries that speak PettingZoo: dictionaries of numpy arrays by agent name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pettingzoo
import torch
from gymnasium.spaces import Box
from torch import Tensor

from cfpos_envs.front_ends.base import Env, Game
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.scenarios.base import TensorState

if TYPE_CHECKING:
    from cfpos_envs.drawing.figures import LiveView

Observations = dict[str, np.ndarray]
Infos = dict[str, dict[str, Any]]

_TRUTH_KEYS = ("true_position", "error_m", "rmse_m", "peb_m", "valid", "clock_error_m", "ceb_m", "fronthaul_bits")


class ParallelEnv(pettingzoo.ParallelEnv, Env):
    """One episode of a scenario in PettingZoo's parallel interface.

    All agents act in every round and leave together: in the last round every ``truncated`` flag is true and
    ``agents`` becomes empty. ``infos[agent]`` holds ``true_position`` [K, D] and ``error_m`` [K] in metres,
    ``rmse_m``, ``peb_m`` [K] where the scenario has a bound, ``clock_error_m`` and ``ceb_m`` [K] where it has a clock
    to find, ``valid`` [K] where it can say that its measurements do not determine a position, ``fronthaul_bits`` sent
    per agent so far where it counts them, and ``score``, the label-free quality of the joint estimate, which is NaN at
    the reset, before anything was judged: the keys are always the same. The
    tables of observation, action and reward are printed by ``describe()``. The attributes ``scenario``, ``config``,
    ``device``, ``rounds``, ``entities`` and the three sizes are those of ``VectorEnv``.

    Args:
        scenario: the game.
        seed: first seed of the random streams; None takes one from the operating system.
        render_mode: ``"rgb_array"``: ``render()`` returns a picture; ``"human"``: a window follows the episode, or
            where there is no display an image file that is rewritten every round; None: no pictures.
        env_id: the registered id, for reports.

    Raises:
        ValueError: unknown ``render_mode``.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "name": "cfpos", "is_parallelizable": True, "render_fps": 2}
    scenario: Game

    def __init__(
        self,
        scenario: Game,
        seed: int | None = None,
        render_mode: str | None = None,
        env_id: str | None = None,
    ) -> None:
        modes = self.metadata["render_modes"]
        if render_mode is not None and render_mode not in modes:  # type: ignore[operator]
            raise ValueError(f"render_mode is {render_mode!r}; it must be 'human', 'rgb_array' or None")
        self.vector = VectorEnv(scenario, num_envs=1, seed=seed, env_id=env_id)
        self.env_id = self.vector.env_id
        self.metadata = {**type(self).metadata, "name": self.env_id}
        self.scenario = scenario
        self.config = scenario.config
        self.device = self.vector.device
        self.observation_size, self.action_size = self.vector.observation_size, self.vector.action_size
        self.state_size, self.rounds, self.entities = self.vector.state_size, self.vector.rounds, self.vector.entities
        self.render_mode = render_mode
        self.possible_agents = list(self.vector.agents)
        self.agents: list[str] = []
        self.observation_spaces = {name: _unit_box(self.observation_size) for name in self.possible_agents}
        self.action_spaces = {name: _unit_box(self.action_size) for name in self.possible_agents}
        self.state_space = _unit_box(self.state_size)
        self._history: list[Tensor] = []
        self._view: LiveView | None = None

    def observation_space(self, agent: str) -> Box:
        """The observation space of an agent, the same object every time."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> Box:
        """The action space of an agent, the same object every time."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, object] | None = None) -> tuple[Observations, Infos]:
        """Begin an episode.

        Args:
            seed: an integer restarts the random streams; None goes on with the running ones.
            options: part of PettingZoo's interface; nothing in it is used.
        """
        return self._begun(self.vector.reset(seed))

    def reset_to(self, state: TensorState) -> tuple[Observations, Infos]:
        """Begin from a given scenario state with one episode, e.g. ``vector_env.game_state.select(slice(3, 4))``."""
        self.vector.game_state = state
        return self._begun(self.vector.observe())

    def step(
        self, actions: Mapping[str, np.ndarray]
    ) -> tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Play one round.

        Args:
            actions: one finite array [action_size] per agent; what lies outside [-1, 1] is clipped by the scenario.

        Raises:
            ValueError: an agent is missing or unknown, an action has the wrong shape or is not finite.
            RuntimeError: no episode is running.
        """
        if not self.agents:
            raise RuntimeError("no episode is running; call reset() before step()")
        taken = self.vector.play(self._joint_action(actions))
        self._history.append(self.vector.estimate)
        names = self.agents
        observations, infos = self._named(taken.observations), self._infos(taken.metrics["score"].item())
        rewards = dict(zip(names, taken.rewards.tolist()[0]))
        terminated, truncated = bool(taken.terminated), bool(taken.truncated)
        if terminated or truncated:
            self.agents = []
        if self.render_mode == "human":
            self.render()
        return observations, rewards, dict.fromkeys(names, terminated), dict.fromkeys(names, truncated), infos

    def state(self) -> np.ndarray:
        """[state_size] label-free joint state for centralised critics, within ``state_space``."""
        return _of_first(self.vector.state())

    @property
    def measurements(self) -> Any:
        """What the central unit received over the fronthaul this episode (batch of one), never the truth."""
        return self.vector.measurements

    def encode_estimate(self, positions: np.ndarray) -> dict[str, np.ndarray]:
        """The actions by which every agent reports ``positions`` [K, 2] in metres.

        Raises:
            ValueError: wrong shape, NaN or infinite positions.
        """
        wanted = tuple(self.vector.estimate.shape[1:])
        points = torch.as_tensor(np.asarray(positions), dtype=torch.float32, device=self.vector.device)
        if tuple(points.shape) != wanted or not bool(torch.isfinite(points).all()):
            raise ValueError(f"positions of shape {tuple(points.shape)}; they must be finite metres of shape {wanted}")
        encoded = self.vector.encode_estimate(points[None])
        return dict(zip(self.possible_agents, _of_first(encoded)))

    def batched(self, num_envs: int, seed: int) -> VectorEnv:
        """The same game as tensors, many episodes at once."""
        return VectorEnv(self.scenario, num_envs, seed=seed, env_id=self.env_id)

    def describe(self) -> str:
        """Tables of observation, action and reward with units and ranges."""
        return self.vector.describe()

    def render(self) -> np.ndarray | None:
        """Picture of the episode so far: uint8 [height, width, 3] for ``rgb_array``, None for ``human``.

        Raises:
            RuntimeError: the environment was made without a ``render_mode``.
        """
        if self.render_mode is None:
            raise RuntimeError("made without a picture; make the env with render_mode='rgb_array' or 'human'")
        from cfpos_envs.drawing import figures as rendering

        history = [estimate[0] for estimate in self._history]
        figure = rendering.episode_figure(self.scenario, self.vector.game_state, history)
        if self.render_mode == "rgb_array":
            return rendering.figure_to_rgb(figure)
        if self._view is None:
            self._view = rendering.LiveView(self.env_id)
        self._view.show(rendering.figure_to_rgb(figure))
        return None

    def close(self) -> None:
        """Close the window, if one was opened."""
        if self._view is not None:
            self._view.close()
            self._view = None

    def __getstate__(self) -> dict[str, object]:
        # A window stays where it was opened; the copy opens its own.
        return {**self.__dict__, "_view": None}

    def _begun(self, observations: Tensor) -> tuple[Observations, Infos]:
        self.agents = list(self.possible_agents)
        self._history = [self.vector.estimate]
        if self.render_mode == "human":
            self.render()
        return self._named(observations), self._infos(math.nan)

    def _named(self, observations: Tensor) -> Observations:
        return dict(zip(self.possible_agents, _of_first(observations)))

    def _infos(self, score: float) -> Infos:
        told = told_truth(self.vector.truth())
        info: dict[str, Any] = {name: float(of[0]) if of.ndim == 1 else of[0] for name, of in told.items()}
        info["score"] = score
        return {name: info.copy() for name in self.possible_agents}

    def _joint_action(self, actions: Mapping[str, np.ndarray]) -> Tensor:
        try:
            # What is right passes in one call; only what is wrong is looked at one by one.
            joint = np.array([actions[name] for name in self.agents], dtype=np.float32)
        except (KeyError, TypeError, ValueError):
            self._refuse(actions)
            raise
        is_whole = len(actions) == len(joint) and joint.shape == (len(self.agents), self.action_size)
        if not is_whole or not np.isfinite(joint).all():
            self._refuse(actions)
        return torch.from_numpy(joint)[None].to(self.device)

    def _refuse(self, actions: Mapping[str, np.ndarray]) -> None:
        """ValueError that names the first thing that is wrong with the actions."""
        missing = [name for name in self.agents if name not in actions]
        unknown = [name for name in actions if name not in self.action_spaces]
        if missing:
            raise ValueError(f"no action for {', '.join(missing)}; every agent in env.agents needs one")
        if unknown:
            raise ValueError(
                f"action for unknown agent {', '.join(map(str, unknown))}; agents: {', '.join(self.agents)}"
            )
        for name in self.agents:
            row = np.asarray(actions[name], dtype=np.float32)
            if row.shape != (self.action_size,):
                raise ValueError(f"action of {name} has shape {row.shape}; it must be ({self.action_size},)")
            if not np.isfinite(row).all():
                raise ValueError(f"action of {name} contains NaN or infinity; every entry must be finite")


def told_truth(truth: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """What infos say of the truth, [B, ...] by name; one number per episode in double precision.

    Args:
        truth: of a scenario.
    """
    told = {name: to_numpy(truth[name]) for name in _TRUTH_KEYS if name in truth}
    return {name: value.astype(np.float64) if value.ndim == 1 else value for name, value in told.items()}


def _unit_box(size: int) -> Box:
    return Box(-1.0, 1.0, (size,), np.float32)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A copy on the host, without gradients."""
    array: np.ndarray = tensor.detach().cpu().numpy().copy()
    return array


def _of_first(tensor: Tensor) -> np.ndarray:
    """A copy of what a batch has of its first episode."""
    array: np.ndarray = tensor.detach().cpu().numpy()[0].copy()
    return array
