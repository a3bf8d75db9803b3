"""What all estimators of arrival times share: what they read, pieces of a batch, the answer."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements

from ..base import Estimator
from ..least_squares import Fit, inverse_2x2
from .links import RangeLinks
from .multilateration import well_posed

# Links worked on at a time: the temporaries of the descent stay in the cache.
_CHUNK_LINKS = 1 << 16


class TimingEstimator(Estimator[TimingMeasurements]):
    """A one-shot estimator that reads ``TimingMeasurements``.

    A user whose links do not determine a position (fewer than three, APs in one line or one place, two places that fit
    nearly as well) is not ``valid``; its position is finite and means nothing.
    """

    measurement_type: ClassVar[type[Measurements]] = TimingMeasurements

    def _chunk(self, measurements: TimingMeasurements) -> int:
        return max(1, _CHUNK_LINKS // max(1, measurements.range_m[0].numel())) if len(measurements) else 1


def answer(links: RangeLinks, fit: Fit, information: Float[Tensor, "B K 2 2"] | None = None) -> PositionEstimate:
    """The estimate of a fit, in double precision whatever type the ranges have.

    The position is not pulled into the area: an efficient estimator spreads over its border, and the bound knows none.

    Args:
        links: where it came from.
        fit: the minimum.
        information: where it is not that of the fit, 1/m^2.
    """
    covariance = inverse_2x2(fit.information if information is None else information)
    return estimate(links, fit.position_m, covariance, well_posed(links, fit))


def estimate(
    links: RangeLinks,
    position_m: Float[Tensor, "B K 2"],
    covariance_m2: Float[Tensor, "B K 2 2"],
    valid: Bool[Tensor, "B K"],
) -> PositionEstimate:
    """Positions and covariances, all finite: what is not known has the covariance of the uniform distribution."""
    low, high = links.box()
    finite = torch.isfinite(position_m).all(dim=-1)
    position = torch.where(finite[..., None], position_m, (low + high) / 2)
    known = valid & finite & torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)
    nothing = torch.eye(2, dtype=position.dtype, device=position.device) * (links.side_m**2 / 12)
    covariance = torch.where(known[..., None, None], covariance_m2, nothing)
    return PositionEstimate(position, covariance, known)
