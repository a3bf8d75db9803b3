import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics.arrays import angular_power, dft_matrix
from cfpos_envs.physics.bounds import aoa_fisher, error_ellipse, position_error_bound
from cfpos_envs.physics.dcp import bounds
from cfpos_envs.physics.dcp.channel import channel_covariance, draw_sample_covariance, path_angles
from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import displacement
from cfpos_envs.physics.propagation import path_gain_db, sample_maps, shadowing_maps
from scripts.experiments.dcp.bounds_table import bounds_table
from tests.physics.reference import wrap_angle

STEP_M = 1e-3


def draw_site(num_aps: int, users: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions, orientations, height differences of the APs and positions of the users, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    aps = torch.rand(num_aps, 2, generator=generator, dtype=torch.float64) * 100
    orientation = torch.rand(num_aps, generator=generator, dtype=torch.float64) * 6.28
    points = torch.rand(users, 2, generator=generator, dtype=torch.float64) * 100
    return aps, orientation, torch.full_like(orientation, 10.0), points


def hessian(cost, point: torch.Tensor, step: float = STEP_M) -> torch.Tensor:
    """Second differences of a scalar function of a position that is smooth nearby."""
    result = torch.zeros(2, 2, dtype=torch.float64)
    axes = step * torch.eye(2, dtype=torch.float64)
    for i in range(2):
        for j in range(2):
            corners = [cost(point + a * axes[i] + b * axes[j]) * a * b for a in (-1, 1) for b in (-1, 1)]
            result[i, j] = sum(corners) / (4 * step**2)
    return result


def test_rss_gradient_is_the_derivative_of_the_path_loss() -> None:
    aps, _, height, points = draw_site(5, 1, 1)

    def gain(point: torch.Tensor) -> torch.Tensor:
        distance = displacement(aps, point[None], 100.0, True).square().sum(-1)[:, 0] + height.square()
        return path_gain_db(distance.sqrt(), -30.5, 36.7)

    numerical = torch.autograd.functional.jacobian(gain, points[0])
    vectors = displacement(aps, points, 100.0, True)[:, 0]
    torch.testing.assert_close(bounds.rss_gradient(vectors, height, 36.7), numerical)


@pytest.mark.parametrize("wrap", [True, False])
def test_map_gradient_is_the_derivative_of_the_sampled_map(wrap: bool) -> None:
    maps = shadowing_maps(torch.Generator().manual_seed(2), 3, 20.0, wrap, 2.0, 4.0, 5.0).double()
    points = torch.tensor([[3.3, 7.1], [12.5, 19.2]], dtype=torch.float64)
    gradient = bounds.map_gradient(maps, points, 20.0, wrap)
    assert gradient.shape == (3, 2, 2)
    for axis, move in enumerate(torch.eye(2, dtype=torch.float64) * 1e-4):
        high, low = (sample_maps(maps, points + sign * move, 20.0, wrap) for sign in (1, -1))
        torch.testing.assert_close(gradient[..., axis], (high - low) / 2e-4)
    with torch.inference_mode():
        torch.testing.assert_close(bounds.map_gradient(maps, points, 20.0, wrap), gradient)


def test_beam_moments_agree_with_simulated_path_angles() -> None:
    angle, spread, paths, count = 0.9, 0.2, 5, 40_000
    mean, slope, path_covariance, mean_beam, squared = bounds.beam_moments(angle, 4, 0.5, spread, paths)
    angles = path_angles(torch.Generator().manual_seed(3), torch.full((count,), angle), paths, spread)
    covariance = channel_covariance(angles, torch.ones(count), 4, 0.5)
    beams = dft_matrix(4) @ covariance @ dft_matrix(4).mH
    powers = angular_power(covariance)
    deviation = powers.std(dim=0).double() / math.sqrt(count)
    assert bool(((powers.mean(dim=0) - mean).abs() < 5 * deviation + 0.01).all())
    torch.testing.assert_close(torch.cov(powers.T).double(), path_covariance, rtol=0.06, atol=0.02)
    torch.testing.assert_close(beams.mean(dim=0).to(torch.complex128), mean_beam, rtol=0.02, atol=0.05)
    torch.testing.assert_close(beams.abs().square().mean(dim=0).double(), squared, rtol=0.03, atol=0.05)
    higher, lower = (bounds.beam_moments(angle + step, 4, 0.5, spread, paths)[0] for step in (1e-4, -1e-4))
    torch.testing.assert_close(slope, (higher - lower) / 2e-4, rtol=1e-5, atol=1e-5)


def test_spectrum_information_is_the_curvature_of_the_gaussian_likelihood() -> None:
    def spectrum(angle: float) -> torch.Tensor:
        return 7e-9 * bounds.beam_moments(angle, 6, 0.5, 0.15, 10)[0]

    def unit(power: torch.Tensor) -> torch.Tensor:
        return power / torch.linalg.vector_norm(power)

    mean = spectrum(1.2)
    root = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * mean.max() / 10
    covariance = root @ root.T
    slope = 7e-9 * bounds.beam_moments(1.2, 6, 0.5, 0.15, 10)[1]
    jacobian = torch.autograd.functional.jacobian(unit, mean)
    spread = torch.linalg.inv(jacobian @ covariance @ jacobian.T + 1e-4 * torch.eye(6, dtype=torch.float64))

    def minus_log_likelihood(step: float) -> float:
        residual = unit(spectrum(1.2 + step)) - unit(mean)
        return float(residual @ spread @ residual / 2)

    curvature = (minus_log_likelihood(1e-4) + minus_log_likelihood(-1e-4)) / 1e-8
    information = bounds.spectrum_information(mean, slope, covariance, 1e-2)
    assert float(information) == pytest.approx(curvature, rel=1e-4)


def test_statistics_are_computed_once_per_radio(radio: RadioModel) -> None:
    statistics = bounds.measurement_statistics(radio)
    assert bounds.measurement_statistics(dataclasses.replace(radio)) is statistics
    other = bounds.measurement_statistics(dataclasses.replace(radio, snapshots=25))
    # A quarter of the snapshots: four times the RSS variance; the path angles stay, so the AOA loses less.
    torch.testing.assert_close(other.rss_variance_db2, 4 * statistics.rss_variance_db2)
    ratio = statistics.aoa_information_per_rad2[-1, 90:270] / other.aoa_information_per_rad2[-1, 90:270]
    assert bool(((ratio > 1.0) & (ratio < 4.0)).all())


def test_statistics_have_the_symmetry_of_the_array_and_of_noise(radio: RadioModel) -> None:
    statistics = bounds.measurement_statistics(radio)
    for table in (statistics.rss_variance_db2, statistics.aoa_information_per_rad2):
        torch.testing.assert_close(table, table.flip(-1), rtol=1e-6, atol=1e-6)
    # Along its axis an array is blind to the first order.
    assert float(statistics.aoa_information_per_rad2[:, 0].max()) < 1e-6 * float(
        statistics.aoa_information_per_rad2.max()
    )
    assert bool((statistics.aoa_information_per_rad2[:, 20:340].diff(dim=0) > 0).all())
    # Pure noise: L T independent exponential values, (10 / ln 10)^2 / (L T) dB^2.
    assert float(statistics.rss_variance_db2[0, 180]) == pytest.approx(18.861 / 800, rel=0.01)


def test_a_single_antenna_and_no_scattering_are_allowed(radio: RadioModel) -> None:
    single = bounds.measurement_statistics(dataclasses.replace(radio, num_antennas=1))
    assert float(single.aoa_information_per_rad2.abs().max()) < 1e-12
    assert float(single.rss_variance_db2[-1, 0]) == pytest.approx(0.18861, rel=1e-3)
    point_like = bounds.measurement_statistics(dataclasses.replace(radio, angular_spread_rad=0.0))
    assert bool(torch.isfinite(point_like.aoa_information_per_rad2).all())
    # One coherent wave: every antenna fades alike, the variance is that of one antenna.
    assert float(point_like.rss_variance_db2[-1, 90]) == pytest.approx(0.18861, rel=1e-3)


def test_look_up_is_exact_on_the_grid_even_and_periodic(radio: RadioModel) -> None:
    statistics = bounds.measurement_statistics(radio)
    snr, angle = statistics.snr_db[[3, 12]], statistics.angle_rad[[40, 200]]
    variance, information = statistics.look_up(snr, angle)
    torch.testing.assert_close(variance, statistics.rss_variance_db2[[3, 12], [40, 200]])
    torch.testing.assert_close(information, statistics.aoa_information_per_rad2[[3, 12], [40, 200]])
    for other in (-angle, angle + 4 * math.pi, 2 * math.pi - angle):
        torch.testing.assert_close(statistics.look_up(snr, other)[1], information)
    beyond = statistics.look_up(torch.tensor([-300.0, 300.0], dtype=torch.float64), angle)
    torch.testing.assert_close(beyond[0], statistics.rss_variance_db2[[0, -1], [40, 200]])


@pytest.mark.parametrize(("angle", "snr_db"), [(1.3, 40.0), (0.7, 5.0)])
def test_statistics_are_those_of_the_simulated_receiver(radio: RadioModel, angle: float, snr_db: float) -> None:
    count = 20_000
    small = dataclasses.replace(radio, num_antennas=4)
    generator = torch.Generator().manual_seed(5)
    angles = path_angles(generator, torch.full((count,), angle), small.num_paths, small.angular_spread_rad).double()
    covariance = channel_covariance(angles, torch.ones(count, dtype=torch.float64), 4, 0.5)
    floor = 10 ** (-snr_db / 10) * torch.eye(4)
    drawn = draw_sample_covariance(generator, covariance + floor, small.snapshots)
    trace = torch.diagonal(drawn, dim1=-2, dim2=-1).real.sum(dim=-1)
    statistics = bounds.measurement_statistics(small)
    variance, information = statistics.look_up(torch.tensor(snr_db).double(), torch.tensor(angle).double())
    # First-order propagation to dB leaves about 1 %; the sampling deviation of the variance is 1 %.
    assert float((10 * torch.log10(trace)).var()) == pytest.approx(float(variance), rel=0.06)
    # The best linear estimate of the angle from the unit-norm spectrum has the variance 1 / J.
    units = torch.nn.functional.normalize(angular_power(drawn), dim=-1)
    centred = units - units.mean(dim=0)
    mean, slope, *_ = bounds.beam_moments(angle, 4, 0.5, small.angular_spread_rad, small.num_paths)
    noisy = mean + 4 * 10 ** (-snr_db / 10)
    tilt = slope / noisy.norm() - noisy * (noisy @ slope) / noisy.norm() ** 3
    weights = torch.linalg.solve(torch.cov(units.T) + 1e-6 * torch.eye(4), tilt)
    spread = float((centred @ weights).var()) / float(tilt @ weights) ** 2
    assert spread == pytest.approx(1 / float(information), rel=0.15)


def test_rss_fisher_is_the_curvature_of_the_likelihood() -> None:
    aps, _, height, points = draw_site(6, 1, 6)
    variance = torch.linspace(0.1, 2.0, 6, dtype=torch.float64).unsqueeze(-1)

    def mean(point: torch.Tensor) -> torch.Tensor:
        distance = (displacement(aps, point[None], 100.0, True).square().sum(-1)[:, 0] + height.square()).sqrt()
        return path_gain_db(distance, -30.5, 36.7)

    numerical = hessian(lambda p: float(((mean(p) - mean(points[0])) ** 2 / variance[:, 0]).sum() / 2), points[0])
    vectors = displacement(aps, points, 100.0, True)
    fisher = bounds.rss_fisher(bounds.rss_gradient(vectors, height.unsqueeze(-1), 36.7), variance)
    torch.testing.assert_close(fisher[0], numerical, rtol=1e-3, atol=1e-6)


def test_aoa_fisher_is_the_curvature_of_the_likelihood() -> None:
    aps, orientation, height, points = draw_site(6, 1, 7)
    information = torch.linspace(50.0, 900.0, 6, dtype=torch.float64).unsqueeze(-1)

    def bearing(point: torch.Tensor) -> torch.Tensor:
        return link_geometry(aps, orientation, height, point[None], 100.0, True).angle_rad[:, 0]

    def cost(point: torch.Tensor) -> float:
        return float((wrap_angle(bearing(point) - bearing(points[0])).square() * information[:, 0]).sum() / 2)

    fisher = aoa_fisher(displacement(aps, points, 100.0, True), information)
    torch.testing.assert_close(fisher[0], hessian(cost, points[0]), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("noise_power_w", [None, 3e-9])
def test_drop_fisher_is_the_curvature_of_the_whole_likelihood(
    radio: RadioModel, known: bool, noise_power_w: float | None
) -> None:
    if noise_power_w is not None:  # SNR per antenna between -10 and 20 dB: the noise flattens the RSS
        radio = dataclasses.replace(radio, noise_power_w=noise_power_w)
    aps, orientation, height, points = draw_site(7, 1, 8)
    maps = shadowing_maps(torch.Generator().manual_seed(9), 7, 100.0, True, 5.0, 4.0, 9.0).double() if known else None
    hidden_db = 0.0 if known else 3.0
    statistics = bounds.measurement_statistics(radio)

    def links(point: torch.Tensor):
        return link_geometry(aps, orientation, height, point[None], 100.0, True)

    def rss(point: torch.Tensor, extra_db: float = 0.0) -> torch.Tensor:
        shadowing = 0.0 if maps is None else sample_maps(maps, point[None], 100.0, True)
        return predicted_rss_dbm(radio, links(point), shadowing + torch.tensor(extra_db))[:, 0]

    here = points[0]
    gain = path_gain_db(links(here).distance_3d_m, -30.5, 36.7)[:, 0]
    if maps is not None:
        gain = gain + sample_maps(maps, points, 100.0, True)[:, 0]
    snr_db = gain + 10 * math.log10(0.6 / radio.noise_power_w)
    variance, information = statistics.look_up(snr_db, links(here).angle_rad[:, 0])
    # What a decibel of hidden shadowing does to the RSS, numerically.
    response = (rss(here, 1e-3) - rss(here, -1e-3)) / 2e-3
    variance = variance + (response * hidden_db) ** 2

    def cost(point: torch.Tensor) -> float:
        bearing = wrap_angle(links(point).angle_rad - links(here).angle_rad)[:, 0]
        return float(((rss(point) - rss(here)) ** 2 / variance + information * bearing**2).sum() / 2)

    fisher = bounds.drop_fisher(radio, statistics, aps, orientation, height, points, hidden_db, maps)
    numerical = hessian(cost, here)
    torch.testing.assert_close(fisher[0], numerical, rtol=2e-3, atol=2e-3 * float(numerical.abs().max()))


def test_bound_of_a_cross_of_four_aps_by_hand() -> None:
    # 10 m away and 10 m up: slope 36.7 / ln 10 * 10 / 200 = 0.79693 dB/m; with 1 dB each axis has 2 * 0.63510 / m^2.
    vectors = 10 * torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]], [[0.0, 1.0]], [[0.0, -1.0]]], dtype=torch.float64)
    height = torch.full((4, 1), 10.0, dtype=torch.float64)
    gradient = bounds.rss_gradient(vectors, height, 36.7)
    rss = position_error_bound(bounds.rss_fisher(gradient, torch.ones(4, 1, dtype=torch.float64)))
    assert float(rss) == pytest.approx(1.25482, abs=1e-4)
    # Bearings of 0.01 rad at 10 m: 0.1 m across, twice per axis: sqrt(2 * 0.005).
    aoa = position_error_bound(aoa_fisher(vectors, torch.full((4, 1), 1e4, dtype=torch.float64)))
    assert float(aoa) == pytest.approx(0.1, rel=1e-9)


