"""Labelled snapshots of an environment's training split, for everything that learns from examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.pool import LabelledCsi, draw_snapshots
from cfpos_envs.streams import derive_seed

if TYPE_CHECKING:
    from ..base import Env

_CHUNK = 1024


def training_snapshots(env: Env | None, policy: str, count: int, seed: int) -> Iterator[LabelledCsi]:
    """``count`` static users of the training split of ``env`` with all base stations on, chunk by chunk.

    Args:
        env: environment that measures CSI.
        policy: who asks, for the message.
        count: users.
        seed: of places and noise.

    Raises:
        ValueError: there is no environment, or it measures no CSI.
    """
    config = getattr(getattr(env, "scenario", None), "config", None)
    if not isinstance(config, EccConfig):
        raise ValueError(
            f"{policy} has learned nothing yet; make it with an ecc environment to learn from, "
            f"make_policy({policy!r}, env), or with weights=FILE"
        )
    plain = dataclasses.replace(config, split="train", mobility="static", lost_bs=0, num_ues=1)
    left = count
    for part in draw_snapshots(plain, count, derive_seed(seed, "survey"), min(_CHUNK, count)):
        yield LabelledCsi(part.position_m[:left], part.csi[:left], part.valid[:left])
        left -= len(part.position_m)


def system_of(env: Env | None) -> CsiSystem | None:
    """The constants of the network behind an environment, if it measures CSI."""
    system = getattr(getattr(env, "scenario", None), "system", None)
    return system if isinstance(system, CsiSystem) else None
