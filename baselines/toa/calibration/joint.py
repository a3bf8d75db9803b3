"""Positions of all epochs and what they share (offsets, scales, anchors' places) from one robust least-squares fit.

The range of epoch k from AP m is r = s_m |p_k - q_m| + b_m + c_d + o_k + e, with scale s, offset b of the AP, c of the
device, and o of the epoch where clocks are unknown. Of every epoch only p_k and o_k are its own; they are eliminated
from the normal equations (Schur complement), so that a step costs K small systems and one of the size of what is
shared: Triggs et al., Bundle Adjustment (2000). Spreads are those of Huber's proposal 2 (1964), each residual divided
by what the fit leaves of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..links import RangeLinks
from ..robust import HuberLoss

ROUNDS = 60
_SETTLED_M = 1e-5
_LONGEST_M = 5.0
_FIRST_DAMPING, _EASE, _TIGHTEN, _DAMPING_RANGE = 1e-3, 0.2, 5.0, (1e-9, 1e9)
POOLED = 0.1
"""The spread of an AP is drawn towards that of all by as many epochs again, times this: with five APs per epoch the
residuals of one could vanish at the cost of the others."""
_LEAST_FREEDOM = 0.05


@dataclass(frozen=True)
class Shared:
    """What all epochs share, and how far it may differ from its start: standard deviations of Gaussian priors.

    Attributes:
        offset_m, scale: [M] of the APs.
        device_m: [D] offsets of the devices, of which the first is 0.
        shift_m: [M, 2] how far the APs stand from where the site says.
    """

    offset_m: Float[Tensor, " M"]
    scale: Float[Tensor, " M"]
    device_m: Float[Tensor, " D"]
    shift_m: Float[Tensor, "M 2"]

    @classmethod
    def uniform(cls, aps: int, devices: int, offset: float, scale: float, device: float, shift: float) -> Shared:
        """The same numbers for all APs and for all devices."""
        full = torch.full
        f64 = torch.float64
        return cls(
            full((aps,), offset, dtype=f64),
            full((aps,), scale, dtype=f64),
            full((devices,), device, dtype=f64),
            full((aps, 2), shift, dtype=f64),
        )

    def flat(self) -> Float[Tensor, " P"]:
        """All numbers one after another, P = 4 M + D."""
        return torch.cat([getattr(self, entry.name).flatten() for entry in dataclasses.fields(self)])

    def like(self, flat: Float[Tensor, " P"]) -> Shared:
        """Numbers of ``flat`` in this shape."""
        values = [getattr(self, entry.name) for entry in dataclasses.fields(self)]
        parts = flat.split([value.numel() for value in values])
        return Shared(*(part.view(value.shape) for part, value in zip(parts, values)))


@dataclass(frozen=True)
class Problem:
    """Ranges of K epochs and what is known of the rest.

    Attributes:
        links: one episode.
        device: [K] number of the device of every epoch.
        start, prior_std: of what is shared; 0 keeps a number where it is, infinity knows nothing.
        pair_range_m, pair_std_m: [M, M] measured distances between APs, NaN where there is none; None: no such.
    """

    links: RangeLinks
    device: Int[Tensor, " K"]
    start: Shared
    prior_std: Shared
    pair_range_m: Float[Tensor, "M M"] | None = None
    pair_std_m: Float[Tensor, "M M"] | None = None

    @property
    def own(self) -> int:
        """Unknowns of an epoch: a position, and an offset of the ranges if clocks are unknown."""
        return 2 + int(self.links.unknown_offset)

    def of_epochs(self, chosen: Int[Tensor, " n"]) -> Problem:
        """The same with some epochs."""
        parts = {name: getattr(self.links, name)[:, :, chosen] for name in ("range_m", "std_m", "usable")}
        return dataclasses.replace(self, links=dataclasses.replace(self.links, **parts), device=self.device[chosen])


@dataclass(frozen=True)
class JointFit:
    """Where the fit ended.

    Attributes:
        own: [K, 2 or 3] positions and perhaps offsets of the epochs.
        shared: what all share.
        std_m: [M] spread of the residuals of every AP.
        covariance: [P, P] posterior of ``shared.flat()``, if errors are independent from epoch to epoch.
        curvature_inverse: [P, P] of the loss by the same, the epochs' own unknowns eliminated.
        score: [K, P] derivative of each epoch's loss by what is shared.
        residual_m: [M, K].
        cost: sum of the losses.
    """

    own: Float[Tensor, "K n"]
    shared: Shared
    std_m: Float[Tensor, " M"]
    covariance: Float[Tensor, "P P"]
    curvature_inverse: Float[Tensor, "P P"]
    score: Float[Tensor, "K P"]
    residual_m: Float[Tensor, "M K"]
    cost: float

    @property
    def position_m(self) -> Float[Tensor, "K 2"]:
        """Positions of the epochs."""
        return self.own[:, :2]

    def over_blocks(self, blocks: int) -> Float[Tensor, "P P"]:
        """Covariance of what is shared if errors last for up to an n-th of the epochs: S^-1 (sum_j g_j g_j^T) S^-1.

        g_j is the derivative of the loss of block j of consecutive epochs: Liang and Zeger (1986).

        Args:
            blocks: n; at most one for each epoch.
        """
        count = min(blocks, len(self.score))
        number = torch.arange(len(self.score)) * count // len(self.score)
        sums = self.score.new_zeros(count, self.score.shape[1]).index_add(0, number, self.score)
        return count / max(count - 1, 1) * self.curvature_inverse @ (sums.mT @ sums) @ self.curvature_inverse


def fit(
    problem: Problem,
    start_m: Float[Tensor, "K 2"],
    std_m: Float[Tensor, " M"],
    *,
    known_std: bool = False,
    pooled: float = POOLED,
    rounds: int = ROUNDS,
    loss: HuberLoss | None = None,
) -> JointFit:
    """The minimum of the robust loss over all epochs and what they share.

    Args:
        problem: what was measured.
        start_m: positions to begin with.
        std_m: spreads of the APs, to begin with.
        known_std: keep the standard deviations of the links instead.
        pooled: how far the spread of an AP is drawn towards that of all; infinity: all have the same.
        rounds: largest number of steps.
        loss: of the residuals; None: Huber's with its usual threshold.
    """
    huber = HuberLoss() if loss is None else loss
    state = _State(problem, huber, start_m, std_m, known_std, pooled)
    for number in range(rounds):
        settled = state.step()
        if not known_std and number >= 2:
            settled = state.respread() and settled
        if settled and number >= 5:
            break
    return state.result()


class _State:
    """A fit on its way."""

    def __init__(
        self, problem: Problem, loss: HuberLoss, start_m: Tensor, std_m: Tensor, known_std: bool, pooled: float
    ) -> None:
        self.problem, self.loss, self.pooled = problem, loss, pooled
        links = problem.links
        self.usable = links.usable[0]
        self.std = links.std_m[0] if known_std else std_m[:, None].expand_as(self.usable)
        self.theta, self.free = problem.start.flat(), problem.prior_std.flat() > 0
        self.weight = problem.prior_std.flat()[self.free].square().reciprocal()
        self.damping = torch.full((len(start_m),), _FIRST_DAMPING, dtype=torch.float64)
        self.shared_damping = 0.0
        offset = [self._typical_residual(start_m)] if problem.own == 3 else []
        self.own = torch.cat([start_m, *offset], dim=-1)

    def step(self) -> bool:
        """One step of Levenberg-Marquardt; whether it was short."""
        problem, theta = self.problem, self.theta
        unit, residual, columns = _rows(problem, theta, self.own)
        value, slope, curvature = self._loss(residual)
        own, gradient, cross = _own_terms(unit, slope, curvature, columns[..., self.free])
        trace = own.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
        ridge = (self.damping * trace + 1e-9)[:, None, None] * torch.eye(problem.own, dtype=own.dtype)
        inverse = torch.linalg.inv(own + ridge)
        shared_step = self._shared_step(inverse, gradient, cross, slope, curvature, columns[..., self.free])
        tried = theta.clone()
        tried[self.free] = tried[self.free] + shared_step
        pull = gradient - torch.einsum("kip,p->ki", cross, shared_step)
        step = torch.einsum("kij,kj->ki", inverse, pull)
        step = step * (_LONGEST_M / step.norm(dim=-1, keepdim=True).clamp(min=_LONGEST_M))
        moved, stayed = (self._value(tried, own) for own in (self.own + step, self.own))
        better = moved <= stayed
        before = value.sum() + self._prior(theta)
        after = torch.where(better, moved, stayed).sum() + self._prior(tried)
        if bool(after <= before + 1e-12 * before.abs()):
            self.own = torch.where(better[:, None], self.own + step, self.own)
            self.theta = tried
            self.damping = (self.damping * torch.where(better, _EASE, _TIGHTEN)).clamp(*_DAMPING_RANGE)
            self.shared_damping *= _EASE
        else:
            self.damping = (self.damping * _TIGHTEN).clamp(*_DAMPING_RANGE)
            self.shared_damping = max(self.shared_damping * _TIGHTEN, _FIRST_DAMPING)
            return False
        return bool(shared_step.abs().amax() < _SETTLED_M) if len(shared_step) else bool(step.abs().amax() < _SETTLED_M)

    def respread(self) -> bool:
        """New spreads from the residuals; whether they had settled."""
        unit, residual, _ = _rows(self.problem, self.theta, self.own)
        _, slope, curvature = self._loss(residual)
        information = torch.einsum("mk,mki,mkj->kij", curvature, unit, unit)
        inverse = torch.linalg.inv(information + 1e-9 * torch.eye(self.problem.own, dtype=information.dtype))
        taken = torch.einsum("mki,kij,mkj->mk", unit, inverse, unit) * curvature
        freedom = ((1 - taken).clamp(min=_LEAST_FREEDOM) * self.usable).sum(dim=1)
        # E[min(|z|, k) |z|] of a normal z is P(|z| < k).
        squares = (slope * residual * self.std.square()).sum(dim=1) / math.erf(self.loss.threshold / math.sqrt(2))
        heard = self.usable.sum(dim=1).double()
        common = squares.sum() / freedom.sum().clamp(min=_LEAST_FREEDOM)
        if math.isinf(self.pooled):
            variance = common.expand(len(squares))
        else:
            others = self.pooled * heard.mean() * freedom.sum() / heard.sum().clamp(min=1)
            variance = (squares + others * common) / (freedom + others)
        new = variance.sqrt().clamp(min=1e-6 * self.problem.links.side_m)[:, None].expand_as(self.std)
        settled = bool(((new / self.std - 1).abs() < 1e-4).all())
        self.std = new
        return settled

    def result(self) -> JointFit:
        problem = self.problem
        unit, residual, columns = _rows(problem, self.theta, self.own)
        value, slope, _ = self._loss(residual)
        # The loss is curved only below its threshold.
        k = self.loss.threshold
        near = (residual.abs() <= k * self.std) & self.usable
        # Expected, not that of the links of an epoch that happen to lie below: an epoch has few.
        share = near.sum(dim=1) / self.usable.sum(dim=1).clamp(min=1)
        curvature = share[:, None] * self.usable / self.std.square()
        free = columns[..., self.free]
        own, _, cross = _own_terms(unit, slope, curvature, free)
        inverse = torch.linalg.inv(own + 1e-9 * torch.eye(problem.own, dtype=own.dtype))
        prior = self._prior_information()
        data = self._information(inverse, cross, curvature, free) - prior
        count, place = len(self.theta), self.free.nonzero().squeeze(1)
        inverses = []
        for per_curvature in (self.loss.information_per_curvature, 1.0):
            full = torch.zeros(count, count, dtype=own.dtype)
            full[place[:, None], place] = torch.linalg.pinv(per_curvature * data + prior, hermitian=True)
            inverses.append(full)
        score = torch.zeros(len(self.own), count, dtype=own.dtype)
        score[:, place] = torch.einsum("mk,mkp->kp", slope, free)
        return JointFit(
            self.own,
            problem.start.like(self.theta),
            self.std.mean(dim=1),
            inverses[0],
            inverses[1],
            score,
            residual,
            float(value.sum() + self._prior(self.theta)),
        )

    def _shared_step(
        self, inverse: Tensor, gradient: Tensor, cross: Tensor, slope: Tensor, curvature: Tensor, free: Tensor
    ) -> Tensor:
        if not bool(self.free.any()):
            return self.theta.new_zeros(0)
        information = self._information(inverse, cross, curvature, free)
        start = self.problem.start.flat()
        right = torch.einsum("mk,mkp->p", slope, free) - self.weight * (self.theta - start)[self.free]
        right = right - torch.einsum("kip,kij,kj->p", cross, inverse, gradient) + self._pair_pull()
        scale = information.diagonal().mean()
        ridge = (self.shared_damping + 1e-12) * scale * torch.eye(len(right), dtype=right.dtype)
        return torch.linalg.solve(information + ridge, right).clamp(-_LONGEST_M, _LONGEST_M)

    def _information(self, inverse: Tensor, cross: Tensor, curvature: Tensor, free: Tensor) -> Tensor:
        own = torch.einsum("mk,mkp,mkq->pq", curvature, free, free)
        eliminated = torch.einsum("kip,kij,kjq->pq", cross, inverse, cross)
        return own - eliminated + self._prior_information()

    def _prior_information(self) -> Tensor:
        """What priors and distances between APs say of what is shared."""
        return torch.diag(self.weight) + self._pair_information()

    def _loss(self, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, slope, weight = (part * self.usable for part in self.loss(residual, self.std))
        return value, slope, weight

    def _value(self, theta: Tensor, own: Tensor) -> Tensor:
        """The loss of every epoch."""
        return self._loss(_rows(self.problem, theta, own, False)[1])[0].sum(dim=0)

    def _prior(self, theta: Tensor) -> Tensor:
        away = (theta - self.problem.start.flat())[self.free]
        squares = 0.5 * (self.weight * away.square()).sum()
        if self.problem.pair_range_m is None:
            return squares
        residual, _, weight = _pairs(self.problem, theta)
        return squares + 0.5 * (weight * residual.square()).sum()

    def _pair_information(self) -> Tensor | float:
        if self.problem.pair_range_m is None:
            return 0.0
        _, columns, weight = _pairs(self.problem, self.theta)
        columns = columns[:, self.free]
        return columns.mT @ (weight[:, None] * columns)

    def _pair_pull(self) -> Tensor | float:
        if self.problem.pair_range_m is None:
            return 0.0
        residual, columns, weight = _pairs(self.problem, self.theta)
        return columns[:, self.free].mT @ (weight * residual)

    def _typical_residual(self, start_m: Tensor) -> Tensor:
        own = torch.cat([start_m, start_m.new_zeros(len(start_m), 1)], dim=-1)
        residual = torch.where(self.usable, _rows(self.problem, self.theta, own, False)[1], torch.nan)
        return residual.nanmedian(dim=0).values.nan_to_num(0.0).unsqueeze(-1)


def _rows(
    problem: Problem, theta: Tensor, own: Tensor, derivatives: bool = True
) -> tuple[Float[Tensor, "M K n"], Float[Tensor, "M K"], Float[Tensor, "M K P"]]:
    """Derivatives of the predicted ranges by the epoch's own unknowns, residuals, and derivatives by the shared."""
    links, shared = problem.links, problem.start.like(theta)
    aps = links.ap_positions_m[0] + shared.shift_m
    away = own[:, :2] - aps[:, None]
    distance = (away.square().sum(dim=-1) + links.height_diff_m[0][:, None].square()).sqrt().clamp(min=1e-9)
    predicted = shared.scale[:, None] * distance + shared.offset_m[:, None] + shared.device_m[problem.device]
    if problem.own == 3:
        predicted = predicted + own[:, 2]
    residual = (links.range_m[0] - predicted) * links.usable[0]
    if not derivatives:
        return away, residual, away
    unit = shared.scale[:, None, None] * away / distance[..., None]
    count, epochs, devices = len(aps), len(own), len(shared.device_m)
    per_ap = torch.eye(count, dtype=own.dtype)[:, None].expand(count, epochs, count)
    of_device = torch.nn.functional.one_hot(problem.device, devices).to(own).expand(count, epochs, devices)
    shift = (per_ap[..., None] * -unit[:, :, None]).flatten(2)
    columns = torch.cat([per_ap, per_ap * distance[..., None], of_device, shift], dim=-1)
    if problem.own == 3:
        unit = torch.cat([unit, torch.ones_like(unit[..., :1])], dim=-1)
    return unit, residual, columns


