"""The front ends that read the whole covariance of a link, by name."""

from __future__ import annotations

import math

from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.dcp.covariance.likelihood import likelihood_readings
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw, network_readings
from cfpos_envs.physics.dcp.covariance.readings import LinkReadings
from cfpos_envs.physics.dcp.model import RadioModel

COVARIANCE_LINKS = ("likelihood", "covariance")


def covariance_readings(
    covariance: Complex[Tensor, "*batch L L"],
    rss_dbm: Float[Tensor, "*batch"],
    radio: RadioModel,
    links: str,
    link_training: bool = True,
) -> LinkReadings:
    """Bearing, power and the standard deviations of both, of all links.

    Args:
        covariance: R of the channel estimate, positive semidefinite and not zero.
        rss_dbm: of signal and noise, dBm.
        radio: array, scattering and noise.
        links: one of ``COVARIANCE_LINKS``.
        link_training: whether ``covariance`` may learn a network that does not come along.

    Raises:
        ValueError: a network that is missing and may not be learned.
    """
    law = ArrayLaw.of(radio)
    snr_db = rss_dbm - (10.0 * math.log10(radio.num_antennas * radio.noise_power_w) + 30.0)
    if links == "likelihood":
        return likelihood_readings(covariance, snr_db, law)
    return network_readings(covariance, snr_db, law, link_training)
