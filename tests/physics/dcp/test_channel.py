import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cfpos_envs.physics.arrays import angular_power, ula_response
from cfpos_envs.physics.dcp import channel
from cfpos_envs.physics.units import dbm_to_watts, thermal_noise_w, watts_to_dbm
from tests.physics.dcp.snapshots import draw_channels, ls_estimate, pilot_book, receive_pilots, sample_covariance

# Every comparison of distributions below fails by chance with a probability under 1e-4 (and has a fixed seed).
CHANCE = 1e-4


def test_pilots_are_orthogonal_with_energy_tau() -> None:
    for size in (1, 2, 6, 7):
        pilots = pilot_book(size)
        gram = pilots.mH @ pilots
        torch.testing.assert_close(gram, size * torch.eye(size, dtype=torch.complex64), atol=1e-5, rtol=0)
        torch.testing.assert_close(pilots.abs(), torch.ones(size, size))


def test_more_users_than_pilots_are_refused() -> None:
    with pytest.raises(ValueError, match=r"3 UEs need 3 pilots, got 2; raise num_pilots"):
        receive_pilots(torch.Generator(), torch.zeros(3, 4, dtype=torch.complex64), pilot_book(2), 0.1, 1e-9)


def test_ls_estimate_is_exact_without_noise() -> None:
    generator = torch.Generator().manual_seed(1)
    channels = torch.randn(5, 3, 4, dtype=torch.complex64, generator=generator)
    pilots = pilot_book(6)
    received = receive_pilots(generator, channels, pilots, 0.1, 0.0)
    assert received.shape == (5, 4, 6)
    torch.testing.assert_close(ls_estimate(received, pilots, 3, 0.1), channels, atol=1e-5, rtol=1e-4)


def test_ls_noise_has_variance_sigma2_over_p_tau() -> None:
    generator = torch.Generator().manual_seed(2)
    channels, pilots = torch.zeros(4000, 3, 4, dtype=torch.complex64), pilot_book(5)
    received = receive_pilots(generator, channels, pilots, 0.2, 0.5)
    errors = ls_estimate(received, pilots, 3, 0.2)
    # 48 000 exponential values with mean 0.5 / (0.2 * 5) = 0.5: relative deviation of the mean 0.46 %.
    assert float(errors.abs().square().mean()) == pytest.approx(0.5, rel=0.02)
    assert float(errors.mean().abs()) < 0.02
    # Circular: no power in the square.
    assert float(errors.square().mean().abs()) < 0.02


def test_path_angles_are_laplacian_with_the_given_deviation() -> None:
    spread = math.radians(10.0)
    angles = channel.path_angles(torch.Generator().manual_seed(3), torch.full((1000,), 0.7), 20, spread)
    assert angles.shape == (1000, 20)
    # Kurtosis 6: relative deviation of the standard deviation sqrt(5 / 20 000) / 2 = 0.8 %.
    assert float(angles.std()) == pytest.approx(spread, rel=0.04)
    fit = stats.kstest(angles.flatten().numpy(), stats.laplace(0.7, spread / math.sqrt(2)).cdf)
    assert fit.pvalue > CHANCE
    assert stats.kstest(angles.flatten().numpy(), stats.norm(0.7, spread).cdf).pvalue < CHANCE


def test_covariance_is_the_sum_of_outer_products() -> None:
    angles = torch.tensor([[0.3, 1.2, 2.0], [-0.4, 1.5, 3.0]], dtype=torch.float64)
    gain = torch.tensor([2.0, 0.5], dtype=torch.float64)
    covariance = channel.channel_covariance(angles, gain, 4, 0.5)
    for row in range(2):
        explicit = torch.zeros(4, 4, dtype=torch.complex128)
        for angle in angles[row]:
            steering = ula_response(angle, 4)
            explicit += gain[row] / 3 * torch.outer(steering, steering.conj())
        torch.testing.assert_close(covariance[row], explicit)


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 5), st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_covariance_is_a_hermitian_matrix_of_known_trace(lead: list, size: int, paths: int) -> None:
    angles = 3 * torch.rand(*lead, paths, generator=torch.Generator().manual_seed(size))
    covariance = channel.channel_covariance(angles, torch.full(lead, 0.25), size, 0.5)
    assert covariance.shape == (*lead, size, size)
    torch.testing.assert_close(covariance, covariance.mH)
    trace = torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1)
    torch.testing.assert_close(trace, torch.full(lead, 0.25 * size))
    assert float(torch.linalg.eigvalsh(covariance.to(torch.complex128)).min()) > -1e-6


def test_channels_have_the_covariance_of_the_model() -> None:
    generator = torch.Generator().manual_seed(4)
    angles, gain = torch.tensor([0.3, 0.8, 1.4]), torch.tensor(2.0)
    channels = draw_channels(generator, angles, gain, 4, 0.5, 40_000)
    assert channels.shape == (40_000, 4)
    # An entry of the estimate deviates by up to 2 / sqrt(40 000) = 0.01.
    difference = sample_covariance(channels) - channel.channel_covariance(angles, gain, 4, 0.5)
    assert float(difference.abs().max()) < 0.06
    assert float(channels.mean(dim=0).abs().max()) < 0.05


