"""What the time-based worlds draw: lines of sight, excess, clocks, noise, waveforms. Chances of failure below 1e-4."""

import math
from functools import partial

import pytest
import torch

from cfpos_envs.physics.los import los_probability
from cfpos_envs.physics.toa.bounds import unit_vectors_to
from cfpos_envs.scenarios.sites import SitePool
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.scenarios.toa.game import ToaScenario
from cfpos_envs.scenarios.toa.world import draw_drop, draw_site
from cfpos_envs.streams import Streams

C = 299_792_458.0
EXACT = {"sync": "perfect", "nlos_share": 0.0, "shadowing_db": 0.0, "tx_power_w": 1e6, "processing_error_std_s": 0.0}
FAMILIES = ("toa", "tdoa", "rtt")


def drawn(batch=200, seed=0, **options):
    """A drop, its true slant ranges [B, T, M, K] and the pool of its sites."""
    config = ToaConfig(**options)
    streams = Streams(seed, config.split)
    pool = SitePool(partial(draw_site, config), streams)
    site_ids = torch.arange(batch) % config.settings.num_sites
    drop = draw_drop(config, pool, site_ids, streams)
    aps, height = pool.stack(site_ids, "ap_positions_m"), pool.stack(site_ids, "height_diff_m")
    rounds = [unit_vectors_to(aps, height, drop.true_position_m[:, t])[1] for t in range(drop.range_m.shape[1])]
    return drop, torch.stack(rounds, dim=1), aps


def test_share_of_blocked_views_is_the_one_asked_for():
    drop, _, _ = drawn(nlos_share=0.3)
    count = drop.is_los.numel()
    assert abs((~drop.is_los).float().mean().item() - 0.3) < 4.5 * math.sqrt(0.21 / count)


def test_lines_of_sight_follow_3gpp_by_distance():
    drop, _, aps = drawn(los="inh_open_office", side_m=200.0)
    distance = torch.linalg.vector_norm(drop.true_position_m[:, 0].unsqueeze(1) - aps.unsqueeze(2), dim=-1)
    chance = los_probability("inh_open_office", distance)
    for low, high in ((0.0, 40.0), (40.0, 80.0), (80.0, 300.0)):
        chosen = (distance >= low) & (distance < high)
        expected, seen = chance[chosen], drop.is_los[chosen].float()
        std = (expected * (1 - expected)).sum().sqrt() / chosen.sum()
        assert abs((seen.mean() - expected.mean()).item()) < 4.5 * std.item()


@pytest.mark.parametrize(("shape", "variance"), [(1.0, 1.0), (4.0, 0.25)])
def test_excess_has_its_mean_and_shape_and_only_without_line_of_sight(shape, variance):
    drop, _, _ = drawn(nlos_share=0.5, nlos_mean_m=10.0, excess_shape=shape)
    excess = drop.excess_m[~drop.is_los]
    assert (drop.excess_m[drop.is_los] == 0).all()
    assert abs(excess.mean().item() - 10.0) < 4.5 * 10 * math.sqrt(variance / len(excess))
    # The fourth central moment of a gamma variable of shape k and mean 1 is (3 + 6 / k) / k^2.
    spread = math.sqrt(((3 + 6 / shape) / shape**2 - variance**2) / len(excess))
    assert abs(excess.var().item() / 100 - variance) < 4.5 * spread


def test_episodes_of_a_random_share_differ_in_it():
    drop, _, _ = drawn(nlos_share=0.6, nlos_share_random=True, num_aps=64, min_spacing_m=0.0)
    shares = (~drop.is_los).float().mean(dim=(1, 2))
    # Uniform on [0, 0.6]: mean 0.3, standard deviation 0.173; 200 episodes.
    assert abs(shares.mean().item() - 0.3) < 4.5 * 0.175 / math.sqrt(200)
    assert 0.14 < shares.std().item() < 0.21


def test_an_ap_is_wrong_by_the_same_time_for_all_its_users():
    drop, slant, _ = drawn(**{**EXACT, "sync": "ptp"}, batch=100)
    error_m = (drop.range_m - slant)[:, 0]
    assert (error_m - C * drop.clock_error_s.unsqueeze(-1)).abs().max().item() < 1e-2
    # 1600 draws of 30 ns: the standard deviation is known to 1.8 %.
    assert drop.clock_error_s.std().item() == pytest.approx(30e-9, rel=0.08)
    assert error_m.std(dim=2).max().item() < 1e-2
    assert error_m.std(dim=1).min().item() > 1.0


def test_a_users_clock_shifts_all_its_tdoa_ranges_and_no_rtt():
    for family, factor in (("tdoa", 1.0), ("rtt", 0.0)):
        drop, slant, _ = drawn(**EXACT, family=family, ue_clock_std_s=100e-9, batch=50)
        error_m = (drop.range_m - slant)[:, 0]
        expected = factor * C * drop.ue_offset_s.unsqueeze(1)
        assert (error_m - expected).abs().max().item() < 1e-2
        assert drop.ue_offset_s.std().item() == pytest.approx(100e-9, rel=0.25)


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_in_line_of_sight_have_the_told_variance(family):
    options = {"nlos_share": 0.0, "sync": "white_rabbit", "ue_clock_std_s": 0.0, "snr_db": 20.0}
    drop, slant, _ = drawn(**options, family=family)
    z = (drop.range_m - slant) / drop.variance_m2.sqrt()
    # Up to four users share an AP's clock error: at least a quarter of the 12 800 are independent.
    assert abs(z.square().mean().item() - 1.0) < 4.5 * math.sqrt(2 / (z.numel() / 4))


