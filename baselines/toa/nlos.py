"""Positions from line-of-sight links: classified by features (``toa-nlos-drop``) or known (``toa-oracle``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import PositionEstimate, Reason
from cfpos_envs.measurements.toa import FEATURES, TimingMeasurements
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.physics.toa.link_features import los_log_odds
from cfpos_envs.physics.toa.model import TimingModel

from ..least_squares import Fit, inverse_2x2
from .common import TimingEstimator
from .judge import estimate, judge, well_posed
from .links import FEWEST_LINKS, RangeLinks, near_links, range_links
from .multilateration import solve_ranges
from .robust import huber_fit

WAVEFORM_COEFFICIENTS = (45.1, 2.02, -8.11, -11.6, -10.4, 3.01)
"""Of ``fit_los_classifier`` for waveforms of ``toa-v0`` as it is: ``python scripts/reproduce.py toa-classifier``."""
_COMB = (256, 120e3)
"""Subcarriers and their spacing, Hz: features are as coarse as the band is narrow."""
_LEAST_SNR_DB = 139.0
"""At 1 m; 3 dB less than there. Where noise hides the weak paths, spreads and delays are others."""


@dataclass(frozen=True)
class NlosDropOptions(Declared):
    """Options of ``toa-nlos-drop``.

    Attributes:
        minimum: links that are kept whatever the classifier says, the likeliest ones, >= 3.
        los_share: share of LOS links expected a priori, between 0 and 1.
        coefficients: six numbers of ``fit_los_classifier``, for features that follow other laws (your own hall, other
            waveforms); None takes the laws of the statistical fidelity, or what was learned from the default waveforms.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "minimum": (FEWEST_LINKS, 4096),
        "los_share": (1e-6, 1 - 1e-6),
        "coefficients": (-1e9, 1e9),
    }

    minimum: int = 4
    los_share: float = 0.5
    coefficients: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.coefficients is not None and len(self.coefficients) != len(FEATURES) + 1:
            raise ValueError(
                f"coefficients has {len(self.coefficients)} numbers; it must have {len(FEATURES) + 1}, "
                "as fit_los_classifier makes them"
            )


class ToaNlosDrop(TimingEstimator):
    """Classifies every link by its channel features and takes weighted least squares over those held LOS."""

    name: ClassVar[str] = "toa-nlos-drop"
    options_class: ClassVar[type] = NlosDropOptions
    options: NlosDropOptions

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        options, links = self.options, range_links(measurements)
        if bool((links.usable & ~torch.isfinite(measurements.features).all(dim=-1)).any()):
            raise ValueError(
                f"toa-nlos-drop needs the features of every link ({', '.join(FEATURES)}); use toa-em without them"
            )
        robust = huber_fit(links)
        odds = self._log_odds(measurements, links, robust.position_m) + math.log(
            options.los_share / (1 - options.los_share)
        )
        kept = likely_links(odds, links.usable, options.minimum)
        return over_kept_links(links, kept, robust, links.usable & (odds > 0))

    def _log_odds(self, measurements: TimingMeasurements, links: RangeLinks, near_m: Tensor) -> Tensor:
        # The RSS is judged at the distance of a robust fix; the link's own range is what is in doubt.
        features = torch.nan_to_num(measurements.features.double())
        expected, coefficients = expected_rss_dbm(measurements, near_m), self.options.coefficients
        if coefficients is None:
            if measurements.cfr is None:
                return los_log_odds(features, expected)
            coefficients = waveform_coefficients(measurements.model)
        return learned_log_odds(features, expected, coefficients)


class ToaOracle(TimingEstimator):
    """Weighted least squares over the links that truly have a line of sight: the yardstick of robustness."""

    name: ClassVar[str] = "toa-oracle"

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        if measurements.is_los is None:
            raise ValueError("toa-oracle needs is_los, which these measurements do not reveal; use toa-em")
        links = range_links(measurements)
        los, robust = links.only(measurements.is_los), huber_fit(links)
        fit = solve_ranges(los)
        posed = well_posed(los, fit)
        # Too few of them: a position that is at least finite, and marked.
        position = torch.where(posed[..., None], fit.position_m, robust.position_m)
        return estimate(links, position, inverse_2x2(fit.information), judge(los, fit))


def likely_links(
    log_odds: Float[Tensor, "B M K"], usable: Bool[Tensor, "B M K"], minimum: int
) -> Bool[Tensor, "B M K"]:
    """Usable links with positive log-odds of LOS, or the ``minimum`` likeliest ones if these are more.

    Args:
        log_odds: posterior log-odds of a line of sight.
        usable: links that count at all.
        minimum: number of links to keep at least, as far as there are so many.
    """
    odds = torch.where(usable, log_odds, -torch.inf)
    order = odds.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return usable & ((odds > 0) | (order < minimum))


