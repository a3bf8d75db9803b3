"""Kinds of sites of the DCP games: area, radio and faults, every default once, and presets by name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cfpos_envs.fields import Declared, Range
from cfpos_envs.scenarios.ranges import CARRIERS_HZ, MOST_M, SITE_RANGES

BIAS_LAWS = ("sign", "student")


@dataclass(frozen=True)
class DcpSiteConfig(Declared):
    """A kind of site: the area, the radio and what is wrong with it. Defaults: Liu et al. (DCP), section V.

    Attributes:
        num_aps, num_antennas: M and L.
        side_m, wrap: square area; distances on the torus if ``wrap``.
        layout: ``uniform`` or ``grid``.
        min_spacing_m: APs of a uniform layout keep this distance.
        min_ue_distance_m: UEs keep this horizontal distance from every AP.
        height_diff_m: AP minus UE height.
        orientation_deg: direction of every array's axis, or None for random known ones.
        carrier_hz: the gain at 1 m scales by 21.3 log10(carrier / reference) dB (3GPP UMi).
        path_loss_intercept_db, path_loss_slope_db, path_loss_reference_hz: beta[dB] = intercept - slope log10(d3D).
        tx_power_w, bandwidth_hz, noise_figure_db: UE power; thermal noise.
        noise_dbm: noise power per antenna instead of the thermal one.
        snr_db: if given, sets the noise so that one antenna sees this SNR after despreading at 50 m slant distance.
        spacing_wavelengths, angular_spread_deg, num_paths, snapshots: array and local scattering.
        shadowing_db, shadowing_decorrelation_m, map_resolution_m: correlated shadowing maps.
        shadowing_random: each site draws its standard deviation uniformly from [0, shadowing_db], unknown to everybody.
        biased_share, bias_db, bearing_noise_deg: this share of the APs reads the RSS wrong by +-bias_db and
            bearings with this additional error per link.
        bias_law: what a bias is: ``sign``, +-bias_db; ``student``, bias_db times a Student-t number of three degrees of
            freedom.
        bias_period_drops: biases of a site come and go, a whole cosine in so many drops of it, each AP at its own
            phase; 0: they stay.
        array_offset_deg: every array is turned by up to +- this angle from what the network believes.
        orientation_walk_deg: standard deviation by which that changes from drop to drop of a site: a random walk.
        nlos_share, nlos_loss_db, nlos_offset_min_deg, nlos_offset_max_deg: links whose direct path is blocked.
        nlos_loss_spread_db: such a link loses up to so much more, uniformly.
        num_sites: sites in the pool of each split.
        mixture: presets among which the sites of the pool alternate; the other fields of them that differ are used.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        **SITE_RANGES,
        "num_antennas": (2, 1024),
        "min_ue_distance_m": (0, MOST_M),
        "orientation_deg": (-360, 360),
        "path_loss_intercept_db": (-300, 100),
        "path_loss_slope_db": (0, 200),
        "path_loss_reference_hz": CARRIERS_HZ,
        "bandwidth_hz": (1, 1e12),
        "noise_dbm": (-200, 100),
        "snapshots": (1, 100_000),
        "shadowing_decorrelation_m": (0.01, MOST_M),
        "map_resolution_m": (0.01, MOST_M),
        "biased_share": (0, 1),
        "bias_db": (0, 100),
        "bearing_noise_deg": (0, 360),
        "array_offset_deg": (0, 360),
        "bias_period_drops": (0, 1_000_000),
        "orientation_walk_deg": (0, 180),
        "nlos_loss_spread_db": (0, 200),
        "nlos_offset_min_deg": (0, 180),
        "nlos_offset_max_deg": (0, 180),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "layout": ("uniform", "grid"),
        "bias_law": BIAS_LAWS,
        "mixture": ("clean", "shadowed", "miscalibrated", "hard", "cf-200"),
    }

    num_aps: int = 36
    num_antennas: int = 8
    side_m: float = 100.0
    wrap: bool = True
    layout: str = "uniform"
    min_spacing_m: float = 0.0
    min_ue_distance_m: float = 0.0
    height_diff_m: float = 10.0
    orientation_deg: float | None = None
    carrier_hz: float = 10e9
    path_loss_intercept_db: float = -30.5
    path_loss_slope_db: float = 36.7
    path_loss_reference_hz: float = 10e9
    tx_power_w: float = 0.1
    bandwidth_hz: float = 200e3
    noise_figure_db: float = 7.0
    noise_dbm: float | None = None
    snr_db: float | None = None
    spacing_wavelengths: float = 0.5
    angular_spread_deg: float = 10.0
    num_paths: int = 20
    snapshots: int = 100
    shadowing_db: float = 4.0
    shadowing_decorrelation_m: float = 9.0
    map_resolution_m: float = 1.75
    shadowing_random: bool = False
    biased_share: float = 0.0
    bias_db: float = 5.0
    bias_law: str = "sign"
    bias_period_drops: float = 0.0
    bearing_noise_deg: float = 6.0
    array_offset_deg: float = 0.0
    orientation_walk_deg: float = 0.0
    nlos_share: float = 0.0
    nlos_loss_db: float = 8.0
    nlos_loss_spread_db: float = 0.0
    nlos_offset_min_deg: float = 20.0
    nlos_offset_max_deg: float = 40.0
    num_sites: int = 16
    mixture: tuple[str, ...] = ()


_MISCALIBRATED: dict[str, Any] = {
    "shadowing_db": 0.0,
    "biased_share": 1.0 / 3.0,
    "array_offset_deg": 5.0,
    "nlos_share": 0.25,
}
_HARD: dict[str, Any] = {**_MISCALIBRATED, "shadowing_db": 6.0, "shadowing_random": True}

SITE_PRESETS: dict[str, DcpSiteConfig] = {
    "clean": DcpSiteConfig(shadowing_db=0.0),
    "shadowed": DcpSiteConfig(),
    "miscalibrated": DcpSiteConfig(**_MISCALIBRATED),
    "hard": DcpSiteConfig(**_HARD),
    "harsh": DcpSiteConfig(
        **{
            **_HARD,
            "biased_share": 0.5,
            "bias_db": 6.0,
            "bias_law": "student",
            "nlos_share": 0.4,
            "nlos_loss_db": 3.0,
            "nlos_loss_spread_db": 12.0,
        }
    ),
    "drifting": DcpSiteConfig(**{**_HARD, "orientation_walk_deg": 2.0, "bias_period_drops": 10.0}),
    "mixed": DcpSiteConfig(mixture=("clean", "shadowed", "miscalibrated", "hard")),
    "cf-200": DcpSiteConfig(
        num_aps=25,
        num_antennas=25,
        side_m=200.0,
        wrap=False,
        min_spacing_m=25.0,
        min_ue_distance_m=5.5,
        height_diff_m=8.5,
        # The array's normal lies along x, so its axis along y.
        orientation_deg=90.0,
        carrier_hz=2e9,
        path_loss_intercept_db=-22.4 - 21.3 * math.log10(2.0),
        path_loss_slope_db=35.3,
        path_loss_reference_hz=2e9,
        noise_dbm=-96.0,
        snapshots=200,
        shadowing_db=6.31,
        shadowing_decorrelation_m=13.0,
    ),
}


def validate_site(s: DcpSiteConfig) -> None:
    """ValueError for fields that do not go together."""
    if s.nlos_offset_max_deg < s.nlos_offset_min_deg:
        raise ValueError(
            f"nlos_offset_max_deg={s.nlos_offset_max_deg} must be at least {s.nlos_offset_min_deg:g}, which is "
            "nlos_offset_min_deg, and at most 180"
        )
