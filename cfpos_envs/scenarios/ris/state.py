"""Tensors of a drop and of an episode of the localisation game, and the geometry of their pairs of UE and base station.

B episodes, J UEs, I base stations, R surfaces, L = R + 1 paths.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.measurements.ris import RisMeasurements, SisoMeasurements
from cfpos_envs.physics.ris.geometry import RisPaths, path_parameters, trace_paths
from cfpos_envs.scenarios.base import TensorState
from cfpos_envs.scenarios.ris.config import RisConfig

PairGeometry = tuple[
    Float[Tensor, "B J I 3"], Float[Tensor, "B J I 3"], Float[Tensor, "B J I R 3"], Float[Tensor, "B J I 3 3"]
]
"""UE, base station, surfaces and the UE's rotation of every pair."""


@dataclass
class Scene(TensorState):
    """All that is random about a drop, before the surfaces are set. Positions in float64, samples in complex64.

    Attributes:
        bs_m, ris_m, rotation: known.
        ue_m, bias_m, blocked, gain_phase_rad: hidden.
        white: fading of the line of sight plus noise.
        scattered: what scatters between each surface and the UE.
        link_offset_m: measured p_0 - p_j; None without links.
        siso_phases [B, T, NR], siso_received [B, J, I, T, 2, N]: see ``SisoMeasurements``; empty until drawn.
    """

    bs_m: Float[Tensor, "B I 3"]
    ris_m: Float[Tensor, "B R 3"]
    rotation: Float[Tensor, "B J 3 3"]
    ue_m: Float[Tensor, "B J 3"]
    bias_m: Float[Tensor, "B J I"]
    blocked: Bool[Tensor, "B J I"]
    gain_phase_rad: Float[Tensor, "B J I L"]
    white: Complex[Tensor, "B J I U1 U2 B1 B2 N"]
    scattered: Complex[Tensor, "B J I R U1 U2 N"]
    link_offset_m: Float[Tensor, "B _links 3"] | None
    siso_phases: Tensor
    siso_received: Tensor

    @property
    def pairs(self) -> PairGeometry:
        """Where UE, base station and surfaces of each pair are."""
        return pair_geometry(self, self.ue_m)

    @property
    def paths(self) -> RisPaths:
        """The paths of every pair."""
        ue, bs, ris, _ = self.pairs
        return trace_paths(ue, bs, ris)

    @property
    def parameters(self) -> Float[Tensor, "B J I L 5"]:
        """Path parameters of every pair, see ``geometry.path_parameters``."""
        return pair_parameters(self, self.ue_m, self.bias_m)


@dataclass
class RisState(TensorState):
    """An episode.

    Attributes:
        true_position_m, true_bias_m: hidden.
        peb_m, ceb_m: bounds at the truth; hidden.
        valid: the model holds for the UE's place.
        bs_m, ris_m, rotation, phases: known.
        received: of every pair, scaled to a mean energy of 1 per sample.
        received_rms: what it was divided by.
        link_offset_m (None without links), siso_phases, siso_received: see ``RisMeasurements``.
        position_m, bias_m: the estimate.
        round: rounds played.
    """

    true_position_m: Float[Tensor, "B J 3"]
    true_bias_m: Float[Tensor, "B J I"]
    peb_m: Float[Tensor, "B J"]
    ceb_m: Float[Tensor, "B J I"]
    valid: Bool[Tensor, "B J"]
    bs_m: Float[Tensor, "B I 3"]
    ris_m: Float[Tensor, "B R 3"]
    rotation: Float[Tensor, "B J 3 3"]
    phases: Complex[Tensor, "B R NR"]
    received: Complex[Tensor, "B J I U1 U2 B1 B2 N"]
    received_rms: Float[Tensor, "B J I"]
    link_offset_m: Float[Tensor, "B _links 3"] | None
    siso_phases: Complex[Tensor, "B T NR"]
    siso_received: Complex[Tensor, "B J I T 2 N"]
    position_m: Float[Tensor, "B J 3"]
    bias_m: Float[Tensor, "B J I"]
    round: Int[Tensor, " B"]


def pair_geometry(network: Scene | RisState, position_m: Float[Tensor, "B J 3"]) -> PairGeometry:
    """Every pair with its UE at ``position_m``, in that tensor's precision."""
    pairs = network.bias_m.shape
    bs, ris, rotation = (known.to(position_m) for known in (network.bs_m, network.ris_m, network.rotation))
    return (
        position_m.unsqueeze(2).expand(*pairs, 3),
        bs.unsqueeze(1).expand(*pairs, 3),
        ris[:, None, None].expand(*pairs, -1, 3),
        rotation.unsqueeze(2).expand(*pairs, 3, 3),
    )


def pair_parameters(
    network: Scene | RisState, position_m: Float[Tensor, "B J 3"], bias_m: Float[Tensor, "B J I"]
) -> Float[Tensor, "B J I L 5"]:
    """Path parameters of hypothesised positions and clock biases."""
    ue, bs, ris, rotation = pair_geometry(network, position_m)
    return path_parameters(ue, bias_m, bs, ris, rotation)


def link_covariance_m2(config: RisConfig, like: Float[Tensor, "B J 3 3"]) -> Float[Tensor, "B _links 3 3"] | None:
    """Covariance of the differences that UEs measure to the first one, in the precision of ``like``; None: no links."""
    if config.link_std_m is None or config.num_ues < 2:
        return None
    eye = torch.eye(3, dtype=like.dtype, device=like.device)
    return (config.link_std_m**2 * eye).expand(len(like), config.num_ues - 1, 3, 3)


def as_measurements(
    config: RisConfig,
    network: Scene | RisState,
    phases: Complex[Tensor, "B R NR"],
    received: Complex[Tensor, "B J I U1 U2 B1 B2 N"],
) -> RisMeasurements:
    """What the estimators get: everything known, and the samples at their own scale."""
    return RisMeasurements(
        system=config.system,
        bs_positions_m=network.bs_m,
        ris_positions_m=network.ris_m,
        rotation=network.rotation,
        phases=phases,
        received=received,
        link_offset_m=network.link_offset_m,
        link_covariance_m2=link_covariance_m2(config, network.rotation),
        site_ids=torch.zeros(len(network.bs_m), dtype=torch.long, device=network.bs_m.device),
        siso=SisoMeasurements(network.siso_phases, network.siso_received),
    )
