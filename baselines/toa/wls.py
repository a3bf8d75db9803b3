"""Weighted least squares on ranges: ``toa-wls``, ``rtt-wls`` and ``tdoa-wls``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cfpos_envs.fields import Declared
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.toa import TimingMeasurements

from .common import TimingEstimator, answer
from .links import as_independent_differences, range_links
from .multilateration import solve_ranges


class ToaWls(TimingEstimator):
    """Maximum likelihood from arrival times in line of sight: Levenberg-Marquardt on weighted range residuals."""

    name: ClassVar[str] = "toa-wls"
    families: ClassVar[tuple[str, ...]] = ("toa",)

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        links = range_links(measurements)
        return answer(links, solve_ranges(links))


class RttWls(ToaWls):
    """Maximum likelihood from round trips in line of sight; the mathematics of ``toa-wls`` with their own variances."""

    name: ClassVar[str] = "rtt-wls"
    families: ClassVar[tuple[str, ...]] = ("rtt",)


@dataclass(frozen=True)
class TdoaWlsOptions(Declared):
    """Options of ``tdoa-wls``.

    Attributes:
        independent: the textbook shortcut: differences to one AP as if their errors were independent. They share the
            reference's error, so this is less accurate than the default and its covariance is a guess.
    """

    independent: bool = False


class TdoaWls(TimingEstimator):
    """Maximum likelihood from time differences with their full covariance; other ranges lose their clock."""

    name: ClassVar[str] = "tdoa-wls"
    options_class: ClassVar[type] = TdoaWlsOptions
    options: TdoaWlsOptions

    def _locate(self, measurements: TimingMeasurements) -> PositionEstimate:
        links = range_links(measurements, unknown_offset=True)
        rows = as_independent_differences(links) if self.options.independent else links
        return answer(links, solve_ranges(rows))
