"""Bearings from array covariances (beamscan, MUSIC) and their robust triangulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.innovations import nominal_bearing_scale

from ..base import (
    Estimator,
    cleaned,
    finished,
    in_chunks,
    radio_measurements,
    require_positive,
    usable_links,
)
from .gauss_newton import (
    LinkObservations,
    coarse_fix,
    gauss_newton,
    link_observations,
    unknown_shadowing_db,
)
from .radio_map import Site
from .spectra import covariance_bearings

_CHUNK = 32
_RSS_STEPS = 12
_START_STD_M = 2.0


@dataclass(frozen=True)
class BearingOptions:
    """Options of ``music`` and ``beamscan``.

    Attributes:
        num_angles: directions of the spectrum between 0 and pi, >= 3; a parabola refines between them.
        steps: Gauss-Newton steps of the triangulation, >= 1.
        grid_spacing: spacing of the coarse RSS search that gives the start, metres.
    """

    num_angles: int = 361
    steps: int = 12
    grid_spacing: float = 5.0

    def __post_init__(self) -> None:
        if self.num_angles < 3:
            raise ValueError(f"num_angles is {self.num_angles}; it must be at least 3")
        require_positive("steps", self.steps)
        require_positive("grid_spacing", self.grid_spacing)


class _Bearings(Estimator):
    """Bearing per link, then robust triangulation started from the RSS fix; ``name`` is the spectrum."""

    options_class: ClassVar[type] = BearingOptions

    def bearings(self, measurements: RadioMeasurements) -> Float[Tensor, "B M K"]:
        """Bearing of every link to its array's axis, in [0, pi] (a ULA cannot tell front from back)."""
        return covariance_bearings(measurements.covariance, measurements.radio, self.name, self.options.num_angles)

    def locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the covariance from the bearings' information; valid with two usable APs or more."""
        return in_chunks(radio_measurements(measurements, self.name), _CHUNK, self._locate)

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        usable = usable_links(measurements) & torch.isfinite(measurements.covariance.abs()).all(dim=-1).all(dim=-1)
        measurements = cleaned(measurements, usable)
        radio, site = measurements.radio, Site.of(measurements)
        shadowing_db = unknown_shadowing_db(measurements)
        spacing = self.options.grid_spacing
        coarse = coarse_fix(measurements, usable, shadowing_db, None, spacing)
        rss = link_observations(measurements, usable, shadowing_db, None)
        start, _ = gauss_newton(site, rss, coarse, spacing, _RSS_STEPS)
        bearing = self.bearings(measurements)
        links = LinkObservations(usable, bearing_rad=bearing, bearing_std_rad=nominal_bearing_scale(bearing))
        positions, covariance = gauss_newton(site, links, start, _START_STD_M, self.options.steps)
        return finished(positions, covariance, usable.sum(dim=1) >= 2, radio.side_m, radio.wrap)


class Beamscan(_Bearings):
    """Bearing with the highest beam power, the maximum-likelihood one for a single plane wave."""

    name: ClassVar[str] = "beamscan"


class Music(_Bearings):
    """Bearing whose steering vector is most nearly orthogonal to the noise subspace, for one source."""

    name: ClassVar[str] = "music"
