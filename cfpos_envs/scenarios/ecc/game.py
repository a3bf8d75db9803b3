"""The Markov game: base stations as agents report where they believe a user is; the reports are fused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiMeasurements
from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.physics.ecc.features import csi_features, slot_average
from cfpos_envs.scenarios.base import Entities, Scenario, Transition
from cfpos_envs.scenarios.ecc import rewards
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.description import describe
from cfpos_envs.scenarios.ecc.mobility import draw_ways
from cfpos_envs.scenarios.ecc.observe import observe, parts
from cfpos_envs.scenarios.ecc.state import EccState
from cfpos_envs.scenarios.ecc.world import shared_world
from cfpos_envs.streams import Streams

FLOAT_BITS = 32
POSITION_SIZE = 3


class EccScenario(Scenario[EccState]):
    """Positioning in three dimensions from the CSI of several base stations, see ``EccConfig``.

    Args:
        config: validated options.
        device: where the tensors live.
    """

    config_class = EccConfig
    family = "csi"
    differentiable = True
    fixed_site = True

    def __init__(self, config: EccConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.privileged_reward = config.reward == "error"
        self.world = shared_world(config.settings, str(self.device))
        self.system = self.world.system
        self.num_bs, self.num_ues = self.system.num_bs, config.num_ues
        self.agents = tuple(f"bs_{index}" for index in range(self.num_bs))
        self.rounds = config.rounds
        self.parts = parts(self.system, config.features)
        self.entities = self._entities = Entities(
            self.num_ues,
            sum(part.size for part in self.parts),
            POSITION_SIZE + (1 if config.fusion == "confidence" else 0),
        )
        self.observation_size = self.num_ues * self._entities.observation_size
        self.action_size = self.num_ues * self._entities.action_size
        self._bs_positions_m = self.world.source.bs_positions_m
        self._bs_orientation_rad = self.world.source.bs_orientation_rad

    # Episode start -------------------------------------------------------------------------------------------------

    def reset(self, streams: Streams, num_envs: int) -> EccState:
        """Draw users, their ways and all snapshots; see ``Scenario.reset``."""
        config, users = self.config, self.num_ues
        drawn, displacement = draw_ways(config, self.world.source, streams, num_envs * users)
        taken = self.world.measure(streams, drawn, displacement)
        heard = ~self._draw_lost(streams, num_envs)

        def by_episode(values: Tensor) -> Tensor:
            """[B, S, J, ...] of [B J, S, ...]."""
            return values.unflatten(0, (num_envs, users)).transpose(1, 2)

        valid = by_episode(taken.valid) & heard[:, None, None]
        csi = by_episode(taken.csi) * valid[..., None, None, None]
        mean = slot_average(csi)
        # Second-order features are made of the average anyway.
        seen = csi if config.features == "stabilised" else mean
        features = csi_features(seen, config.features, self.system.array_shape, config.stabilise)
        return EccState(
            true_position_m=by_episode(drawn.position_m.unsqueeze(1) + displacement),
            sequence_csi=csi,
            sequence_mean_csi=mean.squeeze(-3),
            sequence_valid=valid,
            sequence_features=features,
            sequence_gain=side_gain(csi),
            site_ids=torch.zeros(num_envs, dtype=torch.long, device=self.device),
            consensus_m=self.area_centre_m.expand(num_envs, users, POSITION_SIZE).clone(),
            round=torch.zeros(num_envs, dtype=torch.long, device=self.device),
            payload_bits=torch.full((num_envs,), float(self.system.lossless_bits), device=self.device),
            sent_bits=torch.zeros(num_envs, device=self.device),
        )

    def _draw_lost(self, streams: Streams, num_envs: int) -> Tensor:
        """[B, L] base stations that send nothing in this episode."""
        order = torch.rand(num_envs, self.num_bs, generator=streams["lost"], device=self.device).argsort(dim=1)
        return order < self.config.lost_bs

    # Rounds --------------------------------------------------------------------------------------------------------

    def observe(self, state: EccState) -> Tensor:
        """[B, L, J * F] in [-1, 1]; see ``describe()`` for the entries."""
        return observe(self.system, state, self._bs_positions_m, self._bs_orientation_rad, self.rounds).flatten(2)

    def step(self, state: EccState, actions: Tensor) -> Transition[EccState]:
        """Fuse the reports and judge the result; see ``Scenario.step``."""
        actions = actions.clamp(-1.0, 1.0).unflatten(2, (self.num_ues, -1))  # [B, L, J, 3 or 4]
        reports = self.system.denormalise_position(actions[..., :POSITION_SIZE])
        fused = self._area((self._weights(state, actions).unsqueeze(-1) * reports).sum(dim=1))
        score = rewards.consistency(self.system, state, self._bs_positions_m, self._bs_orientation_rad, reports, fused)
        objective = rewards.error_reward(self.system, state, fused) if self.privileged_reward else score
        shares = objective.detach().unsqueeze(1).expand(-1, self.num_bs, -1)
        nxt = state.replace(
            consensus_m=fused, round=state.round + 1, sent_bits=state.sent_bits + self._crossing_bits(state)
        )
        done = nxt.round >= self.rounds
        metrics = {"score": score.detach().mean(dim=-1), "objective": objective, "entity_rewards": shares}
        return Transition(nxt, shares.sum(dim=-1), torch.zeros_like(done), done, metrics)

    def _weights(self, state: EccState, actions: Tensor) -> Tensor:
        """[B, L, J] shares with sum 1 over the base stations with a link, or over all where none has one."""
        valid = state.now(state.sequence_valid).transpose(1, 2)
        counts = valid | ~valid.any(dim=1, keepdim=True)
        if self.config.fusion == "confidence":
            logits = self.config.confidence_scale * actions[..., POSITION_SIZE]
        else:
            logits = torch.zeros_like(actions[..., 0])
        return logits.masked_fill(~counts, -torch.inf).softmax(dim=1)

    def _crossing_bits(self, state: EccState) -> Tensor:
        """[B] what a BS sends in this round: its users' payload where a snapshot is new."""
        fresh = (state.round == 0) if self.config.snapshots == 1 else torch.ones_like(state.round, dtype=torch.bool)
        return fresh * state.payload_bits * self.num_ues

    def _area(self, points_m: Tensor) -> Tensor:
        low, high = points_m.new_tensor(self.system.area_min_m), points_m.new_tensor(self.system.area_max_m)
        return torch.minimum(torch.maximum(points_m, low), high)

    # Fronthaul -----------------------------------------------------------------------------------------------------

    def fronthaul_bits(self) -> float:
        """Bits of lossless CSI forwarding per BS and episode: 64 T A N per user and snapshot, (37)."""
        return float(self.system.lossless_bits * self.num_ues * self.config.snapshots)

    def counted_bits(self, policy: Any) -> float:
        """Bits that a BS really sends per episode.

        What ``policy.fronthaul_bits`` (a number, or a method without arguments) says of one user and snapshot; without
        it the float32 numbers of the reports where ``policy.decentralised`` says that every BS acts on what it alone
        sees, and lossless CSI where the policy sees all of it at once.

        Raises:
            ValueError: more than ``fronthaul_bits_max``.
        """
        told = getattr(policy, "fronthaul_bits", None)
        if told is None:
            decentralised = getattr(policy, "decentralised", False)
            reports = FLOAT_BITS * self._entities.action_size * self.rounds / self.config.snapshots
            bits = float(reports if decentralised else self.system.lossless_bits)
        else:
            bits = float(told() if callable(told) else told)
        self._check_budget(bits, str(getattr(policy, "name", type(policy).__name__)))
        return bits * self.num_ues * self.config.snapshots

    def with_payload(self, state: EccState, bits: float) -> EccState:
        """The state of a game in which every BS sends ``bits`` per user and snapshot, as ``infos`` will tell.

        Raises:
            ValueError: more than ``fronthaul_bits_max``.
        """
        self._check_budget(float(bits), "the policy")
        return state.replace(payload_bits=torch.full_like(state.payload_bits, float(bits)))

    def _check_budget(self, bits: float, name: str) -> None:
        most = self.config.fronthaul_bits_max
        if most is not None and bits > most:
            raise ValueError(
                f"{name} sends {bits:g} bits per BS, user and snapshot, more than fronthaul_bits_max={most:g}; "
                "use a smaller embedding or raise the budget"
            )

    # Reading a state -----------------------------------------------------------------------------------------------

    @property
    def area_centre_m(self) -> Tensor:
        """[3] what is reported of a user of whom nothing is known."""
        return torch.tensor(self.system.centre_m, device=self.device)

    def global_state(self, state: EccState) -> Tensor:
        """[B, state_size]: standardised gains and validity of all links, consensus and round, in [-1, 1]."""
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
        return 2 * self.num_bs * self.num_ues + POSITION_SIZE * self.num_ues + 1

    def estimate(self, state: EccState) -> Tensor:
        """[B, J, 3] fused report, metres."""
        return state.consensus_m

    def with_estimate(self, state: EccState, positions: Tensor) -> EccState:
        """The state with the fused report at ``positions`` [B, J, 3]."""
        return state.replace(consensus_m=self._area(positions.to(state.consensus_m)))

    def truth(self, state: EccState) -> dict[str, Tensor]:
        """True positions, errors, validity (some link has a path) and bits sent; for infos and evaluation only."""
        played = state.played()
        true_position = played.now(state.true_position_m)
        error = torch.linalg.vector_norm(state.consensus_m - true_position, dim=-1)
        return {
            "true_position": true_position,
            "error_m": error,
            "rmse_m": error.square().mean(dim=-1).sqrt(),
            "valid": played.now(state.sequence_valid).any(dim=-1),
            "fronthaul_bits": state.sent_bits,
        }

    def measurements(self, state: EccState) -> CsiMeasurements:
        """This round's snapshot of all BSs; no truth."""
        batch = len(state.round)
        return CsiMeasurements(
            system=self.system,
            bs_positions_m=self._bs_positions_m.expand(batch, -1, -1),
            bs_orientation_rad=self._bs_orientation_rad.expand(batch, -1, -1),
            csi=state.now(state.sequence_csi),
            valid=state.now(state.sequence_valid),
            site_ids=state.site_ids,
        )

    def encode_estimate(self, state: EccState, positions: Tensor) -> Tensor:
        """Actions by which every BS reports ``positions`` [B, J, 3], all with the same confidence."""
        normalised = self.system.normalise_position(positions).clamp(-1.0, 1.0)
        padding = self._entities.action_size - POSITION_SIZE
        actions = torch.nn.functional.pad(normalised, (0, padding))
        return actions.unsqueeze(1).expand(-1, self.num_bs, -1, -1).flatten(2)

    def describe(self) -> str:
        """Tables of observation, action and reward, made from the code."""
        return describe(self.config, self.system, self.parts, self._entities)

    def figure(self, state: EccState, history: list[Tensor]) -> Any:
        """Picture of episode 0 from above and from the side, see ``drawing.scene_figure``."""
        from cfpos_envs.drawing.scene import scene_figure

        played = state.played()
        return scene_figure(
            self.world.source,
            truth_m=state.true_position_m[0].cpu().numpy(),
            now_m=played.now(state.true_position_m)[0].cpu().numpy(),
            estimates_m=[estimate.detach().cpu().numpy() for estimate in history],
        )
