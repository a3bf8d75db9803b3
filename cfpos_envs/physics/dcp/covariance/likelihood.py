"""Bearing and power of single links by the likelihood of their covariance's lags, summed over a grid of directions.

The covariance of a linear array is Toeplitz, its lags r_l = (1/N) sum_n exp(-j l psi_n) with phase steps
psi_n = 2 pi (Delta / lambda) cos theta_n. Given the user's direction the angles of the N paths are random and stay for
all snapshots, and the fading is sampled T times: over both, the measured lags have means and covariances in closed
form, and are taken as Gaussian. A Wishart likelihood of the *mean* covariance knows the fading alone, takes the frozen
paths for their mean, and is worse than the strongest beam.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.arrays import angle_grid
from cfpos_envs.physics.dcp.bounds import laplace_offsets
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw
from cfpos_envs.physics.dcp.covariance.readings import LinkReadings

_NUM_ANGLES = 121
_QUADRATURE = 1024
_SNRS_DB = (-10.0, 0.0, 10.0, 20.0, 30.0)
"""Above the last the noise no longer counts."""
_SHAPE = 5e-3
"""Variance that lags get beside their own, for what a Gaussian misses of their shape: without it the posterior of the
bearing is half as wide as its errors. The power needs none."""
_LOADING = 1e-7
_LINKS_AT_A_TIME = 2_048
_LEAST_SIGNAL = 0.05
"""Of the measured power."""
_NEPER_DB = 10.0 / math.log(10.0)


@dataclass(frozen=True)
class WhiteLags:
    """Gaussian log-likelihood of the D = 2 L - 2 real numbers of the normalised lags, by direction.

    Attributes:
        whitening: takes lags to white noise.
        center: what it takes their means to.
        log_det: logarithm of the determinant of their covariance, halved.
    """

    whitening: Float[Tensor, "D AD"]
    center: Float[Tensor, "A D"]
    log_det: Float[Tensor, " A"]

    @classmethod
    def of(cls, mean: Float[Tensor, "A D"], covariance: Float[Tensor, "A D D"], device: torch.device) -> WhiteLags:
        """Of means and covariances, in double precision."""
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype)
        whitening = torch.linalg.solve_triangular(factor, identity.expand_as(covariance), upper=False)
        center = (whitening @ mean.unsqueeze(-1)).squeeze(-1)
        log_det = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(dim=-1)
        tables = (whitening.flatten(0, 1).mT.contiguous(), center, log_det)
        return cls(*(table.float().to(device) for table in tables))

    def shares(self, lags: Float[Tensor, "N D"]) -> Float[Tensor, "N A"]:
        """Posterior of the directions, all equally likely before."""
        white = (lags @ self.whitening).view(len(lags), *self.center.shape).sub_(self.center)
        return torch.softmax(-0.5 * white.square_().sum(dim=-1) - self.log_det, dim=-1)


@dataclass(frozen=True)
class LagLaw:
    """What lags say at one SNR.

    Attributes:
        angle_rad: the grid of directions.
        bearing, power: likelihoods of the lags with and without an allowance for the shape of their distribution.
        regression, offset: expected error of the measured power, over the mean power of the signal, is
            regression . lags - offset.
        rest_variance: of that error when the lags are known.
    """

    angle_rad: Float[Tensor, " A"]
    bearing: WhiteLags
    power: WhiteLags
    regression: Float[Tensor, "D A"]
    offset: Float[Tensor, " A"]
    rest_variance: Float[Tensor, " A"]


def likelihood_readings(
    covariance: Complex[Tensor, "*batch L L"], snr_db: Float[Tensor, "*batch"], law: ArrayLaw
) -> LinkReadings:
    """Means and standard deviations of the posterior, all directions of half a turn equally likely before.

    Args:
        covariance: R of the channel estimate, positive semidefinite and not zero.
        snr_db: of signal and noise over the noise, as measured.
        law: array and scattering.
    """
    batch, device = covariance.shape[:-2], covariance.device
    level = snr_db.flatten()
    signal = 1.0 - torch.pow(10.0, -level / 10.0)
    lags = _normalised_lags(covariance.flatten(0, -3)) / signal.clamp(min=_LEAST_SIGNAL)[:, None]
    grid = torch.tensor(_SNRS_DB, device=device)
    nearest = (level[:, None] - grid).abs().argmin(dim=-1)
    found = lags.new_zeros(len(lags), 4)
    for index, snr in enumerate(_SNRS_DB):
        rows = torch.nonzero(nearest == index).squeeze(-1)
        for some in rows.split(_LINKS_AT_A_TIME):
            found[some] = _posterior(lag_law(law, snr, device), lags[some])
    bearing, bearing_std, power, power_std = found.unbind(dim=-1)
    readings = LinkReadings(bearing, bearing_std, -_NEPER_DB * power * signal, _NEPER_DB * power_std * signal)
    return readings.view(batch)


@functools.lru_cache(maxsize=64)
def lag_law(law: ArrayLaw, snr_db: float, device: torch.device) -> LagLaw:
    """Means and covariances of the lags in closed form.

    With mu_l = E exp(-j l psi) over the scattering, independent paths make
    E r_p r_q* = mu_p mu_q* + (mu_(p-q) - mu_p mu_q*) / N. Fading adds E dR_ab dR_cd* = E R_ac R_bd* / T (complex
    Wishart) to the means over the diagonals.

    Args:
        law: array and scattering.
        snr_db: per antenna.
        device: of the result.
    """
    size, angles = law.num_antennas, angle_grid(_NUM_ANGLES).double()
    offsets = (
        laplace_offsets(law.angular_spread_rad, _QUADRATURE) if law.angular_spread_rad > 0 else angles.new_zeros(1)
    )
    step = 2.0 * math.pi * law.spacing_wavelengths * torch.cos(angles[:, None] + offsets)
    lag = torch.arange(2 * size - 1, dtype=torch.float64)
    ahead = torch.exp(-1j * step[..., None] * lag).mean(dim=1)
    mu = torch.cat((ahead[:, 1:].conj().flip(1), ahead), dim=1)
    zero = 2 * size - 2
    noise = 10.0 ** (-snr_db / 10.0)

    def at(lags: Tensor) -> Tensor:
        return mu[:, lags + zero]

    def paired(p: Tensor, q: Tensor) -> Tensor:
        """E r_p r_q* of the channel with its noise."""
        first, second = at(p), at(q).conj()
        channel = first * second + (at(p - q) - first * second) / law.num_paths
        white = noise * ((p == 0) * second + (q == 0) * first) + noise**2 * ((p == 0) & (q == 0))
        return channel + white

    index = torch.arange(size)
    p, q = torch.meshgrid(index, index, indexing="ij")
    hermitian = (at(p - q) - at(p) * at(q).conj()) / law.num_paths
    plain = (at(p + q) - at(p) * at(q)) / law.num_paths
    for one in range(size):
        for other in range(size):
            i, k = torch.meshgrid(torch.arange(size - one), torch.arange(size - other), indexing="ij")
            # (a, b) = (i + one, i) and (c, d) = (k + other, k); without the star c and d change places.
            hermitian[:, one, other] += paired(i + one - k - other, i - k).mean(dim=(1, 2)) / law.snapshots
            plain[:, one, other] += paired(i + one - k, i - k - other).mean(dim=(1, 2)) / law.snapshots
    center = ahead[:, :size]
    # Of r_l / r_0 without noise to first order: dr_l - center_l dr_0; the first row is dr_0 itself.
    change = torch.eye(size, dtype=torch.complex128).repeat(len(angles), 1, 1)
    change[:, 1:, 0] = -center[:, 1:]
    hermitian = change @ hermitian @ change.mH
    plain = change @ plain @ change.mT
    real, imaginary = (hermitian + plain).real / 2, (hermitian - plain).real / 2
    mixed = (plain - hermitian).imag / 2
    joint = torch.cat((torch.cat((real, mixed), dim=2), torch.cat((mixed.mT, imaginary), dim=2)), dim=1)
    kept = torch.cat((torch.arange(1, size), torch.arange(size + 1, 2 * size)))
    identity = torch.eye(len(kept), dtype=torch.float64)
    spread, with_power = joint[:, kept][:, :, kept] + _LOADING * identity, joint[:, kept, 0]
    mean = torch.cat((center[:, 1:].real, center[:, 1:].imag), dim=-1)
    regression = torch.linalg.solve(spread, with_power)
    rest = (joint[:, 0, 0] - (regression * with_power).sum(dim=-1)).clamp(min=0.0)
    tables = (angles, regression.mT.contiguous(), (regression * mean).sum(dim=-1), rest)
    grid, by_lag, offset, rest = (table.float().to(device) for table in tables)
    bearing, power = WhiteLags.of(mean, spread + _SHAPE * identity, device), WhiteLags.of(mean, spread, device)
    return LagLaw(grid, bearing, power, by_lag, offset, rest)


def _normalised_lags(covariance: Complex[Tensor, "N L L"]) -> Float[Tensor, "N D"]:
    """Means over the diagonals by that over the main one, real parts and then imaginary ones, without lag 0."""
    size = covariance.shape[-1]
    means = [torch.diagonal(covariance, -lag, -2, -1).mean(dim=-1) for lag in range(size)]
    lags = torch.stack(means[1:], dim=-1) / means[0].real.unsqueeze(-1)
    return torch.cat((lags.real, lags.imag), dim=-1)


def _posterior(law: LagLaw, lags: Float[Tensor, "N D"]) -> Float[Tensor, "N 4"]:
    """Mean and standard deviation of the direction, and of the error of the power in nepers."""
    share, angle = law.bearing.shares(lags), law.angle_rad
    bearing = share @ angle
    cell = (angle[1] - angle[0]).square() / 12.0
    bearing_variance = (share * (angle - bearing[:, None]).square()).sum(dim=-1) + cell
    share = law.power.shares(lags)
    error = lags @ law.regression - law.offset
    power = (share * error).sum(dim=-1)
    power_variance = (share * ((error - power[:, None]).square() + law.rest_variance)).sum(dim=-1)
    return torch.stack((bearing, bearing_variance.sqrt(), power, power_variance.sqrt()), dim=-1)
