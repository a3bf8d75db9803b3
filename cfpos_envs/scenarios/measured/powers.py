"""Measured powers under the rules of the DCP games."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.datasets import MeasuredSet
from cfpos_envs.datasets.base import distances_m
from cfpos_envs.datasets.path_loss import fitted_path_loss
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics import geometry
from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.game import DcpScenario
from cfpos_envs.scenarios.dcp.state import DcpState
from cfpos_envs.scenarios.dcp.world import DcpSite
from cfpos_envs.scenarios.measured.config import MeasuredConfig
from cfpos_envs.scenarios.measured.ranges import local_truth_m
from cfpos_envs.scenarios.measured.stored import draw_rows, users_of
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.streams import Streams

_ANTENNAS = 2
"""Fewest that the games have; their covariance is that of no direction."""
_RULES = {"stage": "rss", "start": "centroid", "action": "gain", "reward": "local", "similarity": "log"}
_LAW = {"fusion": "line-search", "kernel": "torch"}
# The law's noise: far below any reading.
_NOISE_DBM = -200.0
_SHADOWING_MAP = (1, 1)


@dataclass
class PowersState(DcpState):
    """See ``DcpState``.

    Attributes:
        was_heard [B, M, K]: links that were measured; the others have the weakest power. [B, D, M, K] where an episode
            has several drops.
    """

    was_heard: Tensor


class PowersGame(DcpScenario):
    """The game of one network and the epochs of one part; the path loss is fitted to the places of the training part.

    An access point that was not heard is taken at the weakest power of the training part: the rules know no missing
    links. Estimators are given what was measured.

    Args:
        config: of the measured game.
        measured: its set.
        device: where the tensors live.

    Raises:
        ValueError: no powers or no places of access points, options of the game that cannot be.
    """

    simulates = False

    def __init__(self, config: MeasuredConfig, measured: MeasuredSet, device: torch.device | str) -> None:
        if measured.train.rss_dbm is None or measured.ap_positions_m is None:
            raise ValueError(f"{measured.name} has no powers of access points at known places, which family=dcp plays")
        aps, height = measured.ap_positions_m, measured.user_height_m
        law = fitted_path_loss(measured.train.rss_dbm, distances_m(aps, measured.train.truth_m, height))
        whole = measured.powers(
            measured.train.joined(measured.test),
            rss_at_1m_dbm=law.at_1m_dbm,
            path_loss_slope_db=law.slope_db,
            shadowing_std_db=law.std_db,
            noise_dbm=_NOISE_DBM,
        )
        num_ues = users_of(config, measured)
        received = 10.0 * math.log10(_ANTENNAS * num_ues)
        rules = DcpConfig(
            **{**_RULES, **_LAW, **(config.game or {})},
            split=config.split,
            rng=config.rng,
            site={
                "preset": "clean",
                "num_aps": len(aps),
                "num_antennas": _ANTENNAS,
                "side_m": whole.radio.side_m,
                "wrap": False,
                "carrier_hz": 1e9,
                "path_loss_reference_hz": 1e9,
                "path_loss_intercept_db": float(law.at_1m_dbm.mean()) - received,
                "path_loss_slope_db": law.slope_db,
                "tx_power_w": 1e-3,
                "noise_dbm": _NOISE_DBM,
                "shadowing_db": law.std_db,
                "num_sites": 1,
            },
            num_ues=num_ues,
            rounds=config.rounds,
        )
        if rules.links != "dft":
            raise ValueError(
                f"links={rules.links!r} reads covariances of arrays, {measured.name} has powers alone; use links='dft'"
            )
        super().__init__(rules, device)
        self.law, self._whole = law, whole
        rows = slice(0, len(measured.train)) if config.split == "train" else slice(len(measured.train), None)
        self.truth_m = local_truth_m(measured, config.split, whole.origin_m).to(self.device)
        self._rss_dbm = whole.rss_dbm[0, :, rows].mT.to(self.device)
        weakest = float(np.nanmin(measured.train.rss_dbm))
        self._filled_dbm = torch.where(torch.isfinite(self._rss_dbm), self._rss_dbm, weakest)
        self._site = self._known_site()

    def _known_site(self) -> DcpSite:
        whole, settings, count = self._whole, self.config.settings, self.num_aps
        places, axes, height = (
            value[0].to(self.device) for value in (whole.ap_positions_m, whole.ap_orientation_rad, whole.height_diff_m)
        )
        candidates = geometry.lattice(settings.side_m, min(self.config.coarse_spacing_m, settings.side_m))
        candidates = candidates.to(self.device)
        links = link_geometry(places, axes, height, candidates, settings.side_m, settings.wrap)
        nothing = torch.zeros(count, device=self.device)
        return DcpSite(
            places,
            axes,
            height,
            orientation_error_rad=nothing.expand(self.config.drops, -1),
            rss_bias_db=nothing.expand(self.config.drops, -1),
            bearing_noise_rad=nothing,
            shadowing_maps=torch.zeros(count, *_SHADOWING_MAP, device=self.device),
            shadowing_std_db=self.law.std_db,
            nlos_share=0.0,
            candidates_m=candidates,
            candidate_rss_dbm=predicted_rss_dbm(self.radio, links),
            candidate_angle_rad=links.angle_rad,
        )

    def draw_site(self, streams: Streams, index: int) -> DcpSite:
        """The one network."""
        return self._site

    def draw_episodes(self, pool: SitePool[DcpSite], site_ids: Tensor, streams: Streams, number: int = 0) -> DcpState:
        """Users are epochs; nothing but their order, and who is held out, is drawn."""
        rows = draw_rows(streams, len(self.truth_m), len(site_ids), self.num_ues)
        powers = self._filled_dbm[rows].transpose(1, 2)
        everybody = torch.ones_like(powers, dtype=torch.bool)
        nowhere = torch.eye(_ANTENNAS, dtype=torch.complex64, device=self.device)
        state = PowersState(
            **self.known_places(pool, site_ids),
            true_position_m=self.truth_m[rows].unsqueeze(1),
            true_shadowing_db=pool.stack(site_ids, "shadowing_std_db").to(torch.float32),
            shadowing_maps=None,
            sequence_covariance=nowhere.expand(*powers.shape, -1, -1).unsqueeze(1),
            sequence_rss_dbm=powers.unsqueeze(1),
            angular_power=torch.zeros(0),
            bearing_rad=torch.zeros(0),
            peak=torch.zeros(0),
            fused=self.draw_fused(streams, everybody, self.config.num_held_out),
            spread_m=torch.zeros(len(site_ids), self.num_ues, device=self.device),
            was_heard=torch.isfinite(self._rss_dbm[rows]).transpose(1, 2),
        )
        return self._hear(state)

    def joined(self, states: Sequence[DcpState]) -> DcpState:
        """See ``DcpScenario.joined``; each drop's own links were heard."""
        heard = [state.was_heard for state in states if isinstance(state, PowersState)]
        return super().joined(states).replace(was_heard=torch.stack(heard, dim=1))

    def bound_m(self, state: DcpState) -> Tensor | None:
        """None: the law is fitted, not known."""
        return None

    def bound_of(self, policy: object) -> str:
        """Of nothing."""
        del policy
        return ""

    def measurements(self, state: DcpState) -> RadioMeasurements:
        """What was measured: powers alone, NaN where an access point was not heard."""
        state = self._entered(state)
        assert isinstance(state, PowersState)
        was_heard = state.was_heard if state.drop is None else state.now(state.was_heard)
        return dataclasses.replace(
            super().measurements(state),
            radio=self._whole.radio,
            rss_dbm=torch.where(was_heard, state.rss_dbm, math.nan),
            angular_power=None,
            covariance=None,
            ceiling_dbm=math.inf,
        )
