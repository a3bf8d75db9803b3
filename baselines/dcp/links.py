"""Which links of power and angle measurements count, harmless numbers for the others, and finite answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate, Reason, first_reason
from cfpos_envs.measurements.dcp import RadioMeasurements
from cfpos_envs.physics.dcp.innovations import signal_at_one_metre_dbm
from cfpos_envs.physics.geometry import into_area

_LEAST_CEILING_DBM = 0.0
_ABOVE_FOOT_DB = 20.0
_SMALLEST_SLANT_M = 0.1
_MOST_POINTS_BY_SIDE = 128
_USERS_AT_A_TIME = 256
_STEPS_PER_OCTAVE = 2
_ROUNDING = 1e-6
_SETS_OF_APS = 16


def by_heard_aps(heard: Bool[Tensor, "Q M"]) -> Iterator[tuple[Int[Tensor, " q"], Int[Tensor, " m"]]]:
    """Users with the same set of APs that heard them, and these APs; those whom nobody heard are left out.

    Args:
        heard: by user and AP.
    """
    patterns, member = heard.unique(dim=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        if bool(pattern.any()):
            yield torch.nonzero(member == number).squeeze(-1), torch.nonzero(pattern).squeeze(-1)


def alike_counts(heard: Bool[Tensor, "Q M"]) -> Int[Tensor, " Q"]:
    """How many APs heard every user, rounded down to M / 2^(i / 2): numbers that errors are learned for once each."""
    count, most = heard.sum(dim=1), heard.shape[1]
    steps = (_STEPS_PER_OCTAVE * torch.log2(most / count.clamp(min=1).double()) - _ROUNDING).ceil()
    rounded = (most * 2.0 ** (-steps / _STEPS_PER_OCTAVE) + _ROUNDING).floor().long().clamp(min=1)
    return torch.minimum(rounded, count)


def some_aps(users: int, aps: int, count: int, seed: int) -> Bool[Tensor, "Q M"]:
    """Which APs hear users of whom each is heard by ``count``; a few sets of APs, one after the other."""
    draw = torch.Generator().manual_seed(seed)
    rank = torch.rand(min(users, _SETS_OF_APS), aps, generator=draw).argsort(dim=1).argsort(dim=1)
    return (rank < count)[torch.arange(users) % len(rank)]


def grid_spacing_m(side_m: float, wanted_m: float) -> float:
    """Spacing of a coarse grid: the one wanted, coarser where the area is so large that memory would not do."""
    return max(min(wanted_m, side_m), side_m / _MOST_POINTS_BY_SIDE)


def by_users(
    measurements: RadioMeasurements, locate: Callable[[RadioMeasurements], PositionEstimate]
) -> PositionEstimate:
    """What ``locate`` answers, a few hundred users at a time: memory must not grow with their number."""
    users = measurements.rss_dbm.shape[2]
    if users <= _USERS_AT_A_TIME:
        return locate(measurements)
    parts = [locate(_of_users(measurements, low)) for low in range(0, users, _USERS_AT_A_TIME)]
    columns = {name: [getattr(part, name) for part in parts] for name in parts[0].__dict__}
    joined = {name: torch.cat(column, dim=1) for name, column in columns.items() if column[0] is not None}
    return dataclasses.replace(parts[0], **joined)


def _of_users(measurements: RadioMeasurements, low: int) -> RadioMeasurements:
    some, m = slice(low, low + _USERS_AT_A_TIME), measurements
    return dataclasses.replace(
        m,
        rss_dbm=m.rss_dbm[:, :, some],
        angular_power=None if m.angular_power is None else m.angular_power[:, :, some],
        covariance=None if m.covariance is None else m.covariance[:, :, some],
    )


def require_arrays(name: str, measurements: RadioMeasurements, *, covariance: bool = False) -> None:
    """Refuse measurements without the angles that a method lives on.

    Args:
        name: of the policy.
        measurements: of any kind.
        covariance: the spectrum is not enough.

    Raises:
        ValueError: says what is missing and what can be used instead.
    """
    if covariance and measurements.covariance is None:
        raise ValueError(
            f"{name} needs array covariances, these measurements have none; give covariance= to "
            "RadioMeasurements.from_arrays, or use rss-gn"
        )
    if measurements.angular_power is None:
        raise ValueError(
            f"{name} needs angles, these measurements hold received powers only; give covariance= to "
            "RadioMeasurements.from_arrays, or use rss-gn, centroid, or fingerprint and gpr with feature='rss-db'"
        )


def ceiling_dbm(measurements: RadioMeasurements) -> Float[Tensor, "B M 1"]:
    """RSS from which on a reading cannot be right, see ``RadioMeasurements``."""
    height_m = measurements.height_diff_m.unsqueeze(-1)
    if measurements.ceiling_dbm is not None:
        return torch.full_like(height_m, measurements.ceiling_dbm)
    radio = measurements.radio
    slant_m = height_m.abs().clamp(min=_SMALLEST_SLANT_M)
    foot_dbm = signal_at_one_metre_dbm(radio) - radio.path_loss_slope_db * torch.log10(slant_m)
    return (foot_dbm + _ABOVE_FOOT_DB).clamp(min=_LEAST_CEILING_DBM)


def usable_links(
    measurements: RadioMeasurements, *, aoa: bool = True, covariance: bool = False
) -> Bool[Tensor, "B M K"]:
    """Links with an RSS that is finite and not too high to be right, and whose arrays measured something.

    No or negative power is not finite in dBm.

    Args:
        measurements: with NaN or zeros where nothing was measured.
        aoa: the spectrum must be usable.
        covariance: the covariance must be usable, where there is one.
    """
    heard = torch.isfinite(measurements.rss_dbm) & (measurements.rss_dbm < ceiling_dbm(measurements))
    if aoa and measurements.angular_power is not None:
        spectrum = measurements.angular_power
        heard = heard & torch.isfinite(spectrum).all(dim=-1) & (spectrum.sum(dim=-1) > 0)
    if covariance and measurements.covariance is not None:
        entries = torch.view_as_real(measurements.covariance.resolve_conj()).flatten(-3)
        power = torch.diagonal(measurements.covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
        heard = heard & torch.isfinite(entries).all(dim=-1) & (power > 0)
    return heard


def cleaned(measurements: RadioMeasurements, usable: Bool[Tensor, "B M K"]) -> RadioMeasurements:
    """The measurements with harmless numbers in place of unusable links, so that nothing downstream turns NaN.

    The weakest usable RSS of the batch stands in for a missing one; spectrum and covariance become white.
    """
    if bool(usable.all()):
        return measurements
    finite = measurements.rss_dbm[usable]
    floor = finite.min() if len(finite) else measurements.rss_dbm.new_tensor(-150.0)
    spectrum, covariance = measurements.angular_power, measurements.covariance
    if spectrum is not None:
        spectrum = torch.where(usable[..., None], spectrum, torch.ones_like(spectrum))
    if covariance is not None:
        identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
        covariance = torch.where(usable[..., None, None], covariance, identity)
    return dataclasses.replace(
        measurements,
        rss_dbm=torch.where(usable, measurements.rss_dbm, floor),
        angular_power=spectrum,
        covariance=covariance,
    )


def finished(
    measurements: RadioMeasurements,
    positions_m: Float[Tensor, "B K 2"],
    covariance_m2: Float[Tensor, "B K 2 2"] | None,
    answered: Bool[Tensor, "B K"],
    *failures: tuple[Reason, Bool[Tensor, "B K"]],
) -> PositionEstimate:
    """The estimate inside the area; unanswered or non-finite positions become the centre of the area and invalid.

    Args:
        measurements: as they came, with the marks of what is missing.
        positions_m, covariance_m2: of the method.
        answered: enough links.
        failures: (reason, users) whose answer is not to be believed, the most telling first; they keep it.
    """
    radio = measurements.radio
    given = answered & torch.isfinite(positions_m).all(dim=-1)
    centre = torch.full_like(positions_m, radio.side_m / 2)
    inside = into_area(torch.where(given[..., None], positions_m, centre), radio.side_m, radio.wrap)
    if covariance_m2 is not None:
        # What is not known at all has the covariance of a uniform distribution over the area.
        nothing = torch.eye(2, device=inside.device, dtype=inside.dtype) * (radio.side_m**2 / 12)
        known = given & torch.isfinite(covariance_m2).all(dim=-1).all(dim=-1)
        covariance_m2 = torch.where(known[..., None, None], covariance_m2, nothing)
    valid = given
    for _, failed in failures:
        valid = valid & ~failed
    absurd = ((measurements.rss_dbm >= ceiling_dbm(measurements)) & ~answered.unsqueeze(1)).any(dim=1)
    reason = first_reason(valid, (Reason.BAD_INPUT, absurd), (Reason.TOO_FEW_LINKS, ~answered), *failures)
    return PositionEstimate(inside, covariance_m2, valid, reason)
