"""Offsets, scales and spreads of a site's ranges: from known positions, or from the ranges alone, if that pays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.checks import one_of
from cfpos_envs.datasets.scale import check_places
from cfpos_envs.measurements.arrays import real_tensor
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.measurements.calibration import METHODS, RangeCalibration
from cfpos_envs.measurements.toa import TimingMeasurements

from ...least_squares import inverse_2x2
from ..links import RangeLinks, range_links
from ..robust import huber_fit
from .joint import JointFit, Problem, Shared, check_names, epochs_with_links, fit

FEWEST_EPOCHS = 2
# Errors of neighbouring epochs are alike; the uncertainty of offsets is the largest that these numbers of blocks show.
BLOCKS = (5, 10, 20)
_MOST_EPOCHS = 3000
_REDUNDANT_LINKS = 4
# The common part of the offsets is what positions can take over; it has to be known to that share of the offsets.
_COMMON_KNOWN = 8.0
# Offsets of both signs and like sizes are what places with reflections make; clocks and cables make a common part.
_COMMON_SHARE = 1.0
_CLEARLY_SMALLER = 2.0
_SCALE_STD = 0.05
# Without offsets, stated deviations are widened instead of replaced if most residuals are as large up to this factor.
_BELIEVED = 2.0
# Offsets of such a share of the ranges may be places in another unit. That is believed if the factor is off by a
# quarter and leaves less than half of the residuals, and there are ranges enough for a factor of every AP.
_LARGE_OFFSET, _FAR_SCALE, _SCALE_LEAVES, _SPARE_FOR_SCALES = 0.1, 1.25, 0.5, 6
# Labels that are so many times as far from the APs as any range and as the site is wide lie in another frame.
_FARTHEST_LABEL = 20.0


def calibrate_ranges(
    ap_positions_m: Any,
    range_m: Any,
    std_m: Any = 1.0,
    *,
    method: str = "self",
    truth_m: Any = None,
    devices: Sequence[Any] | None = None,
    scale: bool = False,
    ap_names: Sequence[str] = (),
    **known: Any,
) -> RangeCalibration:
    """How far the ranges of a site are off, and how accurate they are once that is removed::

        found = calibrate_ranges(aps, ranges_m)
        print(found.reason, found.offset_m, found.std_m)
        estimate = locate_ranges(aps, ranges_m, 1.0, calibrate=found)

    Args:
        ap_positions_m: [M, 2] metres, or [M, 3] with ``user_height_m``.
        range_m: [K, M] metres, one row per epoch in the order of time; NaN, None or masked where there is none.
        std_m: what the deviation of a range is thought to be, a number, [M] or [K, M] metres; a start only.
        method: "self" from the ranges alone, which needs epochs with four or more links from different places;
            "labelled" from ``truth_m``.
        truth_m: [K, 2] true positions, in the frame of the APs; NaN where unknown.
        devices: [K] names of the devices, if several measured; each but the first gets an offset of its own.
        scale: also a factor for every AP.
        ap_names: [M] for the report.
        known: what else is known, see ``TimingMeasurements.from_arrays``.

    Returns:
        The calibration. Where it does not pay its offsets are 0; ``pays`` and ``reason`` say so.

    Raises:
        ValueError: arrays that do not fit together; an AP with fewer than two epochs.
    """
    measured = TimingMeasurements.from_arrays(ap_positions_m, range_m, std_m, **known)
    return calibrate(
        measured, method, truth_m=_moved(truth_m, measured), devices=devices, scale=scale, ap_names=ap_names
    )


def calibration_of(
    measured: TimingMeasurements, said: str | RangeCalibration, truth_m: Any, devices: Sequence[Any] | None
) -> RangeCalibration:
    """What ``calibrate=`` means.

    Args:
        measured: ranges.
        said: a method, or a calibration.
        truth_m: [K, 2] true positions in people's coordinates.
        devices: [K] names.

    Raises:
        ValueError: as ``calibrate_ranges``.
    """
    if isinstance(said, RangeCalibration):
        return said
    return calibrate(measured, said, truth_m=_moved(truth_m, measured), devices=devices)


def located(
    policy: Any, measured: TimingMeasurements, found: RangeCalibration, devices: Sequence[Any] | None
) -> PositionEstimate:
    """Positions from calibrated ranges, whose covariances know that offsets are not exact.

    An error of the offsets moves every position the same way: H C H^T with H = (sum u u^T / s^2)^-1 u^T / s^2 is added.

    Args:
        policy: what locates.
        measured: ranges as they came.
        found: their calibration.
        devices: [K] names.
    """
    corrected = found.applied(measured, devices)
    estimate: PositionEstimate = policy.locate(corrected)
    if estimate.covariance is None or not bool((found.offset_covariance_m2 != 0).any()):
        return estimate
    links = range_links(corrected)
    unit, _ = links.at(estimate.position - estimate.position.new_tensor(measured.origin_m))
    weighted = links.weight[..., None] * unit
    inverse = inverse_2x2(torch.einsum("bmki,bmkj->bkij", weighted, unit))
    gain = torch.einsum("bkij,bmkj->bkim", inverse.nan_to_num(0.0, 0.0, 0.0), weighted)
    widened = torch.einsum("bkim,mn,bkjn->bkij", gain, found.offset_covariance_m2, gain)
    return dataclasses.replace(estimate, covariance=estimate.covariance + widened)


def calibrate(
    measured: TimingMeasurements,
    method: str = "self",
    *,
    truth_m: Float[Tensor, "K 2"] | None = None,
    devices: Sequence[Any] | None = None,
    scale: bool = False,
    ap_names: Sequence[str] = (),
) -> RangeCalibration:
    """``calibrate_ranges`` for measurements that are made already; ``truth_m`` in their coordinates.

    Raises:
        ValueError: as ``calibrate_ranges``, more than one episode, or time differences, which have no offsets.
    """
    one_of("calibrate", method, METHODS[1:])
    if len(measured) != 1 or measured.family == "tdoa":
        raise ValueError("a calibration of ranges needs one episode of toa or rtt; for tdoa use calibrate_anchors")
    links = range_links(measured)
    check_names(ap_names, links.usable.shape[1])
    names, device = _numbered(devices, links.usable.shape[2])
    _refuse_few(links, names, device, ap_names, truth_m if method == "labelled" else None)
    if method == "labelled":
        found = _labelled(links, _checked_truth(truth_m, links), names, device, scale)
    else:
        found = _unlabelled(links, names, device, scale)
    return dataclasses.replace(found, ap_names=tuple(ap_names))


def _labelled(
    links: RangeLinks, truth_m: Tensor, names: tuple[str, ...], device: Tensor, scale: bool
) -> RangeCalibration:
    """The robust fit of offsets at known places: every epoch's position is held there."""
    at = torch.isfinite(truth_m).all(dim=1).nonzero().squeeze(1)
    away = truth_m[at] - links.ap_positions_m[0][:, None]
    distance = (away.square().sum(dim=-1) + links.height_diff_m[0][:, None].square()).sqrt()
    usable = links.usable[0][:, at]
    error = torch.where(usable, links.range_m[0][:, at] - distance, torch.nan)
    places = torch.cat([links.ap_positions_m[0], links.height_diff_m[0][:, None]], dim=1)
    ranges = torch.where(usable, links.range_m[0][:, at], torch.nan).mT
    farthest, longest = float(away.norm(dim=-1).max()), float(links.range_m[0][links.usable[0]].max())
    if farthest > _FARTHEST_LABEL * max(longest, links.side_m):
        raise ValueError(
            f"truth_m is up to {farthest:.3g} m from the APs, and no range is above {longest:.3g} m; give positions in "
            "metres in the frame of the APs"
        )
    check_places("calibrate='labelled'", places.numpy(), truth_m[at].numpy(), ranges.numpy(), 0.0)
    count = len(error)
    factor = torch.ones(count, dtype=error.dtype)
    by_device = torch.zeros(len(names), dtype=error.dtype)
    offset = error.nanmedian(dim=1).values
    for _ in range(20 if len(names) > 1 or scale else 1):
        rest = error - (factor - 1)[:, None] * distance - by_device[device[at]]
        offset = rest.nanmedian(dim=1).values
        if len(names) > 1:
            rest = error - (factor - 1)[:, None] * distance - offset[:, None]
            by_device = torch.stack([rest[:, device[at] == d].nanmedian() for d in range(len(names))]).nan_to_num(0.0)
            by_device = by_device - by_device[0]
        if scale:
            factor = 1 + _slopes(error - offset[:, None] - by_device[device[at]], distance)
    residual = error - (factor - 1)[:, None] * distance - by_device[device[at]] - offset[:, None]
    std = 1.4826 * residual.abs().nanmedian(dim=1).values
    heard = usable.sum(dim=1)
    std = torch.where(heard > 0, std.clamp(min=1e-6 * links.side_m), torch.inf)
    blocks = max((_block_medians(residual, n) for n in BLOCKS), key=lambda found: float(found.trace()))
    offset, found = offset.nan_to_num(0.0), len(at)
    reason = f"offsets are the medians of {found} epochs at known places"
    return RangeCalibration(offset, factor, std, blocks, heard, "labelled", True, reason, _by_name(names, by_device))


