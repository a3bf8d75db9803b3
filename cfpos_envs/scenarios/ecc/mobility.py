"""Ways of users through a scene: a spiral to the top, or straight from one random point to the next."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.channels.sources import CsiSource, Users, UserSource
from cfpos_envs.channels.spiral import SPIRAL_RADIUS_M, spiral
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.streams import Streams

_CANDIDATES = 24
_WAYPOINTS = 8
_CHECKED_POINTS = 16


def draw_ways(
    config: EccOptions, source: UserSource, streams: Streams, count: int
) -> tuple[Users, Float[Tensor, "U S 3"]]:
    """Users and where they are at each measurement, relative to where they were drawn.

    Args:
        config: mobility, rounds, speed.
        source: the scene.
        streams: ``drop`` draws the users, ``mobility`` their ways.
        count: U.

    Raises:
        ValueError: the source cannot move its users that far.
    """
    if not isinstance(config, EccConfig) or config.mobility == "static":
        users = source.draw_users(streams["drop"], count, config.split)
        return users, torch.zeros(count, 1, 3, device=users.position_m.device)
    assert isinstance(source, CsiSource)
    if source.max_displacement_m < 2 * SPIRAL_RADIUS_M:
        raise ValueError(
            f"mobility={config.mobility!r}: {source.name} can move its users by {source.max_displacement_m:g} m only; "
            "use mobility='static' or an embedded site"
        )
    if config.mobility == "spiral":
        return _spirals(config, source, streams, count)
    return _walks(config, source, streams, count)


def walk(points_m: Float[Tensor, "*batch W 3"], distance_m: Float[Tensor, " S"]) -> Float[Tensor, "*batch S 3"]:
    """Positions along straight lines from point to point; at the last point it ends.

    Args:
        points_m: waypoints.
        distance_m: ways gone, not negative.
    """
    legs = torch.linalg.vector_norm(points_m.diff(dim=-2), dim=-1)
    ends = legs.cumsum(dim=-1)
    gone = torch.minimum(distance_m.expand(*ends.shape[:-1], -1), ends[..., -1:])
    leg = torch.searchsorted(ends.contiguous(), gone.contiguous()).clamp(max=legs.shape[-1] - 1)
    length = legs.gather(-1, leg)
    share = 1.0 - (ends.gather(-1, leg) - gone) / length.clamp(min=1e-6)
    index = leg.unsqueeze(-1).expand(*leg.shape, 3)
    start, end = points_m.gather(-2, index), points_m.gather(-2, index + 1)
    return start + share.clamp(0.0, 1.0).unsqueeze(-1) * (end - start)


def draw_moves(generator: draws.Source, count: int, radius_m: float) -> Float[Tensor, "U 3"]:
    """Steps in any direction, uniform in a ball.

    Args:
        generator: of the steps.
        count: U.
        radius_m: of the ball.
    """
    towards = draws.normal(generator, count, 3)
    share = draws.uniform(generator, count, 1)
    return radius_m * share ** (1 / 3) * torch.nn.functional.normalize(towards, dim=-1)


def _spirals(config: EccConfig, source: CsiSource, streams: Streams, count: int) -> tuple[Users, Tensor]:
    """Of several axes for each user the one whose spiral runs into buildings least."""
    many = source.draw_users(streams["drop"], count * _CANDIDATES, config.split)
    turn = draws.uniform(streams["mobility"], len(many.index)) * (2 * math.pi)
    low, high = source.area_min_m, source.area_max_m
    centre = torch.stack(
        [many.position_m[:, a].clamp(low[a] + SPIRAL_RADIUS_M, high[a] - SPIRAL_RADIUS_M) for a in range(2)], dim=-1
    )
    ways = spiral(centre, turn, low[2], high[2], config.rounds).unflatten(0, (count, _CANDIDATES))
    best = source.is_free(ways).sum(dim=-1).argmax(dim=-1)
    rows = torch.arange(count, device=best.device)
    numbers = rows * _CANDIDATES + best
    users = Users(many.position_m[numbers], many.index[numbers])
    return users, ways[rows, best] - users.position_m.unsqueeze(1)


def _walks(config: EccConfig, source: CsiSource, streams: Streams, count: int) -> tuple[Users, Tensor]:
    """Random waypoints; of several next ones the first that is reached without walking through a wall, else stay."""
    users = source.draw_users(streams["drop"], count, config.split)
    points = [users.position_m]
    share = torch.linspace(0.0, 1.0, _CHECKED_POINTS, device=users.position_m.device)[:, None]
    for _ in range(_WAYPOINTS):
        here = points[-1]
        goals = source.draw_users(streams["mobility"], count * _CANDIDATES, config.split).position_m
        goals = goals.unflatten(0, (count, _CANDIDATES))
        ways = here[:, None, None] + share * (goals - here[:, None]).unsqueeze(-2)
        open_way = source.is_free(ways).all(dim=-1)
        first = open_way.to(torch.uint8).argmax(dim=-1)
        goal = goals[torch.arange(count, device=first.device), first]
        points.append(torch.where(open_way.any(dim=-1, keepdim=True), goal, here))
    moments = torch.arange(config.rounds, device=users.position_m.device, dtype=users.position_m.dtype)
    way = walk(torch.stack(points, dim=-2), moments * (config.speed_m_s * config.round_s))
    return users, way - users.position_m.unsqueeze(1)
