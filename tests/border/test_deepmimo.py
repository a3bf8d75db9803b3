"""Scenarios of DeepMIMO, converted: the carrier's phase, the line of sight, interactions; what is refused."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.tracing.imported import write_imported
from cfpos_envs.channels.tracing.source import RaytracedSource
from cfpos_envs.channels.tracing.storage import load_users
from cfpos_envs.importers.deepmimo import paths_from_deepmimo, read_deepmimo
from cfpos_envs.importers.paths import detect_carrier_phase
from cfpos_envs.importers.sionna import paths_from_sionna
from tests.border.importer_data import (
    C_M_S,
    CARRIER_HZ,
    STATIONS_M,
    by_place,
    off,
    played,
    sionna_arrays,
    users,
    write_deepmimo,
)


def test_deepmimo_lacks_the_carriers_phase_and_gets_it(tmp_path: Path) -> None:
    traced = paths_from_sionna(sionna_arrays())
    write_deepmimo(tmp_path / "scene", traced)
    stations = dict(zip(traced.bs_names, traced.bs_positions_m.tolist()))
    read = read_deepmimo(tmp_path / "scene", stations=stations)
    assert read.bs_names == ("west", "east", "lamp")
    places, csi = played(dataclasses.replace(read, bs_orientation_rad=traced.bs_orientation_rad), tmp_path / "a", 7)
    again, right = played(traced, tmp_path / "b", 7)
    rows = by_place(again, places)
    assert off(csi, right[rows]) < 1e-3
    # Their own sum of the paths' coefficients has no turns of the carrier in it: the magnitude is off.
    lacking = np.abs(np.where(read.valid, read.amplitude, 0).sum(-1))
    turned = read.amplitude * np.exp(-2j * np.pi * read.carrier_hz * read.delay_s)
    holding = np.abs(np.where(read.valid, turned, 0).sum(-1))
    several = read.valid.sum(-1) > 1
    assert (np.abs(lacking - holding) / holding)[several].mean() > 0.1


def test_phases_that_hold_the_carriers_turns_are_told_and_taken_out(tmp_path: Path) -> None:
    traced = paths_from_sionna(sionna_arrays())
    held = np.angle(traced.amplitude * np.exp(-2j * np.pi * traced.carrier_hz * traced.delay_s))
    write_deepmimo(tmp_path / "scene", traced, held, raytracer_name="Remcom Wireless Insite")
    read = read_deepmimo(tmp_path / "scene").with_stations(dict(zip(traced.bs_names, traced.bs_positions_m.tolist())))
    assert np.abs(np.angle(read.amplitude[read.valid & (read.kind == 0)])).max() < 2e-3
    convention = detect_carrier_phase(
        traced.amplitude, traced.delay_s, traced.valid & (traced.kind == 0), traced.carrier_hz
    )
    assert convention == "absent"


def test_the_line_of_sight_need_not_be_the_strongest_path(tmp_path: Path) -> None:
    traced = paths_from_sionna(sionna_arrays())
    weak = np.where(traced.kind == 0, 0.01, 1.0) * traced.amplitude
    write_deepmimo(tmp_path / "scene", dataclasses.replace(traced, amplitude=weak))
    read = read_deepmimo(tmp_path / "scene")
    assert read.line_of_sight.all()
    assert "24 of 24 links with a line of sight it is not the strongest" in " ".join(read.notes).replace("on ", "")
    write_imported(read, tmp_path / "city", hold_out="random")
    settings = EccSceneConfig(source="raytraced", dataset=str(tmp_path / "city"), num_bs=3, num_paths=1)
    source = RaytracedSource(settings)
    assert source.line_of_sight(source.users("train")).all()


def deepmimo_links(count: int = 5) -> list[dict[str, np.ndarray]]:
    """Two transmitters, users in the open, one path each."""
    place = users(count)
    links = []
    for station in STATIONS_M[:2]:
        vector = place - station
        distance = np.linalg.norm(vector, axis=-1)
        azimuth, elevation = (
            np.degrees(np.arctan2(vector[:, 1], vector[:, 0])),
            np.degrees(np.arccos(vector[:, 2] / distance)),
        )
        column = {
            "power": -20 * np.log10(distance) - 43.0,
            "phase": np.zeros(count),
            "delay": distance / C_M_S,
            "aod_az": azimuth,
            "aod_el": elevation,
            "aoa_az": azimuth - 180,
            "aoa_el": 180 - elevation,
            "inter": np.zeros(count),
        }
        links.append(
            {key: value[:, None].copy() for key, value in column.items()} | {"rx_pos": place, "tx_pos": station}
        )
    return links


_TRACING = {"frequency": CARRIER_HZ, "raytracer_name": "Sionna Ray Tracing"}


@pytest.mark.parametrize(
    ("change", "tracing", "said"),
    [
        (lambda x: x[0]["delay"].__setitem__(0, -1.0), {}, r"deepmimo lab: delay_s is -1.*leave those out"),
        (lambda x: x[0].update(delay=x[0]["delay"] * 1e9), {}, r"delay_s .*nanoseconds"),
        (lambda x: x[0].update(aod_az=np.radians(x[0]["aod_az"])), {}, r"bs_azimuth_rad"),
        (lambda x: x[0].update(aod_el=90 - x[0]["aod_el"]), {}, r"bs_.*rad"),
        (lambda x: x[1].update(rx_pos=x[1]["rx_pos"] + 1), {}, r"receivers, others than the first one's"),
        (lambda x: x[1].update(phase=x[1]["phase"][:3]), {}, r"phase of the transmitter at .* has shape"),
        (
            lambda x: x[1]["phase"].__setitem__(slice(None), 90.0),
            {},
            r"cannot be told .*say carrier_phase=absent or present",
        ),
        (
            lambda x: None,
            {"raw_params": {"tx_array_num_ant": 8}},
            r"arrays of 8 elements, of which DeepMIMO kept the first",
        ),
        (
            lambda x: None,
            {"raw_params": {"tx_array_num_ant": 8}, "synthetic_array": False},
            r"every element of an array of 8 stands as a transmitter",
        ),
    ],
)
def test_what_deepmimo_data_cannot_be(
    change: Callable[[list[dict[str, np.ndarray]]], object], tracing: dict[str, object], said: str
) -> None:
    links = deepmimo_links()
    change(links)
    with pytest.raises(ValueError, match=said):
        paths_from_deepmimo(links, {**_TRACING, **tracing}, "lab")


def test_a_phase_that_cannot_be_told_is_asked_for() -> None:
    links = deepmimo_links(1)
    assert paths_from_deepmimo(links, _TRACING, "lab").valid.all()  # Sionna's: known
    other = {**_TRACING, "raytracer_name": "Remcom Wireless Insite"}
    with pytest.raises(ValueError, match="too few direct paths; say carrier_phase=absent or present"):
        paths_from_deepmimo(links, other, "lab")
    stated = paths_from_deepmimo(links, other, "lab", carrier_phase="present")
    expected = 2 * np.pi * CARRIER_HZ * links[0]["delay"][0, 0]
    assert np.angle(stated.amplitude[0, 0, 0] * np.exp(-1j * expected)) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(ValueError, match="did you mean absent"):
        paths_from_deepmimo(links, other, "lab", carrier_phase="absnt")


def test_links_at_deepmimos_limit_and_users_without_a_path_are_noted(tmp_path: Path) -> None:
    links = deepmimo_links()
    for link in links:
        for key, values in link.items():
            if key not in ("rx_pos", "tx_pos"):
                link[key] = np.repeat(values, 25, axis=1)
                link[key][0] = np.nan
    links[0]["power"][3, 20:] = np.nan
    paths = paths_from_deepmimo(links, _TRACING, "lab")
    assert "7 links have 25 paths, DeepMIMO's limit" in paths.notes[0]
    heard = paths.heard()
    assert len(heard.positions_m) == 4
    assert "1 of 5 users have no path" in heard.notes[-1]
    write_imported(paths, tmp_path / "city", hold_out="random", test_share=0.3)
    counts = [load_users(tmp_path / "city", split)[1].paths.num_users for split in ("train", "test")]
    assert counts == [3, 1]


@pytest.mark.parametrize(
    ("codes", "reflections", "kinds"),
    [([0, 1, 11], [0, 1, 2], [0, 1, 1]), ([2, 13, 4], [0, 1, 0], [4, 9, 2]), ([141], [2], [3])],
)
def test_interactions_are_read_digit_by_digit(codes: list[int], reflections: list[int], kinds: list[int]) -> None:
    links = deepmimo_links(len(codes))
    for link in links:
        link["inter"][:, 0] = codes
    paths = paths_from_deepmimo(links, _TRACING, "lab", carrier_phase="absent")
    assert paths.reflections[:, 0, 0].tolist() == reflections
    assert paths.kind[:, 0, 0].tolist() == kinds


def test_folders_that_are_no_scenarios_say_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no DeepMIMO 4 scenario folder: params.json cannot be read"):
        read_deepmimo(tmp_path)
    write_deepmimo(tmp_path / "scene", paths_from_sionna(sionna_arrays()))
    (tmp_path / "scene" / "phase_t000_tx001_r001.npz").unlink()
    with pytest.raises(ValueError, match=r"lacks phase_t000_tx001_r001.npz"):
        read_deepmimo(tmp_path / "scene")
    params = json.loads((tmp_path / "scene" / "params.json").read_text(encoding="utf-8"))
    params["scene"]["num_scenes"] = 3
    (tmp_path / "scene" / "params.json").write_text(json.dumps(params), encoding="utf-8")
    with pytest.raises(ValueError, match="holds 3 scenes"):
        read_deepmimo(tmp_path / "scene")


def test_pickles_in_scenarios_are_not_read(tmp_path: Path) -> None:
    write_deepmimo(tmp_path / "scene", paths_from_sionna(sionna_arrays()))
    np.savez(tmp_path / "scene" / "phase_t000_tx001_r001.npz", phase=np.array([{"code": 1}], dtype=object))
    with pytest.raises(ValueError, match=r"phase_t000_tx001_r001.npz is not readable"):
        read_deepmimo(tmp_path / "scene")


def test_the_real_deepmimo_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deepmimo = pytest.importorskip("deepmimo", reason="extra [deepmimo] is not installed")
    write_deepmimo(tmp_path / "deepmimo_scenarios" / "scene", paths_from_sionna(sionna_arrays()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["deepmimo.core.scene"].Scene, "from_data", lambda folder: None)  # buildings
    theirs = paths_from_deepmimo(deepmimo.load("scene"))
    ours = read_deepmimo(tmp_path / "deepmimo_scenarios" / "scene")
    for name, values in ours.fields().items():
        np.testing.assert_array_equal(getattr(theirs, name), values, err_msg=name)
    assert theirs.name == "scene"
