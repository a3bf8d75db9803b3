"""Critics: the values of all agents, and the gradients that MADDPG asks of them.

Every critic answers four questions, batch last as in ``agents.maddpg.networks``:

- ``values(joint)``: Q_i of every agent at the stored joint action;
- ``learn(kept, slopes)``: the gradients of its parameters there;
- ``own_values(joint, own)``: Q_i with agent i's action exchanged and all other actions kept;
- ``own_slopes(kept, slopes)``: the derivative of a loss by these exchanged actions.

``joint`` is what ``join`` makes of observations and actions; it serves all critics of one kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .networks import (
    BatchedMlp,
    GameShape,
    apart,
    in_one,
)
from .products import product, products, relu_slopes


class Critic(nn.Module, ABC):
    """See the module; ``kept`` is whatever a pass hands on to its gradient.

    Attributes:
        separate: whether every agent has a network of its own.
    """

    separate: bool

    @abstractmethod
    def join(self, observations: Float[Tensor, "n obs N"], actions: Float[Tensor, "n act N"]) -> Tensor:
        """Observations and actions as the other functions take them."""

    @abstractmethod
    def values(self, joint: Tensor) -> tuple[Float[Tensor, "n N"], Any]:
        """Values of the joint action."""

    @abstractmethod
    def learn(self, kept: Any, slopes: Float[Tensor, "n N"]) -> None:
        """Set the parameters' gradients from a loss's derivative by ``values``."""

    @abstractmethod
    def own_values(self, joint: Tensor, own: Float[Tensor, "n act N"]) -> tuple[Float[Tensor, "n N"], Any]:
        """Values with each agent's own action exchanged."""

    @abstractmethod
    def own_slopes(self, kept: Any, slopes: Float[Tensor, "n N"]) -> Float[Tensor, "n act N"]:
        """A loss's derivative by ``own`` from its derivative by ``own_values``."""

    def forward(
        self, observations: Float[Tensor, "B n obs"], actions: Float[Tensor, "B n act"]
    ) -> Float[Tensor, "B n"]:
        """Values of joint actions, batch first."""
        return self.values(self.join(observations.permute(1, 2, 0), actions.permute(1, 2, 0)))[0].mT


class ConcatenatedCritic(Critic):
    """Q_i(o_1..o_n, a_1..a_n), one critic per agent, as in MADDPG (Lowe et al. 2017, eq. 6).

    All critics see the same joint vector, so their first layers are one matrix product; exchanging agent i's action
    in Q_i changes that product only by the columns of agent i's action times (a_i' - a_i).
    """

    def __init__(self, shape: GameShape, hidden: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype):
        super().__init__()
        self.shape, self.separate = shape, True
        joint = shape.agents * (shape.observation_size + shape.action_size)
        self.net = BatchedMlp(shape.agents, (joint, *hidden, 1), generator, dtype=dtype)

    def join(self, observations: Float[Tensor, "n obs N"], actions: Float[Tensor, "n act N"]) -> Tensor:
        """[N, n obs + n act]: one row per sample."""
        return torch.cat([vectors.permute(2, 0, 1).flatten(1) for vectors in (observations, actions)], dim=1)

    def values(self, joint: Tensor) -> tuple[Float[Tensor, "n N"], Any]:
        """See ``Critic``."""
        trace = self.net.finish(self._first(joint))
        return trace[-1][:, 0], (joint, trace)

    def learn(self, kept: Any, slopes: Float[Tensor, "n N"]) -> None:
        """See ``Critic``."""
        joint, trace = kept
        first = self.net.pull_back(trace, slopes[:, None], learn=True)
        weight, _ = self.net.layers[0]
        weight.grad = product(first.flatten(0, 1), joint).view_as(weight)

    def own_values(self, joint: Tensor, own: Float[Tensor, "n act N"]) -> tuple[Float[Tensor, "n N"], Any]:
        """See ``Critic``."""
        shape = self.shape
        stored = joint[:, shape.agents * shape.observation_size :].unflatten(1, (shape.agents, -1)).permute(1, 2, 0)
        sums = self._first(joint).add_(products(self._own_columns(), own - stored))
        trace = self.net.finish(sums)
        return trace[-1][:, 0], trace

    def own_slopes(self, kept: Any, slopes: Float[Tensor, "n N"]) -> Float[Tensor, "n act N"]:
        """See ``Critic``."""
        return products(self._own_columns().mT, self.net.pull_back(kept, slopes[:, None], learn=False))

    def _first(self, joint: Tensor) -> Tensor:
        weight, bias = self.net.layers[0]
        return product(weight.flatten(0, 1), joint.mT).unflatten(0, weight.shape[:2]).add_(bias)

    def _own_columns(self) -> Tensor:
        """[n, hidden, act]: what agent i's action does in the first layer of Q_i; a view."""
        shape = self.shape
        blocks = self.net.layers[0][0][:, :, shape.agents * shape.observation_size :].unflatten(2, (shape.agents, -1))
        return blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


