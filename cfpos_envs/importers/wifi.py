"""CSI captures of Wi-Fi receivers through csiread: ESP32, Nexmon, Intel 5300; subcarriers ascending, sign as ours."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cfpos_envs.checks import one_of, whole
from cfpos_envs.extras import install_command
from cfpos_envs.importers.arrays import CsiFile
from cfpos_envs.measurements import ecc_arrays

TOOLS = ("esp32", "nexmon", "intel")
TONE_HZ = 312.5e3
CHIPS = ("4339", "43455c0", "4358", "4366c0")
BANDWIDTHS_MHZ = (20, 40, 80)
# Bins of the DFT -> the last tone that holds a channel, and the last one around the carrier that holds none.
_HELD = {64: (26, 0), 128: (58, 1), 256: (122, 1)}
_ESP32_PAIRS = 64
# Tones of which the Intel 5300 tells, by bandwidth; those of 20 MHz are not evenly spaced.
_INTEL_TONES = {20: (*range(-28, -1, 2), -1, *range(1, 28, 2), 28), 40: tuple(range(-58, 59, 4))}
_INTEL_GRID = {20: range(-28, 29, 2), 40: range(-58, 59, 4)}
_NEXMON_PACKET_BYTES = 60


@dataclass(frozen=True)
class WifiCapture:
    """What one receiver heard.

    Attributes:
        csi: [F, A, N] of F packets at A antennas; frames of nothing but zeros are left out.
        offsets_hz: [N] of the tones from the carrier, ascending and evenly spaced; tones that hold no channel around
            the carrier are interpolated, those at the edges left out.
        time_s: [F] on the receiver's clock.
    """

    csi: np.ndarray
    offsets_hz: np.ndarray
    time_s: np.ndarray

    def __len__(self) -> int:
        """Packets."""
        return len(self.csi)


def read_wifi(path: str | Path, tool: str, *, chip: str = CHIPS[1], bandwidth_mhz: int = 20) -> WifiCapture:
    """One capture of one receiver.

    Args:
        path: of the capture: CSV lines of the ESP32-CSI-Tool (other lines are passed over; of several training fields
            the legacy one is taken), a pcap of nexmon_csi, or a file of the Linux 802.11n CSI Tool.
        tool: one of ``TOOLS``.
        chip: of Nexmon, one of ``CHIPS``.
        bandwidth_mhz: of Nexmon and Intel: 20, 40 or (Nexmon) 80.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown tool, chip or bandwidth, no CSI in the file, or csiread is missing.
    """
    one_of("tool", tool, TOOLS)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    try:
        import csiread
    except ImportError as error:
        raise ValueError(f"{path}: Wi-Fi captures need the package csiread; {install_command('wifi')}") from error
    readers: dict[str, Callable[[], tuple[np.ndarray, np.ndarray, np.ndarray]]] = {
        "esp32": lambda: _esp32(csiread, Path(path)),
        "nexmon": lambda: _nexmon(csiread, Path(path), chip, bandwidth_mhz),
        "intel": lambda: _intel(csiread, Path(path), bandwidth_mhz),
    }
    csi, tones, time_s = readers[tool]()
    heard = (np.abs(csi) > 0).any(axis=(1, 2)) if len(csi) else np.zeros(0, bool)
    if not heard.any():
        raise ValueError(f"{path}: no CSI of {tool} in it; look at tool, chip and bandwidth_mhz")
    return WifiCapture(csi[heard].astype(np.complex64), tones * TONE_HZ, time_s[heard])


def wifi_snapshots(
    captures: Sequence[Sequence[WifiCapture | None]],
    positions_m: Any,
    bs_positions_m: Any,
    bs_orientation_rad: Any,
    carrier_hz: float,
    *,
    packets: int = 10,
    array_shape: tuple[int, int] | None = None,
    spacing_wavelengths: float = 0.5,
) -> CsiFile:
    """One snapshot per place out of captures, ready to ``write``: packets, evenly chosen, are its slots.

    Oscillators turn every packet by a phase of its own, as they do with slots; features average over both alike.

    Args:
        captures: [P][L], of every place at every receiver; None where it was not heard.
        positions_m: [P, 3] or [P, 2].
        bs_positions_m, bs_orientation_rad: [L, 3] of the receivers.
        carrier_hz: of the channel.
        packets: at most so many per snapshot, as many as the shortest capture has.
        array_shape, spacing_wavelengths: antennas of a receiver; None: one row.

    Raises:
        ValueError: no capture, or captures of different tones or antennas.
    """
    whole("packets", packets, 1)
    there = [capture for row in captures for capture in row if capture is not None]
    if not there:
        raise ValueError("captures holds no capture")
    antennas, tones = there[0].csi.shape[1:]
    for capture in there:
        if capture.csi.shape[1:] != (antennas, tones) or not np.array_equal(capture.offsets_hz, there[0].offsets_hz):
            raise ValueError(
                f"captures have {capture.csi.shape[1:]} and {(antennas, tones)} antennas and tones; take one tool, "
                "bandwidth and number of antennas"
            )
    slots = min(packets, *(len(capture) for capture in there))
    stations = len(bs_positions_m)
    csi = np.full((len(captures), stations, slots, antennas, tones), np.nan, np.complex64)
    for place, row in enumerate(captures):
        if len(row) != stations:
            raise ValueError(f"captures[{place}] has {len(row)} receivers; there are {stations} bs_positions_m")
        for station, found in enumerate(row):
            if found is not None:
                csi[place, station] = found.csi[np.linspace(0, len(found) - 1, slots).astype(int)]
    csi, valid = ecc_arrays.usable_links(csi, np.zeros(csi.shape, bool), None, "refuse")
    places = np.asarray(positions_m, float)
    if places.ndim == 2 and places.shape[1] == 2:
        places = np.pad(places, ((0, 0), (0, 1)))
    meanings = "(x, y, z) of every place", "(x, y, z) of every receiver"
    return CsiFile(
        path="captures",
        csi=csi,
        valid=valid,
        bs_positions_m=ecc_arrays.real_array("bs_positions_m", bs_positions_m, (stations, 3), meanings[1]),
        bs_orientation_rad=ecc_arrays.orientations(bs_orientation_rad, stations),
        positions_m=ecc_arrays.real_array("positions_m", places, (len(captures), 3), meanings[0]),
        carrier_hz=carrier_hz,
        subcarrier_spacing_hz=float(np.diff(there[0].offsets_hz).mean()),
        array_shape=array_shape or (1, antennas),
        spacing_wavelengths=spacing_wavelengths,
        element_positions_m=None,
        names=tuple(f"receiver {index}" for index in range(stations)),
    )


def held_tones(csi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tones that hold a channel, ascending, and their numbers; of [..., N] in the order of a DFT.

    Args:
        csi: N of 64, 128 or 256.
    """
    size = csi.shape[-1]
    edge, gap = _HELD[size]
    tones = np.arange(-edge, edge + 1)
    ascending = np.fft.fftshift(csi, axes=-1)[..., tones + size // 2]
    holding = np.abs(tones) > gap
    return _interpolated(ascending[..., holding], tones[holding], tones), tones


def _interpolated(csi: np.ndarray, tones: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[..., N] at other tones, linearly between neighbours."""
    right = np.clip(np.searchsorted(tones, wanted), 1, len(tones) - 1)
    share = (wanted - tones[right - 1]) / (tones[right] - tones[right - 1])
    return csi[..., right - 1] * (1 - share) + csi[..., right] * share


def _esp32(csiread: Any, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The tool writes the imaginary part first; csiread turns that."""
    parser = csiread.ESP32(None, False)
    rows, times = [], []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        # csiread cuts off the last two characters, whatever they are.
        record = line.strip().removesuffix("]").rstrip() + " ]"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            code = parser.pmsg(record) if record.startswith("CSI_DATA") else None
        if code is not None and parser.csi.shape[1] >= _ESP32_PAIRS:
            rows.append(parser.csi[0, :_ESP32_PAIRS])
            times.append(float(parser.local_timestamp[0]) * 1e-6)
    if not rows:
        return np.zeros((0, 1, 1), complex), np.zeros(1), np.zeros(0)
    csi, tones = held_tones(np.stack(rows))
    return csi[:, None], tones, np.array(times)


def _nexmon(csiread: Any, path: Path, chip: str, bandwidth_mhz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packets of one frame at several cores are its antennas; frames that miss one are left out."""
    one_of("chip", chip, CHIPS)
    if bandwidth_mhz not in BANDWIDTHS_MHZ:
        raise ValueError(f"bandwidth_mhz={bandwidth_mhz} of Nexmon must be one of {BANDWIDTHS_MHZ}")
    # csiread counts CSI packets and then stumbles over others behind the last of them; room for all packets helps.
    room = path.stat().st_size // _NEXMON_PACKET_BYTES + 2
    parser = csiread.NexmonPull46(str(path), chip=chip, bw=bandwidth_mhz, if_report=False, bufsize=room)
    parser.read()
    csi, tones = held_tones(parser.csi)
    time_s = parser.sec + parser.usec * (1e-9 if parser.nano else 1e-6)
    antenna = parser.core.astype(int) * 8 + parser.spatial.astype(int)
    kinds = np.unique(antenna)
    if len(kinds) < 2:
        return csi[:, None], tones, time_s
    starts = np.concatenate(([0], np.flatnonzero(np.diff(parser.seq.astype(int))) + 1, [len(csi)]))
    frames = [np.arange(low, high) for low, high in itertools.pairwise(starts)]
    whole_frames = [rows[np.argsort(antenna[rows])] for rows in frames if sorted(antenna[rows]) == kinds.tolist()]
    index = np.array(whole_frames, int).reshape(-1, len(kinds))
    return csi[index], tones, time_s[index[:, 0]] if len(index) else time_s[:0]


def _intel(csiread: Any, path: Path, bandwidth_mhz: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first stream at all antennas, in units of the receiver; 20 MHz on every second tone."""
    if bandwidth_mhz not in _INTEL_TONES:
        raise ValueError(f"bandwidth_mhz={bandwidth_mhz} of the Intel 5300 must be one of {tuple(_INTEL_TONES)}")
    parser = csiread.Intel(str(path), nrxnum=3, ntxnum=3, if_report=False)
    parser.read()
    antennas = int(parser.Nrx.max(initial=1))
    complete = parser.Nrx == antennas
    csi = parser.get_scaled_csi()[complete][:, :, :antennas, 0].transpose(0, 2, 1)
    tones, grid = np.array(_INTEL_TONES[bandwidth_mhz]), np.array(_INTEL_GRID[bandwidth_mhz])
    return _interpolated(csi, tones, grid), grid, parser.timestamp_low[complete] * 1e-6
