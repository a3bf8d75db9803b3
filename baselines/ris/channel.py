"""Stage 1 as a whole: from one received block to the channel parameters of every path, for many blocks at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Rows
from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.modes import BS_MODES, DELAY_MODE, UE_MODES, mode_vector

from .assignment import MOST_PATHS, by_delay, by_energy, line_of_sight_rank, project_angles, project_delays
from .departure import departure_1d, departure_2d
from .harmonics import music, wrapped_cosine
from .refine import refine
from .separation import (
    Covariances,
    Separation,
    axis_covariance,
    candidate_energy,
    covariances,
    noise_variance,
    separate,
)

AODS = ("2d", "1d")
MATCHINGS = ("projection", "energy", "delay")
# Stage 2 needs two paths: one gives three equations for four unknowns.
FEWEST_PATHS = 2


@dataclass(frozen=True)
class ChannelOptions(Declared):
    """How the channel is estimated; validated.

    Attributes:
        aod: search for the departure of the line of sight over both axes at once (``2d``) or one after another.
        matching: ``projection``, ``energy`` or ``delay``, see ``assignment``.
        correct_noise: take the noise's share out of the energies that are ranked.
        refine: Gauss-Newton steps on the likelihood.
        gate: paths with |g|^2 U B N below this many noise variances are dropped, the rest estimated again; 0: off.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"refine": (0, 100), "gate": (0, 1e9)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"aod": AODS, "matching": MATCHINGS}

    aod: str = "2d"
    matching: str = "projection"
    correct_noise: bool = True
    refine: int = 3
    gate: float = 30.0


@dataclass(frozen=True)
class ChannelEstimate(Rows):
    """What stage 1 hands to stage 2; T blocks, L paths, path 0 the line of sight.

    Attributes:
        parameters [T, L, 5]: (theta_1, theta_2, psi_1, psi_2, delay_m), delays unwrapped.
        gains [T, L]: zero for absent paths.
        noise [T]: variance per entry of the block.
        present [T, L]: paths that passed the gate.
        statistic [T, L]: |g|^2 U B N over the noise, of the last time that a path was estimated.
        valid [T]: finite, not empty, at least two paths.
    """

    parameters: Float[Tensor, "T L 5"]
    gains: Complex[Tensor, "T L"]
    noise: Float[Tensor, " T"]
    present: Bool[Tensor, "T L"]
    statistic: Float[Tensor, "T L"]
    valid: Bool[Tensor, " T"]

    def with_rows(self, rows: Tensor, other: ChannelEstimate) -> ChannelEstimate:
        """This estimate with blocks ``rows`` taken from ``other``."""
        changed = {}
        for entry in fields(self):
            value = getattr(self, entry.name).clone()
            value[rows] = getattr(other, entry.name)
            changed[entry.name] = value
        return ChannelEstimate(**changed)


def check_system(system: RisSystem, paths: int) -> None:
    """Refuse arrays that cannot resolve ``paths`` paths.

    Raises:
        ValueError: names the first number that is too small.
    """
    u1, u2, b1, b2, n = system.sizes
    if min(u1, u2) < 2:
        raise ValueError(f"ue_shape={system.ue_shape} determines no direction; give at least 2 elements per axis")
    if min(b1, b2) < 2 or b1 * b2 <= paths:
        raise ValueError(f"bs_shape={system.bs_shape} must be at least (2, 2) and hold more than {paths} elements")
    if n <= paths:
        raise ValueError(f"num_subcarriers={n} must exceed the number of paths, {paths}")
    if paths > MOST_PATHS:
        raise ValueError(f"{paths - 1} surfaces are too many for the matching; use at most {MOST_PATHS - 1}")