def test_two_aps_in_line_determine_a_range_only_but_two_bearings_cross() -> None:
    line = torch.tensor([[[10.0, 0.0]], [[-20.0, 0.0]]], dtype=torch.float64)
    flat = bounds.rss_fisher(line / 10, torch.ones(2, 1, dtype=torch.float64))
    assert position_error_bound(flat).tolist() == [math.inf]
    axes, angle = error_ellipse(flat)
    # Nothing is known across the line, and something along it.
    assert axes.tolist()[0] == [math.inf, pytest.approx(1 / math.sqrt(5), rel=1e-9)]
    assert abs(float(angle)) == pytest.approx(math.pi / 2)
    corner = torch.tensor([[[10.0, 0.0]], [[0.0, 10.0]]], dtype=torch.float64)
    crossing = aoa_fisher(corner, torch.full((2, 1), 100.0, dtype=torch.float64))
    assert float(position_error_bound(crossing)) == pytest.approx(math.sqrt(2.0), rel=1e-9)


entry = st.one_of(
    st.floats(-1e30, 1e30), st.sampled_from([0.0, math.nan, math.inf, -math.inf, 1e-300, 1e300, 1e-12, 1.0])
)


@given(entry, entry, entry)
@settings(max_examples=200, deadline=None)
def test_bound_is_never_nan_and_infinite_where_nothing_is_known(a: float, b: float, c: float) -> None:
    fisher = torch.tensor([[a, b], [b, c]], dtype=torch.float64)
    bound = position_error_bound(fisher)
    axes, angle = error_ellipse(fisher)
    for value in (bound, axes, angle):
        assert not bool(value.isnan().any())
    if not all(map(math.isfinite, (a, b, c))) or a <= 0 or c <= 0:
        assert float(bound) == math.inf


