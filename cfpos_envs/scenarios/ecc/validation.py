"""What the options of edge-cloud cooperative positioning may be; every refusal is one line that names the option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cfpos_envs.checks import number_fields, one_of, whole_fields
from cfpos_envs.physics.ecc.csi import check_stabilise
from cfpos_envs.physics.ecc.features import check_features

FUSIONS = ("mean", "confidence")
REWARDS = ("error", "consistency")
MOBILITIES = ("static", "spiral", "waypoint")


def validate_site_name(name: str, presets: Sequence[str]) -> None:
    """Refuse an unknown site.

    Raises:
        ValueError: naming the nearest one.
    """
    one_of("site", name, presets)


def validate_game(c: Any) -> None:
    """Options of the game itself: the fields of an ``EccConfig``, which calls this when it is made.

    Raises:
        ValueError: the first one that is not allowed.
    """
    one_of("split", c.split, ("train", "test"))
    one_of("fusion", c.fusion, FUSIONS)
    one_of("reward", c.reward, REWARDS)
    one_of("mobility", c.mobility, MOBILITIES)
    check_features(c.features)
    check_stabilise(c.stabilise)
    whole_fields(c, 1, "num_ues", "rounds")
    whole_fields(c, 0, "lost_bs")
    number_fields(c, 0.0, math.inf, "confidence_scale")
    number_fields(c, 0.0, math.inf, "speed_m_s", "round_s", "fronthaul_bits_max", above=True)
    if c.lost_bs >= c.settings.num_bs:
        raise ValueError(f"lost_bs={c.lost_bs} leaves none of num_bs={c.settings.num_bs} base stations; lower it")
