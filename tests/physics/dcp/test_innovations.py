import dataclasses
import math

import pytest
import torch

from cfpos_envs.physics.arrays import angle_profile, normalised_spectra, read_profile, scattered_spectra
from cfpos_envs.physics.dcp import innovations
from cfpos_envs.physics.dcp.links import Links, link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.normal_equations import NormalEquations, polar_terms
from cfpos_envs.physics.robust import clamp_length, student_weight


def site(radio: RadioModel, num_aps: int = 12, users: int = 4, seed: int = 1) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    aps = torch.rand(num_aps, 2, generator=generator, dtype=torch.float64) * radio.side_m
    orientation = torch.rand(num_aps, generator=generator, dtype=torch.float64) * 6.28 - 3.14
    points = torch.rand(users, 2, generator=generator, dtype=torch.float64) * radio.side_m
    return aps, orientation, torch.full_like(orientation, 10.0), points


def test_geometry_of_one_link_by_hand() -> None:
    links = link_geometry(
        torch.tensor([[95.0, 50.0]]),
        torch.tensor([math.pi / 2]),
        torch.tensor([12.0]),
        torch.tensor([[0.0, 50.0]]),
        100.0,
        True,
    )
    # 5 m to the right across the border; the array axis points up.
    assert links.distance_m.tolist() == [[5.0]]
    assert links.distance_3d_m.tolist() == [[13.0]]
    torch.testing.assert_close(links.unit, torch.tensor([[[1.0, 0.0]]]))
    torch.testing.assert_close(links.angle_rad, torch.tensor([[-math.pi / 2]]))
    assert links.azimuth_rad.tolist() == [[0.0]]


def test_predicted_rss_at_ten_metres_by_hand(radio: RadioModel) -> None:
    zero = torch.zeros(1, 1)
    # 6 m away and 8 m below.
    links = Links(zero + 6.0, zero, zero + 64.0, zero + 1.0, zero)
    # 10 log10(8 * 0.1 W * 6 / 1 mW) = 36.81 dBm and a gain of -67.2 dB.
    assert float(innovations.predicted_rss_dbm(radio, links)) == pytest.approx(36.812 - 67.2, abs=1e-3)
    assert float(innovations.predicted_rss_dbm(radio, links, torch.tensor(-4.0))) == pytest.approx(-34.388, abs=1e-3)
    # Where there is only noise, its power L sigma^2 remains.
    loud = dataclasses.replace(radio, noise_power_w=1.0)
    assert float(innovations.predicted_rss_dbm(loud, links)) == pytest.approx(10 * math.log10(8) + 30, abs=1e-3)


@pytest.mark.parametrize("noise_db", [-30.0, 0.0, 20.0, 60.0])
def test_the_law_of_many_links_is_the_formula(radio: RadioModel, noise_db: float) -> None:
    radio = dataclasses.replace(radio, noise_power_w=radio.noise_power_w * 10 ** (noise_db / 10))
    law = innovations.RssLaw.of(radio, 71.5)
    # With much noise no short polynomial will do.
    assert (law.coefficients is None) == (noise_db > 10)
    zero = torch.zeros(500, 1, dtype=torch.float64)
    links = Links(torch.linspace(0.0, 70.7, 500, dtype=torch.float64)[:, None], zero, zero + 100.0, zero + 1.0, zero)
    measured = torch.full((500, 1), -40.0, dtype=torch.float64)
    expected = measured - innovations.predicted_rss_dbm(radio, links)
    assert (law.residual_db(measured, links.slant_square_m2) - expected).abs().max() < 1.1e-5
    slant_square = links.slant_square_m2.clone().requires_grad_()
    (slope,) = torch.autograd.grad(-law.residual_db(measured, slant_square).sum(), slant_square)
    torch.testing.assert_close(law.slope_db_per_m2(links.slant_square_m2), slope)


