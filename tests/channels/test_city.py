"""The city of boxes: what buildings cut, image sources by hand, losses, reciprocity."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cfpos_envs.channels import city as scene
from cfpos_envs.channels import city_paths as tracing

WAVELENGTH_M = 0.1
FLOAT = {"atol": 1e-4, "rtol": 1e-4}


def city(
    boxes: list[tuple[list[float], list[float]]], stations: list[list[float]], permittivity: float = 4.0
) -> scene.City:
    """Boxes and stations without scatterers in 100 m x 100 m x 30 m."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 2, 3)
    return scene.City(
        area_min_m=torch.zeros(3),
        area_max_m=torch.tensor([100.0, 100.0, 30.0]),
        box_min_m=corners[:, 0],
        box_max_m=corners[:, 1],
        wall_permittivity=torch.full((len(boxes),), permittivity),
        bs_position_m=torch.tensor(stations),
        bs_orientation_rad=torch.zeros(len(stations), 3),
        scatterer_m=torch.zeros(len(stations), 0, 3),
        scatterer_rcs_m2=torch.zeros(len(stations), 0),
    )


def all_mirrors(place: scene.City) -> tuple[tracing.Surfaces, tracing.Mirrors]:
    surfaces = tracing.surfaces_of(place)
    numbers = torch.arange(len(surfaces.offset))
    pairs = torch.cartesian_prod(numbers, numbers)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    stations = len(place.bs_position_m)
    single, first, second = (x.expand(stations, -1) for x in (numbers, pairs[:, 0], pairs[:, 1]))
    return surfaces, tracing.Mirrors(single, first, second)


def traced(place: scene.City, points: list[list[float]]) -> tracing.CsiPaths:
    surfaces, mirrors = all_mirrors(place)
    return tracing.trace(place, surfaces, mirrors, torch.tensor(points), WAVELENGTH_M, 1000)


def path_of_length(paths: tracing.CsiPaths, length_m: float) -> tuple[Tensor, Tensor]:
    """Gain and direction of the one living path [user 0, station 0] of this length."""
    lengths = paths.delay_s[0, 0] * tracing.SPEED_OF_LIGHT_M_S
    found = ((lengths - length_m).abs() < 1e-3) & (paths.gain[0, 0] != 0)
    assert found.sum() == 1, f"{int(found.sum())} paths of {length_m} m"
    return paths.gain[0, 0][found][0], paths.direction[0, 0][found][0]


def alive(paths: tracing.CsiPaths) -> int:
    return int((paths.gain[0, 0] != 0).sum())


def draw(seed: int = 0, num_bs: int = 3) -> scene.City:
    generator = torch.Generator().manual_seed(seed)
    return scene.draw_city(generator, (120.0, 90.0, 20.0), (3, 2), (8.0, 18.0), num_bs, 15.0, 4)


# Buildings -------------------------------------------------------------------------------------------------------


def test_lines_through_boxes_by_hand() -> None:
    place = city([([10, 10, 0], [20, 20, 10]), ([30, 10, 0], [40, 20, 10])], [[0.0, 0.0, 5.0]])
    lines = [
        ([0, 15, 5], [50, 15, 5], 2),  # through both
        ([0, 15, 5], [25, 15, 5], 1),  # ends between them
        ([0, 15, 12], [50, 15, 12], 0),  # above
        ([0, 5, 5], [50, 5, 5], 0),  # beside, parallel
        ([0, 15, 14], [50, 15, 5], 1),  # comes down behind the first
        ([5, 15, 5], [9, 15, 5], 0),  # ends before
        ([15, 15, 5], [15, 50, 5], 1),  # begins inside
        ([20, 0, 5], [20, 50, 5], 0),  # along a wall
        ([20, 15, 5], [30, 15, 5], 0),  # from wall to wall
        ([15, 15, 20], [15, 15, 10], 0),  # down to the roof
    ]
    start, end, wanted = (torch.tensor(column, dtype=torch.float32) for column in zip(*lines))
    assert scene.count_crossings(place, start, end).tolist() == wanted.tolist()


