"""The site that a picture shows: where the APs stand and how good their links and clocks are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.checks import unknown_name
from cfpos_envs.files.areas import Area
from cfpos_envs.files.sites import SiteFile, load_site
from cfpos_envs.physics.geometry import lattice, uniform_layout
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
AP_ABOVE_USER_M = 10.0
"""Of drawn sites."""
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
        ap_height_m: AP minus user height, metres; None: 10, or what ``site`` says, and 0 if that has no heights.
        bandwidth_mhz: occupied bandwidth, MHz, at least two subcarriers of 30 kHz.
        snr_db: SNR of the whole pilot on a link of 100 m; with ``equal_snr`` on every link.
        tx_power_dbm: given, it replaces ``snr_db``: one OFDM symbol at 3.5 GHz, one antenna, noise figure 7 dB.
        equal_snr: no path loss: the classical assumption of textbook maps.
        sync: name of a clock preset; after "ota" the error is that of a burst from the centre of the area.
        processing_error_ns: RTT: standard deviation of the error of the reported processing time, ns.
        seed: of the uniform layout.
        site: path of a person's own site, which then says where the APs stand, how high, and what the area is.
        ue_height_m: of the user, with the AP heights of ``site``; None: what the file says, else 1.5.

    Raises:
        ValueError: for a value outside its range.
    """

    family: str = "toa"
    layout: str = "grid"
    aps: int = 16
    side_m: float = 500.0
    radius_m: float | None = None
    ap_height_m: float | None = None
    bandwidth_mhz: float = 100.0
    snr_db: float = 20.0
    tx_power_dbm: float | None = None
    equal_snr: bool = False
    sync: str = "white_rabbit"
    processing_error_ns: float = 1.0
    seed: int = 0
    site: str | None = None
    ue_height_m: float | None = None

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
        if self.ap_height_m is not None and not -1000.0 <= self.ap_height_m <= 1000.0:
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
        if self.ue_height_m is not None and not -1000.0 <= self.ue_height_m <= 1000.0:
            raise ValueError(f"ue-height must lie in [-1000, 1000] m, got {self.ue_height_m}")

    @property
    def reference_snr_db(self) -> float:
        """SNR of a link of ``REFERENCE_DISTANCE_M``, dB, given or from the transmit power."""
        if self.tx_power_dbm is None:
            return self.snr_db
        intercept_db, slope_db = path_loss_constants(LOS_SCENARIO, CARRIER_HZ)
        gain_db = intercept_db - slope_db * math.log10(REFERENCE_DISTANCE_M)
        noise_dbm = 10 * math.log10(thermal_noise_w(SUBCARRIER_SPACING_HZ, NOISE_FIGURE_DB)) + 30
        return self.tx_power_dbm + gain_db - noise_dbm

    def words(self, site: Site) -> str:
        """The settings in one line under a title; the heights are those of ``site``."""
        if self.tx_power_dbm is not None:
            power = f"{self.tx_power_dbm:g} dBm"
        else:
            power = f"SNR {self.snr_db:g} dB " + ("on every link" if self.equal_snr else "at 100 m")
        clocks = {"perfect": "perfect clocks", "ota": "clocks calibrated over the air"}
        std_ns = sync_preset(self.sync).std_s * 1e9
        clock = clocks.get(self.sync, f"clocks {std_ns:g} ns ({self.sync})")
        low, high = float(site.height_diff_m.min()), float(site.height_diff_m.max())
        above = f"{low:g} m" if low == high else f"{low:g} to {high:g} m"
        return f"{self.bandwidth_mhz:g} MHz, {power}, {clock}, APs {above} above the user"


