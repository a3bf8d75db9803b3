"""Options of a network with surfaces, every default once: radio, scene, and on top of these the localisation game."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch

from cfpos_envs.checks import fits, number, whole
from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.channel import Propagation
from cfpos_envs.physics.ris.geometry import check_geometry, euler_rotation
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.scenarios.ranges import CARRIERS_HZ, MOST_ROUNDS
from cfpos_envs.scenarios.site_config import given_fields
from cfpos_envs.streams import RNGS

_COORDINATES: Range = (-1e6, 1e6)
RADIO_RANGES: dict[str, Range] = {
    **dict.fromkeys(("bs_shape", "ue_shape", "ris_shape"), (1, 256)),
    "num_subcarriers": (2, 1 << 16),
    "bandwidth_hz": (1, 1e12),
    "num_slots": (1, 1 << 16),
}
DESIGNS = ("svd", "balanced", "chirp", "random")
OBSERVATIONS = ("correlations", "spectra", "tensor")
ACTIONS = ("correction", "absolute")
REWARDS = ("explained", "paths", "gain", "error")
_CLOCK_MARGIN_M = 1.0


@dataclass(frozen=True)
class RisRadioConfig(Declared):
    """The part of the radio that the presets differ in.

    Attributes:
        bs_shape, ue_shape, ris_shape: elements along both axes of the arrays.
        num_subcarriers: N.
        bandwidth_hz: B.
        num_slots: pilots G.
    """

    ranges: ClassVar[Mapping[str, Range]] = RADIO_RANGES

    bs_shape: tuple[int, int] = (8, 8)
    ue_shape: tuple[int, int] = (6, 6)
    ris_shape: tuple[int, int] = (20, 20)
    num_subcarriers: int = 64
    bandwidth_hz: float = 200e6
    num_slots: int = 64


PRESETS: dict[str, RisRadioConfig] = {
    "default": RisRadioConfig(),
    "small": RisRadioConfig((6, 6), (5, 5), (16, 16), 32, 100e6, 36),
}


@dataclass(frozen=True)
class RisConfig(Declared):
    """A scene with surfaces. A radio field left at None is taken from the preset; see ``RisRadioConfig``.

    Attributes:
        preset: ``default``, or ``small``, about a fifth of the samples.
        split: ``train`` or ``test``: never the same places, channels or noise.
        num_ris: surfaces R >= 1.
        num_ues: UEs J.
        num_bs: base stations I.
        carrier_hz: fc.
        power_w: transmit power P of a slot.
        kappa_bs_db, kappa_ris_db: Rician factor of base station to UE and of surface to UE; -inf is not allowed.
        exponent_los, exponent_ris: path loss exponents of base station to UE, and of both hops over a surface.
        snr_db: received power per antenna over the noise, P h^2 / sigma^2, with h^2 of the *unchanged* preset:
            changing anything else leaves the noise as it is.
        bias_ns: clock bias of a UE, or a pair (low, high) from which every episode draws it uniformly.
        bias_step_ns: every further UE's clock, and every further base station's, is this much later.
        los_blocked: chance in [0, 1] that the line of sight of a pair is blocked; true is 1.
        bs_positions_m, ris_positions_m, ue_positions_m: as many points as there may be; the first ones are used.
        ue_box_m: half the side of the cube around its place in which every episode draws a UE; 0: fixed.
        euler_deg: orientation (alpha, beta, gamma) of the UEs.
        phases: design of the surfaces' profiles: ``svd``, ``balanced`` (several base stations), ``chirp`` (wide
            sectors), ``random``.
        sector_deg: half-width in azimuth and elevation of the sector that a design serves, around the UEs' middle.
        link_std_m: standard deviation per axis of the differences that UEs measure to the first one; None: they do not.
        bs_shape, ue_shape, ris_shape, num_subcarriers, bandwidth_hz, num_slots: instead of the preset's.

    Raises:
        ValueError: for a value outside its range or a geometry for which the model does not hold.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        **RADIO_RANGES,
        "num_ris": (1, 1000),
        "num_ues": (1, 1000),
        "num_bs": (1, 1000),
        "carrier_hz": CARRIERS_HZ,
        "power_w": (1e-12, 1e6),
        "kappa_bs_db": (-100, 200),
        "kappa_ris_db": (-100, 200),
        "exponent_los": (0, 10),
        "exponent_ris": (0, 10),
        "snr_db": (-200, 300),
        "bias_ns": (-1e6, 1e6),
        "bias_step_ns": (-1e6, 1e6),
        "los_blocked": (0, 1),
        "bs_positions_m": _COORDINATES,
        "ris_positions_m": _COORDINATES,
        "ue_positions_m": _COORDINATES,
        "ue_box_m": (0, 1e4),
        "euler_deg": (-3600, 3600),
        "sector_deg": (0, 90),
        "link_std_m": (1e-9, 1e6),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "preset": tuple(PRESETS),
        "split": ("train", "test"),
        "phases": DESIGNS,
    }

    place_options: ClassVar[str] = "ue_positions_m, bs_positions_m, ris_positions_m, euler_deg"

    preset: str = "default"
    split: str = "train"
    num_ris: int = 2
    num_ues: int = 1
    num_bs: int = 1
    carrier_hz: float = 28e9
    power_w: float = 1.0
    kappa_bs_db: float = 10 * math.log10(20.0)
    kappa_ris_db: float = 10 * math.log10(20.0)
    exponent_los: float = 4.0
    exponent_ris: float = 2.0
    snr_db: float = 10.0
    bias_ns: float | Sequence[float] = 20.0
    bias_step_ns: float = 5.0
    los_blocked: float = 0.0
    bs_positions_m: Sequence[Sequence[float]] = ((0.0, 0.0, 0.0), (20.0, 2.0, 1.0))
    ris_positions_m: Sequence[Sequence[float]] = (
        (5.0, 18.0, -3.0),
        (15.0, -4.0, 3.0),
        (18.0, 16.0, -4.0),
        (2.0, -3.0, -5.0),
    )
    ue_positions_m: Sequence[Sequence[float]] = ((10.0, 10.0, -10.0), (12.0, 8.0, -9.0))
    ue_box_m: float = 0.0
    euler_deg: Sequence[float] = (45.0, 0.0, -15.0)
    phases: str = "svd"
    sector_deg: float = 5.0
    link_std_m: float | None = None
    bs_shape: Sequence[int] | None = None
    ue_shape: Sequence[int] | None = None
    ris_shape: Sequence[int] | None = None
    num_subcarriers: int | None = None
    bandwidth_hz: float | None = None
    num_slots: int | None = None

    def __post_init__(self) -> None:
        self._convert()
        super().__post_init__()
        for name, points in _PLACES.items():
            available = len(getattr(self, points))
            if getattr(self, name) > available:
                raise ValueError(
                    f"{name}={getattr(self, name)}, but {points} has only {available} points; give it more"
                )
        low_ns, high_ns = self.bias_range_ns
        if low_ns > high_ns:
            raise ValueError(f"bias_ns={self.bias_ns!r} must be one number or a pair (low, high) with low <= high")
        system = self.system
        shapes = ", ".join(f"{name}={getattr(system, name)}" for name in ("bs_shape", "ue_shape", "num_subcarriers"))
        fits("a block of samples", self.numbers_per_episode, f"num_ues={self.num_ues}, num_bs={self.num_bs}, {shapes}")
        elements = self.num_ris * system.num_slots * math.prod(system.ris_shape)
        fits(
            "the profiles",
            elements,
            f"num_ris={self.num_ris}, num_slots={system.num_slots}, ris_shape={system.ris_shape}",
        )
        self._check_places()

    @property
    def numbers_per_episode(self) -> int:
        """What an episode holds: the samples of all pairs, two numbers each."""
        system = self.system
        antennas = system.num_bs_antennas * system.num_ue_antennas
        return 2 * self.num_ues * self.num_bs * antennas * max(system.num_subcarriers, system.num_slots)

    def _convert(self) -> None:
        """Lists, as files and command lines give them, become tuples, so that the config can be hashed."""
        for name in _PLACES.values():
            object.__setattr__(self, name, _as_points(name, getattr(self, name)))
        if isinstance(self.los_blocked, bool):
            object.__setattr__(self, "los_blocked", float(self.los_blocked))
        object.__setattr__(self, "euler_deg", as_point("euler_deg", self.euler_deg))
        for name in ("bs_shape", "ue_shape", "ris_shape"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _as_shape(name, getattr(self, name)))
        if isinstance(self.bias_ns, Sequence):
            if isinstance(self.bias_ns, str) or len(self.bias_ns) != 2:
                raise ValueError(f"bias_ns={self.bias_ns!r} must be one number or a pair (low, high)")
            object.__setattr__(self, "bias_ns", tuple(self.bias_ns))

    @property
    def bias_range_ns(self) -> tuple[float, float]:
        """Lowest and highest clock bias of the first UE at the first base station."""
        if isinstance(self.bias_ns, Sequence):
            return self.bias_ns[0], self.bias_ns[1]
        return self.bias_ns, self.bias_ns

    @cached_property
    def radio(self) -> RisRadioConfig:
        """The preset with this config's own radio fields put over it."""
        return dataclasses.replace(PRESETS[self.preset], **given_fields(RisRadioConfig, self))

    @cached_property
    def system(self) -> RisSystem:
        """The constants that everybody knows."""
        return RisSystem(carrier_hz=self.carrier_hz, power_w=self.power_w, **dataclasses.asdict(self.radio))

    @property
    def propagation(self) -> Propagation:
        """How power decays and scatters."""
        kappas = (10 ** (value / 10) for value in (self.kappa_bs_db, self.kappa_ris_db))
        return Propagation(self.system.wavelength_m, self.exponent_los, self.exponent_ris, *kappas)

    def places_m(self, name: str) -> torch.Tensor:
        """The points in use, float64: ``bs`` [I, 3], ``ris`` [R, 3] or ``ue`` [J, 3] (before a box displaces them)."""
        counts = {"bs": self.num_bs, "ris": self.num_ris, "ue": self.num_ues}
        return torch.tensor(getattr(self, f"{name}_positions_m")[: counts[name]], dtype=torch.float64)

    @property
    def rotation(self) -> torch.Tensor:
        """[3, 3] orientation of the UEs."""
        alpha, beta, gamma = torch.deg2rad(torch.tensor(self.euler_deg, dtype=torch.float64))
        return euler_rotation(alpha, beta, gamma)

    @property
    def aim_m(self) -> torch.Tensor:
        """[3] what the designs of the surfaces aim at: the middle of the UEs' places."""
        return self.places_m("ue").mean(dim=0)

    def _check_places(self) -> None:
        ue, bs, ris = self.places_m("ue"), self.places_m("bs"), self.places_m("ris")
        pairs = (self.num_ues, self.num_bs)
        try:
            check_geometry(
                ue.unsqueeze(1).expand(*pairs, 3),
                bs.expand(*pairs, 3),
                ris.expand(*pairs, *ris.shape),
                self.rotation.expand(*pairs, 3, 3),
                self.system.window_m,
            )
        except ValueError as error:
            raise ValueError(f"{error} ({self.place_options})") from None


