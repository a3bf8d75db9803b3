"""CSI that somebody has measured or simulated, in one file of named arrays: npz, HDF5 or MATLAB."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfpos_envs.checks import nearest
from cfpos_envs.importers.containers import load_arrays
from cfpos_envs.measurements import ecc_arrays
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.conventions import PHASES

REQUIRED = ("csi", "bs_positions_m", "bs_orientation_rad")
OPTIONAL = (
    "positions_m",
    "valid",
    "frequencies_hz",
    "carrier_hz",
    "subcarrier_spacing_hz",
    "element_positions_m",
    "array_shape",
    "spacing_wavelengths",
    "names",
    "time_s",
    "group",
    "area_m",
    "rssi_dbm",
    "antenna_order",
    "phase",
    "subcarrier_order",
)
CONVENTIONS = {"antenna_order": "rows", "phase": PHASES[0], "subcarrier_order": "ascending"}
"""What is taken where neither the caller nor the file says anything: ours."""
_LEAST_SPREAD_M, _MOST_SPREAD_M, _MOST_ELEMENT_M = 1.0, 1e5, 10.0
_LEAST_CARRIER_HZ, _LEAST_SPACING_HZ = 1e7, 100.0


@dataclass(frozen=True)
class CsiFile:
    """P snapshots of one user each, at L base stations, in our conventions.

    Attributes:
        path: where it was read, for messages.
        csi: [P, L, T, A, N] complex; zero on links that are not valid.
        valid: [P, L].
        bs_positions_m, bs_orientation_rad: [L, 3].
        positions_m: [P, 3] where the snapshots were taken; None: unknown.
        carrier_hz, subcarrier_spacing_hz: middle of the subcarriers and their distance.
        array_shape, spacing_wavelengths: of every array.
        element_positions_m: [A, 3] of arrays that are not rows x columns.
        names: of the base stations.
        time_s, group: [P] or None; snapshots of one group belong together (a walk, a day).
        area_m: [2, 3] corners of the box in which users are, or None.
    """

    path: str
    csi: np.ndarray
    valid: np.ndarray
    bs_positions_m: np.ndarray
    bs_orientation_rad: np.ndarray
    positions_m: np.ndarray | None
    carrier_hz: float
    subcarrier_spacing_hz: float
    array_shape: tuple[int, int]
    spacing_wavelengths: float
    element_positions_m: np.ndarray | None
    names: tuple[str, ...]
    time_s: np.ndarray | None = None
    group: np.ndarray | None = None
    area_m: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of snapshots."""
        return len(self.csi)

    def select(self, rows: np.ndarray | slice) -> CsiFile:
        """Some snapshots only."""
        by_row = ("csi", "valid", "positions_m", "time_s", "group")
        values = {name: getattr(self, name) for name in by_row}
        kept: dict[str, Any] = {name: None if value is None else value[rows] for name, value in values.items()}
        return dataclasses.replace(self, **kept)

    def measurements(self, system: CsiSystem | None = None) -> CsiMeasurements:
        """What an estimator or agent is asked to ``locate``; answers are [P, 1, 3] in the file's coordinates.

        Args:
            system: of the network that the estimator was trained in; None: that of this file.

        Raises:
            ValueError: the file is of another network than ``system``.
        """
        with _of(self.path):
            return CsiMeasurements.from_arrays(
                self.csi,
                self.bs_positions_m,
                self.bs_orientation_rad,
                system=system,
                carrier_hz=self.carrier_hz,
                subcarrier_spacing_hz=self.subcarrier_spacing_hz,
                array_shape=self.array_shape,
                spacing_wavelengths=self.spacing_wavelengths,
                element_positions_m=self.element_positions_m,
                area_m=self.area_m,
                valid=self.valid,
            )

    def write(self, path: str | Path) -> None:
        """Write an npz file that ``read_csi`` reads."""
        values: dict[str, Any] = {
            **{name: getattr(self, name) for name in OPTIONAL if name not in CONVENTIONS and hasattr(self, name)},
            **{name: getattr(self, name) for name in REQUIRED},
            **CONVENTIONS,
            "names": np.array(self.names),
        }
        if self.element_positions_m is not None:
            del values["array_shape"], values["spacing_wavelengths"]
        there: dict[str, Any] = {name: np.asarray(value) for name, value in values.items() if value is not None}
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **there)