@given(st.floats(0.01, 100.0), st.floats(0.01, 100.0), st.floats(-math.pi, math.pi))
@settings(max_examples=60, deadline=None)
def test_ellipse_recovers_axes_and_direction(long: float, short: float, turn: float) -> None:
    long, short = max(long, short), min(long, short)
    rotation = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]], dtype=torch.float64)
    fisher = rotation @ torch.diag(torch.tensor([long**-2, short**-2], dtype=torch.float64)) @ rotation.T
    axes, angle = error_ellipse(fisher)
    assert axes.tolist() == pytest.approx([long, short], rel=1e-6)
    assert -math.pi / 2 <= float(angle) < math.pi / 2
    if long > 1.01 * short:
        assert math.sin(float(angle) - turn) == pytest.approx(0.0, abs=1e-6)
    assert float(position_error_bound(fisher)) == pytest.approx(math.hypot(long, short), rel=1e-6)


def test_ellipse_of_a_probability_holds_that_share_of_the_errors() -> None:
    fisher = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    axes, angle = error_ellipse(fisher, probability=0.9)
    white = torch.randn(20_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    errors = white @ torch.linalg.cholesky(torch.linalg.inv(fisher)).T
    turned = torch.stack(
        (
            errors[:, 0] * torch.cos(angle) + errors[:, 1] * torch.sin(angle),
            errors[:, 1] * torch.cos(angle) - errors[:, 0] * torch.sin(angle),
        ),
        dim=-1,
    )
    inside = ((turned / axes).square().sum(dim=-1) < 1).double().mean()
    assert float(inside) == pytest.approx(0.9, abs=0.01)
    for probability in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match="probability"):
            error_ellipse(fisher, probability)


