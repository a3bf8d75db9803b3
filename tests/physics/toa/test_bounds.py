import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics.arrays import ula_response
from cfpos_envs.physics.bounds import aoa_fisher, error_ellipse
from cfpos_envs.physics.geometry import lattice
from cfpos_envs.physics.toa import bounds
from cfpos_envs.physics.toa.maps import (
    peb_of_map,
    timing_drop_bound,
    timing_drop_fisher,
    timing_fisher_map,
    timing_peb_map,
)
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.toa.ranging import (
    FAMILIES,
    delay_variance_s2,
    draw_clock_errors,
    draw_ranges,
    range_variance_m2,
)
from cfpos_envs.physics.waveform import delay_response
from tests.physics.toa.reference import difference_covariance, differencing_matrix, tdoa_difference_fisher

SQUARE = torch.tensor([[50, 50], [-50, 50], [-50, -50], [50, -50]], dtype=torch.float64)
MODEL = TimingModel("toa", 500.0, 256, 240e3, -30.5, 36.7, 0.1, 1e-14, 4, 0.5, 1e-9, 10.0, 2e-9)
FLAT = dataclasses.replace(MODEL, path_loss_slope_db=0.0, path_loss_intercept_db=-100.0, sync_std_s=0.0)


def points(*positions: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(positions, dtype=torch.float64)


def seen(aps: torch.Tensor, ues: torch.Tensor, height: float = 0.0, full_3d: bool = False) -> torch.Tensor:
    heights = torch.full(aps.shape[:-1], height, dtype=aps.dtype)
    return bounds.unit_vectors_to(aps, heights, ues, full_3d)[0]


def ring(count: int = 20, radius: float = 200.0) -> torch.Tensor:
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    return radius * torch.stack((angle.cos(), angle.sin()), dim=-1)


def scattered(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """APs, their heights over the user and the variances of their ranges."""
    generator = torch.Generator().manual_seed(seed)
    aps = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 100
    heights = 2 + 8 * torch.rand(count, generator=generator, dtype=torch.float64)
    return aps, heights, 0.1 + torch.rand(count, generator=generator, dtype=torch.float64)


def hessian(cost: Callable[[torch.Tensor], float], at: torch.Tensor, step: float) -> torch.Tensor:
    """Second differences of a scalar function."""
    size = len(at)
    axes = step * torch.eye(size, dtype=torch.float64)
    result = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            corners = [cost(at + a * axes[i] + b * axes[j]) * a * b for a in (-1, 1) for b in (-1, 1)]
            result[i, j] = sum(corners) / (4 * step**2)
    return result


@pytest.mark.parametrize(
    ("user", "toa", "tdoa", "independent"),
    [((0, 0), 1.0, 1.0, 1.1547), ((20, 10), 1.0041, 1.0170, 1.1720), ((80, 0), 1.0094, 2.5057, 2.9909)],
)
def test_square_of_four_aps(user: tuple, toa: float, tdoa: float, independent: float) -> None:
    unit, variance = seen(SQUARE, points(user)), torch.ones(4, 1, dtype=torch.float64)
    information = bounds.range_information(variance)
    found = [
        bounds.toa_fisher(unit, information),
        bounds.tdoa_fisher(unit, information),
        tdoa_difference_fisher(unit, variance),
        tdoa_difference_fisher(unit, variance, independent=True),
    ]
    assert [float(bounds.peb(fisher)) for fisher in found] == pytest.approx([toa, tdoa, tdoa, independent], abs=5e-5)
    assert float(bounds.gdop(unit)) == pytest.approx(toa, abs=5e-5)
    assert float(bounds.gdop(unit, unknown_offset=True)) == pytest.approx(tdoa, abs=5e-5)


def test_ring_of_equal_aps_is_flat_inside_and_nowhere_better_than_at_its_centre() -> None:
    best = 2 / math.sqrt(20)
    aps = ring()
    heights = torch.zeros(20, dtype=torch.float64)
    grid = lattice(600.0, 12.5, to_border=True).double() - 300.0
    sigma = float(FLAT.range_variance_m2(FLAT.snr_linear(torch.ones(1, dtype=torch.float64))).sqrt())
    bound = timing_peb_map(FLAT, aps, heights, grid) / sigma
    centre = float(timing_peb_map(FLAT, aps, heights, points((0, 0)))) / sigma
    assert centre == pytest.approx(best, rel=1e-9)
    assert float(bound.min()) >= best * (1 - 1e-9)
    inside = timing_peb_map(FLAT, aps, heights, points((100, 0), (190, 0))) / sigma
    assert inside.tolist() == pytest.approx([0.4472, 0.4480], abs=5e-5)
    # With path loss the places near the ring are better than the centre.
    lossy = dataclasses.replace(MODEL, sync_std_s=0.0)
    near, middle = timing_peb_map(lossy, aps, heights, points((190, 0), (0, 0)))
    assert float(near) < 0.8 * float(middle)


def test_tdoa_explodes_outside_the_hull_and_toa_only_dilutes() -> None:
    distances = (0, 40, 80, 200, 500, 2000)
    unit = seen(SQUARE, points(*((d, d / 3) for d in distances)))
    ones = torch.ones(4, len(distances), dtype=torch.float64)
    toa, tdoa = bounds.peb(bounds.toa_fisher(unit, ones)), bounds.peb(bounds.tdoa_fisher(unit, ones))
    assert bool((tdoa.diff() > 0).all())
    assert float(tdoa[1]) < 1.3
    assert float(tdoa[-1]) > 1000
    # Far away: sideways errors grow with the distance, those in range with its square.
    assert float(tdoa[-1] / tdoa[-2]) == pytest.approx(16, rel=0.05)
    assert float(toa[-1] / toa[-2]) == pytest.approx(4, rel=0.05)


@given(st.integers(0, 1000), st.integers(3, 7), st.booleans())
@settings(max_examples=25, deadline=None)
def test_eliminating_the_offset_equals_full_covariance_for_every_reference(seed: int, count: int, full: bool) -> None:
    aps, heights, variance = scattered(seed, count + full)
    unit, _ = bounds.unit_vectors_to(aps, heights, points((31, 47), (-60, 10)), full)
    variance = variance.unsqueeze(-1).expand(-1, 2)
    direct = bounds.tdoa_fisher(unit, 1 / variance)
    for reference in range(count):
        differences = tdoa_difference_fisher(unit, variance, reference)
        torch.testing.assert_close(differences, direct, rtol=1e-7, atol=1e-9 * float(direct.abs().max()))
    # Less is known than with a common clock: J_toa - J_tdoa has no negative eigenvalue.
    loss = torch.linalg.eigvalsh(bounds.toa_fisher(unit, 1 / variance) - direct)
    assert float(loss.min()) > -1e-9 * float(direct.abs().max())


@pytest.mark.parametrize("full_3d", [False, True])
@pytest.mark.parametrize("method", ["toa", "offset", "differences", "independent"])
def test_fisher_matrices_are_the_curvature_of_the_likelihood(method: str, full_3d: bool) -> None:
    aps, heights, variance = scattered(5)
    here = torch.tensor([31.0, 47.0, 0.0], dtype=torch.float64)[: 3 if full_3d else 2]
    matrix = differencing_matrix(6, 2)
    shortcut = method == "independent"
    weights = torch.linalg.inv(difference_covariance(variance, 2, shortcut))

    def ranges(at: torch.Tensor) -> torch.Tensor:
        climb = at[2] if full_3d else 0.0
        return ((at[:2] - aps).square().sum(dim=-1) + (climb - heights).square()).sqrt()

    def cost(at: torch.Tensor) -> float:
        residual = ranges(at[: len(here)]) - ranges(here)
        if method == "offset":
            residual = residual + at[-1]
        if method in ("toa", "offset"):
            return float((residual.square() / variance).sum() / 2)
        return float((matrix @ residual) @ weights @ (matrix @ residual) / 2)

    unit, _ = bounds.unit_vectors_to(aps, heights, here[None, :2], full_3d)
    sigma2 = variance.unsqueeze(-1)
    if method == "offset":
        joint = hessian(cost, torch.cat((here, torch.zeros(1, dtype=torch.float64))), 1e-3)
        numerical = joint[:-1, :-1] - torch.outer(joint[:-1, -1], joint[-1, :-1]) / joint[-1, -1]
        fisher = bounds.tdoa_fisher(unit, 1 / sigma2)
    else:
        numerical = hessian(cost, here, 1e-3)
        fisher = (
            bounds.toa_fisher(unit, 1 / sigma2)
            if method == "toa"
            else tdoa_difference_fisher(unit, sigma2, 2, shortcut)
        )
    torch.testing.assert_close(fisher[0], numerical, rtol=1e-4, atol=1e-5)


def test_delay_and_angle_information_are_the_curvature_of_their_likelihoods() -> None:
    # With an unknown complex amplitude the log-likelihood is SNR times the squared correlation with the true response.
    snr, spacing_hz, delay = 50.0, 240e3, torch.tensor([100e-9], dtype=torch.float64)

    def correlation(response: Callable[[torch.Tensor], torch.Tensor], truth: torch.Tensor, at: torch.Tensor) -> float:
        return float((response(truth).conj() * response(at)).mean().abs().square())

    def by_delay(at: torch.Tensor) -> torch.Tensor:
        return delay_response(at, 64, spacing_hz)

    numerical = hessian(lambda at: -snr * correlation(by_delay, delay, at), delay, 1e-10)
    beta = spacing_hz * math.sqrt((64**2 - 1) / 12)
    variance = delay_variance_s2(torch.tensor(snr, dtype=torch.float64), beta)
    assert float(numerical * variance) == pytest.approx(1.0, rel=1e-3)

    angle = torch.tensor([0.8], dtype=torch.float64)
    numerical = hessian(lambda at: -snr * correlation(lambda t: ula_response(t, 8, 0.4), angle, at), angle, 1e-4)
    information = bounds.ula_aoa_information(torch.tensor([snr], dtype=torch.float64), angle, 8, 0.4)
    assert float(information) == pytest.approx(float(numerical), rel=1e-3)
    assert float(bounds.ula_aoa_information(torch.ones(1), torch.ones(1), 1)) == 0.0


@pytest.mark.parametrize("full_3d", [False, True])
def test_power_information_is_the_curvature_of_its_likelihood(full_3d: bool) -> None:
    aps, heights, _ = scattered(6)
    here = torch.tensor([31.0, 47.0, 0.0], dtype=torch.float64)[: 3 if full_3d else 2]

    def gain_db(at: torch.Tensor) -> torch.Tensor:
        climb = at[2] if full_3d else 0.0
        return -36.7 / 2 * torch.log10((at[:2] - aps).square().sum(dim=-1) + (climb - heights).square())

    numerical = hessian(lambda at: float((gain_db(at) - gain_db(here)).square().sum() / (2 * 4.0**2)), here, 1e-3)
    unit, slant = bounds.unit_vectors_to(aps, heights, here[None, :2], full_3d)
    fisher = bounds.shadowed_rss_fisher(unit, slant, 36.7, 4.0)
    torch.testing.assert_close(fisher[0], numerical, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["square", "scattered", "nearly in line"])
def test_efficient_estimates_of_drawn_ranges_meet_the_bound(family: str, layout: str) -> None:
    aps, heights, _ = scattered(8, 7)
    if layout == "square":
        aps, heights = SQUARE, torch.zeros(4, dtype=torch.float64)
    elif layout == "nearly in line":
        aps = torch.stack((aps[:, 0], 0.03 * aps[:, 1]), dim=-1)
    user, count, trials = points((42, 13)), len(aps), 20_000
    generator = torch.Generator().manual_seed(9)
    distance = ((user - aps).square().sum(dim=-1) + heights.square()).sqrt()
    noise = delay_variance_s2(torch.linspace(100, 1000, count, dtype=torch.float64), 20e6)
    sync_s, processing_s = 0.1e-9, 0.1e-9
    sample = distance.unsqueeze(-1).expand(trials, count, 1)
    ranges = draw_ranges(
        generator,
        family,
        sample,
        noise.unsqueeze(-1).expand_as(sample),
        draw_clock_errors(generator, torch.full((trials, count), sync_s, dtype=torch.float64)),
        torch.zeros_like(sample),
        1e-6 * torch.randn(trials, 1, generator=generator, dtype=torch.float64) if family != "toa" else None,
        processing_s,
    )
    error = (ranges - sample).squeeze(-1)
    variance = range_variance_m2(family, noise, sync_s, processing_s)
    unit, _ = bounds.unit_vectors_to(aps, heights, user)
    # One weighted step from the truth is what any efficient estimator does at small errors.
    slopes, weights = unit.squeeze(1), torch.diag(1 / variance)
    if family == "tdoa":
        matrix = differencing_matrix(count)
        slopes, error = matrix @ slopes, error @ matrix.T
        weights = torch.linalg.inv(difference_covariance(variance))
    step = torch.linalg.solve(slopes.T @ weights @ slopes, slopes.T @ weights @ error.T)
    rmse = float(step.square().sum(dim=0).mean().sqrt())
    bound = bounds.peb(bounds.range_fisher(family, unit, bounds.range_information(variance.unsqueeze(-1))))
    # The sampling deviation of the ratio is at most 1 / sqrt(2 * 20 000) = 0.5 %.
    assert rmse / float(bound) == pytest.approx(1.0, abs=0.025)


def test_adding_angles_and_powers_adds_matrices() -> None:
    aps, heights, _ = scattered(10)
    user = points((20, 70), (66, 15))
    turned = torch.linspace(0, 2, 6, dtype=torch.float64)
    ranges = timing_drop_fisher(MODEL, aps, heights, user)
    both = timing_drop_fisher(MODEL, aps, heights, user, ap_orientation_rad=turned, shadowing_std_db=4.0)
    unit, slant = bounds.unit_vectors_to(aps, heights, user)
    vectors = user.unsqueeze(0) - aps.unsqueeze(1)
    angle = torch.atan2(vectors[..., 1], vectors[..., 0]) - turned.unsqueeze(-1)
    information = bounds.ula_aoa_information(MODEL.snr_linear(slant), angle, 4)
    expected = ranges + aoa_fisher(vectors, information) + bounds.shadowed_rss_fisher(unit, slant, 36.7, 4.0)
    torch.testing.assert_close(both, expected)
    assert bool((bounds.peb(both) < bounds.peb(ranges)).all())
    # In three dimensions bearings say nothing about the height.
    flat = aoa_fisher(vectors, information)
    assert bool((bounds.embed_ground(flat)[..., 2, :] == 0).all())
    solid = timing_drop_fisher(MODEL, aps, heights, user, ap_orientation_rad=turned, full_3d=True)
    alone = timing_drop_fisher(MODEL, aps, heights, user, full_3d=True)
    torch.testing.assert_close(solid - alone, bounds.embed_ground(flat), rtol=1e-5, atol=1e-6)


def test_bounds_of_drops_follow_clocks_and_blocked_links() -> None:
    aps, heights, _ = scattered(11, 8)
    user = points((50, 50), (20, 80))
    perfect = dataclasses.replace(MODEL, sync_std_s=0.0)
    clean = timing_drop_bound(perfect, aps, heights, user)
    worse = timing_drop_bound(MODEL, aps, heights, user)
    assert bool((clean < worse).all())
    told = timing_drop_bound(perfect, aps, heights, user, sync_std_s=torch.full((8,), 1e-9, dtype=torch.float64))
    torch.testing.assert_close(told, worse)
    valid = torch.arange(8).unsqueeze(-1).expand(8, 2) < 5
    fewer = timing_drop_bound(perfect, aps, heights, user, valid=valid)
    torch.testing.assert_close(fewer, timing_drop_bound(perfect, aps[:5], heights[:5], user))
    # Two weights of a round trip: half the clock error, 1/sqrt(2) of the noise.
    rtt = dataclasses.replace(perfect, family="rtt", processing_error_std_s=0.0)
    torch.testing.assert_close(timing_drop_bound(rtt, aps, heights, user), clean / math.sqrt(2))
    clocks = dataclasses.replace(MODEL, noise_power_w=1e-30, processing_error_std_s=0.0)
    toa, half = (
        timing_drop_bound(dataclasses.replace(clocks, family=family), aps, heights, user) for family in ("toa", "rtt")
    )
    torch.testing.assert_close(half, toa / 2, rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("height", [0.0, 10.0])
def test_maps_agree_with_single_points(family: str, height: float) -> None:
    model = dataclasses.replace(MODEL, family=family)
    generator = torch.Generator().manual_seed(12)
    aps = torch.rand(100, 2, generator=generator) * 500
    heights = torch.full((100,), height)
    # Some points on top of APs and some outside as well.
    where = torch.cat(
        (lattice(500.0, 25.0, to_border=True).double(), aps[:5].double(), points((900, 900), (-3000, 20)))
    )
    fisher = timing_fisher_map(model, aps, heights, where, chunk_links=7_000)
    torch.testing.assert_close(fisher, timing_drop_fisher(model, aps, heights, where), rtol=1e-9, atol=1e-6)
    alone = torch.stack([timing_drop_bound(model, aps, heights, point[None])[0] for point in where])
    torch.testing.assert_close(peb_of_map(fisher), alone, rtol=1e-6, atol=0)
    single = timing_peb_map(model, aps, heights, where[:400], dtype=torch.float32)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), alone[:400], rtol=1e-4, atol=0)


def test_unobservable_positions_have_an_infinite_bound_and_no_nan() -> None:
    user = points((30, 20))

    def found(aps: torch.Tensor, height: float = 0.0, full_3d: bool = False) -> list[float]:
        heights = torch.full((len(aps),), height, dtype=torch.float64)
        values = []
        for family in FAMILIES:
            model = dataclasses.replace(MODEL, family=family)
            values.append(float(timing_drop_bound(model, aps, heights, user, full_3d=full_3d)))
            if not full_3d:
                mapped = float(timing_peb_map(model, aps, heights, user))
                assert mapped == pytest.approx(values[-1], rel=1e-6)
        assert not any(math.isnan(value) for value in values)
        return values

    # Fewer APs than unknowns; two are enough for a common clock, three for TDOA.
    assert found(points((0, 0))) == [math.inf] * 3
    toa, tdoa, rtt = found(points((0, 0), (50, 10)))
    assert math.isfinite(toa)
    assert math.isfinite(rtt)
    assert tdoa == math.inf
    assert all(map(math.isfinite, found(points((0, 0), (50, 10), (10, 70)))))
    assert found(points((0, 0), (50, 10)), 5.0, full_3d=True) == [math.inf] * 3
    # All at one place, or in one line with the user.
    assert found(points(*[(7, 7)] * 9)) == [math.inf] * 3
    assert found(points((0, 20), (10, 20), (75, 20), (90, 20))) == [math.inf] * 3
    # In line, but not with the user: one side or the other, locally known.
    assert all(map(math.isfinite, found(points((0, 0), (10, 0), (75, 0), (90, 0)))))
    # On top of an AP: that link has no direction, the others carry on.
    assert all(map(math.isfinite, found(points((30, 20), (0, 0), (50, 10), (10, 70), (90, 1)))))
    assert found(points((30, 20))) == [math.inf] * 3
    nothing = torch.zeros(4, 1, dtype=torch.bool)
    heights = torch.zeros(4, dtype=torch.float64)
    for family in FAMILIES:
        model = dataclasses.replace(MODEL, family=family)
        assert float(timing_drop_bound(model, SQUARE, heights, user, valid=nothing)) == math.inf


def test_ellipse_of_a_line_of_aps_is_long_across_it() -> None:
    aps = points((0, 0), (30, 0), (70, 0), (100, 0))
    fisher = bounds.toa_fisher(seen(aps, points((50, 5))), torch.ones(4, 1, dtype=torch.float64))
    axes, angle = error_ellipse(fisher)
    assert float(axes[0, 0]) > 3 * float(axes[0, 1])
    assert abs(float(angle)) == pytest.approx(math.pi / 2, abs=0.05)
    assert math.hypot(*axes[0].tolist()) == pytest.approx(float(bounds.peb(fisher)))


@given(st.lists(st.integers(1, 3), max_size=2), st.integers(1, 5), st.integers(1, 3), st.booleans())
@settings(max_examples=30, deadline=None)
def test_bounds_take_any_leading_shape(lead: list, m: int, k: int, full_3d: bool) -> None:
    generator = torch.Generator().manual_seed(m)
    aps = torch.rand(*lead, m, 2, generator=generator) * 100
    user = torch.rand(*lead, k, 2, generator=generator) * 100
    heights = torch.full((*lead, m), 5.0)
    for family in FAMILIES:
        model = dataclasses.replace(MODEL, family=family)
        bound = timing_drop_bound(
            model, aps, heights, user, ap_orientation_rad=torch.zeros(*lead, m), full_3d=full_3d, shadowing_std_db=6.0
        )
        assert bound.shape == (*lead, k)
        assert bound.dtype == torch.float32
        assert not bool(bound.isnan().any())
    assert bounds.gdop(seen(aps, user, 5.0, full_3d)).shape == (*lead, k)


def test_bad_numbers_are_refused_by_name() -> None:
    heights = torch.zeros(4, dtype=torch.float64)
    unit = seen(SQUARE, points((1, 2)))
    calls = {
        "variance_m2": lambda: bounds.range_information(torch.zeros(4, 1)),
        "family": lambda: bounds.range_fisher("aoa", unit, torch.ones(4, 1)),
        "std_db": lambda: bounds.shadowed_rss_fisher(unit, torch.ones(4, 1), 36.7, 0.0),
        "at least 2 APs": lambda: tdoa_difference_fisher(unit[:1], torch.ones(1, 1, dtype=torch.float64)),
        "reference": lambda: tdoa_difference_fisher(unit, torch.ones(4, 1, dtype=torch.float64), 4),
        "dtype": lambda: timing_peb_map(MODEL, SQUARE, heights, points((1, 2)), dtype=torch.float16),
        "needs APs": lambda: timing_peb_map(MODEL, SQUARE[:0], heights[:0], points((1, 2))),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()
