"""Labelled snapshots of an environment's training split, for everything that learns from examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.scenarios.ecc.aside import aside
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.csi_config import EccCsiConfig
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.pool import LabelledCsi, draw_snapshots
from cfpos_envs.scenarios.ecc.stored import BLOCKS
from cfpos_envs.scenarios.ecc.worlds import stored_count
from cfpos_envs.streams import derive_seed

if TYPE_CHECKING:
    from ..base import Env

_CHUNK = 1024


@runtime_checkable
class HasSystem(Protocol):
    """A game that names the constants of its network."""

    system: object


def training_snapshots(env: Env | None, policy: str, count: int, seed: int, least: int = 1) -> Iterator[LabelledCsi]:
    """``count`` static users of the training split of ``env`` with all base stations on, chunk by chunk.

    Where snapshots are stored: each once, and again only to reach ``least``.

    Args:
        env: environment that measures CSI.
        policy: who asks, for the message.
        count: users, at most.
        seed: of places and noise.
        least: users at least.

    Raises:
        ValueError: there is no environment, or it measures no CSI.
    """
    scenario = None if env is None else env.scenario
    config = None if scenario is None else scenario.config
    if not isinstance(config, EccOptions):
        raise ValueError(
            f"{policy} has learned nothing yet; make it with an ecc environment to learn from, "
            f"make_policy({policy!r}, env), or with weights=FILE"
        )
    plain = _plain(config)
    stored = stored_count(plain)
    if stored is not None:
        count = max(min(count, stored), least)
    left = count
    for part in draw_snapshots(plain, count, derive_seed(seed, "survey"), min(_CHUNK, count)):
        yield LabelledCsi(part.position_m[:left], part.csi[:left], part.valid[:left])
        left -= len(part.position_m)


def snapshots_aside(env: Env | None, count: int, seed: int) -> tuple[list[LabelledCsi], bool]:
    """Snapshots at places that training does not see, one per place, and whether training must leave these out.

    Args:
        env: that training has looked at.
        count: at most.
        seed: of the training.
    """
    config = None if env is None else env.scenario.config
    if not isinstance(config, EccOptions) or count < 1:
        return [], False
    source = aside(_plain(config), count)
    return (list(source.draw(seed)) if source.count else []), source.costs


def held_apart_m(env: Env | None) -> float:
    """How far users of the other splits are from the training's places: a block where a file is split by place, else 0.

    Args:
        env: environment that measures CSI.
    """
    config = None if env is None else env.scenario.config
    system = system_of(env)
    if not isinstance(config, EccCsiConfig) or system is None or config.split_by != "place":
        return 0.0
    sides = [high - low for low, high in zip(system.area_min_m[:2], system.area_max_m[:2])]
    return config.split_block_m or max(sides) / BLOCKS


def _plain(config: EccOptions) -> EccOptions:
    """The training split with one static user and all base stations on."""
    still = {"mobility": "static"} if isinstance(config, EccConfig) else {}
    return config.changed(split="train", lost_bs=0, num_ues=1, **still)


def system_of(env: Env | None) -> CsiSystem | None:
    """The constants of the network behind an environment, if it measures CSI."""
    scenario = None if env is None else env.scenario
    system = scenario.system if isinstance(scenario, HasSystem) else None
    return system if isinstance(system, CsiSystem) else None
