"""The loops of both stages in compiled code (``native/path_*.cpp``), for tensors on a CPU where there is a compiler.

Each search returns None where it does not serve (``stepped`` has to be asked with ``serves``); the caller then takes
torch's own operations, which are the reference: results are the same up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.native import border, build

_SOURCES = tuple(Path(build.__file__).parent / f"path_{name}.cpp" for name in ("searches", "likelihood"))
_MODES = 5


def _structure(numbers: Sequence[tuple[str, type]], pointers: Sequence[str]) -> list[tuple[str, type]]:
    return [*numbers, *((name, ctypes.c_void_p) for name in pointers)]


class _Climb(ctypes.Structure):
    """``Climb`` of native/path_searches.cpp."""

    _fields_ = _structure(
        [
            *((name, ctypes.c_int64) for name in ("rows", "points", "lags", "steps")),
            *((name, ctypes.c_double) for name in ("slope", "floor")),
        ],
        ("seen", "left", "low", "high", "found"),
    )


class _Peaks(ctypes.Structure):
    """``Peaks`` of native/path_searches.cpp."""

    _fields_ = _structure(
        [
            ("spectra", ctypes.c_int64),
            ("sizes", ctypes.c_int64 * 2),
            *((name, ctypes.c_int64) for name in ("rounds", "steps")),
            *((name, ctypes.c_double * 2) for name in ("slopes", "widths")),
        ],
        ("focused", "found"),
    )


class _Sight(ctypes.Structure):
    """``Sight`` of native/path_searches.cpp."""

    _fields_ = _structure([("steps", ctypes.c_int64)], ("cosines", "mapping", "weight", "direction", "error_map"))


class _Fixes(ctypes.Structure):
    """``Fixes`` of native/path_searches.cpp."""

    _fields_ = _structure(
        [
            *((name, ctypes.c_int64) for name in ("paths", "grid", "zoom", "zooms")),
            *((name, ctypes.c_double) for name in ("farthest_m", "nearest_m", "floor")),
        ],
        ("source_m", "direction", "pseudo_range_m", "covariance", "present"),
    )


class _Step(ctypes.Structure):
    """``Step`` of native/path_likelihood.cpp."""

    _fields_ = _structure(
        [("paths", ctypes.c_int64), ("sizes", ctypes.c_int64 * _MODES), ("slopes", ctypes.c_double * _MODES)],
        ("focused", "delayed", "present", "parameters", "stepped", "gains"),
    )


def climbed(
    seen: Complex[Tensor, "*batch lags"],
    left: Complex[Tensor, "*batch lags"] | None,
    slope: float,
    bracket: tuple[Float[Tensor, "*batch P"], Float[Tensor, "*batch P"]],
    steps: int,
    floor: float = 0.0,
) -> Float[Tensor, "*batch P"] | None:
    """Maxima of seen(x) / max(left(x), floor), or of seen(x), inside brackets: ``harmonics.climb``.

    Args:
        seen, left: trigonometric polynomials, see ``harmonics``.
        slope: w.
        bracket: lower and upper ends.
        steps: Newton's or bisections.
        floor: of the denominator.
    """
    low = bracket[0]
    if not serves(seen, torch.complex128) or low.dtype is not torch.float64:
        return None
    batch, lags, points = low.shape[:-1], seen.shape[-1], low.shape[-1]
    rows = batch.numel()
    polynomials = [None if part is None else part.expand(*batch, lags).reshape(rows, lags) for part in (seen, left)]
    ends = [part.expand(*batch, points).reshape(rows, points) for part in bracket]
    complex_, real = ((rows, lags), torch.complex128), ((rows, points), torch.float64)
    tensors = border.dense(
        [*polynomials, *ends], [("seen", *complex_), ("left", *complex_), ("low", *real), ("high", *real)]
    )
    found = torch.empty(rows, points, dtype=torch.float64)
    given = _Climb(rows, points, lags, steps, slope, floor, *_addresses([*tensors, found]))
    _library().cfpos_ris_climb(ctypes.byref(given), torch.get_num_threads())
    return found.reshape(*batch, points)


def climbed_axes(
    focused: Complex[Tensor, "*batch n1 n2"],
    slopes: tuple[float, float],
    start: Float[Tensor, "*batch 2"],
    widths: tuple[float, float],
    counts: tuple[int, int],
) -> Float[Tensor, "*batch 2"] | None:
    """Maxima of two-dimensional spectra |v_1(x)^H z v_2(y)^*|^2 near ``start``, one axis after the other.

    Args:
        focused: z.
        slopes: w of the axes.
        start: cosines to begin with.
        widths: a search goes as far to both sides.
        counts: rounds over both axes, and steps of every search.
    """
    if not serves(focused, torch.complex128) or start.dtype is not torch.float64:
        return None
    sizes = focused.shape[-2:]
    (dense,) = border.dense([focused], [("focused", tuple(focused.shape), torch.complex128)])
    found = start.clone(memory_format=torch.contiguous_format)
    border.check(found, "start", (*focused.shape[:-2], 2), torch.float64)
    pairs = [(ctypes.c_double * 2)(*values) for values in (slopes, widths)]
    given = _Peaks(found.numel() // 2, (ctypes.c_int64 * 2)(*sizes), *counts, *pairs, *_addresses([dense, found]))
    _library().cfpos_ris_peaks(ctypes.byref(given), torch.get_num_threads())
    return found


def sighted(
    cosines: Float[Tensor, "T 4"], mapping: Float[Tensor, "T 4 3"], weight: Float[Tensor, "T 4 4"], steps: int
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, "T 3 4"]] | None:
    """Direction u of y = T u on the unit sphere and its error map: ``directions.line_of_sight_direction``.

    Args:
        cosines: y.
        mapping: T.
        weight: inverse covariance of y, up to a factor.
        steps: on the sphere.
    """
    if not serves(cosines, torch.float64):
        return None
    pairs = len(cosines)
    wanted = [("cosines", (pairs, 4)), ("mapping", (pairs, 4, 3)), ("weight", (pairs, 4, 4))]
    tensors = border.dense([cosines, mapping, weight], [(*entry, torch.float64) for entry in wanted])
    direction, error_map = torch.empty(pairs, 3, dtype=torch.float64), torch.empty(pairs, 3, 4, dtype=torch.float64)
    given = _Sight(steps, *_addresses([*tensors, direction, error_map]))
    _library().cfpos_ris_sight(ctypes.byref(given), ctypes.c_int64(pairs))
    return direction, error_map


def searched(
    paths: tuple[
        Float[Tensor, "T L 3"],
        Float[Tensor, "T L 3"],
        Float[Tensor, "T L"],
        Float[Tensor, "T L 4 4"],
        Bool[Tensor, "T L"],
    ],
    counts: tuple[int, int, int],
    reach_m: tuple[float, float],
    floor: float,
) -> tuple[Float[Tensor, "T 3"], Float[Tensor, " T"]] | None:
    """Position and bias of every pair: ``position.search``.

    Args:
        paths: sources, directions, pseudo-ranges, covariances of both, which are present: as in ``PathFixes``.
        counts: biases of the bracket, of every finer search, and how many of these there are.
        reach_m: shortest and longest path.
        floor: of the eigenvalues of a path's covariance, as a share of its trace.
    """
    source, present = paths[0], paths[-1]
    if not serves(source, torch.float64):
        return None
    pairs, count = present.shape
    shapes = ((3,), (3,), (), (4, 4))
    names = ("source_m", "direction", "pseudo_range_m", "covariance")
    wanted = [(name, (pairs, count, *shape), torch.float64) for name, shape in zip(names, shapes, strict=True)]
    tensors = border.dense(paths, [*wanted, ("present", (pairs, count), torch.bool)])
    position, bias = torch.empty(pairs, 3, dtype=torch.float64), torch.empty(pairs, dtype=torch.float64)
    fixes = _Fixes(count, *counts, reach_m[1], reach_m[0], floor, *_addresses(tensors))
    _library().cfpos_ris_search(
        ctypes.byref(fixes),
        build.address(position),
        build.address(bias),
        ctypes.c_int64(pairs),
        torch.get_num_threads(),
    )
    return position, bias


def stepped(
    focused: Complex[Tensor, "T L U B"],
    delayed: Complex[Tensor, "T L U B"] | None,
    sizes: Sequence[int],
    slopes: Sequence[float],
    parameters: Float[Tensor, "T L 5"],
    present: Bool[Tensor, "T L"],
) -> tuple[Float[Tensor, "T L 5"], Complex[Tensor, "T L"]]:
    """Parameters after one step, and the gains before it: ``refine.step_by_tables`` where ``serves`` says so.

    Args:
        focused: the block at the delay of every path, see ``modes.focus_delay``.
        delayed: the same with the derivatives of the delay vectors; None: gains only.
        sizes, slopes: of the five modes.
        parameters: of the paths; they come back as they are where no step is asked for.
        present: which paths there are.
    """
    blocks, paths = present.shape
    spread = (blocks, paths, sizes[0] * sizes[1], sizes[2] * sizes[3])
    tensors = border.dense(
        [focused, delayed, present, parameters],
        [
            ("focused", spread, torch.complex128),
            ("delayed", spread, torch.complex128),
            ("present", (blocks, paths), torch.bool),
            ("parameters", (blocks, paths, _MODES), torch.float64),
        ],
    )
    moved = None if delayed is None else torch.empty(blocks, paths, _MODES, dtype=torch.float64)
    gains = torch.empty(blocks, paths, dtype=torch.complex128)
    step = _Step(
        paths,
        (ctypes.c_int64 * _MODES)(*sizes),
        (ctypes.c_double * _MODES)(*slopes),
        *_addresses([*tensors, moved, gains]),
    )
    _library().cfpos_ris_step(ctypes.byref(step), ctypes.c_int64(blocks), torch.get_num_threads())
    return parameters if moved is None else moved, gains


def _addresses(tensors: Sequence[Tensor | None]) -> list[ctypes.c_void_p | None]:
    return [None if tensor is None else build.address(tensor) for tensor in tensors]


def serves(tensor: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether the kernels take a tensor.

    Args:
        tensor: the first of those that they are given.
        dtype: which they read; None: it is converted before.
    """
    fits = dtype is None or tensor.dtype is dtype
    return tensor.is_cpu and fits and not tensor.requires_grad and _kernels() is not None


def _library() -> ctypes.CDLL:
    found = _kernels()
    assert found is not None  # ``serves`` has said so
    return found


def _kernels() -> ctypes.CDLL | None:
    return build.library_if_any(_SOURCES)