def test_more_information_lowers_the_bound(radio: RadioModel) -> None:
    aps, orientation, height, points = draw_site(16, 5, 11)
    statistics = bounds.measurement_statistics(radio)
    maps = shadowing_maps(torch.Generator().manual_seed(12), 16, 100.0, True, 1.75, 4.0, 9.0)

    def bound(count: int = 16, hidden_db: float = 0.0, known: bool = False, **use: bool) -> torch.Tensor:
        site = (aps[:count], orientation[:count], height[:count])
        return bounds.drop_bound(radio, statistics, *site, points, hidden_db, maps[:count] if known else None, **use)

    rss, aoa, joint = bound(use_aoa=False), bound(use_rss=False), bound()
    for more, less in (
        (joint, rss),
        (joint, aoa),
        (joint, bound(12)),
        (joint, bound(hidden_db=4.0)),
        (bound(hidden_db=1.0), bound(hidden_db=4.0)),
        (bound(hidden_db=4.0), aoa),
        (bound(known=True), joint),
    ):
        assert bool((more < less).all())
    torch.testing.assert_close(bound(hidden_db=1e6), aoa)
    assert bool(bound(1, use_aoa=False).isinf().all())
    with pytest.raises(ValueError, match="use_rss or use_aoa"):
        bound(use_rss=False, use_aoa=False)


