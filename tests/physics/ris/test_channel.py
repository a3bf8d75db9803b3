import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics.ris import channel, modes, phases
from cfpos_envs.physics.ris.geometry import trace_paths
from cfpos_envs.physics.ris.modes import synthesise
from cfpos_envs.physics.ris.siso import draw_siso_samples
from tests.physics.ris.pilots import pilot_matrix, remove_pilots, send_pilots

UE = torch.tensor([10.0, 10.0, -10.0], dtype=torch.float64)
BS = torch.zeros(3, dtype=torch.float64)
SURFACES = torch.tensor([[5.0, 18.0, -3.0], [15.0, -4.0, 3.0]], dtype=torch.float64)
PATHS = trace_paths(UE, BS, SURFACES)
WAVE = channel.Propagation(299792458.0 / 28e9, 4.0, 2.0, 20.0, 20.0)
SHAPE = (12, 10)
ARRIVING = ((0.25, -0.15),)
CENTRE = (0.4, -0.3)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_powers_by_hand() -> None:
    """Free space at 1 m and 28 GHz: 20 log10(0.0107069 / 12.56637) = -61.391 dB; 20 dB less at 10 m."""
    one_m = channel.large_scale_gain(torch.tensor([1.0, 10.0], dtype=torch.float64), 2.0, WAVE.wavelength_m)
    assert (10 * torch.log10(one_m)).tolist() == pytest.approx([-61.391, -81.391], abs=1e-3)
    found = channel.specular_amplitudes(PATHS, WAVE).square()
    half = (WAVE.wavelength_m / (4 * math.pi)) ** 2
    kept = 20 / 21
    assert float(found[0]) == pytest.approx(half * 300.0**-2 * kept)
    # Both hops lose on their own: |p - q|^2 = 138, |q|^2 = 358.
    assert float(found[1]) == pytest.approx(half**2 / (138 * 358) * kept)
    # The default scene: gains in dB with almost all of 400 elements in phase.
    gains = channel.path_gains(
        found.sqrt(), torch.zeros(3, dtype=torch.float64), torch.full((2,), 400 + 0j).to(torch.complex128)
    )
    assert (20 * torch.log10(gains.abs())).tolist() == pytest.approx([-111.145, -117.89, -120.843], abs=0.01)


def test_scattered_and_specular_power_add_up() -> None:
    total = channel.link_gains(PATHS, WAVE)
    fading = channel.fading_variances(PATHS, WAVE, 1)
    torch.testing.assert_close(channel.specular_amplitudes(PATHS, WAVE).square() + fading, total, rtol=1e-12, atol=0)
    many = channel.fading_variances(PATHS, WAVE, 400)
    assert float(many[0]) == float(fading[0])
    torch.testing.assert_close(many[1:], 400 * fading[1:])
    assert float(many.sum()) == pytest.approx(3.84406e-13, rel=1e-5)


@pytest.mark.parametrize(("antennas", "slots"), [(64, 64), (36, 50), (1, 1)])
def test_pilots_are_orthogonal_with_the_stated_power(antennas: int, slots: int) -> None:
    pilots = pilot_matrix(antennas, slots, 2.5)
    error = pilots @ pilots.mH - slots * 2.5 / antennas * torch.eye(antennas, dtype=torch.float64)
    assert float(error.abs().max()) < 1e-12 * max(slots, 10)
    torch.testing.assert_close(pilots.abs().square().sum(dim=0), torch.full((slots,), 2.5, dtype=torch.float64))


def test_pilots_give_the_channel_and_noise_of_the_stated_variance() -> None:
    pilots = pilot_matrix(6, 20, 0.5)
    true = channel.complex_normal(generator(), 3, 2, 2, 3, 5, dtype=torch.complex128)
    sent = send_pilots(true, pilots)
    torch.testing.assert_close(remove_pilots(sent, pilots, (2, 3)), true, rtol=0, atol=1e-12)
    noise = channel.complex_normal(generator(1), 100, 10, 20, 50, dtype=torch.complex128) * math.sqrt(0.3)
    left = remove_pilots(noise, pilots, (2, 3))
    assert left.numel() >= 1e5
    expected = channel.estimate_noise_variance(0.3, 6, 20, 0.5)
    assert float(left.abs().square().mean()) == pytest.approx(expected, rel=1e-2)
    # White over the antennas as well.
    flat = left.reshape(-1, 6, 50)
    correlation = torch.einsum("zbn,zcn->bc", flat, flat.conj()) / (len(flat) * 50) / expected
    assert float((correlation - torch.eye(6)).abs().max()) < 0.05


def test_too_few_pilots_are_refused() -> None:
    with pytest.raises(ValueError, match="num_slots=3 is fewer than 4"):
        pilot_matrix(4, 3, 1.0)