def explicit_covariances(count: int, snapshots: int, noise_w: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample covariances of one UE through eqs. (1) to (3), another UE sending at the same time; and their mean."""
    generator = torch.Generator().manual_seed(5)
    angles, gain = torch.tensor([[0.4, 0.9, 1.3], [1.9, 2.1, 2.7]]), torch.tensor([1.5, 0.7])
    channels = draw_channels(generator, angles.expand(count, 2, 3), gain.expand(count, 2), 4, 0.5, snapshots)
    pilots = pilot_book(3)
    received = receive_pilots(generator, channels.transpose(1, 2), pilots, 0.4, noise_w)
    estimates = ls_estimate(received, pilots, 2, 0.4)
    expected = channel.channel_covariance(angles[0], gain[0], 4, 0.5) + noise_w / (0.4 * 3) * torch.eye(4)
    return sample_covariance(estimates[:, :, 0]), expected


@pytest.mark.parametrize("snapshots", [3, 4, 10])
def test_wishart_draw_and_explicit_snapshots_agree_in_distribution(snapshots: int) -> None:
    explicit, expected = explicit_covariances(3000, snapshots, 0.3)
    drawn = channel.draw_sample_covariance(
        torch.Generator().manual_seed(6), expected.expand(3000, 4, 4).contiguous(), snapshots
    )
    torch.testing.assert_close(drawn, drawn.mH)
    features = {
        "trace": lambda r: torch.diagonal(r, dim1=-2, dim2=-1).real.sum(dim=-1),
        "trace of the square": lambda r: r.abs().square().sum(dim=(-2, -1)),
        "first power": lambda r: r[:, 0, 0].real,
        "last power": lambda r: r[:, 3, 3].real,
        "real part": lambda r: r[:, 0, 1].real,
        "imaginary part": lambda r: r[:, 2, 0].imag,
        "corner": lambda r: r[:, 3, 0].real,
        **{f"beam {beam}": lambda r, beam=beam: angular_power(r)[:, beam] for beam in range(4)},
        "contrast": lambda r: angular_power(r)[:, 3] / angular_power(r).sum(dim=-1),
    }
    for name, feature in features.items():
        test = stats.ks_2samp(feature(explicit).numpy(), feature(drawn).numpy())
        # Twelve comparisons at three snapshot counts share the chance.
        assert test.pvalue > CHANCE / 36, name


@pytest.mark.parametrize("snapshots", [2, 8, 100])
def test_wishart_draw_has_the_mean_and_variance_of_theory(snapshots: int) -> None:
    covariance = channel.channel_covariance(torch.tensor([0.4, 0.9, 1.3]), torch.tensor(1.0), 4, 0.5) + 0.1 * torch.eye(
        4
    )
    count = 40_000
    drawn = channel.draw_sample_covariance(
        torch.Generator().manual_seed(7), covariance.expand(count, 4, 4).contiguous(), snapshots
    )
    # cov(R_ii, R_jj) = |R_ij|^2 / T and var(R_ij) = R_ii R_jj / T.
    deviation = math.sqrt(1.21 / (snapshots * count))
    assert float((drawn.mean(dim=0) - covariance).abs().max()) < 6 * deviation
    trace = torch.diagonal(drawn, dim1=-2, dim2=-1).real.sum(dim=-1)
    variance = float(covariance.abs().square().sum()) / snapshots
    assert float(trace.var()) == pytest.approx(variance, rel=0.08)


def test_wishart_draw_survives_75_db_between_signal_and_noise() -> None:
    covariance = channel.channel_covariance(
        torch.tensor([1.0], dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), 8, 0.5
    )
    noisy = covariance + 10**-7.5 * torch.eye(8, dtype=torch.float64)
    draw = channel.draw_sample_covariance
    drawn = draw(torch.Generator().manual_seed(8), noisy, 100)
    assert bool(torch.isfinite(drawn.abs()).all())
    single = draw(torch.Generator().manual_seed(8), noisy, 100, torch.complex64)
    assert single.dtype == torch.complex64
    torch.testing.assert_close(single, drawn.to(torch.complex64), rtol=1e-3, atol=1e-3)


def test_sample_covariance_is_the_average_outer_product() -> None:
    estimates = torch.tensor([[1.0 + 0j, 1j], [1j, 2.0 + 0j]])
    # [1, j]: [[1, -j], [j, 1]]; [j, 2]: [[1, 2j], [-2j, 4]].
    expected = torch.tensor([[1.0 + 0j, 0.5j], [-0.5j, 2.5 + 0j]])
    torch.testing.assert_close(sample_covariance(estimates), expected)


def test_rss_is_power_times_pilots_times_trace() -> None:
    assert float(channel.rss_w(torch.diag(torch.tensor([1.0, 2.0, 3.0])).to(torch.complex64), 0.1, 6)) == pytest.approx(
        3.6
    )


def test_decibel_milliwatts() -> None:
    torch.testing.assert_close(watts_to_dbm(torch.tensor([1.0, 1e-3, 0.1])), torch.tensor([30.0, 0.0, 20.0]))
    power = torch.tensor([2e-13, 5.0])
    torch.testing.assert_close(dbm_to_watts(watts_to_dbm(power)), power, rtol=1e-5, atol=0)


def test_thermal_noise_of_200_khz_is_minus_114_dbm() -> None:
    # -173.98 dBm/Hz + 53.01 dB + 7 dB.
    noise_dbm = 10 * math.log10(thermal_noise_w(200e3, 7.0)) + 30
    assert noise_dbm == pytest.approx(-113.965, abs=0.01)