def estimate_channels(
    system: RisSystem,
    received: Complex[Tensor, "T U1 U2 B1 B2 N"],
    departures: Float[Tensor, "T R 2"],
    options: ChannelOptions,
) -> ChannelEstimate:
    """Stage 1 on T blocks. Blocks that hold NaN or nothing but zeros are not ``valid`` and leave the others alone.

    Args:
        system: the known radio.
        received: Y.
        departures: known cosines at the base station towards the surfaces, double precision.
        options: see there.

    Raises:
        ValueError: arrays too small for the number of paths.
    """
    blocks, paths = received.shape[0], departures.shape[1] + 1
    check_system(system, paths)
    power = received.abs().amax(dim=(1, 2, 3, 4, 5))
    usable = torch.isfinite(power) & (power > 0)
    found = _nothing(blocks, departures)
    rows = usable.nonzero().squeeze(-1)
    if len(rows):
        everything = torch.ones(len(rows), paths, dtype=torch.bool, device=received.device)
        chosen = received if len(rows) == blocks else received[rows]
        found = found.with_rows(rows, _gated(system, chosen, departures[rows], options, everything))
    return found


def _gated(
    system: RisSystem, received: Tensor, departures: Tensor, options: ChannelOptions, present: Tensor
) -> ChannelEstimate:
    """Estimate, drop what is too weak, estimate what is left again, until nothing is dropped."""
    found = _once(system, received, departures, options, present)
    kept = found.present & (found.statistic >= options.gate)
    rows = ((kept != found.present).any(dim=-1) & found.valid).nonzero().squeeze(-1)
    if not len(rows):
        return found
    enough = kept[rows].sum(dim=-1) >= FEWEST_PATHS
    hopeless, again = rows[~enough], rows[enough]
    if len(again):
        other = _gated(system, received[again], departures[again], options, kept[again])
        # The statistic of a dropped path stays what it was dropped for.
        statistic = torch.where(kept[again], other.statistic, found.statistic[again])
        other = replace(other, statistic=statistic)
        found = found.with_rows(again, other)
    valid, remaining = found.valid.clone(), found.present.clone()
    valid[hopeless], remaining[hopeless] = False, kept[hopeless]
    return replace(found, valid=valid, present=remaining)


def _once(
    system: RisSystem, received: Tensor, departures: Tensor, options: ChannelOptions, present: Tensor
) -> ChannelEstimate:
    sizes, slopes = system.sizes, system.slopes
    u1, u2, b1, b2, n = sizes
    matrices = covariances(received)
    noise = noise_variance(matrices.bs, present.sum(dim=-1), u1 * u2 * n)
    departure = torch.cat((line_of_sight(matrices, system, departures, present, options.aod), departures), dim=1)
    correction = noise if options.correct_noise else torch.zeros_like(noise)
    parts = separate(received, departure, present, slopes, correction)
    lists, entries = candidates(system, matrices, present), u1 * u2 * b1 * b2 * n
    if options.matching == "projection":
        arrival, delay = by_projection(system, lists, parts, present)
    else:
        arrival, delay = by_rank(lists, parts, present, correction, entries, options.matching)
    start = torch.cat((arrival, departure, delay.unsqueeze(-1)), dim=-1)
    parameters, gains = refine(received, sizes, slopes, start, present, options.refine)
    delay = unwrapped(parameters[..., DELAY_MODE], present, system.window_m)
    parameters = torch.cat((parameters[..., :DELAY_MODE], delay.unsqueeze(-1)), dim=-1)
    statistic = gains.abs().square() * entries / noise.unsqueeze(-1)
    finite = torch.isfinite(parameters).all(dim=(-1, -2)) & torch.isfinite(statistic).all(dim=-1)
    return ChannelEstimate(parameters, gains, noise, present, statistic, finite)


def line_of_sight(matrices: Covariances, system: RisSystem, departures: Tensor, present: Tensor, search: str) -> Tensor:
    """Cosines [T, 1, 2] of the direct path at the base station."""
    slopes = (system.slopes[BS_MODES[0]], system.slopes[BS_MODES[1]])
    if search == "2d":
        return departure_2d(matrices.bs, system.bs_shape, slopes, departures, present[:, 1:]).unsqueeze(1)
    axes = [
        departure_1d(
            axis_covariance(matrices.bs, system.bs_shape, axis), slopes[axis], departures[..., axis], present[:, 1:]
        )
        for axis in range(2)
    ]
    return torch.stack(axes, dim=-1).unsqueeze(1)


@dataclass(frozen=True)
class Candidates:
    """The MUSIC peaks of one axis, and the covariance and the slope that they come from."""

    covariance: Tensor
    peaks: Tensor
    exists: Tensor
    slope: float