def test_distance_inverts_the_predicted_rss(radio: RadioModel) -> None:
    aps, orientation, height, points = site(radio)
    links = link_geometry(aps, orientation, height, points, 100.0, True)
    distance = innovations.distance_from_rss(radio, innovations.predicted_rss_dbm(radio, links), height)
    torch.testing.assert_close(distance, links.distance_m, rtol=1e-5, atol=1e-4)
    strong = innovations.distance_from_rss(radio, torch.tensor([[0.0]]), torch.tensor([10.0]))
    assert strong.tolist() == [[0.0]]
    weak = innovations.distance_from_rss(radio, torch.tensor([[-200.0]]), torch.tensor([10.0]))
    assert math.isfinite(float(weak))
    assert float(weak) > 1000.0


def test_rss_slope_is_the_derivative_of_the_rss(radio: RadioModel) -> None:
    aps, orientation, height, _ = site(radio, 1)
    far = aps[0] + torch.tensor([20.0, 0.0], dtype=torch.float64)
    values = []
    for step in (-1e-3, 0.0, 1e-3):
        point = (far + torch.tensor([step, 0.0], dtype=torch.float64)).unsqueeze(0)
        links = link_geometry(aps, orientation, height, point, 100.0, True)
        values.append((float(innovations.predicted_rss_dbm(radio, links)), links))
    numerical = (values[2][0] - values[0][0]) / 2e-3
    assert numerical == pytest.approx(float(innovations.rss_slope_db_per_m(radio, values[1][1])), rel=1e-4)
    # -36.7 / ln 10 * 20 / 500.
    assert numerical == pytest.approx(-0.63754, abs=2e-4)


def test_bearing_residuals_take_the_side_of_the_hypothesis() -> None:
    angle = torch.tensor([0.9, -0.9])
    zero = torch.zeros(2)
    links = Links(torch.cos(angle), torch.sin(angle), zero, zero + 1.0, zero)
    residual, mirrored = innovations.bearing_residuals(torch.tensor([1.0, 1.0]), links)
    torch.testing.assert_close(residual, torch.tensor([0.1, -0.1]))
    torch.testing.assert_close(mirrored, torch.tensor([-1.9, 1.9]))


def test_nominal_weights() -> None:
    scale = innovations.nominal_bearing_scale(torch.tensor([math.pi / 2, math.pi / 6, 0.0]))
    torch.testing.assert_close(scale, torch.tensor([0.04, 0.05, 0.23]))
    torch.testing.assert_close(student_weight(torch.tensor([0.0, 1.0, 4.0])), torch.tensor([1.25, 1.0, 0.25]))


def information_step(unit, weight_r, weight_t, delta_r, delta_t, mask=None, ridge=1e-3, longest_m=5.0) -> tuple:
    """One step towards what all APs ask for, and the equations behind it."""
    used = 1.0 if mask is None else mask
    sums = polar_terms(unit, weight_r * used, weight_t * used, delta_r, delta_t).total()
    return clamp_length(sums.solve(ridge), longest_m), sums


def test_information_step_finds_the_common_point_of_exact_innovations() -> None:
    generator = torch.Generator().manual_seed(3)
    angle = torch.rand(2, 5, 3, generator=generator) * 6.28
    unit = torch.stack((angle.cos(), angle.sin()), dim=-1)
    side = torch.stack((-angle.sin(), angle.cos()), dim=-1)
    move = torch.tensor([0.3, -0.8])
    weights = torch.rand(2, 2, 5, 3, generator=generator) + 0.1
    step, sums = information_step(unit, *weights, (unit * move).sum(-1), (side * move).sum(-1), None, 0.0)
    torch.testing.assert_close(step, move.expand(2, 3, 2))
    matrix = torch.einsum("bmk,bmki,bmkj->bkij", weights[0], unit, unit)
    matrix = matrix + torch.einsum("bmk,bmki,bmkj->bkij", weights[1], side, side) + 0.2 * torch.eye(2)
    torch.testing.assert_close(sums.covariance(0.2), torch.linalg.inv(matrix), rtol=1e-4, atol=1e-5)