def test_noise_raises_the_bound_without_end(radio: RadioModel) -> None:
    site = draw_site(12, 3, 13)
    values = []
    for noise_w in (1e-16, 1e-9, 1e-7, 1e-5):
        noisy = dataclasses.replace(radio, noise_power_w=noise_w)
        values.append(bounds.drop_bound(noisy, bounds.measurement_statistics(noisy), *site, 0.0))
    assert bool((torch.stack(values).diff(dim=0) > 0).all())
    assert bool((values[3] > 10 * values[0]).all())


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 4), st.integers(1, 3), st.booleans())
@settings(max_examples=20, deadline=None)
def test_drop_bound_takes_any_leading_shape(lead: list, m: int, k: int, known: bool) -> None:
    radio = RadioModel(100.0, True, -30.5, 36.7, 0.1, 6, 3e-15, 4, 0.5, 0.17, 20, 100)
    generator = torch.Generator().manual_seed(m)
    aps = torch.rand(*lead, m, 2, generator=generator) * 100
    points = torch.rand(*lead, k, 2, generator=generator) * 100
    orientation = torch.rand(*lead, m, generator=generator)
    maps = torch.randn(*lead, m, 10, 10, generator=generator) if known else None
    height, hidden = torch.full_like(orientation, 10.0), torch.full(tuple(lead), 2.0)
    statistics = bounds.measurement_statistics(radio)
    bound = bounds.drop_bound(radio, statistics, aps, orientation, height, points, hidden, maps)
    assert bound.shape == (*lead, k)
    assert bound.dtype == torch.float32
    first = (value.reshape(-1, *value.shape[len(lead) :])[0] for value in (aps, orientation, height, points))
    first_maps = None if maps is None else maps.reshape(-1, m, 10, 10)[0]
    alone = bounds.drop_bound(radio, statistics, *first, 2.0, first_maps)
    torch.testing.assert_close(bound.reshape(-1, k)[0], alone, rtol=1e-4, atol=1e-4)


