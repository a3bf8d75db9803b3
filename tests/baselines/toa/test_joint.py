"""Joint communication and positioning: channel estimates in closed form, and both halves better than alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from baselines import make_policy
from baselines.toa.channel_prior import LinkPrior, flat_channel, mmse_channel, nmse_db, scattering, steering
from baselines.toa.joint import JointCp, JointCpOptions, cosine_to
from baselines.toa.path_fit import beam_cosine, path_gain, scattered_delay_std_s
from cfpos_envs.physics.arrays import ula_response
from cfpos_envs.physics.toa.maps import timing_drop_bound
from cfpos_envs.physics.toa.ranging import delay_variance_s2
from cfpos_envs.physics.waveform import delay_response, subcarrier_frequencies_hz
from tests.baselines.toa.synthetic import MODEL, WaveformDrop, changed, located, ranges_drop, waveform_drop

SMALL = dataclasses.replace(MODEL, num_antennas=3, num_subcarriers=12)


def bound_m(drop: WaveformDrop) -> float:
    m = drop.measurements
    bound = timing_drop_bound(
        m.model, m.ap_positions_m, m.height_diff_m, drop.truth_m, ap_orientation_rad=m.ap_orientation_rad
    )
    return float(bound.square().mean().sqrt())


def link(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float64)


@pytest.mark.parametrize("widths", [(0.0, 0.0), (0.15, 0.1)], ids=["known", "uncertain"])
def test_mmse_is_the_one_of_the_whole_covariance(widths: tuple[float, float]) -> None:
    model, gain, share, floor = SMALL, 3.0 * SMALL.cfr_noise_variance, 0.8, 0.01
    cell = 1 / model.bandwidth_hz
    delay, cosine, delay_std, cosine_std = 7.3 * cell, 0.4, widths[0] * cell, widths[1]
    spread = 0.8 * cell
    frequency = subcarrier_frequencies_hz(12, model.subcarrier_spacing_hz)
    apart = 2 * math.pi * (frequency[:, None] - frequency)
    tones = delay_response(torch.tensor(delay, dtype=torch.float64), 12, model.subcarrier_spacing_hz)
    beams = steering(torch.tensor(cosine, dtype=torch.float64), model)
    index = torch.arange(3, dtype=torch.float64)
    turns = 2 * math.pi * model.spacing_wavelengths * (index[:, None] - index)
    arrival = torch.outer(tones, tones.conj())
    in_delay = arrival * torch.exp(-0.5 * (apart * delay_std) ** 2)
    in_angle = torch.outer(beams, beams.conj()) * torch.exp(-0.5 * (turns * cosine_std) ** 2)
    behind = arrival / torch.complex(torch.ones_like(apart), apart * spread)
    eye = torch.eye(36, dtype=torch.complex128)
    rest = (1 - share) * torch.kron(torch.eye(3) + 0j, behind)
    covariance = gain * (share * torch.kron(in_angle, in_delay) + rest + floor * eye)
    generator = torch.Generator().manual_seed(0)
    cfr = torch.randn(1, 1, 1, 3, 12, generator=generator, dtype=torch.complex128) * math.sqrt(gain)
    noise = model.cfr_noise_variance * eye
    expected = (covariance @ torch.linalg.solve(covariance + noise, cfr.reshape(36))).reshape(cfr.shape)
    prior = LinkPrior(*(link(v) for v in (gain, share, delay, delay_std, cosine, cosine_std, floor)))
    found = mmse_channel(cfr, model, prior, spread)
    # The basis leaves out what holds less than 1e-5 of the power.
    assert float((found - expected).abs().max() / expected.abs().max()) < 5e-3


def test_flat_prior_and_normalised_error_by_hand() -> None:
    cfr = torch.ones(1, 1, 1, 2, 4, dtype=torch.complex128)
    model = dataclasses.replace(MODEL, num_antennas=2, num_subcarriers=4)
    flat = flat_channel(cfr, model, link(3 * model.cfr_noise_variance))
    torch.testing.assert_close(flat, 0.75 * cfr)
    assert nmse_db(flat, cfr) == pytest.approx(10 * math.log10(0.0625))


def test_scattered_paths_hold_their_power_and_steering_is_the_arrays() -> None:
    behind = scattering(64, MODEL.subcarrier_spacing_hz, 25e-9)
    assert float(behind.values.sum()) == pytest.approx(64, rel=1e-3)
    angle = torch.linspace(0.1, 3.0, 7, dtype=torch.float64)
    torch.testing.assert_close(steering(angle.cos(), MODEL), ula_response(angle, 8, 0.5))


def test_without_scattering_the_delay_bound_is_the_known_one() -> None:
    gain = torch.tensor([1.0, 30.0], dtype=torch.float64) * MODEL.cfr_noise_variance
    snr = gain * MODEL.max_snr_linear
    alone = scattered_delay_std_s(MODEL, gain, 1.0, 25e-9)
    torch.testing.assert_close(alone, delay_variance_s2(snr, MODEL.rms_bandwidth_hz).sqrt(), rtol=1e-6, atol=0)
    assert (scattered_delay_std_s(MODEL, gain, 0.9, 25e-9) > alone).all()


def test_cosines_and_their_gradients() -> None:
    drop = waveform_drop(3, 1, 20.0, num_paths=1)
    m = drop.measurements
    slope, cosine = cosine_to(m.ap_positions_m, m.ap_orientation_rad, drop.truth_m)
    torch.testing.assert_close(cosine, drop.cosine)
    for axis, step in enumerate(1e-4 * torch.eye(2, dtype=torch.float64)):
        sides = [cosine_to(m.ap_positions_m, m.ap_orientation_rad, drop.truth_m + s * step)[1] for s in (1, -1)]
        torch.testing.assert_close((sides[0] - sides[1]) / 2e-4, slope[..., axis], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(beam_cosine(m.cfr, m.model, drop.delay_s), drop.cosine, rtol=0, atol=0.02)
    torch.testing.assert_close(path_gain(m), 100 * torch.full_like(path_gain(m), m.model.cfr_noise_variance))


@pytest.fixture(scope="module", params=[-10.0, 0.0, 20.0], ids=["-10 dB", "0 dB", "20 dB"])
def solved(request: pytest.FixtureRequest) -> dict[str, Any]:
    drop = waveform_drop(60, 2, request.param)
    policy = make_policy("joint-cp")
    assert isinstance(policy, JointCp)
    m = drop.measurements
    result = policy.solve(m)
    channels = {
        "ls": m.cfr,
        "flat": policy.flat(m),
        "joint": result.channel,
        "genie": policy.genie(m, drop.delay_s, drop.cosine, m.is_los),
    }
    nmse = {name: nmse_db(channel, drop.channel) for name, channel in channels.items()}
    return {"snr": request.param, "drop": drop, "policy": policy, "result": result, "nmse": nmse}


def test_joint_channels_are_far_better_than_a_flat_prior_and_no_better_than_the_genie(solved: dict[str, Any]) -> None:
    nmse, snr = solved["nmse"], solved["snr"]
    assert nmse["ls"] == pytest.approx(-snr, abs=0.5)
    assert nmse["flat"] == pytest.approx(-10 * math.log10(1 + 10 ** (snr / 10)), abs=0.5)
    assert nmse["joint"] < nmse["flat"] - (4.0 if snr > 10 else 8.0)
    assert nmse["genie"] - 0.1 < nmse["joint"] < nmse["genie"] + 0.6


def test_joint_positions_are_nearer_to_the_bound_than_one_shot(solved: dict[str, Any]) -> None:
    drop, result = solved["drop"], solved["result"]
    joint, one_shot = (
        float((found - drop.truth_m).square().sum(dim=-1).mean().sqrt())
        for found in (result.position_m, result.one_shot_m)
    )
    assert result.valid.all()
    assert result.rounds < solved["policy"].options.max_rounds
    assert 0.85 * bound_m(drop) < joint < 0.98 * one_shot
    torch.testing.assert_close(located(drop, "joint-cp").position, result.position_m)


def test_one_path_alone_is_located_at_the_joint_bound() -> None:
    drop = waveform_drop(300, 3, -5.0, num_paths=1)
    ratio = drop.rmse_m(located(drop, "joint-cp", k_factor_db=30.0, threshold=3.0)) / bound_m(drop)
    assert 0.92 < ratio < 1.12


def test_links_without_line_of_sight_do_not_break_it() -> None:
    drop = waveform_drop(40, 4, 0.0, nlos_share=0.2, num_aps=16)
    m = drop.measurements
    policy = JointCp()
    result = policy.solve(m)
    error = torch.linalg.vector_norm(result.position_m - drop.truth_m, dim=-1)
    one_shot = torch.linalg.vector_norm(result.one_shot_m - drop.truth_m, dim=-1)
    assert float(error.median()) < float(one_shot.median())
    assert float(error.median()) < 0.5 * float(drop.errors_m(located(drop, "toa-wls")).median())
    assert nmse_db(result.channel, drop.channel) < nmse_db(policy.flat(m), drop.channel) - 2.0


def test_clock_errors_widen_what_is_believed() -> None:
    drop = waveform_drop(10, 5, 10.0)
    unsure = changed(drop, model={"sync_std_s": 10e-9})
    sure_covariance, covariance = (located(given, "joint-cp").covariance for given in (drop, unsure))
    assert (torch.linalg.det(covariance) > 4 * torch.linalg.det(sure_covariance)).all()


def test_what_it_needs() -> None:
    plain = ranges_drop(1, 6)
    with pytest.raises(ValueError, match=r"joint-cp needs cfr.*measurement=waveform"):
        located(plain, "joint-cp")
    drop = waveform_drop(1, 6, 10.0)
    with pytest.raises(ValueError, match=r"cfr has the shape .*must be \(1, 9, 1, 4, 64\)"):
        located(changed(drop, model={"num_antennas": 4}), "joint-cp")
    with pytest.raises(ValueError, match="joint-cp takes toa measurements, got tdoa"):
        located(changed(drop, model={"family": "tdoa"}), "joint-cp")
    for options, message in (({"tolerance_m": 0.0}, "tolerance_m=0.0"), ({"k_factor_db": math.inf}, "k_factor_db")):
        with pytest.raises(ValueError, match=message):
            make_policy("joint-cp", **options)
    assert JointCpOptions(k_factor_db=0.0).los_share == pytest.approx(0.5)


def test_blocked_links_and_single_antennas_are_survived() -> None:
    drop = waveform_drop(4, 7, 10.0)
    m = drop.measurements
    valid = torch.ones_like(m.valid)
    valid[0, :4] = False
    valid[1] = False
    broken = torch.where(valid[..., None, None], m.cfr, complex(math.nan, 0.0))
    estimate = located(changed(drop, valid=valid, cfr=broken), "joint-cp")
    assert estimate.valid.flatten().tolist() == [True, False, True, True]
    assert torch.isfinite(estimate.position).all()
    assert torch.isfinite(estimate.covariance).all()
    one = changed(drop, cfr=m.cfr[..., :1, :], snr_db=m.snr_db - 10 * math.log10(8), model={"num_antennas": 1})
    alone = located(one, "joint-cp")
    assert alone.valid.all()
    assert float(drop.errors_m(alone).max()) < 1.0
