"""What the games of access points share: rounds of reports that a central unit fuses, judged by APs held out of it.

A round: every AP (agent) sees its measurements of K users beside the joint estimate and what all are told; its action
says how its own measurements are to be weighed or moved; the central unit fuses them into the next joint estimate;
an AP earns what its action has done for the agreement of the measurements with that estimate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.drawing.figures import draw_episode
from cfpos_envs.physics import geometry
from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.scenarios.base import FLOAT_BITS, Entities, Scenario, TensorState, Transition, at_round
from cfpos_envs.scenarios.features import Row
from cfpos_envs.scenarios.site_files import SiteFile
from cfpos_envs.scenarios.sites import ApSiteConfig, Places, SitePool, trajectories
from cfpos_envs.streams import Streams

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ApStateT = TypeVar("ApStateT", bound="ApState")
SiteT = TypeVar("SiteT", bound=Places)


@runtime_checkable
class ApConfig(Protocol):
    """What the config of every game of access points has."""

    @property
    def settings(self) -> ApSiteConfig:
        """Of its sites."""

    @property
    def site_file(self) -> SiteFile | None:
        """A person's own site."""

    @property
    def ue_height_m(self) -> float:
        """Height of the users."""

    @property
    def split(self) -> str:
        """``train`` or ``test``."""

    @property
    def num_ues(self) -> int:
        """K."""

    @property
    def rounds(self) -> int:
        """Episode length."""

    @property
    def round_s(self) -> float:
        """Time between rounds."""

    @property
    def speed_m_s(self) -> float:
        """Speed of the users, m/s; they are measured anew in every round where it is not 0."""


@dataclass
class ApState(TensorState):
    """B episodes, M APs, K UEs, T measurement rounds (1 if static).

    Attributes:
        true_position_m [B, T, K, 2]: hidden; used by ``truth`` (and privileged rewards) alone.
        site_ids [B]: equal for equal sites.
        ap_positions_m [B, M, 2], ap_orientation_rad [B, M], height_diff_m [B, M]: known site.
        fused [B, M, K]: true for APs that take part in fusion and broadcasts; the other measured ones judge.
        consensus_m [B, K, 2], start_m [B, K, 2]: joint estimate, now and at the start.
        round [B]: rounds played.
    """

    true_position_m: Tensor
    site_ids: Tensor
    ap_positions_m: Tensor
    ap_orientation_rad: Tensor
    height_diff_m: Tensor
    fused: Tensor
    consensus_m: Tensor
    start_m: Tensor
    round: Tensor

    def now(self, sequence: Tensor) -> Tensor:
        """This round's entry [B, ...] of a sequence [B, T, ...]."""
        return at_round(sequence, self.round)

    def played(self: ApStateT) -> ApStateT:
        """The state of the round whose measurements the present estimate is made of."""
        return self.replace(round=(self.round - 1).clamp(min=0))


@dataclass(frozen=True)
class Played:
    """What one round of a game gives.

    Attributes:
        moved: fields of the next state, ``consensus_m`` [B, K, 2] among them.
        entity_rewards: of every AP for every user.
        rewards: their sums; None: added up by whoever asks.
        objective: differentiable in the actions where the game is.
        similarity, score: label-free quality of the joint estimate; scores of different estimates can be compared.
    """

    moved: Mapping[str, Tensor]
    entity_rewards: Float[Tensor, "B M K"]
    objective: Float[Tensor, "B K"]
    similarity: Float[Tensor, " B"]
    score: Float[Tensor, " B"]
    rewards: Float[Tensor, "B M"] | None = None


def judging_links(valid: Bool[Tensor, "B M K"], fused: Bool[Tensor, "B M K"]) -> Bool[Tensor, "B M K"]:
    """The links that judge a fused point: the measured ones left out of the fusion or, where none is, all measured."""
    left_out = valid & ~fused
    return left_out | (valid & ~left_out.any(dim=1, keepdim=True))


def counterfactual_credit(gradient: Float[Tensor, "B K D"], change: Float[Tensor, "B M K D"]) -> Float[Tensor, "B M K"]:
    """Linearised counterfactual per AP: M grad(s) . (x - x with AP m neutral).

    Args:
        gradient: of the judged quality s by the fused estimate x (position, and whatever else is estimated).
        change: the difference in brackets.
    """
    return change.shape[1] * (gradient.unsqueeze(1) * change).sum(dim=-1)


