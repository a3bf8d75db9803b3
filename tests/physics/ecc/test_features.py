"""Features of CSI: closed forms of one path, invariances, ranges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cfpos_envs.physics.ecc import csi as chain
from cfpos_envs.physics.ecc import features

SHAPE, N, SPACING_HZ = (2, 4), 24, 720e3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return chain.complex_noise(torch.Generator().manual_seed(seed), torch.Size(shape), 1.0)


def one_path(direction: Tensor, delay_s: float) -> Tensor:
    """[1, A, N] noise-free CSI of a path with gain 2 exp(j)."""
    gain = torch.polar(torch.tensor([2.0]), torch.tensor([1.0]))
    paths = chain.CsiPaths(gain, torch.tensor([delay_s]), direction[None])
    return chain.channel(paths, torch.zeros(3), SHAPE, 0.5, N, SPACING_HZ)


def test_sizes_are_those_of_the_tables() -> None:
    assert {name: features.feature_size(name, SHAPE, N) for name in features.FEATURES} == {
        "stabilised": 384,
        "amplitude": 192,
        "cov": 110,
        "acf": 336,
    }


@given(
    name=st.sampled_from(features.FEATURES),
    batch=st.lists(st.integers(1, 3), max_size=2),
    slots=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 2), st.integers(1, 4)),
    subcarriers=st.integers(2, 12),
    scale=st.floats(1e-8, 1e3),
)
def test_any_shape_stays_in_range(
    name: str, batch: list[int], slots: int, shape: tuple[int, int], subcarriers: int, scale: float
) -> None:
    csi = scale * noise(*batch, slots, shape[0] * shape[1], subcarriers)
    found = features.csi_features(csi, name, shape)
    assert found.shape == (*batch, features.feature_size(name, shape, subcarriers))
    assert found.abs().max() <= 1.0 + 1e-6
    assert found.abs().max() > 0


@pytest.mark.parametrize("name", features.FEATURES)
def test_of_no_snapshots_there_are_no_features(name: str) -> None:
    found = features.csi_features(noise(0, 6, 2, 8, N), name, SHAPE)
    assert found.shape == (0, 6, features.feature_size(name, SHAPE, N))


@pytest.mark.parametrize("name", features.FEATURES)
def test_neither_scale_nor_slot_phases_matter_and_silence_is_zero(name: str) -> None:
    csi = noise(5, 3, 8, N)
    spun = 1e-5 * csi * torch.polar(torch.ones(3), torch.tensor([0.5, -1.0, 2.0]))[:, None, None]
    torch.testing.assert_close(
        features.csi_features(spun, name, SHAPE), features.csi_features(csi, name, SHAPE), atol=1e-5, rtol=1e-3
    )
    assert not features.csi_features(torch.zeros_like(csi), name, SHAPE).any()


def test_adcpm_has_its_peak_at_delay_and_angle_and_keeps_the_power() -> None:
    # Half way to the side: u_y = 1/2 turns 90 degrees per column, bin 1 of 4; 5 bins of delay; level: row bin 0.
    direction = torch.tensor([math.sqrt(0.75), 0.5, 0.0])
    power = features.adcpm(one_path(direction, 5 / (N * SPACING_HZ)), SHAPE)
    assert power.shape == (8, N)
    assert int(power.argmax()) == 1 * N + 5
    assert float(power.max()) == pytest.approx(4.0 * 8 * N, rel=1e-4)
    csi = noise(3, 8, N)
    assert float(features.adcpm(csi, SHAPE).sum()) == pytest.approx(float(csi.abs().square().sum()) / 3, rel=1e-5)


def test_autocorrelation_of_one_path_in_closed_form() -> None:
    direction = torch.tensor([0.6, 0.48, 0.64])
    delay_s = 137e-9
    found = features.autocorrelation_features(one_path(direction, delay_s), SHAPE)
    lags = features.frequency_lags(N)
    found = torch.view_as_complex(found.view(len(lags), 2, 3, 7).movedim(1, -1).contiguous())
    for index, lag in enumerate(lags):
        for i in range(-1, 2):
            for j in range(-3, 4):
                share = (2 - abs(i)) * (4 - abs(j)) * (N - lag) / (2 * 4 * N)
                turn = math.pi * (j * 0.48 + i * 0.64) - 2 * math.pi * lag * SPACING_HZ * delay_s
                wanted = share * torch.polar(torch.tensor(1.0), torch.tensor(turn))
                torch.testing.assert_close(found[index, i + 1, j + 3], wanted, atol=1e-4, rtol=1e-3)


def test_covariance_features_by_their_definition() -> None:
    csi = noise(2, 8, N)
    found = features.covariance_features(csi)
    columns = csi.movedim(1, 0).flatten(1)  # antennas x (slots, subcarriers)
    covariance = columns @ columns.mH
    power = covariance.diagonal().real.sum()
    torch.testing.assert_close(found[:8], covariance.diagonal().real / power)
    torch.testing.assert_close(found[8], covariance[0, 1].real / power)
    torch.testing.assert_close(found[9], covariance[0, 1].imag / power)
    for lag in (1, 7, N - 1):
        product = (csi[..., lag:] * csi[..., : N - lag].conj()).sum() / power
        start = 64 + 2 * (lag - 1)
        torch.testing.assert_close(found[start : start + 2], torch.view_as_real(product), atol=1e-5, rtol=1e-3)


def test_averaging_slots_lowers_the_noise_tenfold() -> None:
    clean = one_path(torch.tensor([1.0, 0.0, 0.0]), 1e-7).expand(200, 10, 8, N)
    phases = 2 * math.pi * torch.rand(200, 10, 1, 1, generator=torch.Generator().manual_seed(2))
    spun = clean * torch.polar(torch.ones_like(phases), phases) + 0.5 * noise(200, 10, 8, N)
    mean = features.slot_average(spun)
    assert mean.shape == (200, 1, 8, N)
    turn = (mean * clean[:, :1].conj()).sum(dim=(-1, -2), keepdim=True).angle()
    error = mean * torch.polar(torch.ones_like(turn), -turn) - clean[:, :1]
    # Noise of variance 1/4 over ten slots; one phase per slot is fitted to 192 entries.
    assert float(error.abs().square().mean()) == pytest.approx(0.025, rel=0.05)
    torch.testing.assert_close(features.slot_average(spun[:, :1]), spun[:, :1])


def test_unknown_features_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"acff.*did you mean acf"):
        features.csi_features(noise(1, 8, N), "acff", SHAPE)
