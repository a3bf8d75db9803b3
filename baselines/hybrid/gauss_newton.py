"""Gauss-Newton over whatever is measured of ranges, directions and powers: ``hybrid-gn``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Measurements, PositionEstimate, Reason, first_reason
from cfpos_envs.measurements.hybrid import HybridMeasurements
from cfpos_envs.physics import geometry
from cfpos_envs.physics.hybrid import predict
from cfpos_envs.physics.toa.model import TimingModel

from ..base import Estimator
from ..least_squares import Fit, Loss, inverse_2x2, levenberg_marquardt, of_copies, spread_m, squared
from ..toa.judge import FAR_PROBES, OUTSIDE_STD, Verdict, beyond_walls_m, chi_squared_at, rises
from ..toa.multilateration import AMBIGUOUS, APART_STD
from ..toa.robust import HuberLoss
from ..toa.signs import check_group
from ..validity import residuals_fit

# An information whose smaller eigenvalue is below this share of the larger one determines no position.
_SINGULAR = 1e-10
_NEAR_MARGIN = 0.1
_BELIEVED = 3.0
# Powers alone bend the valley more than ranges do: at six standard deviations three is asked for.
_RISE = 0.25


@dataclass(frozen=True)
class HybridOptions(Declared):
    """Options of ``hybrid-gn``.

    Attributes:
        points: of the lattice along a side of the area on which starts are searched, at least 2.
        starts: best points of the lattice from which a descent begins, at least 1; the lowest minimum wins. Mirrored
            directions and the rings around an AP make several.
        threshold: residuals beyond this many standard deviations count by their size, not its square (Huber); infinite
            is maximum likelihood where every error is Gaussian.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"points": (2, 4096), "starts": (1, 4096), "threshold": (1e-3, math.inf)}

    points: int = 16
    starts: int = 6
    threshold: float = math.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.starts > self.points**2:
            raise ValueError(f"starts={self.starts} is more than the lattice of points={self.points} a side has")


@dataclass(frozen=True)
class HybridRows:
    """All measurements of every user as one list of rows in units of their standard deviations, in double precision.

    The rows of an AP are range, direction and power; see ``least_squares.Residuals``.
    """

    model: TimingModel
    ap_positions_m: Float[Tensor, "B M 2"]
    ap_orientation_rad: Float[Tensor, "B M"]
    height_diff_m: Float[Tensor, "B M"]
    values: Float[Tensor, "B M K 3"]
    std: Float[Tensor, "B M K 3"]
    usable: Bool[Tensor, "B R K"]
    area_m: tuple[tuple[float, float], ...]
    unknown_offset: bool = False

    @property
    def std_m(self) -> Float[Tensor, "B R K"]:
        """1: the residuals are divided by their standard deviations already."""
        return torch.ones(self.usable.shape, dtype=self.values.dtype, device=self.values.device)

    @property
    def weight(self) -> Float[Tensor, "B R K"]:
        """1 for rows that count."""
        return self.usable.to(self.values)

    def at(self, points_m: Float[Tensor, "B K 2"]) -> tuple[Float[Tensor, "B R K 2"], Float[Tensor, "B R K"]]:
        """Gradients of the predictions and residuals, both over the standard deviation."""
        predicted, gradient = predict(
            self.model, self.ap_positions_m, self.ap_orientation_rad, self.height_diff_m, points_m
        )
        residual = (self.values - predicted) / self.std
        return _as_rows(gradient / self.std.unsqueeze(-1)), _as_rows(residual)

    def repeated(self, count: int) -> HybridRows:
        """Every user ``count`` times, copy after copy: for several starts at once."""
        return dataclasses.replace(
            self,
            values=self.values.repeat(1, 1, count, 1),
            std=self.std.repeat(1, 1, count, 1),
            usable=self.usable.repeat(1, 1, count),
        )

    def inside(self, points_m: Float[Tensor, "B K 2"], margin: float) -> Float[Tensor, "B K 2"]:
        """The nearest points that are at most ``margin`` sides of the area outside it."""
        return points_m.clamp(-margin * self.model.side_m, (1.0 + margin) * self.model.side_m)