def test_a_user_under_an_ap_has_a_finite_bound(radio: RadioModel) -> None:
    aps, orientation, height, _ = draw_site(5, 1, 14)
    bound = bounds.drop_bound(radio, bounds.measurement_statistics(radio), aps, orientation, height, aps[:1], 4.0)
    assert bool(torch.isfinite(bound).all())
    on_the_ground = bounds.drop_bound(
        radio, bounds.measurement_statistics(radio), aps, orientation, 0 * height, aps[:1], 4.0
    )
    assert bool(torch.isfinite(on_the_ground).all())


# Published for this scenario, metres: RSS, AOA, joint; RSS, joint with 4 dB unknown; RSS, joint with 4 dB known.
PUBLISHED = {
    16: (0.418, 0.628, 0.308, 5.09, 0.617, 0.128, 0.121),
    36: (0.257, 0.345, 0.192, 3.12, 0.341, 0.075, 0.072),
    64: (0.190, 0.241, 0.142, 2.30, 0.240, 0.057, 0.054),
}


def test_table_of_bounds_is_reproduced(radio: RadioModel) -> None:
    for row in bounds_table(radio, tuple(PUBLISHED), layouts=200):
        measured = [
            row[name] for name in ("rss", "aoa", "joint", "rss_unknown", "joint_unknown", "rss_known", "joint_known")
        ]
        assert measured == pytest.approx(PUBLISHED[int(row["num_aps"])], rel=0.1)


@pytest.mark.parametrize(
    ("changes", "published"),
    [
        ({"num_antennas": 4}, (0.298, 0.396, 0.222)),
        ({"num_antennas": 16}, (0.206, 0.308, 0.160)),
        ({"angular_spread_rad": math.radians(5.0)}, (0.300, 0.188, 0.151)),
    ],
)
def test_bounds_of_other_arrays_and_spreads_are_reproduced(radio: RadioModel, changes: dict, published: tuple) -> None:
    (row,) = bounds_table(dataclasses.replace(radio, **changes), (36,), layouts=100)
    assert [row["rss"], row["aoa"], row["joint"]] == pytest.approx(published, rel=0.05)


def test_table_depends_on_its_seed_alone_and_refuses_nothing_to_average(radio: RadioModel) -> None:
    first, second, other = (bounds_table(radio, (9,), layouts=10, users=3, seed=seed) for seed in (1, 1, 2))
    assert first == second
    assert first != other
    for bad in ({"num_aps": (0,)}, {"layouts": 0}, {"users": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            bounds_table(radio, **bad)
