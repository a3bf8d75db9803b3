"""CSI fingerprints over labelled snapshots: the weight of the gain, powers of receivers with gain control."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from baselines.ecc.knn import CsiKnn, KnnOptions, best_gain_weight
from cfpos_envs.datasets.epic import BINS, channel_bins, csi_files, holds_captures
from cfpos_envs.importers.arrays import read_csi, scaled_to_rssi
from cfpos_envs.measurements.ecc import CsiMeasurements
from scripts import locate

PLACES = np.array([[x, y, 0.0] for x in range(0, 20, 2) for y in range(0, 20, 2)])
STATIONS = np.array([[0.0, 0, 2], [20, 0, 2], [10, 20, 2]])
MEASURED = Path(__file__).resolve().parents[4] / "shared" / "measured" / "csi_epic"


def measured(gain_says: bool, packets: int = 3) -> tuple[CsiMeasurements, torch.Tensor]:
    """Snapshots whose place is in the gain alone, or in one path's delay alone."""
    rng, places = np.random.default_rng(0), np.repeat(PLACES, packets, axis=0)
    distance = np.linalg.norm(places[:, None] - STATIONS, axis=2)
    tone = np.arange(16)
    # Delays of a few bins that have nothing to do with the distance, or that are it.
    delay = 4 * rng.random(distance.shape) if gain_says else distance / 6
    gain = 1 / distance if gain_says else rng.uniform(0.3, 3.0, distance.shape)
    csi = gain[..., None] * np.exp(-2j * np.pi * delay[..., None] * tone / 16)
    csi = csi[:, :, None, :]
    own = CsiMeasurements.from_arrays(
        csi, STATIONS, np.zeros((3, 3)), carrier_hz=5e9, subcarrier_spacing_hz=312.5e3, array_shape=(1, 1)
    )
    return own, torch.from_numpy(places).float()


@pytest.mark.parametrize("gain_says", [True, False])
def test_the_weight_is_that_which_finds_left_out_places(gain_says: bool) -> None:
    own, places = measured(gain_says)
    weight = best_gain_weight(own.csi[:, 0], own.valid[:, 0], places, own.system, 4)
    assert weight >= 1.0 if gain_says else weight <= 0.05
    errors = {}
    for chosen in (None, 0.01, 5.0):
        policy = CsiKnn(None, KnnOptions(gain_weight=chosen))
        seen = torch.arange(len(places)) // 3 % 2 == 0
        policy.survey(own.csi[seen, 0], own.valid[seen, 0], places[seen], own.system)
        answer = policy.locate(own.select(torch.nonzero(~seen).squeeze(-1))).position[:, 0]
        errors[chosen] = float((answer - places[~seen]).norm(dim=1).mean())
    assert errors[None] <= min(errors[0.01], errors[5.0]) + 1e-6


def test_csi_is_scaled_to_the_received_power() -> None:
    csi = np.full((1, 2, 1, 2, 3), 5.0 + 0j)
    valid = np.array([[True, False]])
    scaled = scaled_to_rssi(csi, valid, np.array([[-40.0, np.nan]]))
    np.testing.assert_allclose((np.abs(scaled[0, 0]) ** 2).mean(), 1e-4)
    assert (scaled[0, 1] == 0).all()
    with pytest.raises(ValueError, match=r"rssi_dbm \[0, 1\] is missing on a link with csi"):
        scaled_to_rssi(csi, np.ones((1, 2), bool), np.array([[-40.0, np.nan]]))


