"""Measured ranges under the rules of the time-based games."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from cfpos_envs.datasets import MeasuredSet
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.scenarios.measured.config import MeasuredConfig
from cfpos_envs.scenarios.measured.stored import draw_rows, users_of
from cfpos_envs.scenarios.ranges import MOST_M
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.game import ToaScenario
from cfpos_envs.scenarios.toa.state import ToaState
from cfpos_envs.scenarios.toa.world import ToaSite
from cfpos_envs.streams import Streams

# Kurtosis, rise time (ns), mean excess delay (ns) and delay spread (ns) that agents see as zero: nobody measured them.
_UNTOLD = (19.0, 13.0, 50.0, 70.0)


class RangesGame(ToaScenario):
    """The game of one network and the epochs of one part.

    Args:
        config: of the measured game.
        measured: its set.
        device: where the tensors live.

    Raises:
        ValueError: no ranges, fewer than three access points, options of the game that cannot be.
    """

    def __init__(self, config: MeasuredConfig, measured: MeasuredSet, device: torch.device | str) -> None:
        # One frame and one area for both parts.
        whole = measured.ranges(
            measured.train.joined(measured.test), config.std_m, config.family, nlos_mean_m=config.nlos_mean_m
        )
        if whole.model.side_m > MOST_M:
            raise ValueError(
                f"std_m={config.std_m} lets users be anywhere within {whole.model.side_m:g} m, more than {MOST_M:g} m; "
                f"lower it"
            )
        count, first = whole.ap_positions_m.shape[1], len(measured.train)
        rules = ToaConfig(
            family=config.family,
            split=config.split,
            rng=config.rng,
            site={"preset": "clear", "num_aps": count, "side_m": whole.model.side_m, "num_sites": 1},
            num_ues=users_of(config, measured),
            rounds=config.rounds,
            **(config.game or {}),
        )
        super().__init__(rules, device)
        # The told law of the radio is nominal, as for all ranges that somebody measured.
        self.model: TimingModel = whole.model
        rows = slice(0, first) if config.split == "train" else slice(first, None)
        self.truth_m = local_truth_m(measured, config.split, whole.origin_m).to(self.device)
        self._range_m, self._variance_m2, self._valid = (
            tensor[0, :, rows].mT.to(self.device) for tensor in (whole.range_m, whole.variance_m2, whole.valid)
        )
        self._site = ToaSite(
            whole.ap_positions_m[0].float().to(self.device),
            whole.ap_orientation_rad[0].float().to(self.device),
            whole.height_diff_m[0].float().to(self.device),
            torch.zeros(count, device=self.device),
        )

    def draw_site(self, streams: Streams, index: int) -> ToaSite:
        """The one network."""
        return self._site

    def draw_episodes(self, pool: SitePool[ToaSite], site_ids: Tensor, streams: Streams) -> ToaState:
        """Users are epochs; nothing but their order, and who is held out, is drawn."""
        rows = draw_rows(streams, len(self.truth_m), len(site_ids), self.num_ues)
        valid = self._valid[rows].transpose(1, 2)
        ranges, variance = (values[rows].transpose(1, 2).float() for values in (self._range_m, self._variance_m2))
        config = self.config
        holds_out = config.split == "train" and config.reward == "held-out"
        share = (config.held_out_share * valid.sum(dim=1, keepdim=True)).round() if holds_out else 0
        # An RSS that is just what the told law expects at this SNR: agents see zero there.
        told_dbm = 10 * math.log10(1e3 * self.model.tx_power_w / self.model.max_snr_linear)
        features = ranges.new_tensor((*_UNTOLD, told_dbm)).expand(*ranges.shape, -1)
        return ToaState(
            **self.known_places(pool, site_ids),
            true_position_m=self.truth_m[rows].unsqueeze(1),
            is_los=torch.zeros_like(valid),
            sequence_range_m=ranges.unsqueeze(1),
            sequence_variance_m2=variance.unsqueeze(1),
            sequence_snr_db=torch.zeros_like(ranges).unsqueeze(1),
            sequence_features=features.unsqueeze(1),
            sequence_cfr=None,
            valid=valid,
            fused=self.draw_fused(streams, valid, share),
            offset_m=torch.zeros(len(site_ids), self.num_ues, device=self.device),
        )

    def bound_m(self, state: ToaState) -> Tensor | None:
        """None: nobody knows which links had a line of sight."""
        return None

    def measurements(self, state: ToaState) -> TimingMeasurements:
        """What was measured; what was not is NaN, so that estimators that need it refuse."""
        found = super().measurements(state)
        return dataclasses.replace(
            found,
            snr_db=torch.full_like(found.snr_db, math.nan),
            features=torch.full_like(found.features, math.nan),
            is_los=None,
        )


def local_truth_m(measured: MeasuredSet, split: str, origin_m: tuple[float, ...]) -> Tensor:
    """[n, 2] true places of a part in the game's coordinates."""
    part = measured.train if split == "train" else measured.test
    truth = torch.from_numpy(part.truth_m)
    return (truth - truth.new_tensor(origin_m)).float()
