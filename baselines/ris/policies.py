"""The registered estimators of this family: options, the way from measurements to an answer, their part in a game."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.physics.ris.information import clock_variance, without_clock

from ..base import Estimator
from .benchmarks import FORMS, along_strongest_path, cosine_fit_covariance, fit_cosines, nearest_to_lines
from .channel import ChannelOptions
from .pairs import FusedPairs, Misfit, RisEstimate, answer, average, fuse, in_chunks, pair_channels, pair_geometry
from .position import SOLVERS, PairFixes, channel_quality, locate_pairs, path_fixes
from .siso import locate_siso

LABELS = ("energy", "delay")
CHANNELS = {"full": ChannelOptions(), "paper": ChannelOptions("1d", "energy", True, refine=0, gate=0.0)}
FARTHEST_M = 60.0
# The single-antenna search holds a table of all directions and delays per link.
_CHUNK_SISO = 8


@dataclass(frozen=True)
class RisWlsOptions(ChannelOptions):
    """Options of ``ris-wls``; the rest as in ``ChannelOptions``.

    Attributes:
        solver: of stage 2: ``search`` over the bias, ``linear`` reweighted solves, ``exip`` on all parameters together.
        farthest_m: longest distance of a UE from base station or surface.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"farthest_m": (0.001, 1e6)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"solver": SOLVERS}

    solver: str = "search"
    farthest_m: float = FARTHEST_M


