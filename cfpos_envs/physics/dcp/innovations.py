"""Measured minus predicted RSS and bearing at a hypothesised point, and their fusion into a step towards the user.

The game ``dcp-jar-v0`` and the estimator ``joint-gn`` share these functions: the game's neutral action is one robust
Gauss-Newton step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.dcp.links import Links
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import displacement, into_area
from cfpos_envs.physics.propagation import distance_from_gain

NEPERS_PER_DECADE = math.log(10.0)
BEARING_SCALE_RAD = 0.03
BEARING_SCALE_ENDFIRE_RAD = 0.01
RSS_SCALE_FLOOR_DB = 0.3
READ_SCALE_FLOOR_DB = 0.1
"""Where a front end reads powers better than they are measured."""
COARSE_AOA_SCALE = 0.03
_LARGEST_DEGREE = 3


def predicted_rss_dbm(radio: RadioModel, links: Links, shadowing_db: Tensor | None = None) -> Tensor:
    """Expected RSS L p tau_p beta + L sigma^2 (eq. 4 plus the estimate's noise), dBm, in the shape of ``links``.

    In nepers of the squared slant distance, so that a logarithm, an exponential and a logarithm are all it takes:
    RSS = S(d^2) + (10 / ln 10) ln(1 + N / S), S the signal's part.
    """
    signal_db = signal_at_one_metre_dbm(radio) - 0.5 * radio.path_loss_slope_db / NEPERS_PER_DECADE * torch.log(
        links.slant_square_m2
    )
    if shadowing_db is not None:
        signal_db = signal_db + shadowing_db
    noise_dbm = 10.0 * math.log10(radio.num_antennas * radio.noise_power_w) + 30.0
    ratio = torch.exp((noise_dbm - signal_db) * (NEPERS_PER_DECADE / 10.0))
    return signal_db + (10.0 / NEPERS_PER_DECADE) * torch.log(1.0 + ratio)


def signal_at_one_metre_dbm(radio: RadioModel) -> float:
    """RSS without noise at a slant distance of 1 m: 10 log10(L p tau_p / 1 mW) + intercept."""
    power_w = radio.num_antennas * radio.tx_power_w * radio.num_pilots
    return 10.0 * math.log10(power_w) + 30.0 + radio.path_loss_intercept_db


@dataclass(frozen=True)
class RssLaw:
    """``predicted_rss_dbm`` without shadowing for very many links: one logarithm and a few products each.

    What the noise adds to the RSS, (10 / ln 10) ln(1 + N / S(d^2)), is smooth and, where the SNR is high, tiny. It is
    then replaced by a polynomial in d^2 that is right to ``tolerance_db`` up to the largest distance; else not.

    Attributes:
        at_one_metre_dbm, slope_db: of the signal: at_one_metre - slope / 2 * log10(d^2).
        coefficients: of 1, d^2, d^4, .. in dB; None: no short polynomial is good enough, the formula is used.
        noise_dbm: noise power over all antennas.
    """

    at_one_metre_dbm: float
    slope_db: float
    noise_dbm: float
    coefficients: tuple[float, ...] | None

    @classmethod
    def of(cls, radio: RadioModel, largest_slant_m: float, tolerance_db: float = 1e-5) -> RssLaw:
        """The law of a radio for slant distances up to ``largest_slant_m``."""
        signal = signal_at_one_metre_dbm(radio)
        noise_dbm = 10.0 * math.log10(radio.num_antennas * radio.noise_power_w) + 30.0
        share = np.linspace(0.0, 1.0, 2001)
        slant_square = np.maximum(share * largest_slant_m**2, 1e-2)
        snr_db = signal - 0.5 * radio.path_loss_slope_db * np.log10(slant_square) - noise_dbm
        correction_db = 10.0 * np.log1p(np.power(10.0, -snr_db / 10.0)) / NEPERS_PER_DECADE
        for degree in range(_LARGEST_DEGREE + 1):
            fitted = np.polynomial.Chebyshev.fit(share, correction_db, degree, domain=[0.0, 1.0])
            if np.abs(fitted(share) - correction_db).max() <= tolerance_db:
                powers = fitted.convert(kind=np.polynomial.Polynomial, domain=[-1.0, 1.0]).coef
                scaled = tuple(float(value) / largest_slant_m ** (2 * n) for n, value in enumerate(powers))
                return cls(signal, radio.path_loss_slope_db, noise_dbm, scaled)
        return cls(signal, radio.path_loss_slope_db, noise_dbm, None)

    def residual_db(self, measured_dbm: Tensor, slant_square_m2: Tensor) -> Tensor:
        """Measured minus predicted RSS, dB."""
        slope = 0.5 * self.slope_db / NEPERS_PER_DECADE
        logs = torch.log(slant_square_m2)
        above_signal = torch.add(measured_dbm - self.at_one_metre_dbm, logs, alpha=slope)
        if self.coefficients is None:
            noise_over_signal = torch.exp(
                (logs * slope + (self.noise_dbm - self.at_one_metre_dbm)) * (NEPERS_PER_DECADE / 10)
            )
            return torch.sub(above_signal, torch.log(1.0 + noise_over_signal), alpha=10.0 / NEPERS_PER_DECADE)
        correction: Tensor | float = self.coefficients[-1]
        for coefficient in self.coefficients[-2::-1]:
            correction = correction * slant_square_m2 + coefficient
        return above_signal - correction

    def slope_db_per_m2(self, slant_square_m2: Tensor) -> Tensor:
        """Derivative of the predicted RSS by the squared slant distance, dB/m^2 (negative)."""
        slope = 0.5 * self.slope_db / NEPERS_PER_DECADE
        of_signal = -slope / slant_square_m2
        if self.coefficients is None:
            signal_over_noise_db = (self.at_one_metre_dbm - self.noise_dbm) - slope * torch.log(slant_square_m2)
            return of_signal * torch.sigmoid(signal_over_noise_db * (NEPERS_PER_DECADE / 10))
        correction = torch.zeros_like(of_signal)
        for power in range(len(self.coefficients) - 1, 0, -1):
            correction = correction * slant_square_m2 + power * self.coefficients[power]
        return of_signal + correction


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
    return -(radio.path_loss_slope_db / NEPERS_PER_DECADE) * links.distance_m / links.slant_square_m2


def bearing_residuals(bearing_rad: Tensor, links: Links) -> tuple[Tensor, Tensor]:
    """Measured minus hypothesised bearing, for the measured bearing and for its mirror image.

    A ULA measures |theta| only; the hypothesised point decides the side.

    Args:
        bearing_rad: measured, in [0, pi].
        links: to the hypothesised points.

    Returns:
        (residual, residual of the mirrored bearing), both in [-pi, pi].
    """
    # On the array axis itself both sides are the same; the left one is taken.
    side = 1.0 - 2.0 * (links.across_m < 0).to(bearing_rad)
    apart = bearing_rad + links.folded_rad
    around = apart - 2.0 * math.pi * (apart > math.pi).to(apart)
    return side * (bearing_rad - links.folded_rad), -side * around


def nominal_bearing_scale(bearing_rad: Tensor) -> Tensor:
    """Scale of bearing errors, 0.03 + 0.01 / |sin theta| rad: worse towards the array axis."""
    sine = torch.sin(bearing_rad).abs().clamp(min=0.05)
    return BEARING_SCALE_RAD + BEARING_SCALE_ENDFIRE_RAD / sine


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
    aoa_scale: float = COARSE_AOA_SCALE,
) -> Float[Tensor, "*batch K P"]:
    """Score of P candidate points: sum_m -log(1 + (dB difference / scale)^2) - log(1 + (1 - Xi^a_m) / 0.03).

    Args:
        rss_dbm: measured RSS.
        profile: angle profile of each link (``arrays.angle_profile``); None leaves the AOA term out.
        predicted_dbm, angle_rad: predicted RSS and array angle at the candidates.
        rss_scale_db: scale of the RSS residual (1 without, 4.2 with 4 dB unknown shadowing); None leaves the term out.
        mask: APs that take part; None: all.
        aoa_scale: scale of 1 - cosine similarity.
    """
    columns = []
    if profile is not None:
        # The logarithm of a profile entry is taken before it is looked up at many candidates.
        logs = -torch.log((1.0 - profile).clamp(min=0.0) * (1.0 / aoa_scale) + 1.0)
        nearest = (angle_rad.abs() * ((profile.shape[-1] - 1) / math.pi)).round().long()
    for k in range(rss_dbm.shape[-1]):  # one UE at a time keeps the [M, P] temporaries in cache
        terms = []
        if rss_scale_db is not None:
            scaled = (rss_dbm[..., k].unsqueeze(-1) - predicted_dbm) * (1.0 / rss_scale_db)
            terms.append(-torch.log(torch.addcmul(torch.ones_like(scaled), scaled, scaled)))
        if profile is not None:
            terms.append(torch.gather(logs[..., k, :], -1, nearest))
        score = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        if mask is None:
            columns.append(score.sum(dim=-2))
        else:
            columns.append((mask[..., k].to(score.dtype).unsqueeze(-2) @ score).squeeze(-2))
    if not columns:
        return predicted_dbm.new_zeros(*rss_dbm.shape[:-2], 0, predicted_dbm.shape[-1])
    return torch.stack(columns, dim=-2)
