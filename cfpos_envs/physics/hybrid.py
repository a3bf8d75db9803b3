"""Range, direction and power of a link in one row: predictions, their gradients, and the Fisher information of all.

A uniform linear array measures the cosine of the angle to its axis. Its error does not depend on the angle, and the
mirrored direction has the same cosine, so nothing has to be unfolded.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.geometry import unit_vectors
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.physics.toa.model import TimingModel

KINDS = ("range", "direction", "power")
"""The last axis: range in metres, cosine of the angle to the array's axis, received power in dBm."""
_SMALLEST_DISTANCE_M = 1e-3


def predict(
    model: TimingModel,
    ap_positions_m: Float[Tensor, "*batch M 2"],
    ap_orientation_rad: Float[Tensor, "*batch M"],
    height_diff_m: Float[Tensor, "*batch M"],
    points_m: Float[Tensor, "*batch K 2"],
) -> tuple[Float[Tensor, "*batch M K 3"], Float[Tensor, "*batch M K 3 2"]]:
    """What every AP measures of users at some points without noise, and the gradients by the ground position.

    d = |(p - q, h)|,  cos(theta) = a . (p - q) / |p - q|,  P = P_t + intercept - slope log10(d / 1 m)

    Args:
        model: the known constants.
        ap_positions_m, ap_orientation_rad, height_diff_m: q, direction of the axis a, and AP minus UE height h.
        points_m: p.

    Returns:
        Values in the order of ``KINDS`` and their gradients (1, 1/m, dB/m per metre moved).
    """
    unit, slant = unit_vectors_to(ap_positions_m, height_diff_m, points_m)
    vectors = points_m.unsqueeze(-3) - ap_positions_m.unsqueeze(-2)
    ground = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True).clamp(min=_SMALLEST_DISTANCE_M)
    axis = unit_vectors(ap_orientation_rad).unsqueeze(-2)
    cosine = (vectors * axis).sum(dim=-1, keepdim=True) / ground
    # Below 1 m the path loss ends, and the power says nothing more.
    slope = -model.path_loss_slope_db / math.log(10.0) * (slant > 1.0) / slant.clamp(min=1.0)
    at_one_metre_dbm = 10 * math.log10(1e3 * model.tx_power_w) + model.path_loss_intercept_db
    power_dbm = at_one_metre_dbm - model.path_loss_slope_db * torch.log10(slant.clamp(min=1.0))
    values = torch.stack((slant, cosine.squeeze(-1), power_dbm), dim=-1)
    gradients = (unit, (axis - cosine * vectors / ground) / ground, slope.unsqueeze(-1) * unit)
    return values, torch.stack(gradients, dim=-2)


def direction_variance(model: TimingModel, snr_linear: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Variance of the measured cosine, 12 / (8 pi^2 D^2 (N^2 - 1) SNR); infinite for one antenna.

    The twin of ``toa.bounds.ula_aoa_information``, whose sin^2(theta) is (d cos(theta) / d theta)^2.

    Args:
        model: N antennas, D wavelengths apart.
        snr_linear: SNR of the whole pilot over the array.
    """
    aperture = model.spacing_wavelengths**2 * (model.num_antennas**2 - 1) / 12
    return 1.0 / (8 * math.pi**2 * aperture * snr_linear)


def fisher(
    gradients: Float[Tensor, "*batch M K 3 2"],
    variance: Float[Tensor, "*batch M K 3"],
    valid: Bool[Tensor, "*batch M K 3"],
) -> Float[Tensor, "*batch K 2 2"]:
    """Fisher information of all measurements together, sum g g^T / sigma^2, 1/m^2.

    Args:
        gradients: see ``predict``.
        variance: of every measurement, in its own unit squared, > 0; infinite where nothing is known.
        valid: measurements that count.
    """
    scaled = gradients * (variance.rsqrt() * valid).unsqueeze(-1)
    return torch.einsum("...mkai,...mkaj->...kij", scaled, scaled)
