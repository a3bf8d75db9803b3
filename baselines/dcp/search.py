"""Search for the best label-free score, and the centroid, from which every other estimator has to improve."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate, Reason
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.innovations import rss_weighted_centroid
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import into_area, lattice, nearest_image, unit_vectors
from cfpos_envs.physics.similarity import aoa_log_similarity, rss_log_similarity

from ..base import Estimator
from ..neighbour_errors import ErrorModel, Neighbourhood, nearest_spacing_m
from .front_end import DEFAULT_LINKS, LINKS, read_links
from .gauss_newton import link_observations, unknown_shadowing_db
from .judging import LEAST_LINKS, contradict, has_mirror_image
from .links import by_users, cleaned, finished, grid_spacing_m, require_arrays, some_aps, usable_links
from .radio_map import RadioMap, expected_profiles, measured_profiles, sites_with_rows
from .simulated_errors import SimulatedErrors

if TYPE_CHECKING:
    from ..base import Env

_COARSE_BLOCK = 50
_DIRECTIONS = 8
_SIMULATED = 512


@dataclass(frozen=True)
class DirectSearchOptions(Declared):
    """Options of ``direct-search``.

    Attributes:
        grid_spacing: spacing of the coarse grid, metres.
        rounds: rounds of the pattern search; every round looks at eight points around the best one and either goes
            there or halves the pattern. On 100 m, 5 m and 13 rounds make 504 evaluations per user.
        links, link_training: front end, as of ``joint-gn``; with all but ``dft`` the spectrum that is expected from the
            bearing read stands for the measured one.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"grid_spacing": (0.001, 1e5), "rounds": (1, 10_000)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"links": LINKS}

    grid_spacing: float = 5.0
    rounds: int = 13
    links: str = DEFAULT_LINKS
    link_training: bool = True


class DirectSearch(Estimator[RadioMeasurements]):
    """Maximises the ``log`` similarity of RSS and AOA: where a policy rewarded with it would end.

    It does so whatever similarity the environment rewards; see ``log_similarity``.
    """

    name: ClassVar[str] = "direct-search"
    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = DirectSearchOptions
    options: DirectSearchOptions
    _episodes_at_a_time: ClassVar[int | None] = 16

    @property
    def reads_covariance(self) -> bool:
        """With all front ends but ``dft``."""
        return self.options.links != "dft"

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions without covariance; valid with two usable APs or more that do not contradict each other."""
        return by_users(measurements, self._locate_users)

    def _locate_users(self, measurements: RadioMeasurements) -> PositionEstimate:
        links, received = self.options.links, measurements
        require_arrays(self.name, measurements, covariance=links != "dft")
        usable = usable_links(measurements, covariance=links != "dft")
        measurements = cleaned(measurements, usable)
        radio, site, profiles = measurements.radio, RadioMap.of(measurements), measured_profiles(measurements)
        readings = read_links(measurements, links, profiles, link_training=self.options.link_training)
        rss = measurements.rss_dbm + readings.correction_db
        if links != "dft":
            profiles = expected_profiles(radio, readings.bearing_rad)
        spacing = grid_spacing_m(radio.side_m, self.options.grid_spacing)
        episodes, _, num_ues = measurements.rss_dbm.shape
        grid = lattice(radio.side_m, spacing).to(measurements.rss_dbm.device)
        blocks = grid.expand(episodes, num_ues, -1, 2).split(_COARSE_BLOCK, dim=2)
        scores = torch.cat([log_similarity(site, rss, profiles, block, usable) for block in blocks], 2)
        best, index = scores.max(dim=-1)
        points, radius = grid[index], torch.full_like(best, spacing / 2)
        for _ in range(self.options.rounds):
            around = into_area(points.unsqueeze(2) + _ring(radius), radio.side_m, radio.wrap)
            value, chosen = log_similarity(site, rss, profiles, around, usable).max(dim=-1)
            better = value > best
            moved = torch.gather(around, 2, chosen[..., None, None].expand(-1, -1, 1, 2)).squeeze(2)
            points, best = torch.where(better[..., None], moved, points), torch.where(better, value, best)
            radius = torch.where(better, radius, radius / 2)
        evidence = link_observations(measurements, usable, unknown_shadowing_db(measurements), readings)
        mirror = has_mirror_image(received, site, evidence, points, spacing / 2)
        failures = (
            (Reason.LARGE_RESIDUALS, contradict(site, evidence, points, spacing / 2)),
            (Reason.AMBIGUOUS, mirror),
        )
        return finished(received, points, None, usable.sum(dim=1) >= LEAST_LINKS, *failures)


class Centroid(Estimator[RadioMeasurements]):
    """Mean of the AP positions weighted by linear RSS: the start of the RSS game and a floor for estimators."""

    name: ClassVar[str] = "centroid"
    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements

    def __init__(self, env: Env | None = None, options: object = None) -> None:
        super().__init__(env, options)
        self._errors = SimulatedErrors(_centroid_errors)

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the covariance that simulated users teach whom as many APs hear; valid with one or more."""
        usable = usable_links(measurements, aoa=False)
        radio = measurements.radio
        heard = usable.any(dim=1)
        # A user without any link gets them all, so that the centroid is finite; it is marked invalid below.
        mask = usable | ~heard.unsqueeze(1)
        clean = cleaned(measurements, usable)
        aps, rss = measurements.ap_positions_m, clean.rss_dbm
        positions = rss_weighted_centroid(aps, rss, radio.side_m, radio.wrap, mask)
        spread = _ap_spread_m2(aps, rss, positions, mask, radio)
        shadowing_db, covariance = unknown_shadowing_db(clean), spread.clone()
        for site, rows in sites_with_rows(clean):
            known = Neighbourhood(spread[rows].flatten(0, 1), torch.zeros_like(spread[rows, :, 0, 0]).flatten())
            hearing = usable[rows].transpose(1, 2).flatten(0, 1)
            told = self._errors.covariance_m2(site, shadowing_db, hearing, known)
            covariance[rows] = told.to(spread).unflatten(0, (len(rows), -1))
        return finished(measurements, positions, covariance, heard)


