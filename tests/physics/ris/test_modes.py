import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics.ris import geometry, modes
from cfpos_envs.physics.ris.modes import synthesise
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S as C

SIZES, SLOPES = (3, 4, 2, 5, 6), modes.mode_slopes(200e6, 6)
NS = 1e-9 * C
WINDOW_M = C * 64 / 200e6


def points(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


UE, BS, SURFACES = points((10, 10, -10))[0], points((0, 0, 0))[0], points((5, 18, -3), (15, -4, 3))
ROTATION = geometry.euler_rotation(*torch.deg2rad(points((45, 0, -15))[0]))
BIAS = torch.tensor(20 * NS, dtype=torch.float64)


def random_paths(seed: int, *batch: int, paths: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    parameters = 2 * torch.rand(*batch, paths, 5, generator=generator, dtype=torch.float64) - 1
    return parameters, torch.randn(*batch, paths, generator=generator, dtype=torch.complex128)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    batch=st.lists(st.integers(1, 3), max_size=2),
    paths=st.integers(1, 4),
    sizes=st.lists(st.integers(1, 4), min_size=5, max_size=5),
)
def test_block_and_matched_filters_are_their_definitions(
    seed: int, batch: list[int], paths: int, sizes: list[int]
) -> None:
    parameters, gains = random_paths(seed, *batch, paths=paths)
    vectors = modes.steering(sizes, SLOPES, parameters)
    block = synthesise(vectors, gains)
    torch.testing.assert_close(
        block, torch.einsum("...l,...la,...lb,...lc,...ld,...le->...abcde", gains, *vectors), rtol=1e-12, atol=1e-12
    )

    def by_definition(*chosen: torch.Tensor) -> torch.Tensor:
        conjugates = [vector.conj() for vector in chosen]
        return torch.einsum("...abcde,...la,...lb,...lc,...ld,...le->...l", block, *conjugates)

    torch.testing.assert_close(modes.correlate(block, vectors), by_definition(*vectors), rtol=1e-10, atol=1e-9)
    plain, slopes = modes.correlate_derivatives(block, vectors, SLOPES)
    torch.testing.assert_close(plain, by_definition(*vectors), rtol=1e-10, atol=1e-9)
    primes = modes.steering_derivatives(vectors, SLOPES)
    for m in range(modes.NUM_MODES):
        chosen = [primes[q] if q == m else vectors[q] for q in range(modes.NUM_MODES)]
        torch.testing.assert_close(slopes[..., m], by_definition(*chosen), rtol=1e-10, atol=1e-9)


def test_the_block_is_gain_times_array_responses_times_delay() -> None:
    """The printed form g a_U(theta) a_B(psi)^H d(tau)_n, entry by entry, for one path."""
    theta, psi, delay_s = (0.3, -0.6), (0.2, 0.7), 4e-9
    parameters = points((*theta, *psi, C * delay_s))
    gain = torch.tensor([0.8 - 0.5j], dtype=torch.complex128)
    block = synthesise(modes.steering(SIZES, SLOPES, parameters), gain)
    for u1, u2, b1, b2, n in ((0, 0, 0, 0, 0), (2, 3, 1, 4, 5), (1, 0, 1, 2, 3)):
        at_ue = math.pi * (u1 * theta[0] + u2 * theta[1])
        at_bs = math.pi * (b1 * psi[0] + b2 * psi[1])
        phase = at_ue - at_bs - 2 * math.pi * n * 200e6 * delay_s / 6
        expected = complex(gain[0]) * complex(math.cos(phase), math.sin(phase))
        assert complex(block[u1, u2, b1, b2, n]) == pytest.approx(expected, abs=1e-12)


def test_delays_repeat_after_one_window() -> None:
    vector = modes.mode_vector(points((1.25, 1.25 + WINDOW_M)), 64, modes.mode_slopes(200e6, 64)[4])
    torch.testing.assert_close(vector[:, 0], vector[:, 1], rtol=0, atol=1e-11)


def test_derivatives_of_steering_vectors_by_finite_differences() -> None:
    parameters, _ = random_paths(3)
    exact = modes.steering_derivatives(modes.steering(SIZES, SLOPES, parameters), SLOPES)
    ahead, behind = (modes.steering(SIZES, SLOPES, parameters + step) for step in (1e-6, -1e-6))
    for derivative, plus, minus in zip(exact, ahead, behind):
        torch.testing.assert_close(derivative, (plus - minus) / 2e-6, rtol=0, atol=1e-7)


def test_wrong_number_of_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="5 axes"):
        modes.steering((3, 4), (1.0, 2.0), torch.zeros(1, 5))


