"""What all measurements share, and what an estimator answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RowsT = TypeVar("RowsT", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """A dataclass whose tensors (and fields of this kind) share their first axis; anything else belongs to all rows."""

    def select(self: RowsT, index: int | slice | Int[Tensor, " n"]) -> RowsT:
        """Some rows only."""
        return self._mapped(lambda tensor: tensor[index])

    def to(self: RowsT, device: torch.device | str) -> RowsT:
        """The same on another device."""
        return self._mapped(lambda tensor: tensor.to(device))

    @classmethod
    def joined(cls: type[RowsT], parts: Sequence[RowsT]) -> RowsT:
        """Parts one after another; what belongs to all rows is that of the first part."""
        if len(parts) == 1:
            return parts[0]
        columns = {name: [getattr(part, name) for part in parts] for name in parts[0].__dict__}
        return dataclasses.replace(
            parts[0],
            **{
                name: torch.cat(column) if isinstance(column[0], Tensor) else column[0].joined(column)
                for name, column in columns.items()
                if isinstance(column[0], (Tensor, Rows))
            },
        )

    def same_as(self, other: object) -> bool:
        """Whether ``other`` holds the same: the tensors themselves or equal ones on the same device, without NaN."""
        return type(self) is type(other) and all(
            _same(value, getattr(other, name)) for name, value in self.__dict__.items()
        )

    def _mapped(self: RowsT, function: Callable[[Tensor], Tensor]) -> RowsT:
        return dataclasses.replace(
            self,
            **{
                name: function(value) if isinstance(value, Tensor) else value._mapped(function)
                for name, value in self.__dict__.items()
                if isinstance(value, (Tensor, Rows))
            },
        )


class Measurements(Rows):
    """Base of everything that a central unit may receive: a frozen dataclass with the episode as first axis.

    Attributes:
        families: kinds of measurements that the class holds; scenarios that make one name it as their ``family``.
        content: what is in there, for messages.
        environments: where it comes from, for messages.
        site_ids: one integer per episode; equal integers mean the same site.
    """

    families: ClassVar[tuple[str, ...]]
    content: ClassVar[str]
    environments: ClassVar[str]
    site_ids: Int[Tensor, " B"]

    @property
    def family(self) -> str:
        """Which of ``families`` this is."""
        return self.families[0]

    def check(self) -> None:
        """Refuse tensors that do not fit together; classes that check themselves when they are made need no more.

        Raises:
            ValueError: names the first field that is wrong.
        """
        return

    def __len__(self) -> int:
        """Number of episodes."""
        return len(self.site_ids)


@dataclass(frozen=True)
class PositionEstimate(Rows):
    """What ``estimator.locate(measurements)`` returns.

    Attributes:
        position: [..., K, 2] (or 3) metres.
        covariance: [..., K, 2, 2] square metres, or None where the method has none.
        valid: [..., K] false where the method could not answer; the position is then finite but meaningless.
    """

    position: Float[Tensor, "*batch K D"]
    covariance: Float[Tensor, "*batch K D D"] | None
    valid: Bool[Tensor, "*batch K"]


def check_shapes(owner: object, wanted: Mapping[str, tuple[int, ...]], given: str) -> None:
    """Refuse fields of another shape; broadcasting would hide the mistake.

    Args:
        owner: what the fields belong to.
        wanted: shapes by field.
        given: what they follow from, for the message.

    Raises:
        ValueError: names the first field that is wrong.
    """
    for name, shape in wanted.items():
        value = getattr(owner, name)
        found = None if value is None else tuple(value.shape)
        if found != shape:
            raise ValueError(f"{name} has shape {found}; with {given} it must be {shape}")


def _same(first: object, second: object) -> bool:
    if first is second:
        return True
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.device == second.device and torch.equal(first, second)
    return first.same_as(second) if isinstance(first, Rows) else first == second
