"""Actors and critics: the networks of all agents are one batched computation, never a loop over agents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
    """``count`` ReLU networks of equal shape: x_{l+1}[c] = relu(x_l[c] W_l[c] + b_l[c]), last layer linear.

    Args:
        count: networks.
        sizes: widths from input to output, at least two.
        generator: source of the initial weights, uniform in +-1/sqrt(inputs).
        output_scale: factor on the initial last layer.
        dtype: of the parameters.
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
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = (output_scale if layer == len(sizes) - 2 else 1.0) / math.sqrt(fan_in)
            for parameters, rows in ((self.weights, fan_in), (self.biases, 1)):
                values = torch.rand(count, rows, fan_out, generator=generator, dtype=torch.float64)
                parameters.append(nn.Parameter(((2 * values - 1) * bound).to(dtype)))

    def forward(self, inputs: Float[Tensor, "count N inputs"]) -> Float[Tensor, "count N outputs"]:
        """Every network on its own rows."""
        return self.after_first(torch.baddbmm(self.biases[0], inputs, self.weights[0]))

    def after_first(self, hidden: Float[Tensor, "count N hidden"]) -> Float[Tensor, "count N outputs"]:
        """The rest of the network from the first layer's sums (before its ReLU)."""
        for weight, bias in zip(list(self.weights)[1:], list(self.biases)[1:], strict=True):
            hidden = torch.baddbmm(bias, torch.relu(hidden), weight)
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
            return self.net(observations.transpose(0, 1)).transpose(0, 1)
        outputs = self.net(observations.reshape(1, -1, self.inputs))
        return outputs.reshape(*observations.shape[:-1], -1)

    def forward(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Actions in (-1, 1)."""
        return torch.tanh(self.pre_tanh(observations))


class ConcatenatedCritic(nn.Module):
    """Q_i(o_1..o_n, a_1..a_n), one critic per agent, as in MADDPG (Lowe et al. 2017, eq. 6).

    All critics see the same joint vector, so their first layers are one matrix product; exchanging agent i's action
    in Q_i changes that product only by (a_i' - a_i) times the rows of agent i's action.
    """

    def __init__(self, shape: GameShape, hidden: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype):
        super().__init__()
        self.shape = shape
        joint = shape.agents * (shape.observation_size + shape.action_size)
        self.net = BatchedMlp(shape.agents, (joint, *hidden, 1), generator, dtype=dtype)

    def forward(
        self, observations: Float[Tensor, "B n obs"], actions: Float[Tensor, "B n act"]
    ) -> Float[Tensor, "B n"]:
        """The value of the joint action for every agent."""
        return self._finish(self._first(observations, actions))

    def with_own(
        self,
        observations: Float[Tensor, "B n obs"],
        actions: Float[Tensor, "B n act"],
        own: Float[Tensor, "B n act"],
    ) -> Float[Tensor, "B n"]:
        """Q_i with agent i's action replaced by ``own`` and all other actions kept; gradients reach ``own`` only."""
        shape = self.shape
        with torch.no_grad():
            base = self._first(observations, actions)
        action_rows = self.net.weights[0].detach()[:, shape.agents * shape.observation_size :]
        blocks = action_rows.unflatten(1, (shape.agents, shape.action_size))
        each = torch.arange(shape.agents, device=own.device)
        change = torch.bmm((own - actions).transpose(0, 1), blocks[each, each])
        return self._finish(base + change)

    def _first(self, observations: Tensor, actions: Tensor) -> Tensor:
        joint = torch.cat([observations.flatten(1), actions.flatten(1)], dim=1)
        weight = self.net.weights[0]
        product = joint @ weight.transpose(0, 1).flatten(1)
        return product.unflatten(1, (weight.shape[0], -1)).transpose(0, 1) + self.net.biases[0]

    def _finish(self, hidden: Tensor) -> Tensor:
        return self.net.after_first(hidden).squeeze(-1).transpose(0, 1)


class PermutationInvariantCritic(nn.Module):
    """Q_i(o_i, a_i, mean_j phi(o_j, a_j)): a joint critic whose size does not grow with n (DeepSets, Zaheer 2017).

    The embedding phi is common to all agents; the head is one per agent for separate actors, common otherwise.
    """

    def __init__(
        self, shape: GameShape, share: str, hidden: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        pair = shape.observation_size + shape.action_size
        width = hidden[-1] if hidden else pair
        heads = shape.agents if share == "separate" else 1
        self.heads = heads
        self.embedding = BatchedMlp(1, (pair, width, width), generator, dtype=dtype)
        self.head = BatchedMlp(heads, (pair + width, *hidden, 1), generator, dtype=dtype)

    def forward(
        self, observations: Float[Tensor, "B n obs"], actions: Float[Tensor, "B n act"]
    ) -> Float[Tensor, "B n"]:
        """The value of the joint action for every agent."""
        pooled = self._embed(observations, actions).mean(1, keepdim=True)
        return self._head(observations, actions, pooled.expand(-1, observations.shape[1], -1))

    def with_own(
        self,
        observations: Float[Tensor, "B n obs"],
        actions: Float[Tensor, "B n act"],
        own: Float[Tensor, "B n act"],
    ) -> Float[Tensor, "B n"]:
        """Q_i with agent i's action replaced by ``own`` and all other actions kept."""
        with torch.no_grad():
            embedded = self._embed(observations, actions)
            others = embedded.mean(1, keepdim=True) - embedded / observations.shape[1]
        pooled = others + self._embed(observations, own) / observations.shape[1]
        return self._head(observations, own, pooled)

    def _embed(self, observations: Tensor, actions: Tensor) -> Tensor:
        pairs = torch.cat([observations, actions], dim=-1)
        return torch.relu(self.embedding(pairs.flatten(0, 1)[None]))[0].unflatten(0, pairs.shape[:2])

    def _head(self, observations: Tensor, actions: Tensor, pooled: Tensor) -> Tensor:
        return _per_agent(self.head, self.heads, torch.cat([observations, actions, pooled], dim=-1))


class OwnCritic(nn.Module):
    """Q(o_i, a_i): sees nothing of the other agents; one network per agent for separate actors, one otherwise."""

    def __init__(
        self, shape: GameShape, share: str, hidden: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.heads = shape.agents if share == "separate" else 1
        pair = shape.observation_size + shape.action_size
        self.net = BatchedMlp(self.heads, (pair, *hidden, 1), generator, dtype=dtype)

    def forward(
        self, observations: Float[Tensor, "B n obs"], actions: Float[Tensor, "B n act"]
    ) -> Float[Tensor, "B n"]:
        """The value of each agent's own action."""
        return _per_agent(self.net, self.heads, torch.cat([observations, actions], dim=-1))

    def with_own(
        self,
        observations: Float[Tensor, "B n obs"],
        actions: Float[Tensor, "B n act"],
        own: Float[Tensor, "B n act"],
    ) -> Float[Tensor, "B n"]:
        """The value of ``own``; ``actions`` play no part."""
        return self(observations, own)


Critic = ConcatenatedCritic | PermutationInvariantCritic | OwnCritic


def make_critic(
    kind: str,
    shape: GameShape,
    share: str,
    hidden: tuple[int, ...],
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Critic:
    """The critic called ``kind``; see ``MaddpgConfig.critic``."""
    if kind == "concatenated":
        return ConcatenatedCritic(shape, hidden, generator, dtype)
    if kind == "permutation-invariant":
        return PermutationInvariantCritic(shape, share, hidden, generator, dtype)
    if kind == "own":
        return OwnCritic(shape, share, hidden, generator, dtype)
    raise ValueError(f"there is no critic network {kind!r}; choose concatenated, permutation-invariant or own.")


def _per_agent(net: BatchedMlp, heads: int, inputs: Float[Tensor, "B n inputs"]) -> Float[Tensor, "B n"]:
    if heads == 1:
        return net(inputs.flatten(0, 1)[None]).reshape(inputs.shape[:2])
    return net(inputs.transpose(0, 1)).squeeze(-1).transpose(0, 1)
