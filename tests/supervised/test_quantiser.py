"""Equations (19) and (35), the step that suits Gaussian latents, running scales, gains."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cfpos_envs.supervised import quantiser as q

# Max 1960, table II: steps and mean squared errors of uniform quantisers of N(0, 1).
MAX_TABLE = {1: (1.596, 0.3634), 2: (0.9957, 0.1188), 3: (0.5860, 0.03744), 4: (0.3352, 0.01154), 5: (0.1881, 0.003490)}


def as_printed(y: float, step: float, bits: int) -> float:
    """Equation (19) line by line."""
    edge = (2**bits - 1) * step / 2
    if y > edge:
        return edge
    if y < -edge:
        return -edge
    return math.floor(y / step) * step + step / 2


@pytest.mark.parametrize("bits", MAX_TABLE)
def test_steps_and_distortions_are_those_of_max(bits: int) -> None:
    step, distortion = MAX_TABLE[bits]
    assert q.gaussian_step(bits) == pytest.approx(step, rel=1e-3)
    assert q.gaussian_distortion(bits, step) == pytest.approx(distortion, rel=2e-3)


def test_distortion_is_that_of_the_quantiser() -> None:
    values = torch.randn(400_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for bits in (1, 4, 6):
        step = q.gaussian_step(bits)
        squares = (values - q.quantise(values, step, bits)).square()
        deviation = float(squares.std()) / len(squares) ** 0.5
        assert abs(float(squares.mean()) - q.gaussian_distortion(bits, step)) < 5 * deviation


@given(st.floats(-50, 50, width=32), st.integers(1, 10), st.floats(0.03125, 2, width=32))
def test_levels_are_those_printed(y: float, bits: int, step: float) -> None:
    ours = float(q.quantise(torch.tensor([y]), step, bits))
    # At the border of two cells the rounding of y / step decides; both neighbours are right.
    allowed = [as_printed(y * (1 + shift), step, bits) for shift in (-1e-6, 0, 1e-6)]
    assert min(abs(ours - level) for level in allowed) <= 1e-5 * max(1.0, abs(y))


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10])
def test_there_are_exactly_two_to_the_q_levels(bits: int) -> None:
    values = torch.linspace(-60, 60, 200_001)
    step = 100 / 2**bits
    levels = torch.unique(q.quantise(values, step, bits))
    assert len(levels) == 2**bits
    assert 0.0 not in levels
    np.testing.assert_allclose(levels.diff().numpy(), step, rtol=1e-5)
    codes = q.midrise_codes(values, step, bits)
    assert int(codes.min()) == 0
    assert int(codes.max()) == 2**bits - 1
    torch.testing.assert_close(q.midrise_levels(codes, step, bits), q.quantise(values, step, bits))


def test_gradient_is_one_up_to_the_outermost_edge_and_nothing_beyond() -> None:
    # Q = 2, step 1: levels -1.5 ... 1.5, outermost edge A = 2.
    values = torch.tensor([-2.001, -2.0, -1.9, 0.0, 0.3, 1.7, 2.0, 2.001], requires_grad=True)
    (q.quantise(values, 1.0, 2) * torch.arange(1.0, 9.0)).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0, 2, 3, 4, 5, 6, 7, 0]


def test_scales_follow_while_training_and_stay_when_used() -> None:
    generator = torch.Generator().manual_seed(1)
    part = q.LatentQuantiser(2, 8)
    scale = torch.tensor([0.01, 30.0])[:, None, None]
    for _ in range(20):
        part(torch.randn(2, 500, 6, generator=generator) * scale)
    np.testing.assert_allclose(part.mean_square.sqrt(), [0.01, 30.0], rtol=0.03)
    part.eval()
    before = part.mean_square.clone()
    latents = torch.randn(2, 50, 6, generator=generator) * scale
    decoded = part(5 * latents)
    assert torch.equal(part.mean_square, before)
    torch.testing.assert_close(part.levels(part.codes(5 * latents)), decoded)
    unquantised = q.LatentQuantiser(2, None).eval()
    torch.testing.assert_close(unquantised(latents), latents)
    with pytest.raises(ValueError, match="no bitstream"):
        unquantised.codes(latents)


@pytest.mark.parametrize("bits", [0, 1, 4, 8, 32])
def test_gains_come_back_within_half_a_cell(bits: int) -> None:
    gains = torch.linspace(-3.999, 3.999, 999)
    codes = q.gain_codes(gains, bits)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < 2**bits
    assert float((q.gain_levels(codes, bits) - gains).abs().max()) <= q.GAIN_RANGE / 2**bits + 1e-6
    ends = q.gain_levels(q.gain_codes(torch.tensor([-1e9, 1e9]), bits), bits)
    assert float(ends.abs().max()) <= q.GAIN_RANGE


@pytest.mark.parametrize("bits", [0, 17, 2.5, True, "4"])
def test_impossible_bits_are_refused(bits: object) -> None:
    with pytest.raises(ValueError, match=r"whole number in \[1, 16\]"):
        q.check_bits("bits", bits, q.LEAST_BITS, q.MOST_BITS)  # type: ignore[arg-type]
