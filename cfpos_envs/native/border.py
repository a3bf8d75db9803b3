"""What kernels are handed: shape, type, device and order of every tensor are checked before its address is taken.

A kernel reads as many numbers as its game has, whatever it is given. Every call passes here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]
Wanted = tuple[str, Shape, torch.dtype]
"""Name, shape and type of a tensor."""


def dense(tensors: Sequence[Tensor | None], wanted: Sequence[Wanted]) -> list[Tensor | None]:
    """Tensors as a kernel can read them: contiguous on the CPU. None stays None.

    Args:
        tensors: what a caller gave; to be kept alive while their addresses are in use.
        wanted: of each.

    Raises:
        ValueError: another shape or type, or another device than the CPU; names the first.
    """
    found: list[Tensor | None] = []
    for tensor, (name, shape, dtype) in zip(tensors, wanted, strict=True):
        if tensor is None:
            found.append(None)
            continue
        if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
            raise ValueError(_message(tensor, name, shape, dtype))
        found.append(tensor if tensor.is_contiguous() else tensor.contiguous())
    return found


class Batches:
    """``dense`` for the same tensors call after call: those that have not been exchanged are not looked at again.

    Args:
        wanted: name, shape without the first dimension, and type.
    """

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self._wanted = tuple(wanted)
        self._rows, self._of_rows = -1, self._wanted
        self._given: list[Tensor | None] = [None] * len(self._wanted)
        self._found: list[Tensor | None] = [None] * len(self._wanted)

    def dense(self, tensors: Sequence[Tensor | None], rows: int) -> list[Tensor | None]:
        """See the function ``dense``; the first dimension of all is ``rows``."""
        if rows != self._rows:
            self._of_rows = tuple((name, (rows, *shape), dtype) for name, shape, dtype in self._wanted)
            self._given = [None] * len(self._wanted)
            self._rows = rows
        for index, tensor in enumerate(tensors):
            if tensor is not self._given[index]:
                self._given[index] = None
                (self._found[index],) = dense((tensor,), self._of_rows[index : index + 1])
                self._given[index] = tensor
        # Those that are None now may have been tensors before.
        return [None if tensor is None else found for tensor, found in zip(tensors, self._found, strict=True)]


def check(tensor: Tensor, name: str, shape: Shape, dtype: torch.dtype = torch.float32) -> None:
    """ValueError unless a tensor on the CPU has this shape and type, whatever its strides."""
    if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
        raise ValueError(_message(tensor, name, shape, dtype))


def _message(tensor: Tensor, name: str, shape: Shape, dtype: torch.dtype) -> str:
    def said(sizes: Sequence[int], kind: torch.dtype, device: torch.device) -> str:
        return f"{str(kind).removeprefix('torch.')} {list(sizes)} on {device}"

    given = said(tensor.shape, tensor.dtype, tensor.device)
    return f"{name} is {given}; the kernel takes {said(shape, dtype, torch.device('cpu'))}"
