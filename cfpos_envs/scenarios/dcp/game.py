"""The DCP Markov game: APs as agents, users as entities, rounds of reports that the CPU fuses."""

from __future__ import annotations

import dataclasses
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.drawing.figures import draw_episode
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics import geometry
from cfpos_envs.physics.arrays import angle_profile, angular_power, profile_peak
from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.physics.chunks import by_chunks, chunk_rows
from cfpos_envs.physics.dcp.bounds import drop_fisher, measurement_statistics
from cfpos_envs.physics.dcp.innovations import coarse_joint_scores, rss_weighted_centroid
from cfpos_envs.scenarios.base import Entities, Scenario, Transition
from cfpos_envs.scenarios.dcp import fusion
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.description import describe
from cfpos_envs.scenarios.dcp.drop_kernel import DropKernel
from cfpos_envs.scenarios.dcp.kernel import (
    DcpKernel,
    drop_kernel_for,
    kernel_for,
    takes,
)
from cfpos_envs.scenarios.dcp.observe import feature_table, observe
from cfpos_envs.scenarios.dcp.rounds import play_round
from cfpos_envs.scenarios.dcp.state import (
    DcpState,
    at_consensus,
    direction_spectra,
    profiles,
)
from cfpos_envs.scenarios.dcp.world import draw_drop, draw_site
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.streams import Streams

FLOAT_BITS = 32
STAGE_ONE_ROUNDS = 6
_SINGULAR = 1e10


