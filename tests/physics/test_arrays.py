import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics import arrays
from cfpos_envs.physics.dcp.channel import channel_covariance, path_angles
from cfpos_envs.physics.dcp.links import Links


def test_steering_vector_by_hand() -> None:
    # cos(60 degrees) = 1/2: a quarter turn per half-wavelength element, clockwise.
    response = arrays.ula_response(torch.tensor(math.pi / 3, dtype=torch.float64), 4)
    torch.testing.assert_close(response, torch.tensor([1, -1j, -1, 1j], dtype=torch.complex128))
    endfire = arrays.ula_response(torch.tensor(0.0, dtype=torch.float64), 3, spacing_wavelengths=0.25)
    torch.testing.assert_close(endfire, torch.tensor([1, -1j, -1], dtype=torch.complex128))
    broadside = arrays.ula_response(torch.tensor(math.pi / 2, dtype=torch.float64), 5)
    torch.testing.assert_close(broadside, torch.ones(5, dtype=torch.complex128))


@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_steering_takes_any_leading_shape_and_has_unit_entries(lead: list, size: int) -> None:
    angle = torch.rand(tuple(lead), generator=torch.Generator().manual_seed(size)) * 7 - 3.5
    response = arrays.ula_response(angle, size)
    assert response.shape == (*lead, size)
    torch.testing.assert_close(response.abs(), torch.ones(*lead, size))
    # A linear array cannot tell the front from the back.
    torch.testing.assert_close(response, arrays.ula_response(-angle, size))


@pytest.mark.parametrize("size", [1, 2, 5, 8, 16])
def test_dft_is_orthogonal(size: int) -> None:
    dft = arrays.dft_matrix(size)
    torch.testing.assert_close(dft @ dft.mH, size * torch.eye(size, dtype=torch.complex64), atol=2e-5, rtol=0)
    torch.testing.assert_close(dft, torch.fft.fft(torch.eye(size)), atol=1e-5, rtol=0)


def random_covariance(*shape: int) -> torch.Tensor:
    root = torch.randn(*shape, shape[-1], dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    return root @ root.mH


def test_angular_power_is_the_mean_power_of_the_beams() -> None:
    snapshots = torch.randn(50, 6, dtype=torch.complex64, generator=torch.Generator().manual_seed(2))
    covariance = torch.einsum("ti,tj->ij", snapshots, snapshots.conj()) / 50
    beams = torch.fft.fft(snapshots, dim=-1).abs().square().mean(dim=0)
    torch.testing.assert_close(arrays.angular_power(covariance), beams, rtol=1e-4, atol=1e-4)


def test_angular_power_obeys_parseval() -> None:
    covariance = random_covariance(3, 7)
    total = arrays.angular_power(covariance).sum(dim=-1)
    torch.testing.assert_close(total, 7 * torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1))


def test_a_wave_on_a_beam_lands_in_that_beam() -> None:
    # F a peaks where exp(-j pi cos) continues exp(-j 2 pi i l / L): cos(theta) = -2 i / L (mod 2).
    for beam, cosine in ((0, 0.0), (2, -0.5), (6, 0.5)):
        spectrum = arrays.scattered_spectra(torch.tensor(math.acos(cosine)), 8, 0.5, 0.0)
        expected = torch.zeros(8)
        expected[beam] = 64.0
        torch.testing.assert_close(spectrum, expected, atol=1e-3, rtol=0)


def test_expected_spectrum_agrees_with_simulated_paths() -> None:
    generator = torch.Generator().manual_seed(3)
    angle, spread = torch.tensor(1.1), math.radians(10.0)
    angles = path_angles(generator, angle.expand(4000), 20, spread)
    powers = arrays.angular_power(channel_covariance(angles, torch.ones(4000), 8, 0.5))
    error = (powers.mean(dim=0) - arrays.scattered_spectra(angle, 8, 0.5, spread)).abs()
    # Of a total of 64; the quadrature of the expectation is good to 0.1 at the peak.
    assert bool((error < 5 * powers.std(dim=0) / math.sqrt(4000) + 0.1).all())
    double = arrays.scattered_spectra(angle.double(), 8, 0.5, spread)
    torch.testing.assert_close(double.float(), arrays.scattered_spectra(angle, 8, 0.5, spread), rtol=1e-4, atol=1e-3)


def test_laplace_quantiles_have_the_deviation_and_the_shape() -> None:
    values = arrays.laplace_quantiles(512, 0.2)
    assert float(values.std(correction=0)) == pytest.approx(0.2, rel=1e-5)
    torch.testing.assert_close(values, -values.flip(0), atol=1e-6, rtol=0)
    # A Laplacian has half of its mass within b ln 2, b = std / sqrt(2).
    inside = (values.abs() < 0.2 / math.sqrt(2) * math.log(2.0)).float().mean()
    assert float(inside) == pytest.approx(0.5, abs=0.01)


def test_profile_is_one_in_the_true_direction_and_peaks_there() -> None:
    table = arrays.normalised_spectra(181, 8, 0.5, math.radians(10.0))
    torch.testing.assert_close(torch.linalg.vector_norm(table, dim=-1), torch.ones(181))
    angles = torch.tensor([0.4, 1.0, math.pi / 2, 2.2, 2.75])
    profile = arrays.angle_profile(3e-9 * arrays.scattered_spectra(angles, 8, 0.5, math.radians(10.0)), table)
    peak, value = arrays.profile_peak(profile)
    torch.testing.assert_close(peak, angles, atol=math.radians(0.3), rtol=0)
    torch.testing.assert_close(value, torch.ones(5), atol=1e-3, rtol=0)
    assert bool(((profile >= 0) & (profile <= 1 + 1e-6)).all())


def test_peak_is_refined_by_a_parabola_and_stays_on_the_border() -> None:
    grid = torch.arange(11.0)
    peak, _ = arrays.profile_peak(5.0 - (grid - 4.3) ** 2)
    assert float(peak) == pytest.approx(4.3 * math.pi / 10, rel=1e-5)
    convex = torch.tensor([3.0, 1.0, 0.5, 0.3, 0.2])
    assert float(arrays.profile_peak(convex)[0]) == 0.0
    assert float(arrays.profile_peak(convex.flip(0))[0]) == pytest.approx(math.pi)


@given(st.floats(-20.0, 20.0))
@settings(max_examples=60, deadline=None)
def test_reading_a_profile_at_a_link_is_even_and_periodic(angle: float) -> None:
    profile = torch.linspace(0.0, 1.0, 19, dtype=torch.float64)
    turned, zero = torch.tensor(angle, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    links = Links(torch.cos(turned), torch.sin(turned), zero, zero + 1.0, zero)
    value = float(arrays.read_profile(profile, links.folded_rad))
    assert value == pytest.approx(math.acos(math.cos(angle)) / math.pi, abs=1e-6)


def test_reading_a_profile_carries_gradients() -> None:
    profile = torch.rand(3, 19, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    angle = torch.tensor([0.31, 1.7, 2.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: arrays.read_profile(profile, a), (angle,))


def test_angle_grid_has_both_ends() -> None:
    grid = arrays.angle_grid(181)
    assert (len(grid), float(grid[0])) == (181, 0.0)
    assert float(grid[-1]) == pytest.approx(math.pi)
    assert float(grid[1]) == pytest.approx(math.radians(1.0))