_PLACES = {"num_ris": "ris_positions_m", "num_ues": "ue_positions_m", "num_bs": "bs_positions_m"}
"""Count -> the field with the points."""


@dataclass(frozen=True)
class RisGameConfig(RisConfig):
    """A scene and how it is played; the scene's fields are those of ``RisConfig``.

    Attributes:
        rounds: episode length T.
        observation: ``correlations``: per path and axis the lag-one correlation of what was received, turned by the
            present estimate; ``spectra``: per path and axis the power spectrum; ``tensor``: the samples themselves.
        action: ``correction`` of the present estimate by at most the reach of the round, or the ``absolute`` point.
        reward: ``paths``: share of the received energy that the estimate explains, judged path by path so that weak
            ones count; ``explained``: share of all of it; ``gain``: increase of ``paths`` in the round; ``error``:
            -log(error / m + 0.01) by the simulated truth (privileged, for studies).
        area_m: half the side of the cube around the UEs' middle in which estimates stay.
        reach_m: largest correction of a coordinate, and of the clock, in the first round.
        zoom: factor of the reach from round to round, in (0, 1].
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.

    Raises:
        ValueError: for a value outside its range, or an area that does not hold all places of the UEs.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "rounds": (1, MOST_ROUNDS),
        "area_m": (1e-3, 1e4),
        "reach_m": (1e-3, 1e4),
        "zoom": (1e-3, 1),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "observation": OBSERVATIONS,
        "action": ACTIONS,
        "reward": REWARDS,
        "rng": RNGS,
    }

    rounds: int = 6
    observation: str = "correlations"
    action: str = "correction"
    reward: str = "paths"
    area_m: float = 6.0
    reach_m: float = 5.0
    zoom: float = 0.4
    rng: str = "stream"

    def __post_init__(self) -> None:
        super().__post_init__()
        places = self.places_m("ue")
        needed = float((places - self.aim_m).abs().max()) + self.ue_box_m
        if needed > self.area_m:
            raise ValueError(
                f"area_m={self.area_m:g} is too small for UEs up to {needed:g} m from their middle; raise area_m or "
                "lower ue_box_m"
            )

    @property
    def clock_m(self) -> tuple[float, float]:
        """Lowest and highest clock bias that an estimate may have, metres: what may occur, and a margin."""
        low_ns, high_ns = self.bias_range_ns
        last_ns = self.bias_step_ns * (self.num_ues + self.num_bs - 2)
        ends = sorted((0.0, last_ns))
        low, high = (1e-9 * SPEED_OF_LIGHT_M_S * ns for ns in (low_ns + ends[0], high_ns + ends[1]))
        return low - _CLOCK_MARGIN_M, high + _CLOCK_MARGIN_M

    def reach_in(self, rounds_played: torch.Tensor) -> torch.Tensor:
        """Largest correction, metres, after so many rounds."""
        return self.reach_m * self.zoom ** rounds_played.to(torch.float32)


def as_point(name: str, value: Any) -> tuple[float, ...]:
    """Three finite numbers as a tuple."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 3:
        raise ValueError(f"{name}={value!r} must be three numbers")
    for entry in value:
        number(name, entry, -1e6, 1e6)
    return tuple(float(entry) for entry in value)


def _as_points(name: str, value: Any) -> tuple[tuple[float, ...], ...]:
    """A list of points as a tuple of tuples."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"{name}={value!r} must be a list of points, three numbers each")
    return tuple(as_point(name, point) for point in value)


def _as_shape(name: str, value: Any) -> tuple[int, int]:
    """Two whole numbers of at least 1 as a tuple."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ValueError(f"{name}={value!r} must be two whole numbers, elements along either axis")
    for entry in value:
        whole(name, entry, 1)
    return (value[0], value[1])
