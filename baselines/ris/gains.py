"""Stage 1, gains: least squares with the Khatri-Rao steering of all five modes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Complex
from torch import Tensor


def least_squares_gains(
    vectors: Sequence[Complex[Tensor, "T L _n"]], matched: Complex[Tensor, "T L"], present: Bool[Tensor, "T L"]
) -> Complex[Tensor, "T L"]:
    """Gains g = (Hadamard product of the Gram matrices V_q^H V_q)^-1 v(l)^H Y; zero for absent paths.

    Args:
        vectors: steering of every mode, double precision.
        matched: v(l)^H Y.
        present: which paths there are.
    """
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    gram = vectors[0].new_ones(())
    for mode in vectors:
        gram = gram * (mode.conj() @ mode.mT)
    gram = gram * both + torch.diag_embed((~present).to(matched.dtype))
    right = (matched * present).unsqueeze(-1)
    return torch.linalg.solve_ex(gram, right).result.squeeze(-1)
