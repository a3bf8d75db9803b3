"""Nearest neighbours among fingerprints: the library finds candidates, a few lines of algebra make the choice exact."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.metrics.pairwise import additive_chi2_kernel
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from cfpos_envs.measurements.base import Rows
from cfpos_envs.physics.geometry import nearest_image

from .database import Database

FROM_ZERO = ("positive", "powed", "exponential")
"""Maps of the RSS whose zero is what was not heard, see ``Database.features``."""

FEATURES = ("rss-db", "rss-linear", *FROM_ZERO, "aoa", "eq7", "joint-db", "range", "rss-range")
"""What may be compared. ``eq7`` is Xi^a / Xi^r with linear RSS as printed, ``joint-db`` the same with RSS in dB."""

OF_NOT_NEGATIVE = ("cosine", "sorensen", "canberra", "chi-squared", "squared-chord")
"""Distances of numbers that are not negative."""

DISTANCES = ("euclidean", "manhattan", *OF_NOT_NEGATIVE)
"""How features are compared, see ``separation``."""

_BASE = {name: name for name in FEATURES} | {
    "eq7": "rss-linear",
    "joint-db": "rss-db",
    # Ranges, and powers in metres, are made by ``own_survey``.
    "range": "rss-db",
    "rss-range": "rss-db",
}
_RATIOS = ("eq7", "joint-db")
_METRICS = {
    "euclidean": "minkowski",
    "manhattan": "manhattan",
    "cosine": "cosine",
    "sorensen": "braycurtis",
    "canberra": "canberra",
}
"""Names of the distances in the library."""

_QUERIES_AT_A_TIME = 256
"""Whose distances to all references the library computes at once, where it has no search by that distance."""

_SPARE = 4
"""Neighbours asked for beyond those needed: the library's rounding may swap the last ones."""

_PAIRS_AT_A_TIME = 320_000
"""Query-reference pairs that are compared at once: few enough that temporaries stay near the core."""
_LEAST_AT_A_TIME = 32
"""Queries, however many references there are."""


@dataclass(frozen=True)
class Queries(Rows):
    """Measured fingerprints of Q users.

    Attributes:
        rss_dbm: measured RSS.
        spectra: angular power, any scale; None where there is none.
    """

    rss_dbm: Float[Tensor, "Q M"]
    spectra: Float[Tensor, "Q M L"] | None


def base_feature(feature: str) -> str:
    """The kind of ``Database.features`` that a feature compares, alone or times something else."""
    return _BASE[feature]


def needs_spectra(feature: str) -> bool:
    """Whether a feature uses the angular power."""
    return feature in ("aoa", "eq7", "joint-db")


def nearest_references(
    database: Database,
    queries: Queries,
    columns: Int[Tensor, " C"],
    feature: str,
    neighbours: int,
    distance: str = "euclidean",
) -> tuple[Float[Tensor, "Q k"], Int[Tensor, "Q k"]]:
    """The ``neighbours`` references most like every query, best first.

    Distances are Euclidean for ``aoa``, where ||a - b||^2 = 2 - 2 Xi^a for unit-norm
    columns, so the nearest one maximises eq. (8). ``eq7`` and ``joint-db`` minimise Xi^r / Xi^a, the reciprocal of
    eq. (7); the normalisation of Xi^r over the users is constant per query and dropped. That ratio is no metric:
    all references are looked at. RSS features are compared by ``distance``.

    Args:
        database: P references, with spectra where the feature needs them.
        queries: fingerprints, finite in ``columns``.
        columns: APs to compare.
        feature: one of ``FEATURES``.
        neighbours: 1 <= k <= P.
        distance: one of ``DISTANCES``; other than Euclidean only for features without angles.

    Returns:
        (distances, indices into the references).
    """
    base = _BASE[feature]
    references = database.features(base, columns)
    wanted = database.query_features(base, queries.rss_dbm, queries.spectra, columns)
    count = min(neighbours + _SPARE, len(references))
    if feature in _RATIOS:
        return _best_ratios(database, queries, columns, references, wanted, count, neighbours)
    found = _candidates(references, wanted, distance, count)
    # The library works with expanded squares; exact distances of its few candidates cost nothing.
    return _best(separation(references[found], wanted[:, None], distance), found, neighbours)


