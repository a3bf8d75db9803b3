"""Geometry of the links between APs and points; each quantity is computed when first used."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.geometry import nearest_image
from cfpos_envs.physics.lazy import lazy

MIN_DISTANCE_M = 0.5
"""Horizontal distances are kept above this where a direction is divided by them: at the AP's foot there is none."""

_MIN_SLANT_M = 0.1


@dataclass(frozen=True)
class Links:
    """Displacements from APs to points and what follows from them; all tensors broadcast to one shape.

    With e the unit vector of the array axis and d the horizontal displacement, the angle to the axis is
    theta = atan2(e x d, e . d), in [-pi, pi]. A ULA measures |theta| only.

    Attributes:
        x_m, y_m: horizontal displacement from AP to point, metres.
        height_square_m2: squared height difference.
        axis_x, axis_y: unit vector of the array axis.
    """

    x_m: Tensor
    y_m: Tensor
    height_square_m2: Tensor
    axis_x: Tensor
    axis_y: Tensor

    @lazy
    def ground_square_m2(self) -> Tensor:
        """Squared horizontal distance."""
        return torch.addcmul(self.x_m * self.x_m, self.y_m, self.y_m)

    @lazy
    def slant_square_m2(self) -> Tensor:
        """Squared slant distance, kept above (0.1 m)^2."""
        return (self.ground_square_m2 + self.height_square_m2).clamp(min=_MIN_SLANT_M**2)

    @lazy
    def distance_3d_m(self) -> Tensor:
        """Slant distance."""
        return self.slant_square_m2.sqrt()

    @lazy
    def distance_m(self) -> Tensor:
        """Horizontal distance, kept above ``MIN_DISTANCE_M``."""
        return self.ground_square_m2.clamp(min=MIN_DISTANCE_M**2).sqrt()

    @lazy
    def unit(self) -> Tensor:
        """[..., 2] horizontal unit vector from AP to point; shorter than one within ``MIN_DISTANCE_M`` of the AP."""
        return torch.stack((self.x_m, self.y_m), dim=-1) / self.distance_m.unsqueeze(-1)

    @lazy
    def azimuth_rad(self) -> Tensor:
        """Azimuth of the point seen from the AP, counter-clockwise from +x, in [-pi, pi]."""
        return torch.atan2(self.y_m, self.x_m)

    @lazy
    def along_m(self) -> Tensor:
        """E . d: displacement along the array axis."""
        return torch.addcmul(self.x_m * self.axis_x, self.y_m, self.axis_y)

    @lazy
    def across_m(self) -> Tensor:
        """E x d: displacement to the left of the array axis."""
        return torch.addcmul(self.y_m * self.axis_x, self.x_m, self.axis_y, value=-1)

    @lazy
    def angle_rad(self) -> Tensor:
        """theta, signed angle to the array axis, in [-pi, pi]."""
        return torch.atan2(self.across_m, self.along_m)

    @lazy
    def folded_rad(self) -> Tensor:
        """|theta| in [0, pi]: what a ULA can measure."""
        return torch.atan2(self.across_m.abs(), self.along_m)


def link_geometry(
    ap_positions_m: Float[Tensor, "*batch M 2"],
    ap_orientation_rad: Float[Tensor, "*batch M"],
    height_diff_m: Float[Tensor, "*batch M"],
    points_m: Float[Tensor, "*batch P 2"],
    side_m: float,
    wrap: bool,
) -> Links:
    """Links from every AP to every point, shape [..., M, P] (metres, radians).

    Args:
        ap_positions_m, ap_orientation_rad, height_diff_m: the site; direction of the array axis, AP minus UE height.
        points_m: hypothesised positions.
        side_m, wrap: the area; nearest image on the torus.
    """
    origins, points = ap_positions_m.unsqueeze(-2), points_m.unsqueeze(-3)
    orientation = ap_orientation_rad.unsqueeze(-1)
    # Coordinates on their own lie densely in memory, which is what vector units want.
    return Links(
        x_m=nearest_image(points[..., 0].contiguous() - origins[..., 0], side_m, wrap),
        y_m=nearest_image(points[..., 1].contiguous() - origins[..., 1], side_m, wrap),
        height_square_m2=height_diff_m.square().unsqueeze(-1),
        axis_x=torch.cos(orientation),
        axis_y=torch.sin(orientation),
    )
