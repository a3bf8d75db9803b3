"""The DCP Markov game: APs as agents, users as entities, rounds of reports that the central unit fuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.arrays import angle_profile, angular_power, profile_peak
from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.physics.chunks import by_chunks, chunk_rows
from cfpos_envs.physics.dcp.bounds import LinksToUsers, drop_fisher, measurement_statistics
from cfpos_envs.physics.dcp.covariance.front_ends import covariance_readings
from cfpos_envs.physics.dcp.covariance.information import covariance_fisher, link_information
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw
from cfpos_envs.physics.dcp.innovations import coarse_joint_scores, rss_weighted_centroid
from cfpos_envs.scenarios.ap_game import ApScenario, Played
from cfpos_envs.scenarios.base import Transition
from cfpos_envs.scenarios.dcp import drops, fusion
from cfpos_envs.scenarios.dcp.bound_kernel import BoundKernel
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.drop_kernel import DropKernel
from cfpos_envs.scenarios.dcp.episode_kernel import EpisodeKernel, episode_kernel_for
from cfpos_envs.scenarios.dcp.kernel import DcpKernel, drop_kernel_for, kernel_for, takes
from cfpos_envs.scenarios.dcp.observe import feature_table, observe, remembered
from cfpos_envs.scenarios.dcp.readings import direction_spectra
from cfpos_envs.scenarios.dcp.reward import REWARDS, reward
from cfpos_envs.scenarios.dcp.similarity import Judge
from cfpos_envs.scenarios.dcp.state import DcpState
from cfpos_envs.scenarios.dcp.world import DcpSite, draw_drop, draw_positions, draw_site
from cfpos_envs.scenarios.features import Words
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.streams import COUNTER, EpisodeStreams, Streams

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STAGE_ONE_ROUNDS = 6
COVARIANCES = "sample covariances"
_BOUND_OF_STAGE = {"rss": "RSS", "aoa": "DFT powers", "chained": "RSS and DFT powers", "joint": "RSS and DFT powers"}


class DcpScenario(ApScenario[DcpState, DcpSite]):
    """Distributed collaborative positioning, Liu et al. (DCP), in the variants of ``DcpConfig``.

    Attributes:
        simulates: channels are drawn; false where measurements are somebody's.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config: DcpConfig
    config_class = DcpConfig
    family = "dcp"
    sees_directions = True
    simulates: bool = True

    def __init__(self, config: DcpConfig, device: torch.device | str = "cpu") -> None:
        super().__init__(config, device, feature_table(config), fusion.ACTIONS[config.action], config.radio.wrap)
        self.radio = config.radio
        self.rounds = config.rounds * config.drops
        self.differentiable = config.fusion != "line-search"

    def words(self) -> Words:
        """For ``describe``."""
        c, s = self.config, self.config.settings
        length = f"{c.rounds} rounds" if c.drops == 1 else f"{c.drops} drops of {c.rounds} rounds"
        return Words(
            title=(
                f"DCP, stage {c.stage!r}, site {c.site_text}: {s.num_aps} APs (agents), {c.num_ues} UEs, "
                f"{s.num_antennas} antennas per AP, {length}, area {s.side_m:g} m square.",
            ),
            agent="AP",
            reward=f"{c.reward}, similarity {c.similarity!r}, summed over its UEs: {REWARDS[c.reward]}.",
            closing=(f"Fusion: {c.fusion}. Start: {c.start}. The episode is truncated after {self.rounds} rounds.",),
        )

    def ranges(self) -> dict[str, float | str | list[float]]:
        """The stage, and what the largest actions mean."""
        c = self.config
        scales = {
            "polar": {"distance_m": fusion.polar_range_m(self.radio)},
            "confidence": {"confidence_scale": c.confidence_scale},
            "confidence-correction": {
                name: getattr(c, name) for name in ("confidence_scale", "correction_db", "correction_rad")
            },
        }
        # Corrections are also the scale in which offsets are seen.
        seen = {} if c.memory == "none" else scales["confidence-correction"]
        return {"stage": c.stage, **scales.get(c.action, {}), **seen}

    @property
    def times_measured(self) -> int:
        """Also once in every drop."""
        return super().times_measured * self.config.drops

    # Episode start -------------------------------------------------------------------------------------------------

    def reset(self, streams: Streams, num_envs: int) -> DcpState:
        """Draw sites, drops, measurements and held-out APs; see ``Scenario.reset``."""
        # A kernel that is asked for and missing is an error before anything is drawn.
        _ = self._kernel
        return super().reset(streams, num_envs)

    def begin(self, pool: SitePool[DcpSite], site_ids: Tensor, streams: Streams) -> DcpState:
        """New episodes on given sites, of one drop or of several."""
        states = [self._begin_drop(pool, site_ids, streams, drop) for drop in range(self.config.drops)]
        return states[0] if len(states) == 1 else self.joined(states)

    def joined(self, states: Sequence[DcpState]) -> DcpState:
        """One episode's drops; see ``drops.joined``."""
        return drops.joined(self.config, states)

    def _begin_drop(self, pool: SitePool[DcpSite], site_ids: Tensor, streams: Streams, drop: int) -> DcpState:
        """Compiled as a whole where each episode is drawn by its number."""
        kernel = self._episode_kernel
        if kernel is None or not isinstance(streams, EpisodeStreams):
            return self.start(self.draw_episodes(pool, site_ids, streams, drop), pool)
        config, settings = self.config, self.config.settings
        positions = None
        if config.speed_m_s or settings.min_ue_distance_m:
            positions = draw_positions(config, pool.stack(site_ids, "ap_positions_m"), streams)
        state = DcpState(
            **kernel.begin(pool, site_ids, streams, positions, drop),
            site_ids=site_ids,
            consensus_m=torch.zeros(0),
            round=torch.zeros(len(site_ids), dtype=torch.long),
            shadowing_maps=pool.stack(site_ids, "shadowing_maps") if config.shadowing_known else None,
            spread_m=torch.zeros(len(site_ids), self.num_ues),
        )
        state = self._read(state.replace(consensus_m=state.start_m))
        if config.start == "centroid":
            return self.start(state, pool)
        return self._after_neutral_rss(state) if config.start == "stage-1" else state

    def draw_site(self, streams: Streams, index: int) -> DcpSite:
        """See ``world.draw_site``."""
        return draw_site(self.config, streams, index)

    def draw_episodes(self, pool: SitePool[DcpSite], site_ids: Tensor, streams: Streams, number: int = 0) -> DcpState:
        """Drops, what the APs hear of them, and held-out APs; ``number`` counts the drops of a site."""
        drop = draw_drop(self.config, pool, site_ids, streams, self._drop_kernel, number)
        # Per user and episode a random share of the APs is left out of fusion and broadcasts, in training only.
        everybody = torch.ones(len(site_ids), self.num_aps, self.num_ues, dtype=torch.bool, device=self.device)
        state = DcpState(
            **self.known_places(pool, site_ids),
            true_position_m=drop.true_position_m,
            true_shadowing_db=pool.stack(site_ids, "shadowing_std_db").to(torch.float32),
            shadowing_maps=pool.stack(site_ids, "shadowing_maps") if self.config.shadowing_known else None,
            sequence_covariance=drop.covariance,
            sequence_rss_dbm=drop.rss_dbm,
            angular_power=torch.zeros(0),
            bearing_rad=torch.zeros(0),
            peak=torch.zeros(0),
            fused=self.draw_fused(streams, everybody, self.config.num_held_out),
            spread_m=torch.zeros(len(site_ids), self.num_ues, device=self.device),
        )
        return self._hear(state)

    def measured(self, state: DcpState) -> DcpState:
        """With spectra and bearings of a new round's measurements."""
        return state if state.is_static else self._hear(state)

    def _entered(self, state: DcpState) -> DcpState:
        """As a round finds it: where a drop is over, at the start of the next."""
        if state.drop is None:
            return state

        def enter(state: DcpState) -> DcpState:
            entered = drops.entered(self.config, state)
            return state if entered is state else self._hear(entered)

        return state.entered(enter)

    def answered(self, state: DcpState) -> DcpState:
        """At the start of its last drop, of which one answer is asked."""
        return state if state.drop is None else self._hear(drops.at_last(self.config, state))

    def global_state(self, state: DcpState) -> Tensor:
        """See ``ApScenario.global_state``; like an observation it is of the drop that is played next."""
        return super().global_state(self._entered(state))

    def true_position(self, state: DcpState) -> Tensor:
        """[B, K, 2] hidden, of this drop."""
        return super().true_position(state) if state.drop is None else state.now(state.true_position_m)

    def _hear(self, state: DcpState) -> DcpState:
        """Spectra and bearings of this round's sample covariances."""
        covariance = state.now(state.sequence_covariance)
        if self._drop_kernel is not None:
            return self._read(state.heard(*self._drop_kernel.hear(covariance), None))
        power = angular_power(covariance)
        profile = angle_profile(power, direction_spectra(self.config, self.device))
        return self._read(state.heard(power, *profile_peak(profile), profile))

    def _read(self, state: DcpState) -> DcpState:
        """With what the front end reads from this round's covariances, where it is not their spectra."""
        config = self.config
        if config.links == "dft":
            return state
        covariance = state.now(state.sequence_covariance)
        readings = covariance_readings(covariance, state.rss_dbm, self.radio, config.links, config.link_training)
        return state.replace(
            bearing_rad=readings.bearing_rad,
            bearing_std_rad=readings.bearing_std_rad,
            correction_db=readings.correction_db,
            power_std_db=readings.power_std_db,
        )

    def start(self, state: DcpState, pool: SitePool[DcpSite]) -> DcpState:
        """First estimate: centroid, best point of a grid, or what six neutral rounds of the RSS game make of that."""
        if self.config.start == "centroid":
            start = rss_weighted_centroid(state.ap_positions_m, state.rss_dbm, self.side_m, self.wrap, state.fused)
            return state.replace(consensus_m=start, start_m=start)
        uses_rss, uses_aoa = self._coarse_start_uses
        scale_db = self.config.coarse_rss_scale_db if uses_rss else None
        best = self._best_candidates(state, pool, scale_db, uses_aoa)
        start = torch.gather(pool.stack(state.site_ids, "candidates_m"), 1, best.unsqueeze(-1).expand(-1, -1, 2))
        state = state.replace(consensus_m=start, start_m=start)
        return self._after_neutral_rss(state) if self.config.start == "stage-1" else state

    @property
    def _coarse_start_uses(self) -> tuple[bool, bool]:
        """Whether the coarse start looks at the RSS, and at bearings."""
        # The AOA game may not look at the RSS; only the joint and chained ones may look at both.
        uses_rss = self.config.start == "stage-1" or self.config.stage != "aoa"
        return uses_rss, self.config.start == "coarse" and self.config.stage != "rss"

    def _best_candidates(
        self, state: DcpState, pool: SitePool[DcpSite], scale_db: float | None, uses_aoa: bool
    ) -> Tensor:
        """[B, K] index of the candidate that fits best."""
        if self._drop_kernel is not None:
            present, sites = torch.unique(state.site_ids, return_inverse=True)
            predicted, angle = (pool.table(present, name) for name in ("candidate_rss_dbm", "candidate_angle_rad"))
            return self._drop_kernel.best_candidates(
                state.rss_dbm, state.angular_power, state.fused, sites, predicted, angle, scale_db, uses_aoa
            )

        def best_candidate(
            rss_dbm: Tensor, profile: Tensor | None, predicted_dbm: Tensor, angle_rad: Tensor, mask: Tensor | None
        ) -> Tensor:
            return coarse_joint_scores(rss_dbm, profile, predicted_dbm, angle_rad, scale_db, mask).argmax(dim=-1)

        predicted_dbm = pool.stack(state.site_ids, "candidate_rss_dbm")
        return by_chunks(
            best_candidate,
            chunk_rows(predicted_dbm[0].numel(), self.device),
            state.rss_dbm,
            state.readings.profiles(self.config) if uses_aoa else None,
            predicted_dbm,
            pool.stack(state.site_ids, "candidate_angle_rad"),
            state.fused if self.config.num_held_out else None,
        )

    def _after_neutral_rss(self, state: DcpState) -> DcpState:
        played = state
        idle = torch.zeros(len(state.round), self.num_aps, self._rss_game.action_size, device=self.device)
        for _ in range(STAGE_ONE_ROUNDS):
            played = self._rss_game.step(played.replace(round=state.round), idle).state
        return state.replace(consensus_m=played.consensus_m, start_m=played.consensus_m)

    @cached_property
    def _rss_game(self) -> DcpScenario:
        return DcpScenario(_rss_stage(self.config), self.device)

    # Rounds --------------------------------------------------------------------------------------------------------

    def observe(self, state: DcpState) -> Tensor:
        """[B, M, K * F] in [-1, 1]; see ``describe()`` for the entries."""
        state = drops.within(self.config, self._entered(state))
        if self._kernel is not None and takes(state):
            seen = self._kernel.observe(state)
        else:
            seen = observe(self.config, self.radio, state).flatten(2)
        if self.config.memory == "none":
            return seen
        per_user = seen.unflatten(2, (self.num_ues, -1))
        return torch.cat((per_user, remembered(self.config, self.radio, state)), dim=-1).flatten(2)

    def step(self, state: DcpState, actions: Tensor) -> Transition[DcpState]:
        """See ``ApScenario.step``."""
        return super().step(self._entered(state), actions)

    def play(self, state: DcpState, actions: Tensor) -> Played:
        """Decode the actions, fuse the reports, reward by similarity: compiled or in torch, differentiable."""
        state = drops.within(self.config, state)
        if self._kernel is not None and takes(state, actions):
            return self._kernel.step(state, actions)
        config, radio, at = self.config, self.radio, state.at_consensus(self.config)
        judge = Judge(config, radio, state, at)
        proposal = fusion.propose(config, radio, state, at, self.user_actions(actions))
        vectors = proposal.vectors(at.links.unit)
        reports = self.into_area(state.consensus_m.unsqueeze(1) + vectors) if config.reward == "local" else None
        # Where the reward will ask for the same similarity of the reports, the line search's one pass serves both; no
        # gradient flows through a reward.
        others = None if config.similarity == "paper" or vectors.requires_grad else reports
        fused = fusion.fuse(config, radio, state, at, proposal, vectors, judge, others)
        moved = {
            "consensus_m": self.into_area(state.consensus_m + fused.step),
            "spread_m": fusion.report_spread_m(vectors, state.fused),
        }
        return reward(config, state, judge, reports, fused, moved)

    @cached_property
    def _drop_kernel(self) -> DropKernel | None:
        return drop_kernel_for(self.config, self.device)

    @cached_property
    def _episode_kernel(self) -> EpisodeKernel | None:
        if self.config.rng != COUNTER or not self.simulates or self._drop_kernel is None:
            return None
        return episode_kernel_for(self.config, *self._coarse_start_uses)

    @cached_property
    def _bound_kernel(self) -> BoundKernel | None:
        # Streams keep torch's roundings.
        if self.config.rng != COUNTER or self.config.shadowing_known or self._drop_kernel is None:
            return None
        return BoundKernel(self.config)

    @cached_property
    def _kernel(self) -> DcpKernel | None:
        return kernel_for(self.config, self.device)

    def draw(self, axes: Axes, state: DcpState, history: list[Tensor]) -> None:
        """See ``ApScenario.draw``; of several drops the one that is played."""
        if state.drop is not None:
            history = [state.start_m[0], *history[int(state.drop[0]) * self.config.rounds + 1 :]]
        super().draw(axes, state, history)

    # Reading a state -----------------------------------------------------------------------------------------------

    def bound_m(self, state: DcpState) -> Tensor | None:
        """[B, K] position error bound of what the game reads; for users that stand still computed once."""
        return self.named_bound_m(state, self.bound_of(None))

    def _powers_bound_m(self, state: DcpState) -> Tensor:
        """[B, K] that of the RSS and DFT powers that the stage uses."""

        def compute() -> Tensor:
            if self._bound_kernel is not None:
                return self._bound_kernel.bound_m(state, self.true_position(state))
            return position_error_bound(self.fisher(state, self.true_position(state)))

        return state.bound_once_m(self.config.stage, compute) if state.is_static else compute()

    def bound_of(self, policy: object) -> str:
        """That of sample covariances for estimators that read them whole, and for all who play a game whose ``links``
        do; else that of what the stage uses."""
        plays = not hasattr(policy, "locate")
        whole = self.config.links != "dft" if plays else getattr(policy, "reads_covariance", False)
        return COVARIANCES if whole else _BOUND_OF_STAGE[self.config.stage]

    def named_bound_m(self, state: DcpState, name: str) -> Tensor | None:
        """[B, K] ``covariance_bound_m`` for ``COVARIANCES``, else that of powers."""
        return self.covariance_bound_m(state) if name == COVARIANCES else self._powers_bound_m(state)

    def covariance_bound_m(self, state: DcpState, simulate: bool = False) -> Tensor | None:
        """[B, K] position error bound of whole sample covariances, metres; None without angular spread.

        Args:
            state: of any stage.
            simulate: whether the table of an array for which none comes along is simulated, which takes minutes; else
                the bound is that of somebody who knows all path angles, lower and as valid.
        """
        if self.radio.num_antennas < 2 or self.radio.angular_spread_rad <= 0.0:
            return None
        known = state.shadowing_maps is not None
        links = LinksToUsers.of(
            self.radio,
            state.ap_positions_m,
            state.ap_orientation_rad,
            state.height_diff_m,
            self.true_position(state),
            state.shadowing_maps,
        )
        hidden_db = 0.0 if known else state.true_shadowing_db
        information = link_information(ArrayLaw.of(self.radio), simulate)
        return position_error_bound(covariance_fisher(links, information, hidden_db))

    def fisher(self, state: DcpState, true_position: Tensor) -> Tensor:
        """[B, K, 2, 2] information of what the stage uses, 1/m^2."""
        known = state.shadowing_maps is not None
        return drop_fisher(
            self.radio,
            measurement_statistics(self.radio),
            state.ap_positions_m,
            state.ap_orientation_rad,
            state.height_diff_m,
            true_position,
            0.0 if known else state.true_shadowing_db,
            maps_db=state.shadowing_maps,
            use_rss=self.config.stage != "aoa",
            use_aoa=self.config.stage != "rss",
        )

    def measurements(self, state: DcpState) -> RadioMeasurements:
        """What the central unit received: all APs, no truth."""
        state = self._entered(state)
        return RadioMeasurements(
            radio=self.radio,
            ap_positions_m=state.ap_positions_m,
            ap_orientation_rad=state.ap_orientation_rad,
            height_diff_m=state.height_diff_m,
            rss_dbm=state.rss_dbm,
            angular_power=state.angular_power,
            covariance=state.now(state.sequence_covariance),
            shadowing_maps=state.shadowing_maps,
            shadowing_std_db=0.0 if self.config.shadowing_known else self.config.settings.shadowing_db,
            site_ids=state.site_ids,
        )

    def encode_estimate(self, state: DcpState, positions: Tensor) -> Tensor:
        """Actions by which every AP reports ``positions`` [B, K, 2]; see ``fusion.encode_points``."""
        entered = self._entered(state)
        return fusion.encode_points(self.config, self.radio, entered, positions.to(entered.consensus_m))


def _rss_stage(config: DcpConfig) -> DcpConfig:
    """The neutral RSS game that gives the AOA game its start."""
    return dataclasses.replace(
        config,
        stage="rss",
        formulation="collaborative",
        action="gain",
        reward="shared",
        similarity="log",
        fusion="line-search",
        start="coarse",
        rounds=STAGE_ONE_ROUNDS,
        # One drop at a time, which is begun before there is anything to remember.
        drops=1,
        memory="none",
    )