def test_received_block_is_paths_plus_rank_one_scattering_plus_white_noise() -> None:
    sizes, slopes = (3, 2, 4, 2, 5), modes.mode_slopes(200e6, 5)
    parameters = 2 * torch.rand(2, 3, 5, generator=generator(), dtype=torch.float64) - 1
    vectors = modes.steering(sizes, slopes, parameters)
    gains = channel.complex_normal(generator(1), 2, 3, dtype=torch.complex128)
    scattered = channel.complex_normal(generator(2), 2, 2, 3, 2, 5, dtype=torch.complex128)
    white = channel.complex_normal(generator(3), 2, *sizes, dtype=torch.complex128)
    found = channel.received_block(vectors, gains, scattered, white)
    # The base station's own vectors are conjugates of its response: slopes are negative.
    spread = torch.einsum("zrabn,zrc,zrd->zabcdn", scattered, vectors[2][:, 1:], vectors[3][:, 1:])
    torch.testing.assert_close(found, synthesise(vectors, gains) + spread + white, rtol=1e-12, atol=1e-12)


def test_single_precision_is_enough_for_the_block() -> None:
    sizes, slopes = (6, 6, 8, 8, 64), modes.mode_slopes(200e6, 64)
    parameters = torch.tensor([[-0.8, -0.1, 0.6, -0.6, 23.3], [0.2, 0.6, 0.9, -0.2, 36.7]], dtype=torch.float64)
    vectors = modes.steering(sizes, slopes, parameters)
    gains = torch.tensor([2.8e-6, 1.3e-6j], dtype=torch.complex128)
    silence = torch.zeros(1, 6, 6, 64, dtype=torch.complex64), torch.zeros(sizes, dtype=torch.complex64)
    error = channel.received_block(vectors, gains, *silence) - synthesise(vectors, gains)
    # Against a signal-to-noise ratio of a few dB per entry: 130 dB.
    assert float(error.abs().max()) < 3e-7 * 2.8e-6


# Phase designs


def test_a_profile_in_phase_collects_every_element() -> None:
    outgoing, incoming = torch.tensor([[0.3, -0.2]], dtype=torch.float64), torch.tensor(ARRIVING, dtype=torch.float64)
    focused = phases.cascade(outgoing, incoming, SHAPE)
    assert complex(phases.array_gain(focused, outgoing, incoming, SHAPE)) == pytest.approx(120.0)
    response = phases.element_response(outgoing, SHAPE) * phases.element_response(incoming, SHAPE).conj()
    torch.testing.assert_close(focused, response)
    # First axis slow.
    assert complex(phases.element_response(outgoing, SHAPE)[0, 10]) == pytest.approx(
        complex(math.cos(0.3 * math.pi), math.sin(0.3 * math.pi))
    )


def gains_over(profile: torch.Tensor, half_width: float, arriving: tuple = ARRIVING[0]) -> torch.Tensor:
    sector = phases.sector_cosines(*CENTRE, half_width)
    return phases.array_gain(profile, sector, torch.tensor(arriving, dtype=torch.float64), SHAPE).abs() / math.prod(
        SHAPE
    )


@pytest.mark.parametrize("design", [phases.svd_profile, phases.chirp_profile, phases.balanced_profile])
@settings(max_examples=8, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    arriving=st.lists(st.tuples(st.floats(-0.7, 0.7), st.floats(-0.7, 0.7)), min_size=1, max_size=3),
    centre=st.tuples(st.floats(-3, 3), st.floats(-1.4, 1.4)),
    half_width=st.floats(0, 0.5),
)
def test_designs_are_unit_modulus(
    design: object, shape: tuple, arriving: list, centre: tuple, half_width: float
) -> None:
    profile = design(shape, tuple(arriving), *centre, half_width)
    assert profile.shape == (math.prod(shape),)
    torch.testing.assert_close(profile.abs(), torch.ones(len(profile), dtype=torch.float64))


def test_a_point_gets_everything_from_every_design() -> None:
    for design in (phases.svd_profile, phases.chirp_profile, phases.balanced_profile):
        assert float(gains_over(design(SHAPE, ARRIVING, *CENTRE, 0.0), 0.0).min()) == pytest.approx(1.0, abs=1e-6)


def test_svd_profile_is_the_relaxed_optimum_with_its_moduli_dropped() -> None:
    """Against the singular vectors of the sector's own matrix; random profiles are far behind."""
    profile = phases.svd_profile(SHAPE, ARRIVING, *CENTRE, 0.05)
    sector = phases.sector_cosines(*CENTRE, 0.05)
    columns = phases.cascade(sector, torch.tensor(ARRIVING, dtype=torch.float64), SHAPE).mT
    left = torch.linalg.svd(columns).U[:, 0]
    torch.testing.assert_close(
        (profile.conj() * left / left.abs()).mean().abs(), torch.tensor(1.0, dtype=torch.float64)
    )
    others = phases.random_profiles(generator(), 50, math.prod(SHAPE))
    mean_power = [float(gains_over(other, 0.05).square().mean()) for other in others]
    assert float(gains_over(profile, 0.05).square().mean()) > 10 * max(mean_power)


