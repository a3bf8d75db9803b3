"""Many labelled snapshots in one go, for trainers that learn from examples instead of playing rounds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.physics.ecc.features import csi_features, feature_size
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.mobility import draw_ways
from cfpos_envs.scenarios.ecc.world import CsiWorld, shared_world
from cfpos_envs.streams import Streams, derive_seed

CHUNK_SAMPLES = 2048


@dataclass(frozen=True)
class LabelledCsi:
    """A chunk of snapshots with their truth.

    Attributes:
        position_m: [U, 3] where the users are.
        csi: complex64 [U, L, T, A, N].
        valid: [U, L].
    """

    position_m: Tensor
    csi: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Pool:
    """Features and positions of many users.

    Attributes:
        position_m: [U, 3] float32.
        features: [U, L, F] in the type asked for; zero on invalid links.
        log_gain: [U, L] standardised, see ``CsiSystem.standardise_log_gain``; its floor on invalid links.
        valid: [U, L].
    """

    position_m: Tensor
    features: Tensor
    log_gain: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.position_m)

    def select(self, index: slice | Tensor) -> Pool:
        """Only the users ``index``."""
        return Pool(self.position_m[index], self.features[index], self.log_gain[index], self.valid[index])


def draw_snapshots(
    config: EccConfig, count: int, seed: int, chunk: int = CHUNK_SAMPLES, device: str | torch.device = "cpu"
) -> Iterator[LabelledCsi]:
    """Static users with their CSI, chunk by chunk; ``config.split`` decides places and noise.

    The numbers depend on ``chunk``; the same arguments give the same ones.

    Args:
        config: site and split.
        count: number of users in all.
        seed: any integer. Pools draw from other streams than the environment of the same seed.
        chunk: users per chunk.
        device: where the tensors live.

    Raises:
        ValueError: ``count`` or ``chunk`` below 1, moving users.
    """
    if count < 1 or chunk < 1:
        raise ValueError(f"count={count} and chunk={chunk} must be at least 1")
    if config.mobility != "static":
        raise ValueError(f"mobility={config.mobility!r}: a pool holds static users; use mobility='static'")
    world = shared_world(config.settings, str(device))
    streams = Streams(derive_seed(seed, "pool"), config.split, device)
    for start in range(0, count, chunk):
        users, displacement = draw_ways(config, world.source, streams, min(chunk, count - start))
        taken = world.measure(streams, users, displacement)
        yield LabelledCsi(users.position_m, taken.csi[:, 0], taken.valid[:, 0])


def make_pool(
    config: EccConfig,
    count: int,
    seed: int,
    features: str | None = None,
    dtype: torch.dtype = torch.float16,
    chunk: int = CHUNK_SAMPLES,
    device: str | torch.device = "cpu",
) -> Pool:
    """Features of ``count`` static users; 200 000 users x 6 BSs x 336 numbers are 0.8 GB in half precision.

    Args:
        config, count, seed, chunk, device: see ``draw_snapshots``.
        features: see ``physics.csi_features``; None: those of the config.
        dtype: of the stored features.

    Raises:
        ValueError: see ``draw_snapshots``; unknown features.
    """
    world = shared_world(config.settings, str(device))
    system, kind = world.system, features or config.features
    size = feature_size(kind, system.array_shape, system.num_subcarriers)
    stored = torch.empty(count, system.num_bs, size, dtype=dtype, device=device)
    position = torch.empty(count, 3, device=device)
    log_gain = torch.empty(count, system.num_bs, device=device)
    valid = torch.empty(count, system.num_bs, dtype=torch.bool, device=device)
    done = 0
    for part in draw_snapshots(config, count, seed, chunk, device):
        rows = slice(done, done + len(part.position_m))
        stored[rows], log_gain[rows] = features_of(world, part, kind, config.stabilise)
        position[rows], valid[rows] = part.position_m, part.valid
        done = rows.stop
    return Pool(position, stored, log_gain, valid)


def features_of(world: CsiWorld, part: LabelledCsi, features: str, stabilise: str) -> tuple[Tensor, Tensor]:
    """Features [U, L, F] and standardised log gains [U, L] of a chunk."""
    values = csi_features(part.csi, features, world.system.array_shape, stabilise)
    return values, world.system.standardise_log_gain(side_gain(part.csi), part.valid)