class DcpScenario(Scenario[DcpState]):
    """Distributed collaborative positioning, Liu et al. (DCP), in the variants of ``DcpConfig``.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config_class = DcpConfig
    family = "dcp"

    def __init__(self, config: DcpConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.radio = config.radio
        self.num_aps = config.settings.num_aps
        self.num_ues = config.num_ues
        self.agents = tuple(f"ap_{m}" for m in range(self.num_aps))
        self.rounds = config.rounds
        entities = Entities(self.num_ues, len(feature_table(config)), _action_size(config))
        self.entities = self._entities = entities
        self.observation_size = self.num_ues * entities.observation_size
        self.action_size = self.num_ues * entities.action_size
        self.differentiable = config.fusion != "line-search"
        self._pool: SitePool | None = None

    # Episode start -------------------------------------------------------------------------------------------------

    def reset(self, streams: Streams, num_envs: int) -> DcpState:
        """Draw sites, drops, measurements and held-out APs; see ``Scenario.reset``."""
        # What is asked for and cannot be had is an error before anything is drawn.
        _ = self._kernel
        pool = self._pool_for(streams)
        count = self.config.settings.num_sites
        # Sites in turn from a random first one: every batch covers the pool evenly.
        first = torch.randint(count, (1,), generator=streams["drop"], device=self.device)
        site_ids = (first + torch.arange(num_envs, device=self.device)) % count
        drop = draw_drop(self.config, pool, site_ids, streams, self._drop_kernel)
        zeros = torch.zeros(num_envs, self.num_ues, device=self.device)
        placeholder = torch.zeros(num_envs, self.num_ues, 2, device=self.device)
        state = DcpState(
            true_position_m=drop.true_position_m,
            true_shadowing_db=pool.stack(site_ids, "shadowing_std_db").to(torch.float32),
            site_ids=site_ids,
            ap_positions_m=pool.stack(site_ids, "ap_positions_m"),
            ap_orientation_rad=pool.stack(site_ids, "ap_orientation_rad"),
            height_diff_m=pool.stack(site_ids, "height_diff_m"),
            shadowing_maps=pool.stack(site_ids, "shadowing_maps") if self.config.shadowing_known else None,
            sequence_covariance=drop.covariance,
            sequence_rss_dbm=drop.rss_dbm,
            angular_power=torch.zeros(0),
            bearing_rad=torch.zeros(0),
            peak=torch.zeros(0),
            fused=self._draw_fused(streams, num_envs),
            consensus_m=placeholder,
            start_m=placeholder,
            spread_m=zeros,
            round=torch.zeros(num_envs, dtype=torch.long, device=self.device),
        )
        state = self._hear(state)
        return self._start(state, pool)

    def _pool_for(self, streams: Streams) -> SitePool:
        if self._pool is None or not self._pool.belongs_to(streams):
            self._pool = SitePool(partial(draw_site, self.config), streams)
        return self._pool

    def _draw_fused(self, streams: Streams, num_envs: int) -> Tensor:
        """Per user and episode a random share of the APs is left out of fusion and broadcasts, in training only."""
        shape = (num_envs, self.num_aps, self.num_ues)
        order = torch.rand(shape, generator=streams["held-out"], device=self.device).argsort(dim=1).argsort(dim=1)
        return order >= self.config.num_held_out

    def _hear(self, state: DcpState) -> DcpState:
        """Spectra and bearings of this round's sample covariances."""
        covariance = state.now(state.sequence_covariance)
        if self._drop_kernel is not None:
            power, bearing, peak = self._drop_kernel.hear(covariance)
            return state.replace(angular_power=power, bearing_rad=bearing, peak=peak)
        power = angular_power(covariance)
        profile = angle_profile(power, direction_spectra(self.config, self.device))
        bearing, peak = profile_peak(profile)
        heard = state.replace(angular_power=power, bearing_rad=bearing, peak=peak)
        heard.once("profiles", lambda: profile)
        return heard

    def _start(self, state: DcpState, pool: SitePool) -> DcpState:
        if self.config.start == "centroid":
            start = rss_weighted_centroid(
                state.ap_positions_m, state.rss_dbm, self.radio.side_m, self.radio.wrap, state.fused
            )
            return state.replace(consensus_m=start, start_m=start)
        # The AOA game may not look at the RSS; only the joint and chained ones may look at both.
        uses_rss = self.config.start == "stage-1" or self.config.stage != "aoa"
        uses_aoa = self.config.start == "coarse" and self.config.stage != "rss"
        scale_db = self.config.coarse_rss_scale_db if uses_rss else None
        best = self._best_candidates(state, pool, scale_db, uses_aoa)
        start = torch.gather(pool.stack(state.site_ids, "candidates_m"), 1, best.unsqueeze(-1).expand(-1, -1, 2))
        state = state.replace(consensus_m=start, start_m=start)
        return self._after_neutral_rss(state) if self.config.start == "stage-1" else state

    def _best_candidates(self, state: DcpState, pool: SitePool, scale_db: float | None, uses_aoa: bool) -> Tensor:
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
            profiles(self.config, state) if uses_aoa else None,
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
        if self._kernel is not None and takes(state):
            return self._kernel.observe(state)
        return observe(self.config, self.radio, state).flatten(2)

    def step(self, state: DcpState, actions: Tensor) -> Transition[DcpState]:
        """Decode the actions, fuse the reports, reward by similarity; see ``Scenario.step``."""
        if self._kernel is not None and takes(state, actions):
            played = self._kernel.step(state, actions)
        else:
            played = play_round(self.config, self.radio, state, actions)
        nxt = state.replace(consensus_m=played.consensus_m, spread_m=played.spread_m, round=state.round + 1)
        if state.sequence_rss_dbm.shape[1] > 1:
            nxt = self._hear(nxt)
        done = nxt.round >= self.rounds
        metrics = {
            "objective": played.objective,
            "similarity": played.similarity,
            "score": played.score,
            "entity_rewards": played.entity_rewards,
            "entity_valid": state.fused,
        }
        return Transition(nxt, played.rewards, torch.zeros_like(done), done, metrics)

    @cached_property
    def _drop_kernel(self) -> DropKernel | None:
        return drop_kernel_for(self.config, self.device)

    @cached_property
    def _kernel(self) -> DcpKernel | None:
        return kernel_for(self.config, self.device)

    def _area(self, points_m: Tensor) -> Tensor:
        return geometry.into_area(points_m, self.radio.side_m, self.radio.wrap)

    # Reading a state -----------------------------------------------------------------------------------------------

    def global_state(self, state: DcpState) -> Tensor:
        """[B, state_size]: AP positions and array directions, consensus and round, scaled into [-1, 1]."""
        half = 0.5 * self.radio.side_m
        directions = geometry.unit_vectors(state.ap_orientation_rad)
        parts = [
            (state.ap_positions_m / half - 1.0).flatten(1),
            directions.flatten(1),
            (state.consensus_m / half - 1.0).flatten(1),
            (state.round.to(torch.float32) / self.rounds).unsqueeze(1),
        ]
        return torch.cat(parts, dim=1).clamp(-1.0, 1.0)

    @property
    def state_size(self) -> int:
        """4 M + 2 K + 1."""
        return 4 * self.num_aps + 2 * self.num_ues + 1

    def estimate(self, state: DcpState) -> Tensor:
        """[B, K, 2] consensus, metres."""
        return state.consensus_m

    def with_estimate(self, state: DcpState, positions: Tensor) -> DcpState:
        """The state with the consensus at ``positions`` [B, K, 2]."""
        return state.replace(consensus_m=self._area(positions.to(state.consensus_m)))

    def truth(self, state: DcpState) -> dict[str, Tensor]:
        """True positions, errors and position error bounds; for infos and evaluation only."""
        # A moving user is compared where it was when the estimate's measurements were taken.
        true_position = state.replace(round=(state.round - 1).clamp(min=0)).now(state.true_position_m)
        offset = geometry.nearest_image(state.consensus_m - true_position, self.radio.side_m, self.radio.wrap)
        error = torch.linalg.vector_norm(offset, dim=-1)
        return {
            "true_position": true_position,
            "error_m": error,
            "rmse_m": error.square().mean(dim=-1).sqrt(),
            "peb_m": self._bound_m(state, true_position).to(error),
        }

    def _bound_m(self, state: DcpState, true_position: Tensor) -> Tensor:
        if state.true_position_m.shape[1] > 1:
            return position_error_bound(self._fisher(state, true_position))
        return state.once(
            f"bound_m {self.config.stage}", lambda: position_error_bound(self._fisher(state, true_position))
        )

    def _fisher(self, state: DcpState, true_position: Tensor) -> Tensor:
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

    @property
    def area_centre_m(self) -> Tensor:
        """[2] middle of the square."""
        return torch.full((2,), self.radio.side_m / 2)

    def measurements(self, state: DcpState) -> RadioMeasurements:
        """What the CPU received: all APs, no truth."""
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
        """Actions by which every AP reports ``positions`` [B, K, 2].

        Exact for ``polar``. ``gain`` can only scale innovations by 0 to 2: the nearest such report. ``confidence``
        weighs innovations: full weight to those that lead towards the point, least to the others.
        """
        at = at_consensus(self.config, state)
        target = positions.to(state.consensus_m)
        if self.config.action == "polar":
            vectors = geometry.displacement(state.ap_positions_m, target, self.radio.side_m, self.radio.wrap)
            return fusion.encode_polar(self.radio, vectors).clamp(-1.0, 1.0).flatten(2)
        wanted = geometry.nearest_image(target - state.consensus_m, self.radio.side_m, self.radio.wrap).unsqueeze(1)
        radial = (wanted * at.links.unit).sum(dim=-1)
        tangential = (wanted * geometry.rotate_quarter(at.links.unit)).sum(dim=-1)
        if self.config.action == "gain":
            pairs = (
                (radial, at.implied_m - at.links.distance_m),
                (tangential, at.links.distance_m * torch.sin(at.bearing_rad)),
            )
            actions = [torch.nan_to_num(goal / move - 1.0, nan=-1.0).clamp(-1.0, 1.0) for goal, move in pairs]
        else:
            moves = (at.rss_db / at.slope_db_per_m, at.bearing_rad * at.links.distance_m)
            closer = [(move - goal).abs() < goal.abs() for move, goal in zip(moves, (radial, tangential), strict=True)]
            actions = [torch.where(flag, 1.0, -1.0) for flag in closer]
            actions += [torch.zeros_like(radial)] * (self._entities.action_size - 2)
        return torch.stack(actions, dim=-1).flatten(2)

    def describe(self) -> str:
        """Tables of observation, action and reward, made from the code."""
        return describe(self.config, self._entities)

    def fronthaul_bits(self) -> float:
        """Float32 numbers an AP sends per episode: RSS and bearing of each UE once (each round if they move), and its
        actions each round."""
        measured = 2 * self.num_ues * (self.rounds if self.config.mobility else 1)
        return float(FLOAT_BITS * (measured + self.rounds * self.action_size))

    def draw(self, axes: Any, state: DcpState, history: list[Tensor]) -> None:
        """Episode 0: APs with their arrays, true and estimated positions round by round, ellipses of the bound."""
        true_position = self.truth(state)["true_position"]
        fisher = self._fisher(state, true_position)[0]
        regular = bool((torch.linalg.cond(fisher) < _SINGULAR).all())
        draw_episode(
            axes,
            state.ap_positions_m[0].cpu().numpy(),
            state.ap_orientation_rad[0].cpu().numpy(),
            true_position[0].cpu().numpy(),
            [estimate.cpu().numpy() for estimate in history],
            side_m=self.radio.side_m,
            wrap=self.radio.wrap,
            covariance=torch.linalg.inv(fisher).cpu().numpy() if regular else None,
        )


def _action_size(config: DcpConfig) -> int:
    return 4 if config.action == "confidence-correction" else 2


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
    )
