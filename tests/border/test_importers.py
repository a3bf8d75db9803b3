"""Channels of other tools, converted, are those of this suite's own synthesis; what cannot be converted is refused."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.ecc.music import Music3d
from cfpos_envs import make_env
from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.tracing.imported import held_out, imported_summary, write_imported
from cfpos_envs.channels.tracing.source import RaytracedSource
from cfpos_envs.channels.tracing.storage import DatasetError, load_users
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.importers.csi import ImportedCsi, panel_of, told_delays
from cfpos_envs.importers.deepmimo import paths_from_deepmimo, read_deepmimo
from cfpos_envs.importers.paths import ImportedPaths, told_carrier_phase
from cfpos_envs.importers.quadriga import baseband_frequencies_hz, csi_from_quadriga, paths_from_quadriga, read_quadriga
from cfpos_envs.importers.sionna import csi_from_sionna, paths_from_sionna
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import channel
from scripts.convert import main
from tests.border.importer_data import (
    C_M_S,
    CARRIER_HZ,
    ORIENTATION_RAD,
    SHAPE,
    STATIONS_M,
    free_space,
    quadriga_channels,
    sionna_arrays,
    users,
    write_deepmimo,
)

SPACING_HZ = 720e3


def off(found: np.ndarray, right: np.ndarray) -> float:
    """Largest difference over the largest entry, link by link."""
    size = np.abs(right).max(axis=(-1, -2), keepdims=True)
    return float((np.abs(found - right) / size).max())


def played(paths: ImportedPaths, folder: Path, subcarriers: int) -> tuple[np.ndarray, np.ndarray]:
    """What the environment's source makes of a written data set: users [U, 3] and channels [U, L, A, N]."""
    write_imported(paths, folder, hold_out="random", test_share=0.2)
    settings = EccSceneConfig(
        source="raytraced", dataset=str(folder), num_bs=len(paths.bs_names), num_paths=32, carrier_hz=paths.carrier_hz
    )
    source = RaytracedSource(settings)
    there = source.users("train")
    found = source.paths(there, torch.zeros(len(there.index), 1, 3))
    csi = channel(found, source.bs_orientation_rad, SHAPE, 0.5, subcarriers, SPACING_HZ)
    return there.position_m.numpy(), csi[:, 0, :, 0].numpy()


