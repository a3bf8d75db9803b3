"""Matrix products of the trainer: through oneDNN where the processor gains by it, else through torch's own BLAS."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from .compiled_products import is_faster, multiply

# torch's BLAS (MKL) leaves half of an AVX-512 core that is not Intel's unused; oneDNN, which torch brings along, does
# not, but costs some microseconds more per call. From this many multiplications on it has won them back.
_WORTH_A_CALL = 1 << 20
# For one product of a batch, which then runs on its own instead of in one call for all.
_WORTH_A_CALL_EACH = 1 << 22
# Where a graph is recorded: a Python function has to be won back too.
_WORTH_A_NODE = 1 << 23
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(left: Float[Tensor, "M K"], right: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """Left @ right.

    Args:
        left, right: any strides, any device and type; float32 on a CPU is what is fast.
    """
    recorded = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
    multiplications = left.shape[0] * left.shape[1] * right.shape[1]
    if _gains(left, right, multiplications, _WORTH_A_NODE if recorded else _WORTH_A_CALL):
        return _Product.apply(left, right) if recorded else _onednn(left, right)
    return torch.mm(left, right)


def products(
    left: Float[Tensor, "count M K"],
    right: Float[Tensor, "count K N"],
    bias: Float[Tensor, "count M 1"] | None = None,
    relu: bool = False,
) -> Float[Tensor, "count M N"]:
    """The matrix products left[c] right[c] for every c, and what follows them in a layer.

    Args:
        left, right: any strides, any device and type; float32 on a CPU is what is fast.
        bias: added.
        relu: negative numbers become 0.
    """
    if is_faster(left, right):
        return multiply(left, right, bias, relu)
    made = _products(left, right)
    if bias is not None:
        made = made.add_(bias)
    return torch.relu_(made) if relu else made


def _products(left: Tensor, right: Tensor) -> Tensor:
    count, rows, inner = left.shape
    if inner == 1:
        # The gradient of one output per network: BLAS takes many times longer over it than this.
        return left * right
    if count == 1:
        return product(left[0], right[0]).unsqueeze_(0)
    recorded = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
    if not recorded and _gains(left, right, rows * inner * right.shape[2], _WORTH_A_CALL_EACH):
        return torch.stack([_onednn(one, other) for one, other in zip(left.unbind(), right.unbind(), strict=True)])
    return torch.bmm(left, right)


def _gains(left: Tensor, right: Tensor, multiplications: int, least: int) -> bool:
    return (
        multiplications >= least
        and left.dtype is torch.float32
        and left.device.type == "cpu"
        and _LINEAR is not None
        and bool(torch.backends.mkldnn.enabled)
    )


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    assert _LINEAR is not None
    # A second operand with gaps between its rows or columns would go to a reference routine, a thousand times slower.
    if not (right.is_contiguous() or right.mT.is_contiguous()):
        right = right.contiguous()
    return _LINEAR(left, right.mT, None, "none", [], "")


class _Product(torch.autograd.Function):
    """Left @ right through oneDNN, for which torch knows no derivative."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return _onednn(left, right)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        left, right = ctx.saved_tensors
        by_left, by_right = ctx.needs_input_grad
        return product(gradient, right.mT) if by_left else None, product(left.mT, gradient) if by_right else None
