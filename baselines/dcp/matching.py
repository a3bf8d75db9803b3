"""From nearest references to positions, and to floors where the references have them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.physics.geometry import displacement, unit_vectors

from .database import Database
from .fingerprint_options import FingerprintOptions
from .links import by_heard_aps
from .nearest import Queries, nearest_references, weighted_position


@dataclass(frozen=True)
class Labels:
    """Which of some groups (floors of buildings) every reference belongs to.

    Attributes:
        group: index of each reference's group.
        count: number of groups.
    """

    group: Int[Tensor, " P"]
    count: int


def locate_by_matching(
    database: Database,
    queries: Queries,
    heard: Bool[Tensor, "Q M"],
    options: FingerprintOptions,
    side_m: float,
    wrap: bool,
    labels: Labels | None = None,
) -> tuple[Float[Tensor, "Q 2"], Int[Tensor, " Q"]]:
    """Positions and groups of Q users; users with the same set of APs to compare are matched together.

    Args:
        database: the references.
        queries: measured fingerprints.
        heard: APs that count, per user; a user without any gets the mean of the reference positions and group -1.
        options: feature, distance, matching, neighbours, fusion.
        side_m, wrap: the area; ``side_m`` matters on the torus only.
        labels: groups of the references; the neighbours vote with their weights, and those of the group with most
            votes make the position. None: no groups, -1 for everybody.
    """
    positions = database.positions_m.mean(dim=0).expand(len(heard), 2).clone()
    groups = torch.full((len(heard),), -1)
    for rows, columns in by_heard_aps(heard):
        chosen = queries.select(rows)
        if options.fusion == "central":
            positions[rows], votes = _match(database, chosen, columns, options, side_m, wrap, labels)
        else:
            answers = [
                _match(database, chosen, columns[i : i + 1], options, side_m, wrap, labels) for i in range(len(columns))
            ]
            positions[rows] = median_position(torch.stack([place for place, _ in answers]), side_m, wrap)
            votes = torch.stack([vote for _, vote in answers]).sum(dim=0)
        if labels is not None:
            groups[rows] = votes.argmax(dim=-1)
    return positions, groups


def median_position(positions_m: Float[Tensor, "N Q 2"], side_m: float, wrap: bool) -> Float[Tensor, "Q 2"]:
    """Coordinate-wise median of N answers per user; on the torus, unwrapped around their circular mean."""
    if not wrap:
        return positions_m.median(dim=0).values
    turns = positions_m * (2 * torch.pi / side_m)
    mean = unit_vectors(turns).mean(dim=0)
    centre = torch.atan2(mean[..., 1], mean[..., 0]) * (side_m / (2 * torch.pi))
    offsets = displacement(centre[:, None], positions_m.transpose(0, 1), side_m, wrap)[:, 0]
    return centre + offsets.median(dim=1).values


def group_votes(distances: Float[Tensor, "Q k"], group: Int[Tensor, "Q k"], count: int) -> Float[Tensor, "Q count"]:
    """Share of the weights 1 / distance that every group has among a user's neighbours."""
    weights = 1.0 / distances.double().clamp(min=1e-12)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights.new_zeros(len(group), count).scatter_add_(1, group, weights)


def _match(
    database: Database,
    queries: Queries,
    columns: Tensor,
    options: FingerprintOptions,
    side_m: float,
    wrap: bool,
    labels: Labels | None,
) -> tuple[Tensor, Tensor]:
    neighbours = options.neighbours if options.matching == "wknn" else 1
    distances, indices = nearest_references(
        database, queries, columns, options.feature, neighbours, distance=options.metric
    )
    votes = distances.new_zeros(len(distances), 0)
    if labels is not None:
        group = labels.group[indices]
        votes = group_votes(distances, group, labels.count)
        elsewhere = group != votes.argmax(dim=-1, keepdim=True)
        # A place between two buildings is in neither. The nearest of the chosen group comes first: it is the anchor.
        distances, order = torch.where(elsewhere, torch.inf, distances).sort(dim=-1, stable=True)
        indices = indices.gather(-1, order)
    return weighted_position(database.positions_m[indices], distances, side_m, wrap), votes
