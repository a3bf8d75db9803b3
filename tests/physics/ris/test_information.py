"""Bounds of the scene with surfaces. The figures come from a separate prototype in another library and another route:
derivatives of the whole block stacked into one matrix."""

import itertools
import math
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics.ris import information, modes
from cfpos_envs.physics.ris.modes import synthesise
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S as C
from cfpos_envs.scenarios.ris import world
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.streams import Streams
from tests.physics.ris import linear_theory
from tests.physics.ris.reference import isolated_variances


@lru_cache(maxsize=32)
def scene(**options: float | str | tuple) -> tuple[RisConfig, world.Scene, torch.Tensor]:
    config = RisConfig(**options)
    streams = Streams(3)
    return config, world.draw_scene(config, streams, 1), world.draw_phases(config, streams, 1)


def bound_mm(**options: float | str | tuple) -> tuple[float, float]:
    peb, ceb = world.drop_bound(*scene(**options))
    return 1e3 * float(peb[0, 0]), 1e3 * float(ceb[0, 0, 0])


def white_variance(config: RisConfig, drawn: world.Scene) -> torch.Tensor:
    return world.entry_noise_variance(config) + world.fading_variances(config, drawn).sum(dim=-1)


@lru_cache(maxsize=1)
def default_information() -> tuple[torch.Tensor, ...]:
    """Parameters [3, 5], gains [3], variance and F [17, 17] of the default scene."""
    config, drawn, phases = scene()
    parameters, gains = drawn.parameters[0, 0, 0], world.gains(config, drawn, phases)[0, 0, 0]
    variance = white_variance(config, drawn)[0, 0, 0]
    system = config.system
    return parameters, gains, variance, information.fisher(system.sizes, system.slopes, parameters, gains, variance)


def default_covariance() -> torch.Tensor:
    return information.channel_covariance(default_information()[3], 11)


def test_fisher_information_by_finite_differences_of_the_mean() -> None:
    system = scene()[0].system
    parameters, gains, variance, exact = default_information()

    def mean(x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return synthesise(modes.steering(system.sizes, system.slopes, x), g).flatten()

    columns = []
    unknown = [(0, m) for m in range(5)] + [(path, m) for path in (1, 2) for m in (0, 1, 4)]
    for path, m in unknown:
        step = 1e-14 * C if m == modes.DELAY_MODE else 1e-6
        move = torch.zeros_like(parameters)
        move[path, m] = step
        columns.append((mean(parameters + move, gains) - mean(parameters - move, gains)) / (2 * step))
    for unit in (1.0, 1j):
        for path in range(3):
            one = torch.zeros_like(gains)
            one[path] = unit
            columns.append(mean(parameters, one))
    derivative = torch.stack(columns, dim=-1)
    numeric = 2 / variance * (derivative.mH @ derivative).real
    size = exact.diagonal().sqrt()
    assert float(((numeric - exact) / torch.outer(size, size)).abs().max()) < 1e-6


def test_paths_of_the_default_scene_are_as_if_alone() -> None:
    system = scene()[0].system
    _, gains, variance, _ = default_information()
    alone = isolated_variances(system.sizes, system.slopes, gains, variance)
    unknown = torch.cat((alone[0], alone[1, [0, 1, 4]], alone[2, [0, 1, 4]])).sqrt()
    found = default_covariance().diagonal().sqrt()
    torch.testing.assert_close(found, unknown, rtol=1e-4, atol=0)
    # theta and psi of the line of sight, its delay in metres, theta over either surface.
    for index, value in ((0, 1.4633e-4), (2, 1.0907e-4), (4, 0.6489e-3), (5, 3.1884e-4), (8, 4.4772e-4)):
        assert float(found[index]) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("snr_db", "peb_mm", "ceb_mm"),
    [
        (-10.0, 26.40, 17.83),
        (0.0, 8.491, 5.733),
        (10.0, 3.096, 2.090),
        (20.0, 1.826, 1.233),
        (30.0, 1.646, 1.111),
    ],
)
def test_bounds_over_snr(snr_db: float, peb_mm: float, ceb_mm: float) -> None:
    assert bound_mm(snr_db=snr_db) == pytest.approx((peb_mm, ceb_mm), rel=2e-3)


def test_bounds_do_not_depend_on_the_clock_bias() -> None:
    config, drawn, phases = scene()
    found = [
        world.drop_bound(config, drawn.replace(bias_m=torch.full_like(drawn.bias_m, 1e-9 * C * bias_ns)), phases)
        for bias_ns in (-40.0, 0.0, 120.0)
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-9, atol=0)


