"""The site that a picture shows: where the APs stand and how good their links and clocks are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.physics.geometry import uniform_layout
from cfpos_envs.physics.los import path_loss_constants
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.toa.ranging import calibration_std_s, check_family, flat_rms_bandwidth_hz, sync_preset
from cfpos_envs.physics.units import thermal_noise_w

LAYOUTS = ("grid", "uniform", "circle", "line")
SUBCARRIER_SPACING_HZ = 30e3
"""Nominal: stretched a little so that a whole number of subcarriers fills the bandwidth."""
REFERENCE_DISTANCE_M = 100.0
"""``snr_db`` is the SNR of a link of this length; twice it is 6.3 dB less by the street canyon's law."""
CARRIER_HZ = 3.5e9
LOS_SCENARIO = "umi_street_canyon"
NOISE_FIGURE_DB = 7.0


@dataclass(frozen=True)
class DrawnSiteConfig:
    """What a picture may know about its site.

    Attributes:
        family: "toa" (common clock), "tdoa" (unknown clock of the user) or "rtt" (round trips).
        layout: "grid" (rows of nearly equal length), "uniform" (random), "circle" or "line" (one straight line).
        aps: number of APs, 1 to 1000.
        side_m: side of the square area, metres.
        radius_m: of the circle; None: two fifths of the side.
        ap_height_m: AP minus user height, metres.
        bandwidth_mhz: occupied bandwidth, MHz, at least two subcarriers of 30 kHz.
        snr_db: SNR of the whole pilot on a link of 100 m; with ``equal_snr`` on every link.
        tx_power_dbm: given, it replaces ``snr_db``: one OFDM symbol at 3.5 GHz, one antenna, noise figure 7 dB.
        equal_snr: no path loss: the classical assumption of textbook maps.
        sync: name of a clock preset; after "ota" the error is that of a burst from the centre of the area.
        processing_error_ns: RTT: standard deviation of the error of the reported processing time, ns.
        seed: of the uniform layout.

    Raises:
        ValueError: for a value outside its range.
    """

    family: str = "toa"
    layout: str = "grid"
    aps: int = 16
    side_m: float = 500.0
    radius_m: float | None = None
    ap_height_m: float = 10.0
    bandwidth_mhz: float = 100.0
    snr_db: float = 20.0
    tx_power_dbm: float | None = None
    equal_snr: bool = False
    sync: str = "white_rabbit"
    processing_error_ns: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_family(self.family)
        sync_preset(self.sync)
        if self.layout not in LAYOUTS:
            raise ValueError(f"unknown layout {self.layout!r}, choose one of {', '.join(LAYOUTS)}")
        if not 1 <= self.aps <= 1000:
            raise ValueError(f"aps must lie in [1, 1000], got {self.aps}")
        if not 1.0 <= self.side_m <= 1e5:
            raise ValueError(f"side must lie in [1, 100000] m, got {self.side_m}")
        if self.radius_m is not None and not 0.0 < self.radius_m <= self.side_m:
            raise ValueError(f"radius must lie in (0, {self.side_m}] m, got {self.radius_m}")
        if not -1000.0 <= self.ap_height_m <= 1000.0:
            raise ValueError(f"ap-height must lie in [-1000, 1000] m, got {self.ap_height_m}")
        least = 2 * SUBCARRIER_SPACING_HZ / 1e6
        if not least <= self.bandwidth_mhz <= 1e4:
            raise ValueError(f"bandwidth must lie in [{least:g}, 10000] MHz, got {self.bandwidth_mhz}")
        if not -100.0 <= self.snr_db <= 200.0:
            raise ValueError(f"snr must lie in [-100, 200] dB, got {self.snr_db}")
        if self.tx_power_dbm is not None and not -100.0 <= self.tx_power_dbm <= 100.0:
            raise ValueError(f"tx-power must lie in [-100, 100] dBm, got {self.tx_power_dbm}")
        if self.tx_power_dbm is not None and self.equal_snr:
            raise ValueError("tx-power and equal-snr exclude each other: give snr with equal-snr")
        if not 0.0 <= self.processing_error_ns <= 1e6:
            raise ValueError(f"processing-error must lie in [0, 1e6] ns, got {self.processing_error_ns}")

    @property
    def reference_snr_db(self) -> float:
        """SNR of a link of ``REFERENCE_DISTANCE_M``, dB, given or from the transmit power."""
        if self.tx_power_dbm is None:
            return self.snr_db
        intercept_db, slope_db = path_loss_constants(LOS_SCENARIO, CARRIER_HZ)
        gain_db = intercept_db - slope_db * math.log10(REFERENCE_DISTANCE_M)
        noise_dbm = 10 * math.log10(thermal_noise_w(SUBCARRIER_SPACING_HZ, NOISE_FIGURE_DB)) + 30
        return self.tx_power_dbm + gain_db - noise_dbm

    def words(self) -> str:
        """The settings in one line under a title."""
        if self.tx_power_dbm is not None:
            power = f"{self.tx_power_dbm:g} dBm"
        else:
            power = f"SNR {self.snr_db:g} dB " + ("on every link" if self.equal_snr else "at 100 m")
        clocks = {"perfect": "perfect clocks", "ota": "clocks calibrated over the air"}
        std_ns = sync_preset(self.sync).std_s * 1e9
        clock = clocks.get(self.sync, f"clocks {std_ns:g} ns ({self.sync})")
        return f"{self.bandwidth_mhz:g} MHz, {power}, {clock}, APs {self.ap_height_m:g} m above the user"


