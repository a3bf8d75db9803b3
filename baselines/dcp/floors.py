"""Floors and buildings in answers, and how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate


@dataclass(frozen=True)
class FingerprintEstimate(PositionEstimate):
    """Positions, and the floor and building of each where the survey has them.

    Attributes:
        place: [..., K] index into ``places``; -1 where there is no answer. None: the survey knows no floors.
        places: (building, floor) labels that the survey knows; a part that it does not know is None.
    """

    place: Int[Tensor, "*batch K"] | None = field(default=None, kw_only=True)
    places: tuple[tuple[str | None, str | None], ...] = field(default=(), kw_only=True)

    @property
    def floors(self) -> list[str | None] | None:
        """Floor of every user, in the order of a flattened [..., K]; None where the survey has no floors."""
        return self._labels(1)

    @property
    def buildings(self) -> list[str | None] | None:
        """Building of every user, likewise."""
        return self._labels(0)

    def _labels(self, part: int) -> list[str | None] | None:
        if self.place is None or all(label[part] is None for label in self.places):
            return None
        return [self.places[index][part] if index >= 0 else None for index in self.place.flatten().tolist()]


@dataclass(frozen=True)
class SurveyScore:
    """How far answers are from the truth.

    Attributes:
        users: scans that were scored.
        answered: share of them with a valid answer; the others count in no error, and as wrong floors.
        mean_m, median_m, p90_m: of the horizontal error.
        floor_hit_rate, building_hit_rate: share of scans with the right floor in the right building, and with the
            right building; None where survey or truth have none.
    """

    users: int
    answered: float
    mean_m: float
    median_m: float
    p90_m: float
    floor_hit_rate: float | None
    building_hit_rate: float | None

    def __str__(self) -> str:
        rates = [
            f"{name} {rate:.1%}"
            for name, rate in (("floor", self.floor_hit_rate), ("building", self.building_hit_rate))
            if rate is not None
        ]
        error = f"mean {self.mean_m:.2f} m, median {self.median_m:.2f} m, 90 % {self.p90_m:.2f} m"
        return ", ".join([f"{self.users} scans: {error}, answered {self.answered:.1%}", *rates])


def score(
    estimate: PositionEstimate,
    truth_m: Float[np.ndarray, "K 2"],
    floors: Sequence[object] | None = None,
    buildings: Sequence[object] | None = None,
) -> SurveyScore:
    """Compare answers with the truth.

    Args:
        estimate: of K users.
        truth_m: their places, metres.
        floors, buildings: their labels, None where unknown.

    Raises:
        ValueError: other numbers of users.
    """
    valid = estimate.valid.cpu().numpy()
    for name, given in (("truth_m", truth_m), ("floors", floors), ("buildings", buildings)):
        if given is not None and len(given) != len(valid):
            raise ValueError(f"{name} has {len(given)} entries, the estimate {len(valid)} users")
    errors = np.linalg.norm(estimate.position.double().cpu().numpy()[valid] - np.asarray(truth_m)[valid], axis=-1)
    middle = np.quantile(errors, (0.5, 0.9)) if len(errors) else np.full(2, np.nan)
    found_floors = estimate.floors if isinstance(estimate, FingerprintEstimate) else None
    found_buildings = estimate.buildings if isinstance(estimate, FingerprintEstimate) else None
    in_building = _hits(found_buildings, buildings)
    on_floor = _hits(found_floors, floors)
    if on_floor is not None and in_building is not None:
        on_floor = on_floor & in_building
    return SurveyScore(
        len(valid),
        float(valid.mean()),
        float(errors.mean()) if len(errors) else float("nan"),
        float(middle[0]),
        float(middle[1]),
        None if on_floor is None else float((on_floor & valid).mean()),
        None if in_building is None else float((in_building & valid).mean()),
    )


def grouped(
    buildings: Sequence[str] | None, floors: Sequence[str] | None
) -> tuple[Int[Tensor, " P"], tuple[tuple[str | None, str | None], ...]] | None:
    """Index of every point's (building, floor) and what the indices mean; None where neither is known."""
    if buildings is None and floors is None:
        return None
    count = len(buildings if buildings is not None else floors or ())
    nothing: list[str | None] = [None] * count
    pairs = list(zip(nothing if buildings is None else buildings, nothing if floors is None else floors))
    known = tuple(dict.fromkeys(pairs))
    number = {pair: index for index, pair in enumerate(known)}
    return torch.tensor([number[pair] for pair in pairs]), known


def _hits(found: Sequence[str | None] | None, truth: Sequence[object] | None) -> np.ndarray | None:
    if found is None or truth is None:
        return None
    return np.array([label == str(right) for label, right in zip(found, truth)])
