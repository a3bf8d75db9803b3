"""The interface between a Markov game and everything around it (front ends, trainers, evaluation)."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor

from cfpos_envs.scenarios.features import Row, Words, describe, width
from cfpos_envs.streams import COUNTER, RNGS, Streams

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLOAT_BITS = 32
"""Bits of a number that crosses the fronthaul without having been quantised."""

StateT = TypeVar("StateT", bound="TensorState")


@dataclass
class TensorState:
    """Base of scenario states: a dataclass of tensors with the episode as first dimension (None is allowed)."""

    def select(self: StateT, index: slice | Tensor) -> StateT:
        """Only the episodes ``index``."""
        return self._map(lambda tensor: tensor[index])

    def updated(self: StateT, rows: Tensor, others: StateT) -> StateT:
        """The same state with ``others`` in the place of its episodes ``rows`` [N].

        Raises:
            ValueError: ``others`` has tensors of other shapes per episode.
        """
        merged = self.state_dict()
        for name, value in others.state_dict().items():
            mine = merged[name]
            if mine is None and value is None:
                continue
            if mine is None or value is None or value.shape != (len(rows), *mine.shape[1:]):
                raise ValueError(
                    f"{name} of new episodes is {_shape(value)}, of the running ones {_shape(mine)}; a game whose "
                    "tensors differ between episodes can only be reset as a whole"
                )
            # Out of place, so that whoever holds the state before keeps it.
            merged[name] = mine.index_copy(0, rows, value.to(mine))
        return dataclasses.replace(self, **merged)

    def to(self: StateT, device: torch.device | str) -> StateT:
        """The same state on another device."""
        return self._map(lambda tensor: tensor.to(device))

    def detach(self: StateT) -> StateT:
        """The same state, cut from any gradient graph."""
        return self._map(lambda tensor: tensor.detach())

    def replace(self: StateT, **changes: Any) -> StateT:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def state_dict(self) -> dict[str, Tensor | None]:
        """The fields by name, for checkpoints."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}

    def _map(self: StateT, function: Callable[[Tensor], Tensor]) -> StateT:
        changes = {name: None if value is None else function(value) for name, value in self.state_dict().items()}
        return dataclasses.replace(self, **changes)


class _Positions(Protocol):
    """The fields of a state from which a game's estimate and truth are read unless it says otherwise."""

    true_position_m: Tensor
    consensus_m: Tensor
    round: Tensor


@dataclass(frozen=True)
class Entities:
    """How one agent's vectors split into equal parts, one per UE: a trainer may share one small network over them.

    Attributes:
        count: parts per agent (K).
        observation_size, action_size: length of one part; the agent's vectors are these parts one after another.
    """

    count: int
    observation_size: int
    action_size: int


@dataclass
class Transition(Generic[StateT]):
    """What one round gives.

    Attributes:
        state: the next state.
        reward: [B, n] one number per agent.
        terminated, truncated: [B] flags; scenarios with a fixed number of rounds only truncate.
        metrics: label-free tensors by name. Always ``score`` [B] (the label-free quality of the joint estimate, higher
            is better). Where the scenario has entities also ``entity_rewards`` [B, n, count] with sum over count =
            reward. Where ``scenario.differentiable``: ``objective`` [B, count], differentiable in the actions.
    """

    state: StateT
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class GameConfig(Protocol):
    """What every game's config dataclass has."""

    @property
    def rounds(self) -> int:
        """Episode length."""

    @property
    def split(self) -> str:
        """``train`` or ``test``: the two share no site and no drop."""