def test_path_parameters_of_the_default_scene() -> None:
    expected = points(
        (-0.816497, -0.149429, 0.577350, -0.577350, 77.774996),
        (0.180579, 0.601620, 0.951330, -0.158555, 122.298197),
        (-0.322252, -0.827504, -0.252982, 0.189737, 138.614745),
    )
    found = geometry.path_parameters(UE, BIAS, BS, SURFACES, ROTATION)
    torch.testing.assert_close(found[:, :4], expected[:, :4], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 4] / NS, expected[:, 4], rtol=0, atol=1e-5)
    paths = geometry.trace_paths(UE, BS, SURFACES)
    torch.testing.assert_close(paths.range_m, points((17.3205, 11.7473, 19.7484))[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(paths.first_hop_m, points((0.0, 18.9209, 15.8114))[0], rtol=0, atol=1e-4)


def test_position_jacobian_by_finite_differences() -> None:
    jacobian = geometry.position_jacobian(UE, BS, SURFACES, ROTATION)
    rows = torch.tensor([*range(5), *(5 * path + m for path in (1, 2) for m in (0, 1, 4))])
    step = 1e-4
    for column, move in enumerate(torch.eye(4, dtype=torch.float64)):
        ahead, behind = (
            geometry.path_parameters(UE + s * move[:3], BIAS + s * move[3], BS, SURFACES, ROTATION).flatten()[rows]
            for s in (step, -step)
        )
        error = (ahead - behind) / (2 * step) - jacobian[:, column]
        assert float((error / jacobian.norm(dim=1)).abs().max()) < 1e-7
    assert torch.nonzero(jacobian[:, 3]).flatten().tolist() == geometry.delay_rows(3)


@settings(max_examples=30, deadline=None)
@given(angles=st.tuples(*[st.floats(-4, 4)] * 3), seed=st.integers(0, 1000))
def test_rotation_and_cosines(angles: tuple[float, float, float], seed: int) -> None:
    rotation = geometry.euler_rotation(*points(angles)[0])
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(torch.linalg.det(rotation)) == pytest.approx(1.0)
    generator = torch.Generator().manual_seed(seed)
    ue, bs = 20 * torch.rand(2, 4, 3, generator=generator, dtype=torch.float64) + points((0, 0, 1), (40, 0, 1))[:, None]
    surfaces = 20 * torch.rand(4, 3, 3, generator=generator, dtype=torch.float64) - 40
    found = geometry.path_parameters(ue, torch.zeros(4, dtype=torch.float64), bs, surfaces, rotation.expand(4, 3, 3))
    assert found.shape == (4, 4, 5)
    assert bool((found[..., :2].square().sum(dim=-1) <= 1 + 1e-12).all())
    # A detour is never shorter than the straight way.
    assert bool((found[:, 1:, 4] >= found[:, :1, 4]).all())


def test_rotation_by_hand() -> None:
    quarter = torch.tensor(math.pi / 2, dtype=torch.float64)
    zero = torch.zeros_like(quarter)
    x, y, z = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(geometry.euler_rotation(quarter, zero, zero) @ x, y)
    torch.testing.assert_close(geometry.euler_rotation(zero, quarter, zero) @ z, x)
    torch.testing.assert_close(geometry.euler_rotation(zero, zero, quarter) @ y, z)
    # The turn about x comes first, that about z last.
    torch.testing.assert_close(geometry.euler_rotation(quarter, zero, quarter) @ y, z)


def test_directions_and_angles_are_inverse() -> None:
    azimuth, elevation = points((-2.5, 0.1, 3.0), (-1.2, 0.0, 0.7))
    back = geometry.azimuth_elevation(geometry.spherical_direction(azimuth, elevation))
    torch.testing.assert_close(torch.stack(back), torch.stack((azimuth, elevation)))


FAULTS = {
    "same place": {"ue": (5, 18, -3)},
    "same place, surfaces": {"ris": ((5, 18, -3), (5, 18, -3.01))},
    "plane of a surface": {"ue": (10, 18, -10)},
    "between base station and UE": {"ue": (10, -10, -10)},
    "behind the UE": {"euler": (45, 180, -15)},
    "plane of the UE's array": {"euler": (0, 0, 0), "ue": (10, 10, -3.0)},
    "plane of the base station's array": {"ue": (0.1, 10, -10)},
    "do not fit into one window": {"window_m": 10.0},
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_geometry_without_a_model_is_refused_by_name(case: str) -> None:
    fault = FAULTS[case]
    rotation = geometry.euler_rotation(*torch.deg2rad(points(fault.get("euler", (45, 0, -15)))[0]))
    arguments = (
        points(fault.get("ue", tuple(UE.tolist())))[0],
        BS,
        points(*fault.get("ris", SURFACES.tolist())),
        rotation,
    )
    window_m = fault.get("window_m", WINDOW_M)
    assert not bool(geometry.geometry_valid(*arguments, window_m))
    wrong = [message for message, found in geometry.geometry_faults(*arguments, window_m).items() if bool(found)]
    assert any(case.split(",")[0] in message for message in wrong)
    with pytest.raises(ValueError, match=r"move|turn|use|raise|both must"):
        geometry.check_geometry(*arguments, window_m)


def test_faults_are_told_per_entry_of_a_batch() -> None:
    ue = torch.stack((UE, points((10, -10, -10))[0], UE))
    batch = (ue, BS.expand(3, 3), SURFACES.expand(3, 2, 3), ROTATION.expand(3, 3, 3))
    assert geometry.geometry_valid(*batch, WINDOW_M).tolist() == [True, False, True]
    geometry.check_geometry(UE, BS, SURFACES, ROTATION, WINDOW_M)


@pytest.mark.parametrize(("lengths", "fits"), [((10, 20, 30), True), ((10, 60, 70), False), ((0, 47, 94), False)])
def test_order_of_delays_on_a_circle(lengths: tuple[float, ...], fits: bool) -> None:
    """The largest gap of a circle of 95.9 m must be the one outside: 75.9, 35.9 and 1.9 m here."""
    assert bool(geometry.fits_window(points(lengths)[0], WINDOW_M)) is fits
