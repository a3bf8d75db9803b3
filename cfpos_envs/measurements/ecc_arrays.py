"""From arrays as people have them to the tensors of ``CsiMeasurements``: types, shapes, orders, signs, gaps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.checks import ON_BAD, one_of
from cfpos_envs.measurements.arrays import refuse_degrees
from cfpos_envs.physics.ecc.conventions import (
    antenna_permutation,
    is_conjugated,
    subcarrier_permutation,
)

_FAR_M = 10_000.0
_UNEVEN = 0.01
_LEAST_GROWTH_M, _LEAST_STD = 10.0, 1e-3


def complex_array(name: str, value: Any) -> tuple[np.ndarray, np.ndarray]:
    """Complex numbers of any type and where they are missing (masked), as NumPy arrays.

    Args:
        name: for the message.
        value: NumPy or masked array, tensor (conjugated views too), nested lists.

    Raises:
        ValueError: not complex.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().resolve_conj().resolve_neg().numpy()
    masked = np.ma.getmaskarray(value) if isinstance(value, np.ma.MaskedArray) else None
    array = np.ma.getdata(value) if masked is not None else np.asarray(value)
    if not np.iscomplexobj(array):
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}; it must be complex: amplitudes alone locate nobody here, and real "
            "and imaginary parts on an axis of their own are joined by real + 1j * imaginary"
        )
    return array, np.zeros(array.shape, bool) if masked is None else masked


def real_array(name: str, value: Any, shape: tuple[int, ...], meaning: str) -> np.ndarray:
    """Finite real numbers in double precision.

    Args:
        name: for the message.
        value: array, tensor or nested lists.
        shape: which it must have.
        meaning: of that shape, e.g. ``one row (x, y, z) per base station``.

    Raises:
        ValueError: another shape, not real, or not finite.
    """
    plain = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    array: np.ndarray = np.ma.filled(np.ma.asarray(plain, dtype=float), np.nan)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}, {meaning}")
    wrong = np.argwhere(~np.isfinite(array))
    if len(wrong):
        raise ValueError(f"{name}{wrong[0].tolist()} is {array[tuple(wrong[0])]}; every entry must be a number")
    return array


def five_axes(csi: np.ndarray, missing: np.ndarray, num_bs: int) -> tuple[np.ndarray, np.ndarray]:
    """CSI [K, L, T, A, N] of [K, L, T, A, N] or [K, L, A, N], and what of it is missing.

    Raises:
        ValueError: another number of axes, or of base stations.
    """
    if csi.ndim == 4:
        csi, missing = csi[:, :, None], missing[:, :, None]
    if csi.ndim != 5:
        raise ValueError(
            f"csi has shape {csi.shape}; it must be [snapshots, base stations, antennas, subcarriers], or with slots "
            "before the antennas"
        )
    if csi.shape[1] != num_bs:
        raise ValueError(
            f"csi has shape {csi.shape}, that is {csi.shape[1]} base stations, but there are {num_bs}; the axes are "
            "snapshots, base stations, (slots,) antennas, subcarriers"
        )
    return csi, missing


def in_our_order(
    csi: np.ndarray,
    array_shape: tuple[int, int],
    antenna_order: str | Sequence[int],
    phase: str,
    subcarrier_order: str,
) -> np.ndarray:
    """CSI [..., A, N] with antennas, sign of the phase and subcarriers as ours.

    Args:
        csi: as it came.
        array_shape: (rows, columns).
        antenna_order, phase, subcarrier_order: see ``physics.ecc.conventions``.

    Raises:
        ValueError: an unknown convention, or another number of antennas than the array has.
    """
    if csi.shape[-2] != array_shape[0] * array_shape[1]:
        raise ValueError(
            f"csi has shape {csi.shape}, that is {csi.shape[-2]} antennas, but the array has "
            f"{array_shape[0]} x {array_shape[1]}; correct array_shape or give element_positions_m"
        )
    csi = csi[..., list(antenna_permutation(antenna_order, array_shape)), :]
    csi = csi[..., list(subcarrier_permutation(subcarrier_order, csi.shape[-1]))]
    return csi.conj() if is_conjugated(phase) else csi


def usable_links(csi: np.ndarray, missing: np.ndarray, valid: Any, on_bad: str) -> tuple[np.ndarray, np.ndarray]:
    """CSI with zeros on links that hold nothing, and [K, L] the links that do.

    NaN, masked entries and nothing but zeros say that a link was not measured; infinity cannot be.

    Args:
        csi, missing: [K, L, T, A, N].
        valid: [K, L] links to use; None: all.
        on_bad: what to do about infinity: ``refuse``, or ``drop`` the link with a warning.

    Raises:
        ValueError: ``valid`` of another shape, or infinity.
    """
    one_of("on_bad", on_bad, ON_BAD)
    # Not -1, which means nothing where there are no snapshots.
    flat = np.where(missing, np.nan, csi).reshape(*csi.shape[:2], math.prod(csi.shape[2:]))
    infinite = np.isinf(flat).any(axis=-1)
    if infinite.any() and on_bad == "refuse":
        first = np.argwhere(infinite)[0].tolist()
        raise ValueError(
            f"csi{first} (snapshot, base station) holds infinity, on {int(infinite.sum())} links in all; mark what was "
            "not measured by NaN or zeros, or leave such links out with on_bad='drop'"
        )
    if infinite.any():
        warnings.warn(f"{int(infinite.sum())} links hold infinity and are left out", stacklevel=3)
    usable = np.isfinite(flat).all(axis=-1) & (flat != 0).any(axis=-1)
    if valid is not None:
        stated = np.ma.filled(np.ma.asarray(valid.cpu().numpy() if isinstance(valid, Tensor) else valid), False)
        if stated.shape != usable.shape:
            raise ValueError(f"valid has shape {stated.shape}; with this csi it must be {usable.shape}")
        usable &= stated.astype(bool)
    return np.where(usable[:, :, None, None, None], csi, 0), usable


