"""Many labelled snapshots in one go, for trainers that learn from examples instead of playing rounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex64, Float
from torch import Tensor

from cfpos_envs.channels.sources import CsiSource, Users, UserSource
from cfpos_envs.scenarios.ecc.mobility import draw_moves, draw_ways
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.stored import StoredCsi
from cfpos_envs.scenarios.ecc.worlds import world_of
from cfpos_envs.streams import Streams, derive_seed

CHUNK_SAMPLES = 2048


@dataclass(frozen=True)
class LabelledCsi:
    """A chunk of snapshots with their truth.

    Attributes:
        position_m: where the users are.
        csi: estimated CSI.
        valid: links with a path.
    """

    position_m: Float[Tensor, "U 3"]
    csi: Complex64[Tensor, "U L T A N"]
    valid: Bool[Tensor, "U L"]


def draw_snapshots(
    config: EccOptions,
    count: int,
    seed: int,
    chunk: int = CHUNK_SAMPLES,
    device: str | torch.device = "cpu",
    move_m: float = 0.0,
) -> Iterator[LabelledCsi]:
    """Static users with their CSI, chunk by chunk; ``config.split`` decides places and noise.

    The numbers depend on ``chunk``; the same arguments give the same ones. Where snapshots are stored, all of the split
    come before one comes again.

    Args:
        config: site and split.
        count: number of users in all.
        seed: any integer. Pools draw from other streams than the environment of the same seed.
        chunk: users per chunk.
        device: where the tensors live.
        move_m: users of a ray-traced data set are moved anywhere within this distance, at most
            ``RaytracedSource.max_displacement_m``, and their stored paths with them; 0: nobody is.

    Raises:
        ValueError: ``count`` or ``chunk`` below 1, moving users, or ``move_m`` where it cannot be.
    """
    if count < 1 or chunk < 1:
        raise ValueError(f"count={count} and chunk={chunk} must be at least 1")
    if config.moves != "static":
        raise ValueError(f"mobility={config.moves!r}: a pool holds static users; use mobility='static'")
    world = world_of(config, str(device))
    streams = Streams(derive_seed(seed, "pool"), config.split, device)
    if move_m:
        _check_moves(world.source, move_m)
    stored = world.source.draw_users(streams["drop"], count, config.split) if isinstance(world, StoredCsi) else None
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        if stored is None:
            users, displacement = draw_ways(config, world.source, streams, size)
        else:
            users = Users(stored.position_m[start : start + size], stored.index[start : start + size])
            displacement = torch.zeros(size, 1, 3, device=users.position_m.device)
        if move_m:
            displacement = draw_moves(streams["moves"], size, move_m)[:, None]
        taken = world.measure(streams, users, displacement)
        yield LabelledCsi(users.position_m + displacement[:, 0], taken.csi[:, 0], taken.valid[:, 0])


def _check_moves(source: UserSource, move_m: float) -> None:
    most_m = source.max_displacement_m if isinstance(source, CsiSource) else 0.0
    if not 0 <= move_m <= most_m or math.isinf(most_m):
        can = "draws users anywhere" if math.isinf(most_m) else f"can move its users by {most_m:g} m at most"
        raise ValueError(f"move_m={move_m:g}: {source.name} {can}; use move_m=0 and a larger pool")
