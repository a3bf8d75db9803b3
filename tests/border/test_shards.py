"""Shards with entries that cannot be are refused, naming the file and the array; right ones are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cfpos_envs import make_env
from cfpos_envs.channels.tracing.source import demo_dataset
from cfpos_envs.channels.tracing.storage import DatasetError, Header, Shard, load_users, write_shard
from tests.channels.tracing.mirrors import BS_M, MirrorTracer, small_recipe

_RECIPE = small_recipe()


def changed_set(folder: Path, **changes: object) -> Path:
    """A whole data set of 20 users in the open, and then arrays of its shard put through functions."""
    rng = np.random.default_rng(0)
    positions = (rng.random((20, 3)) * [100, 100, 2] - [60, 60, -1]).astype(np.float32)
    header = Header(_RECIPE, BS_M.astype(np.float32), positions.min(0), positions.max(0), "mirrors 1")
    header.write(folder)
    path = folder / "train-00000.npz"
    write_shard(path, _RECIPE, Shard(positions, MirrorTracer(_RECIPE).trace(positions), 0))
    with np.load(path) as archive:
        arrays = dict(archive)
    for name, change in changes.items():
        arrays[name] = change(arrays[name]).astype(arrays[name].dtype)
    np.savez_compressed(path, **arrays)
    return path


def put(value: complex, at: int = 7):
    """The array with one entry replaced."""

    def change(array: np.ndarray) -> np.ndarray:
        array[at] = value
        return array

    return change


def test_a_right_set_is_read(tmp_path: Path) -> None:
    changed_set(tmp_path)
    assert load_users(tmp_path, "train")[1].paths.num_users == 20


@pytest.mark.parametrize(
    ("changes", "array", "said"),
    [
        ({"amplitude": put(np.nan)}, "amplitude", "leave out what is no path"),
        ({"amplitude": put(complex(0, np.inf))}, "amplitude", "leave out what is no path"),
        ({"amplitude": lambda a: 20 * np.log10(np.abs(a))}, "amplitude", "path gain above 0 dB"),
        ({"amplitude": lambda a: a[::-1]}, "amplitude", "strongest first"),
        ({"delay_s": put(-1.0)}, "delay_s", "leave those out"),
        ({"delay_s": put(np.nan)}, "delay_s", "leave out what is no path"),
        ({"delay_s": lambda a: a * 1e9}, "delay_s", "nanoseconds"),
        ({"delay_s": lambda a: a * 1e6}, "delay_s", "microseconds"),
        ({"delay_s": lambda a: a * 299_792_458.0}, "delay_s", "lengths in metres"),
        ({"delay_s": lambda a: a - a.min()}, "delay_s", "c tau is"),
        ({"delay_s": lambda a: 0 * a}, "delay_s", "normalised"),
        ({"positions_m": put(np.nan, 3)}, "positions_m", "row 3"),
        ({"bs_azimuth_rad": np.degrees}, "bs_azimuth_rad", "degrees"),
        ({"bs_zenith_rad": np.degrees}, "bs_zenith_rad", "degrees"),
        ({"ue_azimuth_rad": np.degrees}, "ue_azimuth_rad", "degrees"),
        ({"ue_zenith_rad": lambda a: np.pi / 2 - a}, "ue_zenith_rad", "radians, 0 to pi"),
        ({"bs_azimuth_rad": lambda a: a + 0.3}, "bs_azimuth_rad", "not the direction in which direct paths leave"),
        ({"ue_azimuth_rad": lambda a: -a}, "ue_azimuth_rad", "not the direction in which direct paths are seen"),
        ({"link_start": lambda a: a[::-1]}, "", "links that do not fit"),
        ({"bs_azimuth_rad": lambda a: a[:-1]}, "", "links that do not fit"),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_array(
    tmp_path: Path, changes: dict[str, object], array: str, said: str
) -> None:
    path = changed_set(tmp_path, **changes)
    with pytest.raises(DatasetError, match=said) as caught:
        load_users(tmp_path, "train")
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert array in message
    assert "\n" not in message


def test_kilometres_are_refused(tmp_path: Path) -> None:
    """Positions in kilometres, of users and base stations alike: only then do they fit each other."""
    changed_set(tmp_path, positions_m=lambda a: a / 1000)
    header = Header.read(tmp_path)
    Header(_RECIPE, header.bs_positions_m / 1000, header.low_m / 1000, header.high_m / 1000, "mirrors 1").write(
        tmp_path
    )
    with pytest.raises(DatasetError, match=r"train-00000.npz: delay_s .*positions_m looks like kilometres"):
        load_users(tmp_path, "train")


def test_units_are_seen_without_a_direct_path(tmp_path: Path) -> None:
    changed_set(tmp_path, kind=lambda a: np.ones_like(a), delay_s=lambda a: a * 1e9)
    with pytest.raises(DatasetError, match=r"delay_s is over 100 times as long .*nanoseconds"):
        load_users(tmp_path, "train")


def test_rounded_delays_and_positions_are_fine(tmp_path: Path) -> None:
    changed_set(tmp_path, delay_s=lambda a: np.round(a, 9), positions_m=lambda a: np.round(a, 1))
    assert load_users(tmp_path, "train")[1].paths.num_users == 20


def test_the_shipped_set_passes() -> None:
    assert load_users(demo_dataset(), "train")[1].paths.num_users == 400


def test_the_environment_says_it(tmp_path: Path) -> None:
    changed_set(tmp_path, delay_s=put(-1.0))
    with pytest.raises(DatasetError, match=r"train-00000.npz: delay_s is -1"):
        make_env("ecc-raytraced-v0", dataset=str(tmp_path), num_bs=2, carrier_hz=3.5e9)