@given(st.integers(0, 2**31), st.integers(1, 20))
def test_cut_lines_have_a_point_inside(seed: int, count: int) -> None:
    place, generator = draw(3), torch.Generator().manual_seed(seed)
    start, end = (torch.rand(count, 3, generator=generator) * place.area_max_m for _ in range(2))
    share = torch.linspace(0, 1, 400)[:, None, None]
    inside = scene.inside_buildings(place, start + share * (end - start))
    shrunk = dataclasses.replace(place, box_min_m=place.box_min_m + 0.6, box_max_m=place.box_max_m - 0.6)
    deep = scene.inside_buildings(shrunk, start + share * (end - start))
    crossings = scene.count_crossings(place, start, end)
    assert (crossings[deep.any(dim=0)] > 0).all(), "a line runs through a building and is not cut"
    assert inside.any(dim=0)[crossings > 2].all(), "cut three times, never inside"


def test_users_stand_in_the_area_and_outside_of_buildings() -> None:
    place = draw()
    points = scene.draw_points(torch.Generator().manual_seed(1), place, 4000)
    assert not scene.inside_buildings(place, points).any()
    assert (points >= place.area_min_m).all()
    assert (points <= place.area_max_m).all()
    # All of the free volume is used: every octant of the area has its users.
    octants = ((points > 0.5 * place.area_max_m).long() * torch.tensor([1, 2, 4])).sum(dim=1)
    assert (torch.bincount(octants, minlength=8) > 200).all()


def test_a_point_that_is_never_free_is_lifted_onto_the_roof() -> None:
    place = city([([0, 0, 0], [100, 100, 20])], [[0.0, 0.0, 25.0]])
    chosen = scene.first_free(place, torch.tensor([[[5.0, 5.0, 5.0], [6.0, 6.0, 6.0]]]))
    assert chosen.tolist() == [[5.0, 5.0, 21.0]]


def test_the_scene_is_its_seed() -> None:
    one, same, other = draw(4), draw(4), draw(5)
    for name, value in vars(one).items():
        assert torch.equal(value, getattr(same, name))
    assert not torch.equal(one.box_min_m, other.box_min_m)
    # Stations stand on their roofs or masts, look inwards and are in no building.
    assert not scene.inside_buildings(one, one.bs_position_m).any()
    ahead = torch.stack((one.bs_orientation_rad[:, 0].cos(), one.bs_orientation_rad[:, 0].sin()), dim=-1)
    inwards = 0.5 * one.area_max_m[:2] - one.bs_position_m[:, :2]
    assert ((ahead * inwards).sum(dim=-1) / inwards.norm(dim=-1) > 0.999).all()


# Paths -----------------------------------------------------------------------------------------------------------


def test_free_space_is_friis_and_the_ground_is_a_mirror() -> None:
    place = city([], [[0.0, 0.0, 10.0]])
    paths = traced(place, [[30.0, 40.0, 10.0]])
    assert alive(paths) == 2
    direct, direction = path_of_length(paths, 50.0)
    # lambda / (4 pi d); 500 whole wavelengths, so no phase.
    torch.testing.assert_close(direct, torch.tensor(WAVELENGTH_M / (4 * math.pi * 50.0) + 0j), atol=1e-7, rtol=1e-3)
    torch.testing.assert_close(direction, torch.tensor([0.6, 0.8, 0.0]), **FLOAT)
    # Image at z = -10: 50 m away and 20 m up; the ray leaves downwards.
    length = math.sqrt(50.0**2 + 20.0**2)
    ground, direction = path_of_length(paths, length)
    sine = 20.0 / length  # cosine of the incidence
    root = math.sqrt(scene.GROUND_PERMITTIVITY - 1 + sine**2)
    loss = (sine - root) / (sine + root)
    assert float(ground.abs()) == pytest.approx(abs(loss) * WAVELENGTH_M / (4 * math.pi * length), rel=1e-4)
    torch.testing.assert_close(direction, torch.tensor([30.0, 40.0, -20.0]) / length, **FLOAT)
    turned = -2 * math.pi * length / WAVELENGTH_M + math.pi  # the coefficient is negative
    assert math.cos(float(ground.angle()) - turned) == pytest.approx(1.0, abs=1e-3)