def by_place(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows of ``places`` at which ``wanted`` stand."""
    return np.linalg.norm(wanted[:, None] - places[None], axis=-1).argmin(axis=1)


def music_error_m(csi: np.ndarray, of: ImportedCsi) -> float:
    """Mean error of MUSIC on CSI [P, L, A, N] from the arrays of ``of``."""
    bss = len(of.bs_names)
    system = CsiSystem(
        carrier_hz=float(of.frequencies_hz.mean()),
        subcarrier_spacing_hz=float(np.diff(of.frequencies_hz).mean()),
        num_subcarriers=csi.shape[-1],
        num_slots=1,
        array_shape=of.array_shape,
        spacing_wavelengths=of.spacing_wavelengths,
        num_bs=bss,
        area_min_m=(-35.0, -10.0, 0.0),
        area_max_m=(35.0, 20.0, 12.0),
        pilot_power_w=1.0,
        noise_power_w=1e-12,
        log_gain_mean=(0.0,) * bss,
        log_gain_std=(1.0,) * bss,
    )
    measured = CsiMeasurements.from_csi(
        system,
        torch.from_numpy(of.bs_positions_m).float(),
        torch.from_numpy(of.bs_orientation_rad).float(),
        torch.from_numpy(csi[None, :, :, None].astype(np.complex64)),
    )
    found = Music3d().locate(measured).position[0]
    return float((found - torch.from_numpy(of.positions_m)).norm(dim=-1).mean())


# Sionna RT


def test_sionnas_paths_give_sionnas_own_frequency_response(tmp_path: Path) -> None:
    recorded = sionna_arrays()
    paths = paths_from_sionna(recorded)
    assert paths.bs_names == ("west", "east", "lamp")
    assert paths.valid.sum(axis=-1).max() > 1  # reflections too
    places, csi = played(paths, tmp_path / "city", 7)
    rows = by_place(recorded["targets"], places)
    # Theirs is numbered down the columns, top first; the first of the eight frequencies makes the comb uneven.
    order = [2 * column + (1 - row) for row in range(2) for column in range(4)]
    theirs = recorded["cfr"][rows][:, 0, :, :, 0, 1:][:, :, order]
    assert off(csi, theirs) < 1e-3
    assert off(csi, recorded["cfr"][rows][:, 0, :, :, 0, 1:]) > 1.0  # in their order
    assert off(csi.conj(), theirs) > 1.0


def test_sionnas_frequency_response_is_converted() -> None:
    recorded = sionna_arrays()
    csi = csi_from_sionna(recorded)
    order = [2 * column + (1 - row) for row in range(2) for column in range(4)]
    np.testing.assert_array_equal(csi.csi, recorded["cfr"][:, 0, :, :, 0][:, :, order])
    assert (csi.array_shape, csi.spacing_wavelengths) == (SHAPE, 0.5)
    np.testing.assert_allclose(csi.frequencies_hz - CARRIER_HZ, np.arange(-4, 4) * SPACING_HZ)


def test_music_needs_the_order_of_elements_and_the_sign() -> None:
    recorded = sionna_arrays()
    of = csi_from_sionna(recorded)
    raw = recorded["cfr"][:, 0, :, :, 0]
    right, unordered, turned = (music_error_m(csi, of) for csi in (of.csi, raw, of.csi.conj()))
    assert right < 4.5
    assert unordered > 3 * right
    assert turned > 3 * right


def test_element_by_element_tracing_is_read_from_the_frequency_response_alone() -> None:
    recorded = sionna_arrays()
    traced = {
        **recorded,
        "a": recorded["a_elements"],
        "tau": recorded["tau_elements"],
        "synthetic_array": np.array(False),
    }
    # One and the same real number at every element: MUSIC on it says broadside.
    direct = recorded["a_elements"][0, 0, 0, :, 0]
    assert np.abs(np.angle(direct / direct[0])).max() < 1e-3
    with pytest.raises(ValueError, match="synthetic_array=False, whose coefficients hold no phase between elements"):
        paths_from_sionna(traced)
    elements = csi_from_sionna({**recorded, "cfr": recorded["cfr_elements"]})
    assert off(elements.csi, csi_from_sionna(recorded).csi) < 0.05  # spherical instead of plane waves


def test_normalised_delays_are_refused() -> None:
    recorded = sionna_arrays()
    with pytest.raises(ValueError, match=r"sionna scene: delays start at the first path.*normalize_delays=False"):
        csi_from_sionna({**recorded, "cfr": recorded["cfr_default"]})
    with pytest.raises(ValueError, match="conjugate the csi"):
        csi_from_sionna({**recorded, "cfr": recorded["cfr"].conj()})


def swapped(recorded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same scene with the users sending."""
    back = {"t": "r", "r": "t"}
    found = {key: recorded[key] for key in ("frequency", "frequencies", "synthetic_array")}
    found["a"] = np.transpose(recorded["a"], (2, 3, 0, 1, 4))
    found["cfr"] = np.transpose(recorded["cfr"], (2, 3, 0, 1, 4, 5))
    for name in ("tau", "valid"):
        found[name] = recorded[name].swapaxes(0, 1)
    for angle in ("theta", "phi"):
        for end, other in back.items():
            found[f"{angle}_{end}"] = recorded[f"{angle}_{other}"].swapaxes(0, 1)
    for name in ("names", "orientation", "elements"):
        for end, other in back.items():
            found[f"{end}x_{name}"] = recorded[f"{other}x_{name}"]
    found["interactions"] = recorded["interactions"].swapaxes(1, 2)
    found["sources"], found["targets"] = recorded["targets"], recorded["sources"]
    return found


def test_base_stations_may_be_the_receivers() -> None:
    recorded = sionna_arrays()
    paths, back = paths_from_sionna(recorded), paths_from_sionna(swapped(recorded), side="receivers")
    for name, values in paths.fields().items():
        np.testing.assert_allclose(getattr(back, name)[back.valid], values[paths.valid], rtol=1e-6, err_msg=name)
    there = csi_from_sionna(swapped(recorded), side="receivers")
    np.testing.assert_array_equal(there.csi, csi_from_sionna(recorded).csi)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("tau"), r"tau missing; write the file with save_sionna"),
        (lambda a: a.update(a=a["a"][:, 0]), r"a has shape .*must be \[Rx, rx antennas"),
        (lambda a: a.update(a=np.repeat(a["a"], 2, axis=1)), r"users have 2 antennas"),
        (lambda a: a.update(phi_t=a["phi_t"][:1]), r"phi_t has shape"),
        (lambda a: a.pop("tx_elements"), r"8 elements; their places"),
        (lambda a: a.update(tx_orientation=a["tx_orientation"] + 0.3), r"more than a plane wave"),
        (lambda a: a.update(tau=1e9 * a["tau"]), r"sionna scene: delay_s .*nanoseconds"),
        (lambda a: a.update(targets=a["targets"] / 1000, sources=a["sources"] / 1000), r"kilometres"),
        (lambda a: a.update(phi_t=np.degrees(a["phi_t"])), r"bs_azimuth_rad .*|more than a plane wave"),
        (lambda a: a.update(theta_r=np.degrees(a["theta_r"])), r"ue_zenith_rad .*degrees"),
    ],
)
def test_what_sionna_arrays_cannot_be(change: Callable[[dict[str, np.ndarray]], object], said: str) -> None:
    arrays = sionna_arrays()
    change(arrays)
    with pytest.raises(ValueError, match=said):
        paths_from_sionna(arrays)


