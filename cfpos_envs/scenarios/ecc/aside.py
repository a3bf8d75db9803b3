"""Places that no training sees, for what has to be measured on such places: how large a network's errors are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from torch import Tensor

from cfpos_envs.channels.sources import CsiSource
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.pool import CHUNK_SAMPLES, LabelledCsi, draw_snapshots
from cfpos_envs.scenarios.ecc.stored import StoredCsi
from cfpos_envs.scenarios.ecc.worlds import world_of
from cfpos_envs.streams import derive_seed

LARGEST_SHARE = 0.1
"""Of the places of training, where these are a given set, at most."""


@dataclass(frozen=True)
class Aside:
    """Where snapshots that are set aside come from.

    Attributes:
        game: whose split they are of.
        count: how many, at most what was asked for.
        costs: whether training has to do without these places, because there are no others.
    """

    game: EccOptions
    count: int
    costs: bool

    def draw(self, seed: int, device: str = "cpu") -> Iterator[LabelledCsi]:
        """The snapshots, chunk by chunk, from a stream of their own: always the same ones for a seed.

        Args:
            seed: of the run.
            device: where they live.
        """
        chunk = min(CHUNK_SAMPLES, self.count)
        left = self.count
        whole = -(-self.count // chunk) * chunk
        for part in draw_snapshots(self.game, whole, derive_seed(seed, "aside"), chunk, device):
            yield LabelledCsi(part.position_m[:left], part.csi[:left], part.valid[:left])
            left -= min(left, len(part.position_m))


def aside(game: EccOptions, count: int) -> Aside:
    """Where ``count`` snapshots come from whose places training has not seen.

    A city that makes its users has as many more as anybody wants. A file has its split ``validation``, which lies at
    other places than the training. Stored users without such a split give a part of those of training, at most
    ``LARGEST_SHARE`` of them, which training then has to leave out (``elsewhere``).

    Args:
        game: of the training.
        count: at most.
    """
    world = world_of(game, "cpu")
    if isinstance(world, StoredCsi):
        return Aside(game.changed(split="validation"), min(count, len(world.source.rows["validation"])), costs=False)
    assert isinstance(world.source, CsiSource)
    stored = world.source.stored_users("train")
    if stored is None:
        return Aside(game, count, costs=False)
    return Aside(game, min(count, int(LARGEST_SHARE * stored)), costs=True)


def elsewhere(
    position_m: Float[Tensor, "S 3"], others_m: Float[Tensor, "O 3"], reach_m: float = 0.0
) -> Bool[Tensor, " S"]:
    """Which places are farther than ``reach_m`` from all of ``others_m``; 0: which are none of them, to the last bit.

    Args:
        position_m: places.
        others_m: places, at least one.
        reach_m: >= 0.
    """
    nearest_m, _ = KDTree(others_m.double().cpu().numpy()).query(position_m.double().cpu().numpy())
    return torch.from_numpy(nearest_m > reach_m).to(position_m.device)


def check_set_aside(held_m: Float[Tensor, "S 3"], trained_m: Float[Tensor, "O 3"]) -> None:
    """ValueError if places that a calibration is to be learned from have been trained on.

    Args:
        held_m: of the calibration.
        trained_m: of the training.
    """
    known = int((~elsewhere(held_m, trained_m)).sum())
    if known:
        raise ValueError(
            f"{known} of {len(held_m)} places of the calibration are places of the training too, where errors are "
            "smaller; set others aside."
        )
