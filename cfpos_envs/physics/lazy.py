"""Values that an object computes when first asked for, in eager code as well as under ``torch.compile``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

import torch

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801 (used like a decorator of the standard library)
    """``functools.cached_property`` without its lock, which a compiler cannot trace.

    While a graph is traced nothing is kept: the compiler finds common parts by itself.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[Value]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> lazy[Value] | Value:
        if instance is None:
            return self
        value = self._compute(instance)
        if not torch.compiler.is_compiling():
            # No __set__ here, so the next look-up finds the value in the object itself.
            instance.__dict__[self._name] = value
        return value
