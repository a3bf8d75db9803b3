"""A person's own CSI from file to trained network: split by place, trained, saved, asked about another file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from agents import load_agent, make_agent
from baselines import make_policy
from cfpos_envs import evaluate, make_env
from cfpos_envs.importers.arrays import CsiFile, read_csi
from cfpos_envs.scenarios.ecc.csi_config import EccCsiConfig
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.scenarios.ecc.stored import sample_file, split_rows, stored_world
from cfpos_envs.scenarios.ecc.worlds import stored_count
from tests.border.csi_sample import sample

ENV = "ecc-csi-v0"
BRIEF = {"train_samples": 64, "train_steps": 3, "batch_size": 32}
SMALL: dict[str, Any] = {"adcpm": {"channels": (4,)}, "transformer": {"size": 8, "hidden": 8}}
AGENT = {"samples": 256, "batch_size": 64, "bits": 4, "fusion_hidden": 64, "evaluations": 1}


def own(count: int = 90, stations: int = 3, antennas: int = 5, subcarriers: int = 7, seed: int = 0) -> CsiFile:
    """CSI of other sizes than any game here, without slots, at antennas on a ring."""
    generator = np.random.default_rng(seed)
    places = generator.uniform((0, 0, 1), (30, 20, 2), (count, 3))
    stands = np.array([[0.0, 0.0, 4.0], [30.0, 0.0, 4.0], [15.0, 20.0, 4.0]])[:stations]
    angle = 2 * np.pi * np.arange(antennas) / antennas
    ring = 0.05 * np.stack((np.zeros(antennas), np.cos(angle), np.sin(angle)), axis=-1)
    away = places[:, None] - stands
    length = np.linalg.norm(away, axis=-1, keepdims=True)
    steering = np.exp(2j * np.pi / 0.08 * (away / length) @ ring.T) / length
    tones = np.exp(-2j * np.pi * 1e6 * np.arange(subcarriers) * length / 3e8)
    csi = steering[..., None] * tones[..., None, :]
    return CsiFile(
        path="own",
        csi=csi[:, :, None].astype(np.complex64),
        valid=np.ones((count, stations), bool),
        bs_positions_m=stands,
        bs_orientation_rad=np.zeros((stations, 3)),
        positions_m=places,
        carrier_hz=299_792_458.0 / 0.08,
        subcarrier_spacing_hz=1e6,
        array_shape=(1, antennas),
        spacing_wavelengths=0.5,
        element_positions_m=ring,
        names=tuple("abc"[:stations]),
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("csi") / "own.npz"
    own().write(file)
    return file


def test_the_sample_is_what_the_documentation_says() -> None:
    stored, made = read_csi(sample_file(), labelled=True), sample(288)
    np.testing.assert_allclose(stored.positions_m, made.positions_m, atol=2e-3)
    assert np.abs(stored.csi - made.csi).max() < 1e-3 * np.abs(made.csi).max()
    assert stored.csi.shape == (288, 4, 1, 4, 12)
    assert sample_file().stat().st_size < 500_000


def test_blocks_of_the_ground_share_nobody(path: Path) -> None:
    file, config = read_csi(path), EccCsiConfig(data=str(path), split_block_m=4.0)
    assert file.positions_m is not None
    rows = split_rows(file, config)
    assert sorted(np.concatenate(list(rows.values()))) == list(range(90))
    blocks = np.floor((file.positions_m[:, :2] - file.positions_m[:, :2].min(axis=0)) / 4.0).astype(int)
    kinds = {name: {tuple(block) for block in blocks[found].tolist()} for name, found in rows.items()}
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        assert not kinds[one] & kinds[other]
    assert len(rows["test"]) == pytest.approx(18, abs=5)
    assert len(rows["validation"]) == pytest.approx(9, abs=5)
    assert any(
        (split_rows(file, config.changed(split_seed=s))["test"].tolist() != rows["test"].tolist()) for s in (1, 2)
    )


def test_groups_stay_together(path: Path) -> None:
    file = dataclasses.replace(read_csi(path), group=np.arange(90) % 9)
    rows = split_rows(file, EccCsiConfig(split_by="group"))
    kinds = [set((found % 9).tolist()) for found in rows.values()]
    assert sum(map(len, kinds)) == 9
    assert set.union(*kinds) == set(range(9))
    with pytest.raises(ValueError, match="split_by=group, but there is no array 'group'"):
        split_rows(dataclasses.replace(file, group=None), EccCsiConfig(split_by="group"))


def test_silent_snapshots_are_in_no_split(path: Path) -> None:
    file = read_csi(path)
    valid = file.valid.copy()
    valid[5] = False
    rows = split_rows(dataclasses.replace(file, valid=valid), EccCsiConfig())
    assert 5 not in np.concatenate(list(rows.values()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_block_m": 1e3}, "lie in 1 blocks of 1e.03 m, but training, validation and test need one each"),
        ({"data": "nowhere.npz"}, "data=nowhere.npz: there is no such file"),
        ({"test_share": 0.95}, "leave nothing to train"),
        ({"split_by": "plce"}, "did you mean place"),
        ({"lost_bs": 3}, "leaves none of num_bs=3"),
        ({"antenna_order": "sionnna"}, r"own.npz: antenna_order='sionnna' .*did you mean sionna"),
        ({"split": "tests"}, "did you mean test"),
    ],
)
def test_options_that_cannot_be_are_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        make_env(ENV, **{"data": str(path), **changes})
    assert "\n" not in str(caught.value)


def test_what_a_station_hears_is_what_was_stored(path: Path) -> None:
    file = read_csi(path)
    assert file.positions_m is not None
    env = make_env(ENV, num_envs=40, seed=3, data=str(path), split="test")
    env.reset()
    measured, truth = env.measurements, env.truth()["true_position"][:, 0].double().numpy()
    assert measured.csi.shape == (40, 1, 3, 1, 5, 7)
    for episode in (0, 17, 39):
        row = int(np.linalg.norm(file.positions_m - truth[episode], axis=1).argmin())
        assert np.allclose(file.positions_m[row], truth[episode], atol=1e-4)
        assert np.array_equal(measured.csi[episode, 0].numpy(), file.csi[row])


def test_averages_are_those_of_training_alone(path: Path) -> None:
    file = read_csi(path)
    world = stored_world(EccCsiConfig(data=str(path)), "cpu")
    rows = world.source.rows["train"].numpy()
    gain = np.log10(np.sqrt((np.abs(file.csi[rows].astype(complex)) ** 2).sum(axis=(2, 3, 4))))
    np.testing.assert_allclose(world.system.log_gain_mean, gain.mean(axis=0), rtol=1e-5)


def test_a_pool_has_every_snapshot_once(path: Path) -> None:
    config = EccCsiConfig(data=str(path))
    count = stored_count(config)
    assert count is not None
    pool = torch.cat([part.position_m for part in draw_snapshots(config, count, seed=1, chunk=16)])
    assert len({tuple(place) for place in pool.tolist()}) == count
    twice = torch.cat([part.position_m for part in draw_snapshots(config, 2 * count, seed=1, chunk=16)])
    assert len({tuple(place) for place in twice.tolist()}) == count


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "own.npz"
    own(count=60).write(file)
    first = make_env(ENV, num_envs=1, data=str(file)).scenario.world
    own(count=75, seed=1).write(file)
    second = make_env(ENV, num_envs=1, data=str(file)).scenario.world
    assert sum(map(len, first.source.rows.values())) == 60
    assert sum(map(len, second.source.rows.values())) == 75


@pytest.mark.parametrize("name", ["transformer", "adcpm", "mfcnet", "csi-scalar-q", "csi-knn", "music"])
def test_every_estimator_learns_and_plays(path: Path, name: str) -> None:
    options = {"references": 64} if name == "csi-knn" else {} if name == "music" else {**BRIEF, **SMALL.get(name, {})}
    env = make_env(ENV, num_envs=1, seed=0, data=str(path), split="test")
    policy = make_policy(name, env, **options)
    result = evaluate(env, policy, episodes=8, seed=7)
    assert np.isfinite(result.errors).all()
    # Nobody is further off than the area is long; who knows the directions is near.
    assert result.errors.max() < 50.0
    if name == "music":
        assert result.mean < 0.5
    if name == "csi-knn":
        assert result.mean < 6.0


def test_trained_saved_and_asked_about_another_file(path: Path, tmp_path: Path) -> None:
    env = make_env(ENV, num_envs=4, seed=0, data=str(path))
    agent = make_agent("ecc-fast", env, **AGENT)
    found = agent.train(log_dir=tmp_path / "run", progress=False)
    assert 0 < found["mean_m"] < 40
    again = load_agent(tmp_path / "run", make_env(ENV, num_envs=1, seed=0, data=str(path), split="test"))
    other = dataclasses.replace(own(count=12, seed=5), positions_m=None)
    other.write(tmp_path / "walk.npz")
    asked = read_csi(tmp_path / "walk.npz").measurements(again.system)
    answer = again.locate(asked)
    assert answer.position.shape == (12, 1, 3)
    assert answer.valid.all()
    torch.testing.assert_close(answer.position, agent.locate(asked).position)
    # Another network of base stations is another game.
    own(stations=2).write(tmp_path / "two.npz")
    with pytest.raises(ValueError, match="num_bs=3, this environment has 2"):
        load_agent(tmp_path / "run", make_env(ENV, num_envs=1, data=str(tmp_path / "two.npz")))


def test_coordinates_of_utm_are_played_near_zero_and_answered_as_given(tmp_path: Path) -> None:
    near, shift = own(), np.array([691_000.0, 5_411_000.0, 0.0])
    assert near.positions_m is not None
    far = dataclasses.replace(near, positions_m=near.positions_m + shift, bs_positions_m=near.bs_positions_m + shift)
    far.write(tmp_path / "far.npz")
    env = make_env(ENV, num_envs=1, seed=0, data=str(tmp_path / "far.npz"), split="test")
    assert max(map(abs, env.scenario.system.area_max_m)) < 100
    assert env.scenario.world.origin_m[1] > 5e6
    policy = make_policy("csi-knn", env, references=64)
    assert evaluate(env, policy, episodes=8, seed=7).mean < 6.0
    stored = read_csi(tmp_path / "far.npz")
    found = policy.locate(stored.measurements(env.scenario.system)).position[:, 0].numpy()
    assert stored.positions_m is not None
    assert np.median(np.linalg.norm(found - stored.positions_m, axis=1)) < 6.0
