"""Options of the DCP games, every default once: the radio's in ``DcpSiteConfig``, the game's in ``DcpConfig``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from cfpos_envs.checks import fits
from cfpos_envs.fields import Declared, Range
from cfpos_envs.physics.dcp.covariance.front_ends import COVARIANCE_LINKS
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.units import thermal_noise_w
from cfpos_envs.scenarios.ranges import CARRIERS_HZ, GAME_RANGES, MOST_M, MOST_ROUNDS, SITE_RANGES
from cfpos_envs.scenarios.site_config import SiteOptions
from cfpos_envs.scenarios.site_files import USER_HEIGHT_M, refuse_outside
from cfpos_envs.streams import RNGS


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
        array_offset_deg: every array is turned by up to +- this angle from what the network believes.
        nlos_share, nlos_loss_db, nlos_offset_min_deg, nlos_offset_max_deg: links whose direct path is blocked.
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
        "nlos_offset_min_deg": (0, 180),
        "nlos_offset_max_deg": (0, 180),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "layout": ("uniform", "grid"),
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
    bearing_noise_deg: float = 6.0
    array_offset_deg: float = 0.0
    nlos_share: float = 0.0
    nlos_loss_db: float = 8.0
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

SITE_PRESETS: dict[str, DcpSiteConfig] = {
    "clean": DcpSiteConfig(shadowing_db=0.0),
    "shadowed": DcpSiteConfig(),
    "miscalibrated": DcpSiteConfig(**_MISCALIBRATED),
    "hard": DcpSiteConfig(**{**_MISCALIBRATED, "shadowing_db": 6.0, "shadowing_random": True}),
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

CARRIER_SLOPE_DB = 21.3
SNR_REFERENCE_M = 50.0

STAGES = ("rss", "aoa", "chained", "joint")
FORMULATIONS = ("collaborative", "strict")
ACTIONS = ("gain", "polar", "confidence", "confidence-correction")
REWARDS = ("local", "shared", "counterfactual", "held-out", "held-out-shared")
SIMILARITIES = ("paper", "log", "robust", "cauchy")
FUSIONS = ("mean", "line-search", "information")
STARTS = ("centroid", "coarse", "stage-1")
SPLITS = ("train", "test")
KERNELS = ("auto", "native", "torch")
LINKS = ("dft", *COVARIANCE_LINKS)


@dataclass(frozen=True)
class DcpConfig(SiteOptions[DcpSiteConfig]):
    """Options of one DCP game. A site field left at None is taken from ``site``; see ``DcpSiteConfig``.

    Attributes:
        stage: what the game measures: ``rss``, ``aoa``, ``chained`` (rss rounds, then joint correction) or ``joint``.
        split: ``train`` holds APs out for the held-out rewards; ``test`` fuses all and uses other sites and drops.
        site: preset (``clean shadowed miscalibrated hard mixed cf-200``), path of a site file (YAML, CSV or GeoJSON),
            or a mapping of any site fields with ``preset`` or ``file``: ``{preset: hard, bias_db: 3.0}``.
        num_ues: K.
        num_pilots: tau_p; None for K.
        rounds: episode length T.
        stage_one_rounds: RSS rounds of the chained game.
        shadowing_known: the radio map that predicts RSS contains the shadowing.
        formulation: ``collaborative``, or ``strict``: the paper's observation of an AP's own RSS or bearing alone.
        action: ``gain`` (scaled innovation), ``polar`` (distance and azimuth), ``confidence`` (log-weights of the
            information fusion), ``confidence-correction`` (also corrects RSS and bearing).
        reward: see docs; ``held-out`` judges the fused point by APs that took no part.
        similarity: ``paper`` (7)-(9), ``log``, ``robust`` or ``cauchy``.
        fusion: ``mean``, ``line-search`` or ``information``.
        start: first estimate: RSS-weighted ``centroid``, ``coarse`` arg-max on a grid, ``stage-1`` (after a neutral
            RSS stage).
        coarse_spacing_m, coarse_rss_scale_db: grid and RSS scale of the coarse start.
        held_out_share: share of APs left out per user and episode.
        confidence_scale: lambda in w exp(lambda a).
        correction_db, correction_rad: largest additive corrections of ``confidence-correction``.
        max_step_m: longest fused step of ``information`` fusion.
        speed_m_s: speed of the UEs in m/s, straight on with random headings; 0 for static.
        round_s: time between rounds, for moving UEs.
        num_angles: resolution of the angle profile.
        links: front end, what reads every link for innovations, observations and rewards. ``dft`` takes the bearing
            from the angle profile of the spectrum and the RSS as measured; ``covariance`` (a small network) and
            ``likelihood`` read bearing, power and the standard deviations of both from the whole sample covariance.
        link_training: whether ``links=covariance`` may learn the network of an array for which none comes along, which
            takes seconds.
        ue_height_m: height of the UEs, used with the AP heights of a site file.
        kernel: what computes rounds on a CPU: ``torch``, or ``native``, compiled code several times as fast that a C++
            compiler builds once in seconds; ``auto`` takes that where it can. Values agree to rounding where
            rounding decides nothing (see docs/benchmarks.md).
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        **GAME_RANGES,
        "num_pilots": (1, 1_000_000),
        "stage_one_rounds": (1, MOST_ROUNDS),
        "coarse_spacing_m": (0.01, MOST_M),
        "coarse_rss_scale_db": (0.01, 1000),
        "correction_db": (0, 1000),
        "correction_rad": (0, 100),
        "num_angles": (19, 10_000),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "stage": STAGES,
        "split": SPLITS,
        "formulation": FORMULATIONS,
        "action": ACTIONS,
        "reward": REWARDS,
        "similarity": SIMILARITIES,
        "fusion": FUSIONS,
        "start": STARTS,
        "kernel": KERNELS,
        "rng": RNGS,
        "links": LINKS,
    }
    site_presets: ClassVar[Mapping[str, DcpSiteConfig]] = SITE_PRESETS
    own_preset: ClassVar[str | None] = "clean"
    own_fields: ClassVar[Mapping[str, Any]] = {"wrap": False}
    old_names: ClassVar[Mapping[str, str]] = {"mobility": "speed_m_s"}

    stage: str = "joint"
    split: str = "train"
    site: str | Mapping[str, Any] = field(default="shadowed", hash=False)
    num_ues: int = 6
    num_pilots: int | None = None
    rounds: int = 6
    stage_one_rounds: int = 3
    shadowing_known: bool = False
    formulation: str = "collaborative"
    action: str = "confidence"
    reward: str = "held-out"
    similarity: str = "robust"
    fusion: str = "information"
    start: str = "coarse"
    coarse_spacing_m: float = 5.0
    coarse_rss_scale_db: float = 3.0
    held_out_share: float = 0.25
    confidence_scale: float = 2.5
    correction_db: float = 8.0
    correction_rad: float = 0.2
    max_step_m: float = 5.0
    speed_m_s: float = 0.0
    round_s: float = 0.1
    num_angles: int = 181
    links: str = "dft"
    link_training: bool = True
    num_aps: int | None = None
    num_antennas: int | None = None
    side_m: float | None = None
    wrap: bool | None = None
    layout: str | None = None
    min_spacing_m: float | None = None
    min_ue_distance_m: float | None = None
    height_diff_m: float | None = None
    orientation_deg: float | None = None
    carrier_hz: float | None = None
    tx_power_w: float | None = None
    bandwidth_hz: float | None = None
    noise_figure_db: float | None = None
    noise_dbm: float | None = None
    snr_db: float | None = None
    angular_spread_deg: float | None = None
    num_paths: int | None = None
    snapshots: int | None = None
    shadowing_db: float | None = None
    shadowing_decorrelation_m: float | None = None
    map_resolution_m: float | None = None
    nlos_share: float | None = None
    biased_share: float | None = None
    array_offset_deg: float | None = None
    num_sites: int | None = None
    ue_height_m: float = USER_HEIGHT_M
    kernel: str = "auto"
    rng: str = "stream"

    def __post_init__(self) -> None:
        super().__post_init__()
        _validate_game(self)
        _validate_site(self.settings)
        self._check_sizes()
        if self.site_file is not None:
            refuse_outside(self.site_file, self.settings.side_m)
        if self.num_pilots is not None and self.num_pilots < self.num_ues:
            raise ValueError(
                f"num_pilots={self.num_pilots} cannot serve num_ues={self.num_ues}: "
                "pilots are orthogonal, give at least one per UE"
            )

    @property
    def numbers_per_episode(self) -> int:
        """What an episode holds: covariances of all rounds, spectra and profiles."""
        s, rounds = self.settings, self.rounds if self.speed_m_s else 1
        return self.num_ues * s.num_aps * (2 * rounds * s.num_antennas**2 + 2 * s.num_antennas + self.num_angles)

    @property
    def numbers_per_site(self) -> float:
        """What a site holds: shadowing maps, and predictions at the points of the coarse grid."""
        s = self.settings
        spacing_m = min(s.map_resolution_m, self.coarse_spacing_m)
        return float(s.num_aps * max(1.0, s.side_m / spacing_m) ** 2)

    def _check_sizes(self) -> None:
        s = self.settings
        links = f"num_aps={s.num_aps}, num_ues={self.num_ues}"
        fits("an episode", self.numbers_per_episode, f"{links}, num_antennas={s.num_antennas}, rounds={self.rounds}")
        fits("the paths of an episode", self.num_ues * s.num_aps * s.num_paths, f"{links}, num_paths={s.num_paths}")
        grids = f"map_resolution_m={s.map_resolution_m:g}, coarse_spacing_m={self.coarse_spacing_m:g}"
        in_area = f"num_sites={s.num_sites}, num_aps={s.num_aps}, side_m={s.side_m:g}, {grids}"
        fits("the maps of all sites", s.num_sites * self.numbers_per_site, in_area)

    @property
    def credits_counterfactual(self) -> bool:
        """Whether an AP is paid for the difference to acting neutrally."""
        return self.reward in ("counterfactual", "held-out")

    @property
    def num_held_out(self) -> int:
        """APs per user that judge instead of taking part: in training with a held-out reward."""
        if self.split != "train" or not self.reward.startswith("held-out"):
            return 0
        return min(round(self.held_out_share * self.settings.num_aps), self.settings.num_aps - 1)

    @property
    def largest_height_diff_m(self) -> float:
        """Largest height of an AP above (or below) the users."""
        if self.site_file is None or self.site_file.ap_height_m is None:
            return self.settings.height_diff_m
        return float((self.site_file.ap_height_m - self.ue_height_m).abs().max())

    def settings_of(self, site_index: int) -> DcpSiteConfig:
        """Settings of one site of the pool: those of the mixture's presets in turn, or ``settings``."""
        mixture = self.settings.mixture
        return self.changed_site(mixture[site_index % len(mixture)]) if mixture else self.settings

    @cached_property
    def radio(self) -> RadioModel:
        """The constants that the network knows."""
        s = self.settings
        carrier_db = CARRIER_SLOPE_DB * math.log10(s.carrier_hz / s.path_loss_reference_hz)
        intercept_db = s.path_loss_intercept_db - carrier_db
        num_pilots = self.num_pilots or self.num_ues
        if s.snr_db is not None:
            gain_db = intercept_db - s.path_loss_slope_db * math.log10(SNR_REFERENCE_M)
            noise_w = s.tx_power_w * num_pilots * 10 ** ((gain_db - s.snr_db) / 10)
        elif s.noise_dbm is not None:
            noise_w = 10 ** (s.noise_dbm / 10 - 3)
        else:
            noise_w = thermal_noise_w(s.bandwidth_hz, s.noise_figure_db)
        return RadioModel(
            side_m=s.side_m,
            wrap=s.wrap,
            path_loss_intercept_db=intercept_db,
            path_loss_slope_db=s.path_loss_slope_db,
            tx_power_w=s.tx_power_w,
            num_pilots=num_pilots,
            noise_power_w=noise_w,
            num_antennas=s.num_antennas,
            spacing_wavelengths=s.spacing_wavelengths,
            angular_spread_rad=math.radians(s.angular_spread_deg),
            num_paths=s.num_paths,
            snapshots=s.snapshots,
        )