def read_csi(
    path: str | Path,
    *,
    antenna_order: str | Sequence[int] | None = None,
    phase: str | None = None,
    subcarrier_order: str | None = None,
    labelled: bool = False,
) -> CsiFile:
    """A person's own CSI out of one file, see docs/data/csi.md for its arrays.

    Args:
        path: ``.npz``, ``.h5``, ``.hdf5`` or ``.mat``.
        antenna_order, phase, subcarrier_order: conventions of the file, see ``CsiMeasurements.from_arrays``; None: what
            the file says, else ours.
        labelled: whether ``positions_m`` is needed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: what is wrong, with file and array.
    """
    arrays = load_arrays(path)
    with _of(path):
        _check_names(arrays, REQUIRED + (("positions_m",) if labelled else ()))
        said = {"antenna_order": antenna_order, "phase": phase, "subcarrier_order": subcarrier_order}
        orders = {name: _convention(arrays, name) if value is None else value for name, value in said.items()}
        return _checked(str(path), arrays, orders)


def scaled_to_rssi(csi: np.ndarray, valid: np.ndarray, rssi_dbm: np.ndarray) -> np.ndarray:
    """CSI whose mean power over antennas and subcarriers is the received power, mW.

    Receivers with automatic gain control (Wi-Fi) report CSI of one size whatever arrives, and the power beside it.

    Args:
        csi: [P, L, T, A, N].
        valid: [P, L].
        rssi_dbm: [P, L], read on valid links only.

    Raises:
        ValueError: a valid link has no power.
    """
    lacking = valid & ~np.isfinite(rssi_dbm)
    if lacking.any():
        row, station = np.argwhere(lacking)[0]
        raise ValueError(f"rssi_dbm [{row}, {station}] is missing on a link with csi; leave the link or all powers out")
    mean = (np.abs(csi) ** 2).mean(axis=(-3, -2, -1))
    power = np.where(valid, 10.0 ** (np.where(valid, rssi_dbm, 0.0) / 10.0), 0.0)
    return csi * np.sqrt(power / np.where(mean > 0, mean, 1.0))[..., None, None, None]


