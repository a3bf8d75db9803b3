"""Robust weights of residuals and bounded steps, for fusion and estimators alike."""

from __future__ import annotations

import torch
from torch import Tensor

STUDENT_NU = 4.0


def student_weight(z: Tensor, nu: float = STUDENT_NU) -> Tensor:
    """Weight of a residual of z standard deviations under Student-t errors: (nu + 1) / (nu + z^2)."""
    return (nu + 1.0) / (nu + z.square())


def clamp_length(vectors: Tensor, longest: float) -> Tensor:
    """Vectors shortened to at most ``longest``."""
    length = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return vectors * (longest / length.clamp(min=longest))