def _unlabelled(links: RangeLinks, names: tuple[str, ...], device: Tensor, scale: bool) -> RangeCalibration:
    used = epochs_with_links(links.usable[0], _REDUNDANT_LINKS)
    count, heard = links.usable.shape[1], links.usable[0].sum(dim=1)
    if len(used) < FEWEST_EPOCHS:
        std = torch.where(heard > 0, _told(links), torch.inf)
        reason = f"only {len(used)} epochs have {_REDUNDANT_LINKS} links or more: nothing tells offsets from positions"
        return _without(std, heard, reason)
    spare = _redundancy(links, used)
    unknown = int((heard > 0).sum()) * (2 if scale else 1) + len(names) - 1
    if spare <= unknown:
        reason = (
            f"epochs that differ have {spare} ranges more than their positions need, and {unknown} numbers are wanted"
        )
        return _without(torch.where(heard > 0, _told(links), torch.inf), heard, reason)
    if len(used) > _MOST_EPOCHS:
        used = used[(torch.arange(_MOST_EPOCHS) * len(used)) // _MOST_EPOCHS]
    start = Shared.uniform(count, len(names), 0.0, 1.0, 0.0, 0.0)
    fixed = Shared.uniform(count, len(names), 0.0, 0.0, 0.0, 0.0)
    whole = Problem(links, device, start, fixed).of_epochs(used)
    position = huber_fit(whole.links).position_m[0]
    # With the offsets still in them, residuals say nothing of how accurate one AP is beside another.
    plain = fit(whole, position, _told(whole.links), pooled=math.inf)
    free = Shared.uniform(count, len(names), math.inf, _SCALE_STD if scale else 0.0, math.inf, 0.0)
    free.device_m[0] = 0.0
    free.offset_m[heard == 0] = 0.0
    found = fit(dataclasses.replace(whole, prior_std=free), plain.position_m, plain.std_m)
    covariance = offset_covariance(found)
    if spare > _SPARE_FOR_SCALES * unknown:
        _refuse_another_unit(whole, found, heard)
    pays, reason = worth(found, plain, covariance, heard > 0)
    if not pays:
        told = _told(links)
        stated = fit(whole, position, _told(whole.links), known_std=True)
        factor = told_std_factor(stated, whole.links)
        if 1 / _BELIEVED < factor < _BELIEVED:
            # Smaller ones would only make the best fit more certain, which may be the mirror image.
            factor = max(factor, 1.0)
            told, reason = factor * told, f"{reason}; stated deviations are taken {factor:.2f} times"
            kept = _without(torch.where(heard > 0, told, torch.inf), heard, reason)
            return dataclasses.replace(kept, std_factor=torch.full_like(told, factor))
        return _without(torch.where(heard > 0, plain.std_m, torch.inf), heard, reason)
    return RangeCalibration(
        found.shared.offset_m,
        found.shared.scale,
        torch.where(heard > 0, found.std_m, torch.inf),
        covariance,
        heard,
        "self",
        True,
        reason,
        _by_name(names, found.shared.device_m),
    )


def told_std_factor(found: JointFit, links: RangeLinks) -> float:
    """How many times larger than stated the errors of most links are, a few long ranges aside.

    1.4826 times the median absolute residual in stated deviations, over the square root of the share of the ranges that
    positions leave free.

    Args:
        found: the fit with the stated deviations.
        links: its ranges.
    """
    usable = links.usable[0]
    free = 1 - 2 * usable.shape[1] / int(usable.sum())
    scaled = (found.residual_m.abs() / links.std_m[0])[usable]
    return 1.4826 * float(scaled.median()) / math.sqrt(max(free, 1e-3))


def _refuse_another_unit(whole: Problem, found: JointFit, heard: Tensor) -> None:
    """Offsets that stand for places in another unit than the ranges: each AP's ranges fit with a factor instead.

    Raises:
        ValueError: naming the factor.
    """
    there = heard > 0
    typical = float(whole.links.range_m[whole.links.usable].median())
    if abs(float(found.shared.offset_m[there].mean())) < _LARGE_OFFSET * typical:
        return
    free = Shared.uniform(len(heard), len(found.shared.device_m), math.inf, math.inf, math.inf, 0.0)
    free.device_m[0] = 0.0
    free.offset_m[~there], free.scale[~there] = 0.0, 0.0
    scaled = fit(dataclasses.replace(whole, prior_std=free), found.position_m, found.std_m)
    factor = float(scaled.shared.scale[there].median())
    before, after = (float(one.std_m[there].square().mean().sqrt()) for one in (found, scaled))
    if factor > 0 and max(factor, 1 / factor) > _FAR_SCALE and after < _SCALE_LEAVES * before:
        raise ValueError(
            f"offsets of {float(found.shared.offset_m[there].mean()):+.2f} m would be needed, but the ranges fit best "
            f"when the APs' places are multiplied by {factor:.2g} (residuals {after:.2f} m instead of {before:.2f} m); "
            "they look like grid steps, give metres"
        )


def _redundancy(links: RangeLinks, used: Int[Tensor, " n"]) -> int:
    """Ranges minus coordinates over the epochs that differ: the same ranges twice are measured once."""
    usable = links.usable[0][:, used].mT
    different = torch.unique(torch.where(usable, links.range_m[0][:, used].mT, -1.0), dim=0)
    return int((different > 0).sum()) - 2 * len(different)


def offset_covariance(found: JointFit) -> Float[Tensor, "M M"]:
    """Covariance of the APs' offsets: the largest that ``BLOCKS`` show, or that of independent errors."""
    count = len(found.shared.offset_m)
    each = [found.covariance, *(found.over_blocks(blocks) for blocks in BLOCKS)]
    return max((one[:count, :count] for one in each), key=lambda one: float(one.trace()))


def worth(found: JointFit, plain: JointFit, covariance_m2: Float[Tensor, "M M"], heard: Tensor) -> tuple[bool, str]:
    """Whether positions gain by offsets that were found without labels, and why.

    Residuals shrink always, also where positions get worse: what reflections add at a place is taken for an offset,
    and positions move along. That shows in the common part of the offsets, which an epoch's position takes over most
    easily: it changes from block to block, or is small beside the differences between the APs.

    Args:
        found, plain: the fit with and without offsets.
        covariance_m2: of the offsets.
        heard: APs that count.
    """
    offset, count = found.shared.offset_m[heard], int(heard.sum())
    size = float(offset.square().mean().sqrt())
    common = float(offset.mean())
    common_std = math.sqrt(max(float(covariance_m2[heard][:, heard].sum()), 0.0)) / count
    smaller = float((plain.std_m[heard].square().mean() / found.std_m[heard].square().mean()).sqrt())
    apart = float(offset.std(unbiased=False))
    facts = (
        f"common part {common:+.2f} +- {common_std:.2f} m, differences {apart:.2f} m, "
        f"residuals {smaller:.2g} times smaller"
    )
    if size < _COMMON_KNOWN * common_std:
        return False, f"the common part of the offsets is not known well enough ({facts})"
    if abs(common) < _COMMON_SHARE * apart and smaller < _CLEARLY_SMALLER:
        return False, f"offsets differ between APs more than they have in common: reflections rather ({facts})"
    return True, facts


def _without(std_m: Tensor, heard: Tensor, reason: str) -> RangeCalibration:
    zero = torch.zeros(len(std_m), dtype=torch.float64)
    return RangeCalibration(
        zero, torch.ones_like(zero), std_m, zero.new_zeros(len(zero), len(zero)), heard, "self", False, reason
    )


def _told(links: RangeLinks) -> Float[Tensor, " M"]:
    """The median of the stated deviations of every AP."""
    told = torch.where(links.usable[0], links.std_m[0], torch.nan).nanmedian(dim=1).values
    return told.nan_to_num(float(links.std_m[links.usable].median()) if bool(links.usable.any()) else 1.0)


def _slopes(error: Tensor, distance: Tensor) -> Tensor:
    """Robust slopes of errors over distances, one for each AP: medians over pairs of the lower and the upper half."""
    found = []
    for rest, far in zip(error, distance):
        there = torch.isfinite(rest)
        order = far[there].argsort()
        half = len(order) // 2
        low, high = rest[there][order[:half]], rest[there][order[len(order) - half :]]
        gap = far[there][order[len(order) - half :]] - far[there][order[:half]]
        usable = gap > 1e-3
        found.append(((high - low) / gap)[usable].median() if bool(usable.any()) else rest.new_zeros(()))
    return torch.stack(found)


def _block_medians(residual: Float[Tensor, "M K"], blocks: int) -> Float[Tensor, "M M"]:
    """Covariance of medians over all epochs from those of blocks of consecutive epochs."""
    count = min(blocks, residual.shape[1])
    parts = torch.tensor_split(residual, count, dim=1)
    medians = torch.stack([part.nanmedian(dim=1).values for part in parts]).nan_to_num(0.0)
    away = medians - medians.mean(dim=0)
    return away.mT @ away / max(count * (count - 1), 1)


def _numbered(devices: Sequence[Any] | None, users: int) -> tuple[tuple[str, ...], Int[Tensor, " K"]]:
    if devices is None:
        return ("",), torch.zeros(users, dtype=torch.long)
    given = [str(name) for name in np.asarray(devices).ravel().tolist()]
    if len(given) != users:
        raise ValueError(f"devices has {len(given)} entries; it must have one for each of the {users} epochs")
    names = tuple(dict.fromkeys(given))
    return names, torch.tensor([names.index(name) for name in given])


def _by_name(names: tuple[str, ...], offsets_m: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, offsets_m)} if len(names) > 1 else {}


