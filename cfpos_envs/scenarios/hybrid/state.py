"""State of the hybrid game and what can be read off it: residuals at a point, and the first estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics import geometry
from cfpos_envs.physics.hybrid import predict
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.scenarios.ap_game import ApState, judging_links


@dataclass
class HybridState(ApState):
    """See ``ApState``; the axis of 3 is that of ``physics.hybrid.KINDS``.

    Attributes:
        is_los [B, M, K]: hidden; used by the bound alone.
        sequence_values, sequence_variance [B, T, M, K, 3]: measured, and the known variances in line of sight.
        valid [B, M, K]: links that are measured.
    """

    is_los: Tensor
    sequence_values: Tensor
    sequence_variance: Tensor
    valid: Tensor

    @property
    def values(self) -> Float[Tensor, "B M K 3"]:
        """This round's measurements."""
        return self.now(self.sequence_values)

    @property
    def variance(self) -> Float[Tensor, "B M K 3"]:
        """Their variances."""
        return self.now(self.sequence_variance)

    @property
    def judges(self) -> Bool[Tensor, "B M K"]:
        """The links that judge the fused point: those left out or, where none is, all measured ones."""
        return judging_links(self.valid, self.fused)

    def site(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, directions and heights of the APs."""
        return self.ap_positions_m, self.ap_orientation_rad, self.height_diff_m


@dataclass(frozen=True)
class HybridResiduals:
    """Measured minus predicted at one point per user.

    Attributes:
        gradient: of every prediction by the position.
        residual, std, z: in the measurement's unit, its known standard deviation, and their quotient.
    """

    gradient: Float[Tensor, "B M K 3 2"]
    residual: Float[Tensor, "B M K 3"]
    std: Float[Tensor, "B M K 3"]
    z: Float[Tensor, "B M K 3"]


def residuals_at(model: TimingModel, state: HybridState, points_m: Float[Tensor, "B K 2"]) -> HybridResiduals:
    """Residuals of every AP at some points, differentiable in them."""
    predicted, gradient = predict(model, *state.site(), points_m)
    residual, std = state.values - predicted, state.variance.sqrt()
    return HybridResiduals(gradient, residual, std, residual / std)


def coarse_start_m(model: TimingModel, state: HybridState, points_per_side: int) -> Float[Tensor, "B K 2"]:
    """Point of a lattice with the smallest sum over the fused links of log(1 + z^2), z in units of what half a spacing
    of the lattice or the noise makes, whichever is larger."""
    spacing_m = model.side_m / points_per_side
    lattice = geometry.lattice(model.side_m, spacing_m).to(state.values.device)
    predicted, gradient = predict(model, *state.site(), lattice.expand(len(state.values), *lattice.shape))
    blur = 0.5 * spacing_m * torch.linalg.vector_norm(gradient, dim=-1)
    costs = []
    for user in range(state.values.shape[2]):  # one user at a time keeps the temporaries in the cache
        value, variance = state.values[:, :, user, None], state.variance[:, :, user, None]
        scale = torch.maximum(variance.sqrt(), blur)
        counts = state.fused[:, :, user, None, None]
        costs.append((torch.log1p(((value - predicted) / scale).square()) * counts).sum(dim=(1, 3)))
    return lattice[torch.stack(costs, dim=1).argmin(dim=-1)]
