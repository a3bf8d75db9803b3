"""Nexmon CSI of one antenna at surveyed places, one of six access points per place: ``ref.npz`` and ``test.npz``.

Arrays ``iq`` int16 [n, 64, 2] (I and Q of the bins of a 64-point DFT, bin 0 first), ``position_m`` [n, 2], ``ap`` (MAC
addresses), ``rssi_dbm``, ``place``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfpos_envs.datasets.base import MeasuredSet, Recording, Source
from cfpos_envs.importers.arrays import CsiFile, scaled_to_rssi

SOURCE = Source(
    "CSI and RSSI for indoor navigation (EPIC, Colorado State University)",
    "https://github.com/EPIC-CSU/csi-rssi-dataset-indoor-nav",
    "BSD-3-Clause",
    "surveyed",
)
CARRIER_HZ, SPACING_HZ = 5.24e9, 312.5e3
BINS, LAST_TONE = 64, 26
"""Tones beyond the last one, and the carrier, hold no channel but marks of the capture that tell places apart."""
_FILES = ("ref.npz", "test.npz")
_ARRAYS = ("iq", "position_m", "ap", "rssi_dbm", "place")


def scenes(folder: Path) -> tuple[str, ...]:
    """One scene."""
    return ("all",) if all((folder / name).is_file() for name in _FILES) else ()


def load(folder: Path, scene: str) -> MeasuredSet:
    """Reference places train, test places test; tones that hold no channel are dropped, the others ascend.

    Raises:
        ValueError: missing arrays or another number of bins.
        OSError: a file cannot be read.
    """
    files = [_arrays(folder / name) for name in _FILES]
    names = tuple(sorted({str(ap) for arrays in files for ap in arrays["ap"]}))
    parts = [_recording(arrays, names) for arrays in files]
    return MeasuredSet(
        name="epic/all",
        source=SOURCE,
        ap_names=names,
        ap_positions_m=None,
        user_height_m=None,
        range_std_m=None,
        train=parts[0],
        test=parts[1],
        csi_hz=(CARRIER_HZ, SPACING_HZ),
    )


def holds_captures(path: Path) -> bool:
    """Whether a file has the arrays of this layout."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    with np.load(path, allow_pickle=False) as file:
        return set(_ARRAYS) <= set(file.files)


def csi_files(*paths: Path) -> tuple[CsiFile, ...]:
    """Files of captures with the access points of all of them, scaled to their RSSI.

    Raises:
        ValueError: as ``load``.
        OSError: a file cannot be read.
    """
    files = [_arrays(path) for path in paths]
    names = tuple(sorted({str(ap) for arrays in files for ap in arrays["ap"]}))
    parts = [_recording(arrays, names) for arrays in files]
    places = np.concatenate([part.truth_m for part in parts])
    area = np.array([[*places.min(axis=0) - 1.0, -1.0], [*places.max(axis=0) + 1.0, 1.0]])
    found = []
    for path, part in zip(paths, parts):
        assert part.csi is not None
        assert part.rss_dbm is not None
        csi, valid = part.csi[:, :, None, None], np.isfinite(part.rss_dbm)
        scaled = np.where(valid[..., None, None, None], scaled_to_rssi(csi, valid, part.rss_dbm), 0.0)
        nowhere = np.zeros((len(names), 3))
        found.append(
            CsiFile(
                path=str(path),
                csi=scaled.astype(np.complex64),
                valid=valid,
                bs_positions_m=nowhere,
                bs_orientation_rad=nowhere,
                positions_m=np.concatenate((part.truth_m, np.zeros((len(part), 1))), axis=1),
                carrier_hz=CARRIER_HZ,
                subcarrier_spacing_hz=SPACING_HZ,
                array_shape=(1, 1),
                spacing_wavelengths=0.5,
                element_positions_m=None,
                names=names,
                group=part.group,
                area_m=area,
            )
        )
    return tuple(found)


def channel_bins() -> np.ndarray:
    """Bins of the DFT that hold a channel, by ascending frequency: tones -26 to 26 without 0."""
    tones = np.r_[-LAST_TONE:0, 1 : LAST_TONE + 1]
    return tones % BINS


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        lacking = [name for name in _ARRAYS if name not in file]
        if lacking:
            raise ValueError(f"{path.name} lacks the array {lacking[0]}. It has: {', '.join(file.files)}")
        arrays = {name: file[name] for name in _ARRAYS}
    if arrays["iq"].ndim != 3 or arrays["iq"].shape[1:] != (BINS, 2):
        raise ValueError(f"{path.name}: iq has shape {arrays['iq'].shape}; it must be [n, {BINS}, 2]")
    return arrays


def _recording(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> Recording:
    bins = arrays["iq"][:, channel_bins()].astype(np.float64)
    row, ap = np.arange(len(bins)), np.array([names.index(str(name)) for name in arrays["ap"]])
    csi = np.full((len(bins), len(names), bins.shape[1]), complex(np.nan, np.nan))
    csi[row, ap] = bins[..., 0] + 1j * bins[..., 1]
    rss_dbm = np.full((len(bins), len(names)), np.nan)
    rss_dbm[row, ap] = arrays["rssi_dbm"]
    return Recording(
        truth_m=arrays["position_m"].astype(np.float64),
        group=arrays["place"].astype(str),
        user=np.full(len(bins), "0"),
        rss_dbm=rss_dbm,
        csi=csi,
    )
