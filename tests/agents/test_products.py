"""Products are right whichever way they are computed: small and large, single and batched, any strides and types."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import products
from agents.products import product


def _normal(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 40), inner=st.integers(1, 40), columns=st.integers(1, 40), flipped=st.booleans())
def test_products_by_every_route_equal_those_in_double_precision(
    rows: int, inner: int, columns: int, flipped: bool
) -> None:
    left, right = _normal(0, rows, inner), _normal(1, inner, columns)
    if flipped:
        left, right = left.mT.contiguous().mT, right.mT.contiguous().mT
    exact = (left.double() @ right.double()).float()
    with pytest.MonkeyPatch.context() as patch:
        for least in (0, 10**12):
            patch.setattr(products, "_WORTH_A_CALL", least)
            patch.setattr(products, "_WORTH_A_CALL_EACH", least)
            assert torch.allclose(product(left, right), exact, atol=1e-4)
            stacked = products.products(torch.stack([left, -left]), torch.stack([right, 2 * right]))
            assert torch.allclose(stacked, torch.stack([exact, -2 * exact]), atol=1e-3)
            one = products.products(left[None], right[None])
            assert torch.allclose(one, exact[None], atol=1e-4)


def test_slices_of_larger_matrices_are_read_where_they_lie() -> None:
    left, right = _normal(0, 300, 200)[20:276, 8:136], _normal(1, 500, 200)[:256, 8:136].mT
    assert torch.allclose(product(left, right), (left.double() @ right.double()).float(), atol=1e-3)


def test_large_products_stay_differentiable_and_keep_their_type() -> None:
    left, right = _normal(0, 128, 128).requires_grad_(), _normal(1, 128, 128)
    product(left, right).sum().backward()
    assert left.grad is not None
    assert torch.allclose(left.grad, right.sum(1).expand(128, -1), atol=1e-4)
    double = _normal(0, 128, 128, dtype=torch.float64)
    assert torch.equal(product(double, double), double @ double)


@pytest.mark.parametrize("flipped", [False, True])
def test_onednn_never_sees_a_second_operand_with_gaps(monkeypatch: pytest.MonkeyPatch, flipped: bool) -> None:
    seen = []

    def linear(left: torch.Tensor, weight: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(weight)
        return left @ weight.mT

    monkeypatch.setattr(products, "_LINEAR", linear)
    wide = _normal(0, 256, 400)[:, 7:263]
    right = wide.mT if flipped else wide
    assert torch.allclose(product(_normal(1, 256, 256), right), _normal(1, 256, 256) @ right, atol=1e-3)
    assert len(seen) == 1
    assert seen[0].is_contiguous() or seen[0].mT.is_contiguous()
