"""DeepMIMO 4 scenarios: the folder on disk, or the object that ``deepmimo.load`` returns.

What differs from ours, and is converted: angles in degrees, powers in decibels; phases that lack exp(-j 2 pi f_c tau)
where the scenario came from Sionna RT; a line of sight that is there only if it is the strongest path; stations sorted
by x, y, z without names; NaN where there is no path; at most 25 paths per link.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

from cfpos_envs.checks import one_of
from cfpos_envs.importers.path_checks import DIFFRACTED, REFLECTED, REFRACTED, SCATTERED
from cfpos_envs.importers.paths import CARRIER_PHASES, ImportedPaths, carrier_turn, detect_carrier_phase

MOST_PATHS = 25
"""DeepMIMO's converters keep so many paths of a link, Sionna's the first that the tracer found, not the strongest."""

_PER_PATH = ("power", "phase", "delay", "aoa_az", "aoa_el", "aod_az", "aod_el", "inter")
_PLACES = ("rx_pos", "tx_pos")
_KINDS = {1: REFLECTED, 2: DIFFRACTED, 3: SCATTERED, 4: REFRACTED}
_EXACT_CODE = 2**24
_SUFFIXES = (".mat", ".npz", ".npy")
_FILE = re.compile(r"tx_pos_t(\d+)_tx(\d+)_r(\d+)\.(?:mat|npz|npy)")


def read_deepmimo(
    folder: str | Path, carrier_phase: str = "auto", stations: Mapping[str, Sequence[float]] | None = None
) -> ImportedPaths:
    """The paths of a scenario folder (``params.json`` and one array file per quantity and transmitter).

    The folder is read without the package: its loader lower-cases paths, looks for the parameters of a folder
    elsewhere, and asks at the keyboard. Receivers that are also transmitters (links between base stations) are left
    out.

    Args:
        folder: of the scenario.
        carrier_phase, stations: see ``paths_from_deepmimo``.

    Raises:
        ValueError: no scenario there, one that changes over time, or anything ``paths_from_deepmimo`` refuses.
    """
    folder = Path(folder)
    try:
        params = json.loads((folder / "params.json").read_text(encoding="utf-8"))
        scenes, ray_tracing = params["scene"]["num_scenes"], params["rt_params"]
        sets = {entry["id"]: entry for entry in params["txrx_sets"].values()}
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{folder} is no DeepMIMO 4 scenario folder: params.json cannot be read ({error})") from None
    if scenes > 1:
        raise ValueError(f"{folder} holds {scenes} scenes; convert one of its folders, with its own params.json")
    found = sorted(match.groups() for path in folder.iterdir() if (match := _FILE.fullmatch(path.name)))
    if not found:
        raise ValueError(f"{folder} has no file tx_pos_t000_tx000_r001.npz or alike: there are no links in it")
    links = []
    for transmitters, number, receivers in found:
        if sets.get(int(receivers), {}).get("is_tx", False):
            continue
        mark = f"t{transmitters}_tx{number}_r{receivers}"
        links.append({key: _array(folder, f"{key}_{mark}", key) for key in (*_PER_PATH, *_PLACES)})
    return paths_from_deepmimo(links, ray_tracing, folder.name, carrier_phase, stations)


def paths_from_deepmimo(
    data: Any,
    ray_tracing: Mapping[str, Any] | None = None,
    name: str | None = None,
    carrier_phase: str = "auto",
    stations: Mapping[str, Sequence[float]] | None = None,
) -> ImportedPaths:
    """The paths of what ``deepmimo.load`` returns, or of plain arrays.

    Args:
        data: a ``Dataset``, a ``MacroDataset``, or mappings with ``rx_pos`` [U, 3], ``tx_pos`` [3], and [U, P]
            ``power`` (dB), ``phase`` (degrees), ``delay`` (s), ``aoa_az``, ``aoa_el``, ``aod_az``, ``aod_el`` (degrees,
            elevations from the z axis), ``inter`` (digits of interactions, 0: line of sight); NaN where there is no
            path. One per transmitter, or several with receivers of their own for each. Transmitters are the base
            stations.
        ray_tracing: ``frequency`` in hertz, and ``raytracer_name``; None: those of ``data``.
        name: of the scenario; None: that of ``data``.
        carrier_phase: whether phases hold exp(-j 2 pi f_c tau): ``absent`` (from Sionna RT), ``present``, or ``auto``:
            told from the direct paths.
        stations: name -> (x, y, z): names and order of the base stations; None: numbered as they come.

    Raises:
        ValueError: links that do not fit each other, a phase that cannot be told, arrays on one side that were
            collapsed to one element, and what ``ImportedPaths`` refuses.
    """
    one_of("carrier_phase", carrier_phase, CARRIER_PHASES)
    parts = [data] if _is_link(data) else list(getattr(data, "datasets", data))
    if not parts:
        raise ValueError("there are no links in this DeepMIMO data")
    ray_tracing = parts[0]["rt_params"] if ray_tracing is None else ray_tracing
    name = str(parts[0]["name"]) if name is None else name
    carrier_hz = float(ray_tracing["frequency"])
    places, columns = _by_station(parts, name)
    width = max(column["power"].shape[1] for column in columns)
    table = {key: np.stack([_padded(column[key], width) for column in columns], axis=1) for key in _PER_PATH}
    valid = np.isfinite(table["power"])
    filled = {key: np.where(valid, values, 0.0) for key, values in table.items()}
    direct = valid & (filled["inter"] == 0)
    amplitude = np.where(valid, 10 ** (filled["power"] / 20) * np.exp(1j * np.radians(filled["phase"])), 0.0)
    if _phase(carrier_phase, amplitude, filled["delay"], direct, ray_tracing, name) == "present":
        amplitude = amplitude * carrier_turn(filled["delay"], carrier_hz).conj()
    reflections, kind = _interactions(filled["inter"])
    full = int((valid.sum(axis=-1) >= MOST_PATHS).sum())
    notes = (
        [f"{full} links have {MOST_PATHS} paths, DeepMIMO's limit: weaker or stronger ones may be missing there"]
        if full
        else []
    )
    lit = int(direct.any(axis=-1).sum())
    strongest = int(
        (direct & (np.arange(width) == np.argmax(np.abs(amplitude), axis=-1)[..., None])).any(axis=-1).sum()
    )
    if lit > strongest:
        notes.append(f"on {lit - strongest} of {lit} links with a line of sight it is not the strongest path")
    found = ImportedPaths(
        tool="deepmimo",
        name=name,
        carrier_hz=carrier_hz,
        positions_m=columns[0]["rx_pos"],
        bs_positions_m=np.array(places),
        bs_names=tuple(f"tx_{index}" for index in range(len(places))),
        valid=valid,
        amplitude=amplitude,
        delay_s=filled["delay"],
        bs_azimuth_rad=np.radians(filled["aod_az"]),
        bs_zenith_rad=np.radians(filled["aod_el"]),
        ue_azimuth_rad=np.radians(filled["aoa_az"]),
        ue_zenith_rad=np.radians(filled["aoa_el"]),
        reflections=reflections,
        kind=kind,
        notes=tuple(notes),
    )
    return found if stations is None else found.with_stations(stations)


def _is_link(data: Any) -> bool:
    return isinstance(data, Mapping) or (hasattr(data, "rx_pos") and not hasattr(data, "datasets"))


def _array(folder: Path, stem: str, key: str) -> np.ndarray:
    for suffix in _SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if not path.is_file():
            continue
        try:
            if suffix == ".mat":
                from scipy.io import loadmat

                return np.asarray(loadmat(path)[key])
            loaded = np.load(path, allow_pickle=False)
            return cast(np.ndarray, loaded if suffix == ".npy" else loaded[key])
        except (OSError, KeyError, ValueError, BadZipFile, EOFError, NotImplementedError) as error:
            raise ValueError(f"{path} is not readable ({error})") from None
    raise ValueError(f"{folder} lacks {stem}{_SUFFIXES[1]} (or .mat, .npy); convert the scenario with DeepMIMO 4")


def _by_station(parts: Iterable[Any], name: str) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]]]:
    """Positions of the transmitters, and for each the arrays of all its receivers one set after another."""
    grouped: dict[tuple[float, ...], list[dict[str, np.ndarray]]] = {}
    for part in parts:
        arrays = {key: np.asarray(part[key], dtype=np.float64) for key in (*_PER_PATH, *_PLACES)}
        place = tuple(np.round(arrays.pop("tx_pos").reshape(-1), 6))
        shape = arrays["power"].shape
        for key in _PER_PATH:
            if arrays[key].shape != shape or len(shape) != 2 or len(arrays["rx_pos"]) != shape[0]:
                raise ValueError(
                    f"deepmimo {name}: {key} of the transmitter at {place} has shape {arrays[key].shape}, power "
                    f"{shape} and rx_pos {arrays['rx_pos'].shape}; they must be [users, paths] and [users, 3]"
                )
        grouped.setdefault(place, []).append(arrays)
    columns = [_joined(sets) for sets in grouped.values()]
    for place, column in zip(grouped, columns):
        if not np.array_equal(column["rx_pos"], columns[0]["rx_pos"]):
            raise ValueError(
                f"deepmimo {name}: the transmitter at {place} has {len(column['rx_pos'])} receivers, others than the "
                f"first one's {len(columns[0]['rx_pos'])}; trace all transmitters for the same receivers"
            )
    return [np.array(place) for place in grouped], columns


def _joined(sets: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    width = max(arrays["power"].shape[1] for arrays in sets)
    joined = {key: np.concatenate([_padded(arrays[key], width) for arrays in sets]) for key in _PER_PATH}
    return {**joined, "rx_pos": np.concatenate([arrays["rx_pos"] for arrays in sets])}


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=np.nan)


def _check_elements(ray_tracing: Mapping[str, Any], stated: str, name: str) -> None:
    """Refuse what was traced with several elements: DeepMIMO keeps the phase of the first one alone."""
    raw = ray_tracing.get("raw_params") or {}
    most = max(int(np.max(raw.get(f"{side}_array_num_ant", 1))) for side in ("tx", "rx"))
    if most > 1 and not ray_tracing.get("synthetic_array", True):
        raise ValueError(
            f"deepmimo {name}: traced with synthetic_array=False, every element of an array of {most} stands as a "
            f"transmitter of its own; export it again from a scene with arrays of one element"
        )
    if most > 1 and stated == "auto":
        raise ValueError(
            f"deepmimo {name}: traced with arrays of {most} elements, of which DeepMIMO kept the first one's phase; "
            f"export it again from a scene with arrays of one element. carrier_phase=absent takes it all the same, as "
            f"if the arrays stood where their first element is"
        )


def _phase(
    stated: str,
    amplitude: np.ndarray,
    delay_s: np.ndarray,
    direct: np.ndarray,
    ray_tracing: Mapping[str, Any],
    name: str,
) -> str:
    """``absent`` or ``present``, as stated or as the direct paths tell."""
    _check_elements(ray_tracing, stated, name)
    if stated != "auto":
        return stated
    convention = detect_carrier_phase(amplitude, delay_s, direct, float(ray_tracing["frequency"]))
    if convention in ("absent", "present"):
        return str(convention)
    tracer = str(ray_tracing.get("raytracer_name", "an unknown ray tracer"))
    if convention is None and "sionna" in tracer.lower():
        return "absent"
    why = (
        "there are too few direct paths"
        if convention is None
        else "phases of direct paths are neither equal nor those of their delays"
    )
    raise ValueError(
        f"deepmimo {name}: it cannot be told whether phases from {tracer} hold exp(-j 2 pi f_c tau), {why}; say "
        f"carrier_phase=absent or present"
    )


def _interactions(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of reflections and flags of interaction codes, one decimal digit per interaction."""
    # Codes are stored as 32-bit floats: of longer ones only the number of digits is right.
    whole = np.where(codes < _EXACT_CODE, codes, 0).astype(np.int64)
    reflections, kind = np.zeros_like(whole), np.zeros_like(whole)
    while whole.any():
        digit = whole % 10
        reflections += digit == 1
        for code, flag in _KINDS.items():
            kind |= np.where(digit == code, flag, 0)
        whole //= 10
    long = codes >= _EXACT_CODE
    digits = np.floor(np.log10(np.maximum(codes, 1.0))).astype(np.int64) + 1
    return np.where(long, digits, reflections), np.where(long, REFLECTED, kind)
