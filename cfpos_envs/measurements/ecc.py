"""What the central unit could receive when positions come from CSI; the meeting point with models and estimators."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.checks import number_fields, whole_fields
from cfpos_envs.measurements import ecc_arrays
from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.physics.ecc.conventions import PHASES
from cfpos_envs.physics.ecc.csi import element_response, upa_response
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

_BITS_PER_COMPLEX64 = 64
_UNKNOWN_NOISE = 1e-12
"""Noise power of systems made of arrays, which say none; no estimator here reads it."""


@dataclass(frozen=True)
class CsiSystem:
    """What everybody knows of the network. Defaults live in the scenario's config.

    Attributes:
        carrier_hz: carrier frequency.
        subcarrier_spacing_hz: spacing of the *kept* comb (720 kHz where one of twelve 60 kHz subcarriers is kept).
        num_subcarriers: N, kept subcarriers, symmetric around the carrier and ascending.
        num_slots: T, pilot slots of one snapshot.
        array_shape: (rows, columns) of every BS's planar array; antenna row * columns + column. In the array's own
            frame (x: broadside) column c lies at y = (c - (columns - 1) / 2) d, row r at z = (r - (rows - 1) / 2) d,
            with d = ``spacing_wavelengths`` wavelengths.
        spacing_wavelengths: antenna spacing.
        num_bs: L.
        area_min_m, area_max_m: opposite corners (x, y, z) of the box in which users are.
        pilot_power_w: |x_n|^2, transmitted power on one kept subcarrier.
        noise_power_w: sigma^2 of (2), noise power per antenna and subcarrier.
        log_gain_mean, log_gain_std: per BS, mean and standard deviation of log10 g over users of the area (long-term
            averages, as the covariance of the LMMSE estimator is).
        element_positions_m: [A][3] antennas of an array that is not rows x columns, in its own frame; ``array_shape``
            is then (1, A). None: ``array_shape`` says where they are.

    Raises:
        ValueError: for a value outside its range or lists of different lengths.
    """

    carrier_hz: float
    subcarrier_spacing_hz: float
    num_subcarriers: int
    num_slots: int
    array_shape: tuple[int, int]
    spacing_wavelengths: float
    num_bs: int
    area_min_m: tuple[float, float, float]
    area_max_m: tuple[float, float, float]
    pilot_power_w: float
    noise_power_w: float
    log_gain_mean: tuple[float, ...]
    log_gain_std: tuple[float, ...]
    element_positions_m: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        positive = ("carrier_hz", "subcarrier_spacing_hz", "spacing_wavelengths", "pilot_power_w", "noise_power_w")
        number_fields(self, 0.0, math.inf, *positive, above=True)
        whole_fields(self, 1, "num_subcarriers", "num_slots", "num_bs")
        if len(self.array_shape) != 2 or min(self.array_shape) < 1:
            raise ValueError(f"array_shape must be (rows, columns), each at least 1, got {self.array_shape}")
        if not all(low < high for low, high in zip(self.area_min_m, self.area_max_m)):
            raise ValueError(f"area_min_m {self.area_min_m} must lie below area_max_m {self.area_max_m} on every axis")
        for name in ("log_gain_mean", "log_gain_std"):
            if len(getattr(self, name)) != self.num_bs:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries; there are num_bs={self.num_bs} BSs")
        if min(self.log_gain_std) <= 0:
            raise ValueError("log_gain_std must be positive")
        if self.element_positions_m is not None:
            # Checkpoints and JSON hold lists.
            listed = tuple(tuple(map(float, row)) for row in self.element_positions_m)
            if any(len(row) != 3 for row in listed) or tuple(self.array_shape) != (1, len(listed)):
                raise ValueError(
                    f"element_positions_m holds {len(listed)} antennas, each must be (x, y, z), and array_shape "
                    f"(1, {len(listed)}), got {self.array_shape}"
                )
            object.__setattr__(self, "element_positions_m", listed)

    @property
    def num_antennas(self) -> int:
        """A = rows * columns."""
        return self.array_shape[0] * self.array_shape[1]

    @property
    def wavelength_m(self) -> float:
        """Wavelength of the carrier."""
        return SPEED_OF_LIGHT_M_S / self.carrier_hz

    @cached_property
    def elements_wavelengths(self) -> Float[Tensor, "A 3"]:
        """Where the antennas are in the array's own frame, in wavelengths."""
        if self.element_positions_m is not None:
            return torch.tensor(self.element_positions_m) / self.wavelength_m
        rows, columns = self.array_shape
        z, y = (torch.arange(count, dtype=torch.float32) - 0.5 * (count - 1) for count in (rows, columns))
        places = torch.stack(torch.meshgrid(z, y, indexing="ij"), dim=-1).flatten(0, 1) * self.spacing_wavelengths
        return torch.nn.functional.pad(places.flip(-1), (1, 0))

    def response(self, local_direction: Float[Tensor, "*batch 3"]) -> Complex[Tensor, "*batch A"]:
        """Response of the array to directions in its own frame, see ``upa_response`` and ``element_response``."""
        if self.element_positions_m is None:
            return upa_response(local_direction, self.array_shape, self.spacing_wavelengths)
        return element_response(local_direction, self.elements_wavelengths.to(local_direction))

    @property
    def cfr_noise_variance(self) -> float:
        """Variance of the complex noise on every entry of a least-squares CSI estimate, sigma^2 / |x_n|^2."""
        return self.noise_power_w / self.pilot_power_w

    @property
    def lossless_bits(self) -> int:
        """Bits of one BS's raw snapshot of one user in complex64, (37): 64 T A N."""
        return _BITS_PER_COMPLEX64 * self.num_slots * self.num_antennas * self.num_subcarriers

    @property
    def centre_m(self) -> tuple[float, float, float]:
        """Centre of the area."""
        x, y, z = (0.5 * (low + high) for low, high in zip(self.area_min_m, self.area_max_m))
        return x, y, z

    @property
    def scale_m(self) -> float:
        """Half of the area's longest side: one scale for all axes, so that no direction counts more than another."""
        return 0.5 * max(high - low for low, high in zip(self.area_min_m, self.area_max_m))

    def normalise_position(self, position_m: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """(p - centre) / scale: within [-1, 1] in the area."""
        return (position_m - position_m.new_tensor(self.centre_m)) / self.scale_m

    def denormalise_position(self, normalised: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Inverse of ``normalise_position``, metres."""
        return normalised * self.scale_m + normalised.new_tensor(self.centre_m)

    def standardise_log_gain(
        self, gain: Float[Tensor, "*batch L"], valid: Bool[Tensor, "*batch L"] | None = None, floor: float = -4.0
    ) -> Float[Tensor, "*batch L"]:
        """(log10 g - mean) / std per BS; raw gains span six decades and say nothing in a softmax.

        Args:
            gain: (7), of each BS; not negative.
            valid: links that have a path; the others get ``floor``, as do gains of zero.
            floor: least value returned, in standard deviations.
        """
        mean, std = gain.new_tensor(self.log_gain_mean), gain.new_tensor(self.log_gain_std)
        tiny = torch.finfo(gain.dtype).tiny
        standard = ((gain.clamp(min=tiny).log10() - mean) / std).clamp(min=floor)
        return standard if valid is None else torch.where(valid, standard, torch.full_like(standard, floor))


@dataclass(frozen=True)
class CsiMeasurements(Measurements):
    """One batch of snapshots as the BSs estimated them; no true position is in here.

    B episodes, J users, L BSs, T slots, A antennas, N subcarriers. What of this crosses the fronthaul is the policy's
    choice; sending all of it costs ``system.lossless_bits`` per BS and user.

    Attributes:
        system: the known constants.
        bs_positions_m: where the arrays are.
        bs_orientation_rad: (yaw, pitch, roll) of every array: rotations about z, then y, then x take its own frame,
            whose x axis is the broadside, to the world's.
        csi: estimated CSI, (6); zero on links that are not ``valid``. Other precisions and conjugated views become
            complex64 without a view, as the places become float32: what is computed does not depend on them.
        valid: the link has a path and the BS sends.
        site_ids [B]: one integer per episode; equal integers mean the same site.
        origin_m: see ``Measurements``.

    Raises:
        ValueError: shapes that do not belong to ``system`` or to each other.
    """

    families: ClassVar[tuple[str, ...]] = ("csi",)
    content: ClassVar[str] = "channel state information"
    environments: ClassVar[str] = "an ecc environment"

    system: CsiSystem
    bs_positions_m: Float[Tensor, "B L 3"]
    bs_orientation_rad: Float[Tensor, "B L 3"]
    csi: Complex[Tensor, "B J L T A N"]
    valid: Bool[Tensor, "B J L"]
    site_ids: Tensor
    origin_m: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        s = self.system
        if self.csi.dim() != 6 or not self.csi.is_complex():
            raise ValueError(f"csi is {self.csi.dtype} {tuple(self.csi.shape)}; it must be complex [B, J, L, T, A, N]")
        batch, users, *rest = self.csi.shape
        if rest[0] != s.num_bs:
            raise ValueError(f"csi holds {rest[0]} BSs, the system has {s.num_bs}; mask a silent one with valid=False")
        wanted = (s.num_slots, s.num_antennas, s.num_subcarriers)
        if tuple(rest[1:]) != wanted:
            raise ValueError(f"csi ends in {tuple(rest[1:])}; the system's slots, antennas, subcarriers are {wanted}")
        places = (batch, s.num_bs, 3)
        wanted_by_name = {"valid": (batch, users, s.num_bs), "bs_positions_m": places, "bs_orientation_rad": places}
        check_shapes(self, {**wanted_by_name, "site_ids": (batch,)}, "this csi")
        object.__setattr__(self, "csi", self.csi.to(torch.complex64).resolve_conj())
        for name in ("bs_positions_m", "bs_orientation_rad"):
            object.__setattr__(self, name, getattr(self, name).to(torch.float32))

    @classmethod
    def from_csi(
        cls,
        system: CsiSystem,
        # What people bring is checked below, with messages that say what to do.
        bs_positions_m: Tensor,
        bs_orientation_rad: Tensor,
        csi: Tensor,
        valid: Tensor | None = None,
        site_ids: Tensor | None = None,
    ) -> CsiMeasurements:
        """Measurements from a person's own CSI: links that hold nothing useful are masked, not believed.

        A link whose CSI is zero everywhere (the BS sends nothing, or has no path) or contains NaN or infinity becomes
        invalid with zero CSI.

        Args:
            system: the constants of the network.
            bs_positions_m, bs_orientation_rad: [L, 3] or [B, L, 3].
            csi: complex [B, J, L, T, A, N].
            valid: [B, J, L] links to use; None: all.
            site_ids: [B]; None: all zero.

        Raises:
            ValueError: shapes that do not fit, e.g. another number of BSs.
        """
        if csi.dim() != 6 or not csi.is_complex():
            raise ValueError(f"csi is {csi.dtype} {tuple(csi.shape)}; it must be complex [B, J, L, T, A, N]")
        batch, csi = len(csi), csi.resolve_conj()
        finite = torch.isfinite(torch.view_as_real(csi)).flatten(3).all(dim=-1)
        usable = finite & (csi.abs() > 0).flatten(3).any(dim=-1)
        if valid is not None:
            if valid.shape != usable.shape:
                raise ValueError(
                    f"valid has shape {tuple(valid.shape)}; with this csi it must be {tuple(usable.shape)}"
                )
            usable = usable & valid
        clean = torch.where(usable[..., None, None, None], csi, torch.zeros_like(csi))
        if site_ids is None:
            site_ids = torch.zeros(batch, dtype=torch.long, device=csi.device)
        positions, orientation = (
            value.expand(batch, *value.shape) if value.dim() == 2 else value
            for value in (bs_positions_m, bs_orientation_rad)
        )
        return cls(system, positions, orientation, clean.to(torch.complex64), usable, site_ids)

    @classmethod
    def from_arrays(
        cls,
        csi: Any,
        bs_positions_m: Any,
        bs_orientation_rad: Any,
        *,
        system: CsiSystem | None = None,
        carrier_hz: float | None = None,
        subcarrier_spacing_hz: float | None = None,
        frequencies_hz: Any = None,
        array_shape: tuple[int, int] | None = None,
        spacing_wavelengths: float | None = None,
        element_positions_m: Any = None,
        antenna_order: str | Sequence[int] = "rows",
        phase: str = PHASES[0],
        subcarrier_order: str = "ascending",
        area_m: Any = None,
        valid: Any = None,
        origin_m: Sequence[float] | None = None,
        on_bad: str = "refuse",
    ) -> CsiMeasurements:
        """Measurements of K snapshots from arrays of any type: one user each, so that answers are [K, 1, 3].

        Links that are NaN, masked or zero everywhere are left out for exactly that snapshot and base station.

        Args:
            csi: complex [K, L, A, N] or, with slots, [K, L, T, A, N]: NumPy (masked too), tensors, lists.
            bs_positions_m: [L, 3], in coordinates of any size.
            bs_orientation_rad: [L, 3] (yaw, pitch, roll), see the class, or [L] yaws of level arrays.
            system: of a network that has been trained, for its estimators: what is given beside it must be the same;
                None: made of what follows.
            carrier_hz, subcarrier_spacing_hz: middle of the subcarriers and their distance; or
            frequencies_hz: [N] all of them, evenly spaced, in the order of ``csi``.
            array_shape: (rows, columns) of every array; None: one row.
            spacing_wavelengths: of its antennas, at the carrier; None: that of ``system``, or 0.5.
            element_positions_m: [A, 3] antennas of arrays that are not rows x columns, in the array's own frame (x:
                broadside) and in the order of ``csi``.
            antenna_order: how ``csi`` numbers the antennas of rows x columns: a name of
                ``physics.ecc.conventions.ANTENNA_ORDERS`` or the permutation, see ``antenna_permutation``.
            phase: the sign by which a delay turns the phase, one of ``physics.ecc.conventions.PHASES``.
            subcarrier_order: one of ``physics.ecc.conventions.SUBCARRIER_ORDERS``.
            area_m: [2, 3] opposite corners of the box in which users are; None: the box of the base stations, grown on
                every side by its longest one.
            valid: [K, L] links to use; None: all.
            origin_m: [3] subtracted from all places and added to answers; None: near the base stations where their
                coordinates are above 10 km, else zero.
            on_bad: ``refuse`` infinite CSI, or ``drop`` the links with a warning.

        Raises:
            ValueError: shapes that do not fit each other, degrees, unknown names, uneven subcarriers, another network
                than ``system``.
        """
        values, missing = ecc_arrays.complex_array("csi", csi)
        orientation = np.asarray(bs_orientation_rad)
        places = ecc_arrays.real_array(
            "bs_positions_m", bs_positions_m, (len(orientation), 3), "(x, y, z) of every base station"
        )
        orientation = ecc_arrays.orientations(bs_orientation_rad, len(places))
        values, missing = ecc_arrays.five_axes(values, missing, len(places))
        antennas, subcarriers = values.shape[-2:]
        if element_positions_m is not None:
            element_positions_m = ecc_arrays.real_array(
                "element_positions_m", element_positions_m, (antennas, 3), "(x, y, z) of every antenna of csi"
            )
        shape = system.array_shape if system is not None and array_shape is None else array_shape or (1, antennas)
        shape = (1, antennas) if element_positions_m is not None else (int(shape[0]), int(shape[1]))
        order = (shape, antenna_order, phase, subcarrier_order)
        values, missing = ecc_arrays.in_our_order(values, *order), ecc_arrays.in_our_order(missing, *order)
        values, usable = ecc_arrays.usable_links(values, missing, valid, on_bad)
        origin = ecc_arrays.triple(ecc_arrays.origin_near(places) if origin_m is None else origin_m)
        near = places - np.asarray(origin)
        stated = carrier_hz is not None or frequencies_hz is not None
        middle, spacing = (
            ecc_arrays.comb(subcarriers, frequencies_hz, carrier_hz, subcarrier_spacing_hz, subcarrier_order)
            if system is None or stated
            else (system.carrier_hz, system.subcarrier_spacing_hz)
        )
        constants: dict[str, Any] = {
            "carrier_hz": middle,
            "subcarrier_spacing_hz": spacing,
            "num_subcarriers": subcarriers,
            "num_slots": values.shape[2],
            "array_shape": shape,
            "spacing_wavelengths": spacing_wavelengths or (system.spacing_wavelengths if system is not None else 0.5),
            "num_bs": len(places),
            "element_positions_m": None if element_positions_m is None else tuple(map(tuple, element_positions_m)),
        }
        if system is None:
            area = ecc_arrays.area_around(near) if area_m is None else ecc_arrays.box(area_m) - np.asarray(origin)
            mean, std = ecc_arrays.gain_statistics(values, usable)
            system = CsiSystem(
                **constants,
                area_min_m=ecc_arrays.triple(area[0]),
                area_max_m=ecc_arrays.triple(area[1]),
                pilot_power_w=1.0,
                noise_power_w=_UNKNOWN_NOISE,
                log_gain_mean=mean,
                log_gain_std=std,
            )
        else:
            if element_positions_m is None:
                del constants["element_positions_m"]
            ecc_arrays.refuse_another_network({name: getattr(system, name) for name in constants}, constants)
        count = len(values)
        return cls(
            system,
            ecc_arrays.tensor(near, torch.float32).expand(count, -1, -1),
            ecc_arrays.tensor(orientation, torch.float32).expand(count, -1, -1),
            ecc_arrays.tensor(values, torch.complex64)[:, None],
            ecc_arrays.tensor(usable, torch.bool)[:, None],
            torch.zeros(count, dtype=torch.long),
            origin,
        )
