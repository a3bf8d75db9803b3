"""The compiled layer of residual networks against torch's own operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cfpos_envs.supervised import convolutions
from cfpos_envs.supervised.convolutions import is_served, layer, plain_layer
from cfpos_envs.supervised.encoders import InputShape, SegNetEncoders


def made(
    inputs: int, outputs: int, stride: int, normed: bool, dtype: torch.dtype, seed: int = 0
) -> tuple[nn.GroupNorm | None, nn.Conv2d]:
    generator = torch.Generator().manual_seed(seed)
    convolution = nn.Conv2d(inputs, outputs, 3, (stride, 1), 1).to(dtype)
    norm = nn.GroupNorm(1, inputs).to(dtype) if normed else None
    for module in (convolution, norm):
        for parameter in module.parameters() if module is not None else ():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.5
    return norm, convolution


def gradients(
    function: Callable[..., Tensor],
    images: Tensor,
    norm: nn.GroupNorm | None,
    convolution: nn.Conv2d,
    added: Tensor | None,
) -> list[Tensor]:
    """The result and the gradients of a weighted sum of it with respect to everything that goes in."""
    into = [images, *convolution.parameters(), *(norm.parameters() if norm is not None else ())]
    into += [] if added is None else [added]
    into = [each.requires_grad_(True) for each in into]
    out = function(images, norm, convolution, added)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), into)]


@pytest.fixture(autouse=True)
def needs_the_kernel() -> None:
    assert convolutions._kernels() is not None, "no C++ compiler"


@settings(max_examples=15, deadline=None)
@given(
    count=st.integers(1, 13),
    rows=st.integers(1, 13),
    columns=st.integers(1, 9),
    channels=st.tuples(st.integers(8, 20), st.sampled_from((16, 32))),
    stride=st.sampled_from((1, 2)),
    normed=st.booleans(),
    adds=st.booleans(),
    threads=st.sampled_from((1, 3)),
)
def test_values_and_gradients_are_those_of_the_plain_formulation(
    count: int, rows: int, columns: int, channels: tuple[int, int], stride: int, normed: bool, adds: bool, threads: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, channels[0], rows, columns, generator=generator, dtype=torch.float64)
    size = (count, channels[1], (rows + stride - 1) // stride, columns)
    added = torch.randn(size, generator=generator, dtype=torch.float64) if adds else None
    norm, convolution = made(*channels, stride, normed, torch.float64)
    assert is_served(images, convolution)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gradients(layer, images, norm, convolution, added)
    finally:
        torch.set_num_threads(before)
    for value, expected in zip(found, gradients(plain_layer, images, norm, convolution, added), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [(9, 64, 64, 20, 1), (11, 128, 128, 5, 1), (3, 64, 128, 10, 2)])
def test_single_precision_at_the_sizes_of_the_source(size: tuple[int, int, int, int, int]) -> None:
    count, inputs, outputs, rows, stride = size
    images = torch.randn(count, inputs, rows, 24, generator=torch.Generator().manual_seed(2))
    norm, convolution = made(inputs, outputs, stride, True, torch.float32)
    for value, expected in zip(
        gradients(layer, images, norm, convolution, None),
        gradients(plain_layer, images, norm, convolution, None),
        strict=True,
    ):
        scale = float(expected.abs().max())
        torch.testing.assert_close(value / scale, expected / scale, rtol=0, atol=3e-5)


def test_encoders_are_those_of_the_plain_formulation(monkeypatch: pytest.MonkeyPatch) -> None:
    encoders = SegNetEncoders(2, InputShape(2, 12, 6), (16, 32), 3, torch.Generator().manual_seed(0)).double()
    images = torch.randn(2, 3, 2, 12, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    latents = encoders(images)
    slopes = torch.autograd.grad(latents.square().sum(), list(encoders.parameters()))
    monkeypatch.setattr(convolutions, "_kernels", lambda: None)
    plain = encoders(images)
    torch.testing.assert_close(latents, plain)
    for slope, expected in zip(
        slopes, torch.autograd.grad(plain.square().sum(), list(encoders.parameters())), strict=True
    ):
        torch.testing.assert_close(slope, expected)


def test_what_the_kernel_does_not_take_is_left_to_torch() -> None:
    images = torch.randn(2, 16, 4, 4)
    _, convolution = made(16, 16, 1, False, torch.float32)
    assert is_served(images, convolution)
    assert not is_served(images.half(), convolution)
    assert not is_served(images.double(), convolution)
    assert not is_served(images, made(16, 20, 1, False, torch.float32)[1])
    assert not is_served(images, nn.Conv2d(16, 16, 5, padding=2))
    assert not is_served(images, nn.Conv2d(16, 16, 3, stride=2, padding=1))
    assert not is_served(images, nn.Conv2d(16, 16, 3))
    assert not is_served(images, nn.Conv2d(16, 16, 3, padding=1, bias=False))
    assert not is_served(images, nn.Conv2d(16, 16, 3, padding=1, groups=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_served(images, convolution)
        assert layer(images, None, convolution).dtype is torch.bfloat16


def test_the_layer_can_be_compiled_around() -> None:
    images = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(3))
    norm, convolution = made(16, 16, 2, True, torch.float32)
    assert norm is not None
    out = torch.ops.cfpos.layer(images, norm.weight, norm.bias, convolution.weight, convolution.bias, None, 2)
    arguments = (images, norm.weight, norm.bias, convolution.weight, convolution.bias, None, 2)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.cfpos.layer.default, arguments, test_utils=tests)
    assert out[0].shape == (2, 16, 2, 4)
