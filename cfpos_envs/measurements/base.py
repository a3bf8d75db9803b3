"""What all measurements share, and what an estimator answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
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
        origin_m: where the origin of these coordinates lies in the coordinates of whoever asked; ``locate`` adds it to
            its answers. Constructors that take a person's own coordinates move them near zero, so that single
            precision loses nothing of UTM northings. All zero in the environments.
    """

    families: ClassVar[tuple[str, ...]]
    content: ClassVar[str]
    environments: ClassVar[str]
    site_ids: Int[Tensor, " B"]
    origin_m: tuple[float, ...] = ()

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


class Reason(IntEnum):
    """Why an answer is not valid; ``advice`` says what to do about it."""

    VALID = 0
    BAD_INPUT = 1
    TOO_FEW_LINKS = 2
    POOR_GEOMETRY = 3
    AMBIGUOUS = 4
    NOT_CONVERGED = 5
    LARGE_RESIDUALS = 6
    OUTSIDE = 7
    UNFAMILIAR = 8

    @property
    def advice(self) -> str:
        """One line for people."""
        return _ADVICE[self]


_ADVICE = {
    Reason.VALID: "a valid answer",
    Reason.BAD_INPUT: "the measurements of this user cannot be right; look at their units, signs and marks for missing",
    Reason.TOO_FEW_LINKS: "too few links for a position; more access points must be heard",
    Reason.POOR_GEOMETRY: "the access points in use do not determine a position (one line or one place); add one aside",
    Reason.AMBIGUOUS: "two places explain the measurements nearly as well; add a link or restrict the area",
    Reason.NOT_CONVERGED: "the descent did not settle; the measurements may contradict each other",
    Reason.LARGE_RESIDUALS: "residuals far larger than the stated noise; look for links without line of sight, "
    "offsets, places and names of access points, or a standard deviation that is too small",
    Reason.OUTSIDE: "the best answer lies outside the searched area; enlarge the area or look at the offsets",
    Reason.UNFAMILIAR: "nothing in the survey or training is like these measurements: another place, device or unit, "
    "or columns in another order",
}


@dataclass(frozen=True)
class PositionEstimate(Rows):
    """What ``estimator.locate(measurements)`` returns.

    Attributes:
        position: [..., K, 2] (or 3) metres.
        covariance: [..., K, 2, 2] square metres, or None where the method has none.
        valid: [..., K] false where the method could not answer; the position is then finite but meaningless.
        reason: [..., K] a ``Reason`` as integer; 0 exactly where ``valid``. None: the method gives none.
        chi_squared: [..., K] sum of the squared residuals over their variances; None where the method has no
            stated noise to compare with.
        degrees_of_freedom: [..., K] residuals minus unknowns; chi_squared is believed only where this is positive.
        radii: [..., K, 2] of the regions that hold half and nine tenths of the truths, in units of the covariance:
            (p - position)' covariance^-1 (p - position) <= radius^2. None: those of a Gaussian.
    """

    position: Float[Tensor, "*batch K D"]
    covariance: Float[Tensor, "*batch K D D"] | None
    valid: Bool[Tensor, "*batch K"]
    reason: Int[Tensor, "*batch K"] | None = None
    chi_squared: Float[Tensor, "*batch K"] | None = None
    degrees_of_freedom: Int[Tensor, "*batch K"] | None = None
    radii: Float[Tensor, "*batch K levels"] | None = None

    def moved(self, origin_m: Sequence[float]) -> PositionEstimate:
        """The same in coordinates whose origin lies at -``origin_m``, in double precision; itself if that is zero.

        An origin in the plane leaves heights as they are.
        """
        if not any(origin_m):
            return self
        return dataclasses.replace(self, position=moved_by(self.position, origin_m))


def moved_by(position: Float[Tensor, "*B D"], origin_m: Sequence[float]) -> Float[Tensor, "*B D"]:
    """Positions in coordinates whose origin lies at -``origin_m`` along the first axes."""
    position = position.double()
    shift = position.new_zeros(position.shape[-1])
    shift[: len(origin_m)] = position.new_tensor(origin_m)
    return position + shift


def first_reason(valid: Bool[Tensor, "*batch K"], *failures: tuple[Reason, Tensor]) -> Int[Tensor, "*batch K"]:
    """``Reason`` of every user: 0 where ``valid``, else the first of ``failures`` that holds, else ``NOT_CONVERGED``.

    Args:
        valid: users with an answer.
        failures: (reason, mask [..., K]) pairs, the most telling first.
    """
    reason = torch.full_like(valid, int(Reason.NOT_CONVERGED), dtype=torch.int8)
    for cause, failed in reversed(failures):
        reason = torch.where(failed, int(cause), reason)
    return torch.where(valid, int(Reason.VALID), reason).to(torch.int8)


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
