"""What the central unit could receive when positions come from CSI; the meeting point with models and estimators."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.checks import number_fields, whole_fields
from cfpos_envs.measurements.base import Measurements, check_shapes
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

_BITS_PER_COMPLEX64 = 64


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

    @property
    def num_antennas(self) -> int:
        """A = rows * columns."""
        return self.array_shape[0] * self.array_shape[1]

    @property
    def wavelength_m(self) -> float:
        """Wavelength of the carrier."""
        return SPEED_OF_LIGHT_M_S / self.carrier_hz

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
        csi: estimated CSI, (6); zero on links that are not ``valid``.
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
        batch = len(csi)
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
