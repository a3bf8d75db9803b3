"""Information in sample covariances: against quadrature where one path is hidden, finite differences, and itself."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

from cfpos_envs.physics.arrays import ula_response
from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.physics.dcp.bounds import LinksToUsers, drop_bound, measurement_statistics
from cfpos_envs.physics.dcp.covariance.information import (
    ANGLES_DEG,
    LinkInformation,
    TableSettings,
    covariance_fisher,
    information_path,
    known_paths_information,
    link_information,
    simulate_information,
)
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw
from cfpos_envs.physics.dcp.covariance.path_posterior import (
    DB_PER_NEPER,
    PathDraws,
    draw_links,
    draw_offsets,
    path_scores,
    real_beams,
    real_covariance,
)
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.propagation import path_gain_db

DEFAULT = ArrayLaw(8, 0.5, math.radians(10.0), 20, 100)
ONE_PATH = ArrayLaw(3, 0.5, math.radians(20.0), 1, 4)
SHIPPED = [
    DEFAULT,
    dataclasses.replace(DEFAULT, num_antennas=4),
    dataclasses.replace(DEFAULT, num_antennas=16),
    dataclasses.replace(DEFAULT, angular_spread_rad=math.radians(5.0)),
]


@pytest.mark.parametrize("size", [5, 8])
def test_beams_about_the_middle_make_covariances_real(size: int) -> None:
    angle = torch.tensor([0.7, 1.9], dtype=torch.float64)
    steering = ula_response(angle, size).to(torch.complex128)
    beams = real_beams(math.pi * torch.cos(angle), size)
    wanted = beams.unsqueeze(-1) * beams.unsqueeze(-2)
    torch.testing.assert_close(real_covariance(steering.unsqueeze(-1) * steering.conj().unsqueeze(-2)), wanted)
    assert wanted[0].trace().item() == pytest.approx(size)


def log_evidence(law: ArrayLaw, received: Tensor, bearing_rad: float, snr_db: float) -> Tensor:
    """Logarithm of p(received) up to a constant: the one path's angle summed out on a grid; knows no score."""
    share = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    offset = torch.distributions.Laplace(0.0, law.angular_spread_rad / math.sqrt(2.0)).icdf(share)
    beam = real_beams(math.pi * torch.cos(bearing_rad + offset), law.num_antennas)
    power, noise = 10.0 ** (snr_db / 10.0), 1.0
    covariance = power * beam.unsqueeze(-1) * beam.unsqueeze(-2) + noise * torch.eye(law.num_antennas)
    fit = torch.linalg.solve(covariance, received.expand_as(covariance)).diagonal(dim1=1, dim2=2).sum(-1)
    return torch.logsumexp(-law.snapshots * (torch.logdet(covariance) + fit), dim=0)


def test_the_chain_finds_the_score_of_quadrature_and_finite_differences() -> None:
    generator, bearing, snr, chains = torch.Generator().manual_seed(3), 1.2, 3.0, 200
    level = torch.full((chains,), snr, dtype=torch.float64)
    direction = torch.full((chains,), bearing, dtype=torch.float64)
    # Three links, each given to many chains that begin anywhere; powers are in units of the signal's.
    for received in draw_links(generator, ONE_PATH, direction[:3], level[:3]).received:
        own = received * 10.0 ** (snr / 10.0)
        by_bearing = [float(log_evidence(ONE_PATH, own, bearing + step, snr)) for step in (-1e-3, 1e-3)]
        by_power = [float(log_evidence(ONE_PATH, own, bearing, snr + step)) for step in (-1e-2, 1e-2)]
        wanted = torch.tensor([(by_bearing[1] - by_bearing[0]) / 2e-3, (by_power[1] - by_power[0]) / 2e-2])
        start = PathDraws(draw_offsets(generator, ONE_PATH, chains), received.expand(chains, 3, 3))
        found = path_scores(generator, ONE_PATH, direction, level, start, sweeps=60, warm_up=20).mean
        error = found.std(dim=0) / math.sqrt(chains)
        assert ((found.mean(dim=0) - wanted).abs() < 4.5 * error).all()
        assert (error < torch.tensor([0.2, 0.02])).all()