SWEEPS = {
    "surfaces": [({"num_ris": count}, value) for count, value in ((1, 3.45), (2, 3.10), (3, 2.59), (4, 2.28))],
    "elements": [
        ({"ris_shape": (n, n)}, value) for n, value in ((8, 10.15), (12, 5.28), (16, 3.79), (20, 3.10), (24, 2.66))
    ],
    "Rician factor": [
        ({"kappa_bs_db": kappa_db}, value)
        for kappa_db, value in ((0.0, 7.08), (5.0, 4.80), (10.0, 3.51), (13.0, 3.10), (20.0, 2.71))
    ],
    "slots": [
        ({"num_slots": slots}, value) for slots, value in ((64, 3.096), (128, 2.472), (256, 2.092), (512, 1.873))
    ],
}


@pytest.mark.parametrize("sweep", SWEEPS)
def test_bound_falls_as_in_the_prototype(sweep: str) -> None:
    found = [bound_mm(**options)[0] for options, _ in SWEEPS[sweep]]
    assert found == pytest.approx([value for _, value in SWEEPS[sweep]], rel=1e-2)
    assert all(after < before for before, after in itertools.pairwise(found))


def test_a_weaker_line_of_sight_first_helps_and_then_hurts() -> None:
    """One surface: a weaker path also scatters less into the others."""
    found = [bound_mm(num_ris=1, exponent_los=exponent)[0] for exponent in (2.0, 3.5, 6.0)]
    assert found == pytest.approx([14.9, 3.1, 12.6], rel=2e-2)
    assert found[0] > found[1] < found[2]


def test_bounds_with_less_or_more_known() -> None:
    assert bound_mm(preset="small")[0] == pytest.approx(12.28, rel=2e-3)
    assert bound_mm(los_blocked=1.0)[0] == pytest.approx(6.14, rel=2e-3)
    known = information.covariance_bound(world.pair_information(*scene())[0, 0, 0, :3, :3])
    assert 1e3 * float(information.root_trace(known)) == pytest.approx(1.99, rel=3e-3)


def test_a_path_without_gain_is_the_same_as_no_path() -> None:
    system = scene()[0].system
    parameters, gains, variance, _ = default_information()
    drawn = scene()[1]
    ue, bs, ris, rotation = (part[0, 0, 0] for part in drawn.pairs)

    def position_information(paths: list[int], values: torch.Tensor) -> torch.Tensor:
        found = information.fisher(system.sizes, system.slopes, parameters[paths], values, variance)
        effective = information.effective_information(found, information.num_path_unknowns(len(paths)))
        surfaces = ris[[path - 1 for path in paths[1:]]]
        return information.position_information(effective, world.position_jacobian(ue, bs, surfaces, rotation))

    silent = torch.stack((gains[0], gains[1], torch.zeros_like(gains[2])))
    torch.testing.assert_close(
        position_information([0, 1, 2], silent), position_information([0, 1], gains[:2]), rtol=1e-6, atol=1e-3
    )


def test_one_path_alone_determines_nothing() -> None:
    system = scene()[0].system
    parameters, gains, variance, _ = default_information()
    ue, bs, ris, rotation = (part[0, 0, 0] for part in scene()[1].pairs)
    silent = gains * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    found = information.fisher(system.sizes, system.slopes, parameters, silent, variance)
    effective = information.effective_information(found, 11)
    matrix = information.position_information(effective, world.position_jacobian(ue, bs, ris, rotation))
    peb, ceb = information.bounds(matrix)
    assert math.isinf(float(peb))
    assert math.isinf(float(ceb))
    # The silent paths' own cosines are not determined, those of the path that is there are.
    spread = information.channel_covariance(found, 11).diagonal()
    assert torch.isinf(spread).tolist() == [True] * 5 + [False] * 3 + [True] * 3


def test_nothing_and_nonsense_determine_nothing() -> None:
    for matrix in (torch.zeros(4, 4), torch.full((4, 4), math.nan)):
        peb, ceb = information.bounds(matrix.double())
        assert math.isinf(float(peb))
        assert math.isinf(float(ceb))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 5), exponent=st.integers(-6, 6))
