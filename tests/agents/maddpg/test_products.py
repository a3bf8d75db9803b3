"""Products are right whichever way they are computed: small and large, single and batched, any strides and types."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.maddpg import compiled_products, products
from agents.maddpg.products import product


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
    for size in (128, 256):  # below and above the size from which oneDNN is differentiated
        left, right = (_normal(seed, size, size).requires_grad_() for seed in (0, 1))
        (product(left, right) * _normal(2, size, size)).sum().backward()
        assert left.grad is not None
        assert right.grad is not None
        assert torch.allclose(left.grad, _normal(2, size, size) @ right.mT, atol=1e-3)
        assert torch.allclose(right.grad, left.mT @ _normal(2, size, size), atol=1e-3)
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


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("sizes", [(3, 64, 24, 256), (1, 50, 300, 70), (2, 1, 40, 500), (5, 13, 64, 65)])
def test_what_follows_a_product_is_done_with_it(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, sizes: tuple[int, int, int, int]
) -> None:
    if not compiled:
        monkeypatch.setattr(products, "is_faster", lambda *_: False)
    count, rows, inner, columns = sizes
    right, bias = _normal(1, count, inner, columns), _normal(2, count, rows, 1)
    for left in (_normal(0, count, rows, inner), _normal(0, count, inner, rows).mT):
        exact = (left.double() @ right.double()).float()
        assert torch.allclose(products.products(left, right), exact, atol=1e-3)
        assert torch.allclose(products.products(left, right, bias), exact + bias, atol=1e-3)
        assert torch.allclose(products.products(left, right, bias, relu=True), (exact + bias).relu(), atol=1e-3)


def test_what_is_not_a_number_stays_so() -> None:
    left, right = _normal(0, 2, 64, 64), _normal(1, 2, 64, 64)
    left[1, 3] = torch.nan
    made = products.products(left, right, torch.zeros(2, 64, 1), relu=True)
    assert made[1, 3].isnan().all()
    assert made[0].isfinite().all()


@pytest.mark.parametrize("max_norm", [0.0, 3.0])
def test_clipping_scales_every_network_on_its_own(max_norm: float) -> None:
    gradients = [_normal(seed, 3, *size) for seed, size in enumerate([(7, 300), (7, 1), (2, 7), (2, 1)])]
    for part in gradients:
        part[1] *= 0.01  # a network whose norm is small enough
    flat = torch.cat([part.flatten(1) for part in gradients], 1)
    expected = torch.linalg.vector_norm(flat, dim=1)
    norms = compiled_products.clip(gradients, max_norm, 1e-6)
    if norms is None:
        pytest.skip("no compiler here: torch clips")
    torch.testing.assert_close(norms, expected)
    scale = (max_norm / (expected + 1e-6)).clamp(max=1.0) if max_norm else torch.ones(3)
    assert max_norm == 0.0 or (scale[0] < 1.0 == scale[1])
    torch.testing.assert_close(torch.cat([part.flatten(1) for part in gradients], 1), flat * scale[:, None])


def test_a_gradient_that_is_not_a_number_is_not_hidden_by_clipping() -> None:
    gradients = [_normal(0, 2, 4, 4), _normal(1, 2, 4, 1)]
    gradients[0][1, 2, 2] = torch.nan
    norms = compiled_products.clip(gradients, 1.0, 1e-6)
    if norms is None:
        pytest.skip("no compiler here: torch clips")
    assert norms[1].isnan()
    assert gradients[1][1].isnan().all()
    assert gradients[1][0].isfinite().all()


def test_other_gradients_are_left_to_torch() -> None:
    assert compiled_products.clip([_normal(0, 2, 4, 4, dtype=torch.float64)], 1.0, 1e-6) is None
    assert compiled_products.clip([_normal(0, 2, 4, 4).mT], 1.0, 1e-6) is None
