"""Measured minus predicted RSS and bearing at a hypothesised point, and their fusion into a step towards the user.

The game ``dcp-jar-v0`` and the estimator ``joint-gn`` share these functions: the game's neutral action is one robust
Gauss-Newton step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements import RadioModel
from cfpos_envs.physics.arrays import read_profile
from cfpos_envs.physics.channel import watts_to_dbm
from cfpos_envs.physics.geometry import displacement, into_area, polar, wrap_angle
from cfpos_envs.physics.propagation import distance_from_gain, path_gain_db

MIN_DISTANCE_M = 0.5
"""Horizontal distances are kept above this where a direction is divided by them: at the AP's foot there is none."""

BEARING_SCALE_RAD = 0.03
BEARING_SCALE_ENDFIRE_RAD = 0.01
RSS_SCALE_FLOOR_DB = 0.3
STUDENT_NU = 4.0


@dataclass(frozen=True)
class Links:
    """Geometry between M APs and P points.

    Attributes:
        distance_m, distance_3d_m: [..., M, P] horizontal and slant.
        unit: [..., M, P, 2] horizontal unit vector from AP to point.
        azimuth_rad: [..., M, P] its azimuth.
        angle_rad: [..., M, P] signed angle to the array axis, in [-pi, pi).
    """

    distance_m: Tensor
    distance_3d_m: Tensor
    unit: Tensor
    azimuth_rad: Tensor
    angle_rad: Tensor


def link_geometry(
    ap_positions_m: Float[Tensor, "*batch M 2"],
    ap_orientation_rad: Float[Tensor, "*batch M"],
    height_diff_m: Float[Tensor, "*batch M"],
    points_m: Float[Tensor, "*batch P 2"],
    side_m: float,
    wrap: bool,
) -> Links:
    """Distances, directions and array angles from every AP to every point (metres, radians)."""
    vectors = displacement(ap_positions_m, points_m, side_m, wrap)
    distance, azimuth = polar(vectors)
    safe = distance.clamp(min=MIN_DISTANCE_M)
    return Links(
        distance_m=safe,
        distance_3d_m=torch.sqrt(vectors.square().sum(dim=-1) + height_diff_m.unsqueeze(-1).square()).clamp(min=0.1),
        unit=vectors / safe.unsqueeze(-1),
        azimuth_rad=azimuth,
        angle_rad=wrap_angle(azimuth - ap_orientation_rad.unsqueeze(-1)),
    )


def predicted_rss_dbm(radio: RadioModel, links: Links, shadowing_db: Tensor | None = None) -> Tensor:
    """Expected RSS L p tau_p beta + L sigma^2 (eq. 4 plus the estimate's noise), dBm, for [..., M, P] links."""
    gain_db = path_gain_db(links.distance_3d_m, radio.path_loss_intercept_db, radio.path_loss_slope_db)
    if shadowing_db is not None:
        gain_db = gain_db + shadowing_db
    signal_w = radio.num_antennas * radio.tx_power_w * radio.num_pilots * torch.pow(10.0, gain_db / 10.0)
    return watts_to_dbm(signal_w + radio.num_antennas * radio.noise_power_w)


def distance_from_rss(radio: RadioModel, rss_dbm: Tensor, height_diff_m: Tensor) -> Tensor:
    """Horizontal distance (m) that explains the RSS by path loss alone; 0 where the RSS is stronger than overhead."""
    scale_w = radio.num_antennas * radio.tx_power_w * radio.num_pilots
    signal_w = torch.pow(10.0, (rss_dbm - 30.0) / 10.0) - radio.num_antennas * radio.noise_power_w
    # Below the noise floor the distance is unknown: a thousandth of the noise stands for "far away".
    signal_w = torch.maximum(signal_w, torch.full_like(signal_w, 1e-3 * radio.num_antennas * radio.noise_power_w))
    gain_db = 10.0 * torch.log10(signal_w / scale_w)
    slant = distance_from_gain(gain_db, radio.path_loss_intercept_db, radio.path_loss_slope_db)
    return torch.sqrt((slant.square() - height_diff_m.unsqueeze(-1).square()).clamp(min=0.0))


def rss_slope_db_per_m(radio: RadioModel, links: Links) -> Tensor:
    """Slope d RSS / d (horizontal distance) = -(slope / ln 10) d / d3D^2, dB per metre (negative)."""
    return -(radio.path_loss_slope_db / math.log(10.0)) * links.distance_m / links.distance_3d_m.square()


