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
_FAULTY = [0, 1, 1]
"""Whether an AP with one of the biases is."""
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

    Axes before [B, M, K]: T turns of the array, F biases of its powers, C conditions of the link (line of sight, off to
    one side, off to the other). The states come first, so that sums over them run along neighbouring links.

    Attributes:
        power_db: of the received power.
        power_std_db: its standard deviation.
        bearing_rad: of the bearing, in the direction in which the signed angle grows.
        bearing_std_rad: its standard deviation, of a sound AP and of a faulty one: whichever way the powers of that are
            biased.
        log_prior: of states of the AP.
        log_condition: of conditions of the link.
        usable: links that count.
    """

    power_db: Float[Tensor, "1 F C B M K"]
    power_std_db: Float[Tensor, "B M K"]
    bearing_rad: Float[Tensor, "T 1 C B M K"]
    bearing_std_rad: Float[Tensor, "1 2 C B M K"]
    log_prior: Float[Tensor, "T F"]
    log_condition: Float[Tensor, " C"]
    usable: Bool[Tensor, "B M K"]

    def responsibilities(self) -> tuple[Float[Tensor, "T F C B M K"], Float[Tensor, " B"]]:
        """Probability of every state of AP and link given all users, and the log-likelihood."""
        of_power = self.log_condition[:, None, None, None] + log_student(self.power_db, self.power_std_db, POWER_NU)
        of_bearing = log_student(self.bearing_rad, self.bearing_std_rad, BEARING_NU)
        density = of_power + of_bearing[:, _FAULTY]
        # One exponential serves the sum over the conditions and their shares.
        largest = density.amax(dim=2, keepdim=True)
        chance = torch.exp(density - largest)
        total = chance.sum(dim=2, keepdim=True)
        # Of a link that does not count the density is 1 whatever its condition.
        link = torch.where(self.usable, (largest + torch.log(total)).squeeze(2), 0.0)
        state = (self.log_prior[..., None, None] + link.sum(dim=-1)).flatten(0, 1)
        evidence = torch.logsumexp(state, dim=0)
        share = torch.softmax(state, dim=0).unflatten(0, self.log_prior.shape).unsqueeze(-1) * self.usable
        return chance * (share.unsqueeze(2) / total), evidence.sum(dim=1)

    @staticmethod
    def by_fault(share: Float[Tensor, "T F C B M K"]) -> Float[Tensor, "T 2 C B M K"]:
        """The same of a sound AP and of a faulty one."""
        return torch.stack((share[:, 0], share[:, 1:].sum(dim=1)), dim=1)


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

    def states(values: list[float] | Tensor, axis: int) -> Tensor:
        """Numbers along one of the axes T, F, C."""
        shape = [1] * 6
        shape[axis] = len(values)
        return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(shape)

    bias = states([0.0, laws.bias_db, -laws.bias_db], 1)
    lost = states([0.0, laws.nlos_loss_db, laws.nlos_loss_db], 2)
    power = (rss_dbm - expected_dbm) - bias + lost
    middle = math.radians(0.5 * (laws.nlos_offset_min_deg + laws.nlos_offset_max_deg))
    width = math.radians(laws.nlos_offset_max_deg - laws.nlos_offset_min_deg) / math.sqrt(12.0)
    detour = states([0.0, middle, -middle], 2)
    turns = torch.linspace(-1.0, 1.0, _TURNS, device=like.device, dtype=like.dtype)
    # An array that is turned to the left sees everything farther to the right.
    turn = states(-math.radians(laws.array_offset_deg) * turns, 0)
    signed = links.angle_rad + turn + detour
    signed = torch.remainder(signed + math.pi, 2.0 * math.pi) - math.pi
    side = 1.0 - 2.0 * (signed < 0).to(like.dtype)
    bearing = side * (bearing_rad - signed.abs())
    of_fault = states([0.0, math.radians(laws.faulty_bearing_deg)], 1).square()
    of_detour = states([0.0, width, width], 2).square()
    std = torch.sqrt(bearing_std_rad.square() + of_fault + of_detour)
    share, nlos = laws.faulty_share, laws.nlos_share
    faults = like.new_tensor([1.0 - share, share / 2.0, share / 2.0]).clamp(min=_TINY).log()
    conditions = like.new_tensor([1.0 - nlos, nlos / 2.0, nlos / 2.0]).clamp(min=_TINY).log()
    prior = faults.expand(_TURNS, _BIASES) - math.log(_TURNS)
    return Residuals(power, rss_std_db, bearing, std, prior, conditions, usable)


def robust_precision(residual: Tensor, scale: Tensor, nu: float) -> Tensor:
    """Weight of a squared residual in the step of a Student-t fit, one over variance."""
    return student_weight(residual / scale, nu) / scale.square()