class HybridGn(Estimator[HybridMeasurements]):
    """Maximum likelihood from ranges, directions and powers, by Levenberg-Marquardt from the best point of a lattice.

    Whatever is missing is left out: ranges alone, directions alone, or any mixture of both with powers. What is not
    ``valid`` has a ``reason`` and a finite position; where its residuals are too large, the covariance is what the
    stated noise alone would make it.
    """

    name: ClassVar[str] = "hybrid-gn"
    measurement_type: ClassVar[type[Measurements]] = HybridMeasurements
    options_class: ClassVar[type] = HybridOptions
    options: HybridOptions
    _episodes_at_a_time: ClassVar[int | None] = 256

    def _locate(self, measurements: HybridMeasurements) -> PositionEstimate:
        rows = rows_of(measurements)
        threshold = self.options.threshold
        loss = squared if math.isinf(threshold) else HuberLoss(threshold)
        starts = lattice_starts_m(rows, self.options.points, self.options.starts)
        reached = levenberg_marquardt(rows.repeated(self.options.starts), starts, loss)
        best = reached.cost.unflatten(1, (self.options.starts, -1)).argmin(dim=1)
        return _answer(rows, reached, best, loss, robust=not math.isinf(threshold))


def rows_of(measurements: HybridMeasurements) -> HybridRows:
    """The rows of a batch; entries that are not valid, not finite or infinitely uncertain do not count."""
    variance = measurements.variance.double()
    usable = measurements.valid & torch.isfinite(measurements.values) & torch.isfinite(variance)
    return HybridRows(
        measurements.model,
        measurements.ap_positions_m.double(),
        measurements.ap_orientation_rad.double(),
        measurements.height_diff_m.double(),
        torch.where(usable, measurements.values.double(), 0.0),
        torch.where(usable, variance, 1.0).sqrt(),
        _as_rows(usable),
        measurements.area_m or _square(measurements.model.side_m),
    )


def _square(side_m: float) -> tuple[tuple[float, float], ...]:
    """The square of an environment, which no wall says, and some space around it."""
    low, high = -_NEAR_MARGIN * side_m, (1.0 + _NEAR_MARGIN) * side_m
    return ((low, low), (high, low), (high, high), (low, high))


def lattice_starts_m(rows: HybridRows, points_per_side: int, count: int) -> Float[Tensor, "B SK 2"]:
    """Points of a lattice that explain the rows best, ``count`` per user, all users' best ones first.

    By the least sum of log(1 + z^2) with z blurred by what half a spacing of the lattice makes.
    """
    side_m = rows.model.side_m
    spacing_m = side_m / points_per_side
    lattice = geometry.lattice(side_m, spacing_m).to(rows.values)
    costs = []
    for point in lattice:
        gradient, z = rows.at(point.expand(rows.usable.shape[0], rows.usable.shape[2], 2))
        blurred = z.square() / (1.0 + (0.5 * spacing_m) ** 2 * gradient.square().sum(dim=-1))
        costs.append((torch.log1p(blurred) * rows.usable).sum(dim=1))
    best = torch.stack(costs).topk(count, dim=0, largest=False).indices
    return lattice[best].movedim(0, 1).flatten(1, 2)


