"""The time-based Markov game: APs as agents, users as entities, rounds in which ranges are weighed and fused."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.bounds import peb, range_fisher, range_information, unit_vectors_to
from cfpos_envs.scenarios.ap_game import ApScenario, Played
from cfpos_envs.scenarios.features import Words, rows
from cfpos_envs.scenarios.site_files import known_square_m
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.scenarios.toa import fusion
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.observe import FEATURES, observe
from cfpos_envs.scenarios.toa.reward import REWARDS, reward
from cfpos_envs.scenarios.toa.state import ToaState, coarse_start_m, linear_start_m, median_offset_m, range_residuals
from cfpos_envs.scenarios.toa.world import ToaSite, draw_drop, draw_site
from cfpos_envs.streams import Streams

_FAMILIES = {
    "toa": "arrival times with a common clock",
    "tdoa": "arrival times of UEs whose clock is unknown: only differences count",
    "rtt": "round-trip times",
}


class ToaScenario(ApScenario[ToaState, ToaSite]):
    """Positioning by TOA, uplink TDOA or multi-RTT in the variants of ``ToaConfig``.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config: ToaConfig
    config_class = ToaConfig
    differentiable = True

    def __init__(self, config: ToaConfig, device: torch.device | str = "cpu") -> None:
        super().__init__(config, device, rows(FEATURES), fusion.actions(config.confidence_scale, config.correction_m))
        self.family = config.family
        self.privileged_reward = config.reward == "error"
        self.model = config.model
        self.common_clock = config.family != "tdoa"

    def words(self) -> Words:
        """For ``describe``."""
        c, s = self.config, self.config.settings
        return Words(
            title=(
                f"Time-based positioning, {c.family} ({_FAMILIES[c.family]}),",
                f"{c.measurement} measurements, site {c.site_text}: {s.num_aps} APs (agents), {c.num_ues} UEs, "
                f"{c.rounds} rounds, area {s.side_m:g} m square, {s.num_subcarriers} x "
                f"{s.subcarrier_spacing_hz / 1e3:g} kHz.",
            ),
            agent="AP",
            reward="M grad(s) . (fused estimate - the same with this AP neutral), summed over its UEs,",
            closing=(
                f"s = {c.reward}: {REWARDS[c.reward]}.",
                "Action 0 is one step of a robust (Student-t) least squares estimator.",
                f"Start: {c.start}. The episode is truncated after {c.rounds} rounds.",
            ),
        )

    def ranges(self) -> dict[str, float | str | list[float]]:
        """What the largest actions mean."""
        return {"confidence_scale": self.config.confidence_scale, "correction_m": self.config.correction_m}

    # Episode start -------------------------------------------------------------------------------------------------

    def draw_site(self, streams: Streams, index: int) -> ToaSite:
        """See ``world.draw_site``."""
        return draw_site(self.config, streams, index)

    def draw_episodes(self, pool: SitePool[ToaSite], site_ids: Tensor, streams: Streams) -> ToaState:
        """Drops, what is measured of them, and held-out APs: in training for ``held-out`` only."""
        config = self.config
        drop = draw_drop(config, pool, site_ids, streams)
        holds_out = config.split == "train" and config.reward == "held-out"
        num_measured = drop.valid.sum(dim=1, keepdim=True)
        return ToaState(
            **self.known_places(pool, site_ids),
            true_position_m=drop.true_position_m,
            is_los=drop.is_los,
            sequence_range_m=drop.range_m,
            sequence_variance_m2=drop.variance_m2,
            sequence_snr_db=drop.snr_db,
            sequence_features=drop.features,
            sequence_cfr=drop.cfr,
            valid=drop.valid,
            fused=self.draw_fused(
                streams, drop.valid, (config.held_out_share * num_measured).round() if holds_out else 0
            ),
            offset_m=torch.zeros(len(site_ids), self.num_ues, device=self.device),
        )

    def start(self, state: ToaState, pool: SitePool[ToaSite]) -> ToaState:
        """First estimate by the configured rule, and for TDOA the offset that belongs to it."""
        start = self._start_m(state)
        return self.with_estimate(state.replace(start_m=start), start)

    def _start_m(self, state: ToaState) -> Tensor:
        if self.config.start == "coarse":
            return coarse_start_m(state, self.model.side_m, self.config.coarse_points, self.common_clock)
        if self.config.start == "linear":
            return linear_start_m(state, self.model.side_m, self.common_clock)
        return torch.full_like(state.consensus_m, self.model.side_m / 2)

    # Rounds --------------------------------------------------------------------------------------------------------

    def observe(self, state: ToaState) -> Tensor:
        """[B, M, K * F] in [-1, 1]; see ``describe()`` for the entries."""
        return observe(self.config, self.model, state, range_residuals(state)).flatten(2)

    def play(self, state: ToaState, actions: Tensor) -> Played:
        """Decode the actions, fuse the reports, reward by agreement."""
        config, at, chosen = self.config, range_residuals(state), self.user_actions(actions)
        report, neutral = (
            fusion.decode(at, each, config.confidence_scale, config.correction_m)
            for each in (chosen, torch.zeros_like(chosen))
        )
        least = math.exp(-2.0 * config.confidence_scale)
        fused = fusion.fuse(at, report, neutral, state.fused, self.common_clock, config.max_step_m, least)
        moved = {
            "consensus_m": self.into_area(state.consensus_m + fused.step_m),
            "offset_m": state.offset_m + fused.offset_m,
        }
        # What every AP has changed by not acting neutrally.
        without_m = self.into_area(state.consensus_m.unsqueeze(1) + fused.step_without_m)
        shifted_m = (fused.offset_m.unsqueeze(1) - fused.offset_without_m).unsqueeze(-1)
        changes = torch.cat((moved["consensus_m"].unsqueeze(1) - without_m, shifted_m), dim=-1)
        return reward(state, config.reward, moved, changes)

    # Reading a state -----------------------------------------------------------------------------------------------

    def with_estimate(self, state: ToaState, positions: Tensor) -> ToaState:
        """The state with the consensus at ``positions`` [B, K, 2] and, for TDOA, the offset that the APs see there."""
        changed = super().with_estimate(state, positions)
        if self.common_clock:
            return changed
        return changed.replace(offset_m=median_offset_m(state, changed.consensus_m))

    def truth(self, state: ToaState) -> dict[str, Tensor]:
        """See ``Scenario.truth``; ``valid``: the measured links determine a position at the estimate."""
        unit, _ = unit_vectors_to(state.ap_positions_m, state.height_diff_m, state.consensus_m)
        valid = fusion.determined(state.ap_positions_m, unit, state.valid, self.common_clock)
        return {**super().truth(state), "valid": valid}

    def bound_m(self, state: ToaState) -> Tensor | None:
        """[B, K] bound of an oracle that knows which links have a line of sight, by the given variances.

        At most side / sqrt(6), the standard deviation of a user of whom nothing is known: also where the oracle's links
        do not determine a position.
        """
        return peb(self.fisher(state, self.true_position(state))).clamp(max=self.side_m / 6**0.5)

    def fisher(self, state: ToaState, true_position: Tensor) -> Tensor:
        """[B, K, 2, 2] information of the line-of-sight links at the true positions."""
        unit, _ = unit_vectors_to(
            state.ap_positions_m.double(), state.height_diff_m.double(), true_position.detach().double()
        )
        variance = state.played().now(state.sequence_variance_m2)
        return range_fisher(self.family, unit, range_information(variance.double(), state.is_los & state.valid))

    def measurements(self, state: ToaState) -> TimingMeasurements:
        """What the central unit received: all APs, no truth."""
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
            area_m=known_square_m(self.config.site_file, self.side_m),
        )

    def encode_estimate(self, state: ToaState, positions: Tensor) -> Tensor:
        """Actions by which every AP reports ``positions`` [B, K, 2] as nearly as it can.

        Every AP corrects its range to the one that it would measure there; those whose correction would be larger than
        allowed report it with the least reliability.
        """
        at = range_residuals(state)
        target = self.with_estimate(state, positions)
        _, slant = unit_vectors_to(state.ap_positions_m, state.height_diff_m, target.consensus_m)
        wanted = at.residual_m - (slant - at.slant_m)
        within = wanted.abs() <= self.config.correction_m
        correction = fusion.encode_correction(wanted, self.config.correction_m)
        reliability = torch.where(within, torch.ones_like(wanted), -torch.ones_like(wanted))
        return torch.stack((reliability, correction), dim=-1).flatten(2)