def candidates(system: RisSystem, matrices: Covariances, present: Tensor) -> tuple[Candidates, Candidates, Candidates]:
    """Delays, unwrapped, and cosines on both axes of the UE."""
    paths, sources = present.shape[-1], present.sum(dim=-1)
    axes = [axis_covariance(matrices.ue, system.ue_shape, axis) for axis in range(2)]
    modes = ((matrices.subcarriers, DELAY_MODE), *zip(axes, UE_MODES))
    delay, first, second = (
        Candidates(matrix, *music(matrix, system.slopes[mode], paths, sources), system.slopes[mode])
        for matrix, mode in modes
    )
    return replace(delay, peaks=unwrapped(delay.peaks, delay.exists, system.window_m)), first, second


def by_projection(
    system: RisSystem, lists: tuple[Candidates, Candidates, Candidates], parts: Separation, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Arrival cosines and delays of all paths by their own signatures."""
    delays, first, second = lists
    delay = project_delays(parts.signatures, delays.peaks, delays.exists, present, delays.slope)
    wave = mode_vector(delay, system.num_subcarriers, delays.slope).conj()
    focused = (parts.signatures @ wave.unsqueeze(-1)).squeeze(-1).unflatten(-1, system.ue_shape)
    arrival = project_angles(
        focused, (first.peaks, second.peaks), (first.exists, second.exists), (first.slope, second.slope)
    )
    return arrival, delay


def by_rank(
    lists: tuple[Candidates, Candidates, Candidates],
    parts: Separation,
    present: Tensor,
    noise: Tensor,
    entries: int,
    label: str,
) -> tuple[Tensor, Tensor]:
    """Arrival cosines and delays of all paths by rank of energy."""
    path_energy = torch.where(present, parts.energy, -torch.inf)
    energies = [
        candidate_energy(entry.covariance, entry.peaks, entry.exists, entry.slope, noise, entries) for entry in lists
    ]
    matched = [by_energy(path_energy, energy, entry.peaks) for energy, entry in zip(energies, lists)]
    if label == "delay":
        rank = line_of_sight_rank(energies[0], lists[0].peaks)
        labelled = [by_delay(path_energy, energy, entry.peaks, rank) for energy, entry in zip(energies, lists)]
        # Without a line of sight the smallest delay belongs to no known path.
        matched = [torch.where(present[:, :1], one, other) for one, other in zip(labelled, matched)]
    return wrapped_cosine(torch.stack(matched[1:], dim=-1)), matched[0]


def unwrapped(
    delays_m: Float[Tensor, "*batch L"], present: Bool[Tensor, "*batch L"], window_m: float
) -> Float[Tensor, "*batch L"]:
    """Delays counted from behind their largest circular gap, so that differences between paths are right.

    Args:
        delays_m: in any window, metres.
        present: the others are ignored and left where they are, in [0, window).
        window_m: c N / B.

    Returns:
        Delays in [0, 2 window): those below the start of the longest arc without delays gain one window.
    """
    delays = torch.remainder(delays_m, window_m)
    # A tiny negative delay is rounded up to the window itself.
    delays = torch.where(delays < window_m, delays, 0.0)
    # An absent delay stands in the place of the first present one: it opens no gap.
    first = delays.gather(-1, present.int().argmax(dim=-1, keepdim=True))
    ordered = torch.where(present, delays, first).sort(dim=-1).values
    following = torch.cat((ordered[..., 1:], ordered[..., :1] + window_m), dim=-1)
    widest = (following - ordered).argmax(dim=-1, keepdim=True)
    start = torch.remainder(following.gather(-1, widest), window_m)
    # The start is one of the delays but for rounding, which must not send it round the circle.
    return delays + window_m * (present & (delays < start - 1e-9 * window_m))


def _nothing(blocks: int, departures: Tensor) -> ChannelEstimate:
    paths = departures.shape[1] + 1
    zero = departures.new_zeros(blocks, paths)
    return ChannelEstimate(
        parameters=departures.new_zeros(blocks, paths, 5),
        gains=zero.to(torch.complex128),
        noise=departures.new_zeros(blocks),
        present=torch.zeros_like(zero, dtype=torch.bool),
        statistic=zero,
        valid=torch.zeros(blocks, dtype=torch.bool, device=departures.device),
    )
