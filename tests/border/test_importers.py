"""What all importers share: stations, panels, held-out users, files; and ``cfpos convert``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs import make_env
from cfpos_envs.channels.tracing.imported import held_out, imported_summary
from cfpos_envs.channels.tracing.storage import DatasetError, load_users
from cfpos_envs.importers.arrays import read_csi
from cfpos_envs.importers.csi import detect_delay_convention, panel_of
from cfpos_envs.importers.quadriga import read_quadriga
from cfpos_envs.importers.sionna import csi_from_sionna, paths_from_sionna
from scripts.convert import main
from tests.border.importer_data import (
    C_M_S,
    CARRIER_HZ,
    SPACING_HZ,
    sionna_arrays,
    write_deepmimo,
)

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
    assert detect_delay_convention(csi.csi, few, csi.frequencies_hz, csi.positions_m, csi.bs_positions_m) is None
    convention = detect_delay_convention(csi.csi, csi.valid, csi.frequencies_hz, csi.positions_m, csi.bs_positions_m)
    assert convention == "absolute"


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