@pytest.mark.parametrize("family", FAMILIES)
def test_study_ranges_are_off_by_exactly_their_standard_deviation(family):
    drop, slant, _ = drawn(family=family, site="nlos-0", ue_clock_std_s=0.0)
    error = drop.range_m - slant
    assert error.std().item() == pytest.approx(0.3, rel=4.5 / math.sqrt(2 * error.numel()))
    assert drop.variance_m2.sqrt().unique().numpy() == pytest.approx(0.3, rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_waveforms_of_one_path_give_the_same_errors(family):
    options = {"family": family, "site": "nlos-0", "measurement": "waveform", "num_paths": 1, "num_antennas": 2}
    drop, slant, _ = drawn(**options, batch=12, num_subcarriers=128, ue_clock_std_s=0.0)
    error = drop.range_m - slant
    # 768 links; the estimate pays (1 + N / SNR) for not knowing the phases, less than 3 % here.
    assert error.std().item() == pytest.approx(0.3, rel=0.13)
    assert abs(error.mean().item()) < 4.5 * 0.3 / math.sqrt(error.numel())
    assert drop.cfr.shape == (12, 1, 16, 4, 2, 128)


def test_waveforms_hold_excess_and_clocks():
    options = {**EXACT, "measurement": "waveform", "num_paths": 1, "num_antennas": 2, "nlos_share": 0.5, "sync": "gnss"}
    for family in FAMILIES:
        drop, slant, _ = drawn(**options, family=family, batch=6)
        clock = drop.clock_error_s.unsqueeze(-1) * (0.5 if family == "rtt" else 1.0)
        offset = drop.ue_offset_s.unsqueeze(1) * (family == "tdoa")
        expected = slant[:, 0] + drop.excess_m + C * (clock + offset)
        assert (drop.range_m[:, 0] - expected).abs().max().item() < 0.05


def test_told_features_separate_the_classes_as_documented():
    # log10 of 30 and 12 in the laws; measured waveforms differ less.
    for options, least in (({}, 0.36), ({"measurement": "waveform", "num_antennas": 2, "num_subcarriers": 128}, 0.04)):
        drop, _, _ = drawn(nlos_share=0.5, batch=30, **options)
        log_kurtosis = torch.log10(drop.features[:, 0, ..., 0])
        assert log_kurtosis[drop.is_los].mean() > log_kurtosis[~drop.is_los].mean() + least


def test_blocked_links_are_a_share_and_their_numbers_finite():
    drop, _, _ = drawn(blocked_share=0.25)
    assert abs((~drop.valid).float().mean().item() - 0.25) < 4.5 * math.sqrt(0.1875 / drop.valid.numel())
    for value in (drop.range_m, drop.variance_m2, drop.snr_db, drop.features):
        assert torch.isfinite(value).all()


def test_moving_users_go_straight_on_at_their_speed_and_stay_inside():
    drop, _, _ = drawn(speed_m_s=20.0, round_s=1.0, batch=50)
    position = drop.true_position_m
    assert drop.range_m.shape[1] == 5
    assert ((position >= 0) & (position <= 100)).all()
    steps = torch.linalg.vector_norm(position[:, 1:] - position[:, :-1], dim=-1)
    turned = (position[:, 1:] - position[:, :-1]).diff(dim=1).abs().amax(dim=(1, 3)) > 1e-3
    assert steps.transpose(1, 2)[~turned].flatten().numpy() == pytest.approx(20.0, rel=1e-3)
    scenario = ToaScenario(ToaConfig(speed_m_s=20.0, site="nlos-0", split="test"))
    state = scenario.reset(Streams(0, "test"), 20)
    for index in range(scenario.rounds):
        state = scenario.step(state, torch.zeros(20, 16, scenario.action_size)).state
        assert torch.equal(scenario.truth(state)["true_position"], state.true_position_m[:, index])
    assert scenario.truth(state)["error_m"].median().item() < 0.5


def test_layouts_are_what_they_are_called():
    circle = drawn(batch=1, layout="circle", num_aps=20)[2][0]
    assert torch.linalg.vector_norm(circle - 50.0, dim=-1).numpy() == pytest.approx(40.0, rel=1e-4)
    uniform = drawn(batch=16, min_spacing_m=12.0)[2]
    gaps = torch.cdist(uniform, uniform) + 1e3 * torch.eye(16)
    assert gaps.min().item() >= 12.0 - 1e-3
    assert len(uniform.flatten(1).unique(dim=0)) == 16


def test_streams_are_separate():
    plain, noisy = drawn(batch=5)[0], drawn(batch=5, sync="ptp", shadowing_db=0.0)[0]
    assert torch.equal(plain.true_position_m, noisy.true_position_m)
    assert torch.equal(plain.is_los, noisy.is_los)
    assert not torch.equal(plain.range_m, noisy.range_m)
