"""Where base station, surfaces and UE are, and the path parameters that follow: cosines, delays, their derivatives.

Axes of the arrays in the global frame: base station in the y-z plane, surfaces in the x-z plane, UE in the plane of its
own x' and y', which are the first two columns of a known rotation. Direction cosines, not angles, are the parameters.
Paths: 0 is the line of sight, r = 1..R goes over surface r. Delays are lengths: c times the delay, and the clock bias
b = c delta is a length too, so that nothing of size 1e-9 meets cosines in linear algebra.

Source: Zhang, Wang, Tay, arXiv 2306.07504, system model. That surfaces are perpendicular to the base station's array is
theirs; the axes themselves are our choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

BS_AXES = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
RIS_AXES = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
"""Rows: the axes whose scalar product with a direction is its cosine at the base station, at a surface."""

GRAZING = 0.02
"""A direction with a smaller cosine to the boresight lies in the plane of the array: it is ambiguous with its mirror
image, and the derivative of the third cosine explodes."""
SMALLEST_DISTANCE_M = 0.05
"""Arrays nearer to each other than this are at the same place."""


@dataclass(frozen=True)
class RisPaths:
    """The paths of one UE from one base station; leading dimensions free.

    Attributes:
        direction [*, L, 3]: unit vectors of propagation towards the UE.
        range_m [*, L]: last hop: from the base station (path 0) or from the surface to the UE.
        first_hop_m [*, L]: from the base station to the surface; 0 for the line of sight.
        departure [*, L, 3]: unit vectors in which the base station sends the path.
    """

    direction: Float[Tensor, "*batch L 3"]
    range_m: Float[Tensor, "*batch L"]
    first_hop_m: Float[Tensor, "*batch L"]
    departure: Float[Tensor, "*batch L 3"]

    @property
    def length_m(self) -> Float[Tensor, "*batch L"]:
        """Whole length of every path."""
        return self.range_m + self.first_hop_m


def euler_rotation(
    alpha_rad: Float[Tensor, "*batch"], beta_rad: Float[Tensor, "*batch"], gamma_rad: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """R = Rz(alpha) Ry(beta) Rx(gamma); its columns are the UE's axes in the global frame.

    Args:
        alpha_rad, beta_rad, gamma_rad: angles about z, y and x.
    """
    return _turn(alpha_rad, 2) @ _turn(beta_rad, 1) @ _turn(gamma_rad, 0)


def trace_paths(
    ue_m: Float[Tensor, "*batch 3"], bs_m: Float[Tensor, "*#batch 3"], ris_m: Float[Tensor, "*#batch R 3"]
) -> RisPaths:
    """Directions and lengths of the line of sight and of the R paths over the surfaces.

    Args:
        ue_m, bs_m, ris_m: positions.
    """
    # torch's own would import its symbolic shapes, seconds of start-up.
    batch = np.broadcast_shapes(ue_m.shape[:-1], bs_m.shape[:-1], ris_m.shape[:-2])
    bs = bs_m.unsqueeze(-2).expand(*batch, 1, 3)
    ris = ris_m.expand(*batch, *ris_m.shape[-2:])
    ue = ue_m.unsqueeze(-2).expand(*batch, 1, 3)
    last = ue - torch.cat((bs, ris), dim=-2)
    range_m = torch.linalg.vector_norm(last, dim=-1)
    hop = ris - bs
    hop_m = torch.linalg.vector_norm(hop, dim=-1)
    direction = last / range_m.unsqueeze(-1)
    departure = torch.cat((direction[..., :1, :], hop / hop_m.unsqueeze(-1)), dim=-2)
    first_hop = torch.cat((torch.zeros_like(range_m[..., :1]), hop_m), dim=-1)
    return RisPaths(direction, range_m, first_hop, departure)


def path_parameters(
    ue_m: Float[Tensor, "*batch 3"],
    bias_m: Float[Tensor, "*#batch"],
    bs_m: Float[Tensor, "*#batch 3"],
    ris_m: Float[Tensor, "*#batch R 3"],
    rotation: Float[Tensor, "*#batch 3 3"],
) -> Float[Tensor, "*batch L 5"]:
    """(theta_1, theta_2, psi_1, psi_2, delay_m) of all L = R + 1 paths.

    theta_l: first two entries of R^T (-u_l), the direction from the UE towards the source. psi_l: cosines of departure
    at the base station, E_B u_0 and, known, E_B (q_r - p_B) / D_r. delay_l = D_l + d_l + b, not modulo the window.

    Args:
        ue_m: p.
        bias_m: clock bias b = c delta, metres.
        bs_m, ris_m: base station, surfaces.
        rotation: orientation of the UE, see ``euler_rotation``.
    """
    paths = trace_paths(ue_m, bs_m, ris_m)
    arrival = arrival_cosines(paths, rotation)[..., :2]
    delay = paths.length_m + bias_m.unsqueeze(-1)
    return torch.cat((arrival, _cosines(paths.departure, BS_AXES), delay.unsqueeze(-1)), dim=-1)


def arrival_cosines(paths: RisPaths, rotation: Float[Tensor, "*#batch 3 3"]) -> Float[Tensor, "*batch L 3"]:
    """R^T (-u_l): all three cosines at the UE; the third is positive for a source in front of the array.

    Args:
        paths: of ``trace_paths``.
        rotation: orientation of the UE.
    """
    return -(paths.direction @ rotation)


def ris_cosines(
    ue_m: Float[Tensor, "*batch 3"], bs_m: Float[Tensor, "*#batch 3"], ris_m: Float[Tensor, "*#batch R 3"]
) -> tuple[Float[Tensor, "*batch R 2"], Float[Tensor, "*batch R 2"]]:
    """Incoming cosines omega^R = E_R (q - p_B) / D and outgoing ones psi^R = E_R u at every surface.

    Args:
        ue_m, bs_m, ris_m: positions.
    """
    paths = trace_paths(ue_m, bs_m, ris_m)
    return _cosines(paths.departure[..., 1:, :], RIS_AXES), _cosines(paths.direction[..., 1:, :], RIS_AXES)


def position_jacobian(
    ue_m: Float[Tensor, "*batch 3"],
    bs_m: Float[Tensor, "*#batch 3"],
    ris_m: Float[Tensor, "*#batch R 3"],
    rotation: Float[Tensor, "*#batch 3 3"],
) -> Float[Tensor, "*batch n 4"]:
    """Derivative of the n = 5 + 3R unknown path parameters by (p, b).

    Rows: theta_1, theta_2, psi_1, psi_2, delay of the line of sight, then theta_1, theta_2, delay over every surface.
    With Q_l = (I - u_l u_l^T) / d_l: d theta_{l,i} / dp = -(R e_i)^T Q_l, d psi_i / dp = (E_B)_i Q_0,
    d delay_l / dp = u_l^T, d delay_l / db = 1.

    Args:
        ue_m, bs_m, ris_m: positions.
        rotation: orientation of the UE.
    """
    paths = trace_paths(ue_m, bs_m, ris_m)
    u = paths.direction
    eye = torch.eye(3, dtype=u.dtype, device=u.device)
    across = (eye - u.unsqueeze(-1) * u.unsqueeze(-2)) / paths.range_m[..., None, None]
    theta = -(rotation[..., :, :2].mT.unsqueeze(-3) @ across)
    psi = torch.tensor(BS_AXES, dtype=u.dtype, device=u.device) @ across[..., 0, :, :]
    los = torch.cat((theta[..., 0, :, :], psi, u[..., :1, :]), dim=-2)
    over_ris = torch.cat((theta[..., 1:, :, :], u[..., 1:, None, :]), dim=-2).flatten(-3, -2)
    by_position = torch.cat((los, over_ris), dim=-2)
    by_bias = torch.zeros_like(by_position[..., :1])
    by_bias[..., delay_rows(paths.range_m.shape[-1]), :] = 1.0
    return torch.cat((by_position, by_bias), dim=-1)


def delay_rows(num_paths: int) -> list[int]:
    """Rows of the delays among the n unknown path parameters, see ``position_jacobian``."""
    return [4, *(7 + 3 * r for r in range(num_paths - 1))]


def geometry_faults(
    ue_m: Float[Tensor, "*batch 3"],
    bs_m: Float[Tensor, "*#batch 3"],
    ris_m: Float[Tensor, "*#batch R 3"],
    rotation: Float[Tensor, "*#batch 3 3"],
    window_m: float,
) -> dict[str, Bool[Tensor, "*batch"]]:
    """What is wrong with a geometry: message -> where it is so. No entry true: the model holds.

    Args:
        ue_m, bs_m, ris_m: positions.
        rotation: orientation of the UE.
        window_m: delays are known modulo this length, c N / B.
    """
    paths = trace_paths(ue_m, bs_m, ris_m)
    # y-components of the directions at the surfaces: towards the base station and towards the UE.
    to_bs, to_ue = -paths.departure[..., 1:, 1], paths.direction[..., 1:, 1]
    facing = arrival_cosines(paths, rotation)[..., 2]
    return {
        "two of base station, surfaces and UE are at the same place; move one": _coincident(ue_m, bs_m, ris_m),
        "the UE or the base station lies in the plane of a surface (y = const); move one": (
            (to_bs.abs() < GRAZING) | (to_ue.abs() < GRAZING)
        ).any(dim=-1),
        "a surface stands between base station and UE; both must be on the same side of its plane y = const": (
            to_bs * to_ue < 0
        ).any(dim=-1),
        "the base station or a surface is behind the UE's array; turn the UE or move one": (facing < -GRAZING).any(
            dim=-1
        ),
        "the base station or a surface lies in the plane of the UE's array; turn the UE or move one": (
            facing.abs() <= GRAZING
        ).any(dim=-1),
        "the UE lies in the plane of the base station's array (x = const); move one": (
            paths.direction[..., 0, 0].abs() < GRAZING
        ),
        "the delays do not fit into one window c N / B; raise num_subcarriers or lower bandwidth_hz": ~fits_window(
            paths.length_m, window_m
        ),
    }


def geometry_valid(
    ue_m: Float[Tensor, "*batch 3"],
    bs_m: Float[Tensor, "*#batch 3"],
    ris_m: Float[Tensor, "*#batch R 3"],
    rotation: Float[Tensor, "*#batch 3 3"],
    window_m: float,
) -> Bool[Tensor, "*batch"]:
    """Whether the model holds, see ``geometry_faults``."""
    faults = geometry_faults(ue_m, bs_m, ris_m, rotation, window_m)
    return ~torch.stack(list(faults.values())).any(dim=0)


def check_geometry(
    ue_m: Float[Tensor, "*batch 3"],
    bs_m: Float[Tensor, "*#batch 3"],
    ris_m: Float[Tensor, "*#batch R 3"],
    rotation: Float[Tensor, "*#batch 3 3"],
    window_m: float,
) -> None:
    """Refuse a geometry for which the model does not hold, see ``geometry_faults``.

    Raises:
        ValueError: the first fault anywhere in the batch.
    """
    for message, wrong in geometry_faults(ue_m, bs_m, ris_m, rotation, window_m).items():
        if bool(wrong.any()):
            raise ValueError(message)


def fits_window(length_m: Float[Tensor, "*batch L"], window_m: float) -> Bool[Tensor, "*batch"]:
    """Whether the order of the paths survives that delays are known modulo the window only.

    An unknown clock turns all delays on a circle. Cutting it at the largest gap restores their order exactly if that
    gap is the one outside the paths' own spread.

    Args:
        length_m: of every path, without the clock bias.
        window_m: circumference c N / B.
    """
    ordered = length_m.sort(dim=-1).values
    outside = window_m - (ordered[..., -1] - ordered[..., 0])
    return outside > ordered.diff(dim=-1).amax(dim=-1)


def spherical_direction(
    azimuth_rad: Float[Tensor, "*batch"], elevation_rad: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3"]:
    """Unit vector (cos e cos a, cos e sin a, sin e).

    Args:
        azimuth_rad: a, from the x axis.
        elevation_rad: e, from the horizontal plane.
    """
    level = elevation_rad.cos()
    return torch.stack((level * azimuth_rad.cos(), level * azimuth_rad.sin(), elevation_rad.sin()), dim=-1)


def azimuth_elevation(direction: Float[Tensor, "*batch 3"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Azimuth and elevation of unit vectors, radians; the inverse of ``spherical_direction``."""
    return torch.atan2(direction[..., 1], direction[..., 0]), torch.asin(direction[..., 2].clamp(-1.0, 1.0))


