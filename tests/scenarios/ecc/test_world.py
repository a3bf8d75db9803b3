"""The world of the edge-cloud games: CSI of users in a fixed scene, pools of it, ways through it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from cfpos_envs.channels.embedded import EmbeddedCity
from cfpos_envs.channels.sources import Users
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.scenarios.ecc import mobility
from cfpos_envs.scenarios.ecc.config import SITE_PRESETS, EccConfig
from cfpos_envs.scenarios.ecc.pool import draw_snapshots
from cfpos_envs.scenarios.ecc.world import CsiWorld, Snapshots, shared_world
from cfpos_envs.streams import Streams

CONFIG = EccConfig(site="urban-small", num_slots=2)


def world(config: EccConfig = CONFIG) -> CsiWorld:
    return shared_world(config.settings, "cpu")


def still(count: int, seed: int = 0, split: str = "train", config: EccConfig = CONFIG) -> tuple[Users, Snapshots]:
    streams = Streams(seed, split)
    users = world(config).source.draw_users(streams["drop"], count, split)
    return users, world(config).measure(streams, users, torch.zeros(count, 1, 3))


def test_training_and_test_see_the_same_streets_at_other_places() -> None:
    train, test = EmbeddedCity(CONFIG.settings), EmbeddedCity(dataclasses.replace(CONFIG, split="test").settings)
    assert torch.equal(train.box_min_m, test.box_min_m)
    assert torch.equal(train.bs_positions_m, test.bs_positions_m)
    other = EmbeddedCity(dataclasses.replace(CONFIG.settings, scene_seed=1))
    assert not torch.equal(train.bs_positions_m, other.bs_positions_m)
    assert not torch.isclose(still(50)[0].position_m, still(50, split="test")[0].position_m).any(dim=-1).any()


@pytest.mark.parametrize("site", SITE_PRESETS)
def test_every_station_sees_some_of_its_users_and_not_all(site: str) -> None:
    source = EmbeddedCity(SITE_PRESETS[site])
    points = source.draw_users(Streams(1)["drop"], 1000, "train").position_m
    seen = source.line_of_sight(points).float().mean(dim=0)
    assert ((seen > 0.25) & (seen < 0.75)).all(), seen


def test_csi_is_a_function_of_the_place() -> None:
    settings = dataclasses.replace(CONFIG.settings, snr_db=150.0, slot_jitter_rad=0.0)
    quiet = EccConfig(site="urban-small", num_slots=2, snr_db=150.0, slot_jitter_rad=0.0)
    assert quiet.settings == settings
    users, first = still(20, config=quiet)
    again = world(quiet).measure(Streams(99), users, torch.zeros(20, 1, 3))
    inner = (first.csi.conj() * again.csi).sum(dim=(-1, -2))[..., 0].abs()
    norms = first.csi[..., 0, :, :].flatten(-2).norm(dim=-1) * again.csi[..., 0, :, :].flatten(-2).norm(dim=-1)
    torch.testing.assert_close(inner, norms, rtol=1e-3, atol=0)  # equal but for the slots' phases
    moved = world(quiet).measure(Streams(99), users, torch.full((20, 1, 3), 0.5))
    assert ((moved.csi.conj() * again.csi).sum(dim=(-1, -2))[..., 0].abs() < 0.9 * norms).float().mean() > 0.25


def test_estimates_come_nearer_with_power_and_lmmse_beats_ls_in_noise() -> None:
    def error(estimator: str, snr_db: float) -> float:
        loud = EccConfig(site="urban-small", num_slots=1, slot_jitter_rad=0.0, snr_db=snr_db, estimator=estimator)
        here = world(loud)
        users = here.source.draw_users(Streams(1)["drop"], 200, "train")
        taken = here.measure(Streams(2), users, torch.zeros(200, 1, 3)).csi
        truth = here.measure(Streams(2), users, torch.zeros(200, 1, 3))  # same phases: same streams
        assert torch.equal(truth.csi, taken)
        clean = EccConfig(site="urban-small", num_slots=1, slot_jitter_rad=0.0, snr_db=190.0, estimator="ls")
        exact = world(clean).measure(Streams(2), users, torch.zeros(200, 1, 3)).csi
        return float((taken - exact).abs().square().mean())

    ls_low, ls_high = error("ls", -20.0), error("ls", 20.0)
    assert ls_low / ls_high == pytest.approx(1e4, rel=0.05)
    assert error("lmmse", -20.0) < 0.7 * ls_low


def test_what_the_network_knows_are_averages_over_users() -> None:
    system: CsiSystem = world().system
    _, taken = still(1500, seed=5)
    log_gain = side_gain(taken.csi[:, 0]).log10()
    # Standard deviations of means over 1500 and 512 users, five of them.
    margin = 5 * torch.tensor(system.log_gain_std) * math.sqrt(1 / 1500 + 1 / 512)
    assert ((log_gain.mean(dim=0) - torch.tensor(system.log_gain_mean)).abs() < margin).all()
    standard = system.standardise_log_gain(side_gain(taken.csi[:, 0]), taken.valid[:, 0])
    assert standard.std(dim=0).sub(1).abs().max() < 0.2


def test_a_clock_offset_turns_the_subcarriers_of_all_stations_alike() -> None:
    offset = EccConfig(site="urban-small", num_slots=1, snr_db=150.0, slot_jitter_rad=0.0, clock_offset_ns=100.0)
    plain = EccConfig(site="urban-small", num_slots=1, snr_db=150.0, slot_jitter_rad=0.0)
    users = world(plain).source.draw_users(Streams(1)["drop"], 40, "train")
    here = world(offset).measure(Streams(2), users, torch.zeros(40, 1, 3)).csi[:, 0, :, 0]
    there = world(plain).measure(Streams(2), users, torch.zeros(40, 1, 3)).csi[:, 0, :, 0]
    turned = (here[..., 1:] * here[..., :-1].conj() * (there[..., 1:] * there[..., :-1].conj()).conj()).sum(
        dim=(-1, -2)
    )
    delay_ns = -1e9 * turned.angle() / (2 * math.pi * 720e3)  # [users, stations]
    assert (delay_ns.amax(dim=1) - delay_ns.amin(dim=1)).median() < 1.0
    assert delay_ns.median(dim=1).values.abs().max() < 101
    assert delay_ns.median(dim=1).values.std() == pytest.approx(100 / math.sqrt(3), rel=0.3)


def test_pools_are_their_seed_and_split() -> None:
    pool, again = (list(draw_snapshots(CONFIG, 70, seed=1, chunk=32)) for _ in range(2))
    assert [len(part.position_m) for part in pool] == [32, 32, 6]
    assert pool[0].csi.shape == (32, 6, 2, 8, 24)
    for left, right in zip(pool, again):
        for name, value in vars(left).items():
            assert torch.equal(value, getattr(right, name))
    (test,) = draw_snapshots(dataclasses.replace(CONFIG, split="test"), 70, seed=1)
    assert not torch.isin(torch.cat([part.position_m for part in pool]), test.position_m).all(dim=1).any()
    with pytest.raises(ValueError, match="at least 1"):
        next(draw_snapshots(CONFIG, 0, seed=1))
    with pytest.raises(ValueError, match="static"):
        next(draw_snapshots(dataclasses.replace(CONFIG, mobility="spiral"), 5, seed=1))


def test_moves_are_uniform_in_a_ball() -> None:
    steps = mobility.draw_moves(torch.Generator().manual_seed(0), 20_000, 2.0)
    assert float(steps.norm(dim=-1).max()) <= 2.0
    # Mean radius 3 R / 4, and R^2 / 5 along every axis.
    assert float(steps.norm(dim=-1).mean()) == pytest.approx(1.5, abs=0.01)
    torch.testing.assert_close(steps.square().mean(dim=0), torch.full((3,), 0.8), atol=0.03, rtol=0)
    torch.testing.assert_close(steps.mean(dim=0), torch.zeros(3), atol=0.03, rtol=0)


def test_pools_of_a_traced_city_hold_other_places_if_users_are_moved() -> None:
    config = EccConfig(source="raytraced", num_slots=2)
    (still_pool,) = draw_snapshots(config, 200, seed=1)
    (moved,) = draw_snapshots(config, 200, seed=1, move_m=0.5)
    steps = (moved.position_m - still_pool.position_m).norm(dim=-1)
    assert float(steps.min()) > 0
    assert float(steps.max()) <= 0.5 + 1e-4
    # Phases turn over centimetres, autocorrelations over subcarriers by the metre; nobody's link is lost.
    assert torch.equal(moved.valid, still_pool.valid)
    for lag, low, high in ((0, 0.3, 1.0), (1, 0.8, 1.0)):
        first, second = (part.csi[..., 0, :, :] for part in (still_pool, moved))
        if lag:
            first, second = (rows[..., lag:] * rows[..., :-lag].conj() for rows in (first, second))
        alike = (first * second.conj()).sum(dim=(-1, -2)).abs() / (
            first.norm(dim=(-1, -2)) * second.norm(dim=(-1, -2))
        ).clamp(min=1e-30)
        assert low < float(alike[moved.valid].median()) < high
    wrong: tuple[tuple[EccConfig, float, str], ...] = (
        (config, 1.5, "can move its users by 1 m at most; use move_m=0"),
        (config, -0.1, "can move its users by 1 m at most"),
        (CONFIG, 0.5, "draws users anywhere; use move_m=0 and a larger pool"),
    )
    for there, move_m, said in wrong:
        with pytest.raises(ValueError, match=said):
            next(draw_snapshots(there, 5, seed=1, move_m=move_m))


def test_a_spiral_by_hand() -> None:
    way = mobility.spiral(torch.tensor([10.0, 20.0]), torch.tensor(0.0), 0.0, 30.0, 13)
    assert way.shape == (13, 3)
    torch.testing.assert_close(way[0], torch.tensor([16.0, 20.0, 0.0]))
    torch.testing.assert_close(way[1], torch.tensor([10.0, 26.0, 2.5]))  # a quarter of a turn later
    torch.testing.assert_close(way[4], torch.tensor([16.0, 20.0, 10.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(way[12], torch.tensor([16.0, 20.0, 30.0]), atol=1e-4, rtol=0)


def test_a_walk_by_hand() -> None:
    corner = torch.tensor([[0.0, 0.0, 1.0], [10.0, 0.0, 1.0], [10.0, 5.0, 1.0]])
    way = mobility.walk(corner, torch.tensor([0.0, 4.0, 10.0, 12.0, 15.0, 99.0]))
    wanted = [[0, 0, 1], [4, 0, 1], [10, 0, 1], [10, 2, 1], [10, 5, 1], [10, 5, 1]]
    torch.testing.assert_close(way, torch.tensor(wanted, dtype=torch.float32))


@pytest.mark.parametrize("kind", ["spiral", "waypoint"])
def test_users_move_through_free_space(kind: str) -> None:
    config = dataclasses.replace(CONFIG, mobility=kind, rounds=20, speed_m_s=4.0, round_s=0.5)
    source = world().source
    users, displacement = mobility.draw_ways(config, source, Streams(3), 30)
    ways = users.position_m.unsqueeze(1) + displacement
    steps = ways.diff(dim=1).norm(dim=-1)
    assert source.is_free(ways).float().mean() > 0.9
    if kind == "waypoint":
        assert steps.max() <= 2.0 + 1e-3
        assert steps.median() == pytest.approx(2.0, abs=1e-3)
    else:
        assert steps.std() < 0.05
        torch.testing.assert_close(ways[:, -1, 2], torch.full((30,), 15.0))


class Stiff:
    """A source that can hardly move its users."""

    name, max_displacement_m = "stiff", 1.0
    area_min_m, area_max_m = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    bs_positions_m = bs_orientation_rad = box_min_m = box_max_m = torch.zeros(0, 3)

    def draw_users(self, generator, count, split):
        raise AssertionError("must not be asked")

    paths = is_free = sees = stored_users = draw_users


def test_a_source_that_cannot_move_users_is_named() -> None:
    with pytest.raises(ValueError, match="stiff can move its users by 1 m only"):
        mobility.draw_ways(dataclasses.replace(CONFIG, mobility="spiral"), Stiff(), Streams(0), 2)


def test_lmmse_is_least_squares_until_noise_is_strong() -> None:
    # Two of six base stations: a third of the work.
    site = dataclasses.replace(SITE_PRESETS["urban"], num_bs=2, num_slots=1)

    def csi(**changes: object) -> tuple[torch.Tensor, torch.Tensor]:
        made, streams = CsiWorld(dataclasses.replace(site, **changes)), Streams(5, "nmse")  # type: ignore[arg-type]
        users = made.source.draw_users(streams["drop"], 256, "test")
        taken = made.measure(streams, users, torch.zeros(256, 1, 3))
        return taken.csi[:, 0].flatten(2), taken.valid[:, 0]

    truth, valid = csi(snr_db=200.0, estimator="ls")

    def nmse_db(**changes: object) -> float:
        error = (csi(**changes)[0] - truth).abs().square().sum(dim=-1) / truth.abs().square().sum(dim=-1)
        return 10 * math.log10(float(error[valid].median()))

    least_squares = nmse_db(estimator="ls")
    assert least_squares == pytest.approx(-25.6, abs=2.5)
    assert nmse_db(estimator="lmmse") == pytest.approx(least_squares, abs=0.05)
    assert 3 < nmse_db(estimator="ls", snr_db=0.0) - nmse_db(estimator="lmmse", snr_db=0.0) < 5
