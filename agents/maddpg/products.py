"""Matrix products of the trainer: through oneDNN where the processor gains by it, else through torch's own BLAS."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .compiled_products import multiply, pays

# torch's BLAS (MKL) leaves half of an AVX-512 core that is not Intel's unused; oneDNN, which torch brings along, does
# not, but costs some microseconds more per call. From this many multiplications on it has won them back.
_WORTH_A_CALL = 1 << 20
# For one product of a batch, which then runs on its own instead of in one call for all.
_WORTH_A_CALL_EACH = 1 << 22
# The differentiable route through oneDNN does not exist: it is used where no graph is recorded.
_LINEAR = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def product(left: Float[Tensor, "M K"], right: Float[Tensor, "K N"]) -> Float[Tensor, "M N"]:
    """Left @ right.

    Args:
        left, right: any strides, any device and type; float32 on a CPU is what is fast.
    """
    if _gains(left, right, left.shape[0] * left.shape[1] * right.shape[1], _WORTH_A_CALL):
        return _onednn(left, right)
    return torch.mm(left, right)


def products(
    left: Float[Tensor, "count M K"],
    right: Float[Tensor, "count K N"],
    bias: Float[Tensor, "count M 1"] | None = None,
    relu: bool = False,
    gate: Float[Tensor, "count M N"] | None = None,
) -> Float[Tensor, "count M N"]:
    """The matrix products left[c] right[c] for every c, and what follows them in a layer.

    Args:
        left, right: any strides, any device and type; float32 on a CPU is what is fast.
        bias: added.
        relu: negative numbers become 0.
        gate: outputs of a ReLU; where they are 0 the product becomes 0, as the ReLU's derivative asks (without
            ``bias`` and ``relu``).
    """
    if pays(left, right):
        return multiply(left, right, bias, relu, gate)
    made = _products(left, right)
    if bias is not None:
        made = made.add_(bias)
    if gate is not None:
        return relu_slopes(made, gate)
    return torch.relu_(made) if relu else made


def relu_slopes(slopes: Tensor, outputs: Tensor) -> Tensor:
    """``slopes`` (overwritten) where the ReLU that gave ``outputs`` lets them pass, 0 elsewhere."""
    return torch.ops.aten.threshold_backward.grad_input(slopes, outputs, 0, grad_input=slopes)


def _products(left: Tensor, right: Tensor) -> Tensor:
    count, rows, inner = left.shape
    if inner == 1:
        # The gradient of one output per network: BLAS takes many times longer over it than this.
        return left * right
    if count == 1:
        return product(left[0], right[0])[None]
    if _gains(left, right, rows * inner * right.shape[2], _WORTH_A_CALL_EACH):
        return torch.stack([_onednn(one, other) for one, other in zip(left.unbind(), right.unbind(), strict=True)])
    return torch.bmm(left, right)


def _gains(left: Tensor, right: Tensor, multiplications: int, least: int) -> bool:
    return (
        multiplications >= least
        and left.dtype is torch.float32
        and left.device.type == "cpu"
        and _LINEAR is not None
        and bool(torch.backends.mkldnn.enabled)
        and not (torch.is_grad_enabled() and (left.requires_grad or right.requires_grad))
    )


def _onednn(left: Tensor, right: Tensor) -> Tensor:
    assert _LINEAR is not None
    # A second operand with gaps between its rows or columns would go to a reference routine, a thousand times slower.
    if not (right.is_contiguous() or right.mT.is_contiguous()):
        right = right.contiguous()
    return _LINEAR(left, right.mT, None, "none", [], "")
