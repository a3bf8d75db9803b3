"""Where anchors really stand, and how their clocks differ: from users' epochs and distances between the anchors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.checks import number
from cfpos_envs.measurements.arrays import real_tensor, with_axes
from cfpos_envs.measurements.toa import TimingMeasurements

from ..links import range_links
from ..multilateration import solve_ranges
from ..robust import HuberLoss
from .joint import JointFit, Problem, Shared, check_names, epochs_with_links, fit

FEWEST_EPOCHS = 2
# Distances between anchors that are so many times their extent are in another unit.
_LONGEST = 20.0


@dataclass(frozen=True)
class AnchorCalibration:
    """Anchors after a self-survey. M access points.

    Attributes:
        position_m: [M, 2] where they are, in the coordinates that were given.
        shift_m: [M, 2] how far they moved.
        covariance_m2: [N, N], N = 2 M, posterior of the positions, x and y of one anchor after the other.
        clock_m: [M] how far the ranges of an anchor are off by its clock or delay, metres.
        clock_std_m: [M] posterior of these; 0 where they were known.
        std_m: [M] spread of the ranges.
        epochs: [M] how many each rests on.
        ap_names: M names, or empty.
    """

    position_m: Float[Tensor, "M 2"]
    shift_m: Float[Tensor, "M 2"]
    covariance_m2: Float[Tensor, "N N"]
    clock_m: Float[Tensor, " M"]
    clock_std_m: Float[Tensor, " M"]
    std_m: Float[Tensor, " M"]
    epochs: Int[Tensor, " M"]
    ap_names: tuple[str, ...] = ()

    @property
    def position_std_m(self) -> Float[Tensor, " M"]:
        """[M] root of the trace of each anchor's covariance."""
        return self.covariance_m2.diagonal().view(-1, 2).sum(dim=1).clamp(min=0.0).sqrt()

    def lines(self) -> list[str]:
        """The report: how far each anchor moved, and how well it is known."""
        names = self.ap_names or tuple(f"AP {m}" for m in range(len(self.clock_m)))
        width = max(map(len, names))
        moved, known = self.shift_m.norm(dim=1), self.position_std_m
        clocks = bool((self.clock_std_m > 0).any())
        return [
            f"{name:<{width}} moved {float(moved[m]):.2f} m, known to {float(known[m]):.2f} m"
            + (f", clock {float(self.clock_m[m]):+.2f} +- {float(self.clock_std_m[m]):.2f} m" if clocks else "")
            + f", {int(self.epochs[m])} epochs"
            for m, name in enumerate(names)
        ]