@dataclass(frozen=True)
class Site:
    """The same as the physics wants it.

    Attributes:
        model: constants of the links.
        ap_positions_m: [M, 2] double precision.
        height_diff_m: [M] AP minus user height.
        sync_std_s: [M] clock error of every AP.
    """

    model: TimingModel
    ap_positions_m: Tensor
    height_diff_m: Tensor
    sync_std_s: Tensor


def make_site(settings: DrawnSiteConfig) -> Site:
    """Place the APs and set up their links."""
    aps = place_aps(settings)
    height = torch.full((len(aps),), settings.ap_height_m, dtype=torch.float64)
    slope_db = 0.0 if settings.equal_snr else path_loss_constants(LOS_SCENARIO, CARRIER_HZ)[1]
    tones = max(2, round(settings.bandwidth_mhz * 1e6 / SUBCARRIER_SPACING_HZ))
    preset = sync_preset(settings.sync)
    model = TimingModel(
        family=settings.family,
        side_m=settings.side_m,
        num_subcarriers=tones,
        subcarrier_spacing_hz=settings.bandwidth_mhz * 1e6 / tones,
        path_loss_intercept_db=slope_db * math.log10(REFERENCE_DISTANCE_M),  # 0 dB at the reference distance
        path_loss_slope_db=slope_db,
        tx_power_w=1.0,
        noise_power_w=10 ** (-settings.reference_snr_db / 10),
        num_antennas=1,
        spacing_wavelengths=0.5,
        sync_std_s=preset.std_s,
        nlos_mean_m=0.0,
        processing_error_std_s=settings.processing_error_ns * 1e-9,
    )
    sync = torch.full_like(height, preset.std_s)
    if preset.calibrated:
        burst_m = torch.hypot(torch.linalg.vector_norm(aps - settings.side_m / 2, dim=-1), height)
        sync = calibration_std_s(model.snr_linear(burst_m), model.rms_bandwidth_hz)
    return Site(model, aps, height, sync)


def place_aps(settings: DrawnSiteConfig) -> Tensor:
    """Ground positions [M, 2] of the APs, metres."""
    makers: dict[str, Callable[[], Tensor]] = {
        "grid": lambda: grid_rows(settings.aps, settings.side_m),
        "uniform": lambda: uniform_layout(
            torch.Generator().manual_seed(settings.seed), settings.aps, settings.side_m, wrap=False
        ).double(),
        "circle": lambda: circle(settings.aps, settings.side_m, settings.radius_m),
        "line": lambda: line(settings.aps, settings.side_m),
    }
    return makers[settings.layout]()


def grid_rows(count: int, side_m: float) -> Tensor:
    """Rows of nearly equal length, each evenly spread: for square numbers the lattice of the environments.

    Unlike ``grid_layout`` it takes every number, so that a slider can run through all of them.
    """
    rows = round(math.sqrt(count))
    points = []
    for row in range(rows):
        columns = count * (row + 1) // rows - count * row // rows
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * (side_m / columns)
        points.append(torch.stack((x, torch.full_like(x, (row + 0.5) * side_m / rows)), dim=-1))
    return torch.cat(points)


def circle(count: int, side_m: float, radius_m: float | None = None) -> Tensor:
    """Evenly on a circle around the centre of the area, the first to the east."""
    radius = 0.4 * side_m if radius_m is None else radius_m
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    return side_m / 2 + radius * torch.stack((torch.cos(angle), torch.sin(angle)), dim=-1)


def line(count: int, side_m: float) -> Tensor:
    """Evenly on the horizontal line through the centre."""
    x = (torch.arange(count, dtype=torch.float64) + 0.5) * (side_m / count)
    return torch.stack((x, torch.full_like(x, side_m / 2)), dim=-1)


def equal_range_std_m(settings: DrawnSiteConfig) -> float:
    """C sigma of a TOA range without clock errors at the reference SNR: the unit of textbook maps, metres."""
    snr = 10 ** (settings.reference_snr_db / 10)
    return 299_792_458.0 / math.sqrt(8 * math.pi**2 * flat_rms_bandwidth_hz(settings.bandwidth_mhz * 1e6) ** 2 * snr)
