"""What the options of edge-cloud cooperative positioning may be; every refusal is one line that names the option."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

from cfpos_envs.physics.csi import check_stabilise
from cfpos_envs.physics.csi_features import check_features

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
    _one_of("site", name, presets)


def validate_game(c: Any) -> None:
    """Options of the game itself: the fields of an ``EccConfig``, which calls this when it is made.

    Raises:
        ValueError: the first one that is not allowed.
    """
    _one_of("split", c.split, ("train", "test"))
    _one_of("fusion", c.fusion, FUSIONS)
    _one_of("reward", c.reward, REWARDS)
    _one_of("mobility", c.mobility, MOBILITIES)
    check_features(c.features)
    check_stabilise(c.stabilise)
    _whole(c, 1, "num_ues", "rounds")
    _whole(c, 0, "lost_bs")
    _number(c, 0.0, math.inf, "confidence_scale")
    _number(c, 0.0, math.inf, "speed_m_s", "round_s", "fronthaul_bits_max", above=True)
    if c.lost_bs >= c.settings.num_bs:
        raise ValueError(f"lost_bs={c.lost_bs} leaves none of num_bs={c.settings.num_bs} base stations; lower it")


def validate_site(s: Any) -> None:
    """Options of scene and radio: the fields of a ``CsiSite``.

    Raises:
        ValueError: the first one that is not allowed.
    """
    _one_of("source", s.source, SOURCES)
    _one_of("estimator", s.estimator, ESTIMATORS)
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
    _whole(s, 0, "scene_seed", "num_scatterers")
    _whole(s, 1, "num_bs", "num_reflections", "num_paths", "subcarrier_stride", "num_slots")
    _whole(s, 1, "array_rows", "array_columns")
    _whole(s, 2, "num_subcarriers")
    if s.num_bs > MOST_BS:
        raise ValueError(f"num_bs={s.num_bs} must be at most {MOST_BS}")
    _number(s, 0.0, math.inf, "bs_height_m", "carrier_hz", "subcarrier_spacing_hz", "tx_power_w", above=True)
    _number(s, 0.0, math.inf, "spacing_wavelengths", above=True)
    _number(s, 0.0, math.inf, "noise_figure_db", "slot_jitter_rad", "clock_offset_ns")
    _number(s, -200.0, 200.0, "snr_db")


def _one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value not in allowed:
        near = difflib.get_close_matches(str(value), allowed, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}={value!r} is not one of {', '.join(allowed)}{hint}")


def _whole(owner: Any, least: int, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name}={value!r} must be a whole number")
        if value < least:
            raise ValueError(f"{name}={value} must be at least {least}")


def _number(owner: Any, least: float, most: float, *names: str, above: bool = False) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r} must be a finite number")
        if value < least or (above and value == least):
            raise ValueError(f"{name}={value} must be {'above' if above else 'at least'} {least:g}")
        if value > most:
            raise ValueError(f"{name}={value} must be at most {most:g}")
