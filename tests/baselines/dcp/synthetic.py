"""Radio measurements drawn straight from the physics functions, for tests of estimators without any scenario."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.dcp.radio_map import RadioMap
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.arrays import angular_power, scattered_spectra, ula_response
from cfpos_envs.physics.dcp.bounds import drop_bound, measurement_statistics
from cfpos_envs.physics.dcp.channel import channel_covariance, draw_sample_covariance, path_angles, rss_w
from cfpos_envs.physics.dcp.links import Links, link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import nearest_image, uniform_layout
from cfpos_envs.physics.propagation import path_gain_db, sample_maps, shadowing_maps
from cfpos_envs.physics.units import thermal_noise_w, watts_to_dbm

SIDE_M = 100.0
HEIGHT_M = 10.0


@dataclass(frozen=True)
class Drop:
    measurements: RadioMeasurements
    truth_m: Tensor
    maps_db: Tensor | None


def radio_model(num_antennas: int = 8, snapshots: int = 100, wrap: bool = True, spread_deg: float = 10.0) -> RadioModel:
    return RadioModel(
        side_m=SIDE_M,
        wrap=wrap,
        path_loss_intercept_db=-30.5,
        path_loss_slope_db=36.7,
        tx_power_w=0.1,
        num_pilots=6,
        noise_power_w=thermal_noise_w(200e3, 7.0),
        num_antennas=num_antennas,
        spacing_wavelengths=0.5,
        angular_spread_rad=math.radians(spread_deg),
        num_paths=20,
        snapshots=snapshots,
    )


def draw_drops(
    episodes: int,
    seed: int,
    *,
    num_aps: int = 36,
    num_ues: int = 6,
    num_sites: int = 4,
    shadowing_db: float = 0.0,
    map_known: bool = False,
    radio: RadioModel | None = None,
    positions_m: Tensor | None = None,
) -> Drop:
    radio = radio or radio_model()
    generator = torch.Generator().manual_seed(seed)
    layouts = [uniform_layout(generator, num_aps, radio.side_m, radio.wrap) for _ in range(num_sites)]
    turns = torch.rand(num_sites, num_aps, generator=generator) * 2 * math.pi
    site_ids = torch.arange(episodes) % num_sites
    aps, orientation = torch.stack(layouts)[site_ids], turns[site_ids]
    maps = None
    if shadowing_db > 0:
        drawn = [
            shadowing_maps(generator, num_aps, radio.side_m, radio.wrap, 2.0, shadowing_db, 9.0)
            for _ in range(num_sites)
        ]
        maps = torch.stack(drawn)[site_ids]
    truth = positions_m
    if truth is None:
        truth = torch.rand(episodes, num_ues, 2, generator=generator) * radio.side_m
    links = link_geometry(aps, orientation, torch.full(aps.shape[:-1], HEIGHT_M), truth, radio.side_m, radio.wrap)
    gain_db = path_gain_db(links.distance_3d_m, radio.path_loss_intercept_db, radio.path_loss_slope_db)
    if maps is not None:
        gain_db = gain_db + sample_maps(maps, truth, radio.side_m, radio.wrap)
    covariance = _covariance(generator, radio, links, gain_db)
    measurements = RadioMeasurements(
        radio=radio,
        ap_positions_m=aps,
        ap_orientation_rad=orientation,
        height_diff_m=torch.full(aps.shape[:-1], HEIGHT_M),
        rss_dbm=watts_to_dbm(rss_w(covariance, radio.tx_power_w, radio.num_pilots)),
        angular_power=angular_power(covariance),
        covariance=covariance,
        shadowing_maps=maps if map_known else None,
        shadowing_std_db=shadowing_db,
        site_ids=site_ids,
    )
    return Drop(measurements, truth, maps)


def errors_m(drop: Drop, positions_m: Tensor) -> Tensor:
    radio = drop.measurements.radio
    return torch.linalg.vector_norm(nearest_image(positions_m - drop.truth_m, radio.side_m, radio.wrap), dim=-1)


def rmse_m(drop: Drop, positions_m: Tensor) -> float:
    return float(errors_m(drop, positions_m).square().mean().sqrt())


def _covariance(generator: torch.Generator, radio: RadioModel, links: Links, gain_db: Tensor) -> Tensor:
    # Double precision: the noise floor lies up to 75 dB below the signal, where single precision turns indefinite.
    angles = path_angles(generator, links.angle_rad, radio.num_paths, radio.angular_spread_rad).double()
    gain = torch.pow(10.0, gain_db.double() / 10.0)
    mean = channel_covariance(angles, gain, radio.num_antennas, radio.spacing_wavelengths)
    noise = radio.noise_power_w / (radio.tx_power_w * radio.num_pilots)
    mean = mean + noise * torch.eye(radio.num_antennas, dtype=mean.dtype)
    return draw_sample_covariance(generator, mean, radio.snapshots).to(torch.complex64)


def noise_free_drop(positions_m: Tensor, seed: int, *, radio: RadioModel | None = None) -> Drop:
    """What the network would measure at the points [B, K, 2] without sampling noise: exactly the predictions."""
    drawn = draw_drops(len(positions_m), seed, num_sites=1, radio=radio, positions_m=positions_m)
    measurements = drawn.measurements
    radio = measurements.radio
    site = RadioMap.of(measurements)
    links = site.links(positions_m)
    spectra = scattered_spectra(
        links.angle_rad, radio.num_antennas, radio.spacing_wavelengths, radio.angular_spread_rad
    )
    steering = ula_response(links.angle_rad, radio.num_antennas, radio.spacing_wavelengths)
    covariance = steering.unsqueeze(-1) * steering.conj().unsqueeze(-2) + 1e-3 * torch.eye(radio.num_antennas)
    exact = dataclasses.replace(
        measurements,
        rss_dbm=site.rss_dbm(positions_m, links),
        angular_power=spectra,
        covariance=covariance,
    )
    return Drop(exact, positions_m, None)


def with_lost_links(measurements: RadioMeasurements, lost: Tensor, value: float = math.nan) -> RadioMeasurements:
    """The measurements with ``value`` where ``lost`` [B, M, K] is true."""
    return dataclasses.replace(
        measurements,
        rss_dbm=measurements.rss_dbm.masked_fill(lost, value),
        angular_power=measurements.angular_power.masked_fill(lost.unsqueeze(-1), value),
        covariance=measurements.covariance.masked_fill(lost[..., None, None], value),
    )


def bound_m(drop: Drop, *, use_rss: bool = True, use_aoa: bool = True) -> float:
    """Root mean squared position error bound of the drop."""
    measurements = drop.measurements
    known = measurements.shadowing_maps is not None
    bounds = drop_bound(
        measurements.radio,
        measurement_statistics(measurements.radio),
        measurements.ap_positions_m,
        measurements.ap_orientation_rad,
        measurements.height_diff_m,
        drop.truth_m,
        0.0 if known else measurements.shadowing_std_db,
        measurements.shadowing_maps,
        use_rss,
        use_aoa,
    )
    return float(bounds.square().mean().sqrt())
