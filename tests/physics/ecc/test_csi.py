"""The CSI chain against its equations, An et al. (1)-(15)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cfpos_envs.physics.ecc import csi as chain
from cfpos_envs.physics.ecc.estimation import lmmse_estimate, lmmse_filter, long_term_covariance, ls_estimate
from tests.physics.ecc.reference import (
    encoder_input,
    flatten_slots,
    lmmse_error_covariance,
    stack_real,
    unflatten_slots,
    unstack_real,
)

SHAPE, SPACING = (2, 4), 0.5
TONES, TONE_HZ = 6, 720e3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def complex_normal(*shape: int, seed: int = 0) -> Tensor:
    return chain.complex_noise(generator(seed), torch.Size(shape), 1.0)


def some_paths(seed: int = 0) -> chain.CsiPaths:
    direction = torch.randn(2, 3, 4, 3, generator=generator(seed))
    delay = 1e-6 * torch.rand(2, 3, 4, generator=generator(seed + 1))
    return chain.CsiPaths(
        complex_normal(2, 3, 4, seed=seed + 2), delay, direction / direction.norm(dim=-1, keepdim=True)
    )


def test_rotations_by_hand() -> None:
    quarter = math.pi / 2
    axes = torch.eye(3)
    turned = chain.rotation_matrix(torch.tensor([[quarter, 0.0, 0.0], [0.0, quarter, 0.0], [0.0, 0.0, quarter]]))
    torch.testing.assert_close(turned[0] @ axes[0], axes[1])  # yaw: x to y
    torch.testing.assert_close(turned[1] @ axes[0], -axes[2])  # pitch: x down
    torch.testing.assert_close(turned[2] @ axes[1], axes[2])  # roll: y to z
    first_yaw_last = chain.rotation_matrix(torch.tensor([quarter, 0.0, quarter]))
    torch.testing.assert_close(first_yaw_last, turned[0] @ turned[2], atol=1e-6, rtol=0)
    seen = chain.to_array_frame(torch.tensor([[0.0, 1.0, 0.0]]), torch.tensor([quarter, 0.0, 0.0]))
    torch.testing.assert_close(seen, torch.tensor([[1.0, 0.0, 0.0]]), atol=1e-6, rtol=0)


def test_array_response_by_hand() -> None:
    broadside, along_y, up = torch.eye(3)
    torch.testing.assert_close(chain.upa_response(broadside, SHAPE), torch.ones(8, dtype=torch.complex64))
    # Half a wavelength to the side: 180 degrees from column to column, centred at +-90 degrees.
    torch.testing.assert_close(
        chain.upa_response(along_y, (1, 2)), torch.tensor([-1j, 1j], dtype=torch.complex64), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        chain.upa_response(up, (2, 1), 0.25),
        torch.polar(torch.ones(2), torch.tensor([-math.pi / 4, math.pi / 4])),
    )


def test_channel_is_the_sum_over_paths_by_a_loop() -> None:
    paths = some_paths()
    orientation = torch.randn(3, 3, generator=generator(9))
    slots = chain.slot_gains(generator(4), (2, 3), 5, 4, 0.1)
    found = chain.channel(paths, orientation, SHAPE, SPACING, TONES, TONE_HZ, slots)
    assert found.shape == (2, 3, 5, 8, TONES)
    wanted = torch.zeros(5, 8, TONES, dtype=torch.complex128)
    for k in range(4):
        local = chain.rotation_matrix(orientation[2]).T @ paths.direction[1, 2, k]
        for row in range(2):
            for column in range(4):
                y, z = (column - 1.5) * SPACING, (row - 0.5) * SPACING
                array = 2 * math.pi * float(local[1] * y + local[2] * z)
                for n in range(TONES):
                    tone = -2 * math.pi * (n - 2.5) * TONE_HZ * float(paths.delay_s[1, 2, k])
                    term = paths.gain[1, 2, k] * torch.polar(torch.tensor(1.0), torch.tensor(array + tone))
                    wanted[:, row * 4 + column, n] += slots[1, 2, :, k] * term
    torch.testing.assert_close(found[1, 2], wanted.to(torch.complex64), atol=2e-5, rtol=1e-4)
    still = chain.channel(paths, orientation, SHAPE, SPACING, TONES, TONE_HZ)
    assert still.shape == (2, 3, 1, 8, TONES)


def test_slots_share_a_phase_and_jitter_a_little() -> None:
    gains = chain.slot_gains(generator(), (200,), 10, 7, 0.05)
    torch.testing.assert_close(gains.abs(), torch.ones(200, 10, 7))
    relative = (gains[..., 1:] * gains[..., :1].conj()).angle()
    # Difference of two jitters; 12 000 samples tell a standard deviation to 1 %.
    assert relative.std() == pytest.approx(0.05 * math.sqrt(2), rel=0.05)
    assert gains[..., 0].mean().abs() < 0.1  # uniform phases cancel: 2000 samples, 4 standard deviations are 0.09


def test_pilots_and_least_squares() -> None:
    channel, pilots = complex_normal(500, 8, TONES), 2.0 * complex_normal(TONES, seed=3) + 3.0
    received = chain.receive_pilots(generator(1), channel, pilots, 0.0)
    torch.testing.assert_close(received, channel * pilots)
    torch.testing.assert_close(ls_estimate(received, pilots), channel)
    noisy = chain.receive_pilots(generator(1), channel, pilots, 0.5)
    assert float((noisy - received).abs().square().mean()) == pytest.approx(0.5, rel=0.05)
    error = (ls_estimate(noisy, pilots) - channel).abs().square().mean(dim=(0, 1))
    torch.testing.assert_close(error, 0.5 / pilots.abs().square(), rtol=0.1, atol=0)


def correlated(count: int, noise_power_w: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Channels of a known covariance per subcarrier, pilots, received signals and the covariance."""
    mixing = complex_normal(TONES, 8, 3, seed=5)
    channel = torch.einsum("nak,bkn->ban", mixing, complex_normal(count, 3, TONES, seed=6))
    pilots = complex_normal(TONES, seed=7) + 2.0
    received = chain.receive_pilots(generator(8), channel, pilots, noise_power_w)
    return channel, pilots, received, mixing @ mixing.mH


