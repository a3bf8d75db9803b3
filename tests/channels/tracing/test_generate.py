"""Making data sets: interrupted runs go on, sets grow, other recipes are refused, users are where they may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cfpos_envs.channels.tracing.generate import draw_users, generate, make_shard, summary
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.storage import DatasetError, load_users
from cfpos_envs.channels.tracing.tracer import grid_counts
from cfpos_envs.channels.tracing.ways import draw_spiral
from scripts import make_dataset
from tests.channels.tracing.mirrors import SHADOW_Y_M, MirrorTracer, contents, small_recipe


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    recipe, users = small_recipe(), {"train": 60, "test": 20}
    generate(recipe, tmp_path / "whole", users, MirrorTracer)
    broken = MirrorTracer(recipe, fail_after=7)
    with pytest.raises(KeyboardInterrupt):
        generate(recipe, tmp_path / "broken", users, lambda _: broken)
    before = contents(tmp_path / "broken")
    assert 0 < len(before) < 4
    (tmp_path / "broken" / "train-00002.partial").write_bytes(b"half a file")
    made = generate(recipe, tmp_path / "broken", users, MirrorTracer)
    assert sum(made.values()) == 4 - len(before)
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")


def test_nothing_is_traced_twice(tmp_path: Path) -> None:
    recipe = small_recipe()
    generate(recipe, tmp_path, {"train": 20}, MirrorTracer)

    def refuse(_: Recipe) -> MirrorTracer:
        raise AssertionError("nothing is missing")

    assert generate(recipe, tmp_path, {"train": 15}, refuse) == {"train": 0}


def test_a_set_grows_and_keeps_what_it_had(tmp_path: Path) -> None:
    recipe = small_recipe()
    generate(recipe, tmp_path, {"train": 20}, MirrorTracer)
    before = contents(tmp_path)
    assert generate(recipe, tmp_path, {"train": 41}, MirrorTracer) == {"train": 2}
    assert before.items() < contents(tmp_path).items()
    assert load_users(tmp_path, "train")[1].paths.num_users == 60


def test_a_damaged_shard_is_made_again(tmp_path: Path) -> None:
    recipe = small_recipe()
    generate(recipe, tmp_path, {"train": 20}, MirrorTracer)
    before = contents(tmp_path)
    (tmp_path / "train-00000.npz").write_bytes(b"PK")
    assert generate(recipe, tmp_path, {"train": 20}, MirrorTracer) == {"train": 1}
    assert contents(tmp_path) == before


def test_another_recipe_is_refused_with_what_differs(tmp_path: Path) -> None:
    generate(small_recipe(), tmp_path, {"train": 20}, MirrorTracer)
    with pytest.raises(DatasetError, match=r"another recipe .* rays: 10000, not 500; seed: 0, not 4"):
        generate(small_recipe(rays=500, seed=4), tmp_path, {"train": 20}, MirrorTracer)


def test_the_command_refuses_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(small_recipe(), tmp_path, {"train": 20}, MirrorTracer)
    assert make_dataset.main(["--out", str(tmp_path), "--num-bss", "2", "--train", "20", "--test", "0"]) == 1
    assert "another recipe" in capsys.readouterr().err


def test_the_command_tells_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(small_recipe(), tmp_path, {"train": 20, "test": 20}, MirrorTracer)
    assert make_dataset.main(["--out", str(tmp_path), "--check"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == summary(tmp_path)
    assert "100.0% of the links in line of sight, 0.0% without a path, 4.0 paths per link" in said


def test_every_help_text_has_a_setting() -> None:
    # The digest of a map is found by itself.
    assert {*make_dataset._HELP, "map_digest"} == set(Recipe.__dataclass_fields__)


def test_users_whom_no_path_reaches_are_drawn_again_and_counted() -> None:
    recipe = small_recipe(shard_users=200)
    shard = make_shard(recipe, MirrorTracer(recipe), "train", 0)
    assert (shard.positions_m[:, 1] < SHADOW_Y_M).all()
    assert (shard.paths.counts() > 0).any(axis=1).all()
    # A sixth of the area is dark: 40 of 240 expected, 5.8 standard deviation.
    assert 10 < shard.redrawn < 75


def test_splits_and_shards_share_no_user(tmp_path: Path) -> None:
    generate(small_recipe(), tmp_path, {"train": 40, "test": 20}, MirrorTracer)
    rows = np.concatenate([load_users(tmp_path, split)[1].positions_m for split in ("train", "test")])
    assert len(np.unique(rows, axis=0)) == 60


def test_outdoor_users_are_in_the_area_above_everything() -> None:
    recipe = small_recipe(clearance_m=2.0)
    users = draw_users(recipe, MirrorTracer(recipe), np.random.default_rng(0), 500)
    assert users.shape == (500, 3)
    assert (np.abs(users[:, :2]) <= [110.0, 150.0]).all()
    # Under the roof of 40 m over x > 60 nobody of at most 30 m is outdoors.
    assert (users[:, 0] <= 60.0).all()
    assert users[:, 2].min() >= 2.0
    assert users[:, 2].max() <= 30.0


def test_indoor_users_may_be_under_roofs() -> None:
    recipe = small_recipe(indoor=True)
    users = draw_users(recipe, MirrorTracer(recipe), np.random.default_rng(0), 500)
    assert (users[:, 0] > 60.0).mean() > 0.1


def test_an_area_without_room_is_refused() -> None:
    recipe = small_recipe(clearance_m=35.0)
    with pytest.raises(DatasetError, match="nearly no place for users"):
        draw_users(recipe, MirrorTracer(recipe), np.random.default_rng(0), 5)


def test_an_area_without_signal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfpos_envs.channels.tracing.generate._MAX_DRAWS", 2)
    recipe = small_recipe(centre_m=(0.0, 900.0))
    with pytest.raises(DatasetError, match="no path reaches the users"):
        make_shard(recipe, MirrorTracer(recipe), "train", 0)


def test_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown split 'validate'; a data set has train, test, spiral"):
        generate(small_recipe(), tmp_path, {"validate": 1}, MirrorTracer)


@pytest.mark.parametrize(
    ("cells", "size", "counts"), [(6, (220, 300), (2, 3)), (6, (300, 220), (3, 2)), (1, (5, 9), (1, 1))]
)
def test_cells_are_as_square_as_possible(cells: int, size: tuple[int, int], counts: tuple[int, int]) -> None:
    assert grid_counts(cells, np.array(size)) == counts


def test_spirals_are_whole_ways_that_somebody_hears() -> None:
    recipe = small_recipe(shard_users=100, batch=20)
    tracer = MirrorTracer(recipe)
    shard = make_shard(recipe, tracer, "spiral", 0)
    assert shard.positions_m.shape == (100, 3)
    assert (shard.paths.counts() > 0).any(axis=1).all()
    # 50 points are two batches of 20 and one that is filled up.
    assert tracer.calls == 3 * (100 + shard.redrawn) // 50
    for way in np.split(shard.positions_m.astype(float), 2):
        # The last point stands over the first: without it three turns are even around their axis.
        axis = way[:-1, :2].mean(axis=0)
        np.testing.assert_allclose(np.linalg.norm(way[:, :2] - axis, axis=1), 6.0, rtol=1e-4)
        steps = np.linalg.norm(np.diff(way[:, :2], axis=0), axis=1)
        np.testing.assert_allclose(steps, 2 * 6.0 * np.sin(3 * np.pi / 49), rtol=1e-4)
        np.testing.assert_allclose(way[:, 2], np.maximum(np.linspace(0.0, 30.0, 50), recipe.clearance_m), atol=1e-5)
        assert (way[:, 0] <= 60.0).all()
    paths = make_shard(recipe, MirrorTracer(recipe), "spiral", 0).paths
    np.testing.assert_array_equal(paths.delay_s, shard.paths.delay_s)


def test_a_city_without_open_places_has_no_spirals() -> None:
    recipe = small_recipe()
    with pytest.raises(DatasetError, match="no open place for a spiral"):
        draw_spiral(recipe, np.random.default_rng(0), lambda xy: np.zeros(len(xy)), lambda xy: np.full(len(xy), 99.0))