def test_masked_aps_and_long_steps() -> None:
    unit = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    weight, radial = torch.ones(2, 1), torch.tensor([[2.0], [9.0]])
    mask = torch.tensor([[True], [False]])
    step, _ = information_step(unit, weight, 0 * weight, radial, 0 * radial, mask)
    torch.testing.assert_close(step, torch.tensor([[2.0 / 1.001, 0.0]]))
    step, _ = information_step(unit, weight, 0 * weight, radial, 0 * radial)
    assert float(torch.linalg.vector_norm(step)) == pytest.approx(5.0, rel=1e-5)
    assert float(step[0, 1] / step[0, 0]) == pytest.approx(4.5, rel=1e-4)


def test_leaving_one_ap_out_equals_fusing_the_others() -> None:
    generator = torch.Generator().manual_seed(4)
    angle = torch.rand(4, 2, generator=generator) * 6.28
    unit = torch.stack((angle.cos(), angle.sin()), dim=-1)
    parts = torch.rand(4, 4, 2, generator=generator)
    terms = polar_terms(unit, *parts)
    nothing = NormalEquations(*(torch.zeros_like(value) for value in terms.parts()))
    without = terms.total().exchanged(terms, nothing).solve(1e-3)
    others, _ = information_step(unit[1:], *(part[1:] for part in parts), None, 1e-3, 1e6)
    torch.testing.assert_close(without[0], others)


def test_centroid_follows_the_strongest_ap_round_the_torus() -> None:
    aps = torch.tensor([[99.0, 50.0], [3.0, 50.0], [50.0, 50.0]])
    rss = torch.tensor([[-60.0], [-60.0], [-160.0]])
    torch.testing.assert_close(innovations.rss_weighted_centroid(aps, rss, 100.0, True), torch.tensor([[1.0, 50.0]]))
    # 10 dB are ten times the weight: (10 * 99 + 103) / 11.
    rss = torch.tensor([[-50.0], [-60.0], [-160.0]])
    expected = torch.tensor([[1093.0 / 11, 50.0]])
    torch.testing.assert_close(innovations.rss_weighted_centroid(aps, rss, 100.0, True), expected)
    mask = torch.tensor([[False], [True], [False]])
    torch.testing.assert_close(innovations.rss_weighted_centroid(aps, rss, 100.0, True, mask), aps[1:2])


def test_coarse_scores_peak_at_the_truth_and_equal_the_formula(radio: RadioModel) -> None:
    aps, orientation, height, users = (value.float() for value in site(radio, 9, 2, 5))
    candidates = torch.cat((users, users + 7.0, users - 11.0))
    truth = link_geometry(aps, orientation, height, users, 100.0, True)
    guess = link_geometry(aps, orientation, height, candidates, 100.0, True)
    rss, predicted = (innovations.predicted_rss_dbm(radio, links) for links in (truth, guess))
    table = normalised_spectra(181, 8, 0.5, radio.angular_spread_rad)
    spectra = scattered_spectra(truth.angle_rad, 8, 0.5, radio.angular_spread_rad)
    profile = angle_profile(spectra, table)
    scores = innovations.coarse_joint_scores(rss, profile, predicted, guess.angle_rad, 1.5)
    assert scores.shape == (2, 6)
    assert scores.argmax(dim=-1).tolist() == [0, 1]
    expected = -torch.log1p(((rss[:, 0:1] - predicted) / 1.5) ** 2).sum(dim=0)
    only_rss = innovations.coarse_joint_scores(rss, None, predicted, guess.angle_rad, 1.5)
    torch.testing.assert_close(only_rss[0], expected)
    only_aoa = innovations.coarse_joint_scores(rss, profile, predicted, guess.angle_rad, None)
    torch.testing.assert_close(only_rss + only_aoa, scores, rtol=1e-4, atol=1e-4)
    # The profile has one value per degree and the nearest one counts.
    nearest = torch.deg2rad(torch.rad2deg(guess.angle_rad).round())
    value = read_profile(profile[:, :1].expand(-1, 6, -1), nearest.abs())
    torch.testing.assert_close(only_aoa[0], -torch.log1p((1 - value) / 0.03).sum(dim=0), rtol=1e-3, atol=1e-3)