@dataclass(frozen=True)
class Site:
    """The same as the physics wants it.

    Attributes:
        model: constants of the links.
        ap_positions_m: [M, 2] double precision.
        height_diff_m: [M] AP minus user height.
        sync_std_s: [M] clock error of every AP.
        area: that the picture shows.
        names: M, of the APs.
        title: what a headline calls the site.
        own: the file, if it is a person's own.
    """

    model: TimingModel
    ap_positions_m: Tensor
    height_diff_m: Tensor
    sync_std_s: Tensor
    area: Area
    names: tuple[str, ...]
    title: str
    own: SiteFile | None = None

    @property
    def extent_m(self) -> float:
        """The longer side of the rectangle around the area."""
        return self.model.side_m

    @property
    def origin_m(self) -> np.ndarray:
        """What to add to coordinates of the picture to have those of the person, [2] metres."""
        return np.array((0.0, 0.0) if self.own is None else self.own.origin_m)

    @property
    def height_in(self) -> float:
        """Height of a picture with this area in panels of 4.6 inches: 5.9 for a square."""
        low, high = self.area.bounds_m
        width, height = (high - low).tolist()
        return min(max(1.4 + 4.5 * height / width, 3.4), 12.0)

    def index_of(self, ap: int | str, option: str) -> int:
        """Number of an AP that is given by number or name.

        Raises:
            ValueError: there is none; names the option.
        """
        if isinstance(ap, str) and ap in self.names:
            return self.names.index(ap)
        if isinstance(ap, str):
            raise ValueError(f"{option}: {unknown_name('AP', ap, self.names)}")
        if not 0 <= ap < len(self.names):
            raise ValueError(f"{option}={ap} must be an AP index in [0, {len(self.names) - 1}]")
        return ap

    def lattice_m(self, spacing_m: float) -> Tensor:
        """Cell centres [P, 2] in the area, double precision."""
        low, _ = self.area.bounds_m
        points = lattice(self.extent_m, spacing_m).double() + low
        return points[self.area.contains(points)]


def make_site(settings: DrawnSiteConfig) -> Site:
    """Place the APs, or read where they are, and set up their links.

    Raises:
        ValueError: as ``load_site``; a file that does not say how large the area is, or has more than 1000 APs.
    """
    own = None if settings.site is None else load_site(settings.site)
    if own is None:
        aps = place_aps(settings)
        area = Area.rectangle((0.0, 0.0), (settings.side_m, settings.side_m))
        names, title = tuple(f"AP {m}" for m in range(len(aps))), f"{counted(len(aps))} ({settings.layout})"
    else:
        aps, area, names, title = (
            own.ap_positions_m,
            _own_area(own),
            own.ap_names,
            f"{own.name}, {counted(len(own.ap_names))}",
        )
    height = _height_diff(settings, own, len(aps))
    low, high = area.bounds_m
    slope_db = 0.0 if settings.equal_snr else path_loss_constants(LOS_SCENARIO, CARRIER_HZ)[1]
    tones = max(2, round(settings.bandwidth_mhz * 1e6 / SUBCARRIER_SPACING_HZ))
    preset = sync_preset(settings.sync)
    model = TimingModel(
        family=settings.family,
        side_m=float((high - low).max()),
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
        burst_m = torch.hypot(torch.linalg.vector_norm(aps - (low + high) / 2, dim=-1), height)
        sync = calibration_std_s(model.snr_linear(burst_m), model.rms_bandwidth_hz)
    return Site(model, aps, height, sync, area, names, title, own)


def _height_diff(settings: DrawnSiteConfig, own: SiteFile | None, aps: int) -> Tensor:
    """AP minus user height [M], metres; of a site without heights 0, as ``cfpos locate`` takes it."""
    if own is not None and own.ap_height_m is not None:
        return own.ap_height_m - (own.user_height_m if settings.ue_height_m is None else settings.ue_height_m)
    usual = AP_ABOVE_USER_M if own is None else 0.0
    return torch.full((aps,), usual if settings.ap_height_m is None else settings.ap_height_m, dtype=torch.float64)


def counted(aps: int) -> str:
    """``1 AP``, ``16 APs``."""
    return f"{aps} AP" if aps == 1 else f"{aps} APs"


def _own_area(own: SiteFile) -> Area:
    """The area that the file declares, else the rectangle around its APs."""
    if len(own.ap_names) > 1000:
        raise ValueError(f"site file {own.path} has {len(own.ap_names)} APs; pictures show at most 1000")
    if own.area is not None:
        return own.area
    low, high = (corner.tolist() for corner in own.bounds_m)
    if low[0] == high[0] or low[1] == high[1]:
        raise ValueError(f"site file {own.path}: its APs span no area; declare area or side_m")
    return Area.rectangle(low, high)


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