def test_lmmse_is_equation_4() -> None:
    _, pilots, received, covariance = correlated(5)
    matrix = lmmse_filter(covariance, pilots, 0.3)
    found = lmmse_estimate(received, matrix)
    for n in range(TONES):
        x = pilots[n]
        inner = x.abs() ** 2 * covariance[n] + 0.3 * torch.eye(8)
        wanted = (covariance[n] * x.conj() @ torch.linalg.inv(inner) @ received[..., n].T).T
        torch.testing.assert_close(found[..., n], wanted, atol=1e-4, rtol=1e-3)


def test_lmmse_of_a_white_channel_is_a_scaled_matched_filter() -> None:
    pilots = torch.full((TONES,), 2.0 + 0j)
    white = 0.5 * torch.eye(8, dtype=torch.complex64).expand(TONES, 8, 8)
    received = complex_normal(4, 8, TONES)
    # R = r I: estimate = r x* / (|x|^2 r + sigma^2) y
    torch.testing.assert_close(
        lmmse_estimate(received, lmmse_filter(white, pilots, 1.0)), received * (0.5 * 2.0 / (4.0 * 0.5 + 1.0))
    )


def test_lmmse_reaches_its_error_and_beats_least_squares() -> None:
    channel, pilots, received, covariance = correlated(4000)
    pilots_power = pilots.abs().square()
    error = (lmmse_estimate(received, lmmse_filter(covariance, pilots, 0.3)) - channel).abs().square()
    found = error.sum(dim=1).mean(dim=0)
    for n in range(TONES):
        expected = lmmse_error_covariance(covariance[n : n + 1], float(pilots_power[n]), 0.3)
        assert float(found[n]) == pytest.approx(float(expected), rel=0.1)
        assert float(found[n]) < 8 * 0.3 / float(pilots_power[n])


def test_long_term_covariance_is_the_mean_outer_product() -> None:
    channels = complex_normal(40, 3, 8, TONES)
    found = long_term_covariance(channels)
    assert found.shape == (3, TONES, 8, 8)
    columns = channels[:, 1, :, 4]
    wanted = sum(torch.outer(h, h.conj()) for h in columns) / 40
    torch.testing.assert_close(found[1, 4], wanted)
    truth, *_, covariance = correlated(6000)
    torch.testing.assert_close(long_term_covariance(truth), covariance, atol=0.6, rtol=0)


def test_gain_and_normalisation() -> None:
    csi = complex_normal(3, 4, 8, TONES)
    wanted = math.sqrt(sum(float(entry.abs() ** 2) for entry in csi[1].flatten()))
    assert float(chain.side_gain(csi)[1]) == pytest.approx(wanted, rel=1e-5)
    torch.testing.assert_close(chain.side_gain(chain.normalise_gain(csi)), torch.ones(3))
    silent = torch.zeros(1, 4, 8, TONES, dtype=torch.complex64)
    assert not chain.normalise_gain(silent).abs().any()
    assert not encoder_input(silent).any()


