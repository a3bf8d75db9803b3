"""The environment on stored paths: the small set that comes with the package, really traced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos_envs import make_env
from cfpos_envs.channels.scene import EccSceneConfig
from cfpos_envs.channels.sources import Users
from cfpos_envs.channels.tracing.generate import generate
from cfpos_envs.channels.tracing.source import RaytracedSource, demo_dataset
from cfpos_envs.channels.tracing.storage import DatasetError, Header, load_users
from tests.channels.tracing.mirrors import MirrorTracer, small_recipe

C_M_S = 299_792_458.0
ENV = "ecc-raytraced-v0"


@pytest.fixture(scope="module")
def source() -> RaytracedSource:
    return RaytracedSource(EccSceneConfig(source="raytraced", num_paths=32))


def still(source: RaytracedSource, split: str, count: int | None = None) -> tuple:
    users = source.users(split, None if count is None else torch.arange(count))
    return users, source.paths(users, torch.zeros(len(users.index), 1, 3))


def test_the_shipped_set_is_small_and_whole() -> None:
    folder = demo_dataset()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 400_000
    header = Header.read(folder)
    assert header.tracer.startswith("sionna-rt")
    assert [load_users(folder, split)[1].paths.num_users for split in ("train", "test")] == [400, 200]


def test_lines_of_sight_are_as_long_as_the_distance(source: RaytracedSource) -> None:
    users, paths = still(source, "train")
    distance = torch.cdist(users.position_m, source.bs_positions_m)
    length = paths.delay_s[:, 0] * C_M_S
    there = paths.gain[:, 0].abs() > 0
    # No path is shorter than the straight line; lines of sight are just as long, and few links have none at all.
    assert (length - distance[..., None] > -0.02)[there].all()
    lit = source.line_of_sight(users)
    excess = torch.where(there, length - distance[..., None], torch.inf).amin(dim=-1)
    assert (excess[lit] < 0.02).all()
    assert 0.3 < lit.float().mean() < 0.7
    # Free space in the line of sight: lambda / (4 pi d), but for the tilt of the vertical antennas' polarisation.
    shortest = torch.where(there, length, torch.inf).argmin(dim=-1, keepdim=True)
    gain = paths.gain[:, 0].abs().gather(-1, shortest).squeeze(-1)[lit]
    free_space = C_M_S / 3.5e9 / (4 * np.pi * distance[lit])
    torch.testing.assert_close(gain, free_space, rtol=0.02, atol=0)


def test_lines_of_sight_point_at_the_user(source: RaytracedSource) -> None:
    users, paths = still(source, "test")
    away = torch.nn.functional.normalize(users.position_m[:, None] - source.bs_positions_m, dim=-1)
    length = paths.delay_s[:, 0] * C_M_S
    first = torch.where(paths.gain[:, 0].abs() > 0, length, torch.inf).argmin(dim=-1)
    direction = paths.direction[:, 0].gather(2, first[..., None, None].expand(-1, -1, 1, 3)).squeeze(2)
    lit = source.line_of_sight(users)
    torch.testing.assert_close(direction[lit], away[lit], rtol=0, atol=1e-3)


def test_strongest_paths_come_first(source: RaytracedSource) -> None:
    _, paths = still(source, "test")
    assert (paths.gain.abs().diff(dim=-1) <= 0).all()


def test_splits_share_no_place(source: RaytracedSource) -> None:
    train, test = source.users("train"), source.users("test")
    assert torch.cdist(train.position_m, test.position_m).min() > 0
    generator = torch.Generator().manual_seed(0)
    for split, stored in (("train", train), ("calibrate", train), ("test", test)):
        drawn = source.draw_users(generator, 50, split)
        assert torch.isin(drawn.index, stored.index).all()


def test_users_move_a_metre_and_no_further(source: RaytracedSource) -> None:
    users = source.users("train", torch.arange(3))
    step = torch.tensor([0.6, 0.0, 0.8])
    moved = source.paths(users, step.expand(3, 2, 3))
    assert moved.gain.shape[:3] == (3, 2, 6)
    with pytest.raises(ValueError, match="moved by 1 m at most"):
        source.paths(users, 1.1 * step.expand(3, 2, 3))


def test_moving_environments_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"mobility='spiral'.*use mobility='static'"):
        make_env(ENV, mobility="spiral", num_envs=2, seed=0).reset()


def test_links_without_a_path_are_legal() -> None:
    env = make_env(ENV, num_envs=64, seed=0)
    observations = env.reset()
    received = env.measurements
    silent = ~received.valid
    assert 0.1 < silent.float().mean() < 0.6
    assert received.valid.any(dim=-1).all()
    assert not received.csi[silent].abs().any()
    assert torch.isfinite(observations).all()


def test_clock_offset_shifts_all_delays() -> None:
    plain, shifted = (make_env(ENV, num_envs=8, seed=0, clock_offset_ns=offset) for offset in (0.0, 100.0))
    plain.reset()
    shifted.reset()
    assert torch.equal(plain.measurements.valid, shifted.measurements.valid)
    assert not torch.allclose(plain.measurements.csi, shifted.measurements.csi)


def test_a_persons_own_set_is_taken(tmp_path: Path) -> None:
    generate(small_recipe(), tmp_path, {"train": 40, "test": 20}, MirrorTracer)
    env = make_env(ENV, dataset=str(tmp_path), num_bs=2, num_envs=4, seed=0)
    env.reset()
    assert env.measurements.valid.all()
    assert env.measurements.csi.shape[2] == 2


def test_points_of_a_spiral_are_users_of_their_own(tmp_path: Path) -> None:
    generate(small_recipe(), tmp_path, {"train": 20, "test": 20, "spiral": 20}, MirrorTracer)
    source = RaytracedSource(EccSceneConfig(dataset=str(tmp_path), num_bs=2))
    way, test = source.users("spiral"), source.users("test")
    assert (torch.cdist(way.position_m, test.position_m) > 0).all()
    paths = source.paths(way, torch.zeros(20, 1, 3))
    lengths = (way.position_m[:, None] - source.bs_positions_m).norm(dim=-1)
    found = torch.where(paths.gain[:, 0].abs() > 0, paths.delay_s[:, 0] * C_M_S, torch.inf).amin(dim=-1)
    torch.testing.assert_close(found, lengths, rtol=1e-4, atol=0)
    with pytest.raises(ValueError, match="users of test and spiral in one batch"):
        source.paths(Users(way.position_m, torch.cat((way.index[:10], test.index[:10]))), torch.zeros(20, 1, 3))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "has 2 base stations; set num_bs=2"),
        ({"num_bs": 2, "carrier_hz": 2.6e9}, "was traced at 3.5e[+]09 Hz; set carrier_hz"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, options: dict, said: str) -> None:
    generate(small_recipe(), tmp_path, {"train": 20}, MirrorTracer)
    with pytest.raises(DatasetError, match=said):
        make_env(ENV, dataset=str(tmp_path), **options)


def test_a_missing_set_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"make one: python scripts/make_dataset.py --out"):
        make_env(ENV, dataset=str(tmp_path / "none"))


def test_users_from_elsewhere_are_refused(source: RaytracedSource) -> None:
    users = source.users("train", torch.arange(2))
    users.index[0] = -1
    with pytest.raises(ValueError, match="these users are not stored"):
        source.paths(users, torch.zeros(2, 1, 3))