# DeepMIMO


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
    told = told_carrier_phase(traced.amplitude, traced.delay_s, traced.valid & (traced.kind == 0), traced.carrier_hz)
    assert told == "absent"


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


# QuaDRiGa


@pytest.mark.parametrize("delays", ["absolute", "relative"])
def test_quadrigas_panels_give_our_own_synthesis(delays: str) -> None:
    place = users(6)
    channels = quadriga_channels(place, ORIENTATION_RAD, absolute=delays == "absolute")
    csi = csi_from_quadriga(channels, SHAPE, 16, SPACING_HZ, delays=delays)
    np.testing.assert_allclose(csi.bs_orientation_rad, ORIENTATION_RAD, atol=1e-12)
    offsets = (np.arange(16) - 7.5) * SPACING_HZ
    right = free_space(csi.positions_m, offsets, csi.bs_orientation_rad)
    # Waves are spherical there and plane here: the phase differs by pi r^2 / (lambda d), 2e-2 at the nearest user.
    nearest = np.linalg.norm(csi.positions_m[:, None] - csi.bs_positions_m[None], axis=-1).min()
    assert off(csi.csi, right) < np.pi * 0.0677**2 / (C_M_S / CARRIER_HZ * nearest) + 5e-3


def test_quadrigas_panels_far_away_give_our_own_synthesis() -> None:
    """Far from the panels and within half a megahertz, over which the elements' own delays count for nothing."""
    csi = csi_from_quadriga(quadriga_channels(users(6) + [800.0, 300.0, 0.0], ORIENTATION_RAD), SHAPE, 16, 30e3)
    right = free_space(csi.positions_m, (np.arange(16) - 7.5) * 30e3, csi.bs_orientation_rad)
    assert off(csi.csi, right) < 1e-3


def test_quadrigas_single_elements_give_paths(tmp_path: Path) -> None:
    place = users(9)
    paths = paths_from_quadriga(quadriga_channels(place, np.zeros((3, 3)), (1, 1)))
    assert paths.line_of_sight.all()
    there, csi = played(paths, tmp_path / "city", 16)
    settings = EccSceneConfig(source="raytraced", dataset=str(tmp_path / "city"), num_bs=3)
    facing = RaytracedSource(settings).bs_orientation_rad.double().numpy()
    right = free_space(there.astype(np.float64), (np.arange(16) - 7.5) * SPACING_HZ, facing)
    assert off(csi, right) < 1e-3