def test_a_wall_is_a_mirror_where_it_is_and_nowhere_else() -> None:
    # A wall at x = 40 facing the station, 20 m wide and 20 m high.
    place = city([([40, 40, 0], [60, 60, 20])], [[10.0, 50.0, 10.0]])
    paths = traced(place, [[20.0, 44.0, 10.0]])
    # Image of the station at x = 70: (50, 6) away from the user. It hits the wall at y = 46.4.
    gain, direction = path_of_length(paths, math.hypot(50.0, 6.0))
    cosine = 50.0 / math.hypot(50.0, 6.0)
    root = math.sqrt(4.0 - 1 + cosine**2)
    wanted = abs((cosine - root) / (cosine + root)) * WAVELENGTH_M / (4 * math.pi * math.hypot(50.0, 6.0))
    assert float(gain.abs()) == pytest.approx(wanted, rel=1e-4)
    torch.testing.assert_close(direction, torch.tensor([50.0, -6.0, 0.0]) / math.hypot(50.0, 6.0), **FLOAT)
    # For this user the mirror point would be at y = 38, beside the wall: only direct and ground paths are left.
    assert alive(traced(place, [[10.0, 26.0, 10.0]])) == 2


def test_a_corner_reflects_twice() -> None:
    # Two boxes form a corner at (50, 50) that opens to the lower left.
    place = city([([50, 0, 0], [60, 50, 25]), ([0, 50, 0], [60, 60, 25])], [[20.0, 30.0, 10.0]])
    paths = traced(place, [[40.0, 10.0, 10.0]])
    # Both mirrors: the image is at (80, 70); user to image: (40, 60). One order hits x = 50 first, then y = 50.
    gain, direction = path_of_length(paths, math.hypot(40.0, 60.0))
    length = math.hypot(40.0, 60.0)
    cosines = [40.0 / length, 60.0 / length]
    loss = 1.0
    for cosine in cosines:
        root = math.sqrt(4.0 - 1 + cosine**2)
        loss *= (cosine - root) / (cosine + root)
    assert float(gain.abs()) == pytest.approx(loss * WAVELENGTH_M / (4 * math.pi * length), rel=1e-4)
    # A corner sends rays back where they came from: the ray leaves the station parallel to its return.
    torch.testing.assert_close(direction, torch.tensor([40.0, 60.0, 0.0]) / length, **FLOAT)


def test_what_stands_in_the_way_costs_its_loss_leg_by_leg() -> None:
    mirror = ([40, 0, 0], [60, 100, 20])
    station, user = [10.0, 50.0, 10.0], [[20.0, 30.0, 10.0]]
    free = traced(city([mirror], [station]), user)
    # A mast in the first leg of the reflected path, (10, 50) -> (40, 38), and in no other way.
    post = ([29, 41.5, 0], [31, 43.5, 19])
    blocked = traced(city([mirror, post], [station]), user)
    length = math.hypot(50.0, 20.0)
    before, after = path_of_length(free, length)[0], path_of_length(blocked, length)[0]
    assert float(after.abs() / before.abs()) == pytest.approx(10 ** (-tracing.BLOCKAGE_DB / 20), rel=1e-4)
    direct = math.hypot(10.0, 20.0)
    torch.testing.assert_close(path_of_length(free, direct)[0], path_of_length(blocked, direct)[0])
    wall = city([([14, 35, 0], [16, 45, 19])], [station])
    lost = path_of_length(traced(wall, user), direct)[0]
    assert float(lost.abs()) == pytest.approx(0.1 * WAVELENGTH_M / (4 * math.pi * direct), rel=1e-4)
    assert tracing.line_of_sight(wall, torch.tensor([*user, [10.0, 20.0, 10.0]])).flatten().tolist() == [False, True]


def test_fresnel_at_its_ends() -> None:
    permittivity = torch.tensor([4.0, 9.0])
    # Normal incidence: (1 - sqrt(e)) / (1 + sqrt(e)); grazing: -1; no wall: 0.
    torch.testing.assert_close(tracing.fresnel(torch.ones(2), permittivity), torch.tensor([-1 / 3, -1 / 2]))
    torch.testing.assert_close(tracing.fresnel(torch.zeros(2), permittivity), -torch.ones(2))
    assert not tracing.fresnel(torch.tensor([0.3, 0.8]), torch.ones(2)).abs().gt(1e-6).any()