def test_a_cached_profile_cannot_be_spoilt() -> None:
    arguments = (SHAPE, ARRIVING, *CENTRE, 0.1)
    for design in (phases.svd_profile, phases.balanced_profile):
        design(*arguments).zero_()
        assert float(design(*arguments).abs().min()) == pytest.approx(1.0)


def test_chirp_serves_a_wide_sector_where_the_singular_vector_leaves_holes() -> None:
    shape, half_width = (20, 20), math.radians(20)
    arriving = torch.tensor(ARRIVING, dtype=torch.float64)
    sector = phases.sector_cosines(*CENTRE, half_width)

    def worst_db(design: object) -> float:
        gain = phases.array_gain(design(shape, ARRIVING, *CENTRE, half_width), sector, arriving, shape).abs() / 400
        return 20 * math.log10(float(gain.quantile(0.05)))

    assert worst_db(phases.svd_profile) < -40
    assert worst_db(phases.chirp_profile) > -28


def test_balanced_profile_forgets_no_base_station() -> None:
    arriving = ((0.25, -0.15), (-0.1, 0.5), (0.6, 0.0))

    def powers(design: object) -> list[float]:
        profile = design(SHAPE, arriving, *CENTRE, 0.15)
        return [float(gains_over(profile, 0.15, one).square().mean()) for one in arriving]

    balanced, dominant = powers(phases.balanced_profile), powers(phases.svd_profile)
    assert min(balanced) > 10 * min(dominant)
    assert max(balanced) / min(balanced) < max(dominant) / min(dominant)


def test_unit_modulus_keeps_angles() -> None:
    found = phases.unit_modulus(torch.tensor([3 - 4j, 0j], dtype=torch.complex128))
    torch.testing.assert_close(found, torch.tensor([0.6 - 0.8j, 1 + 0j], dtype=torch.complex128))


# The single-antenna link


def siso(noise_variance: float, fading: float, pairs: int = 16, batch: int = 4) -> tuple[torch.Tensor, ...]:
    profiles = phases.random_profiles(generator(5), pairs, math.prod(SHAPE))
    outgoing = torch.tensor([0.3, -0.2], dtype=torch.float64).expand(batch, 2)
    incoming = torch.tensor(ARRIVING[0], dtype=torch.float64).expand(batch, 2)
    delay = torch.tensor([23.0, 37.0], dtype=torch.float64).expand(batch, 2)
    gains = torch.tensor([1.0, 0.1j], dtype=torch.complex128).expand(batch, 2)
    variance = torch.full((batch, 2), fading, dtype=torch.float64)
    slope = modes.mode_slopes(200e6, 64)[4]
    samples = draw_siso_samples(
        generator(6), profiles, SHAPE, outgoing, incoming, delay, gains, variance, noise_variance, 64, slope
    )
    return samples, profiles, outgoing, incoming


def test_pairs_of_profiles_separate_line_of_sight_and_surface() -> None:
    samples, profiles, outgoing, incoming = siso(0.0, 0.0)
    slope = modes.mode_slopes(200e6, 64)[4]
    line, bent = (modes.mode_vector(torch.tensor(m, dtype=torch.float64), 64, slope) for m in (23.0, 37.0))
    half_sum, half_difference = samples.sum(dim=-2) / 2, (samples[..., 0, :] - samples[..., 1, :]) / 2
    torch.testing.assert_close(half_sum, line.expand_as(half_sum).to(torch.complex64), rtol=0, atol=1e-5)
    seen = phases.array_gain(profiles, outgoing[:1], incoming[:1], SHAPE)
    expected = (0.1j * seen.unsqueeze(-1) * bent).to(torch.complex64)
    torch.testing.assert_close(half_difference, expected.expand_as(half_difference), rtol=0, atol=1e-5)


def test_noise_and_fading_of_the_single_antenna_link() -> None:
    clean = siso(0.0, 0.0, batch=200)[0]
    noise = siso(0.09, 0.0, batch=200)[0] - clean
    assert float(noise.abs().square().mean()) == pytest.approx(0.09, rel=1e-2)
    fading = siso(0.0, 0.01, batch=200)[0] - clean
    assert float((fading.sum(dim=-2) / 2).abs().square().mean()) == pytest.approx(0.01, rel=5e-2)
    # Every element scatters on its own and is seen through its phase.
    difference = (fading[..., 0, :] - fading[..., 1, :]) / 2
    assert float(difference.abs().square().mean()) == pytest.approx(0.01 * math.prod(SHAPE), rel=5e-2)
    half_sum = fading.sum(dim=-2) / 2
    assert float((half_sum - half_sum[:, :1]).abs().max()) < 1e-5
