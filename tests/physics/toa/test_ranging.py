import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.measurements.toa import FEATURES, TimingMeasurements
from cfpos_envs.physics.toa import ranging as timing
from cfpos_envs.physics.toa.link_features import FEATURE_LAWS, draw_features, los_log_odds
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from tests.physics.toa.reference import bayes_error, difference_covariance, differencing_matrix, range_differences

MODEL = TimingModel("toa", 100.0, 64, 240e3, -30.5, 36.7, 0.1, 1e-12, 4, 0.5, 1e-9, 10.0, 2e-9)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_bandwidth_and_delay_variance_by_hand() -> None:
    # Two tones 2 Hz apart: +-1 Hz. Many tones: the flat spectrum.
    assert timing.rms_bandwidth_hz(2, 2.0) == pytest.approx(1.0)
    assert timing.rms_bandwidth_hz(1000, 1e5) == pytest.approx(timing.flat_rms_bandwidth_hz(1e8), rel=1e-6)
    # 100 MHz: beta = 28.8675 MHz; at 20 dB sigma = 1 / (sqrt(8) pi beta 10) = 0.38985 ns, 11.69 cm.
    variance = timing.delay_variance_s2(torch.tensor(100.0, dtype=torch.float64), timing.flat_rms_bandwidth_hz(100e6))
    assert float(variance.sqrt()) == pytest.approx(3.8985e-10, rel=1e-4)
    assert float(timing.range_variance_m2("toa", variance, 0.0).sqrt()) == pytest.approx(0.11687, rel=1e-4)
    assert float(timing.delay_variance_s2(torch.tensor(0.0), 1e6)) == math.inf


def test_range_variances_of_the_families_by_hand() -> None:
    # 3 ns of noise, 4 ns of clock: 5 ns or 1.499 m; a round trip halves sqrt(2 * 9 + 16 + 2) = 6 ns.
    variance = torch.tensor(9e-18, dtype=torch.float64)
    one_way = 5e-9 * SPEED_OF_LIGHT_M_S
    assert float(timing.range_variance_m2("toa", variance, 4e-9)) == pytest.approx(one_way**2)
    assert float(timing.range_variance_m2("tdoa", variance, 4e-9)) == pytest.approx(one_way**2)
    halved = timing.range_variance_m2("rtt", variance, 4e-9, math.sqrt(2) * 1e-9)
    assert float(halved) == pytest.approx((3e-9 * SPEED_OF_LIGHT_M_S) ** 2)
    # The rule of thumb: one nanosecond is 0.30 m.
    assert float(timing.range_variance_m2("toa", 0 * variance, 1e-9).sqrt()) == pytest.approx(0.30, abs=2e-3)


@pytest.mark.parametrize("family", timing.FAMILIES)
def test_drawn_ranges_have_the_stated_variance_and_no_bias(family: str) -> None:
    trials, noise_s2, sync_s, processing_s = 40_000, 4e-18, 3e-9, 5e-9
    generator = seeded()
    distance = torch.tensor([[30.0], [80.0]], dtype=torch.float64).expand(trials, 2, 1)
    clocks = timing.draw_clock_errors(generator, torch.full((trials, 2), sync_s, dtype=torch.float64))
    ranges = timing.draw_ranges(
        generator,
        family,
        distance,
        torch.full_like(distance, noise_s2),
        clocks,
        torch.zeros_like(distance),
        processing_error_std_s=processing_s,
    )
    told = timing.range_variance_m2(family, torch.tensor(noise_s2, dtype=torch.float64), sync_s, processing_s)
    error = ranges - distance
    # The sampling deviations are 0.35 % (variance of 80 000) and told / 283 (mean).
    assert float(error.square().mean() / told) == pytest.approx(1.0, abs=0.02)
    assert float(error.mean().abs() / told.sqrt()) < 0.02