def test_known_paths_tell_more_than_covariances_and_by_hand() -> None:
    bearing, mixed, power = known_paths_information(DEFAULT).look_up(torch.tensor(50.0), torch.tensor(1.0))
    assert math.degrees(float(bearing) ** -0.5) == pytest.approx(10.0 / math.sqrt(40.0))
    assert float(power) ** -0.5 == pytest.approx(4.342945 / math.sqrt(800.0), rel=1e-6)
    assert float(mixed) == 0.0
    with pytest.raises(ValueError, match="spread above zero"):
        known_paths_information(dataclasses.replace(DEFAULT, angular_spread_rad=0.0))


@pytest.mark.parametrize("law", SHIPPED)
def test_shipped_tables_rise_with_the_snr_and_stay_below_known_paths(law: ArrayLaw) -> None:
    table = link_information(law, simulate=False)
    assert table.source.startswith("simulated")
    values, errors = table.values, table.errors
    known = known_paths_information(law).values[0, 0]
    assert (values[..., 0] <= known[0] + 4.5 * errors[..., 0]).all()
    assert (values[..., 2] <= known[2] + 4.5 * errors[..., 2]).all()
    assert (values[..., 1].square() <= values[..., 0] * values[..., 2] * (1 + 1e-4)).all()
    inside = values[:, ANGLES_DEG.index(20.0) :]
    spread = errors[:, ANGLES_DEG.index(20.0) :]
    rise, doubt = inside.diff(dim=0), (spread[1:].square() + spread[:-1].square()).sqrt()
    assert (rise[..., 0] > -4.5 * doubt[..., 0]).all()
    assert (rise[..., 2] > -4.5 * doubt[..., 2]).all()


def test_the_table_is_what_another_simulation_finds() -> None:
    angle_deg, snr_db = 90.0, 50.0
    table, links = link_information(DEFAULT, simulate=False), 60
    bearing = torch.full((links,), math.radians(angle_deg), dtype=torch.float64)
    level, generator = torch.full_like(bearing, snr_db), torch.Generator().manual_seed(11)
    found = path_scores(generator, DEFAULT, bearing, level, draw_links(generator, DEFAULT, bearing, level), 80)
    known = torch.stack((torch.full_like(level, 2 * 20 / math.radians(10.0) ** 2), found.power_information), dim=-1)
    each = known - torch.diagonal(found.spread, dim1=1, dim2=2)
    row, column = list(table.snr_db).index(snr_db), ANGLES_DEG.index(angle_deg)
    doubt = (each.var(dim=0) / links + table.errors[row, column, ::2].square()).sqrt()
    assert ((each.mean(dim=0) - table.values[row, column, ::2]).abs() < 4.5 * doubt).all()
    assert (doubt < torch.tensor([0.03, 0.08]) * each.mean(dim=0)).all()


def test_chains_from_the_truth_score_as_much_as_the_table_holds() -> None:
    """The variance of the score is the information: another estimate of it, with no Louis in it."""
    links, generator = 300, torch.Generator().manual_seed(5)
    bearing = torch.full((links,), math.radians(60.0), dtype=torch.float64)
    level = torch.full_like(bearing, 40.0)
    score = path_scores(generator, DEFAULT, bearing, level, draw_links(generator, DEFAULT, bearing, level), 20).mean
    entries = torch.stack(link_information(DEFAULT, simulate=False).look_up(level[0], bearing[0]))
    scaled = score / entries[::2].sqrt()
    # Mean zero and variance one; chains of 20 sweeps keep some 15 % more, so much is let pass.
    assert (scaled.mean(dim=0).abs() < 4.5 * scaled.std(dim=0) / math.sqrt(links)).all()
    assert (scaled.square().mean(dim=0) > 1.0 - 4.5 * math.sqrt(2.0 / links)).all()
    assert (scaled.square().mean(dim=0) < 1.15 + 4.5 * math.sqrt(2.0 / links)).all()


