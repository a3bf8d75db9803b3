"""Cases of file formats: right files whose text or bytes have been damaged, and what reads them."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from cfpos.agents import load_agent
from cfpos.baselines import Fingerprint, locate_ranges
from cfpos.scripts.fuzzing.cases import Case
from cfpos.scripts.fuzzing.games import finite
from cfpos_envs.checkpoints import read_checkpoint, write_checkpoint
from cfpos_envs.files.city_maps import read_map
from cfpos_envs.files.epochs import read_epochs, read_links
from cfpos_envs.files.positions import Positions
from cfpos_envs.files.sites import load_site
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.scenarios.dcp.config import DcpConfig

_APS = ((0.0, 0.0), (40.0, 0.0), (0.0, 40.0), (40.0, 40.0), (20.0, 2.0))
_NAMES = ("a", "b", "c", "d", "e")
_WRONG = (
    *("nan", "inf", "-inf", "1e999", "-1e9", "0", "", "None", "true", "x", "-1", "99999999999999999999", "[", "{", "'"),
    *("\x00", "\ufffd", "é", '"', ",,", "1,2", ": :", "- -", "&a *a", "!!python/object:os.system", "1e-320", "0x10"),
)


@dataclass(frozen=True)
class Format:
    """A kind of file: its ending, a right one, and what reads it; tensors that it gives have to be finite."""

    suffix: str
    content: Callable[[], bytes]
    read: Callable[[Path], Mapping[str, Any]]


def _site_yaml() -> bytes:
    rows = "\n".join(f"  - {{name: {n}, x_m: {x}, y_m: {y}}}" for n, (x, y) in zip(_NAMES, _APS, strict=True))
    return f"aps:\n{rows}\narea: [[0, 0], [40, 40]]\norigin: {{latitude: 48.1, longitude: 11.5}}\n".encode()


def _site_csv() -> bytes:
    rows = (f"{n},{x},{y},2.5\n" for n, (x, y) in zip(_NAMES, _APS, strict=True))
    return ("name,x_m,y_m,height_m\n" + "".join(rows)).encode()


def _site_geojson() -> bytes:
    parts = (
        f'{{"type": "Feature", "properties": {{"name": "{n}"}}, '
        f'"geometry": {{"type": "Point", "coordinates": [{11.5 + x * 1e-5}, {48.1 + y * 1e-5}]}}}}'
        for n, (x, y) in zip(_NAMES, _APS, strict=True)
    )
    return f'{{"type": "FeatureCollection", "features": [{", ".join(parts)}]}}'.encode()


def _ranges_csv() -> bytes:
    users = np.array([[12.0, 9.0], [30.0, 20.0], [5.0, 33.0]])
    away = np.linalg.norm(users[:, None] - np.array(_APS), axis=2).round(2)
    head = ",".join(f"range_{name}_m" for name in _NAMES)
    rows = "".join(f"{i},{','.join(map(str, row))}\n" for i, row in enumerate(away))
    return f"epoch,{head}\n{rows}".encode()


def _links_csv() -> bytes:
    rows = "".join(f"u,{t / 10},{name},{10 + t + i}\n" for t in range(4) for i, name in enumerate(_NAMES))
    return f"user,time_s,ap,range_m\n{rows}".encode()


def _survey_csv() -> bytes:
    places = [(float(x), float(y)) for x in range(0, 40, 8) for y in range(0, 40, 8)]
    levels = -40 - 20 * np.log10(1 + np.linalg.norm(np.array(places)[:, None] - np.array(_APS), axis=2))
    rows = "".join(f"{x},{y},{','.join(f'{v:.1f}' for v in row)}\n" for (x, y), row in zip(places, levels, strict=True))
    return ("x_m,y_m," + ",".join(f"rss_{name}" for name in _NAMES) + "\n" + rows).encode()


def _positions_csv() -> bytes:
    rows = "".join(f"0,{i},{i + 0.5},{2 * i},true,OK,{i},{2 * i + 0.25}\n" for i in range(5))
    return ("episode,user,x_m,y_m,valid,reason,truth_x_m,truth_y_m\n" + rows).encode()


@cache
def _csi_npz() -> bytes:
    rng = np.random.default_rng(0)
    shape = (6, 2, 4, 8)
    arrays: dict[str, Any] = {
        "csi": (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64),
        "positions_m": rng.uniform(0, 20, (6, 3)),
        "bs_positions_m": np.array([[0.0, 0.0, 5.0], [20.0, 20.0, 5.0]]),
        "bs_orientation_rad": np.zeros((2, 3)),
        "carrier_hz": 3.5e9,
        "subcarrier_spacing_hz": 240e3,
        "array_shape": np.array([2, 2]),
        "spacing_wavelengths": 0.5,
    }
    kept = io.BytesIO()
    np.savez(kept, **arrays)
    return kept.getvalue()


@cache
def _checkpoint() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        write_checkpoint(path, {"agent": {"name": "maddpg", "weights": torch.zeros(4)}, "step": 3})
        return path.read_bytes()


def _trained() -> bytes:
    return next(iter(sorted((Path(__file__).parents[2] / "agents/ecc/trained").glob("ecc-small.pt")))).read_bytes()


def _map_geojson() -> bytes:
    corners = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
    shape = f'{{"type": "Polygon", "coordinates": [{corners}]}}'
    feature = f'{{"type": "Feature", "properties": {{"height": 12}}, "geometry": {shape}}}'
    return f'{{"type": "FeatureCollection", "features": [{feature}]}}'.encode()


def _read_site(path: Path) -> dict[str, Any]:
    game = DcpConfig(site=str(path)).site_file
    assert game is not None
    return {"ap_positions_m": load_site(path).ap_positions_m, "in the game": game.ap_positions_m}


def _only(reader: Callable[[Path], object]) -> Callable[[Path], dict[str, Any]]:
    """A reader of what is not looked at any further."""

    def read(path: Path) -> dict[str, Any]:
        reader(path)
        return {}

    return read


def _located(path: Path) -> dict[str, Any]:
    epochs = read_epochs(path, _NAMES)
    found = locate_ranges(np.array(_APS), epochs.links["range"], 0.3, policy="toa-wls", on_bad="drop")
    return {"position": torch.as_tensor(found.position)}


def _surveyed(path: Path) -> dict[str, Any]:
    found = Fingerprint.from_csv(str(path)).locate(np.full((2, 5), -60.0))
    return {"position": torch.as_tensor(found.position)}


FORMATS = {
    "site.yaml": Format(".yaml", _site_yaml, _read_site),
    "site.csv": Format(".csv", _site_csv, _read_site),
    "site.geojson": Format(".geojson", _site_geojson, lambda path: {"ap": load_site(path).ap_positions_m}),
    "ranges.csv": Format(".csv", _ranges_csv, _located),
    "links.csv": Format(".csv", _links_csv, _only(lambda path: read_links(path, _NAMES))),
    "survey.csv": Format(".csv", _survey_csv, _surveyed),
    "positions.csv": Format(".csv", _positions_csv, _only(Positions.read)),
    "csi.npz": Format(".npz", _csi_npz, _only(read_csi)),
    "checkpoint.pt": Format(".pt", _checkpoint, _only(read_checkpoint)),
    "agent.pt": Format(".pt", _trained, _only(lambda path: load_agent(str(path), "ecc-urban-small-v0"))),
    "map.geojson": Format(".geojson", _map_geojson, _only(read_map)),
}


def read(name: str, content: bytes) -> bool:
    """Write a file and read it."""
    kind = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"given{kind.suffix}"
        path.write_bytes(content)
        found = kind.read(path)
    finite("the file", found)
    return True


Damage = Callable[[bytes], bytes]


def _damages() -> st.SearchStrategy[tuple[str, float, str]]:
    hows = st.sampled_from(["flip", "cut", "word", "number", "line", "double", "insert", "empty"])
    return st.tuples(hows, st.floats(0, 1, exclude_max=True), st.sampled_from(_WRONG))


def damaged(content: bytes, how: str, where: float, word: str) -> bytes:
    """The content with one thing wrong: a bit, the end, a word, a line."""
    at, given = int(where * len(content)), word.encode("utf-8", "surrogatepass")
    if how == "flip":
        return content[:at] + bytes([content[at] ^ (1 << (at % 8))]) + content[at + 1 :] if content else content
    if how == "cut":
        return content[:at]
    if how == "insert":
        return content[:at] + given + content[at:]
    if how == "empty":
        return b""
    if how in ("line", "double"):
        lines = content.split(b"\n")
        row = int(where * len(lines))
        return b"\n".join([*lines[:row], *([lines[row]] * (2 if how == "double" else 0)), *lines[row + 1 :]])
    begin = max(content.rfind(mark, 0, at) for mark in (b",", b" ", b"\n", b"[", b":")) + 1
    ends = [end for end in (content.find(mark, at + 1) for mark in (b",", b"\n", b"]", b"}", b":")) if end > 0]
    return content[:begin] + given + content[min(ends, default=len(content)) :]


def files() -> st.SearchStrategy[Case]:
    """One or two things wrong in a file of every format."""

    def of(drawn: tuple[str, list[tuple[str, float, str]]]) -> Case:
        name, damages = drawn
        content = FORMATS[name].content()
        for how, where, word in damages:
            content = damaged(content, how, where, word)
        said = "; ".join(f"{how} at {where:.3f} {word!r}" for how, where, word in damages)
        return Case("files", name, said, partial(read, name, content), ("given",))

    return st.tuples(st.sampled_from(list(FORMATS)), st.lists(_damages(), min_size=1, max_size=2)).map(of)
