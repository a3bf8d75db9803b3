"""The layer of a residual network, out = added + bias + W * SiLU(norm(x)), by a compiled kernel where there is one.

W is a kernel of 3 x 3; the normalisation over each image and the addition may be missing. The kernel
(``native/convolution.cpp``) takes a third of the multiplications of the plain formulation: minimal filtering F(4, 3) of
Winograd (Lavin & Gray 2016, arXiv:1509.09308). Its results are the same up to rounding. Other processors and types, and
mixed precision, take torch's own operations.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfpos_envs.native import border, build

KERNEL = (3, 3)
_STRIDES = ((1, 1), (2, 1))
_PANEL = 16
# Fewer are padded to a panel, which wastes more than minimal filtering saves.
_LEAST_INPUTS = 8
_SOURCES = (Path(build.__file__).parent / "convolution.cpp",)


class _Layer(ctypes.Structure):
    """``Layer`` of native/convolution.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "rows", "columns", "inputs", "outputs", "stride")),
        *((name, ctypes.c_void_p) for name in ("x", "scale", "shift", "statistics", "weight", "bias", "added", "out")),
    ]


class _Slopes(ctypes.Structure):
    """``Slopes`` of native/convolution.cpp."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("out", "x", "weight", "bias", "scale", "shift")]


def layer(
    images: Float[Tensor, "B C H W"],
    norm: nn.GroupNorm | None,
    convolution: nn.Conv2d,
    added: Float[Tensor, "B D H2 W"] | None = None,
) -> Float[Tensor, "B D H2 W"]:
    """The convolution of the images, normalised and through SiLU before if ``norm`` is given, plus ``added``.

    Args:
        images: any memory format; ``channels_last`` saves a copy.
        norm: of one group.
        convolution: 3 x 3, padded by 1, stride 1 or 2 along the rows, with bias.
        added: of the size of the result.
    """
    if is_served(images, convolution):
        scale, shift = (None, None) if norm is None else (norm.weight, norm.bias)
        out, _ = _forward(images, scale, shift, convolution.weight, convolution.bias, added, convolution.stride[0])
        return out
    return plain_layer(images, norm, convolution, added)


def plain_layer(
    images: Float[Tensor, "B C H W"],
    norm: nn.GroupNorm | None,
    convolution: nn.Conv2d,
    added: Float[Tensor, "B D H2 W"] | None = None,
) -> Float[Tensor, "B D H2 W"]:
    """``layer`` by torch's own operations: what the kernel is compared with."""
    made = convolution(images if norm is None else nn.functional.silu(norm(images)))
    return made if added is None else added + made


def is_served(images: Tensor, convolution: nn.Conv2d) -> bool:
    """Whether the kernel takes this layer: numbers on a CPU, not in mixed precision, outputs in whole vectors."""
    return (
        images.device.type == "cpu"
        and images.dtype in (torch.float32, torch.float64)
        and convolution.weight.dtype is images.dtype
        and not torch.is_autocast_enabled("cpu")
        and convolution.kernel_size == KERNEL
        and convolution.stride in _STRIDES
        and convolution.padding == (1, 1)
        and convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.bias is not None
        and convolution.in_channels >= _LEAST_INPUTS
        and convolution.out_channels % _PANEL == 0
        and _kernels() is not None
    )


def _kernels() -> ctypes.CDLL | None:
    return build.library_if_any(_SOURCES)


@dataclass(frozen=True)
class _Call:
    """Tensors of one layer as the kernel wants them; they live as long as this does."""

    x: Tensor
    scale: Tensor | None
    shift: Tensor | None
    weight: Tensor
    bias: Tensor | None
    added: Tensor | None
    statistics: Tensor
    stride: int

    def structure(self, out: Tensor | None) -> _Layer:
        images, rows, columns, inputs = self.x.shape
        pointers = (
            self.x, self.scale, self.shift, self.statistics, self.weight, self.bias, self.added, out
        )  # fmt: skip
        return _Layer(
            images, rows, columns, inputs, self.weight.shape[0], self.stride, *(_address(each) for each in pointers)
        )


# Schemas are written out: annotations are strings here, and torch resolves them elsewhere.
@torch.library.custom_op(
    "cfpos::layer",
    mutates_args=(),
    schema="(Tensor x, Tensor? scale, Tensor? shift, Tensor weight, Tensor bias, Tensor? added, int stride)"
    " -> (Tensor, Tensor)",
)
def _forward(
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    added: Tensor | None,
    stride: int,
) -> tuple[Tensor, Tensor]:
    wanted = _wanted(x, weight, stride)
    given = (_last(x), scale, shift, weight, bias, None if added is None else _last(added))
    names = ("x", "scale", "shift", "weight", "bias", "out")
    read: list[Any] = border.dense(given, [wanted[name] for name in names])
    statistics = x.new_empty((len(x), 2))
    out = _empty(x, weight.shape[0], stride)
    call = _Call(read[0], read[1], read[2], read[3], read[4], read[5], statistics, stride)
    _function("cfpos_layer", x)(ctypes.byref(call.structure(out)), torch.get_num_threads())
    return out, statistics


