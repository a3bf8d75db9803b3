"""A tiny game on which the front ends are tested: every agent pushes every user's estimate towards its own guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.scenarios.base import (
    Entities,
    Scenario,
    TensorState,
    Transition,
)
from cfpos_envs.streams import Streams


@dataclass(frozen=True)
class ToyConfig:
    num_aps: int = 3
    num_ues: int = 2
    rounds: int = 4
    side_m: float = 10.0
    split: str = "train"

    def __post_init__(self) -> None:
        if self.num_aps < 1:
            raise ValueError(f"num_aps is {self.num_aps}; it must be at least 1")
        if self.num_ues < 1:
            raise ValueError(f"num_ues is {self.num_ues}; it must be at least 1")


@dataclass
class ToyState(TensorState):
    true_position_m: Tensor  # [B, K, 2]
    measured_m: Tensor  # [B, K, 2] the truth plus noise
    estimate_m: Tensor  # [B, K, 2]
    ap_positions_m: Tensor  # [B, M, 2]
    round: Tensor  # [B]


@dataclass(frozen=True)
class ToyMeasurements:
    measured_m: Tensor


class ToyScenario(Scenario[ToyState]):
    config_class = ToyConfig
    differentiable = True

    def __init__(self, config: ToyConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.agents = tuple(f"ap_{index}" for index in range(config.num_aps))
        self.entities = Entities(config.num_ues, 3, 2)
        self.observation_size, self.action_size = 3 * config.num_ues, 2 * config.num_ues
        self.rounds = config.rounds

    @property
    def state_size(self) -> int:
        return 4 * self.config.num_ues

    def reset(self, streams: Streams, num_envs: int) -> ToyState:
        config, side = self.config, self.config.side_m
        true = side * torch.rand(num_envs, config.num_ues, 2, generator=streams["drop"])
        noise = 0.1 * torch.randn(num_envs, config.num_ues, 2, generator=streams["noise"])
        aps = side * torch.rand(num_envs, config.num_aps, 2, generator=streams["layout"])
        return ToyState(true, true + noise, torch.full_like(true, side / 2), aps, torch.zeros(num_envs))

    def observe(self, state: ToyState) -> Tensor:
        gap = (state.measured_m - state.estimate_m) / (2 * self.config.side_m)
        clock = (state.round / self.rounds)[:, None, None].expand(*gap.shape[:2], 1)
        part = torch.cat([gap, clock], dim=-1).clamp(-1, 1).flatten(1)
        return part[:, None].expand(-1, len(self.agents), -1).clone()

    def step(self, state: ToyState, actions: Tensor) -> Transition[ToyState]:
        push = actions.clamp(-1, 1).unflatten(-1, (self.config.num_ues, 2)).mean(1)
        after = state.replace(estimate_m=state.estimate_m + push, round=state.round + 1)
        objective = -(after.estimate_m - state.measured_m).norm(dim=-1)
        entity_rewards = objective[:, None].expand(-1, len(self.agents), -1)
        ended = after.round >= self.rounds
        metrics = {"score": objective.mean(-1), "objective": objective, "entity_rewards": entity_rewards}
        return Transition(after, entity_rewards.sum(-1), torch.zeros_like(ended), ended, metrics)

    def global_state(self, state: ToyState) -> Tensor:
        scaled = torch.cat([state.measured_m, state.estimate_m], dim=-1) / self.config.side_m - 0.5
        return scaled.clamp(-1, 1).flatten(1)

    def estimate(self, state: ToyState) -> Tensor:
        return state.estimate_m

    def truth(self, state: ToyState) -> dict[str, Tensor]:
        error = (state.estimate_m - state.true_position_m).norm(dim=-1)
        return {
            "true_position": state.true_position_m,
            "error_m": error,
            "rmse_m": error.square().mean(-1).sqrt(),
            "peb_m": torch.full_like(error, 0.1 * 2**0.5),
        }

    def measurements(self, state: ToyState) -> ToyMeasurements:
        return ToyMeasurements(state.measured_m)

    def encode_estimate(self, state: ToyState, positions: Tensor) -> Tensor:
        push = (positions - state.estimate_m).clamp(-1, 1).flatten(1)
        return push[:, None].expand(-1, len(self.agents), -1).clone()

    def with_estimate(self, state: ToyState, positions: Tensor) -> ToyState:
        return state.replace(estimate_m=positions)

    def describe(self) -> str:
        return "toy: gap to the measured point (m / 2 side), round; push in metres, [-1, 1]"

    def fronthaul_bits(self) -> float:
        return 64.0 * self.config.num_ues * self.rounds

    def draw(self, axes: Any, state: ToyState, history: list[Tensor]) -> None:
        from cfpos_envs.drawing.figures import draw_episode

        aps, truth = state.ap_positions_m[0], state.true_position_m[0]
        draw_episode(axes, aps, torch.zeros(len(aps)), truth, history, self.config.side_m, wrap=False)


class OneShot:
    """Answers with what was measured; the last user of every batch is declared lost."""

    name = "one-shot"

    def __init__(self, lost_value: float | None = None) -> None:
        self.lost_value = lost_value

    def locate(self, measurements: ToyMeasurements) -> PositionEstimate:
        position = measurements.measured_m.clone()
        valid = torch.ones(position.shape[:-1], dtype=torch.bool)
        if self.lost_value is not None:
            position[-1, -1], valid[-1, -1] = self.lost_value, False
        return PositionEstimate(position, None, valid)

    def reset(self) -> None:
        pass


class Greedy:
    """Walks to the measured point; ``ActOnlyGreedy`` does the same through dictionaries."""

    name = "greedy"

    def act_batch(self, observations: Tensor) -> Tensor:
        gaps = observations.unflatten(-1, (-1, 3))[..., :2]
        return (gaps * 20.0).clamp(-1, 1).flatten(-2)

    def reset(self) -> None:
        pass


class ActOnlyGreedy:
    name = "greedy-dicts"

    def act(self, observations: dict[str, Any]) -> dict[str, Any]:
        batch = torch.stack([torch.as_tensor(value) for value in observations.values()])
        return dict(zip(observations, Greedy().act_batch(batch).numpy()))

    def reset(self) -> None:
        pass


def register_toy() -> str:
    """Put the toy into the registry and return its id."""
    from cfpos_envs.registry import register

    register("toy-v0", "tests.front_ends.toy:ToyScenario")
    return "toy-v0"
