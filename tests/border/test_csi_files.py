"""Files of CSI: npz, HDF5, MATLAB; what is refused by file and array; the self-check of orders and signs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines.ecc.music import Music3d
from cfpos_envs.importers.arrays import CsiFile, read_csi
from cfpos_envs.importers.csi_check import find_conventions
from cfpos_envs.physics.ecc.conventions import antenna_permutation
from cfpos_envs.scenarios.ecc.stored import sample_file
from scripts import check_csi, convert
from tests.baselines.ecc.synthetic import FACING_RAD, PLACES_M, draw_places, measure


def arrays(count: int = 12, seed: int = 3) -> dict[str, Any]:
    """What somebody could have saved: 2 x 4 antennas, in plain sight, slots left out."""
    users_m = draw_places(count, seed)
    return {
        "csi": measure(users_m).csi[:, 0, :, 0].numpy(),
        "positions_m": users_m.double().numpy(),
        "bs_positions_m": PLACES_M.double().numpy(),
        "bs_orientation_rad": FACING_RAD.double().numpy(),
        "carrier_hz": 3.5e9,
        "subcarrier_spacing_hz": 720e3,
        "array_shape": [2, 4],
    }


def saved(folder: Path, **changes: Any) -> Path:
    """The file with some arrays changed or (None) left out."""
    values = {name: value for name, value in {**arrays(), **changes}.items() if value is not None}
    np.savez(folder / "own.npz", **values)
    return folder / "own.npz"


def same(one: CsiFile, other: CsiFile) -> bool:
    pairs = ((getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(CsiFile) if f.name != "path")
    return all(np.array_equal(left, right) for left, right in pairs)


def test_a_file_is_read_and_written_again(tmp_path: Path) -> None:
    file = read_csi(saved(tmp_path, names=["a", "b", "c"], time_s=np.arange(12.0), group=list("aabbccddeeff")))
    assert file.csi.shape == (12, 3, 1, 8, 8)
    assert file.names == ("a", "b", "c")
    assert file.group is not None
    assert file.group[3] == "b"
    file.write(tmp_path / "again.npz")
    assert same(read_csi(tmp_path / "again.npz"), file)
    answer = Music3d().locate(file.measurements()).position[:, 0].numpy()
    assert np.median(np.linalg.norm(answer - file.positions_m, axis=1)) < 0.05


def test_a_file_states_its_own_conventions(tmp_path: Path) -> None:
    plain = read_csi(saved(tmp_path))
    theirs = np.empty_like(arrays()["csi"])
    theirs[:, :, list(antenna_permutation("sionna", (2, 4)))] = arrays()["csi"].conj()
    theirs = np.fft.ifftshift(theirs, axes=-1)
    stated = {"antenna_order": "sionna", "phase": "conjugated", "subcarrier_order": "fft"}
    assert same(read_csi(saved(tmp_path, csi=theirs, **stated)), plain)
    # What the caller says counts more than what the file says.
    wrong = {"antenna_order": "rows", "phase": "exp(-j2pi f tau)", "subcarrier_order": "ascending"}
    assert same(read_csi(saved(tmp_path, csi=theirs, **wrong), **stated), plain)
    numbers = list(antenna_permutation("sionna", (2, 4)))
    again = read_csi(saved(tmp_path, csi=theirs, **{**stated, "antenna_order": numbers}))
    assert same(again, plain)


def test_the_command_writes_our_conventions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = np.empty_like(arrays()["csi"])
    numbers = antenna_permutation("sionna", (2, 4))
    theirs[:, :, list(numbers)] = arrays()["csi"].conj()
    plain, path, out = read_csi(saved(tmp_path)), saved(tmp_path, csi=theirs), tmp_path / "out.npz"
    for order in ("sionna", ",".join(map(str, numbers))):
        convert.main(["csi", str(path), "--out", str(out), "--antenna-order", order, "--phase", "conjugated"])
        assert "12 snapshots" in capsys.readouterr().out
        assert same(read_csi(out), plain)


def test_gaps_are_left_out_link_by_link(tmp_path: Path) -> None:
    csi = arrays()["csi"].copy()
    csi[2, 1, 3] = np.nan
    csi[4, 0] = 0
    told = np.ones((12, 3), bool)
    told[5, 2] = False
    file = read_csi(saved(tmp_path, csi=csi, valid=told))
    assert np.argwhere(~file.valid).tolist() == [[2, 1], [4, 0], [5, 2]]
    assert not np.abs(file.csi[~file.valid]).any()


def test_places_on_the_ground_have_height_zero(tmp_path: Path) -> None:
    file = read_csi(saved(tmp_path, positions_m=arrays()["positions_m"][:, :2]))
    assert file.positions_m is not None
    assert file.positions_m.shape == (12, 3)
    assert not file.positions_m[:, 2].any()


NAN_PLACE = arrays()["positions_m"].copy()
NAN_PLACE[7, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"csi": None, "CSI": np.zeros(3)}, "there is no array 'csi'; the file holds .*CSI"),
        ({"positions_m": None, "position_m": np.zeros((12, 3))}, "'positions_m'; did you mean position_m"),
        ({"positions_m": NAN_PLACE}, r"positions_m\[7, 1\] is nan"),
        (
            {"positions_m": np.zeros((11, 3))},
            r"positions_m has shape \(11, 3\); it must be \(12, 3\), the place",
        ),
        ({"csi": np.ones((12, 2, 8, 8), complex)}, "2 base stations, but there are 3"),
        ({"csi": np.ones((12, 3, 8, 8))}, "csi is float64"),
        ({"csi": np.zeros((12, 3, 8, 8), complex)}, "nothing but zeros and NaN on every link"),
        ({"bs_orientation_rad": [[45, 0, 0], [135, 0, 0], [-90, 0, 0]]}, "look like degrees: give radians"),
        (
            {"positions_m": arrays()["positions_m"] / 1e3, "bs_positions_m": PLACES_M.numpy() / 1e3},
            "within 0.04 m of each other; these look like kilometres",
        ),
        (
            # Degrees beside heights in metres.
            {
                "positions_m": arrays()["positions_m"] * [1e-5, 1e-5, 1.0],
                "bs_positions_m": PLACES_M.numpy() * [1e-5, 1e-5, 1.0] + [0.0, 0.0, 4.0],
            },
            "within 0.0004 m of each other; these look like kilometres or degrees",
        ),
        ({"positions_m": arrays()["positions_m"] * 1e6}, "look like millimetres"),
        ({"carrier_hz": 3.5}, "looks like GHz or MHz: give hertz"),
        ({"subcarrier_spacing_hz": 0.72}, "looks like kHz or MHz: give hertz"),
        ({"carrier_hz": None}, "the frequencies are not known"),
        ({"array_shape": [2, 2]}, "8 antennas, but the array has 2 x 2"),
        ({"array_shape": None}, "8 antennas are not described; add array_shape"),
        ({"element_positions_m": np.arange(24.0).reshape(8, 3)}, "element_positions_m spreads over 21 m"),
        ({"names": ["a", "b", "a"]}, "names has 2 different entries; it must have 3"),
        ({"time_s": np.arange(5.0)}, r"time_s has shape \(5,\); it must be \(12,\)"),
        ({"group": np.arange(5)}, "group has 5 entries; it must have 12"),
        ({"antenna_order": "sionnna"}, "did you mean sionna"),
        ({"names": np.array([{}, {}, {}], dtype=object)}, "not an npz file of plain arrays"),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_array(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"own.npz: .*{message}") as caught:
        read_csi(saved(tmp_path, **changes), labelled=True)
    assert "\n" not in str(caught.value)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_csi(tmp_path / "own.npz")
    for name, message in (("own.csv", r"end in \.npz"), ("own.npz", "not an npz file"), ("own.h5", "not an HDF5 file")):
        (tmp_path / name).write_text("csi")
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            read_csi(tmp_path / name)


def test_matlab_files_of_the_old_kind(tmp_path: Path) -> None:
    from scipy.io import savemat

    savemat(tmp_path / "own.mat", {**arrays(), "names": np.array(["a", "b", "c"], dtype=object)})
    file = read_csi(tmp_path / "own.mat")
    assert file.names == ("a", "b", "c")
    assert same(file, read_csi(saved(tmp_path, names=["a", "b", "c"])))


def test_hdf5_files(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 needs the extra hdf5: pip install 'cfpos[hdf5]'")
    with h5py.File(tmp_path / "own.h5", "w") as file:
        for name, value in arrays().items():
            file[name] = value
        file["names"] = ["a", "b", "c"]
        file["phase"] = "exp(-j2pi f tau)"
        file.create_group("notes")
    assert same(read_csi(tmp_path / "own.h5"), read_csi(saved(tmp_path, names=["a", "b", "c"])))


def test_matlab_files_of_version_7_3(tmp_path: Path) -> None:
    """Axes reversed, complex numbers as pairs, text as codes, lists of text as references, as MATLAB's save writes."""
    h5py = pytest.importorskip("h5py", reason="MATLAB v7.3 needs the extra hdf5: pip install 'cfpos[hdf5]'")
    pair = np.dtype([("real", float), ("imag", float)])
    path = tmp_path / "own.mat"
    with h5py.File(path, "w", userblock_size=512) as file:

        def put(name: str, value: np.ndarray, kind: str) -> Any:
            file.create_dataset(name, data=value)
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
            return file[name]

        for name, value in arrays().items():
            matrix = np.atleast_2d(np.asarray(value))
            if np.iscomplexobj(matrix):
                split = np.empty(matrix.shape, pair)
                split["real"], split["imag"] = matrix.real, matrix.imag
                matrix = split
            put(name, matrix.transpose(), "double")
        valid = np.ones((12, 3), np.uint8)
        valid[3, 1] = 0
        put("valid", valid.transpose(), "logical")
        put("phase", np.frombuffer(b"exp(-j2pi f tau)", np.uint8).astype(np.uint16)[:, None], "char")
        cells = [put(f"#refs#/{text}", np.array([[ord(text)]], np.uint16), "char").ref for text in "abc"]
        put("names", np.array(cells, dtype=h5py.ref_dtype)[:, None], "cell")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    found = read_csi(path)
    assert same(found, read_csi(saved(tmp_path, names=["a", "b", "c"], valid=valid.astype(bool))))


