"""Networks of all agents as one batched computation, never a loop over agents.

Inside a network batches come last: the vectors of N samples are [count, size, N]. So W x is one product of stored
matrices for every layer, activations lie in memory as the next product reads them, and a bias is a column.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .products import products

# The last layer of an actor starts this much smaller than usual: the untrained policy is near its neutral action 0.
_ACTOR_OUTPUT_SCALE = 0.01


@dataclass(frozen=True)
class GameShape:
    """Sizes that the networks are built for.

    Attributes:
        agents: n.
        observation_size, action_size: one agent's vectors.
        entities: equal parts of an agent's vectors (1 where there are none).
    """

    agents: int
    observation_size: int
    action_size: int
    entities: int = 1

    @property
    def rows(self) -> GameShape:
        """The one-agent game that a single (agent, entity) pair plays."""
        return GameShape(1, self.observation_size // self.entities, self.action_size // self.entities)


class BatchedMlp(nn.Module):
    """``count`` ReLU networks of equal shape: x_{l+1}[c] = relu(W_l[c] x_l[c] + b_l[c]), last layer linear.

    Args:
        count: networks.
        sizes: widths from input to output, at least two.
        generator: source of the initial weights, uniform in +-1/sqrt(inputs).
        output_scale: factor on the initial last layer.
        dtype: of the parameters.

    Attributes:
        weights: per layer [count, outputs, inputs].
        biases: per layer [count, outputs, 1].
    """

    def __init__(
        self,
        count: int,
        sizes: tuple[int, ...],
        generator: torch.Generator,
        output_scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        weights: list[nn.Parameter] = []
        biases: list[nn.Parameter] = []
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = (output_scale if layer == len(sizes) - 2 else 1.0) / math.sqrt(fan_in)
            for parameters, rows in ((weights, fan_in), (biases, 1)):
                values = torch.rand(count, rows, fan_out, generator=generator, dtype=torch.float64)
                parameters.append(nn.Parameter(((2 * values - 1) * bound).to(dtype).mT.contiguous()))
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)
        # The same parameters as plain pairs: looking them up in a ParameterList takes as long as a small product.
        self.layers = list(zip(weights, biases, strict=True))

    def forward(self, inputs: Float[Tensor, "count inputs N"]) -> Float[Tensor, "count outputs N"]:
        """Every network on its own columns."""
        weight, bias = self.layers[0]
        return self._behind(products(weight, inputs, bias, relu=len(self.layers) > 1))

    def finish(self, sums: Float[Tensor, "count hidden N"]) -> Float[Tensor, "count outputs N"]:
        """``forward`` from the first layer's W x + b, which is overwritten."""
        return self._behind(torch.relu_(sums) if len(self.layers) > 1 else sums)

    def _behind(self, hidden: Tensor) -> Tensor:
        last = len(self.layers) - 1
        for layer in range(1, last + 1):
            weight, bias = self.layers[layer]
            hidden = products(weight, hidden, bias, relu=layer < last)
        return hidden


class Actor(nn.Module):
    """Deterministic policies mu(o) = tanh(net(o)).

    ``separate``: one network per agent. ``shared``: one for all agents. ``entity``: one for every (agent, entity)
    part of the vectors; the last two accept any number of agents (and ``entity`` any number of entities).

    Args:
        shape: sizes of the game.
        share: see above.
        hidden: widths of the hidden layers.
        generator: source of the initial weights.
        dtype: of the parameters.
    """

    def __init__(
        self,
        shape: GameShape,
        share: str,
        hidden: tuple[int, ...],
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.separate = share == "separate"
        unit = shape.rows if share == "entity" else shape
        self.inputs, self.outputs = unit.observation_size, unit.action_size
        sizes = (self.inputs, *hidden, self.outputs)
        count = shape.agents if self.separate else 1
        self.net = BatchedMlp(count, sizes, generator, _ACTOR_OUTPUT_SCALE, dtype)

    def pre_tanh(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """The outputs before the squashing tanh."""
        if self.separate:
            return self.net(observations.permute(1, 2, 0)).permute(2, 0, 1)
        outputs = self.net(observations.reshape(-1, self.inputs).mT[None])
        return outputs[0].mT.reshape(*observations.shape[:-1], -1)

    def forward(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Actions in (-1, 1)."""
        return torch.tanh(self.pre_tanh(observations))