def _own_terms(unit: Tensor, slope: Tensor, curvature: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normal equations of every epoch alone, its gradient, and its coupling to what is shared."""
    weighted = curvature[..., None] * unit
    own = torch.einsum("mki,mkj->kij", weighted, unit)
    return own, torch.einsum("mk,mki->ki", slope, unit), torch.einsum("mki,mkp->kip", weighted, free)


def _pairs(problem: Problem, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Residuals, derivatives and weights of the distances between APs, each pair once for every way it was measured."""
    assert problem.pair_range_m is not None
    assert problem.pair_std_m is not None
    links, shared = problem.links, problem.start.like(theta)
    first, second = torch.isfinite(problem.pair_range_m).nonzero().unbind(dim=1)
    aps, height = links.ap_positions_m[0] + shared.shift_m, links.height_diff_m[0]
    away = aps[first] - aps[second]
    distance = (away.square().sum(dim=-1) + (height[first] - height[second]).square()).sqrt().clamp(min=1e-9)
    unit = away / distance[:, None]
    count = len(aps)
    columns = torch.zeros(len(first), len(theta), dtype=theta.dtype)
    begin = len(theta) - 2 * count
    row = torch.arange(len(first))
    for axis in (0, 1):
        columns[row, begin + 2 * first + axis] += unit[:, axis]
        columns[row, begin + 2 * second + axis] -= unit[:, axis]
    residual = problem.pair_range_m[first, second] - distance
    return residual, columns, problem.pair_std_m[first, second].square().reciprocal()


def check_names(ap_names: Sequence[str], count: int) -> None:
    """Refuse names of other APs than were measured.

    Raises:
        ValueError: there are some, but not one for each of ``count``.
    """
    if len(ap_names) not in (0, count):
        raise ValueError(f"ap_names has {len(ap_names)} names; it must have one for each of {count} APs, or none")


def epochs_with_links(usable: Bool[Tensor, "M K"], least: int) -> Int[Tensor, " n"]:
    """Numbers of epochs with that many links or more."""
    return (usable.sum(dim=0) >= least).nonzero().squeeze(1)
