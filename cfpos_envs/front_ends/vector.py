"""Many episodes at once: the front end for training and evaluation. Tensors in, tensors out, no numpy."""

from __future__ import annotations

import dataclasses
import operator
import secrets
from typing import Any, ClassVar

import torch
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.checks import MOST_ENVS, fits, shown
from cfpos_envs.front_ends.base import BatchedEnv, Game, VectorStep
from cfpos_envs.scenarios.base import TensorState
from cfpos_envs.streams import Streams

__all__ = ["VectorEnv", "VectorStep"]

_NOT_FINITE = "actions contain NaN or infinity; every entry must be finite and is clipped to [-1, 1]"


class VectorEnv(BatchedEnv):
    """``num_envs`` independent episodes of one scenario, stepped together.

    All episodes have the same fixed length, so they end together; there is no automatic reset. Gradients stop at the
    border: for a reward that is differentiated in the actions call ``env.scenario.step`` with ``env.game_state``.

    Args:
        scenario: the game; its config names the data split.
        num_envs: number of episodes B, at least 1.
        seed: first seed of the random streams; None takes one from the operating system.
        env_id: the registered id, for reports.

    Raises:
        ValueError: ``num_envs`` below 1 or a seed that is not an integer.
    """

    scenario: Game
    knows_truth: ClassVar[bool] = True

    def __init__(self, scenario: Game, num_envs: int, seed: int | None = None, env_id: str | None = None) -> None:
        self.scenario = scenario
        self.config = scenario.config
        self.num_envs = _checked_count(num_envs)
        self.env_id = env_id or type(scenario).__name__
        _check_size(scenario, self.num_envs)
        self.device = torch.device(scenario.device)
        self.agents = tuple(scenario.agents)
        self.observation_size = scenario.observation_size
        self.action_size = scenario.action_size
        self.state_size: int = scenario.state_size
        self.rounds: int = scenario.rounds
        self.entities = scenario.entities
        self._streams = self._new_streams(secrets.randbits(62) if seed is None else seed)
        self._state: TensorState | None = None
        self._done = False
        # Rounds played since the start, counted here so that no device has to be synchronised; None: not known.
        self._played: int | None = None

    @property
    def seed(self) -> int:
        """The seed with which the random streams were last started."""
        return self._streams.seed

    def reset(self, seed: int | None = None) -> Tensor:
        """Begin ``num_envs`` fresh episodes.

        Args:
            seed: an integer restarts the random streams; None goes on with the running ones.

        Returns:
            Observations [B, n, observation_size].
        """
        if seed is not None:
            self._streams = self._new_streams(seed)
        self.game_state = self.scenario.reset(self._streams, self.num_envs)
        self._played = 0
        return self.observe()

    def step(self, actions: Tensor) -> VectorStep:
        """Play one round.

        Args:
            actions: [B, n, action_size], finite; what lies outside [-1, 1] is clipped by the scenario.

        Raises:
            ValueError: wrong shape, NaN or infinite actions.
            RuntimeError: no episode is running.
        """
        state = self._running_state()
        transition = self.scenario.step(state, self._checked_actions(actions))
        self._state = transition.state
        if self._played is None:
            self._done = bool((transition.terminated | transition.truncated).all())
        else:
            self._played += 1
            self._done = self._played >= self.rounds
        return VectorStep(
            self.observe(), transition.reward, transition.terminated, transition.truncated, transition.metrics
        )

    def observe(self) -> Tensor:
        """Observations [B, n, observation_size] of the present state."""
        return self.scenario.observe(self.game_state)

    def state(self) -> Tensor:
        """[B, state_size] label-free joint state for centralised critics."""
        return self.scenario.global_state(self.game_state)

    def truth(self) -> dict[str, Tensor]:
        """True positions, errors and bounds; for reports, never for training."""
        return self.scenario.truth(self.game_state)

    @property
    def measurements(self) -> Any:
        """What the central unit received over the fronthaul in these episodes."""
        return self.scenario.measurements(self.game_state)

    @property
    def estimate(self) -> Tensor:
        """[B, K, 2] present joint position estimate, metres."""
        return self.scenario.estimate(self.game_state)

    def encode_estimate(self, positions: Tensor) -> Tensor:
        """[B, n, action_size] actions by which every agent reports ``positions`` [B, K, 2] in metres."""
        return self.scenario.encode_estimate(self.game_state, positions)

    @property
    def game_state(self) -> Any:
        """The scenario's state. Setting it starts from there: the episodes count as running again."""
        if self._state is None:
            raise RuntimeError("no episode yet; call reset() first")
        return self._state

    @game_state.setter
    def game_state(self, state: TensorState) -> None:
        self._state = state
        self._done = False
        self._played = None

    def sibling(self, num_envs: int, seed: int, split: str | None = None) -> VectorEnv:
        """A second environment like this one that shares no running state with it.

        Args:
            num_envs: its number of episodes.
            seed: start of its random streams.
            split: another data split (``"test"``), or None for the same.
        """
        scenario = self.scenario
        if split is not None and scenario.config.split != split:
            game: Any = type(scenario)
            scenario = game(dataclasses.replace(scenario.config, split=split), device=self.device)
        return VectorEnv(scenario, num_envs, seed=seed, env_id=self.env_id)

    def describe(self) -> str:
        """Tables of observation, action and reward with units and ranges."""
        return self.scenario.describe()

    def state_dict(self) -> State:
        """Random streams, game state and end flag: everything needed to go on bit for bit."""
        return {
            "streams": self._streams.state_dict(),
            "game": None if self._state is None else self._state.state_dict(),
            "done": self._done,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where ``state_dict`` stopped, in an environment of the same config and ``num_envs``.

        Raises:
            ValueError: the saved state belongs to another scenario, config or ``num_envs``.
        """
        game = None if state["game"] is None else self._restored_game(state["game"])
        self._streams.load_state_dict(state["streams"])
        self._state = game
        self._done = bool(state["done"])
        self._played = None

    def __getstate__(self) -> State:
        return {**self.__dict__, "_streams": self._streams.state_dict()}

    def __setstate__(self, state: State) -> None:
        self.__dict__.update(state)
        self._streams = self._new_streams(state["_streams"]["seed"])
        self._streams.load_state_dict(state["_streams"])

    def _new_streams(self, seed: int) -> Streams:
        try:
            number = operator.index(seed)
        except TypeError:
            raise ValueError(f"seed is {seed!r}; it must be an integer or None") from None
        return Streams(number, self.config.split, self.device)

    def _running_state(self) -> TensorState:
        state: TensorState = self.game_state
        if self._done:
            raise RuntimeError(f"the episodes ended after {self.rounds} rounds; call reset() before step()")
        return state

    def _checked_actions(self, actions: Tensor) -> Tensor:
        wanted = (self.num_envs, len(self.agents), self.action_size)
        if not isinstance(actions, Tensor) or tuple(actions.shape) != wanted:
            given = tuple(actions.shape) if isinstance(actions, Tensor) else type(actions).__name__
            raise ValueError(f"actions are {given}; they must be a tensor of shape {wanted} (num_envs, agents, action)")
        # One number that is zero unless an entry is NaN or infinite.
        alarm = (actions.detach() * 0.0).sum()
        if self._waits_for_devices and float(alarm) != 0.0:
            raise ValueError(_NOT_FINITE)
        if not self._waits_for_devices:
            torch._assert_async(alarm == 0.0, _NOT_FINITE)
        return actions.detach().to(self.device, torch.float32)

    @property
    def _waits_for_devices(self) -> bool:
        """Whether reading a number of a tensor is free; on an accelerator it would stop the stream of work."""
        return self.device.type == "cpu"

    def _restored_game(self, saved: dict[str, Tensor | None]) -> TensorState:
        # Only a drop shows the class of a scenario's states; a discarded one does not touch our streams.
        template: TensorState = self._state or self.scenario.reset(self._new_streams(0), self.num_envs)
        present = template.state_dict()
        if present.keys() != saved.keys():
            wrong = sorted(present.keys() ^ saved.keys())
            raise ValueError(f"saved state is of another scenario (fields {wrong} differ); use an env of the same id")
        for name, value in saved.items():
            mine = present[name]
            if value is not None and mine is not None and value.shape != mine.shape:
                raise ValueError(
                    f"saved state has {name} of shape {tuple(value.shape)}, this env {tuple(mine.shape)}; "
                    "make the env with the same overrides and num_envs"
                )
        return template.replace(**{k: None if v is None else v.to(self.device) for k, v in saved.items()})


def _check_size(scenario: Game, num_envs: int) -> None:
    """ValueError where the episodes together need more memory than is sensible."""
    vectors = len(scenario.agents) * (scenario.observation_size + scenario.action_size)
    numbers = max(vectors, getattr(scenario.config, "numbers_per_episode", 0))
    fits("the batch", num_envs * numbers, f"num_envs={num_envs}, of {numbers:.3g} numbers each")


def _checked_count(num_envs: int) -> int:
    try:
        count = operator.index(num_envs)
    except TypeError:
        count = 0
    if isinstance(num_envs, bool) or not 1 <= count <= MOST_ENVS:
        raise ValueError(f"num_envs is {shown(num_envs)}; it must be an integer of at least 1 and at most {MOST_ENVS}")
    return count
