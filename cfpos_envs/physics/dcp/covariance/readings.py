"""What a front end reads from one link, and covariances that no array can have measured."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Complex, Float
from torch import Tensor

_HERMITIAN_TO = 1e-3
_NEGATIVE_TO = 1e-4


@dataclass(frozen=True)
class LinkReadings:
    """Bearing and power of every link with standard deviations, any batch shape.

    Attributes:
        bearing_rad, bearing_std_rad: to the array's axis in [0, pi]: a linear array cannot tell front from back.
        correction_db, power_std_db: what to add to the measured RSS for the best estimate of its mean over the fading
            (signal and noise), and the standard deviation of what remains.
    """

    bearing_rad: Float[Tensor, "*batch"]
    bearing_std_rad: Float[Tensor, "*batch"]
    correction_db: Float[Tensor, "*batch"]
    power_std_db: Float[Tensor, "*batch"]

    def view(self, batch: tuple[int, ...]) -> LinkReadings:
        """The same links in another batch shape."""
        return LinkReadings(*(getattr(self, entry.name).view(batch) for entry in fields(self)))


def check_covariances(covariance: Complex[Tensor, "*batch L L"]) -> None:
    """Refuse matrices that are no covariances; zeros are let pass.

    Args:
        covariance: finite.

    Raises:
        ValueError: of single antennas; not Hermitian; with an eigenvalue below zero by more than rounding.
    """
    if covariance.shape[-1] < 2:
        raise ValueError("covariance is of single antennas and holds no angles; use rss-gn")
    scale = torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
    # Off the diagonal no entry of a covariance exceeds the largest on it.
    largest = covariance.abs().amax(dim=(-2, -1))
    uneven = (covariance - covariance.mH).abs().amax(dim=(-2, -1)) > _HERMITIAN_TO * largest
    if bool(uneven.any()):
        raise ValueError(
            f"covariance of {int(uneven.sum())} links is not Hermitian; give the mean of h h^H over the snapshots"
        )
    negative = (scale < 0) | (largest > scale.abs() * (1.0 + _HERMITIAN_TO))
    if not bool(negative.any()):
        size = covariance.shape[-1]
        loading = torch.eye(size, dtype=covariance.dtype, device=covariance.device)
        unit = covariance / scale.clamp(min=torch.finfo(scale.dtype).tiny)[..., None, None]
        negative = torch.linalg.cholesky_ex(unit + _NEGATIVE_TO * loading).info > 0
    if bool(negative.any()):
        raise ValueError(
            f"covariance of {int(negative.sum())} links is not positive semidefinite: it has eigenvalues below zero; "
            "give the mean of h h^H over the snapshots"
        )