def separation(
    first: Float[Tensor, "*#batch F"], second: Float[Tensor, "*#batch F"], distance: str
) -> Float[Tensor, "*batch"]:
    """Distance of feature vectors a and b, by the names of Cha (Int. J. Math. Models Methods Appl. Sci. 1 (2007) 300).

    ``euclidean`` sqrt sum (a - b)^2, ``manhattan`` sum |a - b|; of numbers that are not negative ``cosine``
    1 - a.b / (|a| |b|), ``sorensen`` sum |a - b| / sum (a + b), ``canberra`` sum |a - b| / (a + b), ``chi-squared``
    sum (a - b)^2 / (a + b), ``squared-chord`` sum (sqrt a - sqrt b)^2; terms 0 / 0 count 0.

    Args:
        first, second: a and b.
        distance: one of ``DISTANCES``.

    Returns:
        The distance; 1 for ``cosine`` and ``sorensen`` where a vector (both) is all zero: nothing is in common.
    """
    if distance == "cosine":
        return 1.0 - torch.cosine_similarity(first, second, dim=-1, eps=torch.finfo(first.dtype).tiny)
    difference = first - second
    if distance == "euclidean":
        return torch.linalg.vector_norm(difference, dim=-1)
    if distance == "manhattan":
        return difference.abs().sum(dim=-1)
    if distance == "squared-chord":
        return (first.sqrt() - second.sqrt()).square().sum(dim=-1)
    total = first + second
    if distance == "sorensen":
        common = total.sum(dim=-1)
        return torch.where(common > 0, difference.abs().sum(dim=-1) / common, 1.0)
    parts = difference.abs() if distance == "canberra" else difference.square()
    return torch.where(total > 0, parts / total, 0.0).sum(dim=-1)


def _candidates(references: Tensor, wanted: Tensor, distance: str, count: int) -> Tensor:
    """Indices [Q, count] of the references that are nearest by the library's arithmetic, in any order."""
    if distance == "chi-squared":
        parts = [
            np.argpartition(-additive_chi2_kernel(some.numpy(), references.numpy()), count - 1, axis=1)[:, :count]
            for some in wanted.split(_QUERIES_AT_A_TIME)
        ]
        return torch.from_numpy(np.concatenate(parts))
    metric = _METRICS.get(distance, "minkowski")
    if distance == "squared-chord":
        references, wanted = references.sqrt(), wanted.sqrt()
    index = NearestNeighbors(algorithm="brute", metric=metric).fit(references.numpy())
    return torch.from_numpy(index.kneighbors(wanted.numpy(), n_neighbors=count, return_distance=False))


def weighted_position(
    positions_m: Float[Tensor, "Q k 2"], distances: Float[Tensor, "Q k"], side_m: float, wrap: bool
) -> Float[Tensor, "Q 2"]:
    """WKNN: mean of the neighbours' positions with weights 1 / feature distance, unwrapped around the nearest one."""
    anchor = positions_m[:, :1]
    weights = weights_of(distances).to(positions_m.dtype)
    offsets = nearest_image(positions_m - anchor, side_m, wrap)
    return anchor[:, 0] + (weights.unsqueeze(-1) * offsets).sum(dim=1)


def weights_of(distances: Float[Tensor, "Q k"]) -> Float[Tensor, "Q k"]:
    """Shares 1 / distance of a sum of 1, in double precision; infinitely far neighbours have none."""
    # A perfect match must win outright, not divide by zero.
    weights = 1.0 / distances.double().clamp(min=1e-12)
    return weights / weights.sum(dim=-1, keepdim=True)


def _best(scores: Tensor, candidates: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    # Ties go to the lower index whatever order the candidates came in: the result does not depend on chunking.
    order = candidates.argsort(dim=-1)
    scores, candidates = scores.gather(-1, order), candidates.gather(-1, order)
    rank = scores.argsort(dim=-1, stable=True)[:, :neighbours]
    return scores.gather(-1, rank), candidates.gather(-1, rank)


def _best_ratios(
    database: Database,
    queries: Queries,
    columns: Tensor,
    references: Tensor,
    wanted: Tensor,
    count: int,
    neighbours: int,
) -> tuple[Tensor, Tensor]:
    """The references with the smallest Xi^r / Xi^a, a few queries at a time."""
    if queries.spectra is None:
        raise ValueError("this feature needs angular power spectra; give aoa, or choose feature='rss-db'")
    block = max(_LEAST_AT_A_TIME, _PAIRS_AT_A_TIME // len(references))
    distances, indices = [], []
    doubled = references.double()
    for low in range(0, len(wanted), block):
        some = slice(low, low + block)
        xi_a = database.aoa_similarities(queries.spectra[some], columns).clamp(min=1e-9)
        # Expanded squares choose, in double precision; differences say how far the chosen ones are.
        expanded = torch.cdist(wanted[some].double(), doubled, compute_mode="use_mm_for_euclid_dist")
        found = (expanded.to(xi_a.dtype) / xi_a).topk(count, largest=False, sorted=False).indices
        exact = separation(references[found], wanted[some, None], "euclidean") / xi_a.gather(1, found)
        best, chosen = _best(exact, found, neighbours)
        distances.append(best)
        indices.append(chosen)
    return torch.cat(distances), torch.cat(indices)
