"""From nearest references to positions, and to floors where the references have them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfpos_envs.physics.geometry import displacement, nearest_image, unit_vectors

from ..neighbour_errors import SEEN, Neighbourhood, spread_m2
from .database import Database
from .fingerprint_options import FingerprintOptions
from .links import by_heard_aps
from .nearest import Queries, nearest_references, weighted_position, weights_of


@dataclass(frozen=True)
class Labels:
    """Which of some groups (floors of buildings) every reference belongs to.

    Attributes:
        group: index of each reference's group.
        count: number of groups.
    """

    group: Int[Tensor, " P"]
    count: int


@dataclass(frozen=True)
class LeftOut:
    """References that do not count for a query: those at its own place.

    Attributes:
        place: number of the place of every reference.
        of_query: number of the place that does not count.
        most: references at one place, at most.
    """

    place: Int[Tensor, " P"]
    of_query: Int[Tensor, " Q"]
    most: int


@dataclass(frozen=True)
class Matched:
    """Answers to Q queries, and what they were made of.

    Attributes:
        position_m: the answers.
        group: index of each answer's group; -1 where there is none.
        made_of: neighbours' spread and dissimilarity.
    """

    position_m: Float[Tensor, "Q 2"]
    group: Int[Tensor, " Q"]
    made_of: Neighbourhood


def locate_by_matching(
    database: Database,
    queries: Queries,
    heard: Bool[Tensor, "Q M"],
    options: FingerprintOptions,
    side_m: float,
    wrap: bool,
    labels: Labels | None = None,
    left_out: LeftOut | None = None,
) -> Matched:
    """Positions and groups of Q users; users with the same set of APs to compare are matched together.

    Args:
        database: the references.
        queries: measured fingerprints.
        heard: APs that count, per user; a user without any gets the mean of the reference positions and group -1.
        options: feature, distance, matching, neighbours, fusion.
        side_m, wrap: the area; ``side_m`` matters on the torus only.
        labels: groups of the references; the neighbours vote with their weights, and those of the group with most
            votes make the position. None: no groups, -1 for everybody.
        left_out: references that do not count.
    """
    positions = database.positions_m.mean(dim=0).expand(len(heard), 2).clone()
    groups = torch.full((len(heard),), -1)
    spread = positions.new_zeros(len(heard), 2, 2)
    strangeness = positions.new_zeros(len(heard))
    for rows, columns in by_heard_aps(heard):
        chosen = queries.select(rows)
        barred = None if left_out is None else LeftOut(left_out.place, left_out.of_query[rows], left_out.most)
        matcher = _Matcher(database, chosen, options, side_m, wrap, labels, barred)
        if options.fusion == "central":
            answer = matcher.match(columns)
        else:
            answer = matcher.median_of([matcher.match(columns[i : i + 1]) for i in range(len(columns))], columns)
        positions[rows], spread[rows] = answer.position_m, answer.spread_m2.to(spread.dtype)
        strangeness[rows] = answer.strangeness.to(strangeness.dtype)
        if labels is not None:
            groups[rows] = answer.votes.argmax(dim=-1)
    return Matched(positions, groups, Neighbourhood(spread, strangeness))


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
    weights = weights_of(distances)
    return weights.new_zeros(len(group), count).scatter_add_(1, group, weights)


@dataclass(frozen=True)
class _Answer:
    """Of queries that compare the same APs."""

    position_m: Float[Tensor, "q 2"]
    votes: Float[Tensor, "q G"]
    spread_m2: Float[Tensor, "q 2 2"]
    strangeness: Float[Tensor, " q"]


@dataclass(frozen=True)
class _Matcher:
    """Queries that compare the same APs; see ``locate_by_matching``."""

    database: Database
    queries: Queries
    options: FingerprintOptions
    side_m: float
    wrap: bool
    labels: Labels | None
    left_out: LeftOut | None

    def match(self, columns: Tensor) -> _Answer:
        """By the references that are nearest over the APs in ``columns``."""
        distances, indices = self._nearest(columns)
        neighbours = 1 if self.options.matching == "nn" else self.options.neighbours
        near = indices[:, :neighbours]
        strangeness = self._strangeness(columns, distances, indices)
        every = distances[:, :neighbours]
        votes = every.new_zeros(len(every), 0)
        if self.labels is not None:
            group = self.labels.group[near]
            votes = group_votes(every, group, self.labels.count)
            elsewhere = group != votes.argmax(dim=-1, keepdim=True)
            # A place between two buildings is in neither. The nearest of the chosen group comes first: the anchor.
            every, order = torch.where(elsewhere, torch.inf, every).sort(dim=-1, stable=True)
            near = near.gather(-1, order)
            indices = torch.cat((near, indices[:, neighbours:]), dim=-1)
        position = weighted_position(self.database.positions_m[near], every, self.side_m, self.wrap)
        weights = torch.nn.functional.pad(weights_of(every), (0, indices.shape[1] - near.shape[1]))
        return _Answer(position, votes, spread_m2(self._away(indices, position), weights), strangeness)

    def median_of(self, answers: list[_Answer], columns: Tensor) -> _Answer:
        """The median of what the APs in ``columns`` answered each by itself."""
        places = torch.stack([answer.position_m for answer in answers])
        position = median_position(places, self.side_m, self.wrap)
        away = nearest_image(places - position, self.side_m, self.wrap)
        nearest = displacement(self.database.positions_m, position, self.side_m, self.wrap).square().sum(dim=-1)
        index = nearest.argmin(dim=0).unsqueeze(-1)
        return _Answer(
            position,
            torch.stack([answer.votes for answer in answers]).sum(dim=0),
            torch.einsum("nqi,nqj->qij", away, away) / len(answers),
            self._strangeness(columns, torch.zeros_like(index), index),
        )

    def _nearest(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        options, barred = self.options, self.left_out
        wanted = max(1 if options.matching == "nn" else options.neighbours, SEEN)
        more = 0 if barred is None else barred.most
        distances, indices = nearest_references(
            self.database,
            self.queries,
            columns,
            options.feature,
            min(wanted + more, len(self.database)),
            distance=options.metric,
        )
        if barred is not None:
            own = barred.place[indices] == barred.of_query.unsqueeze(-1)
            distances, order = torch.where(own, torch.inf, distances).sort(dim=-1, stable=True)
            indices = indices.gather(-1, order)
        return distances[:, :wanted], indices[:, :wanted]

    def _strangeness(self, columns: Tensor, distances: Tensor, indices: Tensor) -> Tensor:
        """Of the most similar of the neighbours: sum |a - b| / sum (a + b) of the powers above the detection limit in
        dB, and where only angles are compared, the distance."""
        if self.options.feature == "aoa":
            return distances[:, 0]
        measured = self.database.above_limit_db(self.queries.rss_dbm[:, columns], columns).unsqueeze(1)
        known = self.database.above_limit_db(self.database.rss_dbm[indices][..., columns], columns)
        # What is below the limit in both agrees.
        total = (measured + known).sum(dim=-1).clamp(min=torch.finfo(known.dtype).tiny)
        apart = (measured - known).abs().sum(dim=-1) / total
        return torch.where(torch.isfinite(distances), apart, torch.inf).amin(dim=-1)

    def _away(self, indices: Tensor, position_m: Tensor) -> Tensor:
        away = self.database.positions_m[indices] - position_m.unsqueeze(1)
        return nearest_image(away, self.side_m, self.wrap)
