"""What a base station sees of each user: features of its CSI, its gain, where it stands and the last fused report."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.physics.ecc.features import feature_size
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.state import EccState
from cfpos_envs.scenarios.features import Feature, evaluate

LOG_GAIN_SCALE = 4.0


@dataclass(frozen=True)
class EccView:
    """What the entries of an observation are computed from.

    Attributes:
        config, system, state: the game, what the network knows, and its state.
        bs_positions_m, bs_orientation_rad: of the base stations.
    """

    config: EccOptions
    system: CsiSystem
    state: EccState
    bs_positions_m: Float[Tensor, "L 3"]
    bs_orientation_rad: Float[Tensor, "L 3"]


def observe(features: tuple[Feature[EccView], ...], view: EccView) -> Float[Tensor, "B L entries"]:
    """What every base station sees, one user after another, in [-1, 1]."""
    shape = view.state.now(view.state.sequence_valid).shape  # [B, J, L]
    return evaluate(features, view, shape).transpose(1, 2).flatten(2)


def features_of(config: EccOptions, system: CsiSystem) -> tuple[Feature[EccView], ...]:
    """The entries of one base station's observation of one user, in order."""
    size = feature_size(config.features, system.array_shape, system.num_subcarriers)
    scale_m, seen = system.scale_m, "features of the CSI, see physics.ecc.features; 0 without a path"
    return (
        Feature(config.features, seen, _csi, size=size),
        Feature("log_gain", "log10 gain less its mean over its standard deviation", _log_gain, LOG_GAIN_SCALE),
        Feature("valid", "1 for a link with a path, -1 without", _valid),
        Feature("consensus", "m, last fused report minus centre of the area", _consensus, scale_m, 3),
        Feature("bs_position", "m, own position minus centre of the area", _bs_position, scale_m, 3),
        Feature("bs_direction", "cosine and sine of the array's yaw", _bs_direction, size=2),
        Feature("progress", "rounds played / rounds", _progress),
    )


def _csi(view: EccView) -> Tensor:
    return view.state.now(view.state.sequence_features)


def _log_gain(view: EccView) -> Tensor:
    state = view.state
    valid = state.now(state.sequence_valid)
    return view.system.standardise_log_gain(state.now(state.sequence_gain), valid, -LOG_GAIN_SCALE)


def _valid(view: EccView) -> Tensor:
    return 2.0 * view.state.now(view.state.sequence_valid).to(torch.float32) - 1.0


def _consensus(view: EccView) -> Tensor:
    consensus = view.state.consensus_m
    return (consensus - consensus.new_tensor(view.system.centre_m)).unsqueeze(2)


def _bs_position(view: EccView) -> Tensor:
    return (view.bs_positions_m - view.bs_positions_m.new_tensor(view.system.centre_m))[None, None]


def _bs_direction(view: EccView) -> Tensor:
    yaw = view.bs_orientation_rad[:, 0]
    return torch.stack((yaw.cos(), yaw.sin()), dim=-1)[None, None]


def _progress(view: EccView) -> Tensor:
    return (view.state.round.to(torch.float32) / view.config.rounds).view(-1, 1, 1, 1)
