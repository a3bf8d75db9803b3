"""What all estimators of arrival times share: their part in a game, refusals, pieces of a batch, the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.ranging import FAMILIES

from ..base import Estimator
from .links import RangeLinks, check_shapes
from .multilateration import Fit, inverse_2x2, well_posed

# Links worked on at a time: the temporaries of the descent stay in the cache.
_CHUNK_LINKS = 1 << 16


class TimingEstimator(Estimator):
    """A one-shot estimator that reads ``TimingMeasurements``.

    Attributes:
        families: measurement families that it takes.
    """

    families: ClassVar[tuple[str, ...]] = FAMILIES

    def locate(self, measurements: Any) -> PositionEstimate:
        """Positions [B, K, 2] in metres, their covariance and validity.

        A user whose links do not determine a position (fewer than three, APs in one line or one place, two places that
        fit nearly as well) is not ``valid``; its position is finite and means nothing.

        Args:
            measurements: ``TimingMeasurements`` of one of ``families``.

        Raises:
            TypeError: measurements of another kind of scenario.
            ValueError: a family that this estimator does not take, or measurements that cannot be right.
        """
        return in_chunks(timing_measurements(measurements, self.name, self.families), self._locate)

    @abstractmethod
    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        """``locate`` for a part of the batch."""

    def _fix(self, measurements: Any) -> PositionEstimate:
        received = timing_measurements(measurements, self.name, self.families)
        # The tensors of a game state are never changed in place, so the same object means the same measurements.
        if self._last is None or self._last[0] is not received.range_m:
            self._last = (received.range_m, self.locate(received))
        return self._last[1]


def timing_measurements(measurements: Any, policy: str, families: tuple[str, ...] = FAMILIES) -> TimingMeasurements:
    """The argument itself, refused unless it is a ``TimingMeasurements`` of one of ``families``.

    Raises:
        TypeError: measurements of another kind of scenario.
        ValueError: another family, or tensors that do not fit together.
    """
    if not isinstance(measurements, TimingMeasurements):
        raise TypeError(
            f"{policy} needs TimingMeasurements (ranges), got {type(measurements).__name__}; "
            "use it with toa-v0, tdoa-v0 or rtt-v0"
        )
    family = measurements.model.family
    if family not in families:
        others = {"toa": "toa-wls", "tdoa": "tdoa-wls", "rtt": "rtt-wls"}
        raise ValueError(f"{policy} takes {' or '.join(families)} measurements, got {family}; use {others[family]}")
    check_shapes(measurements)
    return measurements


def in_chunks(
    measurements: TimingMeasurements, function: Callable[[TimingMeasurements], PositionEstimate]
) -> PositionEstimate:
    """``function`` over a few episodes at a time, so that memory does not grow with the batch."""
    total, num_aps, num_ues = measurements.range_m.shape
    size = max(1, _CHUNK_LINKS // max(1, num_aps * num_ues))
    if total <= size:
        return function(measurements)
    parts = [function(measurements.select(slice(low, low + size))) for low in range(0, total, size)]
    covariances = [part.covariance for part in parts if part.covariance is not None]
    return PositionEstimate(
        torch.cat([part.position for part in parts]),
        torch.cat(covariances) if covariances else None,
        torch.cat([part.valid for part in parts]),
    )


def answer(
    links: RangeLinks, fit: Fit, like: Tensor, information: Float[Tensor, "B K 2 2"] | None = None
) -> PositionEstimate:
    """The estimate of a fit, in the precision of ``like``.

    The position is not pulled into the area: an efficient estimator spreads over its border, and the bound knows none.

    Args:
        links: where it came from.
        fit: the minimum.
        like: a tensor of the measurements.
        information: where it is not that of the fit, 1/m^2.
    """
    covariance = inverse_2x2(fit.information if information is None else information)
    return estimate(links, fit.position_m, covariance, well_posed(links, fit), like)


def estimate(
    links: RangeLinks,
    position_m: Float[Tensor, "B K 2"],
    covariance_m2: Float[Tensor, "B K 2 2"],
    valid: Bool[Tensor, "B K"],
    like: Tensor,
) -> PositionEstimate:
    """Positions and covariances, all finite: what is not known has the covariance of the uniform distribution."""
    low, high = links.box()
    finite = torch.isfinite(position_m).all(dim=-1)
    position = torch.where(finite[..., None], position_m, (low + high) / 2)
    known = valid & finite & torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)
    nothing = torch.eye(2, dtype=position.dtype, device=position.device) * (links.side_m**2 / 12)
    covariance = torch.where(known[..., None, None], covariance_m2, nothing)
    return PositionEstimate(position.to(like.dtype), covariance.to(like.dtype), known)