def log_similarity(
    site: RadioMap,
    rss_dbm: Float[Tensor, "B M K"],
    profiles: Float[Tensor, "B M K A"],
    points_m: Float[Tensor, "B K C 2"],
    usable: Bool[Tensor, "B M K"],
) -> Float[Tensor, "B K C"]:
    """Similarity s = -log(rms / 1 dB + 0.05) - log(1 - Xi^a) of C candidate points per user.

    Source: Liu et al. (DCP), eq. (7), repaired; see ``physics.similarity``.

    Args:
        site: B episodes' sites.
        rss_dbm: measured RSS.
        profiles: angle profiles of the measured spectra.
        points_m: candidates, metres.
        usable: links that count.
    """
    episodes, num_ues, candidates, _ = points_m.shape
    flat = points_m.flatten(1, 2)
    links = site.links(flat)
    shape = (episodes, -1, num_ues, candidates)
    residual = rss_dbm.unsqueeze(-1) - site.rss_dbm(flat, links).reshape(shape)
    # The nearest entry of a table with quarter-degree steps is as good as an interpolation here and half the cost.
    steps = (profiles.shape[-1] - 1) / math.pi
    index = (links.angle_rad.abs() * steps).round().long().reshape(shape)
    cosine = torch.gather(profiles, -1, index)
    mask = usable.permute(0, 2, 1).unsqueeze(2)
    return rss_log_similarity(residual.permute(0, 2, 3, 1), mask) + aoa_log_similarity(cosine.permute(0, 2, 3, 1), mask)


def _ap_spread_m2(
    aps_m: Tensor, rss_dbm: Tensor, centre_m: Tensor, mask: Tensor, radio: RadioModel
) -> Float[Tensor, "B K 2 2"]:
    """Second moment of the APs around the centroid, by the weights that make it."""
    power = torch.pow(10.0, (rss_dbm - rss_dbm.amax(dim=1, keepdim=True)) / 10.0) * mask
    weight = power / power.sum(dim=1, keepdim=True).clamp(min=torch.finfo(power.dtype).tiny)
    away = nearest_image(aps_m.unsqueeze(2) - centre_m.unsqueeze(1), radio.side_m, radio.wrap)
    return torch.einsum("bmk,bmki,bmkj->bkij", weight, away, away)


def _centroid_errors(site: RadioMap, shadowing_db: float, heard_by: int) -> ErrorModel:
    """Errors of the centroids of users anywhere on a site whose powers follow its law, each heard by so many APs."""
    radio, draw = site.radio, torch.Generator().manual_seed(0)
    points = torch.rand(_SIMULATED, 2, generator=draw) * radio.side_m
    powers = site.rss_dbm(points)
    powers = (powers + shadowing_db * torch.randn(powers.shape, generator=draw)).unsqueeze(0)
    aps, mask = site.ap_positions_m.unsqueeze(0), some_aps(_SIMULATED, len(site.ap_positions_m), heard_by, 0).T[None]
    centres = rss_weighted_centroid(aps, powers, radio.side_m, radio.wrap, mask)
    known = Neighbourhood(_ap_spread_m2(aps, powers, centres, mask, radio)[0], torch.zeros(_SIMULATED))
    error = nearest_image(centres[0] - points, radio.side_m, radio.wrap)
    alone = torch.full((1,), radio.side_m)
    spacing = nearest_spacing_m(site.ap_positions_m, radio.side_m, radio.wrap) if aps.shape[1] > 1 else alone
    model = ErrorModel.of(known, error, spacing)
    assert model is not None
    return model


def _ring(radius_m: Float[Tensor, "B K"]) -> Float[Tensor, "B K 8 2"]:
    directions = unit_vectors(torch.arange(_DIRECTIONS, device=radius_m.device) * (2 * math.pi / _DIRECTIONS))
    return radius_m[..., None, None] * directions