def calibrate_anchors(
    ap_positions_m: Any,
    range_m: Any,
    std_m: Any,
    *,
    position_std_m: Any,
    clock_std_m: float = 0.0,
    ap_range_m: Any = None,
    ap_range_std_m: float = 0.1,
    known_std: bool = False,
    threshold: float = HuberLoss.threshold,
    ap_names: Sequence[str] = (),
    **known: Any,
) -> AnchorCalibration:
    """Self-survey: positions of anchors, which are known roughly, and their clocks, together with those of all users.

    Everything is the maximum of the posterior: Gaussian priors around the stated positions and clocks, Huber's loss of
    the ranges, least squares of the distances between anchors. What no measurement fixes (how the whole site lies on
    the map) stays with the prior, and the covariance says so.

    Args:
        ap_positions_m: [M, 2] metres, where anchors are thought to stand, or [M, 3] with ``user_height_m``.
        range_m: [K, M] metres, one row per epoch, each from another place if possible; NaN where there is none. tdoa: c
            times the arrival times.
        std_m: standard deviation of a range, a number, [M] or [K, M], metres; a start unless ``known_std``.
        position_std_m: per axis, of the stated positions, a number or [M], metres; 0: exact.
        clock_std_m: of what clocks or delays add to an anchor's ranges, metres; 0: nothing, infinite: anything. With
            tdoa that of the first anchor is 0: only differences mean something.
        ap_range_m: [M, M] measured distances between anchors, NaN where there is none; both ways count.
        ap_range_std_m: their standard deviation, metres.
        known_std: believe ``std_m``; otherwise spreads are fitted for every anchor.
        threshold: of Huber's loss, in standard deviations.
        ap_names: [M] for the report.
        known: what else is known, see ``TimingMeasurements.from_arrays``: ``family``, heights, ``area_m``.

    Returns:
        Positions, clocks, and how well they are known.

    Raises:
        ValueError: arrays that do not fit together, deviations that cannot be, fewer than two epochs with redundant
            links.
    """
    measured = TimingMeasurements.from_arrays(ap_positions_m, range_m, std_m, **known)
    links = range_links(measured)
    count = links.usable.shape[1]
    prior = Shared.uniform(count, 1, number("clock_std_m", clock_std_m, 0.0, finite=False), 0.0, 0.0, 0.0)
    check_names(ap_names, count)
    number("threshold", threshold, 0.0, above=True)
    prior.shift_m[:] = _position_std(position_std_m, count)[:, None]
    if links.unknown_offset:
        prior.offset_m[0] = 0.0
    used = epochs_with_links(links.usable[0], 4 + int(links.unknown_offset))
    if len(used) < FEWEST_EPOCHS:
        raise ValueError(
            f"{len(used)} epochs have {4 + int(links.unknown_offset)} links or more; anchors need at least "
            f"{FEWEST_EPOCHS} of them, from different places"
        )
    pairs = None if ap_range_m is None else _pair_ranges(ap_range_m, links.ap_positions_m[0])
    pair_std = None if pairs is None else pairs * 0 + number("ap_range_std_m", ap_range_std_m, 0.0, above=True)
    problem = Problem(
        links,
        torch.zeros(links.usable.shape[2], dtype=torch.long),
        Shared.uniform(count, 1, 0.0, 1.0, 0.0, 0.0),
        prior,
        pairs,
        pair_std,
    ).of_epochs(used)
    loss = HuberLoss(threshold)
    told = torch.where(links.usable[0], links.std_m[0], torch.nan).nanmedian(dim=1).values.nan_to_num(1.0)
    start = solve_ranges(problem.links, loss).position_m[0]
    found = fit(problem, start, told, known_std=known_std, loss=loss)
    return _report(found, links.ap_positions_m[0] + torch.tensor(measured.origin_m), links.usable[0], ap_names)


def _report(found: JointFit, stated_m: Tensor, usable: Tensor, ap_names: Sequence[str]) -> AnchorCalibration:
    count = len(stated_m)
    covariance = found.covariance
    return AnchorCalibration(
        position_m=stated_m + found.shared.shift_m,
        shift_m=found.shared.shift_m,
        covariance_m2=covariance[-2 * count :, -2 * count :],
        clock_m=found.shared.offset_m,
        clock_std_m=covariance.diagonal()[:count].clamp(min=0.0).sqrt(),
        std_m=found.std_m,
        epochs=usable.sum(dim=1),
        ap_names=tuple(ap_names),
    )


def _position_std(given: Any, count: int) -> Float[Tensor, " M"]:
    std = real_tensor("position_std_m", given)
    std = std.expand(count) if std.ndim == 0 else std
    if std.shape != (count,) or not bool((std >= 0).all()) or not bool(torch.isfinite(std).all()):
        raise ValueError(f"position_std_m must be a finite number of at least 0, or one for each of {count} APs")
    if not bool((std > 0).any()):
        raise ValueError("position_std_m is 0 for every AP: there is nothing to find; say how rough positions are")
    return std


def _pair_ranges(given: Any, stated_m: Float[Tensor, "M 2"]) -> Float[Tensor, "M M"]:
    count = len(stated_m)
    ranges = with_axes("ap_range_m", real_tensor("ap_range_m", given), {"APs": count, "APs again": count}).clone()
    ranges.fill_diagonal_(math.nan)
    if bool((ranges <= 0).any()) or bool(ranges.isinf().any()):
        raise ValueError("ap_range_m has distances that are not positive and finite; mark what is missing by NaN")
    typical, extent = float(ranges.nanmedian()), float(torch.pdist(stated_m).max())
    if typical > _LONGEST * extent:
        raise ValueError(
            f"ap_range_m has a median of {typical:.3g} m, and the APs are only {extent:.3g} m apart; give metres, as "
            "it looks like millimetres or centimetres"
        )
    return ranges
