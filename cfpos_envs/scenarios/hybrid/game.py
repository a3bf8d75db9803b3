"""The hybrid Markov game: APs as agents weigh the ranges, directions and powers that they measure of every user."""

from __future__ import annotations

import torch
from torch import Tensor

from cfpos_envs.measurements.hybrid import HybridMeasurements
from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.physics.hybrid import KINDS, fisher, predict
from cfpos_envs.scenarios.ap_game import ApScenario, Played
from cfpos_envs.scenarios.features import Words, evaluate, rows
from cfpos_envs.scenarios.hybrid import fusion
from cfpos_envs.scenarios.hybrid.config import HybridConfig
from cfpos_envs.scenarios.hybrid.observe import FEATURES, HybridView
from cfpos_envs.scenarios.hybrid.reward import reward
from cfpos_envs.scenarios.hybrid.state import HybridState, coarse_start_m, residuals_at
from cfpos_envs.scenarios.hybrid.world import draw_measurements
from cfpos_envs.scenarios.site_files import known_square_m
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.scenarios.toa.world import ToaSite, draw_site
from cfpos_envs.streams import Streams


class HybridScenario(ApScenario[HybridState, ToaSite]):
    """Positioning by arrival time, angle and power of the same users at once.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config: HybridConfig
    config_class = HybridConfig
    family = "hybrid"
    differentiable = True
    sees_directions = True
    numbers_per_link = 2 * len(KINDS)

    def __init__(self, config: HybridConfig, device: torch.device | str = "cpu") -> None:
        super().__init__(config, device, rows(FEATURES), fusion.actions(config.confidence_scale))
        self.model = config.model

    def words(self) -> Words:
        """For ``describe``."""
        c, s = self.config, self.config.settings
        return Words(
            title=(
                f"Hybrid positioning by {', '.join(KINDS)}, site {c.site_text}: {s.num_aps} APs (agents) with "
                f"{s.num_antennas} antennas,",
                f"{c.num_ues} UEs, {c.rounds} rounds, area {s.side_m:g} m square, shadowing {s.shadowing_db:g} dB.",
            ),
            agent="AP",
            reward="M grad(s) . (fused estimate - the same with this AP neutral), summed over its UEs,",
            closing=(
                f"s = {c.reward}: agreement of the measurements of the judging APs with the fused point.",
                "Action 0 is one step of a robust (Student-t) least squares estimator.",
                f"The episode is truncated after {c.rounds} rounds.",
            ),
        )

    def ranges(self) -> dict[str, float | str | list[float]]:
        """What the largest actions mean."""
        return {"confidence_scale": self.config.confidence_scale}

    def draw_site(self, streams: Streams, index: int) -> ToaSite:
        """Sites are those of the time-based games."""
        return draw_site(self.config.timing, streams, index)

    def draw_episodes(self, pool: SitePool[ToaSite], site_ids: Tensor, streams: Streams) -> HybridState:
        """Drops, what is measured of them, and held-out APs: in training for ``held-out`` only."""
        drawn = draw_measurements(self.config, pool, site_ids, streams)
        holds_out = self.config.split == "train" and self.config.reward == "held-out"
        count = (self.config.held_out_share * drawn["valid"].sum(dim=1, keepdim=True)).round() if holds_out else 0
        fused = self.draw_fused(streams, drawn["valid"], count)
        return HybridState(**self.known_places(pool, site_ids), **drawn, fused=fused)

    def start(self, state: HybridState, pool: SitePool[ToaSite]) -> HybridState:
        """First estimate: the best point of a lattice."""
        start = coarse_start_m(self.model, state, self.config.coarse_points)
        return state.replace(consensus_m=start, start_m=start)

    def observe(self, state: HybridState) -> Tensor:
        """[B, M, K * F] in [-1, 1]; see ``describe()`` for the entries."""
        view = HybridView(state, residuals_at(self.model, state, state.consensus_m), self.side_m, self.rounds)
        return evaluate(FEATURES, view, state.valid.shape).flatten(2)

    def play(self, state: HybridState, actions: Tensor) -> Played:
        """Weigh the measurements, fuse them, reward by agreement."""
        at = residuals_at(self.model, state, state.consensus_m)
        step, without = fusion.fuse(
            at, self.user_actions(actions), state.fused, self.config.confidence_scale, self.config.max_step_m
        )
        fused_m = self.into_area(state.consensus_m + step)
        changes = fused_m.unsqueeze(1) - self.into_area(state.consensus_m.unsqueeze(1) + without)
        return reward(self.model, state, fused_m, changes)

    def fisher(self, state: HybridState, true_position: Tensor) -> Tensor:
        """[B, K, 2, 2] of an oracle that knows which links have a line of sight; powers count on all of them."""
        positions, orientation, height = (part.double() for part in state.site())
        _, gradients = predict(self.model, positions, orientation, height, true_position.detach().double())
        in_sight = state.is_los & state.valid
        valid = torch.stack((in_sight, in_sight, state.valid), dim=-1)
        return fisher(gradients, state.played().variance.double(), valid)

    def bound_m(self, state: HybridState) -> Tensor:
        """[B, K] at most side / sqrt(6), the standard deviation of a user of whom nothing is known."""
        return position_error_bound(self.fisher(state, self.true_position(state))).clamp(max=self.side_m / 6**0.5)

    def measurements(self, state: HybridState) -> HybridMeasurements:
        """What the central unit received: all APs, no truth."""
        return HybridMeasurements(
            model=self.model,
            ap_positions_m=state.ap_positions_m,
            ap_orientation_rad=state.ap_orientation_rad,
            height_diff_m=state.height_diff_m,
            values=state.values,
            variance=state.variance,
            valid=state.valid.unsqueeze(-1).expand_as(state.values),
            site_ids=state.site_ids,
            area_m=known_square_m(self.config.site_file, self.side_m),
        )

    def encode_estimate(self, state: HybridState, positions: Tensor) -> Tensor:
        """Actions by which every AP reports ``positions`` [B, K, 2] as nearly as it can: full weight to what fits there
        better than at the consensus, least to the rest."""
        here = residuals_at(self.model, state, state.consensus_m).z.abs()
        there = residuals_at(self.model, state, positions.to(state.consensus_m)).z.abs()
        return torch.where(there <= here, 1.0, -1.0).flatten(2)