def test_quadrigas_receivers_may_be_the_base_stations() -> None:
    ends = {"rx_position": "tx_position", "tx_position": "rx_position", "tx_orientation": "rx_orientation"}
    channels = quadriga_channels(users(3), ORIENTATION_RAD)
    back = [
        {ends.get(key, key): value for key, value in channel_.items()}
        | {key: [np.swapaxes(channel_[key][0], 0, 1)] for key in ("coeff", "delay")}
        for channel_ in channels
    ]
    there = csi_from_quadriga(back, SHAPE, 8, SPACING_HZ, side="receivers")
    here = csi_from_quadriga(channels, SHAPE, 8, SPACING_HZ)
    np.testing.assert_array_equal(there.csi, here.csi)
    np.testing.assert_array_equal(there.bs_orientation_rad, here.bs_orientation_rad)


def test_quadrigas_relative_delays_are_refused_until_stated() -> None:
    channels = quadriga_channels(users(4), ORIENTATION_RAD, absolute=False)
    with pytest.raises(ValueError, match=r"quadriga channels: delay is -.*use_absolute_delays=True.*delays=relative"):
        csi_from_quadriga(channels, SHAPE, 16, SPACING_HZ)
    # Of single elements none is negative; they are all zero.
    with pytest.raises(ValueError, match=r"delay_s .*normalised"):
        paths_from_quadriga([{**c, "kind": 0} for c in quadriga_channels(users(4), ORIENTATION_RAD, (1, 1), False)])


def test_quadrigas_channels_that_do_not_fit_are_refused() -> None:
    channels = quadriga_channels(users(4), ORIENTATION_RAD)
    for changed, said in (
        (channels + channels[:1], "two channels between the same places"),
        ([{k: v for k, v in channels[0].items() if k != "delay"}], "lacks delay"),
        ([*channels[:-1], {**channels[-1], "center_frequency": np.array([2e9])}], "one carrier"),
        ([], "no channels"),
    ):
        with pytest.raises(ValueError, match=said):
            csi_from_quadriga(changed, SHAPE, 16, SPACING_HZ)
    with pytest.raises(ValueError, match="8 elements, not 2 x 2"):
        csi_from_quadriga(channels, (2, 2), 16, SPACING_HZ)
    with pytest.raises(ValueError, match="base stations have 8 elements"):
        paths_from_quadriga(channels)


def test_quadrigas_grid_ends_at_the_bandwidth() -> None:
    frequencies = baseband_frequencies_hz(20e6, 64)
    assert (frequencies[0], frequencies[-1]) == (0.0, 20e6)
    # Read as B / N every distance is 1.6 % long.
    assert np.diff(frequencies)[0] / (20e6 / 64) == pytest.approx(64 / 63)


def test_the_real_quadriga_lib_agrees(tmp_path: Path) -> None:
    quadriga_lib = pytest.importorskip("quadriga_lib", reason="extra [quadriga] is not installed")
    place = users(3)
    panel = quadriga_lib.arrayant.generate("omni", 10, CARRIER_HZ)
    panel = quadriga_lib.arrayant.copy_element(panel, 0, list(range(1, 8)))
    step = 0.5 * C_M_S / CARRIER_HZ
    panel["element_pos"] = np.array([[0, (c - 1.5) * step, (r - 0.5) * step] for c in range(4) for r in range(2)]).T
    one = quadriga_lib.arrayant.generate("omni", 10, CARRIER_HZ)
    still = np.array([1.0, 0, 0, 0, 0, 0, -1, 0])[:, None]
    expected = quadriga_channels(place, ORIENTATION_RAD)
    channels = []
    for link in expected:
        tx, rx = np.ravel(link["tx_position"]), np.ravel(link["rx_position"])
        middle = ((tx + rx) / 2)[:, None]
        gain = np.array([(C_M_S / CARRIER_HZ / (4 * np.pi * np.linalg.norm(rx - tx))) ** 2])
        re, im, delay, *_ = quadriga_lib.arrayant.get_channels_spherical(
            panel, one, middle, middle, gain, np.zeros(1), still, tx, np.ravel(link["tx_orientation"]), rx, np.zeros(3),
            CARRIER_HZ, use_absolute_delays=True,
        )  # fmt: skip
        channels.append({**link, "name": "c", "coeff": [re + 1j * im], "delay": [delay]})
    file = tmp_path / "c.hdf5"
    quadriga_lib.channel.hdf5_create_file(str(file), len(channels))
    for index, channel_ in enumerate(channels):
        quadriga_lib.channel.hdf5_write_channel(str(file), channel_, None, index)
    read = csi_from_quadriga(read_quadriga(file), SHAPE, 8, SPACING_HZ)
    right = csi_from_quadriga(expected, SHAPE, 8, SPACING_HZ)
    np.testing.assert_allclose(read.bs_orientation_rad, ORIENTATION_RAD, atol=1e-9)
    assert off(read.csi, right.csi) < 0.05  # the dipole's polarisation turns with a rolled panel
    phase = np.angle(read.csi * right.csi.conj())
    assert np.abs(phase).max() < 2e-3
    response = quadriga_lib.channel.baseband_freq_response(
        [np.ones((1, 1, 1), complex)], [np.full((1, 1, 1), 1e-7)], bandwidth=20e6, carriers=64
    )
    turns = np.exp(-2j * np.pi * 1e-7 * baseband_frequencies_hz(20e6, 64))
    np.testing.assert_allclose(response.ravel(), turns, atol=1e-6)
    (tmp_path / "text").write_text("x", encoding="utf-8")
    with pytest.raises(ValueError, match="no HDF5 file"):
        read_quadriga(tmp_path / "text")


