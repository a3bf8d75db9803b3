"""Gaussian-process regression over a person's own survey, and whether it fits."""

from __future__ import annotations

import math
import warnings

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .database import Database
from .fingerprint_options import FingerprintOptions
from .gpr import MAX_REFERENCES, FittedProcess
from .nearest import base_feature, weighted_position

TUNING_POINTS, RESTARTS = 225, 10
"""The likelihood of the kernel has several maxima over surveys: one start ends in a poor one often enough."""

_NEIGHBOURS = 4
_NOT_BETTER = 0.9
"""Of the spread of the places: who misses left-out places by more has learned nothing."""


class SurveyRegression:
    """A regression from the fingerprints of a survey to its places.

    Args:
        database: the references, gaps filled with detection limits.
        known: access points that were heard somewhere.
        options: of the fingerprint.

    Raises:
        ValueError: more references than a Gaussian process can be fitted to, or all the same.

    Warns:
        UserWarning: places that are left out are missed by more than their nearest neighbours miss them.
    """

    def __init__(self, database: Database, known: Bool[Tensor, " C"], options: FingerprintOptions) -> None:
        if len(database) > MAX_REFERENCES:
            raise ValueError(
                f"matching='gpr' takes {MAX_REFERENCES} references, the survey has {len(database)}; average scans of "
                "one place (repeated='average'), or use matching='wknn'"
            )
        self._database, self._kind = database, base_feature(options.feature)
        self._columns = torch.nonzero(known).squeeze(-1)
        features = database.features(self._kind, self._columns).double()
        # A corridor is long and narrow: where one coordinate is known well and the other not at all, no one noise fits.
        self._axes = [FittedProcess("rss-db", 1.0, False, TUNING_POINTS, RESTARTS) for _ in range(2)]
        for process, place in zip(self._axes, database.positions_m.split(1, dim=1)):
            process.fit(place, features, _no_spectra(features))
        missed = math.hypot(*(process.left_out_error_m() for process in self._axes))
        spread = float(database.positions_m.double().var(dim=0, correction=0).sum().sqrt())
        usual = left_out_error_of_neighbours_m(features, database.positions_m, _NEIGHBOURS)
        if missed > usual:
            warnings.warn(
                f"gpr does not fit this survey: it misses places that are left out by {missed:.2f} m (RMSE), their "
                f"{_NEIGHBOURS} nearest neighbours by {usual:.2f} m; use fingerprint with matching='wknn'",
                stacklevel=2,
            )
        elif missed > _NOT_BETTER * spread:
            warnings.warn(
                f"gpr does not fit this survey: it misses places that are left out by {missed:.2f} m (RMSE), the "
                f"middle of all places by {spread:.2f} m; look at the readings and their places",
                stacklevel=2,
            )

    def predict(
        self, readings: Float[Tensor, "Q C"], compared: Bool[Tensor, "Q C"]
    ) -> tuple[Float[Tensor, "Q 2"], Float[Tensor, "Q 2 2"]]:
        """Positions and their covariance, each coordinate by a process of its own.

        Args:
            readings: as in the database, finite where ``compared``.
            compared: readings that count.
        """
        features = self._database.query_features(self._kind, readings, None, self._columns).double()
        there = compared[:, self._columns]
        features = torch.where(there, features, 0.0)
        found = [process.predict(features, _no_spectra(features), there) for process in self._axes]
        position, variance = (torch.stack(part, dim=-1) for part in zip(*((mean[:, 0], var) for mean, var in found)))
        return position, torch.diag_embed(variance.double())


def left_out_error_of_neighbours_m(
    features: Float[Tensor, "P F"], positions_m: Float[Tensor, "P 2"], neighbours: int
) -> float:
    """RMSE of every reference located by its nearest others, weights 1 / distance.

    Args:
        features: of the references.
        positions_m: their places.
        neighbours: k; fewer where there are fewer others.
    """
    count = min(neighbours, len(features) - 1)
    if count < 1:
        return float("inf")
    distances = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    nearest, index = distances.topk(count, dim=1, largest=False)
    found = weighted_position(positions_m[index].double(), nearest, 1.0, False)
    return float((found - positions_m).square().sum(dim=1).mean().sqrt())


def _no_spectra(features: Tensor) -> Tensor:
    return features.new_ones(*features.shape, 1)
