"""What all measurements share: some rows, parts joined, the same content."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfpos_envs.measurements.base import PositionEstimate, Rows


@dataclass(frozen=True)
class Inner(Rows):
    values: Tensor


@dataclass(frozen=True)
class Outer(Rows):
    constant: float
    values: Tensor
    missing: Tensor | None
    inner: Inner


def outer(scale: float = 1.0) -> Outer:
    return Outer(2.0, scale * torch.arange(6.0).view(3, 2), None, Inner(torch.arange(3)))


def test_rows_are_chosen_at_every_depth() -> None:
    some = outer().select(torch.tensor([2, 0]))
    assert some.values.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert some.inner.values.tolist() == [2, 0]
    assert (some.constant, some.missing) == (2.0, None)
    assert outer().to("cpu").same_as(outer())


def test_content_is_compared_not_identity() -> None:
    assert outer().same_as(outer())
    assert not outer().same_as(outer(2.0))
    assert not outer().same_as(outer().inner)
    assert not Inner(torch.tensor([torch.nan])).same_as(Inner(torch.tensor([torch.nan])))


def test_parts_are_joined() -> None:
    whole = PositionEstimate(torch.rand(5, 2, 3), None, torch.rand(5, 2) > 0.5)
    again = whole.joined([whole.select(slice(low, low + 2)) for low in (0, 2, 4)])
    assert again.same_as(whole)
    both = Outer.joined([outer(), outer(2.0)])
    assert (len(both.values), len(both.inner.values), both.missing) == (6, 6, None)
