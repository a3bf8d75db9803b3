"""The surfaces' game: choose profiles for a user somewhere in a sector, hear what they brought, choose again."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.drawing.space import draw_scene_3d
from cfpos_envs.physics.ris.geometry import spherical_direction
from cfpos_envs.physics.ris.information import root_trace
from cfpos_envs.scenarios.base import Scenario, Transition
from cfpos_envs.scenarios.ris_phase.beams import (
    beam_phases,
    chirp_phases,
    relative_gain,
    sector_grid,
    to_db,
    updated_belief,
)
from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.description import describe
from cfpos_envs.scenarios.ris_phase.observe import (
    features,
    grid_cosines,
    in_sector_units,
    observe,
)
from cfpos_envs.scenarios.ris_phase.state import (
    LOST_M,
    RisPhaseState,
    SectorMeasurements,
    draw_state,
    efficient_estimate_m,
    network_estimate_m,
    played_from_m,
    position_covariance_m2,
    turned_cosines,
)
from cfpos_envs.streams import Streams

FLOAT_BITS = 32
BEAM_SIZE = 4
_NEAREST_M = 1e-3
_DRAWN = 41


class RisPhaseScenario(Scenario[RisPhaseState]):
    """Phase profiles of surfaces for users of whom a sector is known; the agents are the surfaces.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config_class = RisPhaseConfig
    family = "ris-phase"
    differentiable = True

    def __init__(self, config: RisPhaseConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.shape = config.scene.system.ris_shape
        self.agents = tuple(f"ris_{r}" for r in range(config.num_ris))
        self.rounds = config.rounds
        self.observation_size = sum(feature.size(config) for feature in features(config))
        self.action_size = BEAM_SIZE if config.action == "beam" else math.prod(self.shape)

    def reset(self, streams: Streams, num_envs: int) -> RisPhaseState:
        """Draw users, surfaces and noise; see ``Scenario.reset``."""
        return draw_state(self.config, streams, num_envs)

    # Rounds --------------------------------------------------------------------------------------------------------

    def observe(self, state: RisPhaseState) -> Tensor:
        """[B, R, observation_size] in [-1, 1]; see ``describe()`` for the entries."""
        return observe(self.config, state)

    def step(self, state: RisPhaseState, actions: Tensor) -> Transition[RisPhaseState]:
        """Play the profiles, send pilots, tell energies; see ``Scenario.step``."""
        actions = actions.clamp(-1.0, 1.0)
        phases = self.profile_phases(state, actions)
        gain = relative_gain(phases, state.turned)
        told_db = self._told_db(state, gain.detach())
        done = state.round + 1 >= self.rounds
        nxt = self._heard(state, actions.detach(), phases.detach(), told_db)
        utility = self._utility(state, gain)
        reward = told_db.mean(dim=-1) / 10 if self.config.reward == "energy" else utility.detach()
        metrics = {"objective": utility, "score": told_db.mean(dim=(1, 2)) / 10}
        return Transition(nxt, reward, torch.zeros_like(done), done, metrics)

    def profile_phases(self, state: RisPhaseState, actions: Tensor) -> Tensor:
        """[B, R, n1, n2] radians of what actions [B, R, action_size] ask for."""
        if self.config.action == "beam":
            return beam_phases(state.low, state.high, actions, self.shape)
        return chirp_phases(state.low, state.high, self.shape) + math.pi * actions.unflatten(-1, self.shape)

    def _told_db(self, state: RisPhaseState, gain: Tensor) -> Tensor:
        """[B, R, J] energies of the paths as the UEs find them, relative to the full gain."""
        index = state.round.clamp(max=self.rounds - 1)
        noise = state.report_noise[torch.arange(len(index), device=index.device), index]
        return to_db((gain.sqrt() + noise).abs().square())

    def _heard(self, state: RisPhaseState, actions: Tensor, phases: Tensor, told_db: Tensor) -> RisPhaseState:
        """The state after energies have been told."""
        belief = state.log_belief
        if self.config.feedback != "none":
            pattern = to_db(relative_gain(phases, grid_cosines(self.config, state)))
            belief = updated_belief(belief, told_db, pattern, self.config.report_db)
        now = torch.arange(self.rounds, device=told_db.device) == state.round.unsqueeze(-1)
        return state.replace(
            log_belief=belief,
            last_action=actions if self.config.action == "beam" else state.last_action,
            told_db=torch.where(now[..., None, None], told_db.unsqueeze(1), state.told_db),
            phases=phases,
            given=torch.zeros_like(state.given),
            round=state.round + 1,
        )

    def _utility(self, state: RisPhaseState, gain: Tensor) -> Tensor:
        """[B, R] what the configured reward measures, without the noise of what is told; differentiable."""
        if self.config.reward == "energy":
            return to_db(gain).mean(dim=-1) / 10
        covariance = position_covariance_m2(self.config, state, gain)
        if self.config.reward == "bound":
            value = -root_trace(covariance).clamp(max=LOST_M).log()
        else:
            gap = efficient_estimate_m(state, covariance) - played_from_m(state)
            value = -(torch.linalg.vector_norm(gap, dim=-1) + _NEAREST_M).log()
        return value.mean(dim=-1, keepdim=True).expand(-1, self.config.num_ris).to(torch.float32)

    # Reading a state -----------------------------------------------------------------------------------------------

    def global_state(self, state: RisPhaseState) -> Tensor:
        """[B, state_size]: what all surfaces see."""
        return self.observe(state).flatten(1)

    @property
    def state_size(self) -> int:
        """R times the size of an observation."""
        return self.config.num_ris * self.observation_size

    def estimate(self, state: RisPhaseState) -> Tensor:
        """[B, J, 3] metres: where the network takes the users to be."""
        return network_estimate_m(self.config, state)

    @property
    def area_centre_m(self) -> Tensor:
        """[3] middle of the users' places: what counts where a policy has no answer."""
        return self.config.scene.places_m("ue")[0].to(torch.float32)

    def with_estimate(self, state: RisPhaseState, positions: Tensor) -> RisPhaseState:
        """The state in which the network takes the users to be at ``positions`` [B, J, 3]."""
        return state.replace(position_m=positions.to(state.position_m), given=torch.ones_like(state.given))

    def truth(self, state: RisPhaseState) -> dict[str, Tensor]:
        """True positions, errors, bounds and the surfaces' gains with what was played last; for infos and evaluation.

        ``error_m`` is that of an estimator at the bound, before the first round that of the middle of all places.
        ``beam_gain_db`` [B, R, J] is |rho|^2 relative to the full N_R^2.
        """
        gap = torch.linalg.vector_norm(self.estimate(state) - state.true_position_m, dim=-1)
        error = gap.clamp(max=LOST_M).to(torch.float32)
        gain = relative_gain(state.phases, state.turned)
        bound = root_trace(position_covariance_m2(self.config, state, gain))
        return {
            "true_position": state.true_position_m.to(torch.float32),
            "error_m": error,
            "rmse_m": error.square().mean(dim=-1).sqrt(),
            "peb_m": bound.clamp(max=LOST_M).to(torch.float32),
            "valid": state.valid,
            "beam_gain_db": to_db(gain),
        }

    def measurements(self, state: RisPhaseState) -> SectorMeasurements:
        """What the surfaces know; no estimator of positions takes it."""
        return SectorMeasurements(
            ris_shape=self.shape,
            bs_positions_m=state.bs_m,
            ris_positions_m=state.ris_m,
            incoming=state.incoming,
            azimuth_rad=state.azimuth_rad,
            elevation_rad=state.elevation_rad,
            half_width_rad=self.config.sector_rad,
            chirp_rad=chirp_phases(state.low, state.high, self.shape),
            told_db=state.told_db,
        )

    def encode_estimate(self, state: RisPhaseState, positions: Tensor) -> Tensor:
        """Actions by which every surface points a pencil beam at the middle of ``positions`` [B, J, 3]."""
        turned = turned_cosines(state, positions).mean(dim=2, keepdim=True)
        direction = in_sector_units(state, turned).squeeze(2).clamp(-1.0, 1.0)
        beam = torch.cat((direction, -torch.ones_like(direction)), dim=-1)
        if self.config.action == "beam":
            return beam
        return self.encode_profiles(state, beam_phases(state.low, state.high, beam, self.shape))

    def encode_profiles(self, state: RisPhaseState, phases: Tensor) -> Tensor:
        """Raw actions [B, R, N_R] that play phases [B, R, n1, n2], radians."""
        extra = phases - chirp_phases(state.low, state.high, self.shape)
        return (torch.remainder(extra / math.pi + 1.0, 2.0) - 1.0).flatten(2)

    def describe(self) -> str:
        """Tables of observation, action and reward, made from the code."""
        return describe(self.config, self.action_size)

    def fronthaul_bits(self) -> float:
        """Bits that the network tells one surface per episode: one 32-bit energy per user and round, or with
        ``feedback=position`` three coordinates more."""
        numbers = {"none": 0, "energy": 1, "position": 4}[self.config.feedback]
        return float(FLOAT_BITS * numbers * self.config.num_ues * self.rounds)

    def draw(self, axes: Any, state: RisPhaseState, history: list[Tensor]) -> None:
        """Episode 0 from above and from the side: surfaces with what their beams light, users, estimates by round."""
        first = state.select(slice(0, 1))
        draw_scene_3d(
            axes,
            bs_m=first.bs_m,
            ris_m=first.ris_m[0],
            true_position_m=first.true_position_m[0],
            estimates_m=history,
            beams_m=[self._beam_outline(first, r) for r in range(self.config.num_ris)],
        )

    def _beam_outline(self, state: RisPhaseState, surface: int) -> tuple[np.ndarray, np.ndarray]:
        """Place of a surface, and the directions of its sector with at least half of the largest gain there."""
        config = self.config
        offsets = torch.linspace(-config.sector_rad, config.sector_rad, _DRAWN, dtype=torch.float64)
        grid = sector_grid(state.azimuth_rad, state.elevation_rad, config.sector_rad, state.incoming, _DRAWN)
        gain = relative_gain(state.phases, grid.flatten(2, 3).to(torch.float32))[0, surface]
        lit = (gain >= gain.max() / 2).unflatten(0, (_DRAWN, _DRAWN)).nonzero().cpu()
        azimuth = state.azimuth_rad[0, surface].cpu() + offsets[lit[:, 0]]
        elevation = state.elevation_rad[0, surface].cpu() + offsets[lit[:, 1]]
        place = state.ris_m[0, surface].cpu()
        reach = torch.linalg.vector_norm(state.true_position_m[0, 0].cpu() - place)
        return place.numpy(), (place + reach * spherical_direction(azimuth, elevation)).numpy()