# The self-check ------------------------------------------------------------------------------------------------------


def in_order(order: str, conjugated: bool) -> np.ndarray:
    theirs = np.empty_like(arrays()["csi"])
    theirs[:, :, list(antenna_permutation(order, (2, 4)))] = arrays()["csi"]
    return theirs.conj() if conjugated else theirs


@pytest.mark.parametrize("order", ["rows", "rows-from-top", "columns", "columns-from-top"])
@pytest.mark.parametrize("conjugated", [False, True])
def test_order_and_sign_are_found_and_mended(tmp_path: Path, order: str, conjugated: bool) -> None:
    path = saved(tmp_path, csi=in_order(order, conjugated))
    found = find_conventions(read_csi(path))
    assert found.verdict == ""
    assert found.best.correlation > 0.95
    assert found.margin > 2
    assert order in found.best.antenna_orders
    assert ("+" in found.best.phase) == conjugated
    mended = read_csi(path, antenna_order=found.best.antenna_orders[0], phase=found.best.phase)
    np.testing.assert_array_equal(mended.csi[:, :, 0], arrays()["csi"])


@pytest.mark.parametrize(("order", "conjugated"), [("sionna", False), ("rows", True)])
def test_what_the_command_prints_takes_tens_of_metres_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], order: str, conjugated: bool
) -> None:
    path = saved(tmp_path, csi=in_order(order, conjugated))

    def error_m(**said: str) -> float:
        file = read_csi(path, **said)
        return float(
            (Music3d().locate(file.measurements()).position[:, 0] - torch.tensor(file.positions_m)).norm(dim=1).mean()
        )

    assert error_m() > 10
    check_csi.main([str(path), "--snapshots", "0,3,5,8"])
    told = capsys.readouterr().out
    assert "12 links" in told
    assert "decided" in told
    assert f"env.data={path}" in told
    assert ("env.phase=conjugated" in told) == conjugated
    phase = "exp(+j2pi f tau)" if conjugated else "exp(-j2pi f tau)"
    name = "columns-from-top" if order == "sionna" else "rows"
    assert f'antenna_order="{name}", phase="{phase}"' in told
    assert error_m(antenna_order=name, phase=phase) < 0.5


