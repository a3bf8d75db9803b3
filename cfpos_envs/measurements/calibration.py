"""What a site's ranges have to be corrected by, and how accurate they are then: offsets, scales, spreads per AP."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfpos_envs.measurements.toa import TimingMeasurements

METHODS = ("none", "self", "labelled")
"""How offsets are found: not at all, from the ranges alone, or from known positions."""


@dataclass(frozen=True)
class RangeCalibration:
    """A measured range is r = scale d + offset + e; the distance d is what a position needs. M access points.

    Attributes:
        offset_m: [M] what to subtract; 0 where calibration does not pay.
        scale: [M] metres of range per metre of distance.
        std_m: [M] standard deviation of e, which replaces what was told; infinite for an AP that was never heard.
        offset_covariance_m2: [M, M] of the offsets, over blocks of epochs: what they have in common too.
        epochs: [M] how many each rests on.
        method: one of ``METHODS``, or "file".
        pays: whether positions gain by it.
        reason: why, in one line.
        device_offset_m: further offset by device; a device that is not named has none.
        std_factor: [M] by which told standard deviations are multiplied instead, or None.
        ap_names: M names, or empty.
    """

    offset_m: Float[Tensor, " M"]
    scale: Float[Tensor, " M"]
    std_m: Float[Tensor, " M"]
    offset_covariance_m2: Float[Tensor, "M M"]
    epochs: Int[Tensor, " M"]
    method: str
    pays: bool
    reason: str
    device_offset_m: Mapping[str, float] = dataclasses.field(default_factory=dict)
    std_factor: Float[Tensor, " M"] | None = None
    ap_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.offset_m)
        for name in ("scale", "std_m", "epochs", "std_factor"):
            value = getattr(self, name)
            if value is not None and value.shape != (count,):
                raise ValueError(f"{name} has shape {tuple(value.shape)}; with {count} APs it must be ({count},)")
        if self.offset_covariance_m2.shape != (count, count):
            raise ValueError(f"offset_covariance_m2 must be [{count}, {count}], one row per AP")
        if not bool(torch.isfinite(self.offset_m).all()) or not bool((self.scale > 0).all()):
            raise ValueError("offsets must be finite and scales above 0")
        if not bool((self.std_m > 0).all()):
            raise ValueError("std_m of a calibration must be above 0 for every AP")

    @property
    def offset_std_m(self) -> Float[Tensor, " M"]:
        """[M] standard deviation of every offset."""
        return self.offset_covariance_m2.diagonal().clamp(min=0.0).sqrt()

    def applied(self, measurements: TimingMeasurements, devices: Sequence[Any] | None = None) -> TimingMeasurements:
        """The measurements with corrected ranges and standard deviations.

        Args:
            measurements: one episode of K users and the same M APs.
            devices: K names of the devices that measured; None: offsets of devices are left out.

        Raises:
            ValueError: another number of APs or of devices.
        """
        ranges, variance = self.corrected(measurements.range_m, measurements.variance_m2, devices)
        return dataclasses.replace(measurements, range_m=ranges, variance_m2=variance)

    def corrected(
        self, range_m: Float[Tensor, "*B M K"], told_m2: Float[Tensor, "*B M K"], devices: Sequence[Any] | None = None
    ) -> tuple[Float[Tensor, "*B M K"], Float[Tensor, "*B M K"]]:
        """Corrected ranges and their variances.

        Args:
            range_m: as they came, metres.
            told_m2: variances that were told, for APs that were never heard in calibration, and for ``std_factor``.
            devices: as in ``applied``.

        Raises:
            ValueError: as ``applied``.
        """
        count, users = range_m.shape[-2:]
        if count != len(self.offset_m):
            raise ValueError(f"the calibration is of {len(self.offset_m)} APs, the measurements are of {count}")
        by_device = range_m.new_zeros(users)
        if devices is not None and self.device_offset_m:
            if len(devices) != users:
                raise ValueError(f"devices has {len(devices)} entries; it must have one for each of {users} users")
            by_device = by_device.new_tensor([self.device_offset_m.get(str(name), 0.0) for name in devices])
        scale, offset, std, heard = self.scale[:, None], self.offset_m[:, None], self.std_m[:, None], self.epochs > 0
        ranges = (range_m - offset - by_device) / scale
        if self.std_factor is not None:
            return ranges, told_m2 * (self.std_factor[:, None] / scale).square()
        # What was never heard in calibration keeps what it was told.
        known = (heard & torch.isfinite(self.std_m))[:, None]
        return ranges, torch.where(known, (std / scale).square().expand_as(ranges), told_m2)

    def lines(self) -> list[str]:
        """The report: one line for the whole, one for each AP, one for each device."""
        names = self.ap_names or tuple(f"AP {m}" for m in range(len(self.offset_m)))
        width = max(map(len, names))
        found = [f"calibration ({self.method}) {'pays' if self.pays else 'does not pay'}: {self.reason}"]
        offset_std = self.offset_std_m
        for m, name in enumerate(names):
            scale = "" if float(self.scale[m]) == 1.0 else f", scale {float(self.scale[m]):.4f}"
            known = f" +- {float(offset_std[m]):.2f}" if float(offset_std[m]) > 0 else ""
            found.append(
                f"  {name:<{width}} offset {float(self.offset_m[m]):+.2f}{known} m{scale}, spread "
                f"{float(self.std_m[m]):.2f} m, {int(self.epochs[m])} epochs"
            )
        return found + [f"  device {name}: offset {value:+.2f} m" for name, value in self.device_offset_m.items()]