def test_tables_mirror_at_broadside_and_on_the_axis() -> None:
    values = torch.tensor([4.0, 0.5, 2.0], dtype=torch.float64).expand(2, 2, 3).clone()
    values[1] *= 3.0
    grid = torch.tensor([0.0, 10.0], dtype=torch.float64), torch.tensor([0.0, math.pi / 2], dtype=torch.float64)
    table = LinkInformation(*grid, values, 0.0 * values, "by hand")
    for angle, sign in (
        (0.4, 1.0),
        (-0.4, -1.0),
        (math.pi - 0.4, -1.0),
        (0.4 - math.pi, 1.0),
        (0.4 + 2 * math.pi, 1.0),
    ):
        found = torch.stack(table.look_up(torch.tensor(5.0), torch.tensor(angle, dtype=torch.float64)))
        torch.testing.assert_close(found, torch.tensor([8.0, sign * 1.0, 4.0], dtype=torch.float64))
    below = torch.stack(table.look_up(torch.tensor(-40.0), torch.tensor(0.4)))
    torch.testing.assert_close(below, torch.tensor([4.0, 0.5, 2.0], dtype=torch.float64))
    again = LinkInformation.of_content(json.loads(json.dumps(table.content())))
    torch.testing.assert_close(again.values, table.values)


def two_sites(radio: RadioModel) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(4)
    aps = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) * radio.side_m
    orientation = torch.rand(2, 5, generator=generator, dtype=torch.float64) * 6.28
    return aps, orientation, torch.full_like(orientation, 10.0), torch.tensor([[[37.0, 61.0]], [[12.0, 5.0]]]).double()


def test_fisher_matrix_by_finite_differences_with_and_without_shadowing(radio: RadioModel) -> None:
    aps, orientation, height, points = two_sites(radio)
    table = LinkInformation(
        torch.tensor([0.0, 100.0]).double(),
        torch.tensor([0.0, math.pi / 2]).double(),
        torch.tensor([900.0, 5.0, 20.0]).double().expand(2, 2, 3),
        torch.zeros(2, 2, 3),
        "by hand",
    )
    links = LinksToUsers.of(radio, aps, orientation, height, points)
    hidden = torch.tensor([0.0, 4.0])
    found = covariance_fisher(links, table, hidden)

    def expected(where: Tensor) -> Tensor:
        at = link_geometry(aps, orientation, height, where, radio.side_m, radio.wrap)
        gain = path_gain_db(at.distance_3d_m, radio.path_loss_intercept_db, radio.path_loss_slope_db)
        return torch.stack((at.angle_rad, gain), dim=-1)

    steps = 1e-5 * torch.eye(2, dtype=torch.float64)
    slope = torch.stack([(expected(points + s) - expected(points - s)) / 2e-5 for s in steps], dim=-1)
    bearing, mixed, power = table.look_up(links.snr_db, links.angle_rad)
    link = torch.stack((torch.stack((bearing, mixed), -1), torch.stack((mixed, power), -1)), dim=-2)
    unknown = torch.zeros(2, 1, 1, 2, 2, dtype=torch.float64)
    unknown[..., 1, 1] = hidden.double().square().view(2, 1, 1)
    each = slope.mT @ torch.linalg.inv(torch.linalg.inv(link) + unknown) @ slope
    torch.testing.assert_close(found, each.sum(dim=1), rtol=1e-6, atol=1e-9)


def test_the_bound_lies_between_known_paths_and_powers(radio: RadioModel) -> None:
    law, site = ArrayLaw.of(radio), two_sites(radio)
    links = LinksToUsers.of(radio, *site)
    for hidden in (0.0, 4.0):
        least, own = (
            position_error_bound(covariance_fisher(links, table, hidden))
            for table in (known_paths_information(law), link_information(law, simulate=False))
        )
        powers = drop_bound(radio, measurement_statistics(radio), *site, hidden)
        assert (least < own).all()
        assert (own < 0.95 * powers).all()


def test_other_arrays_have_known_paths_or_a_simulation() -> None:
    law = ArrayLaw(2, 0.5, 0.2, 3, 10)
    assert not information_path(law).is_file()
    assert link_information(law, simulate=False).source == "all path angles known"
    table = simulate_information(law, TableSettings(links=3, sweeps=4))
    assert table.values.shape == (10, len(ANGLES_DEG), 3)
    assert torch.isfinite(table.values).all()
    assert float(table.values[..., 2].max()) <= 2 * 10 / DB_PER_NEPER**2 * 1.5
    with pytest.raises(ValueError, match="spread above zero"):
        simulate_information(dataclasses.replace(law, angular_spread_rad=0.0))
