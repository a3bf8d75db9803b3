"""Channel features of the statistical fidelity: what a LOS/NLOS classifier sees, with a documented overlap.

Per link five numbers (kurtosis, rise time, mean excess delay, RMS delay spread, RSS), independent given the class. The
first four are log-normal, the RSS is the expected one plus a Gaussian offset in dB; both classes have the same spread,
so one feature with distance d' = |mean_los - mean_nlos| / std separates the classes with error Phi(-d'/2), and all of
them with Phi(-|d'|/2), |d'|^2 the sum of the squares: 8.5 % at equal odds with the values below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs import draws


@dataclass(frozen=True)
class FeatureLaw:
    """Class-conditional Gaussian of one feature: of its log10, or for the RSS of the offset in dB.

    Attributes:
        los_mean, nlos_mean: means of the two classes.
        std: common standard deviation, > 0.
    """

    los_mean: float
    nlos_mean: float
    std: float

    @property
    def separation(self) -> float:
        """Distance d' = |los_mean - nlos_mean| / std of the classes."""
        return abs(self.los_mean - self.nlos_mean) / self.std

    @property
    def overlap(self) -> float:
        """Common area of the two densities, 2 Phi(-d'/2): 1 if they are the same."""
        return math.erfc(self.separation / (2 * math.sqrt(2)))


# The delay spread is that of TR 38.901 table 7.5-6, UMi at 3.5 GHz (lg DS -7.30 and -6.99, 50 and 102 ns, std 0.38).
# The others are choices: a line of sight makes one tap stand out (kurtosis), the edge steep and the power higher.
KURTOSIS = FeatureLaw(math.log10(30.0), math.log10(12.0), 0.27)
RISE_TIME_NS = FeatureLaw(math.log10(8.0), math.log10(20.0), 0.33)
MEAN_EXCESS_DELAY_NS = FeatureLaw(math.log10(30.0), math.log10(80.0), 0.35)
RMS_DELAY_SPREAD_NS = FeatureLaw(math.log10(50.0), math.log10(102.0), 0.38)
RSS_OFFSET_DB = FeatureLaw(0.0, -8.0, 6.0)
FEATURE_LAWS = (KURTOSIS, RISE_TIME_NS, MEAN_EXCESS_DELAY_NS, RMS_DELAY_SPREAD_NS, RSS_OFFSET_DB)


def draw_features(
    generator: draws.Source, is_los: Bool[Tensor, "*batch"], expected_rss_dbm: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 5"]:
    """Features of every link: kurtosis, rise time, mean excess delay, RMS delay spread (ns), RSS (dBm).

    Args:
        generator: source of randomness.
        is_los: the class of every link.
        expected_rss_dbm: RSS by the path loss of a line of sight.
    """
    scores = _scores_mean(is_los, expected_rss_dbm.dtype)
    std = torch.tensor([law.std for law in FEATURE_LAWS], dtype=scores.dtype, device=scores.device)
    noise = draws.normal(generator, *scores.shape, dtype=scores.dtype)
    scores = scores + std * noise
    delays = torch.pow(10.0, scores[..., :4])
    return torch.cat((delays, (expected_rss_dbm + scores[..., 4]).unsqueeze(-1)), dim=-1)


def los_log_odds(
    features: Float[Tensor, "*batch 5"], expected_rss_dbm: Float[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """Log-likelihood ratio log p(features | LOS) / p(features | NLOS) under these laws: the best classifier there is.

    Args:
        features: as drawn by ``draw_features``.
        expected_rss_dbm: RSS by the path loss at the believed distance; None leaves the RSS out.
    """
    logs = features[..., :4].clamp(min=torch.finfo(features.dtype).tiny).log10()
    used: tuple[FeatureLaw, ...] = FEATURE_LAWS[:4]
    if expected_rss_dbm is not None:
        logs = torch.cat((logs, (features[..., 4] - expected_rss_dbm).unsqueeze(-1)), dim=-1)
        used = FEATURE_LAWS
    los, nlos, std = (
        torch.tensor([getattr(law, name) for law in used], dtype=logs.dtype, device=logs.device)
        for name in ("los_mean", "nlos_mean", "std")
    )
    return (((logs - nlos).square() - (logs - los).square()) / (2 * std.square())).sum(dim=-1)


def _scores_mean(is_los: Tensor, dtype: torch.dtype) -> Tensor:
    los = torch.tensor([law.los_mean for law in FEATURE_LAWS], dtype=dtype, device=is_los.device)
    nlos = torch.tensor([law.nlos_mean for law in FEATURE_LAWS], dtype=dtype, device=is_los.device)
    return torch.where(is_los.unsqueeze(-1), los, nlos)
