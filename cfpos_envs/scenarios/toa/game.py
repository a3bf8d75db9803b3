"""The time-based Markov game: APs as agents, users as entities, rounds in which ranges are weighed and fused."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.drawing.figures import draw_episode
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.bounds import (
    peb,
    range_fisher,
    range_information,
    unit_vectors_to,
)
from cfpos_envs.scenarios.base import Entities, Scenario, Transition
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.scenarios.toa import fusion, rewards
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.description import describe
from cfpos_envs.scenarios.toa.observe import FEATURES, observe
from cfpos_envs.scenarios.toa.state import (
    ToaState,
    coarse_start_m,
    innovations,
    linear_start_m,
    median_offset_m,
)
from cfpos_envs.scenarios.toa.world import draw_drop, draw_site
from cfpos_envs.streams import Streams

FLOAT_BITS = 32
ACTION_SIZE = 2


class ToaScenario(Scenario[ToaState]):
    """Positioning by TOA, uplink TDOA or multi-RTT in the variants of ``ToaConfig``.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config_class = ToaConfig
    differentiable = True

    def __init__(self, config: ToaConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.family = config.family
        self.device = torch.device(device)
        self.model = config.model
        self.common_clock = config.family != "tdoa"
        self.num_aps, self.num_ues = config.settings.num_aps, config.num_ues
        self.agents = tuple(f"ap_{m}" for m in range(self.num_aps))
        self.rounds = config.rounds
        self.entities = self._entities = Entities(self.num_ues, len(FEATURES), ACTION_SIZE)
        self.observation_size = self.num_ues * len(FEATURES)
        self.action_size = self.num_ues * ACTION_SIZE
        self._pool: SitePool | None = None

    # Episode start -------------------------------------------------------------------------------------------------

    def reset(self, streams: Streams, num_envs: int) -> ToaState:
        """Draw sites, drops, measurements and held-out APs; see ``Scenario.reset``."""
        pool = self._pool_for(streams)
        count = self.config.settings.num_sites
        # Sites in turn from a random first one: every batch covers the pool evenly.
        first = torch.randint(count, (1,), generator=streams["drop"], device=self.device)
        site_ids = (first + torch.arange(num_envs, device=self.device)) % count
        drop = draw_drop(self.config, pool, site_ids, streams)
        placeholder = torch.zeros(num_envs, self.num_ues, 2, device=self.device)
        state = ToaState(
            true_position_m=drop.true_position_m,
            is_los=drop.is_los,
            site_ids=site_ids,
            ap_positions_m=pool.stack(site_ids, "ap_positions_m"),
            ap_orientation_rad=pool.stack(site_ids, "ap_orientation_rad"),
            height_diff_m=pool.stack(site_ids, "height_diff_m"),
            sequence_range_m=drop.range_m,
            sequence_variance_m2=drop.variance_m2,
            sequence_snr_db=drop.snr_db,
            sequence_features=drop.features,
            sequence_cfr=drop.cfr,
            valid=drop.valid,
            fused=self._draw_fused(streams, drop.valid),
            consensus_m=placeholder,
            offset_m=placeholder[..., 0],
            start_m=placeholder,
            round=torch.zeros(num_envs, dtype=torch.long, device=self.device),
        )
        start = self._start(state)
        return self.with_estimate(state.replace(start_m=start), start)

    def _pool_for(self, streams: Streams) -> SitePool:
        if self._pool is None or not self._pool.belongs_to(streams):
            self._pool = SitePool(partial(draw_site, self.config), streams)
        return self._pool

    def _draw_fused(self, streams: Streams, valid: Tensor) -> Tensor:
        """Per user and episode a random share of the measured APs is left out, in training for ``held-out`` only."""
        order = torch.rand(valid.shape, generator=streams["held-out"], device=self.device)
        if self.config.split != "train" or self.config.reward != "held-out":
            return valid
        # Blocked links come last, so that the share is one of the measured ones.
        order = torch.where(valid, order, order + 1.0).argsort(dim=1).argsort(dim=1)
        held_out = (self.config.held_out_share * valid.sum(dim=1, keepdim=True)).round()
        return valid & (order >= held_out)

    def _start(self, state: ToaState) -> Tensor:
        if self.config.start == "coarse":
            return coarse_start_m(state, self.model.side_m, self.config.coarse_points, self.common_clock)
        if self.config.start == "linear":
            return linear_start_m(state, self.model.side_m, self.common_clock)
        return torch.full_like(state.consensus_m, self.model.side_m / 2)

    # Rounds --------------------------------------------------------------------------------------------------------

    def observe(self, state: ToaState) -> Tensor:
        """[B, M, K * F] in [-1, 1]; see ``describe()`` for the entries."""
        return observe(self.config, self.model, state, innovations(state)).flatten(2)

    def step(self, state: ToaState, actions: Tensor) -> Transition[ToaState]:
        """Decode the actions, fuse the reports, reward by agreement; see ``Scenario.step``."""
        config = self.config
        actions = actions.clamp(-1.0, 1.0).unflatten(2, (self.num_ues, -1))
        at = innovations(state)
        report = fusion.decode(at, actions, config.confidence_scale, config.correction_m)
        neutral = fusion.decode(at, torch.zeros_like(actions), config.confidence_scale, config.correction_m)
        least = math.exp(-2.0 * config.confidence_scale)
        step, offset, step_without, offset_without = fusion.fuse(
            at, report, neutral, state.fused, self.common_clock, config.max_step_m, least
        )
        fused_m, offset_m = self._area(state.consensus_m + step), state.offset_m + offset
        # What every AP has changed by not acting neutrally.
        moved_m = fused_m.unsqueeze(1) - self._area(state.consensus_m.unsqueeze(1) + step_without)
        shifted_m = (offset.unsqueeze(1) - offset_without).unsqueeze(-1)
        changes = torch.cat((moved_m, shifted_m), dim=-1).detach()
        rewards_mk, metrics = self._reward(state, changes, fused_m, offset_m)
        nxt = state.replace(consensus_m=fused_m, offset_m=offset_m, round=state.round + 1)
        done = nxt.round >= self.rounds
        metrics["entity_rewards"] = rewards_mk
        metrics["entity_valid"] = state.fused
        return Transition(nxt, rewards_mk.sum(dim=-1), torch.zeros_like(done), done, metrics)

    def _reward(
        self, state: ToaState, changes: Tensor, fused_m: Tensor, offset_m: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Rewards [B, M, K] and label-free metrics of the round; ``changes`` [B, M, K, 3] of position and offset."""
        similarity = rewards.similarity_at(state, fused_m.detach(), offset_m.detach(), state.judges).mean(dim=-1)
        metrics = {
            "objective": self._objective(state, fused_m, offset_m),
            "similarity": similarity,
            "score": similarity,
        }
        with torch.enable_grad():
            leaf = torch.cat((fused_m, offset_m.unsqueeze(-1)), dim=-1).detach().requires_grad_(True)
            value = self._objective(state, leaf[..., :2], leaf[..., 2]).sum()
            (gradient,) = torch.autograd.grad(value, leaf)
        return rewards.counterfactual_credit(gradient, changes), metrics

    def _objective(self, state: ToaState, position_m: Tensor, offset_m: Tensor) -> Tensor:
        """[B, K], differentiable."""
        if self.config.reward == "error":
            return rewards.log_error(state, position_m) + 0 * offset_m
        return rewards.similarity_at(state, position_m, offset_m, state.judges)

    def _area(self, points_m: Tensor) -> Tensor:
        return points_m.clamp(0.0, self.model.side_m)

    # Reading a state -----------------------------------------------------------------------------------------------

    def global_state(self, state: ToaState) -> Tensor:
        """[B, state_size]: AP positions, consensus and round, scaled into [-1, 1]."""
        half = 0.5 * self.model.side_m
        parts = [
            (state.ap_positions_m / half - 1.0).flatten(1),
            (state.consensus_m / half - 1.0).flatten(1),
            (state.round.to(torch.float32) / self.rounds).unsqueeze(1),
        ]
        return torch.cat(parts, dim=1).clamp(-1.0, 1.0)

    @property
    def state_size(self) -> int:
        """2 M + 2 K + 1."""
        return 2 * self.num_aps + 2 * self.num_ues + 1

    def estimate(self, state: ToaState) -> Tensor:
        """[B, K, 2] consensus, metres."""
        return state.consensus_m

    def with_estimate(self, state: ToaState, positions: Tensor) -> ToaState:
        """The state with the consensus at ``positions`` [B, K, 2] and, for TDOA, the offset that the APs see there."""
        consensus = self._area(positions.to(state.consensus_m))
        if self.common_clock:
            return state.replace(consensus_m=consensus)
        return state.replace(consensus_m=consensus, offset_m=median_offset_m(state, consensus))

    def truth(self, state: ToaState) -> dict[str, Tensor]:
        """True positions, errors, bounds and validity; for infos and evaluation only.

        ``peb_m`` is the bound of an oracle that knows which links have a line of sight, by the told variances. It is
        at most side / sqrt(6), the standard deviation of a user of whom nothing is known: also where the oracle's links
        do not determine a position. ``valid``: the measured links determine a position at the estimate.
        """
        # A moving user is compared where it was when the estimate's measurements were taken.
        played = state.replace(round=(state.round - 1).clamp(min=0))
        true_position = played.now(state.true_position_m)
        error = torch.linalg.vector_norm(state.consensus_m - true_position, dim=-1)
        unit, _ = unit_vectors_to(state.ap_positions_m, state.height_diff_m, state.consensus_m)
        bound = peb(self._fisher(played, true_position)).to(error)
        return {
            "true_position": true_position,
            "error_m": error,
            "rmse_m": error.square().mean(dim=-1).sqrt(),
            "peb_m": bound.clamp(max=self.model.side_m / 6**0.5),
            "valid": fusion.determined(state.ap_positions_m, unit, state.valid, self.common_clock),
        }

    def _fisher(self, state: ToaState, true_position: Tensor) -> Tensor:
        """[B, K, 2, 2] information of the line-of-sight links at the true positions."""
        unit, _ = unit_vectors_to(
            state.ap_positions_m.double(), state.height_diff_m.double(), true_position.detach().double()
        )
        information = range_information(state.now(state.sequence_variance_m2).double(), state.is_los & state.valid)
        return range_fisher(self.model.family, unit, information)

    @property
    def area_centre_m(self) -> Tensor:
        """[2] middle of the square."""
        return torch.full((2,), self.model.side_m / 2)

    def measurements(self, state: ToaState) -> TimingMeasurements:
        """What the CPU received: all APs, no truth."""
        return TimingMeasurements(
            model=self.model,
            ap_positions_m=state.ap_positions_m,
            ap_orientation_rad=state.ap_orientation_rad,
            height_diff_m=state.height_diff_m,
            range_m=state.range_m,
            variance_m2=state.now(state.sequence_variance_m2),
            snr_db=state.now(state.sequence_snr_db),
            features=state.now(state.sequence_features),
            valid=state.valid,
            is_los=state.is_los if self.config.reveal_los else None,
            cfr=None if state.sequence_cfr is None else state.now(state.sequence_cfr),
            site_ids=state.site_ids,
        )

    def encode_estimate(self, state: ToaState, positions: Tensor) -> Tensor:
        """Actions by which every AP reports ``positions`` [B, K, 2] as nearly as it can.

        Every AP corrects its range to the one that it would measure there; those whose correction would be larger than
        allowed report it with the least reliability.
        """
        at = innovations(state)
        target = self.with_estimate(state, positions)
        _, slant = unit_vectors_to(state.ap_positions_m, state.height_diff_m, target.consensus_m)
        wanted = at.residual_m - (slant - at.slant_m)
        within = wanted.abs() <= self.config.correction_m
        correction = fusion.encode_correction(wanted, self.config.correction_m)
        reliability = torch.where(within, torch.ones_like(wanted), -torch.ones_like(wanted))
        return torch.stack((reliability, correction), dim=-1).flatten(2)

    def describe(self) -> str:
        """Tables of observation, action and reward, made from the code."""
        return describe(self.config, self._entities)

    def fronthaul_bits(self) -> float:
        """Float32 numbers an AP sends per episode: range and variance of each UE once (each round if they move), and
        its actions each round."""
        measured = 2 * self.num_ues * (self.rounds if self.config.mobility else 1)
        return float(FLOAT_BITS * (measured + self.rounds * self.action_size))

    def draw(self, axes: Any, state: ToaState, history: list[Tensor]) -> None:
        """Episode 0: APs, true and estimated positions round by round, ellipses of the oracle's bound."""
        played = state.replace(round=(state.round - 1).clamp(min=0))
        true_position = played.now(state.true_position_m)
        fisher = self._fisher(played, true_position)[0]
        regular = bool(torch.isfinite(peb(fisher)).all())
        draw_episode(
            axes,
            state.ap_positions_m[0].cpu().numpy(),
            state.ap_orientation_rad[0].cpu().numpy(),
            true_position[0].cpu().numpy(),
            [estimate.cpu().numpy() for estimate in history],
            side_m=self.model.side_m,
            wrap=False,
            covariance=torch.linalg.inv(fisher).cpu().numpy() if regular else None,
        )
