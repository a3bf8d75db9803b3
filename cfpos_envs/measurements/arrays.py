"""People's own arrays made into tensors: casts, shapes by name, marks for missing entries, entries that cannot be."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.checks import ON_BAD, one_of

_FULL_TURN_RAD = 2 * math.pi + 1e-6


def real_tensor(name: str, value: Any) -> Tensor:
    """A double-precision tensor of numbers; NaN where a NumPy mask or None says that there is none.

    Args:
        name: of the argument, for the message.
        value: tensor, NumPy array (masked or not) or nested lists of real numbers.

    Raises:
        TypeError: anything that is not made of real numbers.
    """
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name} holds {value.dtype}; give real numbers")
        return value.detach().to(torch.float64)
    return _numbers(name, value, "iufO", np.float64, "real")


def complex_tensor(name: str, value: Any) -> Tensor:
    """A double-precision complex tensor without lazy conjugation; NaN where a NumPy mask says that there is none.

    Args:
        name: of the argument, for the message.
        value: tensor, NumPy array (masked or not) or nested lists of real or complex numbers.

    Raises:
        TypeError: anything that is not made of numbers.
    """
    if isinstance(value, Tensor):
        return value.detach().resolve_conj().resolve_neg().to(torch.complex128)
    return _numbers(name, value, "iufcO", np.complex128, "complex")


def _numbers(name: str, value: Any, kinds: str, dtype: type, wanted: str) -> Tensor:
    """A tensor of ``dtype`` of what is no tensor; NaN where a mask covers an entry."""
    try:
        array = value if isinstance(value, np.ma.MaskedArray) else np.asarray(value)
        if array.dtype.kind not in kinds:
            raise TypeError(f"entries of type {array.dtype}")
        numbers: np.ndarray = array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold {wanted} numbers in a full table, got {error}") from None
    if isinstance(numbers, np.ma.MaskedArray):
        numbers = numbers.filled(complex(math.nan, math.nan) if dtype is np.complex128 else math.nan)
    return torch.from_numpy(np.array(numbers))


def refuse_degrees(name: str, largest_rad: float) -> None:
    """Refuse angles beyond a full turn.

    Args:
        name: of the argument, for the message.
        largest_rad: the angle farthest from zero.

    Raises:
        ValueError: which are degrees.
    """
    if abs(largest_rad) > _FULL_TURN_RAD:
        raise ValueError(
            f"{name} holds {largest_rad:g}, more than a full turn; these look like degrees: give radians, not degrees, "
            "by np.deg2rad(...)"
        )


def with_axes(name: str, value: Tensor, axes: Mapping[str, int | None]) -> Tensor:
    """The tensor, if its axes are those named, of the sizes given (None: any).

    Args:
        name: of the argument, for the message.
        value: what was given.
        axes: plural name -> size.

    Raises:
        ValueError: another number of axes or another size; says so where the table is transposed.
    """
    sizes = tuple(axes.values())
    if value.ndim == len(sizes) and all(b is None or a == b for a, b in zip(value.shape, sizes, strict=True)):
        return value
    wanted = ", ".join(f"{n} {kind}" if n is not None else kind for kind, n in axes.items())
    turned = value.ndim == 2 == len(sizes) and all(
        b is None or a == b for a, b in zip(value.shape[::-1], sizes, strict=True)
    )
    hint = "; it looks transposed" if turned else ""
    raise ValueError(f"{name} has shape {tuple(value.shape)}; it must be [{wanted}]{hint}")


def std_table(name: str, value: Any, of: Float[Tensor, "K M"]) -> Float[Tensor, "K M"]:
    """Standard deviations of a table.

    Args:
        name: of the argument, for the message.
        value: a number, one for each AP, or one for each entry.
        of: the table, users first.

    Raises:
        ValueError: other shapes; a number or one for each AP that is not positive. Single entries are left to
            ``left_out``.
    """
    users, aps = of.shape
    std = real_tensor(name, value)
    if std.ndim == 2:
        return with_axes(name, std, {"users": users, "APs": aps}).to(of)
    if std.ndim == 1:
        std = with_axes(name, std, {"APs": aps})
    if std.ndim > 2 or not bool((std > 0).all()):
        raise ValueError(f"{name} must be positive: a number, [{aps} APs] or [{users} users, {aps} APs]")
    return std.to(of).expand(users, aps)


def left_out(
    name: str, kind: str, values: Float[Tensor, "K M"], faults: Mapping[str, Bool[Tensor, "K M"]], on_bad: str
) -> Bool[Tensor, "K M"]:
    """Links that cannot be as they are: refused, or left out with a warning that counts them.

    Args:
        name: of the argument, for the message.
        kind: what an entry is called, plural.
        values: users, then APs.
        faults: what is wrong -> where.
        on_bad: one of ``ON_BAD``.

    Raises:
        ValueError: another ``on_bad``, or entries that cannot be under "refuse".
    """
    one_of("on_bad", on_bad, ON_BAD)
    bad = torch.stack(list(faults.values())).any(dim=0)
    if not bool(bad.any()):
        return bad
    counts = {cause: int(where.sum()) for cause, where in faults.items() if bool(where.any())}
    summary = ", ".join(f"{count} {cause}" for cause, count in counts.items())
    if on_bad == "drop":
        warnings.warn(f"{name}: left out {int(bad.sum())} of {bad.numel()} {kind} ({summary})", stacklevel=3)
        return bad
    user, ap = bad.nonzero()[0].tolist()
    raise ValueError(
        f"{name} cannot be right: {summary}; the first is {values[user, ap].item():g} of user {user}, AP {ap} "
        f"(counted from 0). Mark what is missing by NaN or a mask, or leave such {kind} out by on_bad='drop'"
    )


def local_origin(points: Sequence[Float[Tensor, "_ D"]]) -> tuple[float, ...]:
    """Where people's coordinates are moved to zero: their lowest corner rounded down to whole metres.

    Args:
        points: places of all kinds, metres.
    """
    return tuple(float(math.floor(low)) for low in torch.cat(list(points)).amin(dim=0).tolist())