def bearing_residuals(bearing_rad: Tensor, angle_rad: Tensor) -> tuple[Tensor, Tensor]:
    """Measured minus hypothesised bearing, for the measured bearing and for its mirror image.

    A ULA measures |theta| only; the hypothesised point decides the side.

    Args:
        bearing_rad: measured, in [0, pi].
        angle_rad: of the hypothesised point, signed, in [-pi, pi).

    Returns:
        (residual, residual of the mirrored bearing), both in [-pi, pi).
    """
    signed = torch.where(angle_rad >= 0, bearing_rad, -bearing_rad)
    return wrap_angle(signed - angle_rad), wrap_angle(-signed - angle_rad)


def nominal_bearing_scale(bearing_rad: Tensor) -> Tensor:
    """Scale of bearing errors, 0.03 + 0.01 / |sin theta| rad: worse towards the array axis."""
    sine = torch.sin(bearing_rad).abs().clamp(min=0.05)
    return BEARING_SCALE_RAD + BEARING_SCALE_ENDFIRE_RAD / sine


def student_weight(z: Tensor) -> Tensor:
    """Weight of a residual of z standard deviations under Student-t errors with nu = 4: (nu + 1) / (nu + z^2)."""
    return (STUDENT_NU + 1.0) / (STUDENT_NU + z.square())


def information_step(
    unit: Float[Tensor, "*batch M K 2"],
    weight_radial: Float[Tensor, "*batch M K"],
    weight_tangential: Float[Tensor, "*batch M K"],
    delta_radial_m: Float[Tensor, "*batch M K"],
    delta_tangential_m: Float[Tensor, "*batch M K"],
    mask: Bool[Tensor, "*batch M K"] | None = None,
    ridge: float = 1e-3,
    max_step_m: float = 5.0,
) -> tuple[Float[Tensor, "*batch K 2"], Normal]:
    """Weighted least-squares step (sum w_r uu' + w_t vv' + ridge I)^-1 sum (w_r d_r u + w_t d_t v), clamped in length.

    Args:
        unit: radial unit vectors u; v is u turned by +90 degrees.
        weight_radial, weight_tangential: information in 1/m^2, >= 0.
        delta_radial_m, delta_tangential_m: displacements that each AP asks for.
        mask: APs that take part.
        ridge: keeps the matrix regular, 1/m^2.
        max_step_m: longest step.

    Returns:
        (step, the normal equations' sums, for covariance and leave-one-out steps).
    """
    if mask is not None:
        weight_radial, weight_tangential = weight_radial * mask, weight_tangential * mask
    terms = normal_terms(unit, weight_radial, weight_tangential, delta_radial_m, delta_tangential_m)
    sums = Normal(*(term.sum(dim=-2) for term in terms.parts()))
    return clamp_length(sums.solve(ridge), max_step_m), sums


@dataclass(frozen=True)
class Normal:
    """2 x 2 normal equations [[xx, xy], [xy, yy]] p = (x, y), any leading shape."""

    xx: Tensor
    xy: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor

    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The five sums."""
        return self.xx, self.xy, self.yy, self.x, self.y

    def solve(self, ridge: float) -> Tensor:
        """[..., 2] solution with ``ridge`` added to the diagonal."""
        xx, yy = self.xx + ridge, self.yy + ridge
        determinant = xx * yy - self.xy.square()
        first = (yy * self.x - self.xy * self.y) / determinant
        second = (xx * self.y - self.xy * self.x) / determinant
        return torch.stack((first, second), dim=-1)

    def covariance(self, ridge: float) -> Tensor:
        """[..., 2, 2] inverse of the matrix."""
        xx, yy = self.xx + ridge, self.yy + ridge
        determinant = xx * yy - self.xy.square()
        rows = (torch.stack((yy, -self.xy), dim=-1), torch.stack((-self.xy, xx), dim=-1))
        return torch.stack(rows, dim=-2) / determinant[..., None, None]

    def without(self, terms: Normal, substitute: Normal) -> Normal:
        """Per AP: the sums with that AP's ``terms`` [..., M, K] exchanged for ``substitute``."""
        triples = zip(self.parts(), terms.parts(), substitute.parts(), strict=True)
        return Normal(*(total.unsqueeze(-2) - term + other for total, term, other in triples))


