"""Options of the time-based games: those of the network in ``ToaSiteConfig``, those of the game in ``ToaConfig``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from cfpos_envs.checks import fits
from cfpos_envs.fields import Declared, Range
from cfpos_envs.files.areas import Area
from cfpos_envs.physics.los import check_los_scenario, path_loss_constants
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.toa.ranging import SYNC_PRESETS, SyncPreset, check_family, rms_bandwidth_hz, sync_preset
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S, thermal_noise_w
from cfpos_envs.scenarios.ranges import GAME_RANGES, MOST_M, RATIOS_DB, SITE_RANGES
from cfpos_envs.scenarios.site_config import SiteOptions
from cfpos_envs.scenarios.site_files import USER_HEIGHT_M, SiteFile, refuse_outside
from cfpos_envs.streams import RNGS

SNR_REFERENCE_M = 50.0
MEASUREMENTS = ("statistical", "waveform")
DELAY_ESTIMATORS = ("first-peak", "music")
REWARDS = ("similarity", "held-out", "error")
STARTS = ("coarse", "linear", "centre")
LAYOUTS = ("uniform", "grid", "circle")
_MIN_APS = 3
UE_CLOCK_STD_S = {"toa": 0.0, "tdoa": 100e-9, "rtt": 100e-9}
"""Clock offset of a UE where the config does not say: TOA assumes a common clock."""


@dataclass(frozen=True)
class ToaSiteConfig(Declared):
    """A kind of network: the area, the radio, clocks and blocked views.

    Attributes:
        num_aps, num_antennas: M >= 3 and N; the array gain N is part of every SNR.
        side_m: square area.
        layout: ``uniform``, ``grid`` or ``circle`` (equally spaced, radius 0.4 of the side).
        min_spacing_m: APs of a uniform layout keep this distance.
        height_diff_m: AP minus UE height.
        carrier_hz: decides the path loss.
        los: 3GPP TR 38.901 scenario of line-of-sight probability and path loss: ``umi_street_canyon``,
            ``inh_mixed_office`` or ``inh_open_office``.
        nlos_share: chance that a link has no line of sight, whatever its length; None: by ``los``.
        nlos_share_random: every episode draws its chance uniformly from [0, nlos_share].
        nlos_mean_m: mean excess of links without line of sight.
        excess_shape: shape of the excess' gamma distribution; 1 is the exponential one.
        blocked_share: chance that a link is not measured at all.
        path_loss_intercept_db, path_loss_slope_db: gain at 1 m and dB per decade instead of those of ``los``.
        shadowing_db: standard deviation of every link's own gain around the path loss.
        num_subcarriers, subcarrier_spacing_hz: the pilot's flat comb.
        tx_power_w, noise_figure_db: UE power over all subcarriers; thermal noise.
        snr_db: if given, sets the noise so that the whole pilot has this SNR (array gain included) at 50 m.
        sync: ``perfect``, ``white_rabbit``, ``gnss``, ``ptp`` or ``ota``; see docs/physics/toa.md.
        sync_std_s: standard deviation of the APs' clock errors instead of the preset's.
        ue_clock_std_s: standard deviation of the UEs' clock offsets; None: 0 for TOA, 100 ns for TDOA and RTT.
        processing_error_std_s: RTT: error of the processing time that the UE reports.
        range_std_m: if given, every line-of-sight range has this standard deviation: equal SNR on all links, perfect
            clocks, no processing error.
        spacing_wavelengths: antenna spacing of the arrays.
        num_paths, delay_spread_s, k_factor_db, angular_spread_deg, nlos_loss_db: multipath of ``waveform``; links
            without line of sight lose ``nlos_loss_db``.
        num_sites: sites in the pool of each split.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        **SITE_RANGES,
        "carrier_hz": (0.5e9, 100e9),  # the range of TR 38.901
        "nlos_mean_m": (0, MOST_M),
        "excess_shape": (0.01, 100),
        "blocked_share": (0, 1),
        "path_loss_intercept_db": RATIOS_DB,
        "path_loss_slope_db": (0, 200),
        "num_subcarriers": (2, 1 << 20),
        "subcarrier_spacing_hz": (1, 1e12),
        "sync_std_s": (0, 1e-3),
        "ue_clock_std_s": (0, 1e-3),
        "processing_error_std_s": (0, 1e-3),
        "range_std_m": (1e-6, MOST_M),
        "delay_spread_s": (0, 1e-3),
        "k_factor_db": RATIOS_DB,
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"layout": LAYOUTS}

    num_aps: int = 16
    num_antennas: int = 4
    side_m: float = 100.0
    layout: str = "uniform"
    min_spacing_m: float = 5.0
    height_diff_m: float = 10.0
    carrier_hz: float = 3.5e9
    los: str = "umi_street_canyon"
    nlos_share: float | None = None
    nlos_share_random: bool = False
    nlos_mean_m: float = 10.0
    excess_shape: float = 1.0
    blocked_share: float = 0.0
    path_loss_intercept_db: float | None = None
    path_loss_slope_db: float | None = None
    shadowing_db: float = 4.0
    num_subcarriers: int = 256
    subcarrier_spacing_hz: float = 120e3
    tx_power_w: float = 0.1
    noise_figure_db: float = 7.0
    snr_db: float | None = None
    sync: str = "white_rabbit"
    sync_std_s: float | None = None
    ue_clock_std_s: float | None = None
    processing_error_std_s: float = 1e-9
    range_std_m: float | None = None
    spacing_wavelengths: float = 0.5
    num_paths: int = 8
    delay_spread_s: float = 50e-9
    k_factor_db: float = 10.0
    angular_spread_deg: float = 10.0
    nlos_loss_db: float = 8.0
    num_sites: int = 16

    @property
    def clock(self) -> SyncPreset:
        """How well the APs' clocks agree."""
        if self.range_std_m is not None:
            return SYNC_PRESETS["perfect"]
        if self.sync_std_s is not None:
            return SyncPreset(self.sync_std_s, (self.sync_std_s, self.sync_std_s))
        return sync_preset(self.sync, outdoor=self.los == "umi_street_canyon")

    @property
    def path_loss(self) -> tuple[float, float]:
        """Intercept (dB at 1 m) and slope (dB per decade) of the gain."""
        intercept_db, slope_db = path_loss_constants(self.los, self.carrier_hz)
        if self.path_loss_intercept_db is not None:
            intercept_db = self.path_loss_intercept_db
        if self.path_loss_slope_db is not None:
            slope_db = self.path_loss_slope_db
        return intercept_db, 0.0 if self.range_std_m is not None else slope_db


