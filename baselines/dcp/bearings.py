"""Bearings from array covariances (beamscan, MUSIC) and their robust triangulation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.covariance.readings import LinkReadings

from ..base import Estimator
from .descent import LinkObservations, robust_gauss_newton
from .front_end import LINKS, read_links
from .gauss_newton import coarse_fix, link_observations, unknown_shadowing_db
from .judging import judged
from .links import by_users, cleaned, require_arrays, usable_links
from .radio_map import RadioMap, measured_profiles

_RSS_STEPS = 12
_START_STD_M = 2.0


@dataclass(frozen=True)
class BearingOptions(Declared):
    """Options of ``music`` and ``beamscan``.

    Attributes:
        num_angles: directions of the spectrum between 0 and pi, >= 3; a parabola refines between them.
        steps: Gauss-Newton steps of the triangulation, >= 1.
        grid_spacing: spacing of the coarse RSS search that gives the start, metres.
        links, link_training: front end that gives bearings and their deviations, as of ``joint-gn``; None: the policy's
            own spectrum.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "num_angles": (3, 100_000),
        "steps": (1, 10_000),
        "grid_spacing": (0.001, 1e5),
    }

    choices: ClassVar[Mapping[str, Collection[str]]] = {"links": LINKS}

    num_angles: int = 361
    steps: int = 12
    grid_spacing: float = 5.0
    links: str | None = None
    link_training: bool = True


class _Bearings(Estimator[RadioMeasurements]):
    """Bearing per link, then robust triangulation started from the RSS fix; ``name`` is the spectrum."""

    measurement_type: ClassVar[type[Measurements]] = RadioMeasurements
    options_class: ClassVar[type] = BearingOptions
    options: BearingOptions
    _episodes_at_a_time: ClassVar[int | None] = 32

    @property
    def reads_covariance(self) -> bool:
        """With all front ends but ``dft``."""
        return (self.options.links or self.name) != "dft"

    def readings(self, measurements: RadioMeasurements) -> LinkReadings:
        """Of every link, by the front end."""
        links = self.options.links or self.name
        profiles = measured_profiles(measurements) if links == "dft" else None
        return read_links(measurements, links, profiles, self.options.num_angles, self.options.link_training)

    def _locate(self, measurements: RadioMeasurements) -> PositionEstimate:
        """Positions with the covariance from the bearings' information; ``judging`` says which to believe."""
        return by_users(measurements, self._locate_users)

    def _locate_users(self, measurements: RadioMeasurements) -> PositionEstimate:
        require_arrays(self.name, measurements, covariance=True)
        usable = usable_links(measurements, covariance=True)
        clean = cleaned(measurements, usable)
        site, shadowing_db, spacing = RadioMap.of(clean), unknown_shadowing_db(clean), self.options.grid_spacing
        coarse = coarse_fix(clean, usable, shadowing_db, None, spacing)
        rss = link_observations(clean, usable, shadowing_db, None)
        start = robust_gauss_newton(site, rss, coarse.best_m, spacing, _RSS_STEPS).position_m
        read = self.readings(clean)
        links = LinkObservations(usable, bearing_rad=read.bearing_rad, bearing_std_rad=read.bearing_std_rad)
        fit = robust_gauss_newton(site, links, start, _START_STD_M, self.options.steps)
        # The powers chose the start, so they may say which of two crossings of the bearings is meant.
        everything = link_observations(clean, usable, shadowing_db, read)
        return judged(measurements, site, links, fit, coarse, evidence=everything)


class Beamscan(_Bearings):
    """Bearing with the highest beam power, the maximum-likelihood one for a single plane wave."""

    name: ClassVar[str] = "beamscan"


class Music(_Bearings):
    """Bearing whose steering vector is most nearly orthogonal to the noise subspace, for one source."""

    name: ClassVar[str] = "music"
