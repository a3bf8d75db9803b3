"""Options of the DCP games, every default of the game once; those of the radio are in ``sites``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from cfpos_envs.checks import fits
from cfpos_envs.fields import Range
from cfpos_envs.physics.dcp.covariance.front_ends import COVARIANCE_LINKS
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.units import thermal_noise_w
from cfpos_envs.scenarios.dcp.sites import SITE_PRESETS, DcpSiteConfig, validate_site
from cfpos_envs.scenarios.ranges import GAME_RANGES, MOST_M, MOST_ROUNDS
from cfpos_envs.scenarios.site_config import SiteOptions
from cfpos_envs.scenarios.site_files import USER_HEIGHT_M, refuse_outside
from cfpos_envs.streams import RNGS

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
MEMORIES = ("none", "drop", "site")


@dataclass(frozen=True)
class DcpConfig(SiteOptions[DcpSiteConfig]):
    """Options of one DCP game. A site field left at None is taken from ``site``; see ``DcpSiteConfig``.

    Attributes:
        stage: what the game measures: ``rss``, ``aoa``, ``chained`` (rss rounds, then joint correction) or ``joint``.
        split: ``train`` holds APs out for the held-out rewards; ``test`` fuses all and uses other sites and drops.
        site: preset (``clean shadowed miscalibrated hard harsh drifting mixed cf-200``), path of a site file (YAML, CSV
            or GeoJSON), or a mapping of any site fields with ``preset`` or ``file``: ``{preset: hard, bias_db: 3.0}``.
        num_ues: K.
        num_pilots: tau_p; None for K.
        rounds: T, rounds that are played of a drop.
        drops: D, drops of one site that an episode plays one after another: other users and other noise, the same APs
            with the same faults. The episode is D T rounds long; estimators that answer once are given the last drop.
        memory: what an AP sees of its own offsets, the mean residuals of RSS and bearing over many links: ``none``;
            ``drop``, over the users that it measures now; ``site``, over those of the episode's earlier drops too.
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
        "drops": (1, MOST_ROUNDS),
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
        "memory": MEMORIES,
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
    drops: int = 1
    memory: str = "none"
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
        validate_site(self.settings)
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
        s, times = self.settings, self.rounds if self.speed_m_s else self.drops
        return self.num_ues * s.num_aps * (2 * times * s.num_antennas**2 + 2 * s.num_antennas + self.num_angles)

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
    if c.drops > 1 and c.speed_m_s:
        raise ValueError(
            f"drops={c.drops} are of users that stand still; use speed_m_s=0 (is {c.speed_m_s:g}) or drops=1"
        )
    if c.memory != "none" and not (c.action.startswith("confidence") and c.stage == "joint"):
        raise ValueError(
            f"memory={c.memory!r} is for stage='joint' with action='confidence' or 'confidence-correction', "
            f"not for stage={c.stage!r}, action={c.action!r}; use memory='none'"
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