def test_reference_antenna_is_the_strongest_and_the_first_of_equals() -> None:
    csi = complex_normal(5, 4, 8, TONES)
    csi[:, :, 6] *= 3.0
    assert chain.reference_antenna(csi).tolist() == [6] * 5
    level = torch.ones(4, 8, TONES, dtype=torch.complex64)
    assert chain.reference_antenna(level) == 0
    level[:, 3:] *= 1j * 2
    assert chain.reference_antenna(level) == 3


def test_reference_phase_is_that_of_the_reference_antenna_or_zero() -> None:
    csi = chain.normalise_gain(complex_normal(2, 4, 8, TONES))
    antenna = chain.reference_antenna(csi)
    csi[0, 1, antenna[0], 2] = chain.PHASE_THRESHOLD / 2
    phase = chain.reference_phase(csi, antenna)
    assert phase[0, 1, 2] == 0.0
    torch.testing.assert_close(phase[1], csi[1, :, antenna[1]].angle())


@pytest.mark.parametrize("stabilise", chain.STABILISE)
def test_stabilised_phases(stabilise: str) -> None:
    csi = chain.normalise_gain(complex_normal(2, 4, 8, TONES))
    stable = chain.stabilise_phase(csi, stabilise)
    torch.testing.assert_close(stable.abs(), csi.abs())
    # (12): phases between antennas stay.
    between = stable[:, :, 1:] * stable[:, :, :1].conj()
    torch.testing.assert_close(between, csi[:, :, 1:] * csi[:, :, :1].conj(), atol=1e-6, rtol=1e-4)
    # What an oscillator does to a slot is gone.
    spun = csi * torch.polar(torch.ones(4), torch.tensor([0.3, -2.0, 1.0, 3.0]))[:, None, None]
    torch.testing.assert_close(chain.stabilise_phase(spun, stabilise), stable, atol=1e-6, rtol=1e-4)


def test_per_entry_makes_the_reference_real_and_per_slot_keeps_the_delay() -> None:
    csi = chain.normalise_gain(complex_normal(4, 8, TONES))
    reference = chain.stabilise_phase(csi)[:, int(chain.reference_antenna(csi))]
    torch.testing.assert_close(reference.imag, torch.zeros(4, TONES), atol=1e-7, rtol=0)
    assert (reference.real > 0).all()
    slope = torch.polar(torch.ones(TONES), -0.7 * torch.arange(TONES)).expand(4, 8, TONES)
    flat, kept = chain.stabilise_phase(slope), chain.stabilise_phase(slope, "per-slot")
    torch.testing.assert_close(flat, torch.ones_like(flat), atol=1e-6, rtol=0)
    steps = (kept[..., 1:] * kept[..., :-1].conj()).angle()
    torch.testing.assert_close(steps, torch.full_like(steps, -0.7))


def test_stacking_and_its_inverse() -> None:
    csi = complex_normal(2, 3, 8, TONES)
    stacked = stack_real(csi)
    assert torch.equal(stacked[..., 0], csi.real)
    assert torch.equal(stacked[..., 1], csi.imag)
    flat = flatten_slots(stacked)
    assert flat.shape == (2, 24, TONES, 2)
    for slot in range(3):
        for antenna in range(8):
            assert torch.equal(flat[:, slot * 8 + antenna], stacked[:, slot, antenna])  # (t - 1) N_r + m
    assert torch.equal(unstack_real(unflatten_slots(flat, 3)), csi)
    wanted = stack_real(chain.stabilise_phase(chain.normalise_gain(csi)))
    torch.testing.assert_close(encoder_input(csi), flatten_slots(wanted))


def test_unknown_stabilisation_is_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"per-entrie.*did you mean per-entry"):
        encoder_input(complex_normal(1, 8, TONES), "per-entrie")


@given(
    batch=st.lists(st.integers(1, 3), max_size=3),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 8), st.integers(1, 6)),
    scale=st.floats(1e-6, 1e3),
)
def test_encoder_input_of_any_shape_has_unit_energy(batch: list[int], sizes: tuple[int, ...], scale: float) -> None:
    x = encoder_input(scale * complex_normal(*batch, *sizes))
    assert x.shape == (*batch, sizes[0] * sizes[1], sizes[2], 2)
    torch.testing.assert_close(x.square().sum(dim=(-1, -2, -3)), torch.ones(batch), rtol=1e-3, atol=0)
