"""What an AP sees of each user: its three residuals, how precise they are, where the user is thought to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cfpos_envs.physics.geometry import polar
from cfpos_envs.physics.hybrid import KINDS
from cfpos_envs.physics.similarity import masked_median
from cfpos_envs.scenarios.features import Feature
from cfpos_envs.scenarios.hybrid.state import HybridResiduals, HybridState


@dataclass(frozen=True)
class HybridView:
    """What the features are computed from.

    Attributes:
        state, at: the state and the residuals at the consensus.
        side_m, rounds: of the game.
    """

    state: HybridState
    at: HybridResiduals
    side_m: float
    rounds: int

    @cached_property
    def polar(self) -> tuple[Tensor, Tensor]:
        """Distance and azimuth [B, M, K] of the consensus seen from the AP."""
        return polar(self.state.consensus_m.unsqueeze(1) - self.state.ap_positions_m.unsqueeze(2))

    def median_size(self) -> Tensor:
        """[B, 1, K, 3] median of the standardised residuals' sizes over the fused links."""
        sizes = self.at.z.abs().movedim(3, 1).transpose(2, 3)
        mask = self.state.fused.transpose(1, 2).unsqueeze(1).expand_as(sizes)
        return masked_median(sizes, mask).movedim(1, 2).unsqueeze(1)


def _precision_m(view: HybridView) -> Tensor:
    """[B, M, K, 3] standard deviation of the position along each measurement's own gradient."""
    return view.at.std / torch.linalg.vector_norm(view.at.gradient, dim=-1).clamp(min=1e-6)


def _measured(compute: Callable[[HybridView], Tensor]) -> Callable[[HybridView], Tensor]:
    """Zero for links that were not measured."""
    return lambda view: compute(view) * view.state.valid.unsqueeze(-1)


_EACH = f"of {', '.join(KINDS)}"
FEATURES: tuple[Feature[HybridView], ...] = (
    Feature(
        "z",
        f"asinh of the residual {_EACH} in known standard deviations",
        _measured(lambda v: torch.asinh(v.at.z)),
        scale=6.0,
        size=3,
    ),
    Feature("log_z", "log(1 + z^2) of them", _measured(lambda v: torch.log1p(v.at.z.square())), scale=10.0, size=3),
    Feature(
        "precision",
        f"log(standard deviation {_EACH} along the own gradient / m)",
        _measured(lambda v: torch.log(_precision_m(v))),
        scale=6.0,
        size=3,
    ),
    Feature(
        "median",
        f"broadcast: log(1 + median |z| {_EACH} over the fused links)",
        lambda v: torch.log1p(v.median_size()),
        scale=5.0,
        size=3,
    ),
    Feature("distance", "horizontal distance AP-consensus / side", lambda v: v.polar[0] / v.side_m, scale=1.5),
    Feature("cos_azimuth", "cosine of the consensus' azimuth", lambda v: torch.cos(v.polar[1])),
    Feature("sin_azimuth", "sine of the consensus' azimuth", lambda v: torch.sin(v.polar[1])),
    Feature("measured", "1 for a measured link, 0 for a blocked one", lambda v: v.state.valid.to(v.at.z.dtype)),
    Feature("progress", "rounds played / rounds", lambda v: v.state.round.to(v.at.z.dtype).view(-1, 1, 1) / v.rounds),
)