def orientations(value: Any, num_bs: int) -> np.ndarray:
    """[L, 3] (yaw, pitch, roll) in radians, of [L, 3] or [L] yaws.

    Raises:
        ValueError: another shape, or angles beyond a full turn, which are degrees.
    """
    plain = value.detach().cpu().numpy() if isinstance(value, Tensor) else value
    array = np.asarray(plain, dtype=float)
    if array.shape == (num_bs,):
        array = np.stack((array, np.zeros(num_bs), np.zeros(num_bs)), axis=-1)
    array = real_array("bs_orientation_rad", array, (num_bs, 3), "(yaw, pitch, roll) of every base station")
    refuse_degrees("bs_orientation_rad", float(array.flat[np.abs(array).argmax()]))
    return array


def comb(
    num_subcarriers: int,
    frequencies_hz: Any,
    carrier_hz: float | None,
    subcarrier_spacing_hz: float | None,
    subcarrier_order: str,
) -> tuple[float, float]:
    """Middle frequency and spacing of the subcarriers, however they were given.

    Args:
        num_subcarriers: N.
        frequencies_hz: [N] of the subcarriers, in the order of the CSI; None: the next two.
        carrier_hz, subcarrier_spacing_hz: middle and spacing.
        subcarrier_order: the order of ``frequencies_hz``.

    Raises:
        ValueError: neither is given, or frequencies that are not evenly spaced or not in the order said.
    """
    if frequencies_hz is None:
        if carrier_hz is None or subcarrier_spacing_hz is None:
            raise ValueError("the frequencies are not known; give frequencies_hz, or carrier_hz and the spacing")
        return float(carrier_hz), float(subcarrier_spacing_hz)
    given = real_array("frequencies_hz", frequencies_hz, (num_subcarriers,), "one per subcarrier of csi")
    ascending = given[list(subcarrier_permutation(subcarrier_order, num_subcarriers))]
    if num_subcarriers == 1:
        return float(ascending[0]), float(subcarrier_spacing_hz or 1.0)
    steps = np.diff(ascending)
    if steps.min() <= 0:
        raise ValueError(
            f"frequencies_hz does not ascend in subcarrier_order={subcarrier_order!r}; name the order in which csi and "
            "frequencies are, or sort both"
        )
    spacing = float(steps.mean())
    if np.abs(steps - spacing).max() > _UNEVEN * spacing:
        raise ValueError(
            f"frequencies_hz has steps from {steps.min():g} to {steps.max():g} Hz; subcarriers must be evenly spaced: "
            "fill gaps by interpolation or leave every second one out"
        )
    middle = float(ascending.mean())
    if middle <= 0:
        raise ValueError("frequencies_hz are offsets from the carrier; add the carrier frequency to them")
    return middle, spacing


def refuse_another_network(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse measurements whose constants are not those of the network that an estimator was trained in.

    Args:
        trained, given: constants by name.

    Raises:
        ValueError: names the first one that differs, and both values.
    """
    for name, wanted in trained.items():
        found = given[name]
        same = found is wanted or (found is not None and wanted is not None and _close(found, wanted))
        if not same:
            raise ValueError(
                f"{name} is {found}, the network was trained with {wanted}; bring measurements of the same network, or "
                "train on these"
            )


def _close(first: Any, second: Any) -> bool:
    one, other = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-6, atol=0.0))


def box(area_m: Any) -> np.ndarray:
    """Opposite corners (x, y, z) of an area as [2, 3].

    Raises:
        ValueError: another shape.
    """
    return real_array("area_m", area_m, (2, 3), "opposite corners (x, y, z) of the box that holds every user")


def triple(values: Any) -> tuple[float, float, float]:
    """Three numbers (x, y, z)."""
    x, y, z = (float(value) for value in values)
    return x, y, z


def origin_near(points_m: np.ndarray) -> tuple[float, float, float]:
    """An origin near points that are so far from zero that single precision would lose millimetres; else zero."""
    if len(points_m) == 0 or np.abs(points_m).max() <= _FAR_M:
        return 0.0, 0.0, 0.0
    x, y = np.floor(points_m[:, :2].mean(axis=0))
    return float(x), float(y), 0.0


def area_around(points_m: np.ndarray) -> np.ndarray:
    """[2, 3] corners of the box of points grown on every side by its longest one, at least 10 m."""
    low, high = points_m.min(axis=0), points_m.max(axis=0)
    growth = max(_LEAST_GROWTH_M, float((high - low).max()))
    return np.stack((low - growth, high + growth))


def gain_statistics(csi: np.ndarray, usable: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of log10 of the gain over the usable links of every base station.

    A base station that hears nobody has those of all.
    """
    gain = np.sqrt((np.abs(csi).astype(float) ** 2).sum(axis=(-1, -2, -3)))
    logarithm = np.where(usable, np.log10(np.maximum(gain, 1e-30)), np.nan)
    heard = logarithm[usable]
    common = (float(heard.mean()), float(heard.std())) if len(heard) else (0.0, 1.0)
    pairs = [(float(c[u].mean()), float(c[u].std())) if u.any() else common for c, u in zip(logarithm.T, usable.T)]
    return tuple(mean for mean, _ in pairs), tuple(max(std, _LEAST_STD) for _, std in pairs)


def tensor(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    """A tensor of its own memory; NumPy's negative strides are no obstacle."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(dtype)