def test_clock_errors_are_common_to_all_users_and_user_offsets_to_all_aps() -> None:
    distance = torch.full((5, 3, 4), 40.0, dtype=torch.float64)
    nothing = torch.zeros_like(distance)
    clocks = timing.draw_clock_errors(seeded(), torch.full((5, 3), 20e-9, dtype=torch.float64))
    offsets = torch.tensor([1e-6, -2e-6, 0.0, 5e-9], dtype=torch.float64).expand(5, 4)

    def draw(family: str) -> torch.Tensor:
        return (
            timing.draw_ranges(seeded(2), family, distance, nothing, clocks, nothing, offsets) - 40
        ) / SPEED_OF_LIGHT_M_S

    expected = clocks.unsqueeze(-1) + offsets.unsqueeze(-2)
    torch.testing.assert_close(draw("toa"), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(draw("tdoa"), expected, rtol=0, atol=1e-15)
    # A round trip knows nothing of the user's clock and half of the AP's error.
    torch.testing.assert_close(draw("rtt"), (clocks / 2).unsqueeze(-1).expand(5, 3, 4), rtol=0, atol=1e-15)
    # Differences take the user's offset out.
    differences = range_differences((40 + SPEED_OF_LIGHT_M_S * draw("tdoa")).transpose(-1, -2))
    torch.testing.assert_close(
        differences,
        (SPEED_OF_LIGHT_M_S * (clocks[:, 1:] - clocks[:, :1])).unsqueeze(1).expand(5, 4, 2),
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize(("shape", "relative_std"), [(1.0, 1.0), (4.0, 0.5), (0.5, math.sqrt(2))])
def test_excess_has_its_mean_and_spread_and_is_zero_in_line_of_sight(shape: float, relative_std: float) -> None:
    is_los = torch.arange(80_000) % 2 == 0
    excess = timing.draw_nlos_excess_m(seeded(), is_los, 10.0, shape)
    assert float(excess[is_los].abs().max()) == 0.0
    blocked = excess[~is_los]
    assert float(blocked.min()) >= 0
    # 40 000 draws: the mean is good to 0.5 to 0.7 %.
    assert float(blocked.mean()) == pytest.approx(10.0, rel=0.03)
    assert float(blocked.std()) == pytest.approx(10.0 * relative_std, rel=0.05)
    assert float(timing.draw_nlos_excess_m(seeded(), is_los, 0.0).max()) == 0.0


def test_calibration_leaves_the_noise_of_the_burst() -> None:
    burst = torch.tensor([100.0, 400.0], dtype=torch.float64)
    std = timing.calibration_std_s(burst, 1e6)
    assert std.tolist() == pytest.approx([1.12540e-8, 5.6270e-9], rel=1e-4)


def test_differencing_by_hand() -> None:
    expected = torch.tensor([[-1.0, 1, 0], [-1, 0, 1]], dtype=torch.float64)
    assert torch.equal(differencing_matrix(3), expected)
    assert torch.equal(differencing_matrix(3, 1)[0], torch.tensor([1.0, -1, 0], dtype=torch.float64))
    variance = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    assert difference_covariance(variance).tolist() == [[3.0, 1.0], [1.0, 6.0]]
    assert difference_covariance(variance, independent=True).tolist() == [[3.0, 0.0], [0.0, 6.0]]
    assert range_differences(variance, 2).tolist() == [-4.0, -3.0]


def test_differences_scatter_as_their_covariance_says() -> None:
    variance = torch.tensor([4.0, 1.0, 9.0, 2.0], dtype=torch.float64)
    white = torch.randn(100_000, 4, generator=seeded(), dtype=torch.float64)
    sampled = torch.cov(range_differences(white * variance.sqrt(), 2).T)
    torch.testing.assert_close(sampled, difference_covariance(variance, 2), rtol=0, atol=0.25)


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(2, 5), st.integers(1, 3), st.sampled_from(timing.FAMILIES))
@settings(max_examples=30, deadline=None)
def test_ranges_take_any_leading_shape(lead: list, m: int, k: int, family: str) -> None:
    distance = torch.rand(*lead, m, k, generator=seeded()) * 100
    is_los = torch.rand(*lead, m, k, generator=seeded()) < 0.5
    ranges = timing.draw_ranges(
        seeded(),
        family,
        distance,
        torch.full_like(distance, 1e-18),
        timing.draw_clock_errors(seeded(), torch.full((*lead, m), 1e-9)),
        timing.draw_nlos_excess_m(seeded(), is_los, 10.0),
        torch.zeros(*lead, k),
        1e-9,
    )
    assert ranges.shape == distance.shape
    assert bool(torch.isfinite(ranges).all())
    flipped = ranges.transpose(-1, -2)
    assert range_differences(flipped, m - 1).shape == (*lead, k, m - 1)
    assert difference_covariance(flipped.square(), 0).shape == (*lead, k, m - 1, m - 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: timing.rms_bandwidth_hz(1, 1e5), "num_subcarriers"),
        (lambda: timing.rms_bandwidth_hz(64, 0.0), "subcarrier_spacing_hz"),
        (lambda: timing.flat_rms_bandwidth_hz(0.0), "bandwidth_hz"),
        (lambda: timing.flat_rms_bandwidth_hz(math.nan), "bandwidth_hz"),
        (lambda: timing.delay_variance_s2(torch.ones(2), 0.0), "rms_bandwidth_hz"),
        (lambda: timing.delay_variance_s2(torch.tensor([1.0, -1.0]), 1e6), "snr_linear"),
        (lambda: timing.delay_variance_s2(torch.tensor([math.nan]), 1e6), "snr_linear"),
        (lambda: timing.range_variance_m2("toa", torch.ones(2), -1e-9), "sync_std_s"),
        (lambda: timing.range_variance_m2("rtt", torch.ones(2), 0.0, -1e-9), "processing_error_std_s"),
        (lambda: timing.range_variance_m2("tdao", torch.ones(2), 0.0), "did you mean tdoa"),
        (lambda: timing.draw_clock_errors(seeded(), -torch.ones(2)), "std_s"),
        (lambda: timing.draw_nlos_excess_m(seeded(), torch.ones(2) > 0, -1.0), "nlos_mean_m"),
        (lambda: timing.draw_nlos_excess_m(seeded(), torch.ones(2) > 0, 1.0, 0.0), "gamma_shape"),
        (lambda: differencing_matrix(1), "at least 2 APs"),
        (lambda: differencing_matrix(3, 3), "reference"),
        (lambda: timing.sync_preset("white-rabit"), "did you mean white_rabbit"),
        (lambda: timing.sync_preset("gnss", outdoor=False), "sky"),
    ],
)
def test_bad_numbers_are_refused_by_name(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_presets_lie_in_their_usual_ranges() -> None:
    for name, preset in timing.SYNC_PRESETS.items():
        assert preset.range_s[0] <= preset.std_s <= preset.range_s[1]
        assert timing.sync_preset(name) is preset
    assert timing.SYNC_PRESETS["ptp"].std_s == 30e-9
    assert timing.SYNC_PRESETS["perfect"].std_s == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "aoa"}, "family"),
        ({"num_subcarriers": 1}, "num_subcarriers"),
        ({"subcarrier_spacing_hz": 0.0}, "subcarrier_spacing_hz"),
        ({"noise_power_w": -1e-12}, "noise_power_w"),
        ({"tx_power_w": math.inf}, "tx_power_w"),
        ({"sync_std_s": -1e-9}, "sync_std_s"),
        ({"nlos_mean_m": math.nan}, "nlos_mean_m"),
        ({"num_antennas": 0}, "num_antennas"),
    ],
)
def test_model_refuses_what_is_no_radio(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(MODEL, **changes)


def test_model_derives_bandwidth_snr_and_variance() -> None:
    assert MODEL.bandwidth_hz == pytest.approx(15.36e6)
    assert MODEL.rms_bandwidth_hz == pytest.approx(timing.rms_bandwidth_hz(64, 240e3))
    # 10 m: -67.2 dB; 4 * 0.1 W / 1e-12 W = 116.02 dB.
    snr = MODEL.snr_linear(torch.tensor([10.0, 0.0, 1.0], dtype=torch.float64))
    assert 10 * math.log10(float(snr[0])) == pytest.approx(48.82, abs=0.01)
    # The law ends at one metre.
    assert float(snr[1]) == float(snr[2])
    # The whole pilot over the array gathers N S single entries of the response.
    single = 10 ** (-67.2 / 10) / MODEL.cfr_noise_variance
    assert float(snr[0]) == pytest.approx(single * 4 * 64, rel=1e-9)
    expected = timing.range_variance_m2("toa", timing.delay_variance_s2(snr, MODEL.rms_bandwidth_hz), 1e-9)
    torch.testing.assert_close(MODEL.range_variance_m2(snr), expected)
    assert bool((MODEL.range_variance_m2(snr, 0.0) < expected).all())
    assert hash(MODEL) == hash(dataclasses.replace(MODEL))


def test_selection_keeps_what_is_absent_absent() -> None:
    links = torch.rand(4, 3, 2, generator=seeded())
    measurements = TimingMeasurements(
        model=MODEL,
        ap_positions_m=torch.rand(4, 3, 2),
        ap_orientation_rad=torch.zeros(4, 3),
        height_diff_m=torch.zeros(4, 3),
        range_m=links,
        variance_m2=links,
        snr_db=links,
        features=torch.zeros(4, 3, 2, 5),
        valid=links > 0,
        is_los=None,
        cfr=None,
        site_ids=torch.arange(4),
    )
    some = measurements.select(torch.tensor([2, 0]))
    assert torch.equal(some.range_m, links[[2, 0]])
    assert some.site_ids.tolist() == [2, 0]
    assert some.is_los is None
    assert some.cfr is None


def test_features_follow_their_laws_and_the_classifier_reaches_the_bayes_error() -> None:
    assert len(FEATURE_LAWS) == len(FEATURES)
    is_los = torch.arange(100_000) % 2 == 0
    expected = torch.full((100_000,), -70.0)
    features = draw_features(seeded(), is_los, expected)
    assert float(features[is_los, 3].median()) == pytest.approx(50.0, rel=0.03)
    assert float(features[~is_los, 3].median()) == pytest.approx(102.0, rel=0.03)
    assert float(features[~is_los, 4].mean()) == pytest.approx(-78.0, abs=0.15)
    for rss in (expected, None):
        wrong = ((los_log_odds(features, rss) > 0) != is_los).float().mean()
        # Deviation of the share of 100 000: 0.1 %.
        assert float(wrong) == pytest.approx(bayes_error(rss is not None), abs=0.005)
    assert bayes_error() == pytest.approx(0.085, abs=5e-4)


def test_overlap_is_the_common_area_of_the_two_densities() -> None:
    axis = torch.linspace(-60, 60, 200_001, dtype=torch.float64)
    for law in FEATURE_LAWS:
        los, nlos = (
            torch.exp(-((axis - mean) / law.std).square() / 2) / (law.std * math.sqrt(2 * math.pi))
            for mean in (law.los_mean, law.nlos_mean)
        )
        area = torch.trapezoid(torch.minimum(los, nlos), axis)
        assert law.overlap == pytest.approx(float(area), abs=1e-5)