_STUDY: dict[str, Any] = {"layout": "grid", "range_std_m": 0.3, "shadowing_db": 0.0}

SITE_PRESETS: dict[str, ToaSiteConfig] = {
    "street": ToaSiteConfig(),
    "clear": ToaSiteConfig(nlos_share=0.0),
    "office": ToaSiteConfig(
        side_m=50.0, height_diff_m=2.0, los="inh_mixed_office", nlos_mean_m=4.0, sync="ota", min_spacing_m=2.0
    ),
    # 16 APs on a grid, 0.3 m: the networks of the robustness tables.
    "nlos-0": ToaSiteConfig(**_STUDY, nlos_share=0.0),
    "nlos-30": ToaSiteConfig(**_STUDY, nlos_share=0.3),
    "nlos-50": ToaSiteConfig(**_STUDY, nlos_share=0.5),
    "nlos-any": ToaSiteConfig(**_STUDY, nlos_share=0.6, nlos_share_random=True),
}


@dataclass(frozen=True)
class ToaConfig(SiteOptions[ToaSiteConfig]):
    """Options of one time-based game. A site field left at None is taken from ``site``; see ``ToaSiteConfig``.

    Attributes:
        family: ``toa`` (common clock), ``tdoa`` (unknown UE clock) or ``rtt`` (round trips).
        measurement: ``statistical``: ranges and features are drawn; ``waveform``: channels are, and both estimated.
        delay_estimator: of ``waveform``: ``first-peak`` or ``music``.
        split: ``train`` holds APs out for the held-out reward; ``test`` fuses all and uses other sites and drops.
        site: preset (``street clear office nlos-0 nlos-30 nlos-50 nlos-any``), path of a site file (YAML, CSV or
            GeoJSON), or a mapping of any site fields with ``preset`` or ``file``: ``{preset: office, sync: ptp}``.
        num_ues: K.
        rounds: episode length T.
        reward: ``similarity``: all measured links judge the fused point; ``held-out``: APs that took no part judge
            it; ``error``: the simulated truth does (privileged, for studies).
        reveal_los: ``measurements.is_los`` says which links have a line of sight; for genies only.
        start: first estimate: ``coarse`` robust search on a lattice, ``linear`` least squares, or the ``centre``.
        coarse_points: points of the lattice along a side.
        held_out_share: share of the measured APs left out per user and episode.
        confidence_scale: lambda in the weight exp(lambda (a - 1)), which multiplies the robust one.
        correction_m: largest correction of a range.
        max_step_m: longest fused step of a round.
        speed_m_s: speed of the UEs in m/s, straight on with random headings; 0 for static.
        round_s: time between rounds, for moving UEs.
        ue_height_m: height of the UEs, used with the AP heights of a site file.
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.
    """

    ranges: ClassVar[Mapping[str, Range]] = {**GAME_RANGES, "coarse_points": (2, 4096), "correction_m": (0, MOST_M)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "measurement": MEASUREMENTS,
        "delay_estimator": DELAY_ESTIMATORS,
        "split": ("train", "test"),
        "reward": REWARDS,
        "start": STARTS,
        "rng": RNGS,
    }
    site_presets: ClassVar[Mapping[str, ToaSiteConfig]] = SITE_PRESETS
    own_preset: ClassVar[str | None] = "clear"
    old_names: ClassVar[Mapping[str, str]] = {"mobility": "speed_m_s"}

    family: str = "toa"
    measurement: str = "statistical"
    delay_estimator: str = "first-peak"
    split: str = "train"
    site: str | Mapping[str, Any] = field(default="street", hash=False)
    num_ues: int = 4
    rounds: int = 5
    reward: str = "held-out"
    reveal_los: bool = False
    start: str = "coarse"
    coarse_points: int = 20
    held_out_share: float = 0.25
    confidence_scale: float = 4.0
    correction_m: float = 10.0
    max_step_m: float = 20.0
    speed_m_s: float = 0.0
    round_s: float = 0.1
    ue_height_m: float = USER_HEIGHT_M
    num_aps: int | None = None
    num_antennas: int | None = None
    side_m: float | None = None
    layout: str | None = None
    min_spacing_m: float | None = None
    height_diff_m: float | None = None
    carrier_hz: float | None = None
    los: str | None = None
    nlos_share: float | None = None
    nlos_share_random: bool | None = None
    nlos_mean_m: float | None = None
    excess_shape: float | None = None
    blocked_share: float | None = None
    path_loss_intercept_db: float | None = None
    path_loss_slope_db: float | None = None
    shadowing_db: float | None = None
    num_subcarriers: int | None = None
    subcarrier_spacing_hz: float | None = None
    tx_power_w: float | None = None
    noise_figure_db: float | None = None
    snr_db: float | None = None
    sync: str | None = None
    sync_std_s: float | None = None
    ue_clock_std_s: float | None = None
    processing_error_std_s: float | None = None
    range_std_m: float | None = None
    num_paths: int | None = None
    delay_spread_s: float | None = None
    k_factor_db: float | None = None
    angular_spread_deg: float | None = None
    nlos_loss_db: float | None = None
    num_sites: int | None = None
    rng: str = "stream"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_family(self.family)
        if self.range_std_m is not None:
            given = [name for name in ("snr_db", "sync", "sync_std_s") if getattr(self, name) is not None]
            if given:
                raise ValueError(f"range_std_m fixes the error of every range; drop {given[0]}, which would change it")
        _validate_network(self.settings, self.site_file)
        self._validate_waveform()
        _ = self.model
        links = f"num_aps={self.settings.num_aps}, num_ues={self.num_ues}, rounds={self.rounds}"
        antennas = f"num_antennas={self.settings.num_antennas}, num_subcarriers={self.settings.num_subcarriers}"
        said = f"{links}, {antennas}, coarse_points={self.coarse_points}"
        fits("an episode", self.numbers_per_episode, said)

    @property
    def numbers_per_episode(self) -> int:
        """What an episode holds: ranges and features of all links and rounds, channels where these are drawn, and
        what is predicted at the points of the lattice."""
        s, rounds = self.settings, self.rounds if self.speed_m_s else 1
        links = rounds * self.num_ues * s.num_aps
        drawn = 3 * s.num_antennas * s.num_subcarriers + s.num_paths if self.measurement == "waveform" else 0
        return links * (16 + drawn) + self.settings.num_aps * self.coarse_points**2

    @cached_property
    def ue_clock_std(self) -> float:
        """Standard deviation of the UEs' clock offsets, seconds."""
        given = self.settings.ue_clock_std_s
        return UE_CLOCK_STD_S[self.family] if given is None else given

    @cached_property
    def model(self) -> TimingModel:
        """The constants that the network knows."""
        s = self.settings
        intercept_db, slope_db = s.path_loss
        max_snr = s.num_antennas * s.tx_power_w / thermal_noise_w(s.subcarrier_spacing_hz, s.noise_figure_db)
        beta_hz = rms_bandwidth_hz(s.num_subcarriers, s.subcarrier_spacing_hz)
        if s.range_std_m is not None:
            # RTT halves the sum of two passes: each may have twice the variance.
            delay_s = s.range_std_m / SPEED_OF_LIGHT_M_S * (math.sqrt(2.0) if self.family == "rtt" else 1.0)
            max_snr = 10 ** (-intercept_db / 10) / (8 * math.pi**2 * beta_hz**2 * delay_s**2)
        elif s.snr_db is not None:
            max_snr = 10 ** ((s.snr_db - intercept_db + slope_db * math.log10(SNR_REFERENCE_M)) / 10)
        model = TimingModel(
            family=self.family,
            side_m=s.side_m,
            num_subcarriers=s.num_subcarriers,
            subcarrier_spacing_hz=s.subcarrier_spacing_hz,
            path_loss_intercept_db=intercept_db,
            path_loss_slope_db=slope_db,
            tx_power_w=s.tx_power_w,
            noise_power_w=s.num_antennas * s.tx_power_w / max_snr,
            num_antennas=s.num_antennas,
            spacing_wavelengths=s.spacing_wavelengths,
            sync_std_s=0.0 if s.clock.calibrated else s.clock.std_s,
            nlos_mean_m=0.0 if s.nlos_share == 0 else s.nlos_mean_m,
            processing_error_std_s=0.0 if s.range_std_m is not None else s.processing_error_std_s,
        )
        return dataclasses.replace(model, sync_std_s=_typical_burst_std_s(model, s)) if s.clock.calibrated else model

    def _validate_waveform(self) -> None:
        """Delays are known modulo 1 / spacing only; what an episode may hold has to fit."""
        if self.measurement != "waveform":
            return
        s = self.settings
        period_s = 1.0 / s.subcarrier_spacing_hz
        clocks_s = 5 * math.hypot(s.clock.std_s, self.ue_clock_std)
        longest_s = (math.hypot(math.sqrt(2) * s.side_m, s.height_diff_m) + 12 * s.nlos_mean_m) / SPEED_OF_LIGHT_M_S
        if clocks_s > period_s / 8 or clocks_s + longest_s > 7 * period_s / 8:
            raise ValueError(
                f"subcarrier_spacing_hz={s.subcarrier_spacing_hz:g} gives delays modulo {1e9 * period_s:.0f} ns only, "
                "too little for this side_m and these clock errors; lower one of the three"
            )


