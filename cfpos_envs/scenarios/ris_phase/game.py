"""The surfaces' game: choose profiles for a user somewhere in a sector, learn what they brought, choose again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.drawing.space import draw_scene_3d
from cfpos_envs.physics.ris.geometry import spherical_direction
from cfpos_envs.physics.ris.information import root_trace
from cfpos_envs.scenarios.base import FLOAT_BITS, Scenario, Transition
from cfpos_envs.scenarios.features import Words, rows
from cfpos_envs.scenarios.ris_phase import fusion, reward
from cfpos_envs.scenarios.ris_phase.beams import relative_gain, sector_grid, to_db
from cfpos_envs.scenarios.ris_phase.config import RisPhaseConfig
from cfpos_envs.scenarios.ris_phase.observe import features_of, observe
from cfpos_envs.scenarios.ris_phase.state import RisPhaseState
from cfpos_envs.scenarios.ris_phase.world import draw_state, position_covariance_m2
from cfpos_envs.streams import Streams

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DRAWN = 41
_REWARDS = {
    "energy": "reported energy of the path over this surface relative to its full gain, in 10 dB, mean over the users",
    "bound": "-log(position error bound / m) of what all surfaces played (privileged), mean over the users",
    "error": "-log(error / m + 0.001) of an efficient estimator with what all surfaces played (privileged)",
}


class RisPhaseScenario(Scenario[RisPhaseState]):
    """Phase profiles of surfaces for users of whom a sector is known; the agents are the surfaces.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config_class = RisPhaseConfig
    family = "ris-phase"
    differentiable = True
    config: RisPhaseConfig

    def __init__(self, config: RisPhaseConfig, device: torch.device | str = "cpu") -> None:
        self.privileged_reward = config.reward != "energy"
        self._features = features_of(config)
        agents = tuple(f"ris_{r}" for r in range(config.num_ris))
        super().__init__(config, device, agents, rows(self._features), fusion.action_rows(config))

    def reset(self, streams: Streams, num_envs: int) -> RisPhaseState:
        """Draw users, surfaces and noise; see ``Scenario.reset``."""
        return draw_state(self.config, self.drawing(streams, num_envs), num_envs)

    # Rounds --------------------------------------------------------------------------------------------------------

    def observe(self, state: RisPhaseState) -> Float[Tensor, "B R obs"]:
        """In [-1, 1]; see ``describe()`` for the entries."""
        return observe(self._features, self.config, state)

    def step(self, state: RisPhaseState, actions: Float[Tensor, "B R act"]) -> Transition[RisPhaseState]:
        """Play the profiles, send pilots, report energies; see ``Scenario.step``."""
        self.check_actions(state, actions)
        config, actions = self.config, actions.clamp(-1.0, 1.0)
        phases = fusion.profile_phases(config, state, actions)
        gain = relative_gain(phases, state.turned)
        energies_db = reward.reported_energies_db(state, gain.detach())
        nxt = fusion.after_report(config, state, actions.detach(), phases.detach(), energies_db)
        utility = reward.utility(config, state, gain)
        rewards = energies_db.mean(dim=-1) / 10 if config.reward == "energy" else utility.detach()
        return self.transition(nxt, rewards, {"objective": utility, "score": energies_db.mean(dim=(1, 2)) / 10})

    # Reading a state -----------------------------------------------------------------------------------------------

    def estimate(self, state: RisPhaseState) -> Float[Tensor, "B J 3"]:
        """Metres: where the network takes the users to be."""
        return fusion.network_estimate_m(self.config, state)

    @property
    def area_centre_m(self) -> Float[Tensor, "3"]:
        """Middle of the users' places: what counts where a policy has no answer."""
        return self.config.scene.places_m("ue")[0].to(torch.float32)

    def with_estimate(self, state: RisPhaseState, positions: Float[Tensor, "B J 3"]) -> RisPhaseState:
        """The state in which the network takes the users to be at ``positions``."""
        return state.replace(position_m=positions.to(state.position_m), given=torch.ones_like(state.given))

    def truth(self, state: RisPhaseState) -> dict[str, Tensor]:
        """True positions, errors, bounds and the surfaces' gains with what was played last; for infos and evaluation.

        ``error_m`` is that of an estimator at the bound, before the first round that of the middle of all places.
        ``beam_gain_db`` [B, R, J] is |rho|^2 relative to the full N_R^2.
        """
        gap = torch.linalg.vector_norm(self.estimate(state) - state.true_position_m, dim=-1)
        error = gap.clamp(max=fusion.LOST_M).to(torch.float32)
        gain = relative_gain(state.phases, state.turned)
        bound = root_trace(position_covariance_m2(self.config, state, gain))
        return {
            "true_position": state.true_position_m.to(torch.float32),
            "error_m": error,
            "rmse_m": error.square().mean(dim=-1).sqrt(),
            "peb_m": bound.clamp(max=fusion.LOST_M).to(torch.float32),
            "valid": state.valid,
            "beam_gain_db": to_db(gain),
        }

    def measurements(self, state: RisPhaseState) -> None:
        """Nothing: the surfaces receive nothing that an estimator of positions could take."""

    def encode_estimate(self, state: RisPhaseState, positions: Float[Tensor, "B J 3"]) -> Float[Tensor, "B R act"]:
        """Actions by which every surface points a pencil beam at the middle of ``positions``."""
        return fusion.encode_beams(self.config, state, positions)

    def words(self) -> Words:
        """Surfaces, sector and reward for ``describe``."""
        config = self.config
        n1, n2 = config.scene.system.ris_shape
        title = (
            f"Profiles of {config.num_ris} surfaces (agents) of {n1} x {n2} elements for {config.num_ues} user(s) "
            f"anywhere in sectors of +-{config.sector_deg:g} degrees,",
            f"{self.rounds} rounds, SNR {config.snr_db:g} dB, feedback: {config.feedback}.",
        )
        closing = (
            "Action 0 is the chirp over the sector. The user stays; the episode is truncated after "
            f"{self.rounds} rounds. Errors in m are those of an efficient estimator.",
        )
        return Words(title, "surface", f"{config.reward}: {_REWARDS[config.reward]}.", closing)

    def ranges(self) -> dict[str, float | str | list[float]]:
        """What an action and a belief are relative to."""
        config = self.config
        return {
            "action": config.action,
            "feedback": config.feedback,
            "sector_deg": config.sector_deg,
            "report_db": config.report_db,
        }

    def fronthaul_bits(self) -> float:
        """Bits that the network sends to one surface per episode: one 32-bit energy per user and round, or with
        ``feedback=position`` three coordinates more."""
        numbers = {"none": 0, "energy": 1, "position": 4}[self.config.feedback]
        return float(FLOAT_BITS * numbers * self.config.num_ues * self.rounds)

    def draw(self, axes: Axes, state: RisPhaseState, history: list[Tensor]) -> None:
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
