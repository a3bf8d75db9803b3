"""The world behind the options of an edge-cloud game."""

from __future__ import annotations

from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.csi_config import EccCsiConfig
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.snapshots import World
from cfpos_envs.scenarios.ecc.stored import StoredCsi, stored_world
from cfpos_envs.scenarios.ecc.world import shared_world


def world_of(config: EccOptions, device: str) -> World:
    """The world of a game, made once.

    Args:
        config: of the game.
        device: where its tensors live.

    Raises:
        TypeError: options of no game that is known here.
    """
    if isinstance(config, EccCsiConfig):
        return stored_world(config, device)
    if isinstance(config, EccConfig):
        return shared_world(config.settings, device)
    raise TypeError(f"{type(config).__name__} are options of no edge-cloud game")


def stored_count(config: EccOptions) -> int | None:
    """How many snapshots a split holds where they are stored; None where as many as wanted can be made."""
    world = world_of(config, "cpu")
    return len(world.source.rows[config.split]) if isinstance(world, StoredCsi) else None