def _coincident(ue_m: Tensor, bs_m: Tensor, ris_m: Tensor) -> Tensor:
    batch = np.broadcast_shapes(ue_m.shape[:-1], bs_m.shape[:-1], ris_m.shape[:-2])
    places = torch.cat(
        (ue_m.unsqueeze(-2).expand(*batch, 1, 3), bs_m.unsqueeze(-2).expand(*batch, 1, 3), ris_m.expand(*batch, -1, 3)),
        dim=-2,
    )
    return smallest_distance_m(places) < SMALLEST_DISTANCE_M


def smallest_distance_m(positions_m: Float[Tensor, "*batch M 3"]) -> Float[Tensor, "*batch"]:
    """Distance of the two nearest of M >= 2 positions; infinite for fewer."""
    count = positions_m.shape[-2]
    first, second = torch.triu_indices(count, count, offset=1, device=positions_m.device)
    if not len(first):
        return positions_m.new_full(positions_m.shape[:-2], math.inf)
    between = positions_m[..., first, :] - positions_m[..., second, :]
    return torch.linalg.vector_norm(between, dim=-1).amin(dim=-1)


def _cosines(direction: Tensor, axes: tuple[tuple[float, ...], ...]) -> Tensor:
    return direction @ torch.tensor(axes, dtype=direction.dtype, device=direction.device).mT


def _turn(angle_rad: Tensor, axis: int) -> Tensor:
    """Rotation matrix about a coordinate axis."""
    cos, sin = angle_rad.cos(), angle_rad.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    # Cyclic order of the other two axes, so that one pattern serves all three.
    i, j = (axis + 1) % 3, (axis + 2) % 3
    entries = {(axis, axis): one, (i, i): cos, (i, j): -sin, (j, i): sin, (j, j): cos}
    rows = [torch.stack([entries.get((row, column), zero) for column in range(3)], dim=-1) for row in range(3)]
    return torch.stack(rows, dim=-2)
