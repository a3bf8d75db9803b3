"""Matrix products of the trainer: through oneDNN where the processor gains by it, else through torch's own BLAS."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

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


def products(left: Float[Tensor, "count M K"], right: Float[Tensor, "count K N"]) -> Float[Tensor, "count M N"]:
    """The matrix products left[c] right[c] for every c.

    Args:
        left, right: any strides, any device and type; float32 on a CPU is what is fast.
    """
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
