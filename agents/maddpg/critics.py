"""Critics: Q_i of every agent, at the stored joint action and with agent i's own action exchanged.

Vectors come samples first, [N, n, size]; inside the networks batches come last (see ``agents.maddpg.networks``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .networks import BatchedMlp, GameShape
from .products import product, products


class Critic(nn.Module, ABC):
    """The values of all agents.

    Attributes:
        separate: whether every agent has a network of its own.
    """

    separate: bool

    @abstractmethod
    def forward(
        self, observations: Float[Tensor, "N n obs"], actions: Float[Tensor, "N n act"]
    ) -> Float[Tensor, "N n"]:
        """Q_i(o, a) of the joint action."""

    @abstractmethod
    def own_values(
        self,
        observations: Float[Tensor, "N n obs"],
        actions: Float[Tensor, "N n act"],
        own: Float[Tensor, "N n act"],
    ) -> Float[Tensor, "N n"]:
        """Q_i(o, a_1, .., own_i, .., a_n): agent i's action is exchanged, all others stay as they were stored."""


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

    def forward(
        self, observations: Float[Tensor, "N n obs"], actions: Float[Tensor, "N n act"]
    ) -> Float[Tensor, "N n"]:
        """See ``Critic``."""
        return self.net.finish(self._first(observations, actions))[:, 0].mT

    def own_values(
        self,
        observations: Float[Tensor, "N n obs"],
        actions: Float[Tensor, "N n act"],
        own: Float[Tensor, "N n act"],
    ) -> Float[Tensor, "N n"]:
        """See ``Critic``."""
        change = products(self._own_columns(), (own - actions).permute(1, 2, 0))
        return self.net.finish(self._first(observations, actions) + change)[:, 0].mT

    def _first(self, observations: Tensor, actions: Tensor) -> Tensor:
        joint = torch.cat([observations.flatten(1), actions.flatten(1)], 1)
        weight, bias = self.net.layers[0]
        return product(weight.flatten(0, 1), joint.mT).unflatten(0, weight.shape[:2]) + bias

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
        self.agents = shape.agents
        pair = shape.observation_size + shape.action_size
        width, *rest = hidden or (pair,)
        self.separate = share == "separate"
        heads = shape.agents if self.separate else 1
        self.embedding = BatchedMlp(1, (pair, width), generator, dtype=dtype)
        self.head = BatchedMlp(heads, (2 * width, *rest, 1), generator, dtype=dtype)

    def forward(
        self, observations: Float[Tensor, "N n obs"], actions: Float[Tensor, "N n act"]
    ) -> Float[Tensor, "N n"]:
        """See ``Critic``."""
        return self._head(self._first(self._embed(observations, actions)))

    def own_values(
        self,
        observations: Float[Tensor, "N n obs"],
        actions: Float[Tensor, "N n act"],
        own: Float[Tensor, "N n act"],
    ) -> Float[Tensor, "N n"]:
        """See ``Critic``. Agent i is one of the n in its mean, so its own embedding reaches Q_i by both ways."""
        stored, exchanged = self._embed(observations, actions), self._embed(observations, own)
        listen, hear = self._mixing()
        change = products(listen + hear / self.agents, self._of_heads(exchanged - stored))
        return self._head(self._first(stored) + change)

    def _mixing(self) -> list[Tensor]:
        """V and P."""
        return list(self.head.layers[0][0].chunk(2, dim=2))

    def _embed(self, observations: Tensor, actions: Tensor) -> Float[Tensor, "1 width columns"]:
        """One column per agent and sample, agent after agent."""
        weight, bias = self.embedding.layers[0]
        return products(weight, _columns(observations, actions).flatten(0, 1).mT[None], bias, relu=True)

    def _first(self, embedded: Tensor) -> Float[Tensor, "heads hidden columns"]:
        """V e_i + P mean_j e_j + b; the mean's product is taken once per sample, not once per agent."""
        listen, hear = self._mixing()
        mean = embedded[0].unflatten(1, (self.agents, -1)).mean(1)
        common = product(hear.flatten(0, 1), mean).unflatten(0, hear.shape[:2]) + self.head.layers[0][1]
        sums = products(listen, self._of_heads(embedded))
        if self.separate:
            return sums + common
        return (sums.unflatten(2, (self.agents, -1)) + common[:, :, None]).flatten(2)

    def _of_heads(self, embedded: Tensor) -> Tensor:
        """[1, width, n N] as the columns of the heads, a view."""
        return embedded[0].unflatten(1, (self.agents, -1)).transpose(0, 1) if self.separate else embedded

    def _head(self, sums: Tensor) -> Float[Tensor, "N n"]:
        return self.head.finish(sums).view(self.agents, -1).mT


class OwnCritic(Critic):
    """Q(o_i, a_i): sees nothing of the other agents; one network per agent for separate actors, one otherwise."""

    def __init__(
        self, shape: GameShape, share: str, hidden: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.agents, self.separate = shape.agents, share == "separate"
        heads = shape.agents if self.separate else 1
        sizes = (shape.observation_size + shape.action_size, *hidden, 1)
        self.net = BatchedMlp(heads, sizes, generator, dtype=dtype)

    def forward(
        self, observations: Float[Tensor, "N n obs"], actions: Float[Tensor, "N n act"]
    ) -> Float[Tensor, "N n"]:
        """See ``Critic``."""
        pairs = _columns(observations, actions)
        inputs = pairs.mT if self.separate else pairs.flatten(0, 1).mT[None]
        return self.net(inputs).view(self.agents, -1).mT

    def own_values(
        self,
        observations: Float[Tensor, "N n obs"],
        actions: Float[Tensor, "N n act"],
        own: Float[Tensor, "N n act"],
    ) -> Float[Tensor, "N n"]:
        """See ``Critic``."""
        return self(observations, own)


def _columns(observations: Tensor, actions: Tensor) -> Float[Tensor, "n N pair"]:
    """What an agent saw and did, agent after agent."""
    return torch.cat([observations.transpose(0, 1), actions.transpose(0, 1)], 2)


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