def _moved(truth_m: Any, measured: TimingMeasurements) -> Tensor | None:
    """True positions in the coordinates of the measurements."""
    if truth_m is None:
        return None
    truth = real_tensor("truth_m", truth_m)
    planar = truth.ndim == 2 and truth.shape[1] == 2
    return truth - truth.new_tensor(measured.origin_m) if planar else truth


def _checked_truth(truth_m: Tensor | None, links: RangeLinks) -> Tensor:
    users = links.usable.shape[2]
    if truth_m is None:
        raise ValueError("calibrate='labelled' needs truth_m, the true positions; without them use calibrate='self'")
    if truth_m.shape != (users, 2):
        raise ValueError(
            f"truth_m has shape {tuple(truth_m.shape)}; with {users} epochs it must be [{users}, 2], one place for each"
        )
    return truth_m.double()


def _refuse_few(
    links: RangeLinks, names: tuple[str, ...], device: Tensor, ap_names: Sequence[str], truth_m: Tensor | None
) -> None:
    """An AP that was heard once has an offset that only repeats the error of that one range."""
    usable = links.usable[0]
    if truth_m is not None and truth_m.shape == (usable.shape[1], 2):
        usable = usable & torch.isfinite(truth_m).all(dim=1)
    heard = usable.sum(dim=1)
    few = ((heard > 0) & (heard < FEWEST_EPOCHS)).nonzero().squeeze(1).tolist()
    if few or not bool((heard > 0).any()):
        which = ", ".join(str(ap_names[m]) if ap_names else str(m) for m in few)
        what = f"AP {which} has one epoch" if few else "no AP has an epoch with a range"
        raise ValueError(
            f"{what}; a calibration needs at least {FEWEST_EPOCHS} epochs for every AP: record more, leave the AP out, "
            "or do without (calibrate='none')"
        )
    alone = [name for d, name in enumerate(names) if int((device == d).sum()) < FEWEST_EPOCHS]
    if alone:
        raise ValueError(f"device {alone[0]!r} has one epoch; a calibration needs at least {FEWEST_EPOCHS} for each")