class Scenario(ABC, Generic[StateT]):
    """A batched Markov game. Stateless but for its config and caches: all randomness enters through ``reset``.

    To write: ``reset``, ``observe``, ``step``, ``measurements``, ``encode_estimate``. Everything else has a default
    that follows from the tables of rows and from three fields of the state: ``true_position_m`` ([B, K, D], or
    [B, T, K, D] round by round), ``consensus_m`` [B, K, D] (the joint estimate) and ``round`` [B].

    Attributes:
        config: the validated config dataclass, an instance of ``config_class``.
        family: what kind of measurements it makes ("dcp", "toa", "tdoa", "rtt"); policies declare which they take.
        agents: names, e.g. ``("ap_0", ...)``.
        observation_rows, action_rows: tables of one agent's vectors, or of one part of them where there are entities.
        observation_size, action_size: length of one agent's vectors, all within [-1, 1].
        rounds: episode length.
        entities: see ``Entities``; None where an agent's vectors have no such structure.
        differentiable: whether ``step`` puts a differentiable ``objective`` into its metrics.
        fixed_site: training and test play in one and the same place, as fingerprints demand, and share no drop.
        privileged_reward: the reward is made of the simulated truth.
    """

    config: Any  # each game's own dataclass, read by name (see GameConfig)
    config_class: type
    family: str = ""
    device: torch.device = torch.device("cpu")
    agents: tuple[str, ...]
    observation_rows: tuple[Row, ...] = ()
    action_rows: tuple[Row, ...] = ()
    observation_size: int
    action_size: int
    rounds: int
    entities: Entities | None = None
    differentiable: bool = False
    fixed_site: bool = False
    privileged_reward: bool = False

    def __init__(
        self,
        config: GameConfig,
        device: torch.device | str,
        agents: tuple[str, ...],
        observation_rows: tuple[Row, ...],
        action_rows: tuple[Row, ...],
        num_entities: int | None = None,
    ) -> None:
        """Set the attributes that follow from config and tables; ``num_entities`` parts per agent, None for one."""
        self.config = config
        self.device = torch.device(device)
        self.agents = agents
        self.rounds = config.rounds
        self.observation_rows, self.action_rows = observation_rows, action_rows
        seen, chosen = width(observation_rows), width(action_rows)
        if num_entities is not None:
            self.entities = Entities(num_entities, seen, chosen)
        self.observation_size, self.action_size = (num_entities or 1) * seen, (num_entities or 1) * chosen

    # To write ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def reset(self, streams: Streams, num_envs: int) -> StateT:
        """Draw ``num_envs`` episodes. Every random number of the whole episode is drawn here."""

    @abstractmethod
    def observe(self, state: StateT) -> Tensor:
        """[B, n, observation_size] float32 in [-1, 1]. Never depends on the hidden truth."""

    def check_actions(self, state: StateT, actions: Tensor) -> None:
        """ValueError for actions of another shape: broadcast, they would be played as something else."""
        wanted = (len(state.round), len(self.agents), self.action_size)  # type: ignore[attr-defined]
        if tuple(actions.shape) != wanted:
            raise ValueError(
                f"actions are {tuple(actions.shape)}; they must be of shape {wanted} (episodes, agents, action)"
            )

    @abstractmethod
    def step(self, state: StateT, actions: Tensor) -> Transition[StateT]:
        """One round. ``actions`` [B, n, action_size] in [-1, 1]. Deterministic, never changes ``state`` in place."""

    @abstractmethod
    def measurements(self, state: StateT) -> Any:
        """What the central unit received, for estimators with a ``locate`` method."""

    @abstractmethod
    def encode_estimate(self, state: StateT, positions: Tensor) -> Tensor:
        """[B, n, action_size]: the actions by which every agent reports ``positions`` [B, K, D] as nearly as the
        action space can say it."""

    def drawing(self, streams: Streams, num_envs: int) -> Streams:
        """What ``reset`` draws from: the running streams, or with ``rng=counter`` those of the next episodes."""
        return streams.episodes(num_envs) if self.draws_by_number else streams

    @property
    def draws_by_number(self) -> bool:
        """Whether episodes are drawn by their numbers, each for itself (``rng=counter``)."""
        return getattr(self.config, "rng", RNGS[0]) == COUNTER

    # What a game may add -------------------------------------------------------------------------------------------

    def words(self) -> Words:
        """Title, reward and end for ``describe``."""
        title = (type(self).__doc__ or type(self).__name__).strip().splitlines()[0]
        return Words((title,), closing=(f"The episode is truncated after {self.rounds} rounds.",))

    def ranges(self) -> dict[str, float | str | list[float]]:
        """Options beyond the tables' names and scales that give observations and actions their meaning: a policy
        trained with others would mean something else. Plain JSON values."""
        return {}

    def bound_m(self, state: StateT) -> Tensor | None:
        """[B, K] position error bound, metres, NaN-free; None where the game has none."""
        return None

    def bound_of(self, policy: object) -> str:
        """What the bound is of that a policy's errors belong beside, in words; empty where a game has one at most."""
        del policy
        return ""

    def named_bound_m(self, state: StateT, name: str) -> Tensor | None:
        """[B, K] the bound of that name, one of ``bound_of``'s; None where there is none."""
        del name
        return self.bound_m(state)

    def answered(self, state: StateT) -> StateT:
        """The state whose measurements a policy that answers once is given, and whose bound and truth belong beside
        its answer."""
        return state

    def relabelled(self, state: StateT, label: int) -> StateT:
        """New episodes whose sites, where a state names them, can be told from those of other seeds by ``label``."""
        del label
        return state

    def displacement_m(self, start_m: Tensor, end_m: Tensor) -> Tensor:
        """From one point to another; shorter than the difference in an area that wraps around."""
        return end_m - start_m

    @property
    def area_centre_m(self) -> Tensor:
        """[D] what counts as the estimate where a policy has no answer.

        Raises:
            TypeError: the game does not say.
        """
        raise TypeError(f"{type(self).__name__} has no area_centre_m; define it, or let the policy answer every user")

    def draw(self, axes: Axes, state: StateT, history: list[Tensor]) -> None:
        """Draw episode 0 of ``state`` on matplotlib ``axes``; ``history`` holds the estimates [K, D] so far."""
        raise TypeError(f"{type(self).__name__} has no picture; override draw().")

    # What follows from these ---------------------------------------------------------------------------------------

    def estimate(self, state: StateT) -> Tensor:
        """[B, K, D] current joint position estimate, metres."""
        return cast(_Positions, state).consensus_m

    def with_estimate(self, state: StateT, positions: Tensor) -> StateT:
        """The state with the joint estimate set to ``positions`` [B, K, D]."""
        return state.replace(consensus_m=positions.to(self.estimate(state)))

    def true_position(self, state: StateT) -> Tensor:
        """[B, K, D] hidden; a moving user is compared where it was when the estimate's measurements were taken."""
        truth = cast(_Positions, state)
        if truth.true_position_m.ndim == truth.consensus_m.ndim:
            return truth.true_position_m
        if truth.true_position_m.shape[1] == 1:
            return truth.true_position_m[:, 0]
        return at_round(truth.true_position_m, (truth.round - 1).clamp(min=0))

    def truth(self, state: StateT) -> dict[str, Tensor]:
        """For ``infos`` and evaluation only: ``true_position`` [B, K, D], ``error_m`` [B, K], ``rmse_m`` [B],
        ``peb_m`` [B, K] (position error bound; absent if the scenario has no bound), and where this can happen
        ``valid`` [B, K]: false where the measurements do not determine a position."""
        true_position = self.true_position(state)
        error = torch.linalg.vector_norm(self.displacement_m(true_position, self.estimate(state)), dim=-1)
        scores = {"true_position": true_position, "error_m": error, "rmse_m": error.square().mean(dim=-1).sqrt()}
        bound = self.bound_m(state)
        return scores if bound is None else {**scores, "peb_m": bound.to(error)}

    def transition(self, state: StateT, rewards: Tensor, metrics: dict[str, Tensor]) -> Transition[StateT]:
        """What ``step`` returns when the next state is ``state``: episodes are truncated after ``rounds``.

        Args:
            state: with its ``round`` counted up.
            rewards: [B, n]; or [B, n, K] per entity, which are then summed and put into the metrics.
            metrics: see ``Transition``.
        """
        if rewards.ndim == 3:
            metrics = {**metrics, "entity_rewards": rewards}
            rewards = rewards.sum(dim=-1)
        done = cast(_Positions, state).round >= self.rounds
        return Transition(state, rewards, torch.zeros_like(done), done, metrics)

    def global_state(self, state: StateT) -> Tensor:
        """[B, state_size] in [-1, 1], for centralised critics; label-free too. By default what all agents see."""
        return self.observe(state).flatten(1)

    @property
    def state_size(self) -> int:
        """Length of one row of ``global_state``."""
        return len(self.agents) * self.observation_size

    def fronthaul_bits(self) -> float:
        """Bits that one agent and the central unit exchange in one episode, quantised or as 32-bit floats; by default
        the agent's actions of all rounds."""
        return float(FLOAT_BITS * self.rounds * self.action_size)

    def counted_bits(self, policy: object) -> float:
        """``fronthaul_bits`` of an episode that ``policy`` plays."""
        return self.fronthaul_bits()

    def describe(self) -> str:
        """Plain-text tables of observation, action, reward with units and ranges, made from the tables that compute
        them."""
        count = None if self.entities is None else self.entities.count
        return describe(self.words(), self.observation_rows, self.action_rows, count)

    def signature(self) -> dict[str, Any]:
        """What a policy relies on, as plain JSON values: a checkpoint is refused where it differs.

        ``family``; ``observation``: name, size and scale of every row; ``action``: name, size and scale of every row;
        ``ranges``. Meanings are not in it: a better wording must not refuse a checkpoint.
        """

        def plain(table: tuple[Row, ...]) -> list[dict[str, str | int | float]]:
            return [{"name": row.name, "size": row.size, "scale": float(row.scale)} for row in table]

        return {
            "family": self.family,
            "observation": plain(self.observation_rows),
            "action": plain(self.action_rows),
            "ranges": self.ranges(),
        }


def at_round(sequence: Tensor, round: Tensor) -> Tensor:
    """Entry [B, ...] of round [B] of a sequence [B, T, ...]; the last one afterwards, the only one where T = 1."""
    if sequence.shape[1] == 1:
        return sequence[:, 0]
    index = round.clamp(max=sequence.shape[1] - 1)
    return sequence[torch.arange(len(index), device=index.device), index]


def _shape(value: Tensor | None) -> str:
    return "None" if value is None else f"of shape {tuple(value.shape)}"
