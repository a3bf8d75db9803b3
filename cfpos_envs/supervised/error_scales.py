"""Covariances of errors as a smooth function of signs of doubt, learned from answers whose errors are known.

e / s = A^-1 z with a lower triangular A(x) whose six numbers a small network gives, and z of heavy tails: a Student
distribution whose degrees of freedom are learned too, so that a few answers at quite another place do not decide on the
covariance of all others (Lange, Little and Taylor 1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfpos_envs.supervised.layers import mlp

_HIDDEN = 32
_EPOCHS = 40
_BATCH = 256
_LR = 4e-3
_WEIGHT_DECAY = 1e-2
_WATCHED = 0.15
"""Share of the places on which the epoch to keep is chosen."""
_CLIP = 6.0
"""Standardised inputs beyond this are taken as this: nothing is known there."""
_FREEDOM = 5.0


@dataclass(frozen=True)
class ErrorScales:
    """Learned covariances.

    Attributes:
        mean, deviation: of the inputs.
        scale_m: of errors: their root mean square along an axis.
        network: from standardised inputs to the six numbers.
    """

    mean: Float[Tensor, " F"]
    deviation: Float[Tensor, " F"]
    scale_m: float
    network: nn.Module

    @torch.no_grad()
    def covariance_m2(self, inputs: Float[Tensor, "S F"]) -> Float[Tensor, "S 3 3"]:
        """Covariances up to a common factor, in double precision.

        Args:
            inputs: of the answers.
        """
        factor = whitening(self.network(self._standard(inputs)).double())
        inverse = torch.linalg.solve_triangular(
            factor, torch.eye(3, dtype=factor.dtype, device=factor.device).expand_as(factor), upper=False
        )
        return self.scale_m**2 * inverse @ inverse.mT

    def _standard(self, inputs: Tensor) -> Tensor:
        return ((inputs - self.mean) / self.deviation).clamp(-_CLIP, _CLIP)


def whitening(numbers: Float[Tensor, "S 6"]) -> Float[Tensor, "S 3 3"]:
    """Lower triangular A: exp(-n_0..2) on the diagonal, n_3..5 below it in units of the diagonal of their column.

    Args:
        numbers: n.
    """
    diagonal = (-numbers[:, :3]).exp()
    unit = torch.eye(3, dtype=numbers.dtype, device=numbers.device).repeat(len(numbers), 1, 1)
    rows, columns = torch.tril_indices(3, 3, offset=-1)
    unit[:, rows, columns] = numbers[:, 3:]
    return unit * diagonal[:, None, :]


def student_loss(
    numbers: Float[Tensor, "S 6"], error: Float[Tensor, "S 3"], freedom: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of a three-dimensional Student distribution, up to a constant.

    Args:
        numbers: see ``whitening``.
        error: in units of the scale.
        freedom: nu > 0.
    """
    squared = (whitening(numbers) @ error.unsqueeze(-1)).squeeze(-1).square().sum(dim=-1)
    normal = torch.lgamma((freedom + 3) / 2) - torch.lgamma(freedom / 2) - 1.5 * freedom.log()
    tails = (freedom + 3) / 2 * torch.log1p(squared / freedom)
    return (numbers[:, :3].sum(dim=-1) + tails).mean() - normal


def fit_error_scales(
    inputs: Float[Tensor, "S F"], error_m: Float[Tensor, "S 3"], generator: torch.Generator
) -> ErrorScales:
    """Maximum likelihood on places that the answering network has not seen.

    Args:
        inputs: what tells sure answers from unsure ones.
        error_m: of the answers.
        generator: of weights and order.
    """
    mean, deviation = inputs.mean(dim=0), inputs.std(dim=0).clamp(min=1e-6)
    scale_m = max(float(error_m.double().square().mean().sqrt()), 1e-9)
    network = mlp((inputs.shape[1], _HIDDEN, _HIDDEN, 6), generator)
    made = ErrorScales(mean, deviation, scale_m, network)
    standard, error = made._standard(inputs), error_m / scale_m
    order = torch.randperm(len(inputs), generator=generator)
    watched, learned = order.split([int(_WATCHED * len(order)), len(order) - int(_WATCHED * len(order))])
    log_freedom = nn.Parameter(torch.tensor(math.log(_FREEDOM)))
    with torch.enable_grad():
        _descend(network, log_freedom, (standard, error), (learned, watched), generator)
    network.requires_grad_(False)
    return made


def _descend(
    network: nn.Module,
    log_freedom: nn.Parameter,
    data: tuple[Tensor, Tensor],
    parts: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> None:
    """Epochs of AdamW on the first part; the weights of the epoch that explains the second one best stay."""
    inputs, error = data
    learned, watched = parts
    parameters = [*network.parameters(), log_freedom]
    optimiser = torch.optim.AdamW(parameters, lr=_LR, weight_decay=_WEIGHT_DECAY)
    batch = min(_BATCH, len(learned))
    steps = len(learned) // batch
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, _EPOCHS * steps)
    best, kept = math.inf, [parameter.detach().clone() for parameter in parameters]
    for _ in range(_EPOCHS):
        order = learned[torch.randperm(len(learned), generator=generator)]
        for step in range(steps):
            index = order[step * batch : (step + 1) * batch]
            optimiser.zero_grad(set_to_none=True)
            student_loss(network(inputs[index]), error[index], log_freedom.exp()).backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            loss = float(student_loss(network(inputs[watched]), error[watched], log_freedom.exp()))
        if loss < best:
            best, kept = loss, [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
