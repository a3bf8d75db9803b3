"""The localisation game: every UE looks for the position and the clock that explain what it received."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.drawing.space import draw_scene_3d
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.scenarios.base import FLOAT_BITS, Scenario, Transition
from cfpos_envs.scenarios.features import Words, rows
from cfpos_envs.scenarios.ris import fusion, reward
from cfpos_envs.scenarios.ris.config import RisGameConfig
from cfpos_envs.scenarios.ris.observe import features_of, observe
from cfpos_envs.scenarios.ris.state import RisState, as_measurements
from cfpos_envs.scenarios.ris.world import draw_state
from cfpos_envs.streams import Streams

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REWARDS = {
    "explained": "share of the received energy that the estimate explains with the paths' gains fitted, in [0, 1]",
    "paths": "mean over the paths of the share of what arrives from each one's departure that it explains, in [0, 1]",
    "gain": "increase of that mean (see reward='paths') in the round",
    "error": "-log(error / m + 0.01) by the simulated truth (privileged, for studies)",
}


class RisScenario(Scenario[RisState]):
    """3-D positioning with a clock bias by base stations and reflecting surfaces; the agents are the UEs.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config_class = RisGameConfig
    family = "ris"
    differentiable = True
    config: RisGameConfig

    def __init__(self, config: RisGameConfig, device: torch.device | str = "cpu") -> None:
        self.privileged_reward = config.reward == "error"
        self._features = features_of(config)
        agents = tuple(f"ue_{j}" for j in range(config.num_ues))
        super().__init__(config, device, agents, rows(self._features), fusion.action_rows(config))

    def reset(self, streams: Streams, num_envs: int) -> RisState:
        """Draw places, clocks, channels and noise; see ``Scenario.reset``."""
        return draw_state(self.config, self.drawing(streams, num_envs), num_envs)

    # Rounds --------------------------------------------------------------------------------------------------------

    def observe(self, state: RisState) -> Float[Tensor, "B J obs"]:
        """In [-1, 1]; see ``describe()`` for the entries."""
        return observe(self._features, self.config, state)

    def step(self, state: RisState, actions: Float[Tensor, "B J act"]) -> Transition[RisState]:
        """Move the estimates, reward by what they explain; see ``Scenario.step``."""
        config = self.config
        self.check_actions(state, actions)
        position, bias = fusion.moved(config, state, actions.clamp(-1.0, 1.0))
        nxt = state.replace(position_m=position, bias_m=bias, round=state.round + 1)
        explained = quality = reward.quality(config, state, position, bias, "explained")
        if config.reward != "explained":
            quality = reward.quality(config, state, position, bias, config.reward)
        rewards = quality.detach()
        if config.reward == "gain":
            with torch.no_grad():
                rewards = rewards - reward.quality(config, state, state.position_m, state.bias_m, "gain")
        # Late corrections are small and change little: per metre of reach they count as much as early ones.
        weight = (config.reach_m / config.reach_in(state.round)).unsqueeze(1)
        metrics = {"objective": weight * quality, "score": explained.detach().mean(dim=1)}
        return self.transition(nxt, rewards, metrics)

    # Reading a state -----------------------------------------------------------------------------------------------

    def global_state(self, state: RisState) -> Float[Tensor, "B size"]:
        """Estimates in the area and in the clock's range, and the round, scaled into [-1, 1]."""
        progress = (state.round.to(torch.float32) / self.rounds).unsqueeze(1)
        known = fusion.scaled(self.config, state)
        parts = (known[..., :3].flatten(1), known[..., 3:].flatten(1), progress)
        return torch.cat(parts, dim=1).clamp(-1.0, 1.0)

    @property
    def state_size(self) -> int:
        """(3 + I) J + 1."""
        return self.config.num_ues * self.action_size + 1

    def estimate(self, state: RisState) -> Float[Tensor, "B J 3"]:
        """Metres."""
        return state.position_m

    @property
    def area_centre_m(self) -> Float[Tensor, "3"]:
        """Middle of the area: what counts where a policy has no answer."""
        return self.config.aim_m.to(torch.float32)

    def with_estimate(self, state: RisState, positions: Float[Tensor, "B J 3"]) -> RisState:
        """The state with the estimates at ``positions`` and the clocks that explain most there."""
        position, bias = fusion.inside(self.config, positions.to(state.position_m), state.bias_m)
        found = fusion.best_bias_m(state, self.config.system, position, *self.config.clock_m)
        return state.replace(position_m=position, bias_m=found.to(bias))

    def truth(self, state: RisState) -> dict[str, Tensor]:
        """True positions, errors of position and clock, their bounds; for infos and evaluation only.

        ``clock_error_m`` [B, J] is the root mean square over the base stations. Bounds are at most ``area_m``: no worse
        than knowing nothing but the area.
        """
        error = torch.linalg.vector_norm(state.position_m - state.true_position_m, dim=-1).to(torch.float32)
        clock = (state.bias_m - state.true_bias_m).square().mean(dim=-1).sqrt().to(torch.float32)
        return {
            "true_position": state.true_position_m.to(torch.float32),
            "error_m": error,
            "rmse_m": error.square().mean(dim=-1).sqrt(),
            "peb_m": state.peb_m.clamp(max=self.config.area_m),
            "clock_error_m": clock,
            "ceb_m": state.ceb_m.square().mean(dim=-1).sqrt().clamp(max=self.config.area_m),
            "valid": state.valid,
        }

    def measurements(self, state: RisState) -> RisMeasurements:
        """What the UEs received and what the network lets them know."""
        received = state.received * state.received_rms[..., None, None, None, None, None]
        return as_measurements(self.config, state, state.phases, received)

    def encode_estimate(self, state: RisState, positions: Float[Tensor, "B J 3"]) -> Float[Tensor, "B J act"]:
        """Actions by which every UE reports ``positions`` and the clock that explains most there.

        A correction reaches no farther than the round allows; the rounds that follow do the rest.
        """
        return fusion.encode(self.config, state, self.with_estimate(state, positions))

    def words(self) -> Words:
        """Network, arrays and reward for ``describe``."""
        config, system = self.config, self.config.system
        u1, u2, b1, b2, n = system.sizes
        title = (
            f"Localisation by {config.num_bs} base station(s) and {config.num_ris} surface(s), {config.num_ues} UEs "
            f"(agents), {self.rounds} rounds.",
            f"Arrays: base station {b1} x {b2}, UE {u1} x {u2}, surfaces {' x '.join(map(str, system.ris_shape))}; "
            f"{n} subcarriers over {system.bandwidth_hz / 1e6:g} MHz at {system.carrier_hz / 1e9:g} GHz, "
            f"SNR {config.snr_db:g} dB.",
        )
        end = f"Estimates start in the middle. The episode is truncated after {self.rounds} rounds."
        return Words(title, "UE", f"{config.reward}: {_REWARDS[config.reward]}.", (end,))

    def ranges(self) -> dict[str, float | str | list[float]]:
        """What an action moves by or means: reach and its decrease, area and clock range."""
        config = self.config
        return {
            "action": config.action,
            "reach_m": config.reach_m,
            "zoom": config.zoom,
            "area_m": config.area_m,
            "clock_m": list(config.clock_m),
        }

    def fronthaul_bits(self) -> float:
        """Bits that one UE gets per episode as 32-bit floats: places of base stations and surfaces, profiles.

        Nothing is reported back: every UE finds its own position.
        """
        config = self.config
        places = 3 * (config.num_bs + config.num_ris)
        return float(FLOAT_BITS * (places + config.num_ris * config.system.num_ris_elements))

    def draw(self, axes: Axes, state: RisState, history: list[Tensor]) -> None:
        """Episode 0 from above and from the side: base stations, surfaces, true and estimated positions by round."""
        draw_scene_3d(
            axes,
            bs_m=state.bs_m[0],
            ris_m=state.ris_m[0],
            true_position_m=state.true_position_m[0],
            estimates_m=history,
        )