def test_what_the_file_says_of_itself_does_not_mislead_the_check(tmp_path: Path, capsys: Any) -> None:
    check_csi.main([str(saved(tmp_path, antenna_order="sionna", phase="conjugated"))])
    assert 'antenna_order="rows", phase="exp(-j2pi f tau)"' in capsys.readouterr().out


def test_an_array_numbered_backwards_is_told_from_the_conjugate_by_its_delays(tmp_path: Path, capsys: Any) -> None:
    path = saved(tmp_path, csi=arrays()["csi"][:, :, ::-1])
    found = find_conventions(read_csi(path))
    assert found.best.phase == "exp(+j2pi f tau)"
    assert "numbered backwards" in found.doubt
    check_csi.main([str(path)])
    assert "but the turn from subcarrier to subcarrier" in capsys.readouterr().out
    mended = read_csi(path, antenna_order=list(range(7, -1, -1)))
    np.testing.assert_array_equal(mended.csi[:, :, 0], arrays()["csi"])
    for conjugated in (False, True):
        assert find_conventions(read_csi(saved(tmp_path, csi=in_order("rows", conjugated)))).doubt == ""


def test_links_without_line_of_sight_do_not_hide_the_order(tmp_path: Path) -> None:
    """In a city some links are blocked, and say nothing."""
    file = read_csi(sample_file())
    theirs = np.empty_like(file.csi)
    theirs[..., list(antenna_permutation("sionna", (2, 2))), :] = file.csi
    dataclasses.replace(file, csi=theirs).write(tmp_path / "own.npz")
    found = find_conventions(read_csi(tmp_path / "own.npz"))
    assert found.verdict == ""
    assert found.margin > 4
    named = found.best.antenna_orders[0]
    mended = read_csi(tmp_path / "own.npz", antenna_order=named, phase=found.best.phase)
    np.testing.assert_array_equal(mended.csi, file.csi)


