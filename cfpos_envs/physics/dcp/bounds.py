"""Fisher information and position error bounds for RSS, AOA and both.

Everything inside runs in double precision. The chain is: ``measurement_statistics`` (how precise is one AP, by angle
and SNR) -> ``rss_fisher`` and ``aoa_fisher`` (what all APs say together) -> ``position_error_bound`` or
``error_ellipse``; ``drop_bound`` runs it for the positions of a scenario.

Two kinds of randomness limit an AP: the path angles, frozen while it measures, and the fading over T_s snapshots. Both
enter through their exact covariances; only the shape of the distributions is taken as Gaussian and, as usual for such
bounds, the information in the covariance itself is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.arrays import ula_response
from cfpos_envs.physics.bounds import aoa_fisher, position_error_bound
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import displacement, distance_3d, rotate_quarter
from cfpos_envs.physics.propagation import path_gain_db, sample_maps

DB_PER_NEPER = 10.0 / math.log(10.0)
# Beams far below the main one would promise information without limit in the Gaussian approximation (their variance
# goes to zero with their mean). A unit-norm spectrum is therefore credited with a precision of 1e-3 per beam at best.
SPECTRUM_RESOLUTION = 1e-3
_NUM_ANGLES = 361
_NUM_PEAK_ANGLES = 91
_SNR_GRID_DB = tuple(float(snr) for snr in range(-30, 65, 5))
_QUADRATURE = 1024
_SMALLEST_DISTANCE_M = 1e-3


@dataclass(frozen=True)
class MeasurementStatistics:
    """Precision of what one AP measures of one UE, by SNR (S values) and angle to the array axis (A values).

    Attributes:
        snr_db: SNR of the LS channel estimate per antenna, beta p tau_p / sigma^2, ascending.
        angle_rad: angles from 0 to pi.
        rss_variance_db2: sampling variance of the RSS, dB^2.
        aoa_information_per_rad2: Fisher information on the angle in the normalised angular power spectrum.
    """

    snr_db: Float[Tensor, " S"]
    angle_rad: Float[Tensor, " A"]
    rss_variance_db2: Float[Tensor, "S A"]
    aoa_information_per_rad2: Float[Tensor, "S A"]

    def look_up(
        self, snr_db: Float[Tensor, "*batch"], angle_rad: Float[Tensor, "*batch"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """RSS variance (dB^2) and AOA information (1/rad^2) at any angle (even, 2 pi periodic) and SNR.

        Linear in the angle, geometric in the SNR, because at low SNR the information goes with its square; an SNR off
        the grid is answered with the nearest end.
        """
        snr_step = float(self.snr_db[1] - self.snr_db[0])
        folded = (torch.remainder(angle_rad + math.pi, 2 * math.pi) - math.pi).abs()
        row, up = _cell((snr_db - float(self.snr_db[0])) / snr_step, len(self.snr_db))
        column, right = _cell(folded * ((len(self.angle_rad) - 1) / math.pi), len(self.angle_rad))

        def read(table: Tensor) -> Tensor:
            logs = table.to(angle_rad.device)
            near, far = (
                torch.exp(logs[row, index] * (1 - up) + logs[row + 1, index] * up) for index in (column, column + 1)
            )
            return near * (1 - right) + far * right

        variance, information = self.logs
        return read(variance), read(information)

    @cached_property
    def logs(self) -> tuple[Float[Tensor, "S A"], Float[Tensor, "S A"]]:
        """Natural logarithms of both tables, what is nearly zero raised to 1e-30; taken once."""
        variance, information = (
            table.clamp(min=1e-30).log() for table in (self.rss_variance_db2, self.aoa_information_per_rad2)
        )
        return variance, information


def _cell(scaled: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Index of the grid cell and the place in it, for a coordinate in units of cells clamped to the grid."""
    clamped = scaled.clamp(0.0, float(size - 1))
    low = clamped.floor().clamp(max=float(size - 2))
    return low.long(), clamped - low


