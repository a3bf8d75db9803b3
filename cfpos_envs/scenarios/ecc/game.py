"""The Markov game: base stations as agents report where they believe a user is; the reports are fused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.channels.sources import CsiSource
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.scenarios.base import Entities, Scenario, Transition
from cfpos_envs.scenarios.ecc import fusion, reward
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.csi_config import EccCsiConfig
from cfpos_envs.scenarios.ecc.observe import EccView, features_of, observe
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.state import EccState
from cfpos_envs.scenarios.ecc.world import draw_state
from cfpos_envs.scenarios.ecc.worlds import world_of
from cfpos_envs.scenarios.features import Words, rows
from cfpos_envs.streams import Streams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_REWARDS = {
    "error": "minus the distance of the fused report from the truth / {scale:g} m (privileged)",
    "consistency": "agreement of the reports with the fused one, and of gains and CSI of a line of sight from there "
    "with the measured ones, in [0, 1]; label-free",
}
_FUSIONS = {
    "mean": "mean over the base stations whose link has a path",
    "confidence": "mean over the base stations whose link has a path, weighted by exp({scale:g} a)",
}


def _array_text(system: CsiSystem) -> str:
    rows, columns = system.array_shape
    return f"{rows} x {columns}" if system.element_positions_m is None else str(columns)


class EccScenario(Scenario[EccState]):
    """Positioning in three dimensions from the CSI of several base stations, see ``EccConfig``.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config_class: type = EccConfig
    family = "csi"
    differentiable = True
    fixed_site = True
    entities: Entities
    config: EccOptions

    def __init__(self, config: EccOptions, device: torch.device | str = "cpu") -> None:
        self.privileged_reward = config.reward == "error"
        self.world = world_of(config, str(torch.device(device)))
        self.system = self.world.system
        self._features = features_of(config, self.system)
        agents = tuple(f"bs_{index}" for index in range(self.system.num_bs))
        actions = fusion.action_rows(config, self.system)
        super().__init__(config, device, agents, rows(self._features), actions, config.num_ues)

    def reset(self, streams: Streams, num_envs: int) -> EccState:
        """Draw users, their ways and all snapshots; see ``Scenario.reset``."""
        return draw_state(self.config, self.world, self.drawing(streams, num_envs), num_envs)

    def observe(self, state: EccState) -> Float[Tensor, "B L obs"]:
        """In [-1, 1], one user after another; see ``describe()`` for the entries."""
        source = self.world.source
        view = EccView(self.config, self.system, state, source.bs_positions_m, source.bs_orientation_rad)
        return observe(self._features, view)

    def step(self, state: EccState, actions: Float[Tensor, "B L act"]) -> Transition[EccState]:
        """Fuse the reports and judge the result; see ``Scenario.step``."""
        config, source = self.config, self.world.source
        self.check_actions(state, actions)
        actions = actions.clamp(-1.0, 1.0).unflatten(2, (config.num_ues, -1))
        reports, fused = fusion.fuse(config, self.system, state, actions)
        score = reward.consistency(self.system, state, source.bs_positions_m, source.bs_orientation_rad, reports, fused)
        objective = reward.error_reward(self.system, state, fused) if self.privileged_reward else score
        # A payload crosses where a snapshot is new.
        new = (state.round == 0) | (config.snapshots > 1)
        sent = state.fronthaul_bits_so_far + new * state.fronthaul_bits_per_snapshot * config.num_ues
        nxt = state.replace(consensus_m=fused, round=state.round + 1, fronthaul_bits_so_far=sent)
        rewards = objective.detach().unsqueeze(1).expand(-1, self.system.num_bs, -1)
        return self.transition(nxt, rewards, {"score": score.detach().mean(dim=-1), "objective": objective})

    # Fronthaul -----------------------------------------------------------------------------------------------------

    def fronthaul_bits(self) -> float:
        """Bits of lossless CSI forwarding per BS and episode: 64 T A N per user and snapshot, (37)."""
        return float(self.system.lossless_bits * self.config.num_ues * self.config.snapshots)

    def counted_bits(self, policy: object) -> float:
        """Bits that a BS really sends per episode, see ``fusion.fronthaul_bits_per_snapshot``.

        Raises:
            ValueError: more than ``fronthaul_bits_max``.
        """
        bits = fusion.fronthaul_bits_per_snapshot(self.config, self.system, policy)
        fusion.check_budget(self.config, bits, str(getattr(policy, "name", type(policy).__name__)))
        return bits * self.config.num_ues * self.config.snapshots

    # Reading a state -----------------------------------------------------------------------------------------------

    @property
    def area_centre_m(self) -> Float[Tensor, "3"]:
        """What is reported of a user of whom nothing is known."""
        return torch.tensor(self.system.centre_m, device=self.device)

    def global_state(self, state: EccState) -> Float[Tensor, "B size"]:
        """Standardised gains and validity of all links, consensus and round, in [-1, 1]."""
        valid = state.now(state.sequence_valid)
        log_gain = self.system.standardise_log_gain(state.now(state.sequence_gain), valid) / 4.0
        columns = [
            log_gain.flatten(1),
            (2.0 * valid.to(log_gain.dtype) - 1.0).flatten(1),
            self.system.normalise_position(state.consensus_m).flatten(1),
            (state.round.to(log_gain.dtype) / self.rounds).unsqueeze(1),
        ]
        return torch.cat(columns, dim=1).clamp(-1.0, 1.0)

    @property
    def state_size(self) -> int:
        """2 L J + 3 J + 1."""
        return (2 * self.system.num_bs + fusion.POSITION_SIZE) * self.config.num_ues + 1

    def with_estimate(self, state: EccState, positions: Float[Tensor, "B J 3"]) -> EccState:
        """The state with the fused report at ``positions``, or the nearest points of the area."""
        return super().with_estimate(state, fusion.into_area(self.system, positions.to(state.consensus_m)))

    def in_sight(self, state: EccState) -> Int[Tensor, "B J"] | None:
        """Base stations that send and have a line of sight to the user; None of stored CSI, which does not tell."""
        source = self.world.source
        if not isinstance(source, CsiSource):
            return None
        played = state.played()
        places = played.now(state.true_position_m)
        sees = source.sees(places.flatten(0, 1), self.config.split).unflatten(0, places.shape[:2])
        return (sees & played.now(state.sequence_valid)).sum(dim=-1)

    def truth(self, state: EccState) -> dict[str, Tensor]:
        """True positions, errors, validity (some link has a path) and bits sent; for infos and evaluation only."""
        played = state.played()
        valid = played.now(state.sequence_valid).any(dim=-1)
        return {**super().truth(state), "valid": valid, "fronthaul_bits": state.fronthaul_bits_so_far}

    def measurements(self, state: EccState) -> CsiMeasurements:
        """This round's snapshot of all BSs; no truth."""
        batch, source = len(state.round), self.world.source
        return CsiMeasurements(
            system=self.system,
            bs_positions_m=source.bs_positions_m.expand(batch, -1, -1),
            bs_orientation_rad=source.bs_orientation_rad.expand(batch, -1, -1),
            csi=state.now(state.sequence_csi),
            valid=state.now(state.sequence_valid),
            site_ids=state.site_ids,
        )

    def encode_estimate(self, state: EccState, positions: Float[Tensor, "B J 3"]) -> Float[Tensor, "B L act"]:
        """Actions by which every BS reports ``positions``, all with the same confidence."""
        normalised = self.system.normalise_position(positions).clamp(-1.0, 1.0)
        padding = self.action_size // self.config.num_ues - fusion.POSITION_SIZE
        actions = torch.nn.functional.pad(normalised, (0, padding))
        return actions.unsqueeze(1).expand(-1, self.system.num_bs, -1, -1).flatten(2)

    # Describing ----------------------------------------------------------------------------------------------------

    def words(self) -> Words:
        """Scene, radio, reward and fusion for ``describe``."""
        config, system = self.config, self.system
        size = " x ".join(f"{b - a:g}" for a, b in zip(system.area_min_m, system.area_max_m))
        title = (
            f"Positioning in three dimensions from CSI, {config.site_name}: {system.num_bs} base stations "
            f"(agents) with {_array_text(system)} antennas,",
            f"{config.num_ues} user(s), {self.rounds} rounds, area {size} m, {system.num_subcarriers} subcarriers "
            f"every {system.subcarrier_spacing_hz / 1e3:g} kHz at {system.carrier_hz / 1e9:g} GHz, "
            f"{system.num_slots} slots,",
            f"users {config.moves}; lossless CSI: {system.lossless_bits} bits per base station, user and snapshot.",
        )
        closing = (
            f"Fusion: {_FUSIONS[config.fusion].format(scale=config.confidence_scale)}.",
            f"The first estimate is the centre of the area. The episode is truncated after {self.rounds} rounds.",
        )
        judged = _REWARDS[config.reward].format(scale=system.scale_m)
        return Words(title, "base station", f"{judged}; summed over the users.", closing)

    def ranges(self) -> dict[str, float | str | list[float]]:
        """Area, features and weights."""
        config, system = self.config, self.system
        return {
            "area_min_m": list(system.area_min_m),
            "area_max_m": list(system.area_max_m),
            "stabilise": config.stabilise if config.features == "stabilised" else "",
            "confidence_scale": config.confidence_scale if config.fusion == "confidence" else 0.0,
        }

    def figure(self, state: EccState, history: list[Tensor]) -> Figure:
        """Picture of episode 0 from above and from the side, see ``drawing.scene.scene_figure``."""
        from cfpos_envs.drawing.scene import scene_figure

        return scene_figure(
            self.world.source,
            truth_m=state.true_position_m[0].cpu().numpy(),
            now_m=self.true_position(state)[0].cpu().numpy(),
            estimates_m=[estimate.detach().cpu().numpy() for estimate in history],
        )


class EccCsiScenario(EccScenario):
    """The same game on the snapshots of a person's own file, see ``EccCsiConfig``."""

    config_class: type = EccCsiConfig
