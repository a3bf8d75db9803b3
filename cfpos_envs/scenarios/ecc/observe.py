"""What a base station sees of each user: features of its CSI, its gain, where it stands and the last fused report."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.physics.ecc.features import feature_size
from cfpos_envs.scenarios.ecc.state import EccState

LOG_GAIN_SCALE = 4.0


@dataclass(frozen=True)
class Part:
    """Consecutive entries of an observation.

    Attributes:
        name, size: what and how many.
        meaning: with the unit before scaling.
    """

    name: str
    size: int
    meaning: str


def parts(system: CsiSystem, features: str) -> tuple[Part, ...]:
    """The entries of one base station's observation of one user, in order."""
    size = feature_size(features, system.array_shape, system.num_subcarriers)
    scale = f"{system.scale_m:g} m"
    return (
        Part(features, size, "features of the CSI, see docs/physics-csi.md; 0 without a path"),
        Part("log_gain", 1, f"log10 gain less its mean over its standard deviation, / {LOG_GAIN_SCALE:g}"),
        Part("valid", 1, "1 for a link with a path, -1 without"),
        Part("consensus", 3, f"last fused report minus centre of the area / {scale}"),
        Part("bs_position", 3, f"own position minus centre of the area / {scale}"),
        Part("bs_direction", 2, "cosine and sine of the array's yaw"),
        Part("progress", 1, "rounds played / rounds"),
    )


def observe(
    system: CsiSystem, state: EccState, bs_positions_m: Tensor, bs_orientation_rad: Tensor, rounds: int
) -> Tensor:
    """Observations [B, L, J, F] in [-1, 1].

    Args:
        system: known constants.
        state: measurements and consensus.
        bs_positions_m, bs_orientation_rad: [L, 3].
        rounds: episode length.
    """
    valid = state.now(state.sequence_valid)  # [B, J, L]
    batch, users, stations = valid.shape
    log_gain = system.standardise_log_gain(state.now(state.sequence_gain), valid, -LOG_GAIN_SCALE) / LOG_GAIN_SCALE
    consensus = system.normalise_position(state.consensus_m).unsqueeze(2).expand(-1, -1, stations, -1)
    place = system.normalise_position(bs_positions_m).expand(batch, users, -1, -1)
    yaw = bs_orientation_rad[:, 0]
    direction = torch.stack((yaw.cos(), yaw.sin()), dim=-1).expand(batch, users, -1, -1)
    progress = (state.round.to(log_gain.dtype) / rounds).view(-1, 1, 1, 1).expand(-1, users, stations, 1)
    columns = (
        state.now(state.sequence_features),
        log_gain.unsqueeze(-1),
        (2.0 * valid.to(log_gain.dtype) - 1.0).unsqueeze(-1),
        consensus,
        place,
        direction,
        progress,
    )
    return torch.cat(columns, dim=-1).clamp(-1.0, 1.0).transpose(1, 2)
