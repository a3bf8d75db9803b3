"""``moments.link_moments`` and networks on them in compiled code: on a CPU where there is a compiler."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.native import border, build

_SOURCES = (Path(build.__file__).parent / "link_moments.cpp",)


class _Moments(ctypes.Structure):
    """``Moments`` of native/link_moments.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("size", "num_angles")),
        *((name, ctypes.c_double) for name in ("step", "loading", "least_width", "least_snr_db", "most_snr_db")),
        *(
            (name, ctypes.c_void_p)
            for name in ("beams", "polynomials", "answers", "covariance", "snr_db", "values", "beam_rad")
        ),
    ]


_LAYERS = ("mean", "scale", "first", "first_bias", "second", "second_bias", "last", "last_bias")


class _Network(ctypes.Structure):
    """``Network`` of native/link_moments.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("width", "outputs")),
        ("feature_limit", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in (*_LAYERS, "found")),
    ]


@dataclass(frozen=True)
class ArrayTables:
    """What ``moments`` knows of an array.

    Attributes:
        beams: what takes sums of diagonals, real and imaginary parts in turn, to the power of the beam to A directions.
        polynomials: of the antennas' places, by place and degree.
        answers: of every polynomial beam.
        step_rad: phase between neighbouring antennas for a wave along the axis.
        loading, least_width: of the moments' diagonal; below which logarithms of widths are cut.
        snrs_db: lowest and highest SNR that is told apart.
    """

    beams: Float[Tensor, "D A"]
    polynomials: Float[Tensor, "L L"]
    answers: Float[Tensor, " L"]
    step_rad: float
    loading: float
    least_width: float
    snrs_db: tuple[float, float]


@dataclass(frozen=True)
class NetworkTables:
    """A network with two hidden layers of one width.

    Attributes:
        mean, scale: of its F features, which are cut beyond ``feature_limit`` scales.
        weights, biases: of the three layers, weights by input and output.
    """

    mean: Float[Tensor, " F"]
    scale: Float[Tensor, " F"]
    feature_limit: float
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


def serves(covariance: Tensor) -> bool:
    """Whether the kernel takes covariances: single precision on a CPU, no gradients, and a compiler."""
    fits = covariance.is_cpu and covariance.dtype is torch.complex64 and not covariance.requires_grad
    return fits and build.library_if_any(_SOURCES) is not None


def compiled_moments(
    covariance: Complex[Tensor, "N L L"], snr_db: Float[Tensor, " N"], array: ArrayTables
) -> tuple[Float[Tensor, "N F"], Float[Tensor, " N"]]:
    """Values and beams of ``moments.LinkMoments``.

    Args:
        covariance: that ``serves``.
        snr_db: of signal and noise over the noise.
        array: see there.
    """
    values = torch.empty(len(covariance), num_features(covariance.shape[1]))
    return values, _run(covariance, snr_db, array, values, None)


def compiled_outputs(
    covariance: Complex[Tensor, "N L L"], snr_db: Float[Tensor, " N"], array: ArrayTables, network: NetworkTables
) -> tuple[Float[Tensor, "N outputs"], Float[Tensor, " N"]]:
    """What a network makes of the moments, which are not kept, and the beams.

    Args:
        covariance, snr_db, array: see ``compiled_moments``.
        network: see there.
    """
    (features, width), outputs = network.weights[0].shape, network.weights[2].shape[1]
    layers = [value for pair in zip(network.weights, network.biases, strict=True) for value in pair]
    sizes = [(features,), (features,), (features, width), (width,), (width, width), (width,), (width, outputs)]
    wanted = [(name, size, torch.float32) for name, size in zip(_LAYERS, [*sizes, (outputs,)], strict=True)]
    if features != num_features(covariance.shape[1]):
        raise ValueError(f"a network of {features} features cannot read arrays of {covariance.shape[1]} antennas")
    tables = border.dense([network.mean, network.scale, *layers], wanted)
    found = torch.empty(len(covariance), outputs)
    addresses = [build.address(table) for table in (*tables, found) if table is not None]
    given = _Network(width, outputs, network.feature_limit, *addresses)
    return found, _run(covariance, snr_db, array, None, given)


def num_features(antennas: int) -> int:
    """F: pivots, the factor below them, widths and their ratios, beam and SNR."""
    return antennas + antennas * (antennas - 1) // 2 + 2 * max(antennas - 2, 0) + 3


def _run(
    covariance: Tensor,
    snr_db: Tensor,
    array: ArrayTables,
    values: Tensor | None,
    network: _Network | None,
) -> Tensor:
    """Fill ``values`` or what the network finds; the beams."""
    count, size = covariance.shape[:2]
    wanted = [
        ("covariance", (count, size, size), torch.complex64),
        ("snr_db", (count,), torch.float32),
        ("polynomials", (size, size), torch.float32),
        ("answers", (size,), torch.float64),
    ]
    tensors = border.dense([covariance.resolve_conj(), snr_db, array.polynomials, array.answers], wanted)
    rows, beam = build.padded_rows(array.beams), torch.empty(count)
    links, level, by_place, of_beams = (build.address(tensor) for tensor in tensors if tensor is not None)
    given = _Moments(
        size,
        array.beams.shape[1],
        array.step_rad,
        array.loading,
        array.least_width,
        *array.snrs_db,
        build.address(rows),
        by_place,
        of_beams,
        links,
        level,
        None if values is None else build.address(values),
        build.address(beam),
    )
    build.library(_SOURCES).cfpos_link_moments(
        ctypes.byref(given),
        None if network is None else ctypes.byref(network),
        ctypes.c_int64(count),
        torch.get_num_threads(),
    )
    return beam
