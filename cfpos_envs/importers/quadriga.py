"""Channels of QuaDRiGa in its HDF5 format, which quadriga-lib and the MATLAB toolbox write.

What differs from ours, and is converted: coefficients hold exp(-j 2 pi f_c tau) with the length of the way to each
element; delays are relative to the straight line between the arrays' centres unless asked for otherwise, so that half
of the elements have negative ones (refused until stated); elements run up the columns, bottom first; the frequencies of
``baseband_freq_response`` end at the bandwidth itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfpos_envs.checks import one_of
from cfpos_envs.extras import install_command
from cfpos_envs.importers.csi import ImportedCsi
from cfpos_envs.importers.path_checks import REFLECTED
from cfpos_envs.importers.paths import ImportedPaths, carrier_turn
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

SIDES = ("transmitters", "receivers")
DELAYS = ("absolute", "relative")
"""``relative``: to the straight line between the arrays' centres, quadriga-lib's ``use_absolute_delays=False``."""
_DIRECT_M = 0.01
_SAME_PLACE_DIGITS = 3


def baseband_frequencies_hz(bandwidth_hz: float, carriers: int) -> np.ndarray:
    """Frequencies above the carrier of ``baseband_freq_response``: 0 to B, both included, B / (N - 1) apart.

    Args:
        bandwidth_hz: B.
        carriers: N, at least 2.
    """
    return np.linspace(0.0, bandwidth_hz, carriers)


def read_quadriga(path: str | Path) -> list[dict[str, Any]]:
    """The channels of an HDF5 file, as quadriga-lib gives them.

    Args:
        path: of the file.

    Raises:
        ValueError: quadriga-lib is missing, or this is no such file.
    """
    try:
        import quadriga_lib
    except ImportError:
        raise ValueError(f"reading {path} needs quadriga-lib; run: {install_command('quadriga')}") from None
    if not Path(path).is_file():
        raise ValueError(f"{path} is not there")
    try:
        channels, _ = quadriga_lib.channel.hdf5_read_channel(str(path))
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path} is no HDF5 file of QuaDRiGa channels ({error})") from None
    return [channel for channel in channels if channel and "coeff" in channel]


def paths_from_quadriga(
    channels: Sequence[Mapping[str, Any]],
    name: str = "channels",
    side: str = "transmitters",
    delays: str = "absolute",
    stations: Mapping[str, Sequence[float]] | None = None,
) -> ImportedPaths:
    """Paths of channels between single elements.

    Args:
        channels: each with ``rx_position``, ``tx_position`` [3, S], and for every one of S snapshots ``coeff``
            [rx elements, tx elements, P] complex, ``delay`` (same shape or [1, 1, P], seconds) and ``path_angles``
            [P, 4] (departure azimuth and elevation, arrival azimuth and elevation, radians); ``center_frequency`` in
            hertz. The same place is the same user or base station.
        name: of the scenario.
        side: which end is the base stations, ``transmitters`` or ``receivers``.
        delays: ``absolute``, or ``relative`` to the straight line.
        stations: name -> (x, y, z): names and order of the base stations; None: numbered as they come.

    Raises:
        ValueError: several elements, no angles, negative delays, and what ``ImportedPaths`` refuses.
    """
    links = _Links.of(channels, name, side, delays)
    if links.elements != 1:
        raise ValueError(
            f"quadriga {name}: base stations have {links.elements} elements; paths are read of arrays of one; of "
            f"larger ones take the frequency response (csi_from_quadriga, --out FILE.npz)"
        )
    width = max(coeff.shape[-1] for coeff in links.coeff.values())
    shape = (len(links.users), len(links.stations), width)
    valid, amplitude = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=np.complex128)
    delay, angles = np.zeros(shape), np.zeros((*shape, 4))
    for at, coeff in links.coeff.items():
        count = coeff.shape[-1]
        if at not in links.angles:
            raise ValueError(f"quadriga {name}: path_angles are missing; write the channels with them")
        valid[at][:count] = np.abs(coeff[0]) > 0
        amplitude[at][:count] = coeff[0] * carrier_turn(links.delay_s[at][0], links.carrier_hz).conj()
        delay[at][:count], angles[at][:count] = links.delay_s[at][0], links.angles[at]
    bs, ue = (angles[..., :2], angles[..., 2:]) if side == "transmitters" else (angles[..., 2:], angles[..., :2])
    distance = np.linalg.norm(links.users[:, None] - links.stations[None], axis=-1)
    direct = np.abs(SPEED_OF_LIGHT_M_S * delay - distance[..., None]) < _DIRECT_M
    found = ImportedPaths(
        tool="quadriga",
        name=name,
        carrier_hz=links.carrier_hz,
        positions_m=links.users,
        bs_positions_m=links.stations,
        bs_names=tuple(f"bs_{index}" for index in range(len(links.stations))),
        valid=valid,
        amplitude=np.where(valid, amplitude, 0.0),
        delay_s=np.where(valid, delay, 0.0),
        bs_azimuth_rad=bs[..., 0],
        bs_zenith_rad=np.pi / 2 - bs[..., 1],
        ue_azimuth_rad=ue[..., 0],
        ue_zenith_rad=np.pi / 2 - ue[..., 1],
        # The channel does not say what a path has met.
        reflections=np.where(direct, 0, 1),
        kind=np.where(direct, 0, REFLECTED),
    )
    return found if stations is None else found.with_stations(stations)


def csi_from_quadriga(
    channels: Sequence[Mapping[str, Any]],
    array_shape: tuple[int, int],
    num_subcarriers: int,
    subcarrier_spacing_hz: float,
    name: str = "channels",
    side: str = "transmitters",
    delays: str = "absolute",
    spacing_wavelengths: float = 0.5,
) -> ImportedCsi:
    """Frequency responses of channels with planar arrays, on a comb that is symmetric around the carrier.

    Computed from coefficients and delays, not by ``baseband_freq_response``, whose comb is 0 ... B, both included
    (``baseband_frequencies_hz``).

    Args:
        channels, name, side, delays: see ``paths_from_quadriga``; users have one element.
        array_shape: (rows M, columns N) of the base stations' arrays, as given to ``arrayant.generate``.
        num_subcarriers: at least 2.
        subcarrier_spacing_hz: between them.
        spacing_wavelengths: between elements.

    Raises:
        ValueError: another number of elements, negative delays, and what ``ImportedCsi`` refuses.
    """
    links = _Links.of(channels, name, side, delays)
    rows, columns = array_shape
    if links.elements != rows * columns:
        raise ValueError(f"quadriga {name}: base stations have {links.elements} elements, not {rows} x {columns}")
    offsets = (np.arange(num_subcarriers) - 0.5 * (num_subcarriers - 1)) * subcarrier_spacing_hz
    csi = np.zeros((len(links.users), len(links.stations), rows * columns, num_subcarriers), dtype=np.complex128)
    # Theirs run up the columns, bottom first; ours along the rows.
    order = np.arange(rows * columns).reshape(columns, rows).T.reshape(-1)
    for at, coeff in links.coeff.items():
        tones = np.exp(-2j * np.pi * links.delay_s[at][..., None] * offsets)
        csi[at] = np.einsum("ap,apn->an", coeff, tones)[order]
    return ImportedCsi(
        tool="quadriga",
        name=name,
        csi=csi,
        positions_m=links.users,
        bs_positions_m=links.stations,
        bs_orientation_rad=links.orientation_rad,
        valid=np.asarray((np.abs(csi) > 0).any(axis=(-1, -2))),
        frequencies_hz=links.carrier_hz + offsets,
        array_shape=array_shape,
        spacing_wavelengths=spacing_wavelengths,
        bs_names=tuple(f"bs_{index}" for index in range(len(links.stations))),
    )


@dataclass(frozen=True)
class _Links:
    """Channels sorted by user and base station.

    Attributes:
        users, stations, orientation_rad: [U, 3], [L, 3], [L, 3] (yaw, pitch, roll).
        elements: of every base station.
        carrier_hz: of all channels.
        coeff, delay_s, angles: (u, l) -> [A, P], [A, P], [P, 4]; delays absolute.
    """

    users: np.ndarray
    stations: np.ndarray
    orientation_rad: np.ndarray
    elements: int
    carrier_hz: float
    coeff: dict[tuple[int, int], np.ndarray]
    delay_s: dict[tuple[int, int], np.ndarray]
    angles: dict[tuple[int, int], np.ndarray]

    @classmethod
    def of(cls, channels: Sequence[Mapping[str, Any]], name: str, side: str, delays: str) -> _Links:
        one_of("side", side, SIDES)
        one_of("delays", delays, DELAYS)
        where = f"quadriga {name}"
        bs, ue = ("tx", "rx") if side == "transmitters" else ("rx", "tx")
        users, stations, turned = _Places(), _Places(), {}
        coeff, delay, angles = {}, {}, {}
        carriers, elements = set(), set()
        for channel, snapshot in _snapshots(channels, where):
            user = users.number(_column(channel[f"{ue}_position"], snapshot))
            station = stations.number(_column(channel[f"{bs}_position"], snapshot))
            turned[station] = _column(channel.get(f"{bs}_orientation", np.zeros((3, 1))), snapshot)
            at = (user, station)
            if at in coeff:
                raise ValueError(f"{where}: two channels between the same places (user {user}, base station {station})")
            coeff[at], delay[at] = _per_element(channel, snapshot, side, where)
            if "path_angles" in channel:
                angles[at] = np.asarray(channel["path_angles"][snapshot])
            elements.add(len(coeff[at]))
            carriers.update(np.unique(np.asarray(channel["center_frequency"])).tolist())
        if len(carriers) != 1 or len(elements) != 1:
            raise ValueError(
                f"{where}: all channels must have one carrier and equally many elements, found {sorted(carriers)} Hz "
                f"and {sorted(elements)} elements"
            )
        places, bases = users.table(), stations.table()
        for (user, station), tau in delay.items():
            if delays == "relative":
                tau += np.linalg.norm(places[user] - bases[station]) / SPEED_OF_LIGHT_M_S
            if (tau < 0).any():
                raise ValueError(
                    f"{where}: delay is {tau.min():.3g} s between user {user} and base station {station}; delays "
                    f"are relative to the straight line unless computed with use_absolute_delays=True: say "
                    f"delays=relative"
                )
        orientation = np.array([_yaw_pitch_roll(turned[index]) for index in range(len(bases))])
        return cls(places, bases, orientation, elements.pop(), carriers.pop(), coeff, delay, angles)


class _Places:
    """Places numbered as they come; the same place to a millimetre has the same number."""

    def __init__(self) -> None:
        self._known: dict[tuple[float, ...], int] = {}
        self._rows: list[np.ndarray] = []

    def number(self, place_m: np.ndarray) -> int:
        key = tuple(np.round(place_m, _SAME_PLACE_DIGITS))
        if key not in self._known:
            self._known[key] = len(self._rows)
            self._rows.append(place_m)
        return self._known[key]

    def table(self) -> np.ndarray:
        return np.array(self._rows)


def _snapshots(channels: Sequence[Mapping[str, Any]], where: str) -> Iterable[tuple[Mapping[str, Any], int]]:
    found = [(channel, index) for channel in channels for index in range(len(channel.get("coeff", ())))]
    if not found:
        raise ValueError(f"{where}: there are no channels with coefficients")
    for channel, _ in found:
        lacking = [key for key in ("rx_position", "tx_position", "delay", "center_frequency") if key not in channel]
        if lacking:
            raise ValueError(f"{where}: a channel lacks {', '.join(lacking)}")
    return found


def _column(table: Any, snapshot: int) -> np.ndarray:
    """[3] of [3, S] or [3, 1]."""
    columns = np.asarray(table, dtype=np.float64).reshape(3, -1)
    return columns[:, min(snapshot, columns.shape[1] - 1)]


def _per_element(channel: Mapping[str, Any], snapshot: int, side: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """[A, P] coefficients and delays of the base station's elements."""
    coeff = np.asarray(channel["coeff"][snapshot])
    delay = np.broadcast_to(np.asarray(channel["delay"][snapshot], dtype=np.float64), coeff.shape)
    if side == "receivers":
        coeff, delay = np.swapaxes(coeff, 0, 1), np.swapaxes(delay, 0, 1)
    if len(coeff) != 1:
        raise ValueError(f"{where}: users have {len(coeff)} elements; compute the channels with one")
    for label, values in (("coeff", coeff), ("delay", delay)):
        if not np.isfinite(values).all():
            raise ValueError(f"{where}: {label} holds NaN or infinite entries")
    return coeff[0], delay[0].copy()


def _yaw_pitch_roll(orientation_rad: np.ndarray) -> np.ndarray:
    """QuaDRiGa gives (bank, tilt, heading) with tilt upwards; a positive pitch of ours points downwards."""
    bank, tilt, heading = orientation_rad
    return np.array([heading, -tilt, bank])
