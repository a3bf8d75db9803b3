"""A scene with base stations and their radio: its settings and their checks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from cfpos_envs.checks import SEEDS
from cfpos_envs.fields import Declared, Range
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S, thermal_noise_w

SNR_REFERENCE_M = 100.0
SOURCES = ("embedded", "raytraced")
ESTIMATORS = ("lmmse", "ls")
MOST_BS, MOST_BLOCKS = 64, 400


@dataclass(frozen=True)
class EccSceneConfig(Declared):
    """A scene with its base stations and their radio.

    Attributes:
        source: ``embedded`` (the city of boxes that is part of this package) or ``raytraced`` (a stored data set).
        dataset: folder of the stored data set, for ``raytraced``.
        scene_seed: number of the embedded city. It is part of the scene, not of an experiment: training and test play
            in the same streets, as fingerprints demand, at other places and with other noise.
        size_m: extent (x, y, z) of the box in which users are.
        blocks: street blocks along x and y, one building each.
        building_height_m: least and largest.
        num_bs, bs_height_m: L; height of masts that stand on no roof.
        num_scatterers: point scatterers per BS.
        num_reflections: one- and two-bounce image sources per BS, each as many.
        num_paths: strongest paths kept per link.
        carrier_hz: decides wavelength and path gains.
        subcarrier_spacing_hz, subcarrier_stride, num_subcarriers: every stride-th subcarrier of the grid is kept, N in
            all.
        num_slots: T pilot slots per snapshot.
        array_rows, array_columns, spacing_wavelengths: planar array of every BS.
        tx_power_w: power of the user over the whole grid (N * stride subcarriers).
        noise_figure_db: of the BSs.
        snr_db: if given, sets the noise so that a line of sight of 100 m has this SNR on every entry of a
            least-squares CSI estimate.
        slot_jitter_rad: standard deviation of every path's own phase from slot to slot.
        clock_offset_ns: every user's clock is off by a uniform number of nanoseconds up to this, the same at all BSs;
            0 is perfect synchronisation, which all features that hold delays profit from.
        estimator: ``lmmse`` or ``ls``.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "scene_seed": (0, SEEDS[1]),
        "size_m": (0.1, 1e5),
        "blocks": (1, MOST_BLOCKS),
        "building_height_m": (0.01, 1e5),
        "num_bs": (1, MOST_BS),
        "bs_height_m": (0.01, 1e4),
        "num_scatterers": (0, 10_000),
        "num_reflections": (1, 10_000),
        "num_paths": (1, 10_000),
        "carrier_hz": (1e7, 1e12),
        "subcarrier_spacing_hz": (1, 1e12),
        "subcarrier_stride": (1, 1 << 16),
        "num_subcarriers": (2, 1 << 16),
        "num_slots": (1, 10_000),
        "array_rows": (1, 256),
        "array_columns": (1, 256),
        "spacing_wavelengths": (0.01, 100),
        "tx_power_w": (1e-12, 1e6),
        "noise_figure_db": (0, 100),
        "snr_db": (-200, 200),
        "slot_jitter_rad": (0, 100),
        "clock_offset_ns": (0, 1e6),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"source": SOURCES, "estimator": ESTIMATORS}

    source: str = "embedded"
    dataset: str = ""
    scene_seed: int = 0
    size_m: tuple[float, ...] = (220.0, 300.0, 30.0)
    blocks: tuple[int, ...] = (4, 5)
    building_height_m: tuple[float, ...] = (10.0, 28.0)
    num_bs: int = 6
    bs_height_m: float = 25.0
    num_scatterers: int = 8
    num_reflections: int = 20
    num_paths: int = 12
    carrier_hz: float = 3.5e9
    subcarrier_spacing_hz: float = 60e3
    subcarrier_stride: int = 12
    num_subcarriers: int = 24
    num_slots: int = 10
    array_rows: int = 2
    array_columns: int = 4
    spacing_wavelengths: float = 0.5
    tx_power_w: float = 0.2
    noise_figure_db: float = 7.0
    snr_db: float | None = None
    slot_jitter_rad: float = 0.05
    clock_offset_ns: float = 0.0
    estimator: str = "lmmse"

    @property
    def kept_spacing_hz(self) -> float:
        """Distance of neighbouring kept subcarriers."""
        return self.subcarrier_spacing_hz * self.subcarrier_stride

    @property
    def pilot_power_w(self) -> float:
        """|x_n|^2: the user's power on one subcarrier of the grid."""
        return self.tx_power_w / (self.num_subcarriers * self.subcarrier_stride)

    @property
    def noise_power_w(self) -> float:
        """sigma^2 on one subcarrier."""
        if self.snr_db is None:
            return thermal_noise_w(self.subcarrier_spacing_hz, self.noise_figure_db)
        wavelength_m = SPEED_OF_LIGHT_M_S / self.carrier_hz
        gain = (wavelength_m / (4 * math.pi * SNR_REFERENCE_M)) ** 2
        return self.pilot_power_w * gain / 10 ** (self.snr_db / 10)


def validate_site(s: EccSceneConfig) -> None:
    """Refuse options of scene and radio that are out of range.

    Raises:
        ValueError: the first one that is not allowed.
    """
    for name, length in (("size_m", 3), ("blocks", 2), ("building_height_m", 2)):
        value = getattr(s, name)
        if not isinstance(value, tuple) or len(value) != length:
            raise ValueError(f"{name}={value!r} must be {length} numbers")
    if not all(isinstance(v, int) for v in s.blocks) or s.blocks[0] * s.blocks[1] > MOST_BLOCKS:
        raise ValueError(f"blocks={s.blocks!r} must be whole numbers with a product of at most {MOST_BLOCKS}")
    if not s.building_height_m[0] <= s.building_height_m[1] <= s.size_m[2] - 1.0:
        raise ValueError(
            f"building_height_m={s.building_height_m!r} must rise and stay 1 m below the top of the area, "
            f"{s.size_m[2]:g} m"
        )
