"""What reads single links for the estimators: bearing, power and their deviations from spectra or covariances."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.arrays import profile_peak
from cfpos_envs.physics.dcp.covariance.front_ends import COVARIANCE_LINKS, covariance_readings
from cfpos_envs.physics.dcp.covariance.readings import LinkReadings, check_covariances
from cfpos_envs.physics.dcp.innovations import nominal_bearing_scale

from .radio_map import NUM_ANGLES
from .spectra import METHODS, covariance_bearings

DEFAULT_LINKS = "dft"
LINKS = (DEFAULT_LINKS, *METHODS, *COVARIANCE_LINKS)


def read_links(
    measurements: RadioMeasurements,
    links: str,
    profiles: Float[Tensor, "B M K A"] | None = None,
    num_angles: int = NUM_ANGLES,
    link_training: bool = True,
) -> LinkReadings:
    """Readings [B, M, K] of all links.

    Args:
        measurements: clean ones (no NaN).
        links: one of ``LINKS``.
        profiles: angle profiles of the spectra, for ``dft``.
        num_angles: directions of the spectra of ``music`` and ``beamscan``.
        link_training: whether ``covariance`` may learn a network that does not come along.

    Raises:
        ValueError: a covariance that cannot be one; a network that is missing and may not be learned.
    """
    if links == "dft":
        assert profiles is not None
        return nominal_readings(measurements, profile_peak(profiles)[0])
    assert measurements.covariance is not None
    if links in METHODS:
        bearing = covariance_bearings(measurements.covariance, measurements.radio, links, num_angles)
        return nominal_readings(measurements, bearing)
    check_covariances(measurements.covariance)
    return covariance_readings(measurements.covariance, measurements.rss_dbm, measurements.radio, links, link_training)


def nominal_readings(measurements: RadioMeasurements, bearing_rad: Float[Tensor, "B M K"]) -> LinkReadings:
    """Bearings with their nominal scale, powers as measured with their sampling noise."""
    scale, power_std_db = nominal_bearing_scale(bearing_rad), rss_sampling_db(measurements)
    return LinkReadings(bearing_rad, scale, torch.zeros_like(power_std_db), power_std_db)


def rss_sampling_db(measurements: RadioMeasurements) -> Float[Tensor, "B M K"]:
    """Standard deviation of every RSS by the sampling of its fading; zero where there is no covariance to tell it."""
    if measurements.covariance is None:
        return torch.zeros_like(measurements.rss_dbm)
    snapshots = measurements.radio.snapshots
    sampling = rss_sampling_std_db(measurements.covariance, snapshots)
    # Methods that read spectra keep a link whose covariance alone is damaged: one path has the most noise.
    return torch.nan_to_num(sampling, nan=10.0 / math.log(10.0) / math.sqrt(snapshots))


def rss_sampling_std_db(covariance: Complex[Tensor, "*batch L L"], snapshots: int) -> Float[Tensor, "*batch"]:
    """Standard deviation of an RSS averaged over T_s snapshots: (10 / ln 10) sqrt(tr(R^2) / T_s) / tr(R), dB.

    tr(R_hat) is a sum of exponentials with the eigenvalues of R as means, each averaged over T_s draws.

    Args:
        covariance: (sample) covariance R of the channel estimate.
        snapshots: T_s.
    """
    trace = torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
    unit = covariance / trace.clamp(min=torch.finfo(trace.dtype).tiny)[..., None, None]
    squares = unit.real.square().sum(dim=(-2, -1)) + unit.imag.square().sum(dim=(-2, -1))
    return (10.0 / math.log(10.0)) * torch.sqrt(squares / snapshots)
