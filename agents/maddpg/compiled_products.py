"""Compiled products of many small matrices, for processors on which they are faster than torch's, and clipping."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from cfpos_envs.native import border
from cfpos_envs.native.build import library_if_any

_FOLDER = Path(__file__).parent / "native"
_SOURCES = (_FOLDER / "products.cpp", _FOLDER / "learner.cpp")

# Longer inner dimensions fall out of the cache, and oneDNN is there for them; shorter products are not worth the call.
_MOST_INNER = 512
_LEAST_MULTIPLICATIONS = 1 << 15
# oneDNN is as fast over one large product.
_MOST_ALONE = 1 << 20


class _Product(ctypes.Structure):
    """``Product`` of native/products.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "rows", "inner", "columns")),
        ("left", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("left_each", "left_row", "left_inner")),
        ("right", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("right_each", "right_inner", "right_column")),
        ("bias", ctypes.c_void_p),
        ("relu", ctypes.c_int64),
        ("out", ctypes.c_void_p),
    ]


class _Clipped(ctypes.Structure):
    """``Clipped`` of native/products.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("count", "parts")),
        *((name, ctypes.c_void_p) for name in ("gradients", "sizes")),
        *((name, ctypes.c_float) for name in ("max_norm", "norm_floor")),
        ("norms", ctypes.c_void_p),
    ]


def kernels() -> ctypes.CDLL | None:
    """The library of compiled kernels, or None where it cannot be built."""
    return library_if_any(_SOURCES)


@lru_cache(maxsize=1)
def _multiply() -> ctypes._NamedFuncPointer | None:
    found = kernels()
    return found.cfpos_multiply if found is not None and found.cfpos_products_are_faster() else None


def is_faster(left: Tensor, right: Tensor) -> bool:
    """Whether ``multiply`` can be used for left [count, M, K] and right [count, K, N], and is faster."""
    count, rows, inner = left.shape
    return (
        inner <= _MOST_INNER
        and (count > 1 or rows * inner * right.shape[2] <= _MOST_ALONE)
        and count * rows * inner * right.shape[2] >= _LEAST_MULTIPLICATIONS
        and right.stride(2) == 1
        and left.dtype is torch.float32
        and right.dtype is torch.float32
        and left.device.type == "cpu"
        and not (torch.is_grad_enabled() and (left.requires_grad or right.requires_grad))
        and _multiply() is not None
    )


def multiply(left: Tensor, right: Tensor, bias: Tensor | None, relu: bool) -> Tensor:
    """``agents.maddpg.products.products`` where it ``is_faster``."""
    function = _multiply()
    assert function is not None
    count, rows, inner = left.shape
    out = torch.empty(count, rows, right.shape[2])
    border.check(right, "right", (count, inner, right.shape[2]))
    if bias is not None:
        border.check(bias, "bias", (count, rows, 1))
    bias = None if bias is None else bias.contiguous()
    product = _Product(
        count,
        rows,
        inner,
        right.shape[2],
        left.data_ptr(),
        *left.stride(),
        right.data_ptr(),
        *right.stride(),
        None if bias is None else bias.data_ptr(),
        relu,
        out.data_ptr(),
    )
    function(ctypes.byref(product), torch.get_num_threads())
    return out


def clip(gradients: list[Tensor], max_norm: float, norm_floor: float) -> Tensor | None:
    """Norms [count] of the gradients of ``count`` networks, which are scaled in place to at most ``max_norm``.

    None where this has to be left to torch.

    Args:
        gradients: [count, ...] each.
        max_norm: largest norm; 0 leaves the gradients as they are.
        norm_floor: added to a norm before dividing by it.
    """
    found = kernels()
    if found is None or not all(
        part.dtype is torch.float32 and part.device.type == "cpu" and part.is_contiguous() for part in gradients
    ):
        return None
    count, parts = len(gradients[0]), len(gradients)
    if any(len(part) != count for part in gradients):
        raise ValueError(f"gradients of {count} networks are {[list(part.shape) for part in gradients]}")
    norms = torch.empty(count)
    addresses = (ctypes.c_void_p * parts)(*(part.data_ptr() for part in gradients))
    sizes = (ctypes.c_int64 * parts)(*(part.numel() // count for part in gradients))
    task = _Clipped(
        count,
        parts,
        ctypes.addressof(addresses),
        ctypes.addressof(sizes),
        max_norm,
        norm_floor,
        norms.data_ptr(),
    )
    found.cfpos_clip(ctypes.byref(task))
    return norms
