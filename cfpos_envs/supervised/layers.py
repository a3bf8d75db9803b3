"""Layers that hold one set of weights per base station and apply all of them in one matrix product."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PrivateLinear(nn.Module):
    """y_l = W_l x_l + b_l for every base station l.

    Args:
        num_bs: L.
        size_in, size_out: numbers per row.
        generator: initial weights, uniform in +-1/sqrt(size_in) as in ``nn.Linear``.
    """

    def __init__(self, num_bs: int, size_in: int, size_out: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(size_in)
        self.weight = nn.Parameter(_uniform((num_bs, size_in, size_out), bound, generator))
        self.bias = nn.Parameter(_uniform((num_bs, 1, size_out), bound, generator))

    def forward(self, rows: Float[Tensor, "L B size_in"]) -> Float[Tensor, "L B size_out"]:
        """The rows of every BS through its own weights."""
        return torch.baddbmm(self.bias.to(rows.dtype), rows, self.weight)


def mlp(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """Linear layers with SiLU in between.

    Args:
        sizes: of input, hidden layers and output.
        generator: initial weights.
    """
    layers: list[nn.Module] = []
    for size_in, size_out in itertools.pairwise(sizes):
        layers += [linear(size_in, size_out, generator), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def linear(size_in: int, size_out: int, generator: torch.Generator) -> nn.Linear:
    """``nn.Linear`` whose initial weights come from ``generator``."""
    made: nn.Linear = nn.utils.skip_init(nn.Linear, size_in, size_out)
    initialised(made, generator)
    return made


def initialised(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Every weight matrix, kernel and bias below ``module`` drawn anew: uniform in +-1/sqrt(inputs).

    Torch's own initialisation draws from the global generator, so it is not used.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Conv2d)):
            bound = 1 / math.sqrt(part.weight[0].numel())
            part.weight.data = _uniform(part.weight.shape, bound, generator)
            if part.bias is not None:
                part.bias.data = _uniform(part.bias.shape, bound, generator)
        elif isinstance(part, nn.LSTM):
            for weight in part.parameters(recurse=False):
                weight.data = _uniform(weight.shape, 1 / math.sqrt(part.hidden_size), generator)
    return module


def _uniform(shape: Sequence[int], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(*shape, generator=generator) * 2 - 1) * bound
