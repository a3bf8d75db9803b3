"""What all estimators of arrival times share: what they read, pieces of a batch, the answer."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements

from ..base import Estimator
from ..least_squares import Fit, inverse_2x2
from .judge import estimate, judge
from .links import RangeLinks
from .signs import check_signs

# Links worked on at a time: the temporaries of the descent stay in the cache.
_CHUNK_LINKS = 1 << 16


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
    pull_m: Float[Tensor, "B K 2"] | None = None,
) -> PositionEstimate:
    """The estimate of a fit, in double precision whatever type the ranges have.

    Args:
        links: where it came from, not as differences.
        fit: the minimum.
        believed: links that a robust method takes for unspoilt; None: all.
        information: where it is not that of the fit, 1/m^2.
        pull_m: how far links that are not believed have moved the position; its square is added to the covariance.
    """
    covariance = inverse_2x2(fit.information if information is None else information)
    if pull_m is not None:
        covariance = covariance + pull_m.unsqueeze(-1) * pull_m.unsqueeze(-2)
    verdict = check_signs(links, judge(links, fit, believed, covariance_m2=covariance))
    return estimate(links, fit.position_m, covariance, verdict)
