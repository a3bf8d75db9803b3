"""What all estimators of arrival times share: what they read, pieces of a batch, the answer."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, PositionEstimate, Reason
from cfpos_envs.measurements.toa import TimingMeasurements

from ..base import Estimator
from ..least_squares import Fit, inverse_2x2
from .judge import estimate, judge
from .links import FEWEST_LINKS, RangeLinks, near_links
from .rivals import Rivals
from .signs import check_group, check_signs

# Links worked on at a time: the temporaries of the descent stay in the cache.
_CHUNK_LINKS = 1 << 16
# Ranges so many standard deviations too short, as one of 30 000 is: no missing line of sight makes them.
_TOO_SHORT = 4.0
# Share of an episode's links that have to agree with the answers: of 16 blocked ones, three or four do by chance.
_AGREEING = 0.28


class TimingEstimator(Estimator[TimingMeasurements]):
    """A one-shot estimator that reads ``TimingMeasurements``.

    What is not ``valid`` has a ``reason`` and a finite position, see ``judge``. Where only the residuals are too large
    or the answer lies outside the area, the covariance is what the stated noise alone would make it.
    """

    measurement_type: ClassVar[type[Measurements]] = TimingMeasurements

    def _chunk(self, measurements: TimingMeasurements) -> int:
        return max(1, _CHUNK_LINKS // max(1, measurements.range_m[0].numel())) if len(measurements) else 1


def answer(
    links: RangeLinks,
    fit: Fit,
    believed: Bool[Tensor, "B M K"] | None = None,
    information: Float[Tensor, "B K 2 2"] | None = None,
) -> PositionEstimate:
    """The estimate of a fit, in double precision whatever type the ranges have.

    Args:
        links: where it came from, not as differences.
        fit: the minimum.
        believed: links that a robust method takes for unspoilt; None: all.
        information: where it is not that of the fit, 1/m^2.
    """
    covariance = inverse_2x2(fit.information if information is None else information)
    verdict = check_signs(links, judge(links, fit, believed, covariance_m2=covariance))
    return estimate(links, fit.position_m, covariance, verdict)


def robust_answer(
    links: RangeLinks, fit: Fit, information: Float[Tensor, "B K 2 2"], others: Rivals
) -> PositionEstimate:
    """The estimate of a fix from ranges of which some may be too long, judged where they fit best.

    Its covariance reaches as far as the places that are as likely, so that it need not be doubted for them. What is
    left is what no blocked link explains: believed links that do not agree, ranges shorter than the geometry, and
    episodes in which hardly any link is believed: their places are where some links agree by chance.

    Args:
        links: as for ``answer``.
        fit: the answer.
        information: of the noise alone, 1/m^2.
        others: the places that the ranges allow.
    """
    near = near_links(links, others.best)
    short = (links.usable & (others.best.residual_m < -_TOO_SHORT * links.std_m)).any(dim=1)
    # Where all believed links lie beyond the threshold of a loss, its curvature says nothing.
    own, there = inverse_2x2(information), inverse_2x2(others.best.information)
    covariance = torch.where(torch.isfinite(own), own, there) + others.spread_m2
    agreeing = near.sum(dim=(1, 2)) / links.usable.sum(dim=(1, 2)).clamp(min=1)
    hardly = (agreeing < _AGREEING).unsqueeze(1).expand_as(short)
    verdict = judge(links, others.best, near, mixed=True).also(Reason.LARGE_RESIDUALS, short | hardly)
    verdict = check_group(check_signs(links, verdict), links.usable.sum(dim=1) > FEWEST_LINKS)
    return estimate(links, fit.position_m, covariance, verdict)
