"""State of an episode of the surfaces' game, and the directions in which surfaces see a position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.physics.ris.geometry import ris_cosines
from cfpos_envs.scenarios.base import TensorState


@dataclass
class RisPhaseState(TensorState):
    """B episodes, R surfaces, J users, L = R + 1 paths, T rounds, G directions along each angle of a sector.

    Attributes:
        true_position_m: hidden.
        parameters, jacobian: path parameters and their derivatives at the truth; hidden.
        amplitude: of every path before the surface's array gain; hidden.
        gain_phase_rad: phases of the paths' gains; hidden.
        entry_variance: noise and scattering per received sample; hidden.
        turned: turned cosines in which the surface sees the users; hidden.
        report_noise: errors of reported energies, complex, relative to the full gain; hidden.
        estimate_noise: errors of the efficient estimator in units of its bound; hidden.
        valid: the model holds at the user's place.
        bs_m, ris_m: known.
        azimuth_rad, elevation_rad: middle of every surface's sector; known.
        incoming: cosines from the base station; known.
        low, high: edges of the sector in turned cosines; known.
        log_belief: what reported energies say about the users' directions.
        last_action: of the round before (``action=beam``).
        reported_db: energies of the paths relative to the full gain; 0 where not yet reported.
        phases: profiles that were played last, radians.
        position_m, given: an estimate that was put there, in the episodes where one was; elsewhere the network's
            estimate follows from the profiles that were played, see ``fusion.network_estimate_m``.
        round: rounds played.
    """

    true_position_m: Float[Tensor, "B J 3"]
    parameters: Float[Tensor, "B J L 5"]
    jacobian: Float[Tensor, "B J n 4"]
    amplitude: Float[Tensor, "B J L"]
    gain_phase_rad: Float[Tensor, "B J L"]
    entry_variance: Float[Tensor, "B J"]
    turned: Float[Tensor, "B R J 2"]
    report_noise: Complex[Tensor, "B T R J"]
    estimate_noise: Float[Tensor, "B J 3"]
    valid: Bool[Tensor, "B J"]
    bs_m: Float[Tensor, "B 3"]
    ris_m: Float[Tensor, "B R 3"]
    azimuth_rad: Float[Tensor, "B R"]
    elevation_rad: Float[Tensor, "B R"]
    incoming: Float[Tensor, "B R 2"]
    low: Float[Tensor, "B R 2"]
    high: Float[Tensor, "B R 2"]
    log_belief: Float[Tensor, "B R J P"]
    last_action: Float[Tensor, "B R 4"]
    reported_db: Float[Tensor, "B T R J"]
    phases: Float[Tensor, "B R n1 n2"]
    position_m: Float[Tensor, "B J 3"]
    given: Bool[Tensor, " B"]
    round: Int[Tensor, " B"]


def turned_cosines(state: RisPhaseState, positions_m: Float[Tensor, "B J 3"]) -> Float[Tensor, "B R J 2"]:
    """Turned cosines in which the surfaces see positions."""
    points = positions_m.to(state.ris_m)
    ris = state.ris_m.unsqueeze(1).expand(-1, points.shape[1], -1, -1)
    incoming, outgoing = ris_cosines(points, state.bs_m.unsqueeze(1).expand_as(points), ris)
    return (outgoing - incoming).transpose(1, 2).to(torch.float32)


def in_sector_units(state: RisPhaseState, turned: Float[Tensor, "B R P 2"]) -> Float[Tensor, "B R P 2"]:
    """Turned cosines in half-widths of the sector from its middle."""
    middle, half = (state.low + state.high) / 2, (state.high - state.low) / 2
    return (turned - middle.unsqueeze(2)) / half.unsqueeze(2)