# The common form


def test_stations_are_known_by_where_they_stand() -> None:
    paths = paths_from_sionna(sionna_arrays())
    turned = paths.with_stations({"B": (30, -3, 6.2), "A": (-30, 2, 8)})
    assert turned.bs_names == ("B", "A")
    np.testing.assert_array_equal(turned.amplitude, paths.amplitude[:, [1, 0]])
    assert turned.bs_orientation_rad is not None
    np.testing.assert_array_equal(turned.bs_orientation_rad, paths.bs_orientation_rad[[1, 0]])
    with pytest.raises(
        ValueError, match=r"0 base stations of sionna scene stand within 0.5 m of 'C' at \(0.0, 0.0, 0.0\)"
    ):
        paths.with_stations({"C": (0, 0, 0)})


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 3), columns=st.integers(1, 4), seed=st.integers(0, 99))
def test_panels_are_known_by_where_their_elements_are(rows: int, columns: int, seed: int) -> None:
    wavelength = C_M_S / CARRIER_HZ
    right = np.array(
        [[0.0, (c - (columns - 1) / 2) * 0.5, (r - (rows - 1) / 2) * 0.5] for r in range(rows) for c in range(columns)]
    )
    shuffled = np.random.default_rng(seed).permutation(len(right))
    order, shape, spacing = panel_of(wavelength * right[shuffled], wavelength)
    assert (shape, spacing) == ((rows, columns), 0.5)
    np.testing.assert_array_equal(shuffled[order], np.arange(len(right)))


def test_elements_that_are_no_panel_are_refused() -> None:
    for elements in ([[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0], [0, 3, 0]], [[0, 0, 0], [1, 1, 0]]):
        with pytest.raises(ValueError, match="no grid of rows and columns"):
            panel_of(0.04 * np.array(elements, dtype=float), 0.0857)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 999), share=st.floats(0.05, 0.5))
def test_held_out_users_fill_whole_squares(seed: int, share: float) -> None:
    place = np.random.default_rng(seed).uniform(0, 100, (400, 3))
    held = held_out(place, share, "blocks", 10.0, seed)
    square = np.floor((place[:, :2] - place[:, :2].min(0)) / 10.0)
    for corner in np.unique(square, axis=0):
        inside = held[(square == corner).all(axis=1)]
        assert inside.all() or not inside.any()
    assert share - 2e-3 <= held.mean() < share + 0.1
    assert held_out(place, share, "random", None, seed).mean() == pytest.approx(share, abs=2e-3)


