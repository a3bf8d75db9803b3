"""Many episodes at once: the front end for training and evaluation. Tensors in, tensors out, no numpy."""

from __future__ import annotations

import dataclasses
import operator
import secrets
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.checks import MOST_ENVS, fits, shown
from cfpos_envs.front_ends.base import BatchedEnv, Game, VectorStep
from cfpos_envs.front_ends.episodes import Episodes
from cfpos_envs.front_ends.resets import Options, Seed, checked_mode, reset_mask
from cfpos_envs.scenarios.base import TensorState, Transition

__all__ = ["VectorEnv", "VectorStep"]

FINAL_OBS, HAS_FINAL_OBS = "final_obs", "_final_obs"
"""Metrics of ``SAME_STEP``: what was seen at the end, and in which episodes it is the end."""

_NOT_FINITE = "actions contain NaN or infinity; every entry must be finite and is clipped to [-1, 1]"


class VectorEnv(BatchedEnv):
    """``num_envs`` independent episodes of one scenario, stepped together.

    Our games have a fixed length, so that episodes which began together end together. Some of them can begin anew by
    themselves, see ``reset``. Gradients stop at the border: for a reward that is differentiated in the actions call
    ``env.scenario.step`` with ``env.game_state``.

    Args:
        scenario: the game; its config names the data split.
        num_envs: number of episodes B, at least 1.
        seed: first seed of the random streams; None takes one from the operating system.
        env_id: the registered id, for reports.
        autoreset_mode: what happens after the end of an episode, also in ``metadata["autoreset_mode"]``. ``DISABLED``:
            ``step`` is refused until it has been reset. ``NEXT_STEP``: the next ``step`` ignores its action and begins
            it anew (reward 0, flags false, metrics NaN). ``SAME_STEP``: it begins anew at once; the metrics then hold
            ``final_obs`` [B, n, observation_size], what was seen before, and ``_final_obs`` [B], where that was the
            end. None: ``DISABLED``, but a batch that began together may be played until all of it is over.

    Attributes:
        final_state: with ``SAME_STEP`` the game's state at the end of the last round, before anything began anew.

    Raises:
        ValueError: ``num_envs`` below 1, a seed that is not an integer, an unknown mode.
    """

    scenario: Game
    knows_truth: ClassVar[bool] = True

    def __init__(
        self,
        scenario: Game,
        num_envs: int,
        seed: int | None = None,
        env_id: str | None = None,
        autoreset_mode: AutoresetMode | str | None = None,
    ) -> None:
        self.scenario = scenario
        self.config = scenario.config
        self.num_envs = _checked_count(num_envs)
        self.env_id = env_id or type(scenario).__name__
        self._asked_mode, self._mode = autoreset_mode, checked_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self._mode}
        _check_size(scenario, self.num_envs)
        self.device = torch.device(scenario.device)
        self.agents = tuple(scenario.agents)
        self.observation_size = scenario.observation_size
        self.action_size = scenario.action_size
        self.state_size: int = scenario.state_size
        self.rounds: int = scenario.rounds
        self.entities = scenario.entities
        self._episodes = Episodes(scenario, self.num_envs, secrets.randbits(62) if seed is None else seed)
        self._state: TensorState | None = None
        self.final_state: TensorState | None = None
        # Of a batch that plays together: whether it is over, and rounds played since the start, counted here so that no
        # device has to be synchronised; None: not known.
        self._done = False
        self._played: int | None = None
        # Episodes that are over [B], where they are told apart; else None.
        self._over: np.ndarray | None = None
        self._flags: tuple[Tensor, Tensor] | None = None

    @property
    def seed(self) -> int:
        """The seed with which the random streams were last started."""
        return self._episodes.seed

    def reset(self, seed: Seed = None, options: Options = None) -> Tensor:
        """Begin fresh episodes: all, or some while the others stand where they are.

        Args:
            seed: an integer restarts the random streams; None goes on with the running ones. With ``rng=counter`` also
                a list of one per episode, integers from 0 on or None: an episode, and those that follow it in its
                place, then depend on its own seed alone.
            options: ``{"reset_mask": mask}`` with a boolean array or tensor [B] begins the episodes where it is true.

        Returns:
            Observations [B, n, observation_size] of all episodes.

        Raises:
            ValueError: a seed or a mask that is none, or needs ``rng=counter``.
            RuntimeError: some episodes are to begin before there are any.
        """
        mask = reset_mask(options, self.num_envs)
        if mask is None or mask.all():
            if seed is not None:
                self._episodes.reseed(seed, None)
            self.game_state = self._episodes.fresh(None)
            self._played = 0
        else:
            if self._state is None:
                raise RuntimeError("no episode yet, so none can stand; call reset() for all of them before reset_mask")
            if seed is not None:
                self._episodes.reseed(seed, mask)
            over = self.over & ~mask
            self._state = self._renewed(self._state, mask)
            self._over, self._done, self._played = over, False, None
        return self.observe()

    def step(self, actions: Tensor) -> VectorStep:
        """Play one round.

        Args:
            actions: [B, n, action_size], finite; what lies outside [-1, 1] is clipped by the scenario.

        Raises:
            ValueError: wrong shape, NaN or infinite actions.
            RuntimeError: no episode is running, or one is over and does not begin anew by itself.
        """
        self._running_state()
        return self.play(self._checked_actions(actions))

    def play(self, actions: Tensor) -> VectorStep:
        """``step`` for actions that are known to be finite, of the right shape, in single precision and on the device.

        Raises:
            RuntimeError: no episode is running, or one is over and does not begin anew by itself.
        """
        state = self._running_state()
        begins = self._over if self._over is not None and self._over.any() else None
        if begins is not None:
            state = self._renewed(state, begins)
        transition = self.scenario.step(state, actions)
        if begins is not None:
            transition = _unplayed(transition, state, self._rows(begins))
        self._state, metrics = transition.state, transition.metrics
        observations = self._ended(transition)
        if observations is not None:
            assert self._over is not None
            metrics = {**metrics, FINAL_OBS: observations, HAS_FINAL_OBS: torch.from_numpy(self._over).to(self.device)}
            self._state = self._renewed(self._state, self._over)
            self._over = np.zeros_like(self._over)
        return VectorStep(self.observe(), transition.reward, transition.terminated, transition.truncated, metrics)

    @property
    def over(self) -> np.ndarray:
        """Bool [B]: the episodes that the last round has ended and that have not begun anew, as ``reset_mask`` takes
        them. Reading it waits for an accelerator."""
        if self._over is not None:
            return self._over.copy()
        if self._done or self._flags is None:
            return np.full(self.num_envs, self._done)
        terminated, truncated = self._flags
        return (terminated | truncated).cpu().numpy()

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
    def game_state(self, state: TensorState | None) -> None:
        self._state, self.final_state = state, None
        self._done = False
        self._played = self._flags = None
        self._over = None if self._asked_mode is None else np.zeros(self.num_envs, dtype=np.bool_)

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
        return VectorEnv(scenario, num_envs, seed=seed, env_id=self.env_id, autoreset_mode=self._asked_mode)

    def describe(self) -> str:
        """Tables of observation, action and reward with units and ranges."""
        return self.scenario.describe()

    def state_dict(self) -> State:
        """Random streams, game state and end flag: everything needed to go on bit for bit."""
        return {
            **self._episodes.state_dict(),
            "game": None if self._state is None else self._state.state_dict(),
            "done": self._done,
            "over": None if self._over is None else torch.from_numpy(self._over.copy()),
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where ``state_dict`` stopped, in an environment of the same config and ``num_envs``.

        Raises:
            ValueError: the saved state belongs to another scenario, config or ``num_envs``.
        """
        game = None if state["game"] is None else self._restored_game(state["game"])
        self._episodes.load_state_dict(state)
        self.game_state = game  # which may be none
        # Files of before episodes could begin by themselves say of the batch alone whether it is over.
        over = state.get("over")
        if over is not None:
            self._over = over.cpu().numpy().copy()
        elif self._over is not None:
            self._over = np.full(self.num_envs, bool(state["done"]))
        else:
            self._done = bool(state["done"])

    # Beginning and ending --------------------------------------------------------------------------------------------

    def _renewed(self, state: TensorState, mask: np.ndarray) -> TensorState:
        """The state with new episodes where ``mask`` is true."""
        fresh = self._episodes.fresh(mask)
        return fresh if mask.all() else state.updated(self._rows(mask), fresh)

    def _rows(self, mask: np.ndarray) -> Tensor:
        return torch.from_numpy(np.flatnonzero(mask)).to(self.device)

    def _ended(self, transition: Transition[Any]) -> Tensor | None:
        """Note which episodes a round has ended; what is seen there, where they are to begin anew at once."""
        self._flags = transition.terminated, transition.truncated
        if self._over is None and self._played is not None:
            self._played += 1
            self._done = self._played >= self.rounds
            return None
        over = transition.terminated | transition.truncated
        if self._over is None:
            self._done = bool(over.all())
            return None
        self._over = over.cpu().numpy()
        if self._mode != AutoresetMode.SAME_STEP:
            return None
        self.final_state = self._state
        return self.observe() if self._over.any() else None

    def _running_state(self) -> TensorState:
        state: TensorState = self.game_state
        if self._done:
            raise RuntimeError(f"the episodes ended after {self.rounds} rounds; call reset() before step()")
        if self._mode == AutoresetMode.DISABLED and self._over is not None:
            refuse_ended(self._over)
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
        template: TensorState = self._state or self.scenario.reset(self._episodes.streams(0), self.num_envs)
        present = template.state_dict()
        # Fields that are of no use to this game may be younger than the file.
        saved = {**{name: None for name, value in present.items() if value is None}, **saved}
        if present.keys() != saved.keys():
            wrong = sorted(present.keys() ^ saved.keys())
            raise ValueError(f"saved state is of another scenario (fields {wrong} differ); use an env of the same id")
        for name, value in saved.items():
            mine = present[name]
            if (value is None) != (mine is None):
                has, lacks = ("this env", "the saved state") if value is None else ("the saved state", "this env")
                raise ValueError(f"{has} has {name}, {lacks} has not; make the env with the same overrides")
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


def refuse_ended(over: np.ndarray) -> None:
    """RuntimeError where an episode is over, of those that ``over`` [B] says."""
    if over.any():
        first = np.flatnonzero(over)[0]
        raise RuntimeError(
            f"{over.sum()} of {len(over)} episodes are over (the first is {first}); "
            'call reset(options={"reset_mask": env.over}) or reset() before step()'
        )


def _unplayed(transition: Transition[Any], state: TensorState, rows: Tensor) -> Transition[Any]:
    """A round in which the episodes ``rows`` of ``state`` have only begun: nothing was earned or judged there."""

    def blank(name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point() or value.shape[:1] != transition.terminated.shape:
            return value
        return value.detach().index_fill(0, rows, 0.0 if name == "entity_rewards" else torch.nan)

    return Transition(
        transition.state.updated(rows, state.select(rows)),
        transition.reward.detach().index_fill(0, rows, 0.0),
        transition.terminated.index_fill(0, rows, False),
        transition.truncated.index_fill(0, rows, False),
        {name: blank(name, value) for name, value in transition.metrics.items()},
    )