def own_files(folder: Path) -> tuple[Path, Path]:
    """The gain is in ``rssi_dbm`` alone."""
    own, places = measured(True)
    csi = own.csi[:, 0, :, 0].numpy()
    rssi = 10 * np.log10((np.abs(csi) ** 2).mean(axis=(2, 3)))
    flat = csi / np.abs(csi).mean(axis=(2, 3), keepdims=True)
    for name, rows in (("known.npz", np.arange(0, len(csi), 2)), ("users.npz", np.arange(1, len(csi), 2))):
        np.savez(
            folder / name,
            csi=flat[rows],
            rssi_dbm=rssi[rows],
            positions_m=places.numpy()[rows] + [4e5, 5e6, 0],
            bs_positions_m=STATIONS + [4e5, 5e6, 0],
            bs_orientation_rad=np.zeros((3, 3)),
            carrier_hz=5e9,
            subcarrier_spacing_hz=312.5e3,
            array_shape=[1, 1],
        )
    return folder / "known.npz", folder / "users.npz"


def test_the_command_reads_powers_and_keeps_northings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known, users = own_files(tmp_path)
    locate.main(["--survey", str(known), "--measurements", str(users), "--out", str(tmp_path / "p.csv")])
    said = capsys.readouterr().out
    assert "positions valid (100.0 %) by csi-knn" in said
    assert "chosen on references left out by place" in said
    table = np.genfromtxt(tmp_path / "p.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    error = np.hypot(table["x_m"] - table["truth_x_m"], table["y_m"] - table["truth_y_m"])
    assert np.median(error) < 1.0
    arrays = dict(np.load(known))
    np.savez(known, **{**arrays, "rssi_dbm": arrays["rssi_dbm"][:, :2]})
    with pytest.raises(ValueError, match=r"known.npz: rssi_dbm has shape .* one power per link"):
        read_csi(known)


def captures(folder: Path, leak: int) -> tuple[Path, Path]:
    """Files as those of EPIC; ``leak`` seeds what the tones without channel hold."""
    rng, marks = np.random.default_rng(0), np.random.default_rng(leak)
    empty = np.setdiff1d(np.arange(BINS), channel_bins())
    for name, count in (("ref.npz", 12), ("test.npz", 8)):
        iq = rng.integers(-400, 400, (count, BINS, 2)).astype(np.int16)
        iq[:, empty] = marks.integers(-5000, 5000, (count, len(empty), 2))
        np.savez(
            folder / name,
            iq=iq,
            position_m=rng.uniform(0, 30, (count, 2)).astype(np.float32),
            ap=np.array(["b0", "a1"] * (count // 2)),
            rssi_dbm=rng.uniform(-80, -40, count).astype(np.float32),
            place=np.array([f"p{row}" for row in range(count)]),
        )
    return folder / "ref.npz", folder / "test.npz"


def test_tones_without_channel_have_no_say(tmp_path: Path) -> None:
    answers = []
    for leak in (1, 2):
        files = captures(tmp_path, leak)
        assert all(holds_captures(path) for path in files)
        known, users = csi_files(*files)
        assert known.csi.shape[-1] == 52
        assert known.names == ("a1", "b0")
        np.testing.assert_allclose(
            (np.abs(known.csi[0, 1]) ** 2).mean(), 10 ** (np.load(files[0])["rssi_dbm"][0] / 10), rtol=1e-4
        )
        out = tmp_path / f"{leak}.csv"
        locate.main(["--survey", str(files[0]), "--measurements", str(files[1]), "--out", str(out)])
        answers.append(out.read_text())
        assert len(users) == 8
    assert answers[0] == answers[1]


@pytest.mark.skipif(not MEASURED.is_dir(), reason="the measured sets do not lie beside the checkout")
def test_measured_csi_is_located_better_than_by_amplitudes_and_rssi_of_fixed_weight(tmp_path: Path) -> None:
    out = tmp_path / "p.npz"
    files = [str(MEASURED / name) for name in ("ref.npz", "test.npz")]
    locate.main(["--survey", files[0], "--measurements", files[1], "--out", str(out)])
    error = np.load(out)["error_m"]
    # scikit-learn's four neighbours by unit amplitudes and RSSI / 20 dB have 2.65 m and 5.43 m.
    assert np.median(error) < 2.5
    assert np.sqrt((error**2).mean()) < 5.43