def _typical_burst_std_s(model: TimingModel, site: ToaSiteConfig) -> float:
    """Clock error left by a calibration burst at the mean distance of a square's points from its centre (0.3826 s)."""
    slant = math.hypot(0.3826 * site.side_m, site.height_diff_m)
    gain_db = model.path_loss_intercept_db - model.path_loss_slope_db * math.log10(max(slant, 1.0))
    snr = model.max_snr_linear * 10 ** (gain_db / 10)
    return 1.0 / math.sqrt(8 * math.pi**2 * model.rms_bandwidth_hz**2 * snr)


def _validate_network(s: ToaSiteConfig, file: SiteFile | None) -> None:
    if s.num_aps < _MIN_APS:
        raise ValueError(f"num_aps={s.num_aps} cannot fix a position in the plane by ranges; give at least {_MIN_APS}")
    if s.nlos_share_random and s.nlos_share is None:
        raise ValueError("nlos_share_random draws the share from [0, nlos_share]; set nlos_share too")
    check_los_scenario(s.los)
    _ = s.clock
    _validate_places(s, file)


def _validate_places(s: ToaSiteConfig, file: SiteFile | None) -> None:
    if file is None:
        if s.layout == "grid" and any(s.num_aps == count for count in (3, *_primes(s.num_aps))):
            raise ValueError(
                f"a grid of num_aps={s.num_aps} would be a single line, which fixes no position; "
                "choose a composite number or another layout"
            )
        return
    refuse_outside(file, s.side_m)
    square = Area.rectangle((0.0, 0.0), (s.side_m, s.side_m))
    if file.line is not None and (file.area is None or not file.excludes_mirror_images(square)):
        raise ValueError(
            f"the APs of site file {file.path!r} stand on one line, which fixes no position (mirror image); "
            "move one of them, or declare an area that lies on one side of the line"
        )


def _primes(number: int) -> tuple[int, ...]:
    return (number,) if all(number % d for d in range(2, math.isqrt(number) + 1)) else ()