def test_a_scatterer_obeys_the_radar_equation() -> None:
    place = city([], [[0.0, 0.0, 10.0]])
    place = dataclasses.replace(
        place, scatterer_m=torch.tensor([[[30.0, 0.0, 10.0]]]), scatterer_rcs_m2=torch.tensor([[50.0]])
    )
    gain, direction = path_of_length(traced(place, [[30.0, 40.0, 10.0]]), 70.0)
    power = WAVELENGTH_M**2 * 50.0 / ((4 * math.pi) ** 3 * 30.0**2 * 40.0**2)
    assert float(gain.abs().square()) == pytest.approx(power, rel=1e-4)
    torch.testing.assert_close(direction, torch.tensor([1.0, 0.0, 0.0]), **FLOAT)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_both_ends_may_change_places(seed: int) -> None:
    """Reciprocity: the same lengths and amplitudes both ways."""
    base = draw(seed)
    ends = scene.draw_points(torch.Generator().manual_seed(seed), base, 2)

    def between(here: Tensor, there: Tensor) -> Tensor:
        place = dataclasses.replace(
            base,
            bs_position_m=here[None],
            bs_orientation_rad=base.bs_orientation_rad[:1],
            scatterer_m=base.scatterer_m[:1],
            scatterer_rcs_m2=base.scatterer_rcs_m2[:1],
        )
        paths = traced(place, [there.tolist()])
        rows = torch.stack((paths.delay_s[0, 0] * tracing.SPEED_OF_LIGHT_M_S, paths.gain[0, 0].abs()), dim=-1)
        rows = rows[rows[:, 1] > 0]
        return rows[rows[:, 0].argsort()]

    forth, back = between(ends[0], ends[1]), between(ends[1], ends[0])
    assert forth.shape == back.shape
    assert len(forth) >= 6  # direct, ground, four scatterers
    torch.testing.assert_close(forth[:, 0], back[:, 0], atol=1e-2, rtol=0)
    torch.testing.assert_close(forth[:, 1].sum(), back[:, 1].sum(), rtol=1e-3, atol=0)


def test_paths_come_strongest_first_and_one_by_one_as_in_a_batch() -> None:
    place = draw(7)
    surfaces = tracing.surfaces_of(place)
    mirrors = tracing.choose_mirrors(torch.Generator().manual_seed(0), place, surfaces, 6, 6, WAVELENGTH_M)
    points = scene.draw_points(torch.Generator().manual_seed(1), place, 20)
    together = tracing.trace(place, surfaces, mirrors, points, WAVELENGTH_M, 8)
    assert together.gain.shape == (20, 3, 8)
    assert (together.gain.abs().diff(dim=-1) <= 1e-12).all()
    alone = tracing.trace(place, surfaces, mirrors, points[4:5], WAVELENGTH_M, 8)
    torch.testing.assert_close(alone.gain[0], together.gain[4])
    # Cut to fewer paths, the strongest stay.
    torch.testing.assert_close(
        tracing.trace(place, surfaces, mirrors, points, WAVELENGTH_M, 3).gain, together.gain[..., :3]
    )


def test_chosen_mirrors_hold_most_of_the_power() -> None:
    place = draw(8)
    surfaces, everything = all_mirrors(place)
    few = tracing.choose_mirrors(torch.Generator().manual_seed(0), place, surfaces, 12, 12, WAVELENGTH_M)
    points = scene.draw_points(torch.Generator().manual_seed(2), place, 200)

    def reflected_power(mirrors: tracing.Mirrors) -> float:
        gain = tracing.trace(place, surfaces, mirrors, points, WAVELENGTH_M, 2000).gain
        return float(gain.abs().square().sum())

    kept, whole = reflected_power(few), reflected_power(everything)
    assert 0.95 * whole < kept <= whole * (1 + 1e-5)
