"""Readers of measured tables: wide and long, units, marks, windows, what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.files.epochs import EpochOptions, Epochs, read_epochs
from tests.border.range_tables import NAMES, RANGES, long, wide, written


@pytest.mark.parametrize("seed", range(4))
def test_wide_and_long_say_the_same_in_any_order(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = rng.permutation(5).tolist()
    values = np.where(rng.random(RANGES.shape) < 0.3, np.nan, RANGES)
    values[:, order[0]] = RANGES[:, order[0]]  # so that every epoch has a line, and they come in this order
    for table in (read_epochs(written(tmp_path, text(values, order)), NAMES) for text in (wide, long)):
        np.testing.assert_array_equal(table.links["range"], values)
        np.testing.assert_array_equal(table.time_s, [0.0, 1.0, 2.0])


def test_units_stand_in_names_or_are_said_and_marks_are_numbers_of_the_file(tmp_path: Path) -> None:
    text = "epoch,range_gate_mm,range_dock,std_gate_mm,std_dock,rss_gate_dbm,rss_crane,truth_x_m,truth_y_m\n"
    text += "a,12500,100000,250,30,-61,-200,1,2\nb,100000,950,250,40,-200,-70.5,3,4\n"
    found = read_epochs(written(tmp_path, text), NAMES, EpochOptions(unit="cm", missing=(100000.0, -200.0)))
    nan = np.nan
    np.testing.assert_allclose(found.links["range"][:, :2], [[12.5, nan], [nan, 9.5]])
    np.testing.assert_allclose(found.links["std"][:, :2], [[0.25, 0.3], [0.25, 0.4]])
    np.testing.assert_array_equal(found.links["rss"][:, :3], [[-61, nan, nan], [nan, nan, -70.5]])
    np.testing.assert_array_equal(found.truth_m, [[1, 2], [3, 4]])
    assert found.epoch is not None
    assert found.epoch.tolist() == ["a", "b"]
    assert set(found.notes) == {"no measurement of AP 3", "no measurement of AP Press"}
    times = read_epochs(written(tmp_path, "time_ms,tdoa_gate_ns,tdoa_dock_ns\n1500,0,10\n"), NAMES)
    np.testing.assert_allclose(times.links["tdoa"][0, :2], [0.0, 2.99792458])
    np.testing.assert_array_equal(times.time_s, [1.5])


def test_names_are_those_of_the_site_but_for_capitals_and_numbers(tmp_path: Path) -> None:
    text = "ap,range_m,epoch,user\n3.0,4,0,x\nPRESS,5,0,x\ngate,6,0,y\n"
    found = read_epochs(written(tmp_path, text), NAMES)
    np.testing.assert_array_equal(found.links["range"], [[np.nan] * 3 + [4.0, 5.0], [6.0] + [np.nan] * 4])
    assert found.user.tolist() == ["x", "y"]


def test_links_of_one_window_are_an_epoch_and_repeats_are_averaged(tmp_path: Path) -> None:
    text = "time_s,ap,range_m\n10.00,gate,4\n10.04,dock,5\n10.08,gate,6\n10.21,gate,7\n"
    path = written(tmp_path, text)
    found = read_epochs(path, NAMES, EpochOptions(window_s=0.1))
    np.testing.assert_array_equal(found.links["range"][:, :2], [[5.0, 5.0], [7.0, np.nan]])
    np.testing.assert_allclose(found.time_s, [10.04, 10.21])
    assert "1 links were read more than once in an epoch: averaged" in found.notes
    assert len(read_epochs(path, NAMES)) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epoch,range_gat\n1,2\n", r"column range_gat: the site has no AP 'gat'; did you mean gate\?"),
        ("epoch,ap,range_m\n1,gate,2\n\n# c\n1,dok,2\n", r"line 5: the site has no AP 'dok'; did you mean dock\?"),
        (
            "epoch,range_gate\n1,5\n2,0\n3,0\n",
            r"line 3, column range_gate: 0 cannot be right \(2 such entries\); say --m",
        ),
        ("epoch,range_gate\n1,5\n2,-1\n3,0\n", r"line 3, .*\(2 such entries\); leave such links out by --on-bad drop"),
        ("epoch,range_gate\n1,inf\n", r"line 2, column range_gate: inf cannot be right"),
        ("epoch,range_gate\n1,far\n", r"line 2, column range_gate: 'far' is not a number"),
        ("ap,range_m\ngate,2\n", "does not say which lines belong together"),
        ("epoch,x,y\n1,2,3\n", r"has no measurement: .*It has: epoch, x, y; name them by --columns"),
        ("epoch,ap,distance\n1,gate,3\n", "none of range_m, tdoa_m and rss_dbm"),
        ("epoch,ap,range_m,range_mm\n1,gate,3,3000\n", "range_m and range_mm; keep one"),
        ("epoch,range_gate_m,range_gate_mm\n1,3,3000\n", "two columns range of AP gate"),
        ("epoch,truth_x_m,range_gate\n1,2,3\n", "needs truth_x_m and truth_y_m"),
        ("time_s,ap,range_m\n,gate,3\n", "line 2: time_s is missing"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        read_epochs(written(tmp_path, text), NAMES, EpochOptions(window_s=1.0 if text.startswith("time_s") else None))
    assert "ranges.csv" in str(refused.value)


def test_ranges_that_cannot_be_are_left_out_on_demand_and_aps_too(tmp_path: Path) -> None:
    path = written(tmp_path, "epoch,range_gate,range_dock,range_shed\n1,5,-1,9\n2,0,6,9\n")
    found = read_epochs(path, NAMES, EpochOptions(on_bad="drop", without=("shed",)))
    np.testing.assert_array_equal(found.links["range"][:, :2], [[5, np.nan], [np.nan, 6]])
    assert "range_gate: left out 1 entries that cannot be right" in found.notes


def test_epochs_know_how_many_they_are(tmp_path: Path) -> None:
    found = read_epochs(written(tmp_path, wide(RANGES, [0, 1, 2, 3, 4])), NAMES)
    assert isinstance(found, Epochs)
    assert len(found) == 3
