"""What the options of edge-cloud cooperative positioning may be; every refusal is one line that names the option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cfpos_envs.physics.csi import check_stabilise
from cfpos_envs.physics.csi_features import check_features
from cfpos_envs.scenarios.checks import number_fields, one_of, whole_fields

SOURCES = ("embedded", "raytraced")
ESTIMATORS = ("lmmse", "ls")
FUSIONS = ("mean", "confidence")
REWARDS = ("error", "consistency")
MOBILITIES = ("static", "spiral", "waypoint")
MOST_BS, MOST_BLOCKS = 64, 400


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


def validate_site(s: Any) -> None:
    """Options of scene and radio: the fields of a ``CsiSite``.

    Raises:
        ValueError: the first one that is not allowed.
    """
    one_of("source", s.source, SOURCES)
    one_of("estimator", s.estimator, ESTIMATORS)
    for name, length in (("size_m", 3), ("blocks", 2), ("building_height_m", 2)):
        value = getattr(s, name)
        if not isinstance(value, tuple) or len(value) != length:
            raise ValueError(f"{name}={value!r} must be {length} numbers")
        if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < math.inf for v in value):
            raise ValueError(f"{name}={value!r} must hold positive finite numbers")
    if not all(isinstance(v, int) for v in s.blocks) or s.blocks[0] * s.blocks[1] > MOST_BLOCKS:
        raise ValueError(f"blocks={s.blocks!r} must be whole numbers with a product of at most {MOST_BLOCKS}")
    if not s.building_height_m[0] <= s.building_height_m[1] <= s.size_m[2] - 1.0:
        raise ValueError(
            f"building_height_m={s.building_height_m!r} must rise and stay 1 m below the top of the area, "
            f"{s.size_m[2]:g} m"
        )
    whole_fields(s, 0, "scene_seed", "num_scatterers")
    whole_fields(s, 1, "num_bs", "num_reflections", "num_paths", "subcarrier_stride", "num_slots")
    whole_fields(s, 1, "array_rows", "array_columns")
    whole_fields(s, 2, "num_subcarriers")
    if s.num_bs > MOST_BS:
        raise ValueError(f"num_bs={s.num_bs} must be at most {MOST_BS}")
    number_fields(s, 0.0, math.inf, "bs_height_m", "carrier_hz", "subcarrier_spacing_hz", "tx_power_w", above=True)
    number_fields(s, 0.0, math.inf, "spacing_wavelengths", above=True)
    number_fields(s, 0.0, math.inf, "noise_figure_db", "slot_jitter_rad", "clock_offset_ns")
    number_fields(s, -200.0, 200.0, "snr_db")