class ApScenario(Scenario[ApStateT], Generic[ApStateT, SiteT]):
    """A game of access points as agents and users as entities.

    To write: ``draw_site``, ``draw_episodes``, ``start``, ``observe``, ``play``, ``fisher``, ``measurements``,
    ``encode_estimate``.

    Attributes:
        sees_directions: ``global_state`` holds the arrays' directions too.
        numbers_per_link: what an AP reports of every user it measures, as 32-bit floats.

    Args:
        config: validated options.
        device: where the tensors live.
        observation_rows, action_rows: tables of one user's part.
        wrap: whether distances go around the edges of the square.
    """

    entities: Entities
    sees_directions: bool = False
    numbers_per_link: int = 2

    def __init__(
        self,
        config: ApConfig,
        device: torch.device | str,
        observation_rows: tuple[Row, ...],
        action_rows: tuple[Row, ...],
        wrap: bool = False,
    ) -> None:
        self.num_aps, self.num_ues = config.settings.num_aps, config.num_ues
        self.side_m, self.wrap = config.settings.side_m, wrap
        agents = tuple(f"ap_{m}" for m in range(self.num_aps))
        super().__init__(config, device, agents, observation_rows, action_rows, self.num_ues)
        self._pool: SitePool[SiteT] | None = None

    # To write ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def draw_site(self, streams: Streams, index: int) -> SiteT:
        """Everything of site ``index`` that stays over its episodes."""

    @abstractmethod
    def draw_episodes(self, pool: SitePool[SiteT], site_ids: Int[Tensor, " B"], streams: Streams) -> ApStateT:
        """Users, measurements of all rounds and held-out APs of new episodes; no estimate yet."""

    @abstractmethod
    def start(self, state: ApStateT, pool: SitePool[SiteT]) -> ApStateT:
        """The state with its first estimate."""

    @abstractmethod
    def play(self, state: ApStateT, actions: Float[Tensor, "B M KA"]) -> Played:
        """Decode the actions, fuse the reports, reward."""

    @abstractmethod
    def fisher(self, state: ApStateT, true_position: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K 2 2"]:
        """Information of this round's measurements on the true positions, 1/m^2."""

    # Episode start -------------------------------------------------------------------------------------------------

    def reset(self, streams: Streams, num_envs: int) -> ApStateT:
        """Draw sites, drops, measurements and held-out APs; see ``Scenario.reset``."""
        streams = self.drawing(streams, num_envs)
        pool, count = self._pool_for(streams), self.config.settings.num_sites
        # Sites in turn from a random first one: every batch covers the pool evenly.
        site_ids = streams.in_turn("drop", count, num_envs)
        return self.begin(pool, site_ids, streams)

    def begin(self, pool: SitePool[SiteT], site_ids: Int[Tensor, " B"], streams: Streams) -> ApStateT:
        """New episodes on given sites, with their first estimate."""
        return self.start(self.draw_episodes(pool, site_ids, streams), pool)

    def relabelled(self, state: ApStateT, label: int) -> ApStateT:
        """Sites of another seed under other numbers; a game in one place has the same ones whatever the seed."""
        return state if self.fixed_site else state.replace(site_ids=state.site_ids + label)

    def _pool_for(self, streams: Streams) -> SitePool[SiteT]:
        if self._pool is None or not self._pool.belongs_to(streams):
            self._pool = SitePool(self.draw_site, streams)
        return self._pool

    def known_places(self, pool: SitePool[SiteT], site_ids: Int[Tensor, " B"]) -> dict[str, Tensor]:
        """Fields of a new state that follow from the sites alone."""
        nowhere = torch.zeros(len(site_ids), self.num_ues, 2, device=self.device)
        places = ("ap_positions_m", "ap_orientation_rad", "height_diff_m")
        return {
            **{name: pool.stack(site_ids, name) for name in places},
            "site_ids": site_ids,
            "consensus_m": nowhere,
            "start_m": nowhere,
            "round": torch.zeros(len(site_ids), dtype=torch.long, device=self.device),
        }

    def draw_fused(
        self, streams: Streams, valid: Bool[Tensor, "B M K"], num_held_out: Tensor | int
    ) -> Bool[Tensor, "B M K"]:
        """Measured links that take part in fusion and broadcasts: of every user ``num_held_out`` (or [B, 1, K]) random
        ones are left out, to judge."""
        order = draws.uniform(streams["held-out"], *valid.shape)
        # Links that are not measured come last, so that the share is one of the measured ones.
        # Of equal numbers the first one is the smaller, on every device.
        order = torch.where(valid, order, order + 1.0).argsort(dim=1, stable=True).argsort(dim=1)
        return valid & (order >= num_held_out)

    # Rounds --------------------------------------------------------------------------------------------------------

    def step(self, state: ApStateT, actions: Tensor) -> Transition[ApStateT]:
        """Decode the actions, fuse the reports, reward by agreement; see ``Scenario.step``."""
        self.check_actions(state, actions)
        played = self.play(state, actions)
        nxt = self.measured(state.replace(**played.moved, round=state.round + 1))
        metrics = {
            "objective": played.objective,
            "similarity": played.similarity,
            "score": played.score,
            "entity_rewards": played.entity_rewards,
            "entity_valid": state.fused,
        }
        return self.transition(nxt, played.entity_rewards if played.rewards is None else played.rewards, metrics)

    def measured(self, state: ApStateT) -> ApStateT:
        """The state with what the APs make of their measurements of a new round, where the game keeps such."""
        return state

    def user_actions(self, actions: Float[Tensor, "B M KA"]) -> Float[Tensor, "B M K A"]:
        """Actions by user, clipped to [-1, 1]."""
        return actions.clamp(-1.0, 1.0).unflatten(2, (self.num_ues, -1))

    # Reading a state -----------------------------------------------------------------------------------------------

    def into_area(self, points_m: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Points brought into the square."""
        return geometry.into_area(points_m, self.side_m, self.wrap)

    def displacement_m(self, start_m: Tensor, end_m: Tensor) -> Tensor:
        """From one point to another, the short way."""
        return geometry.nearest_image(end_m - start_m, self.side_m, self.wrap)

    @property
    def area_centre_m(self) -> Tensor:
        """[2] middle of the square."""
        return torch.full((2,), self.side_m / 2, device=self.device)

    def with_estimate(self, state: ApStateT, positions: Tensor) -> ApStateT:
        """The state with the consensus at ``positions`` [B, K, 2]."""
        return state.replace(consensus_m=self.into_area(positions.to(state.consensus_m)))

    def bound_m(self, state: ApStateT) -> Tensor | None:
        """[B, K] position error bound of this round's measurements."""
        return position_error_bound(self.fisher(state, self.true_position(state)))

    def global_state(self, state: ApStateT) -> Tensor:
        """[B, state_size]: AP positions (and directions), consensus and round, scaled into [-1, 1]."""
        half = 0.5 * self.side_m
        directions = [geometry.unit_vectors(state.ap_orientation_rad).flatten(1)] if self.sees_directions else []
        parts = [
            (state.ap_positions_m / half - 1.0).flatten(1),
            *directions,
            (state.consensus_m / half - 1.0).flatten(1),
            (state.round.to(torch.float32) / self.rounds).unsqueeze(1),
        ]
        return torch.cat(parts, dim=1).clamp(-1.0, 1.0)

    @property
    def state_size(self) -> int:
        """2 M (4 M with directions) + 2 K + 1."""
        return (4 if self.sees_directions else 2) * self.num_aps + 2 * self.num_ues + 1

    @property
    def times_measured(self) -> int:
        """How often an AP measures every UE in an episode: once, or each round if they move."""
        return self.rounds if self.config.speed_m_s else 1

    def fronthaul_bits(self) -> float:
        """Float32 numbers an AP sends per episode: what it measures of each UE, and its actions each round."""
        measured = self.numbers_per_link * self.num_ues * self.times_measured
        return FLOAT_BITS * measured + super().fronthaul_bits()

    def draw(self, axes: Axes, state: ApStateT, history: list[Tensor]) -> None:
        """Episode 0: APs with their arrays, true and estimated positions round by round, ellipses of a known bound."""
        true_position, covariance = self.true_position(state), None
        if self.bound_m(state) is not None:
            fisher = self.fisher(state, true_position)[0]
            if bool(torch.isfinite(position_error_bound(fisher)).all()):
                covariance = torch.linalg.inv(fisher).cpu().numpy()
        draw_episode(
            axes,
            state.ap_positions_m[0].cpu().numpy(),
            state.ap_orientation_rad[0].cpu().numpy(),
            true_position[0].cpu().numpy(),
            [estimate.cpu().numpy() for estimate in history],
            side_m=self.side_m,
            wrap=self.wrap,
            covariance=covariance,
        )


def user_ways(
    config: ApConfig, start_m: Float[Tensor, "B K 2"], wrap: bool, streams: Streams
) -> Float[Tensor, "B T K 2"]:
    """Where the users are in every round, T = 1 if they stand still."""
    times_s = torch.arange(config.rounds, device=streams.device) * config.round_s
    return trajectories(start_m, config.speed_m_s, times_s, config.settings.side_m, wrap, streams)
