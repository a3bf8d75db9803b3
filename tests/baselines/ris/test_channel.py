"""Stage 1 part by part: searches against closed forms and brute force, exact without noise, trials on their own."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from baselines.ris import assignment, departure, harmonics
from baselines.ris.channel import ChannelOptions, check_system, estimate_channels, unwrapped
from baselines.ris.harmonics import music
from baselines.ris.refine import least_squares_gains, masked_information, refine
from baselines.ris.separation import candidate_energy, covariances, noise_variance, separate
from cfpos_envs.measurements.ris import RisSystem
from cfpos_envs.physics.ris.information import channel_covariance, fisher
from cfpos_envs.physics.ris.modes import correlate, mode_slopes, mode_vector, steering, synthesise

SYSTEM = RisSystem(28e9, 50e6, 16, (4, 5), (4, 4), (16, 16), 36, 1.0)
PATHS = torch.tensor(
    [
        [-0.82, -0.15, 0.58, -0.58, 23.3],
        [0.18, 0.60, 0.95, -0.16, 38.7],
        [-0.32, -0.83, -0.25, 0.19, 54.6],
    ],
    dtype=torch.float64,
)
DEPARTURES = PATHS[1:, 2:4]
PAPER = ChannelOptions("1d", "energy", True, refine=0, gate=0.0)


def normal(seed: int, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.complex128)


def blocks(count: int, snr_db: float | None, seed: int = 0, paths: Tensor = PATHS) -> tuple[Tensor, Tensor]:
    """Received blocks with unit-variance noise (None: without) and their gains; path 0 has ``snr_db`` per entry."""
    phase = torch.rand(count, len(paths), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    level = torch.tensor([0.0, -3.5, -5.0, -6.0, -7.0], dtype=torch.float64)[: len(paths)] + (snr_db or 0.0)
    gains = torch.polar((10 ** (level / 20)).expand(count, -1), 2 * math.pi * phase)
    vectors = steering(SYSTEM.sizes, SYSTEM.slopes, paths.expand(count, *paths.shape))
    clean = synthesise(vectors, gains)
    return clean if snr_db is None else clean + normal(seed + 1, *clean.shape), gains


# --- polynomials ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 7), st.floats(-1, 1), st.sampled_from([math.pi, -math.pi, -0.2]), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_polynomial_is_the_quadratic_form(n: int, x: float, slope: float, seed: int) -> None:
    a = normal(seed, n, n)
    matrix, at = a @ a.mH, torch.tensor([x], dtype=torch.float64)

    def form(at: Tensor) -> Tensor:
        v = mode_vector(at, n, slope)
        return (v.conj() * (v @ matrix.mT)).sum(dim=-1).real

    coefficients, step = harmonics.diagonal_sums(matrix), 1e-5
    value, first, second = harmonics.evaluate(coefficients, slope, at)
    size = float(matrix.abs().sum())
    assert float(value) == pytest.approx(float(form(at)), abs=1e-12 * size)
    assert float(harmonics.on_grid(coefficients, slope, at)) == pytest.approx(float(value), abs=1e-12 * size)
    assert float(first) == pytest.approx(float(form(at + step) - form(at - step)) / (2 * step), abs=1e-5 * size * n)
    curved = float(form(at + step) - 2 * form(at) + form(at - step)) / step**2
    assert float(second) == pytest.approx(curved, abs=1e-3 * size * n)


@pytest.mark.parametrize("slope", [math.pi, -math.pi, -0.07])
def test_power_on_the_circle_gives_the_coefficients(slope: float) -> None:
    vectors = normal(3, 2, 6, 3)
    power = harmonics.circle_power(vectors, slope, 24)
    expected = harmonics.diagonal_sums(vectors @ vectors.mH)
    torch.testing.assert_close(harmonics.from_circle(power, slope, 6), expected)
    grid = harmonics.circle(slope, 24, power)
    torch.testing.assert_close(harmonics.on_grid(expected, slope, grid), power)


def test_climbing_ends_at_the_maximum_also_when_it_starts_there() -> None:
    # r_1 = 1/2 exp(-j pi c): the polynomial is 2 + cos(pi (x - c)).
    centre = torch.linspace(-0.45, 0.45, 19, dtype=torch.float64)
    half = 0.5 * torch.polar(torch.ones_like(centre), -math.pi * centre)
    coefficients = torch.stack((half.conj(), 2 + 0j * half, half), dim=-1)
    for start in (torch.zeros_like(centre), centre):
        found = harmonics.climb_from(coefficients, math.pi, start.unsqueeze(-1), 0.5).squeeze(-1)
        torch.testing.assert_close(found, centre, rtol=0, atol=1e-14)


def test_local_maxima_by_hand_on_a_circle() -> None:
    values = torch.tensor([[5.0, 1.0, 3.0, 2.0, 4.0, 0.0], [1.0, 2.0, 3.0, 4.0, 3.0, 2.0]], dtype=torch.float64)
    where, exists = harmonics.local_maxima(values, 3)
    assert where[0].tolist() == [0, 4, 2]
    assert exists.tolist() == [[True, True, True], [True, False, False]]
    assert int(where[1, 0]) == 3


# --- delays on a circle -----------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 50), min_size=2, max_size=5),
    st.floats(-500, 500),
)
@settings(max_examples=60, deadline=None)
def test_unwrapping_keeps_differences_whatever_the_clock_is(lengths: list[float], bias: float) -> None:
    window = 120.0
    true = torch.tensor([lengths], dtype=torch.float64)
    everything = torch.ones_like(true, dtype=torch.bool)
    found = unwrapped(true + bias, everything, window)
    difference = (found - found[:, :1]) - (true - true[:, :1])
    torch.testing.assert_close(difference, torch.zeros_like(difference), rtol=0, atol=1e-6)
    assert bool(((found >= 0) & (found < 2 * window)).all())


def test_absent_delays_open_no_gap() -> None:
    delays = torch.tensor([[95.0, 3.0, 50.0]], dtype=torch.float64)
    present = torch.tensor([[True, True, False]])
    assert unwrapped(delays, present, 100.0)[0, :2].tolist() == [95.0, 103.0]


# --- departure --------------------------------------------------------------------------------------------------------


def test_departure_is_exact_without_noise_and_in_two_dimensions_beside_an_equal_cosine() -> None:
    for psi, searches in (((0.58, -0.58), ("1d", "2d")), ((0.95, -0.58), ("2d",)), ((0.3, 0.19), ("2d",))):
        paths = PATHS.clone()
        paths[0, 2:4] = torch.tensor(psi)
        received, _ = blocks(3, None, paths=paths)
        for search in searches:
            found = estimate_channels(
                SYSTEM, received, DEPARTURES.expand(3, 2, 2), ChannelOptions(aod=search, refine=0)
            )
            torch.testing.assert_close(found.parameters[:, 0, 2:4], paths[:1, 2:4].expand(3, 2), rtol=0, atol=1e-6)


def test_the_floor_keeps_noise_from_winning_at_a_known_cosine() -> None:
    slope, n = -math.pi, 6
    known = torch.tensor([[0.95, -0.25]], dtype=torch.float64)
    present = torch.ones(1, 2, dtype=torch.bool)
    v = mode_vector(torch.tensor([0.58], dtype=torch.float64), n, slope)
    noise = 0.05 * torch.eye(n, dtype=torch.complex128)
    found = departure.departure_1d((v.mT @ v.conj() + noise).unsqueeze(0), slope, known, present)
    assert float(found) == pytest.approx(0.58, abs=0.01)
    # Directions equal to a known one leave nothing: the numerator is zero too, not the ratio infinite.
    null = departure.null_projector(mode_vector(known, n, slope).mT, present)
    assert float((null @ mode_vector(known[0], n, slope).mT).abs().max()) < 1e-12


def test_equal_known_columns_are_one() -> None:
    columns = mode_vector(torch.tensor([[0.3, 0.3]], dtype=torch.float64), 5, math.pi).mT
    both = departure.null_projector(columns, torch.tensor([[True, True]]))
    one = departure.null_projector(columns, torch.tensor([[True, False]]))
    torch.testing.assert_close(both, one)


# --- arrival ----------------------------------------------------------------------------------------------------------


def test_music_is_exact_without_noise_and_says_how_many_it_found() -> None:
    x = torch.tensor([-0.6, 0.1, 0.7], dtype=torch.float64)
    v = mode_vector(x, 8, math.pi)
    weights = torch.tensor([1.0, 0.1, 0.01], dtype=torch.complex128)
    covariance = ((v.mT * weights) @ v.conj()).unsqueeze(0)
    found, exists = music(covariance, math.pi, 3, torch.tensor([3]))
    assert exists.all()
    torch.testing.assert_close(harmonics.wrapped_cosine(found).sort().values, x[None], rtol=0, atol=1e-7)
    one = (v[:1].mT @ v[:1].conj()).unsqueeze(0)
    found, exists = music(one, math.pi, 3, torch.tensor([1]))
    assert exists.tolist() == [[True, False, False]]
    assert float(harmonics.wrapped_cosine(found[0, 0])) == pytest.approx(-0.6, abs=1e-9)


def test_music_has_the_deviation_of_an_unstructured_rest() -> None:
    received, _ = blocks(300, -5.0, paths=PATHS[:2])
    found = estimate_channels(SYSTEM, received, DEPARTURES[:1].expand(300, 1, 2), ChannelOptions(refine=0))
    error = found.parameters[:, 0, 4] - PATHS[0, 4]
    entries, n, w, rho = math.prod(SYSTEM.sizes), 16, SYSTEM.slopes[4], 10**-0.5
    bound = math.sqrt(6 / (rho * entries * w**2 * (n**2 - 1)))
    # sqrt(1 + 1/(M rho)) is 1.09 here; the deviation of 300 draws is known to 4 %, four of these are allowed.
    assert float(error.std()) / bound == pytest.approx(math.sqrt(1 + 1 / (n * rho)), rel=0.17)


# --- energies and noise -----------------------------------------------------------------------------------------------


def test_corrected_energies_are_unbiased_and_plain_ones_are_not() -> None:
    received, gains = blocks(400, -15.0)
    present = torch.ones(400, 3, dtype=torch.bool)
    matrices = covariances(received)
    noise = noise_variance(matrices.bs, present.sum(dim=-1), 16 * 16)
    # The smallest eigenvalues of a sample covariance are too small: by 3 of 20 antennas in 256 columns, and more where
    # a path does not stand out.
    assert 0.9 < float(noise.mean()) < 1.0
    departure = PATHS[:, 2:4].expand(400, 3, 2)
    true = gains.abs().square() * 16 * 16
    corrected = separate(received, departure, present, SYSTEM.slopes, torch.ones(400, dtype=torch.float64)).energy
    plain = separate(received, departure, present, SYSTEM.slopes, torch.zeros(400, dtype=torch.float64)).energy
    off = corrected - true
    # Five standard errors; what noise adds to the plain energies is 256 / 20 and more.
    assert bool((off.mean(dim=0).abs() < 5 * off.std(dim=0) / 20).all())
    assert bool(((plain - true).mean(dim=0) > 12).all())


def test_candidate_energies_are_those_of_the_paths() -> None:
    received, gains = blocks(2, None)
    delays = PATHS[:, 4].expand(2, 3)
    matrices, exists = covariances(received), torch.tensor([[True, True, True], [True, True, False]])
    nothing = torch.zeros(2, dtype=torch.float64)
    energy = candidate_energy(matrices.subcarriers, delays, exists, SYSTEM.slopes[4], nothing, received[0].numel())
    torch.testing.assert_close(energy[0], 16 * 20 * gains[0].abs().square(), rtol=0.02, atol=0.0)
    assert energy[1, 2] == -math.inf


# --- matching ---------------------------------------------------------------------------------------------------------


def test_ranks_by_hand() -> None:
    paths = torch.tensor([[3.0, 9.0, 1.0]], dtype=torch.float64)
    energy = torch.tensor([[5.0, -math.inf, 7.0]], dtype=torch.float64)
    x = torch.tensor([[0.5, 0.9, 0.7]], dtype=torch.float64)
    # Path 1 is the strongest and takes 0.7, path 0 takes 0.5, path 2 has none and takes the strongest.
    assert assignment.by_energy(paths, energy, x).tolist() == [[0.5, 0.7, 0.7]]
    delays = torch.tensor([[20.0, 10.0, 30.0]], dtype=torch.float64)
    rank = assignment.line_of_sight_rank(torch.tensor([[5.0, 6.0, 7.0]], dtype=torch.float64), delays)
    assert rank.tolist() == [1]
    # Ranked candidates: 30, 10, 20; path 0 takes the second, path 1 (stronger) the first, path 2 the third.
    matched = assignment.by_delay(paths, torch.tensor([[5.0, 6.0, 7.0]], dtype=torch.float64), delays, rank)
    assert matched.tolist() == [[10.0, 30.0, 20.0]]


@given(st.integers(1, 5), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_assignment_is_the_cheapest(paths: int, seed: int) -> None:
    cost = torch.rand(4, paths, paths, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    for trial, chosen in zip(cost, assignment.assign(cost)):
        rows, columns = linear_sum_assignment(trial.numpy())
        assert sorted(chosen.tolist()) == list(range(paths))
        assert float(trial[torch.arange(paths), chosen].sum()) == pytest.approx(trial.numpy()[rows, columns].sum())


def test_too_many_paths_are_refused() -> None:
    with pytest.raises(ValueError, match="8 paths; use at most 6 surfaces"):
        assignment.assign(torch.zeros(1, 8, 8, dtype=torch.float64))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_projection_finds_the_owner_of_every_candidate(order: tuple[int, ...]) -> None:
    received, _ = blocks(1, None)
    present = torch.ones(1, 3, dtype=torch.bool)
    parts = separate(received, PATHS[None, :, 2:4], present, SYSTEM.slopes, torch.zeros(1, dtype=torch.float64))
    shuffled = PATHS[list(order)]
    delay = assignment.project_delays(parts.signatures, shuffled[None, :, 4], present, present, SYSTEM.slopes[4])
    torch.testing.assert_close(delay[0], PATHS[:, 4])
    wave = mode_vector(delay, 16, SYSTEM.slopes[4]).conj()
    focused = (parts.signatures @ wave.unsqueeze(-1)).squeeze(-1).unflatten(-1, (4, 4))
    candidates = (shuffled[None, :, 0], PATHS[None, :, 1])
    arrival = assignment.project_angles(focused, candidates, (present, present), (math.pi, math.pi))
    torch.testing.assert_close(arrival[0], PATHS[:, :2])


def test_projection_replaces_candidates_that_carry_too_little() -> None:
    received, _ = blocks(1, None)
    present = torch.ones(1, 3, dtype=torch.bool)
    exists = torch.tensor([[True, True, False]])
    parts = separate(received, PATHS[None, :, 2:4], present, SYSTEM.slopes, torch.zeros(1, dtype=torch.float64))
    wrong = PATHS[None, :, 4] + torch.tensor([0.0, 2.0, 0.0])
    delay = assignment.project_delays(parts.signatures, wrong, exists, present, SYSTEM.slopes[4])
    torch.testing.assert_close(delay[0], PATHS[:, 4], rtol=0, atol=1e-6)
    wave = mode_vector(delay, 16, SYSTEM.slopes[4]).conj()
    focused = (parts.signatures @ wave.unsqueeze(-1)).squeeze(-1).unflatten(-1, (4, 4))
    far = (PATHS[None, :, 0] + 0.25, PATHS[None, :, 1])
    arrival = assignment.project_angles(focused, far, (present, present), (math.pi, math.pi))
    torch.testing.assert_close(arrival[0], PATHS[:, :2], rtol=0, atol=1e-6)


# --- gains and refinement ---------------------------------------------------------------------------------------------


def test_gains_are_exact_without_noise_and_zero_for_absent_paths() -> None:
    received, gains = blocks(2, None)
    vectors = steering(SYSTEM.sizes, SYSTEM.slopes, PATHS.expand(2, 3, 5))
    present = torch.tensor([[True, True, True], [False, True, True]])
    found = least_squares_gains(vectors, correlate(received, vectors), present)
    torch.testing.assert_close(found[0], gains[0])
    assert found[1, 0] == 0


def test_information_of_fewer_paths_is_that_of_these_paths_alone() -> None:
    gains = normal(5, 1, 3)
    present = torch.tensor([[True, False, True]])
    masked = masked_information(SYSTEM.sizes, SYSTEM.slopes, PATHS[None], gains, present)[0]
    alone = fisher(SYSTEM.sizes, SYSTEM.slopes, PATHS[None, [0, 2]], gains[:, [0, 2]], 1.0)[0]
    kept = [0, 1, 2, 3, 4, 8, 9, 10, 11, 13, 14, 16]
    torch.testing.assert_close(masked[kept][:, kept], alone)
    dropped = [5, 6, 7, 12, 15]
    torch.testing.assert_close(masked[dropped][:, dropped], torch.eye(5, dtype=torch.float64))


def test_refinement_takes_parameters_to_the_bound() -> None:
    count = 500
    received, gains = blocks(count, -5.0)
    present = torch.ones(count, 3, dtype=torch.bool)
    start = PATHS.expand(count, 3, 5) + 0.2 / torch.tensor(SYSTEM.sizes) * torch.tensor(
        [1, 1, 1, 1, SYSTEM.window_m / 2]
    )
    start[:, 1:, 2:4] = DEPARTURES
    found, _ = refine(received, SYSTEM.sizes, SYSTEM.slopes, start, present, 4)
    bound = channel_covariance(fisher(SYSTEM.sizes, SYSTEM.slopes, PATHS, gains[0], 1.0), 11).diagonal().sqrt()
    free = [0, 1, 2, 3, 4, 5, 6, 9, 10, 11, 14]
    error = (found - PATHS).flatten(-2)[:, free]
    # Eleven deviations of 500 draws, each known to 3.2 %: five of these.
    torch.testing.assert_close(
        error.square().mean(dim=0).sqrt() / bound, torch.ones(11, dtype=torch.float64), rtol=0, atol=0.16
    )
    assert torch.equal(found[:, 1:, 2:4], start[:, 1:, 2:4])


# --- the whole of stage 1 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [ChannelOptions(), PAPER, ChannelOptions("1d", "delay", True, 0, 0.0)])
def test_everything_is_exact_without_noise(options: ChannelOptions) -> None:
    received, gains = blocks(4, None)
    found = estimate_channels(SYSTEM, received, DEPARTURES.expand(4, 2, 2), options)
    torch.testing.assert_close(found.parameters, PATHS.expand(4, 3, 5), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.gains, gains, rtol=1e-5, atol=0)
    assert found.valid.all()


@pytest.mark.parametrize("precision", [torch.complex64, torch.complex128])
def test_bad_trials_leave_their_neighbours_alone(precision: torch.dtype) -> None:
    received, _ = blocks(6, 0.0)
    received = received.to(precision)
    spoilt = received.clone()
    spoilt[1, 2, 3, 0, 0, 5] = complex(math.nan, 0)
    spoilt[3] = 0
    spoilt[4, 0, 0, 0, 0, 0] = complex(math.inf, 0)
    good = [0, 2, 5]
    departures = DEPARTURES.expand(6, 2, 2)
    found = estimate_channels(SYSTEM, spoilt, departures, ChannelOptions())
    assert found.valid.tolist() == [True, False, True, False, False, True]
    alone = estimate_channels(SYSTEM, received[good], departures[good], ChannelOptions())
    torch.testing.assert_close(found.parameters[good], alone.parameters, rtol=1e-6, atol=1e-7)
    assert torch.isfinite(found.parameters).all()
    for trial in good:
        single = estimate_channels(SYSTEM, received[trial : trial + 1], departures[:1], ChannelOptions())
        torch.testing.assert_close(single.parameters[0], found.parameters[trial], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_the_gate_drops_what_is_missing_and_only_that(missing: int) -> None:
    count = 20
    received, gains = blocks(count, 0.0)
    vectors = steering(SYSTEM.sizes, SYSTEM.slopes, PATHS.expand(count, 3, 5))
    gone = torch.zeros_like(gains)
    gone[::2, missing] = gains[::2, missing]
    found = estimate_channels(
        SYSTEM, received - synthesise(vectors, gone), DEPARTURES.expand(count, 2, 2), ChannelOptions()
    )
    expected = torch.ones(count, 3, dtype=torch.bool)
    expected[::2, missing] = False
    assert torch.equal(found.present, expected)
    assert found.valid.all()
    # The weakest of the others has a statistic of 9000, deviations of 0.01.
    assert bool((found.statistic[expected] > 1000).all() and (found.statistic[~expected] < 30).all())
    off = ((found.parameters - PATHS)[..., [0, 1, 4]] * torch.tensor([1.0, 1.0, 0.1])).abs()
    assert float(off[expected].max()) < 0.06


def test_pure_noise_is_not_identifiable() -> None:
    received = normal(8, 3, *SYSTEM.sizes)
    found = estimate_channels(SYSTEM, received, DEPARTURES.expand(3, 2, 2), ChannelOptions())
    assert not found.valid.any()
    assert bool((found.present.sum(dim=-1) < 2).all())
    assert torch.isfinite(found.parameters).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ue_shape": (1, 5)}, "ue_shape=.* determines no direction"),
        ({"bs_shape": (1, 36)}, "bs_shape=.* must be at least"),
        ({"num_subcarriers": 3}, "num_subcarriers=3 must exceed the number of paths, 3"),
    ],
)
def test_arrays_that_are_too_small_are_refused(changes: dict, message: str) -> None:
    values = {**SYSTEM.__dict__, **changes}
    with pytest.raises(ValueError, match=message):
        check_system(RisSystem(**values), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aod": "3d"}, "aod='3d' is not one of 2d, 1d"),
        ({"matching": "best"}, "matching='best' is not one of"),
        ({"refine": -1}, "refine=-1"),
        ({"gate": -3.0}, "gate=-3.0"),
        ({"gate": math.nan}, "gate=nan"),
    ],
)
def test_options_out_of_range_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ChannelOptions(**changes)


def test_slopes_of_the_system_are_those_of_the_modes() -> None:
    assert SYSTEM.slopes == mode_slopes(50e6, 16)
