"""A clock that is off: what it does to autocorrelations, and what does not know it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cfpos_envs.physics.ecc import clock
from cfpos_envs.physics.ecc.csi import CsiPaths, channel, complex_noise, subcarrier_offsets_hz
from cfpos_envs.physics.ecc.features import autocorrelation_features, frequency_lags

SHAPE, N, SPACING_HZ = (2, 4), 24, 720e3
LAGS = len(frequency_lags(N))


def acf(csi: Tensor) -> Tensor:
    """[..., 2, antenna lags, frequency lags] of [..., A, N], as the networks see it."""
    flat = autocorrelation_features(csi.unsqueeze(-3), SHAPE)
    return flat.unflatten(-1, (LAGS, 2, -1)).movedim(-3, -1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return complex_noise(torch.Generator().manual_seed(seed), torch.Size(shape), 1.0)


def late(csi: Tensor, offset_s: float) -> Tensor:
    """What a clock that is off makes of CSI, noise included."""
    phase = -2 * math.pi * offset_s * subcarrier_offsets_hz(N, SPACING_HZ).double()
    return csi * torch.polar(torch.ones_like(phase), phase).to(csi.dtype)


OFFSETS = st.floats(-5e-6, 5e-6)


@settings(deadline=None, max_examples=25)
@given(offset_s=OFFSETS, seed=st.integers(0, 99))
def test_a_later_signal_turns_the_lags(offset_s: float, seed: int) -> None:
    csi = noise(3, 8, N, seed=seed)
    turned = clock.delayed(acf(csi), torch.full((3,), offset_s * SPACING_HZ, dtype=torch.float64))
    torch.testing.assert_close(turned, acf(late(csi, offset_s)), atol=2e-6, rtol=0)


@settings(deadline=None, max_examples=25)
@given(offset_s=OFFSETS, seed=st.integers(0, 99))
def test_without_their_mean_delay_features_do_not_know_the_clock(offset_s: float, seed: int) -> None:
    csi = noise(3, 8, N, seed=seed)
    there = clock.without_delay(acf(late(csi, offset_s)))
    # A mean delay is as uncertain as the phase of r(0, 0, 1), which is small where all is noise.
    torch.testing.assert_close(there, clock.without_delay(acf(csi)), atol=2e-4, rtol=0)
    assert float(clock.mean_delay(there).sub(0.5).abs().sub(0.5).abs().max()) < 1e-5


@settings(deadline=None, max_examples=25)
@given(delay_s=st.floats(0.0, 4e-6), y=st.floats(-0.7, 0.7))
def test_the_mean_delay_of_one_path_is_its_own(delay_s: float, y: float) -> None:
    gain = torch.polar(torch.tensor([2.0]), torch.tensor([1.0]))
    paths = CsiPaths(gain, torch.tensor([delay_s]), torch.tensor([[math.sqrt(1 - y * y), y, 0.0]]))
    found = float(clock.mean_delay(acf(channel(paths, torch.zeros(3), SHAPE, 0.5, N, SPACING_HZ)[0])))
    apart = (found - delay_s * SPACING_HZ + 0.5) % 1.0 - 0.5
    # 1e-5 of 1.39 us is 4 mm.
    assert abs(apart) < 1e-5
    assert 0 <= found < 1


def test_two_paths_have_the_mean_of_their_delays() -> None:
    # Equal powers: the phase of exp(-ja) + exp(-jb) is that of the middle.
    phases = -2 * math.pi * torch.tensor([0.1, 0.2])[:, None] * torch.tensor(frequency_lags(N), dtype=torch.float32)
    r = torch.polar(torch.full_like(phases, 0.5), phases).sum(0)
    image = torch.view_as_real(r).T[:, None].expand(2, 21, LAGS)
    assert float(clock.mean_delay(image)) == pytest.approx(0.15, abs=1e-6)


def test_silence_stays_silence() -> None:
    silent = torch.zeros(2, 2, 21, LAGS)
    assert torch.equal(clock.without_delay(silent), silent)
    assert torch.equal(clock.mean_delay(silent), torch.zeros(2))


@settings(deadline=None, max_examples=25)
@given(common=st.floats(-2.0, 2.0))
def test_differences_of_delays_do_not_know_the_clock(common: float) -> None:
    cycles, valid = torch.tensor([[0.10, 0.35, 0.90]]), torch.tensor([[True, True, True]])
    first = clock.delay_differences(cycles, valid, LAGS)
    torch.testing.assert_close(clock.delay_differences(cycles + common, valid, LAGS), first, atol=1e-4, rtol=0)
    assert first.shape == (1, 3, clock.num_delay_differences(3, LAGS))


def test_differences_are_those_of_links_that_are_heard() -> None:
    cycles, valid = torch.tensor([[0.10, 0.35, 0.90]]), torch.tensor([[True, False, True]])
    found = clock.delay_differences(cycles, valid, LAGS).unflatten(-1, (3, 2, LAGS - 1))[0]
    assert found[1].abs().sum() == 0
    assert found[:, 1].abs().sum() == 0
    assert torch.equal(found[2, 2], torch.tensor([[1.0] * (LAGS - 1), [0.0] * (LAGS - 1)]))
    # 0.10 - 0.90 at lags 1 and 22: cos and sin of -0.8 turns and of -17.6.
    for place, turns in ((0, 0.8), (LAGS - 1 - 1, 17.6)):
        expected = [math.cos(2 * math.pi * turns), -math.sin(2 * math.pi * turns)]
        assert found[0, 2, :, place].tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(found[2, 0, 1], -found[0, 2, 1])