def over_kept_links(
    links: RangeLinks, kept: Bool[Tensor, "B M K"], fallback: Fit, believed: Bool[Tensor, "B M K"]
) -> PositionEstimate:
    """Weighted least squares over the kept links; the fallback where they alone do not determine a position.

    Not ``valid`` where no more links are believed than there are unknowns: the position is then made of links that are
    held blocked, of which some agree by chance.

    Args:
        links: all links.
        kept: links to use.
        fallback: a fit to all links.
        believed: those of them that are not kept for want of better ones.
    """
    few = links.only(kept)
    fit = solve_ranges(few)
    alone = well_posed(few, fit)
    made_of_blocked = believed.sum(dim=1) <= 2 + int(links.unknown_offset)
    verdict = judge(few, fit).where(alone, judge(links, fallback, near_links(links, fallback)))
    verdict = verdict.also(Reason.LARGE_RESIDUALS, made_of_blocked)
    position = torch.where(alone[..., None], fit.position_m, fallback.position_m)
    information = torch.where(alone[..., None, None], fit.information, fallback.information)
    return estimate(links, position, inverse_2x2(information), verdict)


def expected_rss_dbm(measurements: TimingMeasurements, points_m: Float[Tensor, "B K 2"]) -> Float[Tensor, "B M K"]:
    """RSS of a line of sight by the path loss at believed positions, dBm.

    Args:
        measurements: for the site and the constants.
        points_m: believed positions.
    """
    model = measurements.model
    _, slant = unit_vectors_to(
        measurements.ap_positions_m.double(), measurements.height_diff_m.double(), points_m.double()
    )
    gain = model.snr_linear(slant) / model.max_snr_linear
    return 10 * torch.log10(gain * model.tx_power_w) + 30


def waveform_coefficients(model: TimingModel) -> tuple[float, ...]:
    """What was learned from waveforms like those of ``toa-v0`` as it is: the same comb, and no more noise.

    Args:
        model: of the waveforms.

    Raises:
        ValueError: other waveforms, whose features follow other laws.
    """
    comb = model.num_subcarriers, model.subcarrier_spacing_hz
    snr_db = 10 * math.log10(model.max_snr_linear)
    if comb == _COMB and snr_db >= _LEAST_SNR_DB:
        return WAVEFORM_COEFFICIENTS
    raise ValueError(
        f"toa-nlos-drop knows the features of {_COMB[0]} subcarriers {_COMB[1] / 1e3:g} kHz apart with an SNR of at "
        f"least {_LEAST_SNR_DB:.0f} dB at 1 m; these have {comb[0]}, {comb[1] / 1e3:g} kHz and {snr_db:.0f} dB: give "
        "coefficients= as fit_los_classifier makes them, or use toa-em"
    )


def learned_log_odds(
    features: Float[Tensor, "*batch 5"], expected_rss_dbm: Float[Tensor, "*batch"], coefficients: Sequence[float]
) -> Float[Tensor, "*batch"]:
    """Log-odds of a line of sight by a logistic regression, at equal prior odds.

    Args:
        features, expected_rss_dbm: see ``fit_los_classifier``.
        coefficients: what it returns.
    """
    weights = features.new_tensor(coefficients)
    return _scores(features, expected_rss_dbm) @ weights[1:] + weights[0]


def fit_los_classifier(
    features: Float[Tensor, "*batch 5"], expected_rss_dbm: Float[Tensor, "*batch"], is_los: Bool[Tensor, "*batch"]
) -> tuple[float, ...]:
    """Logistic regression of LOS on log10 of the first four features and the RSS offset, for ``coefficients``.

    Args:
        features: of links whose class is known, simulated or surveyed.
        expected_rss_dbm: RSS by the path loss at their true distance.
        is_los: their class.

    Returns:
        Intercept and five weights; log-odds at equal prior odds.

    Raises:
        ValueError: only one class is present.
    """
    from sklearn.linear_model import LogisticRegression

    if bool(is_los.all()) or not bool(is_los.any()):
        raise ValueError("is_los has one class only; give links with and without a line of sight")
    scores = _scores(features.double(), expected_rss_dbm.double()).reshape(-1, len(FEATURES)).cpu().numpy()
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(scores, is_los.reshape(-1).cpu().numpy())
    return (float(model.intercept_[0]), *(float(weight) for weight in model.coef_[0]))


def _scores(features: Tensor, expected_rss_dbm: Tensor) -> Tensor:
    # A waveform may have no measurable rise time at all: 1 ns and kurtosis 1 bound the logarithms from below.
    logs = features[..., :4].clamp(min=1.0).log10()
    return torch.cat((logs, (features[..., 4] - expected_rss_dbm).unsqueeze(-1) / 10), dim=-1)