def laplace_offsets(spread_rad: float, count: int) -> Float[Tensor, " count"]:
    """Equally likely angles that stand for a Laplacian of standard deviation ``spread_rad``, in double precision."""
    centred = (torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5
    quantiles = -torch.sign(centred) * torch.log1p(-2 * centred.abs())
    return quantiles * (spread_rad / quantiles.std(correction=0))


def beam_moments(
    angle_rad: float, num_antennas: int, spacing_wavelengths: float, spread_rad: float, num_paths: int
) -> tuple[
    Float[Tensor, " L"], Float[Tensor, " L"], Float[Tensor, "L L"], Complex[Tensor, "L L"], Float[Tensor, "L L"]
]:
    """Moments over the path angles of the beam covariance B = F R F^H of a unit-gain channel, eqs. (1) and (5).

    With b_n = F a(theta_n) and independent path angles, B = (1/N) sum_n b_n b_n^H has E B = E b b^H,
    E|B_ij|^2 = |E B_ij|^2 + (E|b_i|^2|b_j|^2 - |E B_ij|^2) / N, and the powers diag(B) have 1/N of the covariance of
    |b|^2. The expectations are one-dimensional integrals over the Laplacian, so no sampling is needed.

    Args:
        angle_rad: mean angle to the array axis.
        num_antennas, spacing_wavelengths: the ULA.
        spread_rad: standard deviation of the local scattering, >= 0.
        num_paths: N.

    Returns:
        Mean powers [L], their derivative by the angle (1/rad) [L], the covariance of the powers over the path angles
        [L, L], the mean of B [L, L] and the mean of |B_ij|^2 [L, L].
    """
    angles = angle_rad + laplace_offsets(spread_rad, _QUADRATURE)
    index = torch.arange(num_antennas, dtype=torch.float64)
    turns = torch.outer(index, index).remainder(num_antennas) / num_antennas
    dft = torch.polar(torch.ones_like(turns), -2 * math.pi * turns)
    steering = ula_response(angles, num_antennas, spacing_wavelengths)
    turning = 2j * math.pi * spacing_wavelengths * index * torch.sin(angles).unsqueeze(-1)
    beams, beam_slopes = steering @ dft, (turning * steering) @ dft
    power = beams.abs().square()
    mean, slope = power.mean(dim=0), 2 * (beams.conj() * beam_slopes).real.mean(dim=0)
    mean_beam = beams.transpose(0, 1) @ beams.conj() / len(angles)
    product = power.transpose(0, 1) @ power / len(angles)
    path_covariance = (product - torch.outer(mean, mean)) / num_paths
    coherent = mean_beam.abs().square()
    return mean, slope, path_covariance, mean_beam, coherent + (product - coherent) / num_paths


def spectrum_information(
    mean: Float[Tensor, "*batch L"],
    slope: Float[Tensor, "*batch L"],
    covariance: Float[Tensor, "*batch L L"],
    resolution: float = SPECTRUM_RESOLUTION,
) -> Float[Tensor, "*batch"]:
    """J(theta) = dmu^T Sigma^-1 dmu of the unit-norm spectrum mu = Theta / |Theta|, Gaussian approximation.

    Args:
        mean: expected spectrum Theta, not yet normalised.
        slope: its derivative by the angle, 1/rad.
        covariance: covariance of Theta.
        resolution: standard deviation per beam of the unit-norm spectrum that no receiver goes below, > 0.
    """
    tilt, spread = _unit_norm(mean, slope, covariance)
    spread = spread + resolution**2 * torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    return (tilt * torch.linalg.solve(spread, tilt.unsqueeze(-1)).squeeze(-1)).sum(dim=-1)


def _unit_norm(mean: Tensor, slope: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and covariance of mu = Theta / |Theta|."""
    norm = torch.linalg.vector_norm(mean, dim=-1)
    direction = mean / norm.unsqueeze(-1)
    eye = torch.eye(mean.shape[-1], dtype=mean.dtype, device=mean.device)
    jacobian = (eye - direction.unsqueeze(-1) * direction.unsqueeze(-2)) / norm[..., None, None]
    return (jacobian @ slope.unsqueeze(-1)).squeeze(-1), jacobian @ covariance @ jacobian.mT


@lru_cache(maxsize=32)
def peak_std_rad(radio: RadioModel) -> Float[Tensor, " A"]:
    """Standard deviation of the angle at which a measured spectrum is most like the expected one, by angle 0 to pi.

    The peak of the cosine mu(theta).Theta / |Theta| weighs all beams alike, so that it is not efficient: with the slope
    t = dmu / dtheta and the covariance S of the unit-norm spectrum its variance is t^T S t / |t|^4, to first order; at
    most half a turn's.

    Args:
        radio: the known constants; noise-free links.
    """
    size, found = radio.num_antennas, []
    for angle in torch.linspace(0.0, math.pi, _NUM_PEAK_ANGLES, dtype=torch.float64).tolist():
        mean, slope, path_covariance, _, squared = beam_moments(
            angle, size, radio.spacing_wavelengths, radio.angular_spread_rad, radio.num_paths
        )
        tilt, spread = _unit_norm(mean, slope, path_covariance + squared / radio.snapshots)
        found.append((tilt @ spread @ tilt).sqrt() / tilt.square().sum().clamp(min=torch.finfo(tilt.dtype).tiny))
    return torch.stack(found).clamp(max=math.pi / 2)


@lru_cache(maxsize=32)
def measurement_statistics(radio: RadioModel) -> MeasurementStatistics:
    """RSS variance and AOA information of the radio for every SNR and angle; computed once per radio.

    Given the path angles, the snapshots make the sample covariance Wishart: cov(Theta_i, Theta_j) = |B_ij|^2 / T_s and
    var(tr R) = tr(R^2) / T_s, with B and R including the noise of the LS estimate.

    Args:
        radio: the known constants; side, path loss and powers do not matter here.
    """
    size = radio.num_antennas
    eye = torch.eye(size, dtype=torch.float64)
    snr_db = torch.tensor(_SNR_GRID_DB, dtype=torch.float64)
    # Noise power relative to a unit-gain channel; white noise adds the same power to each of the L beams.
    floor = (size * torch.pow(10.0, -snr_db / 10))[:, None]
    angle_rad = torch.linspace(0.0, math.pi, _NUM_ANGLES, dtype=torch.float64)
    variance, information = [], []
    for angle in angle_rad.tolist():
        mean, slope, path_covariance, mean_beam, squared = beam_moments(
            angle, size, radio.spacing_wavelengths, radio.angular_spread_rad, radio.num_paths
        )
        own = torch.diagonal(mean_beam).real
        noisy_squared = squared + eye * (2 * floor * own + floor.square()).unsqueeze(-1)
        total = mean + floor
        relative = noisy_squared.sum(dim=(-2, -1)) / (radio.snapshots * total.sum(dim=-1).square())
        variance.append(DB_PER_NEPER**2 * relative)
        covariance = path_covariance + noisy_squared / radio.snapshots
        information.append(spectrum_information(total, slope.expand_as(total), covariance))
    return MeasurementStatistics(snr_db, angle_rad, torch.stack(variance, dim=-1), torch.stack(information, dim=-1))


def rss_gradient(
    vectors_m: Float[Tensor, "*batch 2"], height_diff_m: Float[Tensor, "*#batch"], slope_db: float
) -> Float[Tensor, "*batch 2"]:
    """Gradient of the path loss by the UE position, dB per metre: -(slope / ln 10) d / (|d|^2 + height^2).

    Args:
        vectors_m: horizontal vectors d from AP to UE.
        height_diff_m: height difference.
        slope_db: loss per decade of distance.
    """
    square = vectors_m.square().sum(dim=-1) + height_diff_m.square()
    return -slope_db / math.log(10.0) * vectors_m / square.clamp(min=_SMALLEST_DISTANCE_M**2).unsqueeze(-1)


def map_gradient(
    maps_db: Float[Tensor, "*batch M G G"], points_m: Float[Tensor, "*batch K 2"], side_m: float, wrap: bool
) -> Float[Tensor, "*batch M K 2"]:
    """Gradient of every bilinearly interpolated map (see ``sample_maps``) at every point, dB per metre."""
    num_maps = maps_db.shape[-3]
    with torch.inference_mode(False), torch.enable_grad():
        points = points_m.detach().unsqueeze(-3).repeat_interleave(num_maps, dim=-3).clone().requires_grad_()
        values = sample_maps(maps_db.detach().clone().unsqueeze(-3), points, side_m, wrap)
        (gradient,) = torch.autograd.grad(values.sum(), points)
    return gradient


def rss_fisher(
    gradient_db_per_m: Float[Tensor, "*batch M K 2"], variance_db2: Float[Tensor, "*batch M K"]
) -> Float[Tensor, "*batch K 2 2"]:
    """Fisher information of independent RSS values: sum_m g_m g_m^T / sigma_m^2, 1/m^2.

    Args:
        gradient_db_per_m: slope of the expected RSS at the position (path loss plus the map where it is known).
        variance_db2: sampling variance plus the variance of shadowing that is not known, > 0.
    """
    scaled = gradient_db_per_m / variance_db2.sqrt().unsqueeze(-1)
    return torch.einsum("...mki,...mkj->...kij", scaled, scaled)


def drop_bound(
    radio: RadioModel,
    statistics: MeasurementStatistics,
    ap_positions_m: Float[Tensor, "*batch M 2"],
    ap_orientation_rad: Float[Tensor, "*batch M"],
    height_diff_m: Float[Tensor, "*batch M"],
    positions_m: Float[Tensor, "*batch K 2"],
    shadowing_std_db: Float[Tensor, "*#batch"] | float,
    maps_db: Float[Tensor, "*batch M G G"] | None = None,
    use_rss: bool = True,
    use_aoa: bool = True,
) -> Float[Tensor, "*batch K"]:
    """Position error bound of every UE of a drop, metres.

    Args:
        radio: the known constants.
        statistics: ``measurement_statistics(radio)``.
        ap_positions_m, ap_orientation_rad, height_diff_m: the site.
        positions_m: true positions.
        shadowing_std_db: standard deviation of the shadowing that is *not* known, per batch entry; it adds to the RSS
            variance.
        maps_db: shadowing maps if known; their gradients add to the RSS slope. None: no map.
        use_rss, use_aoa: measurements that count.

    Returns:
        The bound; infinite where the position is not determined.

    Raises:
        ValueError: if neither measurement counts.
    """
    fisher = drop_fisher(
        radio,
        statistics,
        ap_positions_m,
        ap_orientation_rad,
        height_diff_m,
        positions_m,
        shadowing_std_db,
        maps_db,
        use_rss,
        use_aoa,
    )
    return position_error_bound(fisher).to(positions_m.dtype)


def drop_fisher(
    radio: RadioModel,
    statistics: MeasurementStatistics,
    ap_positions_m: Float[Tensor, "*batch M 2"],
    ap_orientation_rad: Float[Tensor, "*batch M"],
    height_diff_m: Float[Tensor, "*batch M"],
    positions_m: Float[Tensor, "*batch K 2"],
    shadowing_std_db: Float[Tensor, "*#batch"] | float,
    maps_db: Float[Tensor, "*batch M G G"] | None = None,
    use_rss: bool = True,
    use_aoa: bool = True,
) -> Float[Tensor, "*batch K 2 2"]:
    """Fisher information behind ``drop_bound`` (same arguments), 1/m^2, double precision."""
    if not (use_rss or use_aoa):
        raise ValueError("a bound needs measurements: set use_rss or use_aoa")
    links = LinksToUsers.of(radio, ap_positions_m, ap_orientation_rad, height_diff_m, positions_m, maps_db)
    variance, information = statistics.look_up(links.snr_db, links.angle_rad)
    fisher = torch.zeros(*positions_m.shape[:-1], 2, 2, dtype=torch.float64, device=positions_m.device)
    if use_aoa:
        fisher = fisher + aoa_fisher(links.vectors_m, information)
    if use_rss:
        # The RSS contains the noise power as well, which flattens it by this factor.
        share = torch.sigmoid(links.snr_db / DB_PER_NEPER)
        hidden = torch.as_tensor(shadowing_std_db, dtype=torch.float64, device=fisher.device)[..., None, None]
        fisher = fisher + rss_fisher(links.power_gradient * share.unsqueeze(-1), variance + (share * hidden).square())
    return fisher


@dataclass(frozen=True)
class LinksToUsers:
    """Links from APs to the true positions, in double precision: what bounds of powers and angles start from.

    Attributes:
        vectors_m: horizontal vectors from AP to UE.
        snr_db: of the LS channel estimate per antenna.
        angle_rad: signed angle to the array axis, any multiple of 2 pi more.
        power_gradient: of the mean power of the signal by the position, dB per metre; with the map's if it is known.
    """

    vectors_m: Float[Tensor, "*batch M K 2"]
    snr_db: Float[Tensor, "*batch M K"]
    angle_rad: Float[Tensor, "*batch M K"]
    power_gradient: Float[Tensor, "*batch M K 2"]

    @property
    def bearing_gradient(self) -> Float[Tensor, "*batch M K 2"]:
        """Of the bearing by the position, radians per metre; distances below 1 mm count as 1 mm."""
        square = self.vectors_m.square().sum(dim=-1, keepdim=True)
        return rotate_quarter(self.vectors_m) / square.clamp(min=_SMALLEST_DISTANCE_M**2)

    @classmethod
    def of(
        cls,
        radio: RadioModel,
        ap_positions_m: Float[Tensor, "*batch M 2"],
        ap_orientation_rad: Float[Tensor, "*batch M"],
        height_diff_m: Float[Tensor, "*batch M"],
        positions_m: Float[Tensor, "*batch K 2"],
        maps_db: Float[Tensor, "*batch M G G"] | None = None,
    ) -> LinksToUsers:
        """Those of a drop, see ``drop_bound``."""
        points, height = positions_m.detach().to(torch.float64), height_diff_m.to(torch.float64).unsqueeze(-1)
        vectors = displacement(ap_positions_m.to(torch.float64), points, radio.side_m, radio.wrap)
        slant = distance_3d(torch.linalg.vector_norm(vectors, dim=-1), height).clamp(min=_SMALLEST_DISTANCE_M)
        gain_db = path_gain_db(slant, radio.path_loss_intercept_db, radio.path_loss_slope_db)
        gradient = rss_gradient(vectors, height, radio.path_loss_slope_db)
        if maps_db is not None:
            maps_db = maps_db.to(torch.float64)
            gain_db = gain_db + sample_maps(maps_db, points, radio.side_m, radio.wrap)
            gradient = gradient + map_gradient(maps_db, points, radio.side_m, radio.wrap)
        snr_db = gain_db + 10 * math.log10(radio.tx_power_w * radio.num_pilots / radio.noise_power_w)
        azimuth = torch.atan2(vectors[..., 1], vectors[..., 0])
        return cls(vectors, snr_db, azimuth - ap_orientation_rad.to(torch.float64).unsqueeze(-1), gradient)