@torch.library.custom_op(
    "cfpos::layer_back",
    mutates_args=(),
    schema="(Tensor slope, Tensor x, Tensor? scale, Tensor? shift, Tensor weight, Tensor statistics, int stride, "
    "bool inner) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def _backward(
    slope: Tensor,
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    weight: Tensor,
    statistics: Tensor,
    stride: int,
    inner: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    wanted = _wanted(x, weight, stride)
    given = (_last(x), scale, shift, weight, _last(slope), statistics)
    names = ("x", "scale", "shift", "weight", "out", "statistics")
    read: list[Any] = border.dense(given, [wanted[name] for name in names])
    call = _Call(read[0], read[1], read[2], read[3], None, None, read[5], stride)
    to_x = torch.empty_like(x, memory_format=torch.channels_last) if inner else x.new_empty(0)
    to_weight, to_bias = torch.empty_like(weight), x.new_empty(weight.shape[0])
    to_scale, to_shift = (x.new_empty(0 if scale is None else x.shape[1]) for _ in range(2))
    slopes = _Slopes(
        _address(read[4]),
        _address(to_x) if inner else None,
        *(_address(each) for each in (to_weight, to_bias, to_scale, to_shift)),
    )
    function = _function("cfpos_layer_back", x)
    function(ctypes.byref(call.structure(None)), ctypes.byref(slopes), torch.get_num_threads())
    return to_x, to_weight, to_bias, to_scale, to_shift


@_forward.register_fake
def _(x: Any, scale: Any, shift: Any, weight: Any, bias: Any, added: Any, stride: int) -> tuple[Tensor, Tensor]:
    return _empty(x, weight.shape[0], stride), x.new_empty((x.shape[0], 2))


@_backward.register_fake
def _(
    slope: Any, x: Any, scale: Any, shift: Any, weight: Any, statistics: Any, stride: int, inner: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    to_x = torch.empty_like(x, memory_format=torch.channels_last) if inner else x.new_empty(0)
    norm = 0 if scale is None else x.shape[1]
    contiguous = torch.empty_like(weight, memory_format=torch.contiguous_format)
    return to_x, contiguous, x.new_empty(weight.shape[0]), x.new_empty(norm), x.new_empty(norm)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, scale, shift, weight, _, added, stride = inputs
    ctx.save_for_backward(x, scale, shift, weight, output[1])
    ctx.stride, ctx.adds = stride, added is not None
    ctx.mark_non_differentiable(output[1])


def _slopes(ctx: Any, slope: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, shift, weight, statistics = ctx.saved_tensors
    inner = ctx.needs_input_grad[0] or scale is not None
    made = _backward(slope, x, scale, shift, weight, statistics, ctx.stride, inner)
    to_x, to_weight, to_bias, to_scale, to_shift = made
    normed = scale is not None
    return (
        to_x if inner else None,
        to_scale if normed else None,
        to_shift if normed else None,
        to_weight,
        to_bias,
        slope if ctx.adds else None,
        None,
    )


_forward.register_autograd(_slopes, setup_context=_keep)


def _empty(x: Tensor, outputs: Any, stride: int) -> Tensor:
    images, _, rows, columns = x.shape
    shape = (images, outputs, (rows + stride - 1) // stride, columns)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _wanted(x: Tensor, weight: Tensor, stride: int) -> dict[str, border.Wanted]:
    """What the kernel reads, channels last: [B, H, W, C]."""
    images, inputs, rows, columns = x.shape
    outputs = weight.shape[0]
    shapes = {
        "x": (images, rows, columns, inputs),
        "scale": (inputs,),
        "shift": (inputs,),
        "statistics": (images, 2),
        "weight": (outputs, inputs, *KERNEL),
        "bias": (outputs,),
        "out": (images, (rows + stride - 1) // stride, columns, outputs),
    }
    return {name: (name, shape, x.dtype) for name, shape in shapes.items()}


def _last(images: Tensor) -> Tensor:
    return images.movedim(1, -1)


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _function(name: str, like: Tensor) -> Any:
    kernels = _kernels()
    assert kernels is not None
    return getattr(kernels, f"{name}_{'double' if like.dtype is torch.float64 else 'float'}")
