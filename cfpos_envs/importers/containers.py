"""Named arrays out of npz, HDF5 and MATLAB files, with axes and numbers as NumPy has them; nothing is executed."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cfpos_envs.extras import install_command

ENDINGS = (".npz", ".h5", ".hdf5", ".mat")
_HDF5 = b"\x89HDF"
_COMPLEX_PARTS = ({"real", "imag"}, {"r", "i"})
_MATLAB_CLASS = "MATLAB_class"


def load_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name.

    HDF5 files that MATLAB wrote (v7.3) have their axes in reverse, complex numbers as pairs (real, imag), text as
    numbers and lists of text as references; all this is undone. MATLAB drops trailing axes of length 1.

    Args:
        path: ``.npz`` (objects in it are refused), ``.h5``, ``.hdf5`` (extra ``hdf5``) or ``.mat`` (v7.3: extra
            ``hdf5``).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another ending, a damaged file, or a package that is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file")
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: files of arrays end in {', '.join(ENDINGS)}")
    if path.suffix == ".npz":
        return _npz(path)
    if path.read_bytes()[:4] == _HDF5 or _is_hdf5_with_header(path):
        return _hdf5(path)
    if path.suffix == ".mat":
        return _old_matlab(path)
    raise ValueError(f"{path}: not an HDF5 file")


def _is_hdf5_with_header(path: Path) -> bool:
    """Whether HDF5 begins after the text by which MATLAB v7.3 heads its files."""
    with path.open("rb") as file:
        file.seek(512)
        return file.read(4) == _HDF5


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: not an npz file of plain arrays ({error}); write it by numpy.savez without object arrays"
        ) from error


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{path}: HDF5 needs the package h5py; {install_command('hdf5')}") from error
    try:
        with h5py.File(path, "r") as file:
            return {name: _dataset(file, entry) for name, entry in file.items() if isinstance(entry, h5py.Dataset)}
    except OSError as error:
        raise ValueError(f"{path}: damaged HDF5 file ({error})") from error


def _dataset(file: Any, entry: Any) -> np.ndarray:
    """One array of an HDF5 file; those with MATLAB's mark are turned to what MATLAB showed."""
    kind = entry.attrs.get(_MATLAB_CLASS)
    if entry.dtype == object and kind is not None:
        return np.array([_text(file[reference][()]) for reference in np.ravel(entry[()], order="F")])
    if entry.dtype.kind == "O":
        return np.array([_decoded(cell) for cell in np.ravel(entry.asstr()[()])])
    values = joined_complex(np.asarray(entry[()]))
    if kind is None:
        return values
    if _decoded(kind) == "char":
        return np.array(_text(values))
    # A list of numbers is a matrix there; one of its two axes has length 1.
    turned = values.transpose()
    return turned.astype(bool) if _decoded(kind) == "logical" else turned


def joined_complex(values: np.ndarray) -> np.ndarray:
    """Complex numbers of pairs (real, imag) or (r, i); anything else as it is."""
    names = set(values.dtype.names or ())
    if names not in _COMPLEX_PARTS:
        return values
    real, imaginary = ("real", "imag") if "real" in names else ("r", "i")
    return np.asarray(values[real] + 1j * values[imaginary])


def _old_matlab(path: Path) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    try:
        stored: Mapping[str, Any] = loadmat(path)
    except (ValueError, OSError, TypeError, NotImplementedError) as error:
        raise ValueError(f"{path}: damaged MATLAB file ({error})") from error
    return {name: _plain(value) for name, value in stored.items() if not name.startswith("__")}


def _plain(value: Any) -> np.ndarray:
    """An array of an old MATLAB file; a cell array of text becomes one of text."""
    array = np.asarray(value)
    if array.dtype == object:
        return np.array(["".join(map(str, np.ravel(cell))) for cell in array.ravel(order="F")])
    return array


def _text(codes: np.ndarray) -> str:
    return "".join(chr(int(code)) for code in np.ravel(codes))


def _decoded(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