def judge(
    rows: HybridRows, reached: Fit, best: Int[Tensor, "B K"], covariance_m2: Float[Tensor, "B K 2 2"], robust: bool
) -> Verdict:
    """The verdict on the best of several ends: geometry, rivals, walls, residuals, valleys; see ``toa.judge``.

    Args:
        rows: all that count.
        reached: where the descents of ``rows.repeated`` ended.
        best: which copy is the answer.
        covariance_m2: of the answer.
        robust: residuals beyond three standard deviations are not believed; an answer is not, if more than half of the
            rows to spare are so, or if it is one of a group most of whom are.
    """
    position, information = of_copies(reached.position_m, best), of_copies(reached.information, best)
    kept = rows
    if robust:
        near = rows.at(position)[1].abs() <= _BELIEVED
        kept = dataclasses.replace(rows, usable=rows.usable & near)
    covariance = inverse_2x2(information)
    spread, chi_squared = spread_m(covariance_m2), chi_squared_at(kept, position)
    freedom, spare = kept.usable.sum(dim=1) - 2, rows.usable.sum(dim=1) - 2
    failures = (
        (Reason.TOO_FEW_LINKS, rows.usable.sum(dim=1) < 2),
        (Reason.POOR_GEOMETRY, ~_determined(information, position)),
        (Reason.LARGE_RESIDUALS, (freedom < spare) & ((freedom < 1) | (2 * freedom < spare))),
        (Reason.OUTSIDE, beyond_walls_m(rows, position) > OUTSIDE_STD * spread + 1e-6 * rows.model.side_m),
        (Reason.LARGE_RESIDUALS, ~residuals_fit(chi_squared, freedom)),
        (Reason.AMBIGUOUS, _rivalled(reached, best, position, information)),
        (Reason.AMBIGUOUS, ~rises(kept, position, covariance, chi_squared, FAR_PROBES, robust, _RISE)),
    )
    valid = ~torch.stack([failed for _, failed in failures]).any(dim=0)
    verdict = Verdict(first_reason(valid, *failures), chi_squared, freedom)
    return check_group(verdict, spare > 0) if robust else verdict


def pull_m(rows: HybridRows, position_m: Float[Tensor, "B K 2"], covariance_m2: Tensor, loss: Loss) -> Tensor:
    """How far rows that are not believed have moved an answer, J^-1 sum u psi(e) to first order, [B, K, 2] metres.

    Their force is bounded but does not vanish, and ranges that are too long all push the same way.
    """
    unit, residual = rows.at(position_m)
    spoilt = rows.usable & (residual.abs() > _BELIEVED)
    _, slope, _ = loss(residual, rows.std_m)
    force = ((slope * spoilt).unsqueeze(-1) * unit).sum(dim=1)
    return (covariance_m2 @ force.unsqueeze(-1)).squeeze(-1).nan_to_num(0.0, 0.0, 0.0)


def _answer(rows: HybridRows, reached: Fit, best: Int[Tensor, "B K"], loss: Loss, robust: bool) -> PositionEstimate:
    side_m = rows.model.side_m
    position_m, information = of_copies(reached.position_m, best), of_copies(reached.information, best)
    own = inverse_2x2(information)
    pull = pull_m(rows, position_m, own, loss) if robust else torch.zeros_like(position_m)
    own = own + pull.unsqueeze(-1) * pull.unsqueeze(-2)
    verdict = judge(rows, reached, best, own, robust)
    known = _determined(information, position_m)
    position = torch.where(known.unsqueeze(-1), position_m, side_m / 2)
    nothing = torch.eye(2, dtype=position.dtype, device=position.device) * (side_m**2 / 12)
    covariance = torch.where(known[..., None, None], own, nothing)
    return PositionEstimate(
        position, covariance, verdict.valid, verdict.reason, verdict.chi_squared, verdict.degrees_of_freedom
    )


def _determined(information: Tensor, position_m: Tensor) -> Tensor:
    eigenvalues = torch.linalg.eigvalsh(torch.nan_to_num(information))
    regular = torch.isfinite(inverse_2x2(information)).all(dim=-1).all(dim=-1)
    return regular & (eigenvalues[..., 0] > _SINGULAR * eigenvalues[..., 1]) & torch.isfinite(position_m).all(dim=-1)


def _rivalled(reached: Fit, best: Tensor, position_m: Tensor, information: Tensor) -> Tensor:
    """Whether another end explains the rows nearly as well, more than five standard deviations away."""
    users = best.shape[1]
    if not users:
        return torch.zeros_like(best, dtype=torch.bool)
    costs = reached.cost.unflatten(1, (-1, users))
    gap = reached.position_m.unflatten(1, (-1, users)) - position_m.unsqueeze(1)
    distance2 = (gap.unsqueeze(-2) @ information.unsqueeze(1) @ gap.unsqueeze(-1))[..., 0, 0]
    near = costs - of_copies(reached.cost, best).unsqueeze(1) < AMBIGUOUS
    return (near & (distance2 > APART_STD**2)).any(dim=1)


def _as_rows(values: Tensor) -> Tensor:
    """[B, M, K, 3, ...] as [B, 3 M, K, ...]."""
    return values.movedim(3, 2).flatten(1, 2)