class PermutationInvariantCritic(Critic):
    """Q_i(o_i, a_i, mean_j e_j): a joint critic whose cost grows with n, not n^2 (DeepSets, Zaheer et al. 2017).

    e_j = relu(E [o_j, a_j] + c), then one layer that lets agents hear of each other, h_i = relu(V e_i + P mean_j e_j
    + b) (ibid. eq. 4), and a plain rest. The embedding (E, c) is common to all agents; the head (V, P, ...) is one per
    agent for separate actors, common otherwise.
    """

    def __init__(
        self, shape: GameShape, share: str, hidden: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.agents, self.observation_size = shape.agents, shape.observation_size
        self.pair = shape.observation_size + shape.action_size
        width, *rest = hidden or (self.pair,)
        self.separate = share == "separate"
        heads = shape.agents if self.separate else 1
        self.embedding = BatchedMlp(1, (self.pair, width), generator, dtype=dtype)
        self.head = BatchedMlp(heads, (2 * width, *rest, 1), generator, dtype=dtype)

    def join(self, observations: Float[Tensor, "n obs N"], actions: Float[Tensor, "n act N"]) -> Tensor:
        """[1, obs + act, n N]: one column per agent and sample."""
        return in_one(torch.cat([observations, actions], 1), self.pair)

    def values(self, joint: Tensor) -> tuple[Float[Tensor, "n N"], Any]:
        """See ``Critic``."""
        embedded = torch.relu_(self.embedding(joint))
        mean = self._mean(embedded)
        trace = self.head.finish(self._first(embedded, mean))
        return trace[-1].view(self.agents, -1), (joint, embedded, mean, trace)

    def learn(self, kept: Any, slopes: Float[Tensor, "n N"]) -> None:
        """See ``Critic``."""
        joint, embedded, mean, trace = kept
        listen, hear = self._mixing()
        first = self.head.pull_back(trace, self._as_outputs(slopes), learn=True)
        heard = (first if self.separate else first.unflatten(2, (self.agents, -1)).sum(2)).flatten(0, 1)
        by_mean = product(heard, mean.mT).view_as(hear)
        self.head.layers[0][0].grad = torch.cat([products(first, self._of_heads(embedded).mT), by_mean], 2)
        from_mean = product(hear.flatten(0, 1).mT, heard).div_(self.agents)
        back = self._of_embedding(products(listen.mT, first))
        back.unflatten(2, (self.agents, -1)).add_(from_mean[:, None])
        self.embedding.learn(joint, [], relu_slopes(back, embedded))

    def own_values(self, joint: Tensor, own: Float[Tensor, "n act N"]) -> tuple[Float[Tensor, "n N"], Any]:
        """See ``Critic``."""
        listen, hear = self._mixing()
        sums = self.embedding(joint)
        change = in_one(own, own.shape[1]) - joint[:, self.observation_size :]
        exchanged = products(self._action_columns(), change).add_(sums).relu_()
        embedded = sums.relu_()
        # Agent i is one of the n in its mean, so its own embedding reaches Q_i by both ways.
        both = listen + hear / self.agents
        base = self._first(embedded, self._mean(embedded))
        trace = self.head.finish(base.add_(products(both, self._of_heads(exchanged - embedded))))
        return trace[-1].view(self.agents, -1), (both, exchanged, trace)

    def own_slopes(self, kept: Any, slopes: Float[Tensor, "n N"]) -> Float[Tensor, "n act N"]:
        """See ``Critic``."""
        both, exchanged, trace = kept
        first = self.head.pull_back(trace, self._as_outputs(slopes), learn=False)
        back = relu_slopes(self._of_embedding(products(both.mT, first)), exchanged)
        return apart(products(self._action_columns().mT, back), self.agents, slopes.shape[1])

    def _mixing(self) -> list[Tensor]:
        """V and P."""
        return list(self.head.layers[0][0].chunk(2, dim=2))

    def _action_columns(self) -> Tensor:
        return self.embedding.layers[0][0][:, :, self.observation_size :]

    def _mean(self, embedded: Tensor) -> Tensor:
        return embedded[0].unflatten(1, (self.agents, -1)).mean(1)

    def _first(self, embedded: Tensor, mean: Tensor) -> Tensor:
        listen, hear = self._mixing()
        common = product(hear.flatten(0, 1), mean).unflatten(0, hear.shape[:2]).add_(self.head.layers[0][1])
        sums = products(listen, self._of_heads(embedded))
        if self.separate:
            return sums.add_(common)
        sums.unflatten(2, (self.agents, -1)).add_(common[:, :, None])
        return sums

    def _of_heads(self, embedded: Tensor) -> Tensor:
        """[1, width, n N] as the columns of the heads, a view."""
        return embedded[0].unflatten(1, (self.agents, -1)).transpose(0, 1) if self.separate else embedded

    def _of_embedding(self, columns: Tensor) -> Tensor:
        """The inverse of ``_of_heads``."""
        return columns.transpose(0, 1).flatten(1)[None] if self.separate else columns

    def _as_outputs(self, slopes: Tensor) -> Tensor:
        return slopes.reshape(self.agents if self.separate else 1, 1, -1)


class OwnCritic(Critic):
    """Q(o_i, a_i): sees nothing of the other agents; one network per agent for separate actors, one otherwise."""

    def __init__(
        self, shape: GameShape, share: str, hidden: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.agents, self.observation_size = shape.agents, shape.observation_size
        self.separate = share == "separate"
        self.pair = shape.observation_size + shape.action_size
        heads = shape.agents if self.separate else 1
        self.net = BatchedMlp(heads, (self.pair, *hidden, 1), generator, dtype=dtype)

    def join(self, observations: Float[Tensor, "n obs N"], actions: Float[Tensor, "n act N"]) -> Tensor:
        """[heads, obs + act, columns]: the networks' inputs."""
        pairs = torch.cat([observations, actions], 1)
        return pairs if self.separate else in_one(pairs, self.pair)

    def values(self, joint: Tensor) -> tuple[Float[Tensor, "n N"], Any]:
        """See ``Critic``."""
        trace = self.net.trace(joint)
        return trace[-1].view(self.agents, -1), (joint, trace)

    def learn(self, kept: Any, slopes: Float[Tensor, "n N"]) -> None:
        """See ``Critic``."""
        inputs, trace = kept
        self.net.learn(inputs, trace, self._as_outputs(slopes))

    def own_values(self, joint: Tensor, own: Float[Tensor, "n act N"]) -> tuple[Float[Tensor, "n N"], Any]:
        """See ``Critic``."""
        own = own if self.separate else in_one(own, own.shape[1])
        return self.values(torch.cat([joint[:, : self.observation_size], own], 1))

    def own_slopes(self, kept: Any, slopes: Float[Tensor, "n N"]) -> Float[Tensor, "n act N"]:
        """See ``Critic``."""
        _, trace = kept
        first = self.net.pull_back(trace, self._as_outputs(slopes), learn=False)
        back = products(self.net.layers[0][0][:, :, self.observation_size :].mT, first)
        return back if self.separate else apart(back, self.agents, slopes.shape[1])

    def _as_outputs(self, slopes: Tensor) -> Tensor:
        return slopes.reshape(self.agents if self.separate else 1, 1, -1)


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
