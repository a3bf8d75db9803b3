"""Steps of maximum likelihood by the exact law of the links, from a fix that is already good.

Readings say of each link a bearing and a power, with a Gaussian around both. The law of a link is no Gaussian: these
steps take its score from a Markov chain over the hidden path angles (``physics/dcp/covariance/path_posterior``) and its
information from the table. A step costs a third of a second of a core per user of 36 APs, so that it is no policy: it
shows that the bound of sample covariances can be come near.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.bounds import LinksToUsers
from cfpos_envs.physics.dcp.covariance.information import covariance_fisher, link_information
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw
from cfpos_envs.physics.dcp.covariance.path_posterior import PathDraws, draw_offsets, path_scores, real_covariance
from cfpos_envs.physics.geometry import into_area

from .front_end import read_links

_WARM_UP = 40
_MOST_SNR_DB = 60.0
"""Covariances come in single precision: noise below its rounding is raised to where it can be told from that."""
_MOST_DEVIATIONS = 4.0
"""That a score may be off: a chain that has not found its way yet must not move the fix."""
_LEAST_SNR_DB = -30.0


def path_step(
    measurements: RadioMeasurements, positions_m: Float[Tensor, "B K 2"], sweeps: int = 60, seed: int = 0
) -> Float[Tensor, "B K 2"]:
    """Positions after one Fisher-scoring step.

    With s the score and J the information of a link at the fix, at a power between the one expected there and the one
    read, its log-likelihood is taken as quadratic; integrating out the unknown shadowing leaves the score
    K (J^-1 s + (0, power - expected)) with K = (J^-1 + diag(0, shadowing^2))^-1.

    Args:
        measurements: complete, with covariances, without faults and without shadowing map.
        positions_m: the fix, as good as that of ``joint-gn``.
        sweeps: of each chain, after those it warms up by.
        seed: of the chains.
    """
    radio, law, m = measurements.radio, ArrayLaw.of(measurements.radio), measurements
    assert m.covariance is not None
    hidden = float(m.shadowing_std_db) ** 2
    links = LinksToUsers.of(radio, m.ap_positions_m, m.ap_orientation_rad, m.height_diff_m, positions_m)
    signed = torch.atan2(torch.sin(links.angle_rad), torch.cos(links.angle_rad))
    read_db, read_std_db = _read_snr_db(measurements)
    power = links.snr_db + hidden / (hidden + read_std_db.square()) * (read_db - links.snr_db)
    seen = power.clamp(max=_MOST_SNR_DB)
    signal = radio.noise_power_w / (radio.tx_power_w * radio.num_pilots) * torch.pow(10.0, power / 10.0)
    raised = torch.pow(10.0, -seen / 10.0) - torch.pow(10.0, -power / 10.0)
    received = real_covariance(m.covariance) / signal[..., None, None]
    received = received + raised[..., None, None] * torch.eye(law.num_antennas, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    start = PathDraws(draw_offsets(generator, law, signed.numel()), received.flatten(0, -3))
    found = path_scores(generator, law, signed.abs().flatten(), seen.flatten(), start, sweeps, _WARM_UP)
    score = found.mean.view(*signed.shape, 2)
    information = link_information(law, simulate=False)
    _, mixed, along = information.look_up(power, signed)
    most = _MOST_DEVIATIONS * along.sqrt()
    of_power = torch.maximum(torch.minimum(score[..., 1], most), -most)
    left, away = 1.0 / (1.0 + hidden * along), power - links.snr_db
    of_bearing = torch.sign(signed) * score[..., 0] + left * mixed * (away - hidden * of_power)
    of_power = left * (of_power + along * away)
    gradient = torch.einsum("...mki,...mk->...ki", links.bearing_gradient, of_bearing)
    gradient = gradient + torch.einsum("...mki,...mk->...ki", links.power_gradient, of_power)
    fisher = covariance_fisher(links, information, math.sqrt(hidden))
    step = torch.linalg.solve(fisher, gradient.unsqueeze(-1)).squeeze(-1)
    return into_area(positions_m + step.to(positions_m), radio.side_m, radio.wrap)


def _read_snr_db(measurements: RadioMeasurements) -> tuple[Float[Tensor, "B M K"], Float[Tensor, "B M K"]]:
    """SNR per antenna of every link and its standard deviation, by the link network."""
    radio = measurements.radio
    read = read_links(measurements, "covariance")
    noise_dbm = 10.0 * math.log10(radio.num_antennas * radio.noise_power_w) + 30.0
    ratio = torch.pow(10.0, (measurements.rss_dbm + read.correction_db - noise_dbm).double() / 10.0) - 1.0
    return 10.0 * torch.log10(ratio.clamp(min=10.0 ** (_LEAST_SNR_DB / 10.0))), read.power_std_db.double()
