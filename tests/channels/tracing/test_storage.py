"""What is written is what is read; what is damaged or belongs elsewhere is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import DatasetError, Header, Paths, Shard, load_users, read_shard, write_shard
from tests.channels.tracing.mirrors import BS_M, MirrorTracer, small_recipe

_NAMES = ("delay_s", "bs_azimuth_rad", "bs_zenith_rad", "ue_azimuth_rad", "ue_zenith_rad", "reflections", "kind")


def random_paths(users: int, bss: int, width: int, seed: int, max_paths: int = 99, range_db: float = 300.0) -> Paths:
    """Any paths; the delay of a path is its amplitude, so that it can be recognised after sorting."""
    rng = np.random.default_rng(seed)
    valid = rng.random((users, bss, width)) < 0.5
    amplitude = rng.random((users, bss, width)) + 0.1
    fields = {name: rng.integers(0, 7, (users, bss, width)) for name in _NAMES}
    return Paths.from_padded({**fields, "delay_s": amplitude, "amplitude": amplitude}, valid, max_paths, range_db)


@settings(deadline=None)
@given(users=st.integers(1, 5), bss=st.integers(1, 3), width=st.integers(1, 6), seed=st.integers(0, 999))
def test_links_are_sorted_and_found_again(users: int, bss: int, width: int, seed: int) -> None:
    paths = random_paths(users, bss, width, seed)
    table = paths.padded()
    assert np.array_equal((table["amplitude"] != 0).sum(-1), paths.counts())
    assert (np.diff(np.abs(table["amplitude"]), axis=-1) <= 0).all()
    np.testing.assert_array_equal(table["delay_s"], table["amplitude"].real)
    order = np.random.default_rng(seed).permutation(users)
    chosen = paths.select(order).padded()
    for name, values in table.items():
        width_then = chosen[name].shape[-1]
        np.testing.assert_array_equal(chosen[name], values[order][..., :width_then])
    both = Paths.concatenate([paths.select(np.arange(1)), paths.select(np.arange(users))])
    assert np.array_equal(both.counts(), np.concatenate([paths.counts()[:1], paths.counts()]))


def test_only_the_strongest_within_range_are_kept() -> None:
    amplitude = np.array([[[0.5, 1.0, 0.01, 0.2]]])
    fields = {name: np.zeros((1, 1, 4)) for name in _NAMES} | {"amplitude": amplitude}
    # 0.01 is 40 dB below 1.
    kept = Paths.from_padded(fields, amplitude > 0, 9, 39.9).amplitude
    np.testing.assert_array_equal(kept, np.array([1.0, 0.5, 0.2], dtype=np.complex64))
    kept = Paths.from_padded(fields, amplitude > 0, 2, 60.0).amplitude
    np.testing.assert_array_equal(kept, np.array([1.0, 0.5], dtype=np.complex64))


def stored_set(folder: Path, recipe: Recipe) -> None:
    """One shard of training users."""
    Header(recipe, BS_M.astype(np.float32), -np.ones(3), np.ones(3), "mirrors 1").write(folder)
    positions = np.random.default_rng(0).random((recipe.shard_users, 3), dtype=np.float32)
    shard = Shard(positions, MirrorTracer(recipe).trace(positions), 3)
    write_shard(folder / "train-00000.npz", recipe, shard)


def test_a_shard_is_read_as_written(tmp_path: Path) -> None:
    recipe = small_recipe()
    stored_set(tmp_path, recipe)
    header, shard = load_users(tmp_path, "train")
    written = MirrorTracer(recipe).trace(shard.positions_m)
    assert header.recipe == recipe
    assert shard.redrawn == 3
    np.testing.assert_array_equal(shard.positions_m, np.random.default_rng(0).random((20, 3), dtype=np.float32))
    for name, values in written.padded().items():
        np.testing.assert_array_equal(shard.paths.padded()[name], values)
    assert load_users(tmp_path, "train", limit=7)[1].paths.num_users == 7
    assert not list(tmp_path.glob("*.partial"))


def test_more_users_than_there_are_name_the_command(tmp_path: Path) -> None:
    stored_set(tmp_path, small_recipe())
    with pytest.raises(DatasetError, match=r"has 20 users of split 'train', 21 are wanted; .*--train 21"):
        load_users(tmp_path, "train", limit=21)
    with pytest.raises(DatasetError, match="has 0 users of split 'test'"):
        load_users(tmp_path, "test")


def test_no_data_set_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"recipe.json is missing.*make-dataset --out"):
        load_users(tmp_path / "nothing", "train")


def test_a_shard_of_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    stored_set(tmp_path, small_recipe())
    other = small_recipe(seed=5)
    with pytest.raises(DatasetError, match=f"belongs to recipe {small_recipe().hash}, not {other.hash}"):
        read_shard(tmp_path / "train-00000.npz", other)


def test_a_truncated_shard_is_refused(tmp_path: Path) -> None:
    stored_set(tmp_path, small_recipe())
    file = tmp_path / "train-00000.npz"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DatasetError, match="not a readable shard"):
        read_shard(file, small_recipe())


def test_pickles_are_never_read(tmp_path: Path) -> None:
    stored_set(tmp_path, small_recipe())
    file = tmp_path / "train-00000.npz"
    with np.load(file) as arrays:
        kept = dict(arrays)
    np.savez(file, **{**kept, "amplitude": np.array([{"code": 1}], dtype=object)})
    with pytest.raises((DatasetError, ValueError)):
        read_shard(file, small_recipe())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hash": "0" * 16}, "states hash 0000000000000000, its recipe has"),
        ({"format": 99}, "has format 99, this version reads 1"),
        ({"recipe": {"scene": "paris"}}, "scene is 'paris'"),
        ({"bs_positions_m": None}, "cannot be read"),
    ],
)
def test_a_changed_recipe_file_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    stored_set(tmp_path, small_recipe())
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DatasetError, match=said):
        Header.read(tmp_path)