@dataclass(frozen=True)
class RisWlsPaperOptions(Declared):
    """Options of ``ris-wls-paper``.

    Attributes:
        label: rank paths by ``energy``, or take the smallest ``delay`` for the line of sight.
        correct_noise: take the noise's share out of the energies first.
        solver, farthest_m: as in ``RisWlsOptions``.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"farthest_m": (0.001, 1e6)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"label": LABELS, "solver": SOLVERS}

    label: str = "energy"
    correct_noise: bool = True
    solver: str = "search"
    farthest_m: float = FARTHEST_M

    @property
    def channel(self) -> ChannelOptions:
        """Stage 1 as the source has it."""
        return ChannelOptions("1d", self.label, self.correct_noise, refine=0, gate=0.0)


@dataclass(frozen=True)
class RisLsOptions(Declared):
    """Options of ``ris-ls``.

    Attributes:
        form: ``nls`` on the cosines, or the point nearest to the ``lines`` of sight.
        channel: stage 1 of ``ris-wls`` (``full``) or of ``ris-wls-paper`` (``paper``).
    """

    choices: ClassVar[Mapping[str, Collection[str]]] = {"form": FORMS, "channel": tuple(CHANNELS)}

    form: str = "nls"
    channel: str = "full"


@dataclass(frozen=True)
class RisAoaToaOptions(Declared):
    """Options of ``ris-aoa-toa``.

    Attributes:
        channel: as in ``RisLsOptions``.
    """

    choices: ClassVar[Mapping[str, Collection[str]]] = {"channel": tuple(CHANNELS)}

    channel: str = "full"


class RisEstimator(Estimator[RisMeasurements]):
    """A one-shot estimator that reads ``RisMeasurements`` and tells clock biases too, see ``RisEstimate``.

    A pair of UE and base station whose samples hold NaN or nothing but zeros, or of whose paths fewer than two are
    strong enough, is left out. What is not ``valid`` has a ``reason`` and a finite position.
    """

    measurement_type: ClassVar[type[Measurements]] = RisMeasurements


class RisWls(RisEstimator):
    """Channel parameters at the bound (2-D departure, projection matching, likelihood steps), then weighted fusion."""

    name = "ris-wls"
    options_class = RisWlsOptions
    options: RisWlsOptions

    def _locate(self, measurements: RisMeasurements) -> RisEstimate:
        return _weighted(measurements, self.options, self.options.solver, self.options.farthest_m)


class RisWlsPaper(RisEstimator):
    """The published pipeline: departure per axis, MUSIC, matching by rank of energy, then weighted fusion."""

    name = "ris-wls-paper"
    options_class = RisWlsPaperOptions
    options: RisWlsPaperOptions

    def _locate(self, measurements: RisMeasurements) -> RisEstimate:
        return _weighted(measurements, self.options.channel, self.options.solver, self.options.farthest_m)


class RisLs(RisEstimator):
    """Benchmark: least squares on arrival angles with equal weights; no delays, no clock."""

    name = "ris-ls"
    options_class = RisLsOptions
    options: RisLsOptions

    def _locate(self, measurements: RisMeasurements) -> RisEstimate:
        system, links = measurements.system, pair_geometry(measurements)
        channels = pair_channels(measurements, links, CHANNELS[self.options.channel])
        position = nearest_to_lines(links, channels.parameters[..., :2], channels.present)
        if self.options.form == "nls":
            position = fit_cosines(links, channels.parameters[..., :2], channels.present, position)
        covariance = channel_quality(system, channels).covariance
        spread = cosine_fit_covariance(links, position, covariance, channels.noise, channels.present)
        return _averaged(measurements, position, spread, channels.valid)


class RisAoaToa(RisEstimator):
    """Benchmark: direction and delay of the strongest path, with the clock taken to be right."""

    name = "ris-aoa-toa"
    options_class = RisAoaToaOptions
    options: RisAoaToaOptions

    def _locate(self, measurements: RisMeasurements) -> RisEstimate:
        system, links = measurements.system, pair_geometry(measurements)
        channels = pair_channels(measurements, links, CHANNELS[self.options.channel])
        fixes = path_fixes(links, channels, channel_quality(system, channels))
        position, covariance = along_strongest_path(channels, fixes, system.window_m)
        return _averaged(measurements, position, covariance, channels.valid)


class RisSiso(RisEstimator):
    """Benchmark: one antenna at either end, departure at one surface and two delays."""

    name = "ris-siso"

    def _locate(self, measurements: RisMeasurements) -> RisEstimate:
        siso, system = measurements.siso, measurements.system
        if siso is None:
            raise ValueError("ris-siso needs measurements.siso (one antenna, profiles in pairs); fill it, see its page")
        links = pair_geometry(measurements)
        received = siso.received.flatten(0, 2)
        pairs = received.shape[0] // max(len(siso.phases), 1)
        phases = siso.phases.repeat_interleave(pairs, dim=0)
        last = (system.ris_shape, system.slopes[4], system.window_m)
        found = in_chunks(
            len(received),
            lambda rows: locate_siso(links.select(rows), phases[rows], received[rows], *last),
            size=_CHUNK_SISO,
        )
        shape = measurements.received.shape[:3]
        unknown = torch.eye(3, dtype=torch.float64, device=received.device).expand(len(received), 3, 3) * FARTHEST_M**2
        estimate = _averaged(measurements, found.position_m, unknown, found.valid)
        bias = found.bias_m.unflatten(0, shape)[..., 0]
        return replace(estimate, bias_m=torch.where(estimate.valid, bias, 0.0))


def _weighted(measurements: RisMeasurements, channel: ChannelOptions, solver: str, farthest_m: float) -> RisEstimate:
    links = pair_geometry(measurements)
    channels = pair_channels(measurements, links, channel)
    pairs = in_chunks(
        len(channels.valid),
        lambda rows: locate_pairs(measurements.system, links.select(rows), channels.select(rows), solver, farthest_m),
    )
    shape = measurements.received.shape[:3]
    position, information = pairs.position_m.unflatten(0, shape), pairs.information.unflatten(0, shape)
    valid = pairs.valid.unflatten(0, shape)
    fused = fuse(
        position, without_clock(information), valid, measurements.link_offset_m, measurements.link_covariance_m2
    )
    # The first base station's clock, moved along with the position that the others and the other UEs have changed.
    first = information[:, :, 0]
    moved = fused.position_m - position[:, :, 0]
    bias = pairs.bias_m.unflatten(0, shape)[:, :, 0] - (first[..., 3, :3] * moved).sum(dim=-1) / first[..., 3, 3]
    known = valid[:, :, 0] & fused.valid
    variance = torch.where(known, clock_variance(first, fused.covariance_m2), torch.inf)
    fit = _misfit(pairs, fused, without_clock(information), shape)
    return answer(measurements, fused.position_m, fused.covariance_m2, fused.valid, farthest_m, (bias, variance), fit)


def _misfit(pairs: PairFixes, fused: FusedPairs, information: Tensor, shape: torch.Size) -> Misfit:
    """Chi squared of every UE: of its pairs, and of their fixes around the position made from all of them."""
    valid = pairs.valid.unflatten(0, shape)
    off = (pairs.position_m.unflatten(0, shape) - fused.position_m.unsqueeze(2)).unsqueeze(-1)
    spread = torch.where(valid, (off.mT @ information @ off)[..., 0, 0].nan_to_num(), 0.0).sum(dim=2)
    own, freedom = (part.unflatten(0, shape).sum(dim=2) for part in (pairs.chi_squared, pairs.degrees_of_freedom))
    # Links between UEs move a position that one pair alone has fixed: then its fix is a measurement more.
    others = 3 * (valid.sum(dim=2) - 1).clamp(min=0)
    return Misfit(own + spread, freedom + others, pairs.at_reach.unflatten(0, shape).any(dim=2))


def _averaged(
    measurements: RisMeasurements, position: torch.Tensor, covariance: torch.Tensor, valid: torch.Tensor
) -> RisEstimate:
    shape = measurements.received.shape[:3]
    valid = valid & torch.isfinite(position).all(dim=-1)
    fused = average(*(value.unflatten(0, shape) for value in (position, covariance, valid)))
    return answer(measurements, fused.position_m, fused.covariance_m2, fused.valid, FARTHEST_M)
