"""What may be wrong with an access point or a link, and how likely its measurements are then.

An AP has one bias of its powers, one error of its array's direction, and is faulty or not; these hold for all its
users. A link is in line of sight or not. Sums over all of these, an AP's states weighed by all its users, need no
labels: they are the likelihood that ``joint-em`` climbs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.physics.dcp.links import Links
from cfpos_envs.physics.robust import student_weight
from cfpos_envs.scenarios.dcp.sites import SITE_PRESETS, DcpSiteConfig

_HARD, _LIMITS = SITE_PRESETS["hard"], DcpSiteConfig.all_ranges()
_OF_SITE = {
    "faulty_share": "biased_share",
    "faulty_bearing_deg": "bearing_noise_deg",
    **{
        name: name
        for name in (
            "bias_db", "array_offset_deg", "nlos_share", "nlos_loss_db", "nlos_offset_min_deg", "nlos_offset_max_deg",
        )
    },
}  # fmt: skip
"""Field here -> field of the site that draws it."""
_BIASES = 3
_TURNS = 7
"""Directions of an array that are tried, evenly over the range of its error."""
_TINY = 1e-9
POWER_NU, BEARING_NU = 50.0, 4.0
"""Degrees of freedom: what spoils powers has states of its own, so that the rest is nearly Gaussian; peaks of spectra
have tails."""


@dataclass(frozen=True)
class FaultLaws(Declared):
    """What may be wrong, and how often; the defaults are the laws of the site preset ``hard``.

    Attributes:
        faulty_share: of APs whose powers are biased and whose bearings are noisy.
        bias_db: of a faulty AP's powers, up or down, dB.
        faulty_bearing_deg: standard deviation that a faulty AP's bearings have beside that of a sound one, degrees.
        array_offset_deg: largest error of an array's direction, uniform up to it on both sides, degrees.
        nlos_share: of links without a line of sight.
        nlos_loss_db: what such a link loses, dB.
        nlos_offset_min_deg, nlos_offset_max_deg: how far its bearing is off, to either side, degrees.
    """

    ranges: ClassVar[Mapping[str, Range]] = {name: _LIMITS[site] for name, site in _OF_SITE.items()}

    faulty_share: float = _HARD.biased_share
    bias_db: float = _HARD.bias_db
    faulty_bearing_deg: float = _HARD.bearing_noise_deg
    array_offset_deg: float = _HARD.array_offset_deg
    nlos_share: float = _HARD.nlos_share
    nlos_loss_db: float = _HARD.nlos_loss_db
    nlos_offset_min_deg: float = _HARD.nlos_offset_min_deg
    nlos_offset_max_deg: float = _HARD.nlos_offset_max_deg

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nlos_offset_max_deg < self.nlos_offset_min_deg:
            raise ValueError(
                f"nlos_offset_max_deg={self.nlos_offset_max_deg:g} must be at least nlos_offset_min_deg="
                f"{self.nlos_offset_min_deg:g}."
            )


@dataclass(frozen=True)
class Residuals:
    """Measured minus expected at the present points, for every state of an AP and a link.

    Axes after [B, M, K]: T turns of the array, F biases of its powers, C conditions of the link (line of sight, off to
    one side, off to the other).

    Attributes:
        power_db: of the received power.
        power_std_db: its standard deviation.
        bearing_rad: of the bearing, in the direction in which the signed angle grows.
        bearing_std_rad: its standard deviation.
        log_prior: of states of the AP.
        log_condition: of conditions of the link.
        usable: links that count.
    """

    power_db: Float[Tensor, "B M K 1 F C"]
    power_std_db: Float[Tensor, "B M K 1 1 1"]
    bearing_rad: Float[Tensor, "B M K T 1 C"]
    bearing_std_rad: Float[Tensor, "B M K 1 F C"]
    log_prior: Float[Tensor, "T F"]
    log_condition: Float[Tensor, " C"]
    usable: Bool[Tensor, "B M K"]

    def responsibilities(self) -> tuple[Float[Tensor, "B M K T F C"], Float[Tensor, " B"]]:
        """Probability of every state of AP and link given all users, and the log-likelihood."""
        density = self.log_condition + log_student(self.power_db, self.power_std_db, POWER_NU)
        density = density + log_student(self.bearing_rad, self.bearing_std_rad, BEARING_NU)
        density = torch.where(self.usable[..., None, None, None], density, 0.0)
        link = torch.logsumexp(density, dim=-1)
        # Of a link that does not count the density is 1 whatever its condition: its sum is not.
        link = torch.where(self.usable[..., None, None], link, 0.0)
        state = self.log_prior + link.sum(dim=2)
        evidence = torch.logsumexp(state.flatten(2), dim=-1)
        share = torch.softmax(state.flatten(2), dim=-1).view_as(state)
        weight = share[:, :, None, :, :, None] * torch.softmax(density, dim=-1)
        return weight * self.usable[..., None, None, None], evidence.sum(dim=1)


def log_student(residual: Tensor, scale: Tensor, nu: float) -> Tensor:
    """Log-density of a residual under Student-t errors, up to a constant."""
    return -0.5 * (nu + 1.0) * torch.log1p((residual / scale).square() / nu) - torch.log(scale)


def residuals_at(
    laws: FaultLaws,
    links: Links,
    rss_dbm: Float[Tensor, "B M K"],
    expected_dbm: Float[Tensor, "B M K"],
    rss_std_db: Float[Tensor, "B M K"],
    bearing_rad: Float[Tensor, "B M K"],
    bearing_std_rad: Float[Tensor, "B M K"],
    usable: Bool[Tensor, "B M K"],
) -> Residuals:
    """Residuals of all states at the points to which ``links`` lead.

    Args:
        laws: what may be wrong.
        links: from every AP to the point of every user.
        rss_dbm, expected_dbm, rss_std_db: power as measured and as expected of a sound AP in line of sight, and its
            deviation.
        bearing_rad, bearing_std_rad: measured to the array's axis, in [0, pi], and its deviation.
        usable: links that count.
    """
    like = rss_dbm
    bias = like.new_tensor([0.0, laws.bias_db, -laws.bias_db]).view(_BIASES, 1)
    lost = like.new_tensor([0.0, laws.nlos_loss_db, laws.nlos_loss_db])
    power = (rss_dbm - expected_dbm)[..., None, None, None] - bias + lost
    middle = math.radians(0.5 * (laws.nlos_offset_min_deg + laws.nlos_offset_max_deg))
    width = math.radians(laws.nlos_offset_max_deg - laws.nlos_offset_min_deg) / math.sqrt(12.0)
    detour = like.new_tensor([0.0, middle, -middle])
    turns = torch.linspace(-1.0, 1.0, _TURNS, device=like.device, dtype=like.dtype)
    # An array that is turned to the left sees everything farther to the right.
    turn = -math.radians(laws.array_offset_deg) * turns.view(_TURNS, 1, 1)
    signed = links.angle_rad[..., None, None, None] + turn + detour
    signed = torch.remainder(signed + math.pi, 2.0 * math.pi) - math.pi
    side = 1.0 - 2.0 * (signed < 0).to(like.dtype)
    bearing = side * (bearing_rad[..., None, None, None] - signed.abs())
    noisy = math.radians(laws.faulty_bearing_deg)
    of_fault = like.new_tensor([0.0, noisy, noisy]).view(_BIASES, 1).square()
    of_detour = like.new_tensor([0.0, width, width]).square()
    std = torch.sqrt(bearing_std_rad.square()[..., None, None, None] + of_fault + of_detour)
    share, nlos = laws.faulty_share, laws.nlos_share
    faults = like.new_tensor([1.0 - share, share / 2.0, share / 2.0]).clamp(min=_TINY).log()
    conditions = like.new_tensor([1.0 - nlos, nlos / 2.0, nlos / 2.0]).clamp(min=_TINY).log()
    prior = faults.expand(_TURNS, _BIASES) - math.log(_TURNS)
    return Residuals(power, rss_std_db[..., None, None, None], bearing, std, prior, conditions, usable)


def robust_precision(residual: Tensor, scale: Tensor, nu: float) -> Tensor:
    """Weight of a squared residual in the step of a Student-t fit, one over variance."""
    return student_weight(residual / scale, nu) / scale.square()
