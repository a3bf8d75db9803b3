"""What an estimator answers."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class PositionEstimate:
    """What ``estimator.locate(measurements)`` returns.

    Attributes:
        position: [..., K, 2] (or 3) metres.
        covariance: [..., K, 2, 2] square metres, or None where the method has none.
        valid: [..., K] false where the method could not answer; the position is then finite but meaningless.
    """

    position: Float[Tensor, "*batch K D"]
    covariance: Float[Tensor, "*batch K D D"] | None
    valid: Bool[Tensor, "*batch K"]
