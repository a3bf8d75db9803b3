"""The registered estimators on whole scenes: near the bound, and honest about what they cannot locate."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from baselines import make_policy
from baselines.ris import pairs
from baselines.ris.channel import ChannelOptions
from cfpos_envs.measurements.ris import RisMeasurements
from cfpos_envs.physics.ris.modes import steering, synthesise
from cfpos_envs.scenarios.ris.world import draw_phases, gains
from cfpos_envs.streams import Streams
from tests.baselines.ris.drops import CHUNK, RisDrop, outcomes, ris_drop

NAMES = ("ris-wls", "ris-wls-paper", "ris-ls", "ris-aoa-toa", "ris-siso")
TINY = {"bs_shape": (4, 4), "ue_shape": (4, 4), "ris_shape": (16, 16), "num_slots": 16, "preset": "small"}


def changed(measurements: RisMeasurements, **changes: Any) -> RisMeasurements:
    return dataclasses.replace(measurements, **changes)


def noise_free(**overrides: Any) -> tuple[RisDrop, Tensor]:
    """A drop whose blocks hold nothing but the paths, in double precision, and its positions."""
    drop = ris_drop(2, 1, **overrides)
    scene, system = drop.scene, drop.config.system
    phases = draw_phases(drop.config, Streams(1), 2)
    vectors = steering(system.sizes, system.slopes, scene.parameters)
    clean = synthesise(vectors, gains(drop.config, scene, phases))
    return dataclasses.replace(drop, measurements=changed(drop.measurements, received=clean)), scene.ue_m


@pytest.mark.parametrize(
    ("name", "options"),
    [("ris-wls", {}), ("ris-wls", {"refine": 0}), ("ris-wls-paper", {}), ("ris-wls-paper", {"label": "delay"})],
)
@pytest.mark.parametrize("precision", [torch.complex64, torch.complex128])
def test_noise_free_blocks_give_exact_positions(name: str, options: dict, precision: torch.dtype) -> None:
    drop, truth = noise_free(preset="default")
    received = drop.measurements.received.to(precision)
    found = make_policy(name, **options).locate(changed(drop.measurements, received=received))
    assert float(torch.linalg.vector_norm(found.position - truth, dim=-1).max()) < 1e-5
    assert float(drop.clock_error_m(found).max()) < 1e-5
    assert found.valid.all()


def test_small_preset_near_both_bounds_and_covariances_that_are_true() -> None:
    made = {"full": make_policy("ris-wls"), "paper": make_policy("ris-wls-paper")}
    found = outcomes(made, 3 * CHUNK, 5, preset="small")
    # 150 errors: the RMSE is known to about 4.5 %, the clock's to 6 %.
    assert 0.8 < found["full"].ratio < 1.2
    assert 0.75 < found["full"].clock_ratio < 1.25
    assert 0.85 < found["paper"].ratio < 1.4
    assert found["full"].valid.all()
    drop = ris_drop(CHUNK, 6, preset="small")
    fix = make_policy("ris-wls").locate(drop.measurements)
    error = (fix.position - drop.scene.ue_m).unsqueeze(-1)
    squares = (error.mT @ torch.linalg.solve(fix.covariance, error)).mean() / 3
    clock = (drop.clock_error_m(fix).square() / fix.bias_variance_m2).mean()
    assert 0.6 < float(squares) < 1.5
    assert 0.4 < float(clock) < 1.9


def test_two_base_stations_and_linked_users_are_fused() -> None:
    scene = {"num_bs": 2, "num_ues": 2, "phases": "balanced", "sector_deg": 10.0, "preset": "small", "snr_db": 20.0}
    linked = outcomes({"full": make_policy("ris-wls")}, CHUNK, 7, link_std_m=0.005, **scene)["full"]
    assert linked.valid.all()
    assert 0.8 < linked.ratio < 1.25
    alone = outcomes({"full": make_policy("ris-wls")}, CHUNK, 7, **scene)["full"]
    assert linked.rmse_m < alone.rmse_m


@pytest.mark.parametrize("bias_ns", [-60.0, 120.0])
def test_wrapped_delays_and_late_clocks_do_not_matter(bias_ns: float) -> None:
    found = outcomes({"full": make_policy("ris-wls")}, CHUNK, 8, preset="small", bias_ns=bias_ns)["full"]
    assert found.ratio < 1.4
    assert found.clock_ratio < 1.5


def test_a_blocked_line_of_sight_is_dropped_by_the_gate() -> None:
    made = {"gate": make_policy("ris-wls"), "no gate": make_policy("ris-wls", gate=0.0)}
    found = outcomes(made, CHUNK, 9, preset="small", snr_db=20.0, los_blocked=1.0)
    assert found["gate"].ratio < 1.4
    assert found["no gate"].ratio > 10
    drop = ris_drop(20, 9, preset="small", snr_db=20.0, los_blocked=1.0)
    assert torch.equal(drop.channels(ChannelOptions()).present, torch.tensor([[False, True, True]]).expand(20, 3))


def test_benchmarks_fall_behind_as_they_should() -> None:
    made = {name: make_policy(name) for name in NAMES}
    found = outcomes(made, CHUNK, 10, preset="small", snr_db=20.0)
    assert 1.7 < found["ris-ls"].ratio < 3.5
    assert found["ris-aoa-toa"].rmse_m == pytest.approx(0.299792458 * 20, rel=0.02)
    assert found["ris-siso"].rmse_m > 5 * found["ris-wls"].rmse_m
    lines = outcomes({"lines": make_policy("ris-ls", form="lines", channel="paper")}, CHUNK, 10, preset="small")
    assert lines["lines"].ratio > 2


@pytest.mark.parametrize("name", NAMES)
def test_spoilt_blocks_are_not_valid_and_leave_the_others_alone(name: str) -> None:
    drop = ris_drop(4, 11, snr_db=30.0, **TINY)
    m = drop.measurements
    assert m.siso is not None
    received, single = m.received.clone(), m.siso.received.clone()
    received[1, 0, 0, 0, 0, 0, 0, 0], single[1, 0, 0, 0, 0, 0] = math.nan, math.nan
    received[2], single[2] = 0, 0
    siso = dataclasses.replace(m.siso, received=single)
    policy = make_policy(name)
    clean, spoilt = policy.locate(m), policy.locate(changed(m, received=received, siso=siso))
    assert clean.valid.all()
    assert spoilt.valid[:, 0].tolist() == [True, False, False, True]
    for entry in (spoilt.position, spoilt.covariance, spoilt.bias_m, spoilt.bias_variance_m2):
        assert torch.isfinite(entry).all()
    for trial in (0, 3):
        torch.testing.assert_close(spoilt.position[trial], clean.position[trial], rtol=0, atol=1e-4)
    assert (torch.linalg.eigvalsh(spoilt.covariance) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_hidden_does_not_enter_and_answers_repeat(name: str) -> None:
    drop = ris_drop(3, 12, **TINY)
    policy = make_policy(name)
    first, again = policy.locate(drop.measurements), policy.locate(drop.measurements.select(slice(None)))
    assert torch.equal(first.position, again.position)
    alone = policy.locate(drop.measurements.select(slice(1, 2)))
    torch.testing.assert_close(alone.position[0], first.position[1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_is_an_empty_answer(name: str) -> None:
    drop = ris_drop(1, 12, **TINY)
    found = make_policy(name).locate(drop.measurements.select(slice(0, 0)))
    assert found.position.shape == (0, 1, 3)
    assert found.bias_m.shape == (0, 1)


def test_memory_does_not_grow_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = ris_drop(5, 13, **TINY)
    whole = make_policy("ris-wls").locate(drop.measurements)
    seen: list[int] = []
    original = pairs.estimate_channels

    def watched(system: Any, received: Tensor, *rest: Any) -> Any:
        seen.append(len(received))
        return original(system, received, *rest)

    monkeypatch.setattr(pairs, "estimate_channels", watched)
    monkeypatch.setattr(pairs, "_CHUNK_SAMPLES", 2 * drop.measurements.received[0].numel())
    pieces = make_policy("ris-wls").locate(drop.measurements)
    assert seen == [2, 2, 1]
    torch.testing.assert_close(pieces.position, whole.position, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_other_measurements_are_refused(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} needs RisMeasurements .*; use it with ris-v0"):
        make_policy(name).locate(3)


def test_the_single_antenna_benchmark_says_what_it_lacks() -> None:
    drop = ris_drop(1, 14, **TINY)
    with pytest.raises(ValueError, match="ris-siso needs measurements"):
        make_policy("ris-siso").locate(changed(drop.measurements, siso=None))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ris-wls", {"solver": "brute"}, "solver='brute' is not one of search, linear, exip"),
        ("ris-wls", {"matching": "rank"}, "matching='rank' is not one of"),
        ("ris-wls", {"farthest_m": 0.0}, "farthest_m=0.0"),
        ("ris-wls", {"gates": 3}, "unknown option 'gates' .*did you mean gate"),
        ("ris-wls-paper", {"label": "projection"}, "label='projection' is not one of energy, delay"),
        ("ris-wls-paper", {"solver": "x"}, "solver='x'"),
        ("ris-ls", {"form": "ml"}, "form='ml' is not one of nls, lines"),
        ("ris-ls", {"channel": "best"}, "channel='best'"),
        ("ris-aoa-toa", {"channel": "best"}, "channel='best' is not one of full, paper"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_policy(name, **options)


@given(
    bs=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    ue=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    surfaces=st.integers(1, 4),
    tones=st.integers(8, 24),
    snr_db=st.sampled_from([-40.0, 0.0, 60.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=8, deadline=None)
def test_whatever_the_arrays_are_answers_are_finite(
    bs: tuple[int, int], ue: tuple[int, int], surfaces: int, tones: int, snr_db: float, seed: int
) -> None:
    if bs[0] * bs[1] <= surfaces + 1:
        return
    shapes = {"bs_shape": bs, "ue_shape": ue, "ris_shape": (8, 8), "num_slots": 25, "num_subcarriers": tones}
    drop = ris_drop(2, seed, num_ris=surfaces, snr_db=snr_db, bandwidth_hz=3.1e6 * tones, phases="random", **shapes)
    for name, options in (("ris-wls", {}), ("ris-wls", {"gate": 0.0}), ("ris-wls-paper", {}), ("ris-ls", {})):
        found = make_policy(name, **options).locate(drop.measurements)
        assert found.position.shape == (2, 1, 3)
        for entry in (found.position, found.covariance, found.bias_m, found.bias_variance_m2):
            assert torch.isfinite(entry).all()


def test_a_fix_lasts_as_long_as_what_was_received(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = ris_drop(2, 15, **TINY)
    policy = make_policy("ris-wls")
    asked: list[int] = []
    original = type(policy)._locate

    def watched(self: Any, measurements: RisMeasurements) -> Any:
        asked.append(len(measurements.received))
        return original(self, measurements)

    monkeypatch.setattr(type(policy), "_locate", watched)
    first = policy._fix(drop.measurements)
    again = policy._fix(changed(drop.measurements, received=1.0 * drop.measurements.received))
    assert torch.equal(first.position, again.position)
    assert asked == [2]
    policy._fix(changed(drop.measurements, received=2.0 * drop.measurements.received))
    policy.reset()
    policy._fix(drop.measurements)
    assert asked == [2, 2, 2]


def test_no_place_beyond_reach_is_an_answer() -> None:
    drop = ris_drop(3, 16, **TINY)
    lost = make_policy("ris-wls", farthest_m=5.0).locate(drop.measurements)
    assert not lost.valid.any()
    places = torch.cat((drop.measurements.bs_positions_m, drop.measurements.ris_positions_m), dim=1)
    torch.testing.assert_close(lost.position[:, 0], places.mean(dim=1))