def normal_terms(
    unit: Tensor, weight_radial: Tensor, weight_tangential: Tensor, delta_radial_m: Tensor, delta_tangential_m: Tensor
) -> Normal:
    """Each AP's contribution to the normal equations, [..., M, K]."""
    ux, uy = unit[..., 0], unit[..., 1]
    pull_radial, pull_tangential = weight_radial * delta_radial_m, weight_tangential * delta_tangential_m
    return Normal(
        xx=weight_radial * ux * ux + weight_tangential * uy * uy,
        xy=(weight_radial - weight_tangential) * ux * uy,
        yy=weight_radial * uy * uy + weight_tangential * ux * ux,
        x=pull_radial * ux - pull_tangential * uy,
        y=pull_radial * uy + pull_tangential * ux,
    )


def clamp_length(vectors: Tensor, longest: float) -> Tensor:
    """Vectors shortened to at most ``longest``."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * (longest / length.clamp(min=longest))


def rss_weighted_centroid(
    ap_positions_m: Float[Tensor, "*batch M 2"],
    rss_dbm: Float[Tensor, "*batch M K"],
    side_m: float,
    wrap: bool,
    mask: Bool[Tensor, "*batch M K"] | None = None,
) -> Float[Tensor, "*batch K 2"]:
    """Mean of the AP positions weighted by linear RSS, taken around the strongest AP so that it is defined on a torus.

    Args:
        ap_positions_m: metres.
        rss_dbm: received powers; at least one finite per UE.
        side_m, wrap: the area.
        mask: APs that take part.
    """
    if mask is not None:
        rss_dbm = torch.where(mask, rss_dbm, torch.full_like(rss_dbm, -torch.inf))
    strongest = rss_dbm.argmax(dim=-2)
    anchor = torch.gather(ap_positions_m, -2, strongest.unsqueeze(-1).expand(*strongest.shape, 2))
    weights = torch.softmax(rss_dbm * (math.log(10.0) / 10.0), dim=-2)
    offsets = displacement(anchor, ap_positions_m, side_m, wrap)
    return into_area(anchor + torch.einsum("...mk,...kmc->...kc", weights, offsets), side_m, wrap)


def coarse_joint_scores(
    rss_dbm: Float[Tensor, "*batch M K"],
    profile: Float[Tensor, "*batch M K A"] | None,
    predicted_dbm: Float[Tensor, "*batch M P"],
    angle_rad: Float[Tensor, "*batch M P"],
    rss_scale_db: float | None,
    mask: Bool[Tensor, "*batch M K"] | None = None,
    aoa_scale: float = 0.03,
) -> Float[Tensor, "*batch K P"]:
    """Score of P candidate points: sum_m -log(1 + (dB difference / scale)^2) - log(1 + (1 - Xi^a_m) / 0.03).

    Args:
        rss_dbm: measured RSS.
        profile: angle profile of each link (``arrays.angle_profile``); None leaves the AOA term out.
        predicted_dbm, angle_rad: predicted RSS and array angle at the candidates.
        rss_scale_db: scale of the RSS residual (1 without, 4.2 with 4 dB unknown shadowing); None leaves the term out.
        mask: APs that take part.
        aoa_scale: scale of 1 - cosine similarity.
    """
    num_ues = rss_dbm.shape[-1]
    columns = []
    for k in range(num_ues):  # one UE at a time keeps the [M, P] temporaries in cache
        score = torch.zeros_like(predicted_dbm)
        if rss_scale_db is not None:
            difference = (rss_dbm[..., k].unsqueeze(-1) - predicted_dbm) / rss_scale_db
            score = score - torch.log1p(difference.square())
        if profile is not None:
            logs = -torch.log1p((1.0 - profile[..., k, :]).clamp(min=0.0) / aoa_scale)
            nearest = (angle_rad.abs() * ((profile.shape[-1] - 1) / math.pi)).round().long()
            score = score + torch.gather(logs, -1, nearest)
        if mask is not None:
            score = score * mask[..., k].unsqueeze(-1)
        columns.append(score.sum(dim=-2))
    return torch.stack(columns, dim=-2)


def profile_at(profile: Float[Tensor, "*batch M K A"], angle_rad: Float[Tensor, "*batch M K"]) -> Tensor:
    """Per-AP cosine similarity at hypothesised points, [..., M, K], differentiable."""
    return read_profile(profile, angle_rad)