def test_nothing_is_decided_where_nothing_can_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    turned = arrays()["csi"] * np.exp(2j * np.pi * generator.uniform(size=(1, 3, 8, 1)))
    with pytest.raises(SystemExit) as stopped:
        check_csi.main([str(saved(tmp_path, csi=turned))])
    assert stopped.value.code == 1
    assert "no known convention fits" in capsys.readouterr().out
    # In one row all orders but the backward ones are the same: their names do not run into the sign.
    with pytest.raises(SystemExit):
        check_csi.main([str(saved(tmp_path, csi=turned, array_shape=[1, 8]))])
    assert "quadriga = sionna  exp(" in capsys.readouterr().out
    # From straight ahead all antennas have one phase, in every order and with either sign.
    ahead = PLACES_M[0].double().numpy() + np.array([[10.0, 10.0, 0.0]])
    flat = np.zeros((1, 3, 8, 8), complex)
    flat[0, 0] = 1.0
    with pytest.raises(SystemExit) as stopped:
        check_csi.main([str(saved(tmp_path, csi=flat, positions_m=ahead))])
    assert stopped.value.code == 1
    assert "undecided: the best convention fits 1.00 times as well" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"positions_m": None}, [], "there is no array 'positions_m'"),
        ({}, ["--snapshots", "3,12"], "there is no snapshot 12; the file has 12, from 0"),
        ({}, ["--snapshots", "one"], "--snapshots one must be whole numbers"),
        ({"csi": arrays()["csi"][:, :, :1], "array_shape": None}, [], "has one antenna; there is no order"),
    ],
)
def test_the_check_says_what_it_needs(
    tmp_path: Path, capsys: Any, changes: dict[str, Any], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        check_csi.main([str(saved(tmp_path, **changes)), *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
