import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics import waveform
from cfpos_envs.physics.arrays import ula_response
from cfpos_envs.physics.toa.delay_estimation import first_peak_delay_s, music_delay_s
from cfpos_envs.physics.toa.ranging import delay_variance_s2, rms_bandwidth_hz
from cfpos_envs.physics.waveform import WaveformPaths

SPACING_HZ = 240e3


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def one_path(trials: int, antennas: int, subcarriers: int, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Noiseless responses of unit gain and their delays, a little before zero to two microseconds."""
    generator = seeded(seed)
    delay = torch.rand(trials, generator=generator) * 2e-6 - 50e-9
    ones = torch.ones(trials)
    paths = waveform.draw_paths(
        generator, ones > 0, delay, ones, 3 * torch.rand(trials, generator=generator), 1, 0, 0, 0
    )
    return waveform.frequency_response(paths, antennas, 0.5, subcarriers, SPACING_HZ), delay


def two_paths(trials: int, separation_cells: float, second_db: float, subcarriers: int = 128) -> tuple:
    generator = seeded(2)
    delay = torch.rand(trials, 1, generator=generator) * 300e-9 + 20e-9
    later = delay + separation_cells / (subcarriers * SPACING_HZ)
    size = torch.tensor([1.0, 10 ** (second_db / 20)]).expand(trials, 2)
    gain = torch.polar(size, 2 * math.pi * torch.rand(trials, 2, generator=generator))
    angle = 3 * torch.rand(trials, 2, generator=generator)
    paths = WaveformPaths(gain, torch.cat((delay, later), dim=-1), angle)
    cfr = waveform.frequency_response(paths, 4, 0.5, subcarriers, SPACING_HZ)
    variance = subcarriers * 4 / 10**3.5
    return waveform.add_noise(generator, cfr, variance), variance, delay.squeeze(-1), 1 / (subcarriers * SPACING_HZ)


def variance_ratio(snr_db: float, trials: int, antennas: int, subcarriers: int, estimate=first_peak_delay_s) -> float:
    cfr, delay = one_path(trials, antennas, subcarriers)
    snr = 10 ** (snr_db / 10)
    variance = antennas * subcarriers / snr
    error = estimate(waveform.add_noise(seeded(3), cfr, variance), SPACING_HZ, variance) - delay
    told = delay_variance_s2(torch.tensor(snr), rms_bandwidth_hz(subcarriers, SPACING_HZ))
    return float(error.double().square().mean() / told)


def test_response_of_two_paths_by_hand() -> None:
    paths = WaveformPaths(
        torch.tensor([2.0 + 0j, 1j]), torch.tensor([0.0, 0.25 / SPACING_HZ]), torch.tensor([math.pi / 2, math.pi / 3])
    )
    cfr = waveform.frequency_response(paths, 2, 0.5, 3, SPACING_HZ)
    # Broadside and 60 degrees; a quarter period per subcarrier: phases +90, 0, -90 degrees on the three.
    steering = ula_response(torch.tensor(math.pi / 3), 2)
    rotation = torch.tensor([1j, 1.0, -1j])
    torch.testing.assert_close(cfr, 2.0 + 1j * steering.unsqueeze(-1) * rotation, rtol=1e-5, atol=1e-5)


def test_noise_has_its_variance_and_profile_its_threshold() -> None:
    zeros = torch.zeros(4000, 2, 32, dtype=torch.complex64)
    noise = waveform.add_noise(seeded(), zeros, 3.0)
    assert float(noise.abs().square().mean()) == pytest.approx(3.0, rel=0.02)
    for hann in (False, True):
        profile = waveform.delay_profile(noise, 4, hann)
        # Without padding the mean of a bin is variance / S, Hann 1.5 times that.
        mean = 3.0 / 32 * (1.5 if hann else 1.0)
        assert float(profile.mean()) == pytest.approx(mean, rel=0.05)
        level = waveform.noise_threshold(3.0, 2, 32, hann)
        passed = (profile.amax(dim=-1) > level).float().mean()
        assert float(passed) < 0.004


def test_peak_of_the_profile_is_the_gain_at_the_delay() -> None:
    bins = 64 * 8
    delay = torch.tensor([40.0 / bins / SPACING_HZ, -16.0 / bins / SPACING_HZ])
    paths = WaveformPaths(torch.tensor([[3.0 + 0j], [0.5j]]), delay.unsqueeze(-1), torch.ones(2, 1))
    cfr = waveform.frequency_response(paths, 4, 0.5, 64, SPACING_HZ)
    for hann in (False, True):
        profile = waveform.delay_profile(cfr, 8, hann)
        torch.testing.assert_close(profile.amax(dim=-1), torch.tensor([9.0, 0.25]), rtol=1e-4, atol=0)
        assert (profile.argmax(dim=-1) - waveform.early_bins(bins)).tolist() == [40, -16]


@pytest.mark.parametrize("snr_db", [18.0, 30.0])
def test_waveform_variance_is_the_statistical_one_above_threshold(snr_db: float) -> None:
    # 3000 trials: the ratio is good to 2.6 %.
    assert variance_ratio(snr_db, 3000, antennas=2, subcarriers=64) == pytest.approx(1.0, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("antennas", "subcarriers"), [(1, 64), (4, 64), (4, 256), (8, 300)])
@pytest.mark.parametrize("snr_db", [19.0, 22.0, 30.0, 40.0])
def test_waveform_variance_over_combs_and_arrays(antennas: int, subcarriers: int, snr_db: float) -> None:
    # 20 000 trials: good to 1 %. Powers of antennas are added without their phases, which costs N / SNR.
    expected = 1 + antennas / 10 ** (snr_db / 10)
    assert variance_ratio(snr_db, 20_000, antennas, subcarriers) == pytest.approx(expected, abs=0.05)


def test_below_the_threshold_estimates_are_outliers_but_numbers() -> None:
    assert variance_ratio(8.0, 500, 2, 64) > 10
    zeros = torch.zeros(3, 2, 16, dtype=torch.complex64)
    for estimate in (first_peak_delay_s, music_delay_s):
        assert bool(torch.isfinite(estimate(zeros, SPACING_HZ, 0.0)).all())
    assert bool(torch.isfinite(waveform.channel_features(zeros, SPACING_HZ, 0.1, 0.0)).all())


def test_music_comes_near_the_bound_with_one_path() -> None:
    assert 0.9 < variance_ratio(35.0, 800, 2, 64, music_delay_s) < 1.8


def test_music_separates_paths_that_merge_in_the_profile() -> None:
    # One resolution cell apart, the second 6 dB stronger: the profile has one peak, at the stronger one.
    cfr, variance, delay, cell = two_paths(300, 1.0, 6.0)
    profile = (first_peak_delay_s(cfr, SPACING_HZ, variance) - delay) / cell
    music = (music_delay_s(cfr, SPACING_HZ, variance) - delay) / cell
    assert float(profile.median()) > 0.5
    assert float(music.abs().quantile(0.9)) < 0.1


@pytest.mark.parametrize("second_db", [6.0, 0.0, -10.0])
def test_first_of_two_separate_paths_is_found_even_if_weaker(second_db: float) -> None:
    cfr, variance, delay, cell = two_paths(300, 6.0, second_db)
    for estimate in (first_peak_delay_s, music_delay_s):
        error = (estimate(cfr, SPACING_HZ, variance) - delay) / cell
        assert float(error.abs().quantile(0.95)) < 0.15


def test_drawn_paths_have_their_power_and_line_of_sight() -> None:
    is_los = torch.arange(20_000) % 2 == 0
    ones = torch.ones(20_000)
    paths = waveform.draw_paths(seeded(), is_los, 1e-7 * ones, 0.25 * ones, ones, 12, 50e-9, 6.0, 0.1)
    power = paths.gain.abs().square()
    for chosen in (is_los, ~is_los):
        assert float(power[chosen].sum(dim=-1).mean()) == pytest.approx(0.25, rel=0.03)
    factor = 10**0.6
    direct = 0.25 * factor / (factor + 1)
    torch.testing.assert_close(power[is_los, 0], torch.full((10_000,), direct), rtol=1e-4, atol=0)
    assert bool((paths.angle_rad[is_los, 0] == 1.0).all())
    assert bool((paths.delay_s[:, 0] == 1e-7).all())
    assert bool((paths.delay_s[:, 1:] >= 1e-7).all())
    assert float(paths.angle_rad[:, 1:].std()) == pytest.approx(0.1, rel=0.03)


def test_features_of_one_and_of_two_paths_by_hand() -> None:
    # Far apart and equally strong: half the power at 0 and half at T = 500 ns, so mean excess and spread are T / 2.
    subcarriers, separation = 512, 500e-9
    paths = WaveformPaths(
        torch.tensor([[1.0 + 0j, 0j], [1.0 + 0j, 1.0 + 0j]]),
        torch.tensor([[0.0, 0.0], [0.0, separation]]),
        torch.ones(2, 2),
    )
    cfr = waveform.frequency_response(paths, 1, 0.5, subcarriers, SPACING_HZ)
    single, double = waveform.channel_features(cfr, SPACING_HZ, 0.1, 0.0)
    cell_ns = 1e9 / (subcarriers * SPACING_HZ)
    # One tap of S: kurtosis (1 - 1/S)^-1 ((1 - 1/S)^3 + 1/S^3) S, practically S - 3.
    assert float(single[0]) == pytest.approx(subcarriers - 3, rel=0.02)
    assert float(double[0]) < float(single[0])
    assert 0 < float(single[1]) < 2 * cell_ns
    assert float(single[3]) < cell_ns
    assert float(double[2]) - float(single[2]) == pytest.approx(250.0, abs=cell_ns / 4)
    assert float(double[3]) == pytest.approx(250.0, rel=0.02)
    # 100 mW and gain 1: 20 dBm; two paths 23 dBm.
    assert float(single[4]) == pytest.approx(20.0, abs=1e-3)
    assert float(double[4]) == pytest.approx(23.0, abs=0.05)


def test_features_tell_line_of_sight_from_none() -> None:
    is_los = torch.arange(600) % 2 == 0
    ones = torch.ones(600)
    paths = waveform.draw_paths(seeded(), is_los, 1e-7 * ones, ones, ones, 12, 80e-9, 9.0, 0.3)
    variance = 128 * 4 / 1e4
    cfr = waveform.add_noise(seeded(2), waveform.frequency_response(paths, 4, 0.5, 128, SPACING_HZ), variance)
    features = waveform.channel_features(cfr, SPACING_HZ, 0.1, variance)
    los, nlos = features[is_los].median(dim=0).values, features[~is_los].median(dim=0).values
    assert float(los[0]) > float(nlos[0])
    assert bool((los[1:4] <= nlos[1:4]).all())
    assert float(los[3]) < 0.8 * float(nlos[3])


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 3), st.integers(6, 40), st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_waveforms_take_any_leading_shape(lead: list, antennas: int, subcarriers: int, num_paths: int) -> None:
    generator = seeded()
    ones = torch.ones(tuple(lead))
    is_los = torch.rand(tuple(lead), generator=generator) < 0.5
    paths = waveform.draw_paths(generator, is_los, 1e-7 * ones, ones, ones, num_paths, 1e-7, 3.0, 0.2)
    cfr = waveform.add_noise(
        generator, waveform.frequency_response(paths, antennas, 0.5, subcarriers, SPACING_HZ), 1e-3
    )
    assert cfr.shape == (*lead, antennas, subcarriers)
    for estimate in (first_peak_delay_s, music_delay_s):
        delay = estimate(cfr, SPACING_HZ, 1e-3)
        assert delay.shape == tuple(lead)
        assert bool((delay.abs() < 1 / SPACING_HZ).all())
    features = waveform.channel_features(cfr, SPACING_HZ, 0.1, 1e-3)
    assert features.shape == (*lead, 5)
    assert bool(torch.isfinite(features).all())


def test_bad_numbers_are_refused_by_name() -> None:
    cfr, _ = one_path(2, 1, 16)
    ones = torch.ones(2)
    draw = (seeded(), ones > 0, ones, ones, ones)
    calls = {
        "num_paths": lambda: waveform.draw_paths(*draw, 0, 0.0, 0.0, 0.0),
        "spreads": lambda: waveform.draw_paths(*draw, 2, -1.0, 0.0, 0.0),
        "noise variance must not be negative": lambda: waveform.add_noise(seeded(), cfr, -1.0),
        "oversampling": lambda: waveform.delay_profile(cfr, 0),
        "subcarrier_spacing_hz": lambda: first_peak_delay_s(cfr, 0.0, 1.0),
        "noise_variance": lambda: music_delay_s(cfr, SPACING_HZ, -1.0),
        "relative_threshold_db": lambda: first_peak_delay_s(cfr, SPACING_HZ, 1.0, 3.0),
        "thin out": lambda: music_delay_s(cfr[..., :5], SPACING_HZ, 1.0),
        "max_paths": lambda: music_delay_s(cfr, SPACING_HZ, 1.0, 0),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()