def test_bound_of_a_well_posed_matrix_is_its_inverse(seed: int, size: int, exponent: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(2, size, size + 3, generator=generator, dtype=torch.float64)
    # Units as different as metres and cosines.
    units = torch.pow(10.0, exponent * torch.arange(size, dtype=torch.float64))
    matrix = root @ root.mT * units.unsqueeze(-1) * units
    found = information.covariance_bound(matrix) * units.unsqueeze(-1) * units
    torch.testing.assert_close(found, torch.linalg.inv(root @ root.mT), rtol=1e-6, atol=1e-9)


def test_effective_information_is_the_inverse_of_the_block_of_the_inverse() -> None:
    information_matrix = default_information()[3]
    size = information_matrix.diagonal().sqrt()
    block = torch.linalg.inv(information_matrix / torch.outer(size, size))[:11, :11]
    expected = block / torch.outer(size[:11], size[:11])
    torch.testing.assert_close(default_covariance(), expected, rtol=1e-8, atol=1e-18)
    los, surfaces = information.path_blocks(default_covariance())
    torch.testing.assert_close(los, default_covariance()[:5, :5])
    torch.testing.assert_close(surfaces[1], default_covariance()[8:, 8:])


def test_weighted_least_squares_reaches_the_bound_in_linear_theory() -> None:
    pair = tuple(part[0, 0, 0] for part in scene()[1].pairs)
    peb, ceb = (1e-3 * value for value in bound_mm())

    def ratios(constrained: bool) -> tuple[float, float]:
        found = linear_theory.wls_covariance(default_covariance(), *pair, constrained=constrained)
        return float(found[:3, :3].trace().sqrt()) / peb, float(found[3, 3].sqrt()) / ceb

    assert all(1 - 1e-9 <= ratio < 1.001 for ratio in ratios(constrained=True))
    assert 1.01 < ratios(constrained=False)[0] < 1.02
    equal = information.root_trace(linear_theory.ls_covariance(default_covariance(), *pair))
    assert float(equal) / peb == pytest.approx(2.555, rel=1e-2)


def test_linear_theory_sees_estimators_as_they_are() -> None:
    """The map of a surface's direction against finite differences of the direction itself."""
    ue, bs, ris, rotation = (part[0, 0, 0] for part in scene()[1].pairs)
    paths = world.trace_paths(ue, bs, ris)
    theta = default_information()[0][1:, :2]

    def direction(cosines: torch.Tensor) -> torch.Tensor:
        third = (1 - cosines.square().sum(dim=-1, keepdim=True)).sqrt()
        return -(torch.cat((cosines, third), dim=-1) @ rotation.mT)

    torch.testing.assert_close(direction(theta), paths.direction[1:])
    exact = linear_theory.ris_direction_maps(paths, rotation)
    for axis in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[axis] = 1e-6
        slope = (direction(theta + step) - direction(theta - step)) / 2e-6
        torch.testing.assert_close(exact[..., axis], slope, rtol=1e-7, atol=1e-8)


def test_cooperation_of_two_base_stations_and_two_ues() -> None:
    two = {"num_bs": 2, "num_ues": 2, "sector_deg": 10.0}
    alone = information.without_clock(world.pair_information(*scene(**two)))[0, 0]
    by_itself = 1e3 * information.root_trace(information.covariance_bound(alone))
    assert by_itself.tolist() == pytest.approx([4.41, 5.55], rel=5e-3)
    linked = [bound_mm(**two, link_std_m=std_m)[0] for std_m in (0.05, 0.005, 0.002, 1e-7)]
    assert [bound_mm(**two)[0], *linked] == pytest.approx([2.81, 2.807, 2.66, 2.31, 1.82], rel=5e-3)


def test_cooperative_information_by_hand() -> None:
    """Two UEs on a line each: p_0 and p_1 measured with variance 1, their difference exactly: variance 1/2 for both."""
    eye = torch.eye(3, dtype=torch.float64)
    both = torch.stack((eye, eye))
    found = information.cooperative_covariance(both, 1e-9 * eye.unsqueeze(0))
    torch.testing.assert_close(found, 0.5 * both, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(information.cooperative_covariance(both, None), both)
    # A UE that hears nothing is located by its neighbour's measurement, and not at all without one.
    deaf = torch.stack((eye, torch.zeros_like(eye)))
    found = information.cooperative_covariance(deaf, 4 * eye.unsqueeze(0))
    torch.testing.assert_close(found, torch.stack((eye, 5 * eye)), rtol=1e-6, atol=1e-6)
    lost = information.root_trace(information.cooperative_covariance(deaf, None))
    assert lost.tolist() == [pytest.approx(math.sqrt(3)), math.inf]


def test_a_wrong_number_of_links_is_refused() -> None:
    eye = torch.eye(3).expand(3, 3, 3)
    with pytest.raises(ValueError, match="3 UEs have 2 links"):
        information.cooperative_information(eye, eye)
