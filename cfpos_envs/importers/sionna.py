"""Sionna RT 2.x: ``Paths`` objects, and channel frequency responses made of them.

What differs from ours, and is converted: ``a`` never holds exp(-j 2 pi f_c tau); with a synthetic array it holds the
plane wave's phase at every element, which are numbered down the columns; without one it holds no phase between
elements at all (refused); tau is -1 where there is no path; ``cir`` and ``cfr`` shift delays to the first path unless
told not to (refused: no arrival time is left in them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from cfpos_envs.checks import one_of
from cfpos_envs.importers.csi import ImportedCsi, panel_of
from cfpos_envs.importers.path_checks import DIFFRACTED, REFLECTED, REFRACTED, SCATTERED
from cfpos_envs.importers.paths import ImportedPaths
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

SIDES = ("transmitters", "receivers")
_SPECULAR, _DIFFUSE, _REFRACTION, _DIFFRACTION = 1, 2, 4, 8
_FLAGS = {_SPECULAR: REFLECTED, _DIFFUSE: SCATTERED, _REFRACTION: REFRACTED, _DIFFRACTION: DIFFRACTED}
_ANGLES = ("theta_t", "phi_t", "theta_r", "phi_r")
_KEYS = ("a", "tau", "valid", "interactions", *_ANGLES, "sources", "targets", "frequency")
_PLANE_WAVE = 0.02
_AMPLITUDE_DIMENSIONS, _LINK_DIMENSIONS, _RESPONSE_DIMENSIONS = 5, 3, 6


def sionna_arrays(paths: Any, scene: Any) -> dict[str, np.ndarray]:
    """What this module reads, as plain arrays, from the objects of a session with Sionna RT.

    Args:
        paths: ``sionna.rt.Paths``.
        scene: the ``sionna.rt.Scene`` they were traced in.
    """
    found = {name: np.array(getattr(paths, name)) for name in ("tau", "valid", "interactions", *_ANGLES)}
    found["a"] = np.array(paths.a[0]) + 1j * np.array(paths.a[1])
    found["sources"], found["targets"] = np.array(paths.sources).T, np.array(paths.targets).T
    found["frequency"] = np.array(scene.frequency).reshape(-1)[0]
    found["synthetic_array"] = np.array(bool(paths.synthetic_array))
    for side, devices, array in (
        ("tx", scene.transmitters, scene.tx_array),
        ("rx", scene.receivers, scene.rx_array),
    ):
        found[f"{side}_names"] = np.array(list(devices))
        found[f"{side}_orientation"] = np.array([np.array(d.orientation).reshape(3) for d in devices.values()])
        found[f"{side}_elements"] = np.array(array.positions(scene.wavelength)).T
    return found


def save_sionna(path: str | Path, paths: Any, scene: Any, frequencies: Any = None) -> None:
    """Write ``sionna_arrays`` to an npz file, which ``cfpos convert sionna`` reads.

    Args:
        path: of the file.
        paths, scene: see ``sionna_arrays``.
        frequencies: ``sionna.rt.subcarrier_frequencies``: with the frequency response over them.
    """
    arrays: dict[str, Any] = sionna_arrays(paths, scene)
    if frequencies is not None:
        arrays["cfr"] = np.array(paths.cfr(frequencies=frequencies, normalize_delays=False, out_type="numpy"))
        arrays["frequencies"] = np.array(frequencies)
    np.savez_compressed(path, **arrays)


def read_sionna(
    path: str | Path, side: str = "transmitters", stations: Mapping[str, Sequence[float]] | None = None
) -> ImportedPaths:
    """The paths of a file that ``save_sionna`` wrote.

    Args:
        path: npz file.
        side, stations: see ``paths_from_sionna``.

    Raises:
        ValueError: not readable, or anything ``paths_from_sionna`` refuses.
    """
    return paths_from_sionna(_archive(path), Path(path).name, side, stations)


def read_sionna_csi(path: str | Path, side: str = "transmitters") -> ImportedCsi:
    """The frequency responses of a file that ``save_sionna`` wrote with frequencies.

    Args:
        path: npz file.
        side: see ``paths_from_sionna``.

    Raises:
        ValueError: not readable, or anything ``csi_from_sionna`` refuses.
    """
    return csi_from_sionna(_archive(path), Path(path).name, side)


def _archive(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError, TypeError, BadZipFile, EOFError) as error:
        raise ValueError(
            f"{path} is not a readable npz file of Sionna paths ({error}); write it with save_sionna"
        ) from None


def paths_from_sionna(
    arrays: Mapping[str, Any],
    name: str = "scene",
    side: str = "transmitters",
    stations: Mapping[str, Sequence[float]] | None = None,
) -> ImportedPaths:
    """Paths from plain arrays in Sionna's shapes; see ``sionna_arrays``.

    Args:
        arrays: ``a`` [Rx, rx antennas, Tx, tx antennas, P] complex; ``tau``, ``valid`` and the angles ``theta_t``,
            ``phi_t``, ``theta_r``, ``phi_r`` [Rx, Tx, P]; ``interactions`` [depth, Rx, Tx, P]; ``sources`` [Tx, 3],
            ``targets`` [Rx, 3]; ``frequency`` in hertz. Where the stations have several elements also
            ``tx_elements`` [A, 3] (their places in the array's own frame, metres) and ``tx_orientation`` [Tx, 3]
            (yaw, pitch, roll), or those of ``rx``. ``tx_names``, ``rx_names`` if there are any.
        name: of the scene.
        side: which devices are the base stations, ``transmitters`` or ``receivers``.
        stations: name -> (x, y, z): names and order of the base stations; None: the tool's.

    Raises:
        ValueError: paths traced with ``synthetic_array=False``, users with several antennas, elements that do not fit
            a plane wave, missing arrays, and what ``ImportedPaths`` refuses.
    """
    one_of("side", side, SIDES)
    where = f"sionna {name}"
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{where}: {', '.join(missing)} missing; write the file with save_sionna(path, paths, scene)")
    got = {key: np.asarray(value) for key, value in arrays.items()}
    _check_shapes(got, where)
    down = side == "transmitters"
    bs, ue = ("t", "r") if down else ("r", "t")
    # Receiver first in all of Sionna's arrays; users first in ours.
    link = (0, 1, 2) if down else (1, 0, 2)
    amplitude = np.transpose(got["a"], (0, 1, 2, 3, 4) if down else (2, 3, 0, 1, 4))
    if amplitude.shape[1] != 1:
        raise ValueError(f"{where}: users have {amplitude.shape[1]} antennas; trace with one (an array of 1 x 1)")
    turned = {key: np.transpose(got[key], link) for key in ("tau", "valid", *_ANGLES)}
    valid = turned["valid"].astype(bool) & (np.abs(amplitude[:, 0]) > 0).any(axis=2)
    orientation = got.get(f"{bs}x_orientation")
    middle = _at_the_middle(
        amplitude[:, 0], valid, turned[f"theta_{bs}"], turned[f"phi_{bs}"], got.get(f"{bs}x_elements"), orientation,
        float(got["frequency"]), where,
    )  # fmt: skip
    interactions = np.transpose(got["interactions"], (0, *(axis + 1 for axis in link))).astype(np.int64)
    kind = np.zeros(valid.shape, dtype=np.int64)
    for code, flag in _FLAGS.items():
        kind |= np.where((interactions == code).any(axis=0), flag, 0)
    places = got["sources" if down else "targets"]
    names = got.get(f"{bs}x_names")
    found = ImportedPaths(
        tool="sionna",
        name=name,
        carrier_hz=float(got["frequency"]),
        positions_m=got["targets" if down else "sources"].astype(np.float64),
        bs_positions_m=places.astype(np.float64),
        bs_names=tuple(f"bs_{i}" for i in range(len(places))) if names is None else tuple(str(n) for n in names),
        valid=valid,
        amplitude=middle,
        delay_s=np.where(valid, turned["tau"], 0.0),
        bs_azimuth_rad=turned[f"phi_{bs}"],
        bs_zenith_rad=turned[f"theta_{bs}"],
        ue_azimuth_rad=turned[f"phi_{ue}"],
        ue_zenith_rad=turned[f"theta_{ue}"],
        reflections=(interactions == _SPECULAR).sum(axis=0),
        kind=kind,
        bs_orientation_rad=None if orientation is None else orientation.astype(np.float64),
    )
    return found if stations is None else found.with_stations(stations)


def csi_from_sionna(arrays: Mapping[str, Any], name: str = "scene", side: str = "transmitters") -> ImportedCsi:
    """Frequency responses from plain arrays in Sionna's shapes; right with and without a synthetic array.

    Args:
        arrays: ``cfr`` [Rx, rx antennas, Tx, tx antennas, time steps, N] of ``paths.cfr(..., normalize_delays=False)``
            (of several time steps the first is taken), ``frequencies`` [N] relative to the carrier ``frequency``;
            ``sources``, ``targets``, ``tx_elements``, ``tx_orientation`` (or those of ``rx``) and names as for
            ``paths_from_sionna``.
        name: of the scene.
        side: which devices are the base stations, ``transmitters`` or ``receivers``.

    Raises:
        ValueError: missing arrays, users with several antennas, elements that are no grid, and what ``ImportedCsi``
            refuses, delays that start at the first path among it.
    """
    one_of("side", side, SIDES)
    where = f"sionna {name}"
    down = side == "transmitters"
    bs = "tx" if down else "rx"
    wanted = ("cfr", "frequencies", "frequency", "sources", "targets", f"{bs}_elements", f"{bs}_orientation")
    missing = [key for key in wanted if key not in arrays]
    if missing:
        raise ValueError(
            f"{where}: {', '.join(missing)} missing; write the file with save_sionna(path, paths, scene, frequencies)"
        )
    got = {key: np.asarray(value) for key, value in arrays.items()}
    if got["cfr"].ndim != _RESPONSE_DIMENSIONS:
        raise ValueError(
            f"{where}: cfr has shape {got['cfr'].shape}; it must be [Rx, rx antennas, Tx, tx antennas, T, N]"
        )
    # The channel is reciprocal: which end sends is all the same.
    response = np.moveaxis(got["cfr"], (2, 3), (0, 1))[..., 0, :] if not down else got["cfr"][..., 0, :]
    if response.shape[1] != 1:
        raise ValueError(f"{where}: users have {response.shape[1]} antennas; trace with one (an array of 1 x 1)")
    carrier_hz = float(got["frequency"])
    order, shape, spacing = panel_of(got[f"{bs}_elements"], SPEED_OF_LIGHT_M_S / carrier_hz)
    csi = response[:, 0][:, :, order]
    places = got["sources" if down else "targets"].astype(np.float64)
    names = got.get(f"{bs}_names")
    return ImportedCsi(
        tool="sionna",
        name=name,
        csi=csi,
        positions_m=got["targets" if down else "sources"].astype(np.float64),
        bs_positions_m=places,
        bs_orientation_rad=got[f"{bs}_orientation"].astype(np.float64),
        valid=np.asarray((np.abs(csi) > 0).any(axis=(-1, -2))),
        frequencies_hz=carrier_hz + got["frequencies"].astype(np.float64),
        array_shape=shape,
        spacing_wavelengths=spacing,
        bs_names=tuple(f"bs_{i}" for i in range(len(places))) if names is None else tuple(str(n) for n in names),
    )


def _check_shapes(got: Mapping[str, np.ndarray], where: str) -> None:
    a, tau = got["a"], got["tau"]
    if a.ndim != _AMPLITUDE_DIMENSIONS:
        raise ValueError(f"{where}: a has shape {a.shape}; it must be [Rx, rx antennas, Tx, tx antennas, P]")
    synthetic = bool(got.get("synthetic_array", np.array(tau.ndim == _LINK_DIMENSIONS)))
    if not synthetic or tau.ndim != _LINK_DIMENSIONS:
        raise ValueError(
            f"{where}: traced with synthetic_array=False, whose coefficients hold no phase between elements; trace "
            f"with synthetic_array=True, or take paths.cfr(..., normalize_delays=False) and csi_from_sionna"
        )
    wanted = (a.shape[0], a.shape[2], a.shape[4])
    for name in ("tau", "valid", *_ANGLES):
        if got[name].shape != wanted:
            raise ValueError(f"{where}: {name} has shape {got[name].shape}; with this a it must be {wanted}")
    if got["interactions"].shape[1:] != wanted:
        raise ValueError(f"{where}: interactions has shape {got['interactions'].shape}; it must be [depth, *{wanted}]")


def _at_the_middle(
    amplitude: np.ndarray,
    valid: np.ndarray,
    zenith_rad: np.ndarray,
    azimuth_rad: np.ndarray,
    elements_m: np.ndarray | None,
    orientation_rad: np.ndarray | None,
    carrier_hz: float,
    where: str,
) -> np.ndarray:
    """[U, L, P] amplitude in the middle of the array, from those [U, L, A, P] of its elements."""
    antennas = amplitude.shape[2]
    if antennas == 1:
        return np.where(valid, amplitude[:, :, 0], 0.0)
    if elements_m is None or orientation_rad is None or len(elements_m) != antennas:
        raise ValueError(
            f"{where}: base stations have {antennas} elements; their places and the arrays' orientation are needed to "
            f"take the plane wave's phase out of a: write the file with save_sionna(path, paths, scene)"
        )
    sine = np.sin(zenith_rad)
    unit = np.stack((sine * np.cos(azimuth_rad), sine * np.sin(azimuth_rad), np.cos(zenith_rad)), axis=-1)
    places = np.einsum("lij,aj->lai", _rotations(orientation_rad), elements_m)
    turns = np.exp(2j * np.pi * carrier_hz / SPEED_OF_LIGHT_M_S * np.einsum("ulpi,lai->ulap", unit, places))
    middle = (amplitude * turns.conj()).mean(axis=2)
    off = np.abs(amplitude - middle[:, :, None] * turns).max(axis=2) > _PLANE_WAVE * np.abs(middle)
    if (off & valid).any():
        raise ValueError(
            f"{where}: on {int((off & valid).sum())} of {int(valid.sum())} paths the elements differ by more than a "
            f"plane wave's phase; arrays of two polarisations and orientations other than the traced ones are not read"
        )
    return np.where(valid, middle, 0.0)


def _rotations(orientation_rad: np.ndarray) -> np.ndarray:
    """[L, 3, 3] R_z(yaw) R_y(pitch) R_x(roll)."""
    (ca, cb, cc), (sa, sb, sc) = np.cos(orientation_rad).T, np.sin(orientation_rad).T
    rows = (
        (ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc),
        (sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc),
        (-sb, cb * sc, cb * cc),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