@contextmanager
def _of(path: str | Path) -> Iterator[None]:
    """Messages begin with the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_names(arrays: Mapping[str, np.ndarray], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in arrays]
    if missing:
        unknown = [name for name in arrays if name not in REQUIRED + OPTIONAL]
        raise ValueError(
            f"there is no array {missing[0]!r}{nearest(missing[0], unknown)}; the file holds {', '.join(arrays)}, "
            f"needed are {', '.join(required)}"
        )


def _convention(arrays: Mapping[str, np.ndarray], name: str) -> Any:
    """A convention that the file states, else ours."""
    if name not in arrays:
        return CONVENTIONS[name]
    stated = np.asarray(arrays[name])
    return str(stated.ravel()[0]) if stated.dtype.kind in "US" else stated.ravel().astype(int).tolist()


def _checked(path: str, arrays: Mapping[str, np.ndarray], orders: dict[str, Any]) -> CsiFile:
    places = _rows(arrays, "bs_positions_m", None, "(x, y, z) of every base station")
    count = len(places)
    orientation = ecc_arrays.orientations(_flat_if(arrays["bs_orientation_rad"], count), count)
    csi, missing = ecc_arrays.complex_array("csi", arrays["csi"])
    # MATLAB has dropped trailing axes of length 1.
    csi, missing = (v.reshape(*v.shape, *(1,) * max(0, 4 - v.ndim)) for v in (csi, missing))
    csi, missing = ecc_arrays.five_axes(csi, missing, count)
    positions = _rows(arrays, "positions_m", len(csi), "the place of every snapshot of csi")
    _check_units(places, positions)
    antennas, subcarriers = csi.shape[-2:]
    elements, shape = _array(arrays, antennas)
    named = (shape, orders["antenna_order"], orders["phase"], orders["subcarrier_order"])
    csi, missing = ecc_arrays.in_our_order(csi, *named), ecc_arrays.in_our_order(missing, *named)
    csi, valid = ecc_arrays.usable_links(csi, missing, arrays.get("valid"), "refuse")
    if "rssi_dbm" in arrays:
        csi = scaled_to_rssi(csi, valid, _powers(arrays["rssi_dbm"], valid.shape))
    if not valid.any():
        raise ValueError("csi holds nothing but zeros and NaN on every link")
    carrier, spacing = ecc_arrays.comb(
        subcarriers,
        _vector(arrays, "frequencies_hz", subcarriers),
        _scalar(arrays, "carrier_hz"),
        _scalar(arrays, "subcarrier_spacing_hz"),
        orders["subcarrier_order"],
    )
    _check_hertz(carrier, spacing)
    area = arrays.get("area_m")
    return CsiFile(
        path=path,
        csi=csi.astype(np.complex64),
        valid=valid,
        bs_positions_m=places,
        bs_orientation_rad=orientation,
        positions_m=positions,
        carrier_hz=carrier,
        subcarrier_spacing_hz=spacing,
        array_shape=shape,
        spacing_wavelengths=_scalar(arrays, "spacing_wavelengths") or 0.5,
        element_positions_m=elements,
        names=_names(arrays, count),
        time_s=_vector(arrays, "time_s", len(csi)),
        group=_group(arrays, len(csi)),
        area_m=None if area is None else ecc_arrays.real_array("area_m", area, (2, 3), "two corners of the area"),
    )


def _powers(given: Any, shape: tuple[int, ...]) -> np.ndarray:
    """[P, L] dBm, NaN where nothing was received."""
    rssi_dbm = np.ma.filled(np.ma.asarray(given, dtype=np.float64), np.nan)
    if rssi_dbm.shape != shape:
        raise ValueError(f"rssi_dbm has shape {rssi_dbm.shape}; it must be {list(shape)}, one power per link")
    return rssi_dbm


def _rows(arrays: Mapping[str, np.ndarray], name: str, count: int | None, meaning: str) -> Any:
    """[count, 3] metres; plane coordinates get a height of 0."""
    if name not in arrays:
        return None
    given = np.ma.asarray(arrays[name])
    if given.ndim == 2 and given.shape[1] == 2:
        given = np.ma.concatenate((given, np.zeros((len(given), 1))), axis=1)
    return ecc_arrays.real_array(name, given, (len(given) if count is None else count, 3), meaning)


def _array(arrays: Mapping[str, np.ndarray], antennas: int) -> tuple[np.ndarray | None, tuple[int, int]]:
    if "element_positions_m" in arrays:
        elements = ecc_arrays.real_array(
            "element_positions_m", arrays["element_positions_m"], (antennas, 3), "(x, y, z) of every antenna of csi"
        )
        if np.ptp(elements, axis=0).max() > _MOST_ELEMENT_M:
            raise ValueError(
                f"element_positions_m spreads over {np.ptp(elements, axis=0).max():g} m; these look like millimetres "
                "or wavelengths: give metres in the array's own frame"
            )
        return elements, (1, antennas)
    if "array_shape" not in arrays:
        if antennas > 1:
            raise ValueError(
                f"the arrays of {antennas} antennas are not described; add array_shape (rows, columns) and "
                "spacing_wavelengths, or element_positions_m"
            )
        return None, (1, 1)
    rows, columns = (int(entry) for entry in _vector(arrays, "array_shape", 2))
    return None, (rows, columns)


def _check_units(places: np.ndarray, positions: np.ndarray | None) -> None:
    """Refuse coordinates that cannot be metres."""
    together = places if positions is None else np.concatenate((places, positions))
    spread = float(np.ptp(together, axis=0).max())
    level = float(np.ptp(together[:, :2], axis=0).max())  # heights may be metres beside degrees
    if len(places) > 1 and level < _LEAST_SPREAD_M:
        raise ValueError(
            f"bs_positions_m and positions_m lie within {level:.3g} m of each other; these look like kilometres or "
            "degrees: give metres"
        )
    if spread > _MOST_SPREAD_M:
        raise ValueError(
            f"bs_positions_m and positions_m spread over {spread:.3g} m; these look like millimetres, or two systems "
            "of coordinates: give metres in one system"
        )


def _check_hertz(carrier_hz: float, spacing_hz: float) -> None:
    if carrier_hz < _LEAST_CARRIER_HZ:
        raise ValueError(f"carrier_hz (or frequencies_hz) is {carrier_hz:g}; this looks like GHz or MHz: give hertz")
    if spacing_hz < _LEAST_SPACING_HZ:
        raise ValueError(f"subcarrier_spacing_hz is {spacing_hz:g}; this looks like kHz or MHz: give hertz")


def _flat_if(value: np.ndarray, count: int) -> np.ndarray:
    """A list of ``count`` yaws that MATLAB made a matrix of one row or column."""
    array = np.asarray(value)
    return array.ravel() if array.size == count and array.shape != (count, 3) else array


def _vector(arrays: Mapping[str, np.ndarray], name: str, count: int) -> Any:
    """[count] numbers of a list, or of a matrix of one row or column; None where there is none."""
    if name not in arrays:
        return None
    return ecc_arrays.real_array(name, np.ma.ravel(np.ma.asarray(arrays[name])), (count,), "one list of numbers")


def _scalar(arrays: Mapping[str, np.ndarray], name: str) -> float | None:
    return None if name not in arrays else float(_vector(arrays, name, 1)[0])


def _group(arrays: Mapping[str, np.ndarray], count: int) -> np.ndarray | None:
    """Numbers or names of groups, one per snapshot."""
    if "group" not in arrays:
        return None
    group = np.ravel(arrays["group"])
    if len(group) != count:
        raise ValueError(f"group has {len(group)} entries; it must have {count}, one per snapshot of csi")
    return group


def _names(arrays: Mapping[str, np.ndarray], count: int) -> tuple[str, ...]:
    names = tuple(str(name) for name in np.ravel(arrays.get("names", [f"bs_{index}" for index in range(count)])))
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"names has {len(set(names))} different entries; it must have {count}, one per base station")
    return names
