"""Sites and drops: who shares what with whom, and that a measurement carries what the config says it carries."""

import math
from functools import partial

import pytest
import torch

from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.physics.geometry import displacement, nearest_image
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.dcp.game import DcpScenario
from cfpos_envs.scenarios.dcp.world import draw_site
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.streams import Streams

SMALL = {"num_aps": 9, "num_ues": 2, "num_antennas": 4, "num_sites": 3}


def fresh(seed=0, batch=6, **options):
    config = DcpConfig(**{**SMALL, **options})
    scenario = DcpScenario(config)
    return scenario, scenario.reset(Streams(seed, config.split), batch)


def test_training_and_evaluation_share_no_site_and_no_map():
    train, test = (SitePool(partial(draw_site, DcpConfig(**SMALL)), Streams(3, split)) for split in ("train", "test"))
    for first in range(3):
        for second in range(3):
            assert not torch.equal(train[first].ap_positions_m, test[second].ap_positions_m)
            assert not torch.equal(train[first].shadowing_maps, test[second].shadowing_maps)


def test_a_site_does_not_depend_on_the_order_of_asking():
    forward, backward = (SitePool(partial(draw_site, DcpConfig(**SMALL)), Streams(3)) for _ in range(2))
    one = [forward[index].shadowing_maps for index in (0, 1, 2)]
    other = [backward[index].shadowing_maps for index in (2, 1, 0)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_changing_the_shadowing_leaves_layout_and_drop():
    _, clear = fresh(site="clean")
    _, dark = fresh(site="shadowed")
    assert torch.equal(clear.ap_positions_m, dark.ap_positions_m)
    assert torch.equal(clear.true_position_m, dark.true_position_m)
    assert not torch.equal(clear.rss_dbm, dark.rss_dbm)


def test_changing_the_antennas_leaves_layout_and_drop():
    _, few = fresh(num_antennas=4)
    _, many = fresh(num_antennas=8)
    assert torch.equal(few.ap_orientation_rad, many.ap_orientation_rad)
    assert torch.equal(few.true_position_m, many.true_position_m)


def residual_db(scenario, state):
    links = link_geometry(
        state.ap_positions_m,
        state.ap_orientation_rad,
        state.height_diff_m,
        state.true_position_m[:, 0],
        scenario.radio.side_m,
        scenario.radio.wrap,
    )
    return state.rss_dbm - predicted_rss_dbm(scenario.radio, links)


def test_without_shadowing_the_rss_scatters_by_its_sampling_noise_alone():
    scenario, state = fresh(site="clean", num_antennas=8, batch=400)
    residual = residual_db(scenario, state)
    # 7 200 links; 0.33 dB is the closed form sqrt(E tr R^2 / T) / tr R averaged over the scattering.
    assert residual.std().item() == pytest.approx(0.34, abs=0.05)
    assert residual.mean().item() == pytest.approx(0.0, abs=0.05)


def test_shadowing_adds_its_standard_deviation():
    scenario, state = fresh(site="shadowed", num_sites=40, batch=400)
    assert residual_db(scenario, state).std().item() == pytest.approx(4.0, rel=0.1)


def test_a_third_of_the_aps_is_biased_by_5_db():
    pool = SitePool(partial(draw_site, DcpConfig(site="miscalibrated", **{**SMALL, "num_aps": 36})), Streams(0))
    for index in range(3):
        bias = pool[index].rss_bias_db[0]
        assert int((bias != 0).sum()) == 12
        assert set(bias.abs().tolist()) == {0.0, 5.0}
        assert torch.equal(bias != 0, pool[index].bearing_noise_rad > 0)
        assert pool[index].orientation_error_rad.abs().max().item() <= math.radians(5.0)


def test_a_quarter_of_the_links_is_8_db_weaker():
    options = {"shadowing_db": 0.0, "nlos_share": 0.25, "batch": 600}
    scenario, state = fresh(**options)
    weak = (residual_db(scenario, state) < -4.0).float().mean().item()
    links = 600 * 18
    assert abs(weak - 0.25) < 4.5 * math.sqrt(0.25 * 0.75 / links) + 0.003


def test_moving_users_keep_their_speed_and_stay_inside():
    for wrap in (True, False):
        _, state = fresh(speed_m_s=30.0, round_s=0.5, wrap=wrap, batch=50)
        path = state.true_position_m
        assert path.shape == (50, 6, 2, 2)
        assert path.min() >= 0
        assert path.max() <= 100
        moved = torch.linalg.vector_norm(nearest_image(path[:, 1:] - path[:, :-1], 100.0, wrap), dim=-1)
        assert moved.max().item() <= 15.0 + 1e-3
        # Reflection shortens a step, nothing else does.
        assert moved.median().item() == pytest.approx(15.0, abs=1e-3)


def test_each_round_of_a_moving_user_is_measured_anew():
    scenario, state = fresh(speed_m_s=30.0, round_s=0.5)
    step = scenario.step(state, torch.zeros(6, 9, scenario.action_size))
    assert not torch.equal(step.state.rss_dbm, state.rss_dbm)
    assert torch.equal(step.state.rss_dbm, state.sequence_rss_dbm[:, 1])


def test_fixed_spacing_is_kept_on_cf_200():
    pool = SitePool(partial(draw_site, DcpConfig(site="cf-200")), Streams(1))
    positions = pool[0].ap_positions_m
    gaps = torch.linalg.vector_norm(displacement(positions, positions, 200.0, False), dim=-1)
    assert (gaps + 1e9 * torch.eye(25)).min().item() >= 25.0
    assert torch.allclose(pool[0].ap_orientation_rad, torch.full((25,), math.pi / 2))


def test_users_of_cf_200_keep_away_from_the_aps():
    _, state = fresh(site="cf-200", num_aps=25, batch=100, num_antennas=2)
    vectors = displacement(state.ap_positions_m, state.true_position_m[:, 0], 200.0, False)
    assert torch.linalg.vector_norm(vectors, dim=-1).min().item() >= 5.5
