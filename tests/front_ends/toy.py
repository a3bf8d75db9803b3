"""A tiny game on which the front ends are tested: every agent pushes every user's estimate towards its own guess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.scenarios.base import Scenario, TensorState, Transition
from cfpos_envs.scenarios.features import Feature, Row, evaluate, rows
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
    consensus_m: Tensor  # [B, K, 2]
    ap_positions_m: Tensor  # [B, M, 2]
    round: Tensor  # [B]


@dataclass(frozen=True)
class ToyMeasurements:
    measured_m: Tensor


FEATURES: tuple[Feature[ToyState], ...] = (
    Feature("gap", "measured minus estimated x, y / m", lambda s: s.measured_m - s.consensus_m, scale=20.0, size=2),
    Feature("round", "rounds played", lambda s: s.round[:, None], scale=4.0),
)
ACTIONS = (Row("push", "the mean of all agents' moves the estimate, x, y / m", size=2),)


class ToyScenario(Scenario[ToyState]):
    """Toy: every agent pushes every user's estimate."""

    config_class = ToyConfig
    family = "toy"
    differentiable = True

    def __init__(self, config: ToyConfig, device: torch.device | str = "cpu") -> None:
        agents = tuple(f"ap_{index}" for index in range(config.num_aps))
        super().__init__(config, device, agents, rows(FEATURES), ACTIONS, config.num_ues)

    def reset(self, streams: Streams, num_envs: int) -> ToyState:
        config, side = self.config, self.config.side_m
        true = side * torch.rand(num_envs, config.num_ues, 2, generator=streams["drop"])
        noise = 0.1 * torch.randn(num_envs, config.num_ues, 2, generator=streams["noise"])
        aps = side * torch.rand(num_envs, config.num_aps, 2, generator=streams["layout"])
        return ToyState(true, true + noise, torch.full_like(true, side / 2), aps, torch.zeros(num_envs))

    def observe(self, state: ToyState) -> Tensor:
        seen = evaluate(FEATURES, state, state.consensus_m.shape[:2]).flatten(1)
        return seen[:, None].expand(-1, len(self.agents), -1).clone()

    def step(self, state: ToyState, actions: Tensor) -> Transition[ToyState]:
        push = actions.clamp(-1, 1).unflatten(-1, (self.config.num_ues, 2)).mean(1)
        after = state.replace(consensus_m=state.consensus_m + push, round=state.round + 1)
        objective = -(after.consensus_m - state.measured_m).norm(dim=-1)
        rewards = objective[:, None].expand(-1, len(self.agents), -1)
        return self.transition(after, rewards, {"score": objective.mean(-1), "objective": objective})

    def bound_m(self, state: ToyState) -> Tensor:
        return torch.full(state.consensus_m.shape[:2], 0.1 * 2**0.5)

    @property
    def area_centre_m(self) -> Tensor:
        return torch.full((2,), self.config.side_m / 2)

    def measurements(self, state: ToyState) -> ToyMeasurements:
        return ToyMeasurements(state.measured_m)

    def encode_estimate(self, state: ToyState, positions: Tensor) -> Tensor:
        push = (positions - state.consensus_m).clamp(-1, 1).flatten(1)
        return push[:, None].expand(-1, len(self.agents), -1).clone()

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