def test_csi_files_hold_what_is_documented(tmp_path: Path) -> None:
    csi = csi_from_sionna(sionna_arrays())
    csi.write(tmp_path / "own.npz")
    with np.load(tmp_path / "own.npz", allow_pickle=False) as archive:
        assert archive["csi"].shape == (8, 3, 8, 8)
        assert archive["csi"].dtype == np.complex64
        assert archive["names"].tolist() == ["west", "east", "lamp"]
        assert float(archive["carrier_hz"]) == pytest.approx(CARRIER_HZ - SPACING_HZ / 2)
        assert archive["array_shape"].tolist() == [2, 4]
    read = read_csi(tmp_path / "own.npz")
    np.testing.assert_allclose(np.asarray(read.csi).reshape(csi.csi.shape), csi.csi, rtol=1e-5)
    turned = csi.with_stations({"L": (2, 9, 10), "W": (-30, 2, 8)})
    np.testing.assert_array_equal(turned.csi, csi.csi[:, [2, 0]])
    with pytest.raises(ValueError, match="evenly spaced"):
        dataclasses.replace(csi, frequencies_hz=csi.frequencies_hz**2)
    with pytest.raises(ValueError, match=r"csi has shape .*must be \(3, 3, 8, 8\)"):
        dataclasses.replace(csi, positions_m=csi.positions_m[:3])
    with pytest.raises(ValueError, match="csi holds NaN"):
        dataclasses.replace(csi, csi=np.where(csi.csi == csi.csi[0, 0, 0, 0], np.nan, csi.csi))


def test_too_few_links_tell_nothing_of_their_delays() -> None:
    csi = csi_from_sionna(sionna_arrays())
    few = np.zeros_like(csi.valid)
    few[0, 0] = True
    assert told_delays(csi.csi, few, csi.frequencies_hz, csi.positions_m, csi.bs_positions_m) is None
    told = told_delays(csi.csi, csi.valid, csi.frequencies_hz, csi.positions_m, csi.bs_positions_m)
    assert told == "absolute"


# The command


def test_the_command_makes_a_set_that_is_played(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_deepmimo(tmp_path / "Scene", paths_from_sionna(sionna_arrays()))
    (tmp_path / "stations.csv").write_text("name;x;y;z\nlamp;2;9;10\nwest;-30;2;8\neast;30;-3;6\n", encoding="utf-8")
    city = tmp_path / "city"
    main(["deepmimo", str(tmp_path / "Scene"), "--out", str(city), "--stations", str(tmp_path / "stations.csv")])
    printed = capsys.readouterr().out
    assert "3 base stations (lamp, west, east)" in printed
    assert f"dataset='{city}', num_bs=3, carrier_hz=3.5e+09" in printed
    assert printed.startswith(imported_summary(city))
    env = make_env("ecc-raytraced-v0", dataset=str(city), num_bs=3, carrier_hz=3.5e9, seed=0)
    observations, _ = env.reset()
    assert len(observations) == 3
    with pytest.raises(DatasetError, match="has 3 base stations; set num_bs=3"):
        make_env("ecc-raytraced-v0", dataset=str(city), carrier_hz=3.5e9)
    with pytest.raises(DatasetError, match=r"import it again with more users: cfpos convert deepmimo"):
        load_users(city, "test", limit=1000)
    with pytest.raises(SystemExit) as ended:
        main(["deepmimo", str(tmp_path / "Scene"), "--out", str(city)])
    assert ended.value.code == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_sionnas_file_becomes_paths_or_responses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "scene.npz", **sionna_arrays())
    main(["sionna", str(tmp_path / "scene.npz"), "--out", str(tmp_path / "city"), "--hold-out", "random"])
    assert "sionna scene.npz at 3.5 GHz" in capsys.readouterr().out
    main(["sionna", str(tmp_path / "scene.npz"), "--out", str(tmp_path / "own.npz")])
    assert (tmp_path / "own.npz").is_file()
    (tmp_path / "text.npz").write_text("x", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["sionna", str(tmp_path / "text.npz"), "--out", str(tmp_path / "b")])
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'text.npz'} is not a readable npz file")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "quadriga_lib", None)
    with pytest.raises(ValueError, match=r"reading none needs quadriga-lib; run: pip install .*quadriga"):
        read_quadriga("none")
