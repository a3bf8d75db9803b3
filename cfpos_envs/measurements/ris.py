"""What the network knows and a UE receives when surfaces help to locate it; the meeting point with the estimators."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Complex
from torch import Tensor

from cfpos_envs.checks import number_fields, whole_fields
from cfpos_envs.measurements.arrays import complex_tensor, local_origin, real_tensor, with_axes
from cfpos_envs.measurements.base import Measurements, Rows, check_shapes
from cfpos_envs.physics.ris.geometry import SMALLEST_DISTANCE_M, smallest_distance_m
from cfpos_envs.physics.ris.modes import mode_slopes
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

_UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RisSystem:
    """The constants of the radio that everybody knows. Defaults live in the scenario's config.

    Attributes:
        carrier_hz, bandwidth_hz: carrier fc and bandwidth B.
        num_subcarriers: N, spaced B / N.
        bs_shape, ue_shape, ris_shape: elements along the two axes of the half-wavelength arrays.
        num_slots: pilots G, at least as many as base station antennas.
        power_w: transmit power P of a slot.

    Raises:
        ValueError: for a value outside its range.
    """

    carrier_hz: float
    bandwidth_hz: float
    num_subcarriers: int
    bs_shape: tuple[int, int]
    ue_shape: tuple[int, int]
    ris_shape: tuple[int, int]
    num_slots: int
    power_w: float

    def __post_init__(self) -> None:
        number_fields(self, 0.0, math.inf, "carrier_hz", "bandwidth_hz", "power_w", above=True)
        for name in ("bs_shape", "ue_shape", "ris_shape"):
            shape = getattr(self, name)
            if not isinstance(shape, tuple) or len(shape) != 2 or not all(_is_count(n) for n in shape):
                raise ValueError(f"{name}={shape!r} must be two whole numbers of at least 1, e.g. (8, 8)")
        whole_fields(self, 1, "num_subcarriers", "num_slots")
        if self.num_subcarriers < 2:
            raise ValueError("num_subcarriers=1 determines no delay; give at least 2")
        if self.num_slots < self.num_bs_antennas:
            raise ValueError(
                f"num_slots={self.num_slots} cannot sound {self.num_bs_antennas} base station antennas; "
                "give at least as many slots as antennas or a smaller bs_shape"
            )

    @property
    def wavelength_m(self) -> float:
        """Of the carrier, c / fc."""
        return SPEED_OF_LIGHT_M_S / self.carrier_hz

    @property
    def window_m(self) -> float:
        """Delays are known modulo this length, c N / B."""
        return SPEED_OF_LIGHT_M_S * self.num_subcarriers / self.bandwidth_hz

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """Axes of a received block: (U1, U2, B1, B2, N)."""
        return (*self.ue_shape, *self.bs_shape, self.num_subcarriers)

    @property
    def slopes(self) -> tuple[float, ...]:
        """Slopes of the five axes, see ``physics.ris.modes``."""
        return mode_slopes(self.bandwidth_hz, self.num_subcarriers)

    @property
    def num_bs_antennas(self) -> int:
        """B1 B2."""
        return math.prod(self.bs_shape)

    @property
    def num_ue_antennas(self) -> int:
        """U1 U2."""
        return math.prod(self.ue_shape)

    @property
    def num_ris_elements(self) -> int:
        """Elements of one surface."""
        return math.prod(self.ris_shape)


@dataclass(frozen=True)
class SisoMeasurements(Rows):
    """The same link with one antenna at either end and the first surface alone; for the single-antenna benchmark.

    Slots come in pairs with the surface's profiles +phi_t and -phi_t, so that half their sum is the line of sight and
    half their difference the path over the surface. Received samples are divided by the amplitude of the pilot.

    Attributes:
        phases: phi_t, unit modulus, T = floor(G / 2) pairs.
        received: samples by pair, sign (+, -) and subcarrier.
    """

    phases: Complex[Tensor, "B T NR"]
    received: Complex[Tensor, "B J I T 2 N"]


@dataclass(frozen=True)
class RisMeasurements(Measurements):
    """One batch of episodes: what is known and what was received; no true position or bias is in here.

    B episodes, J UEs, I base stations, R surfaces. Amplitudes are channel gains (about 1e-6): squares of their squares
    leave the range of single precision, so normalise first.

    Attributes:
        system: the known radio.
        bs_positions_m [B, I, 3], ris_positions_m [B, R, 3]: where base stations and surfaces are.
        rotation [B, J, 3, 3]: known orientation of the UEs: columns are their axes in the global frame.
        phases [B, R, NR]: unit-modulus profile of every surface, element (i, k) of ``ris_shape`` at i n_2 + k.
        received [B, J, I, U1, U2, B1, B2, N]: channel estimates after the pilots are removed, see
            ``physics.ris.channel``; may hold NaN, which estimators answer with ``valid = False``.
        link_offset_m [B, J-1, 3]: measured p_0 - p_j of UE j = 1..J-1; None where UEs do not measure each other.
        link_covariance_m2 [B, J-1, 3, 3]: covariance of its errors.
        site_ids [B]: equal integers mean the same places.
        siso: the single-antenna measurement beside it; None where it was not made.
        origin_m: see ``Measurements``.

    Raises:
        ValueError: wrong shapes, non-finite or coincident positions, matrices that are no rotations, phases that are
            not unit modulus.
    """

    families: ClassVar[tuple[str, ...]] = ("ris",)
    content: ClassVar[str] = "channels over surfaces"
    environments: ClassVar[str] = "ris-v0"

    # Shapes are checked below, with messages that say what to do.
    system: RisSystem
    bs_positions_m: Tensor
    ris_positions_m: Tensor
    rotation: Tensor
    phases: Tensor
    received: Tensor
    link_offset_m: Tensor | None
    link_covariance_m2: Tensor | None
    site_ids: Tensor
    siso: SisoMeasurements | None = None
    origin_m: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)

    @classmethod
    def from_arrays(
        cls,
        system: RisSystem,
        bs_positions_m: Any,
        ris_positions_m: Any,
        rotation: Any,
        phases: Any,
        received: Any,
        *,
        link_offset_m: Any = None,
        link_covariance_m2: Any = None,
    ) -> RisMeasurements:
        """What somebody has measured, in their own coordinates: one episode of J UEs, I base stations, R surfaces.

        NumPy arrays, tensors of any type (conjugated views too) or nested lists; all of it is kept in double precision.
        A pair of UE and base station that was not measured holds NaN or zeros in ``received`` and is left out.

        Args:
            system: the known radio.
            bs_positions_m: [I, 3] metres in any frame, UTM and a height too.
            ris_positions_m: [R, 3] in the same frame.
            rotation: [J, 3, 3], the UEs' axes as columns.
            phases: [R, NR] unit-modulus profiles.
            received: [J, I, U1, U2, B1, B2, N] channel estimates.
            link_offset_m, link_covariance_m2: [J-1, 3] measured p_0 - p_j and [J-1, 3, 3] their covariances.

        Returns:
            Measurements whose ``origin_m`` moves answers back to the frame of the positions.

        Raises:
            ValueError, TypeError: naming the first array that cannot be right.
        """
        stations = with_axes(
            "bs_positions_m", real_tensor("bs_positions_m", bs_positions_m), {"stations": None, "axes": 3}
        )
        surfaces = with_axes(
            "ris_positions_m", real_tensor("ris_positions_m", ris_positions_m), {"surfaces": None, "axes": 3}
        )
        for name, value in (("bs_positions_m", stations), ("ris_positions_m", surfaces)):
            if not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} holds NaN or infinity; give finite numbers")
        x, y, z = local_origin([stations, surfaces])
        origin = stations.new_tensor((x, y, z))
        links = [
            None if value is None else real_tensor(name, value).unsqueeze(0)
            for name, value in (("link_offset_m", link_offset_m), ("link_covariance_m2", link_covariance_m2))
        ]
        return cls(
            system=system,
            bs_positions_m=(stations - origin).unsqueeze(0),
            ris_positions_m=(surfaces - origin).unsqueeze(0),
            rotation=real_tensor("rotation", rotation).unsqueeze(0),
            phases=complex_tensor("phases", phases).unsqueeze(0),
            received=complex_tensor("received", received).unsqueeze(0),
            link_offset_m=links[0],
            link_covariance_m2=links[1],
            site_ids=torch.zeros(1, dtype=torch.long, device=stations.device),
            origin_m=(x, y, z),
        )


def _check_shapes(m: RisMeasurements) -> None:
    if m.received.ndim != 8:
        raise ValueError(
            f"received has {m.received.ndim} axes; it must have 8: episodes, UEs, base stations, U1, U2, B1, B2, N"
        )
    batch, ues, stations = m.received.shape[:3]
    surfaces = m.ris_positions_m.shape[-2] if m.ris_positions_m.ndim == 3 else -1
    wanted = {
        "received": (batch, ues, stations, *m.system.sizes),
        "bs_positions_m": (batch, stations, 3),
        "ris_positions_m": (batch, surfaces, 3),
        "rotation": (batch, ues, 3, 3),
        "phases": (batch, surfaces, m.system.num_ris_elements),
        "site_ids": (batch,),
    }
    if m.link_offset_m is not None or m.link_covariance_m2 is not None:
        wanted |= {"link_offset_m": (batch, ues - 1, 3), "link_covariance_m2": (batch, ues - 1, 3, 3)}
    check_shapes(m, wanted, "this system and these episodes")
    if surfaces < 1:
        raise ValueError(
            "ris_positions_m holds no surface; one path alone does not determine position and clock, give at least one"
        )


def _check_values(m: RisMeasurements) -> None:
    for name in ("bs_positions_m", "ris_positions_m", "rotation", "link_offset_m", "link_covariance_m2"):
        value = getattr(m, name)
        if value is not None and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds NaN or infinity; give finite numbers")
    turned = m.rotation.double()
    eye = torch.eye(3, dtype=turned.dtype, device=turned.device)
    proper = bool((turned.mT @ turned - eye).abs().amax().nan_to_num() < _UNIT_TOLERANCE) if turned.numel() else True
    if not proper or bool((torch.linalg.det(turned) < 0).any()):
        raise ValueError(
            "rotation must hold right-handed rotations: columns are the UE's axes, of length 1 and orthogonal"
        )
    places = torch.cat((m.bs_positions_m, m.ris_positions_m), dim=-2)
    if bool((smallest_distance_m(places) < SMALLEST_DISTANCE_M).any()):
        raise ValueError(
            f"two of base stations and surfaces are nearer than {SMALLEST_DISTANCE_M} m to each other; move one"
        )
    if bool(((m.phases.abs() - 1).abs() > _UNIT_TOLERANCE).any()) or not bool(torch.isfinite(m.phases.abs()).all()):
        raise ValueError("phases must have modulus 1; divide them by their modulus")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