def _validate_game(c: DcpConfig) -> None:
    if c.stage == "chained" and c.stage_one_rounds >= c.rounds:
        raise ValueError(
            f"stage_one_rounds={c.stage_one_rounds} leaves the second stage no round; use less than rounds={c.rounds}"
        )
    if c.formulation == "strict" and c.action != "polar":
        raise ValueError(f"formulation='strict' needs action='polar' (the paper's d and theta), got {c.action!r}")
    if c.action.startswith("confidence") and c.fusion != "information":
        raise ValueError(f"action={c.action!r} weighs the information fusion; set fusion='information'")
    if c.action.startswith("confidence") and c.reward == "local":
        raise ValueError(
            f"reward='local' judges an AP's own report, which action={c.action!r} does not move; "
            "use 'held-out', 'counterfactual' or 'shared'"
        )
    if c.reward.startswith("held-out") and c.similarity == "paper" and c.held_out_share > 0:
        raise ValueError("similarity='paper' is normalised over all APs; use it with reward 'local' or 'shared'")


def _validate_site(s: DcpSiteConfig) -> None:
    if s.nlos_offset_max_deg < s.nlos_offset_min_deg:
        raise ValueError(
            f"nlos_offset_max_deg={s.nlos_offset_max_deg} must be at least {s.nlos_offset_min_deg:g}, which is "
            "nlos_offset_min_deg, and at most 180"
        )
