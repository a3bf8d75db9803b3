import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.physics.ris import modes
from cfpos_envs.physics.ris.modes import synthesise
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S as C
from cfpos_envs.scenarios.ris import world
from cfpos_envs.scenarios.ris.config import PRESETS, RisConfig
from cfpos_envs.streams import Streams

# One antenna less per axis than the small preset where only the logic counts.
TINY: dict[str, Any] = {
    "preset": "small",
    "bs_shape": (3, 2),
    "ue_shape": (2, 3),
    "ris_shape": (4, 4),
    "num_subcarriers": 16,
    "bandwidth_hz": 50e6,
    "num_slots": 8,
}
SILENT = {"snr_db": 300.0, "kappa_bs_db": 200.0, "kappa_ris_db": 200.0}


def drawn(seed: int = 0, batch: int = 2, **options: Any) -> tuple[RisConfig, world.Scene, torch.Tensor]:
    config = RisConfig(**{**TINY, **options})
    streams = Streams(seed)
    return config, world.draw_scene(config, streams, batch), world.draw_phases(config, streams, batch)


# Options


def test_presets_and_overrides() -> None:
    assert RisConfig().system.sizes == (6, 6, 8, 8, 64)
    small = RisConfig(preset="small", ris_shape=[12, 10])
    assert small.system.sizes == (5, 5, 6, 6, 32)
    assert small.system.num_ris_elements == 120
    assert small.system.bandwidth_hz == PRESETS["small"].bandwidth_hz
    assert RisConfig(ue_positions_m=[[10, 10, -10]], bias_ns=[-1, 2]) == RisConfig(
        ue_positions_m=((10.0, 10.0, -10.0),), bias_ns=(-1, 2)
    )
    assert hash(small) == hash(dataclasses.replace(small))
    assert RisConfig(los_blocked=True) == RisConfig(los_blocked=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "smal"}, "did you mean small"),
        ({"phases": "svdd"}, "did you mean svd"),
        ({"split": "validation"}, "split='validation' is not one of train, test"),
        ({"num_ris": 0}, "num_ris=0 must be at least 1"),
        ({"num_ris": 5}, "ris_positions_m has only 4 points"),
        ({"num_ues": True}, "num_ues=True must be a whole number"),
        ({"num_bs": 3}, "bs_positions_m has only 2 points"),
        ({"snr_db": math.nan}, "snr_db=nan must be a finite number"),
        ({"los_blocked": 1.5}, "los_blocked=1.5 must be at most 1"),
        ({"sector_deg": -1.0}, "sector_deg=-1.0 must be at least 0"),
        ({"exponent_los": True}, "exponent_los=True must be a finite number"),
        ({"bias_ns": (3.0, 1.0)}, "low <= high"),
        ({"bias_ns": (1.0, 2.0, 3.0)}, "pair"),
        ({"link_std_m": 0.0}, "link_std_m=0.0 must be at least 1e-09"),
        ({"bs_shape": (8,)}, r"bs_shape=\(8,\) must be two whole numbers"),
        ({"ue_shape": (0, 6)}, "ue_shape=0 must be at least 1"),
        ({"euler_deg": (1.0, 2.0)}, "euler_deg=.* must be three numbers"),
        ({"ue_positions_m": ()}, "ue_positions_m=.* must be a list of points"),
        ({"ue_positions_m": ((10, -10, -10),)}, "a surface stands between base station and UE"),
        ({"ue_positions_m": ((10, 18, -10),)}, "plane of a surface"),
        ({"ue_positions_m": ((5, 18, -3),)}, "same place"),
        ({"ue_positions_m": ((0.0, 10, -10),)}, "plane of the base station's array"),
        ({"euler_deg": (45.0, 180.0, -15.0)}, "behind the UE's array"),
        ({"euler_deg": (0.0, 0.0, 0.0), "ue_positions_m": ((10, 10, -3),)}, "plane of the UE's array"),
        ({"bandwidth_hz": 2e9}, "do not fit into one window"),
        ({"num_slots": 63}, "num_slots=63 cannot sound 64 base station antennas"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RisConfig(**options)


# The drop


def test_default_scene_has_the_stated_gains() -> None:
    config = RisConfig()
    scene, phases = world.draw_scene(config, Streams(0), 1), world.draw_phases(config, Streams(0), 1)
    found = 20 * torch.log10(world.gains(config, scene, phases)[0, 0, 0].abs())
    assert found.tolist() == pytest.approx([-111.145, -117.910, -120.859], abs=0.01)
    assert world.noise_w(config) == pytest.approx(1.01208e-12, rel=1e-4)
    white = world.entry_noise_variance(config) + world.fading_variances(config, scene).sum(dim=-1)
    assert float(white) == pytest.approx(1.39648e-12, rel=1e-4)
    assert float((world.array_gains(config, scene, phases).abs() / 400).min()) > 0.99


def test_the_singular_vector_misses_the_middle_of_a_wide_sector() -> None:
    """Documents the limit: at 10 degrees half the amplitude is gone, at 5 none is."""
    config = RisConfig(sector_deg=10.0)
    scene = world.draw_scene(config, Streams(0), 1)
    found = world.array_gains(config, scene, world.design(config).unsqueeze(0))[0, 0, 0].abs() / 400
    assert float(found.max()) < 0.7
    assert found.tolist() == pytest.approx([0.45, 0.53], abs=0.01)


def test_without_noise_and_fading_the_block_is_its_paths() -> None:
    config, scene, phases = drawn(**SILENT)
    system = config.system
    vectors = modes.steering(system.sizes, system.slopes, scene.parameters)
    mean = synthesise(vectors, world.gains(config, scene, phases))
    error = world.receive(config, scene, phases) - mean
    assert float(error.abs().max()) < 1e-6 * float(mean.abs().max())


def test_samples_have_the_stated_variance() -> None:
    config, scene, phases = drawn(batch=300)
    system = config.system
    vectors = modes.steering(system.sizes, system.slopes, scene.parameters)
    rest = world.receive(config, scene, phases) - synthesise(vectors, world.gains(config, scene, phases))
    expected = world.entry_noise_variance(config) + world.fading_variances(config, scene)[0, 0, 0].sum()
    # 172 800 entries, nearly independent.
    assert float(rest.abs().square().mean()) == pytest.approx(float(expected), rel=2e-2)


def test_a_change_of_the_noise_scales_the_same_draws() -> None:
    """Curves over SNR come from the same fading and the same noise, only larger."""
    quiet, loud, louder = (drawn(3, snr_db=snr_db)[1] for snr_db in (300.0, 10.0, -10.0))
    torch.testing.assert_close(louder.white - quiet.white, 10 * (loud.white - quiet.white), rtol=1e-3, atol=1e-10)
    torch.testing.assert_close(louder.scattered, quiet.scattered)
    assert torch.equal(louder.gain_phase_rad, quiet.gain_phase_rad)


def test_same_seed_same_drop_and_splits_never_share() -> None:
    first, again, other = (drawn(seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first.white, again.white)
    assert not torch.equal(first.white, other.white)
    config = RisConfig(**TINY)
    train, test = (world.draw_scene(config, Streams(1, split), 2) for split in ("train", "test"))
    assert not torch.equal(train.gain_phase_rad, test.gain_phase_rad)


def test_a_blocked_line_of_sight_has_neither_path_nor_fading() -> None:
    config, scene, phases = drawn(los_blocked=1.0, snr_db=300.0)
    assert bool((world.gains(config, scene, phases)[..., 0] == 0).all())
    assert float(scene.white.abs().max()) < 1e-15
    open_scene = drawn(los_blocked=0.0, snr_db=300.0)[1]
    assert float(open_scene.white.abs().max()) > 1e-9
    some = drawn(batch=400, los_blocked=0.3)[1].blocked.double().mean()
    # Standard deviation 0.023.
    assert float(some) == pytest.approx(0.3, abs=0.1)


def test_clocks() -> None:
    fixed = drawn(num_ues=2, num_bs=2)[1].bias_m / (1e-9 * C)
    torch.testing.assert_close(fixed[0], torch.tensor([[20.0, 25.0], [25.0, 30.0]], dtype=torch.float64))
    scene = drawn(batch=200, bias_ns=(-40.0, 60.0), num_ues=2)[1]
    found = scene.bias_m / (1e-9 * C)
    # The second UE's is 5 ns more.
    assert bool(((found >= -40.0) & (found <= 65.0)).all())
    assert float(found.max() - found.min()) > 80


def test_ues_are_drawn_in_their_box_and_told_where_the_model_fails() -> None:
    _, scene, _ = drawn(batch=200, ue_box_m=1.5)
    shift = scene.ue_m[:, 0] - torch.tensor([10.0, 10.0, -10.0], dtype=torch.float64)
    assert float(shift.abs().max()) <= 1.5
    assert bool((shift.abs().amax(dim=0) > 1.3).all())
    config, scene, phases = drawn(batch=200, ue_box_m=9.0)
    valid = world.scene_valid(config, scene)
    assert bool(valid.any())
    assert not bool(valid.all())
    between = scene.ue_m[:, 0, 1] > 18.0
    assert bool(between.any())
    assert not bool(valid[between].any())
    # The bounds stay free of NaN whatever the place.
    peb, ceb = world.drop_bound(config, scene, phases)
    assert not bool(peb.isnan().any() | ceb.isnan().any())


def test_random_phases_differ_between_episodes_and_designs_do_not() -> None:
    assert not torch.equal(*drawn(phases="random")[2])
    assert torch.equal(*drawn(phases="chirp")[2])


@pytest.mark.parametrize("links", [None, 0.002])
def test_measurements_hold_what_is_known_and_no_more(links: float | None) -> None:
    config, scene, phases = drawn(num_ues=2, num_bs=2, link_std_m=links)
    found = world.measurements(config, scene, phases)
    assert found.received.shape == (2, 2, 2, *config.system.sizes)
    assert found.siso is not None
    assert found.siso.received.shape == (2, 2, 2, 4, 2, 16)
    hidden = {"ue_m", "bias_m", "blocked", "gain_phase_rad"}
    assert not hidden & {field.name for field in dataclasses.fields(found)}
    if links is None:
        assert found.link_offset_m is None
        assert found.link_covariance_m2 is None
    else:
        error = found.link_offset_m - (scene.ue_m[:, :1] - scene.ue_m[:, 1:])
        assert 0 < float(error.abs().max()) < 5 * links
        torch.testing.assert_close(found.link_covariance_m2[1, 0], 4e-6 * torch.eye(3, dtype=torch.float64))


def test_more_base_stations_and_links_never_hurt() -> None:
    single = world.drop_bound(*drawn(preset="small", num_ues=2))[0]
    both = world.drop_bound(*drawn(preset="small", num_ues=2, num_bs=2, sector_deg=5.0))[0]
    linked = world.drop_bound(*drawn(preset="small", num_ues=2, num_bs=2, link_std_m=1e-3))[0]
    assert single.shape == (2, 2)
    assert bool((linked <= both * (1 + 1e-9)).all())
    assert bool((linked < single).all())


def test_small_preset_has_the_stated_bounds() -> None:
    found = []
    for snr_db in (0.0, 10.0, 20.0):
        config = RisConfig(preset="small", snr_db=snr_db)
        scene = world.draw_scene(config, Streams(0), 1)
        found.append(1e3 * float(world.drop_bound(config, scene, world.draw_phases(config, Streams(0), 1))[0]))
    assert found == pytest.approx([33.04, 12.28, 7.53], rel=2e-3)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 100),
    batch=st.integers(1, 3),
    counts=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 4)),
    design=st.sampled_from(["svd", "balanced", "chirp", "random"]),
    box=st.floats(0, 3),
)
def test_shapes_whatever_the_counts(seed: int, batch: int, counts: tuple, design: str, box: float) -> None:
    ues, stations, surfaces = counts
    options = {"num_ues": ues, "num_bs": stations, "num_ris": surfaces, "phases": design, "ue_box_m": box}
    config, scene, phases = drawn(seed, batch, **options)
    found = world.measurements(config, scene, phases)
    assert found.received.shape == (batch, ues, stations, *config.system.sizes)
    assert bool(torch.isfinite(torch.view_as_real(found.received)).all())
    assert found.phases.shape == (batch, surfaces, 16)
    peb, ceb = world.drop_bound(config, scene, phases)
    assert peb.shape == (batch, ues)
    assert ceb.shape == (batch, ues, stations)
    assert bool((peb > 0).all())
    assert world.scene_valid(config, scene).shape == (batch, ues)
    chosen = scene.select(slice(0, 1))
    assert torch.equal(world.receive(config, chosen, phases[:1]), found.received[:1])
