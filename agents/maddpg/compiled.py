"""MADDPG's updates by the compiled kernel of native/learner.cpp.

The gradients are those of ``agents.maddpg.losses`` with the networks of ``agents.maddpg.critics``. Tensor operations
pass whole batches from layer to layer through memory; the kernel takes as many samples as the cache holds through all
layers
and back.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfpos_envs.native import border

from .compiled_products import kernels
from .critics import ConcatenatedCritic, Critic, OwnCritic, PermutationInvariantCritic
from .networks import Actor, BatchedMlp
from .replay import Batch

_KINDS: dict[type[Critic], int] = {ConcatenatedCritic: 0, PermutationInvariantCritic: 1, OwnCritic: 2}
# Bytes of all agents' first layers that see the joint vector: larger ones are one large product, for a BLAS.
_MOST_JOINT = 3 << 19
# Vectors that go through the layers together: few enough that their activations stay in the cache.
_ROWS = 256
# Samples where every agent has weights of its own, which are read anew for every tile: few while the activations of all
# agents (agents times width numbers per sample) stay in the cache for it, more where they do not.
_SAMPLES, _NUMBERS, _SAMPLES_OF_MANY = 32, 4096, 128


class _Mlp(ctypes.Structure):
    """``Mlp`` of native/perceptrons.hpp."""

    _fields_ = [
        ("count", ctypes.c_int64),
        ("layers", ctypes.c_int64),
        ("sizes", ctypes.c_void_p),
        ("parameters", ctypes.c_void_p),
        ("gradients", ctypes.c_void_p),
    ]


class _CriticNets(ctypes.Structure):
    """``CriticNets`` of native/learner.cpp."""

    _fields_ = [("embedding", _Mlp), ("net", _Mlp)]


class _Vectors(ctypes.Structure):
    """``Vectors`` of native/learner.cpp."""

    _fields_ = [("numbers", ctypes.c_void_p), ("each_sample", ctypes.c_int64), ("each_agent", ctypes.c_int64)]


class _Update(ctypes.Structure):
    """``Update`` of native/learner.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kind", "samples", "agents", "observation", "action", "critics", "tile")),
        *((name, _Vectors) for name in ("observations", "actions", "rewards", "next_observations", "terminated")),
        ("noise", ctypes.c_void_p),
        *((name, ctypes.c_float) for name in ("gamma", "weight", "penalty", "saturated")),
        ("actor", _Mlp),
        ("target_actor", _Mlp),
        ("online", ctypes.c_void_p),
        ("targets", ctypes.c_void_p),
        ("sums", ctypes.c_void_p),
    ]


class Networks(NamedTuple):
    """Those of a learner; without discounting there are no targets."""

    actor: Actor
    critics: list[Critic]
    target_actor: Actor | None
    target_critics: list[Critic]


class KernelSettings(NamedTuple):
    """What the kernel needs to know beside batch and networks.

    Attributes:
        gamma: discount.
        weight: of one agent's value of one sample in a loss.
        penalty: weight of the squared outputs before tanh.
        saturated: an output beyond this is called so.
    """

    gamma: float
    weight: float
    penalty: float
    saturated: float


class CompiledUpdates:
    """The gradients of a learner's networks by the compiled kernel.

    Args:
        networks: those that learn; they may be moved or loaded, but not exchanged.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks = networks
        self._parameters = [
            parameter
            for module in (networks.actor, *networks.critics, networks.target_actor, *networks.target_critics)
            if module is not None
            for parameter in module.parameters()
        ]
        self._prepared: _Prepared | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_prepared": None}  # addresses are worth nothing in a copy

    def serves(self, batch: Batch) -> bool:
        """Whether the kernel can do updates of these networks with this batch, and is faster than tensor operations."""
        critic = self.networks.critics[0]
        tensors = (batch.observations, batch.actions, batch.rewards, batch.next_observations, self._parameters[0])
        return (
            kernels() is not None
            and batch.acted is None
            and all(x is None or (x.dtype is torch.float32 and x.is_cpu) for x in tensors)
            and self.networks.actor.inputs == batch.observations.shape[2]
            and not (isinstance(critic, ConcatenatedCritic) and critic.net.layers[0][0].nbytes > _MOST_JOINT)
        )

    def critics(
        self, batch: Batch, settings: KernelSettings, noise: Float[Tensor, "n act N"] | None
    ) -> tuple[Float[Tensor, " critics"], Float[Tensor, " critics"]]:
        """Set the critics' gradients of the weighted squared errors.

        Args:
            batch, settings: see there.
            noise: added to the target policy's actions, which are then limited to [-1, 1].

        Returns:
            Sums of squared errors and of values over samples and agents.
        """
        sums = self._run("cfpos_update_critics", batch, settings, noise)
        count = len(self.networks.critics)
        return sums[:count], sums[count : 2 * count]

    def actor(self, batch: Batch, settings: KernelSettings) -> Float[Tensor, "3"]:
        """Set the actor's gradients of minus the first critic's weighted values plus the penalty.

        Returns:
            Sums over samples and agents: squared outputs before tanh, values, outputs that are saturated.
        """
        return self._run("cfpos_update_actor", batch, settings, None)[:3]

    def _check(self, batch: Batch, noise: Tensor | None) -> None:
        """ValueError for what the kernel would read past its end, or as numbers that it is not."""
        samples, agents, observation = batch.observations.shape
        action = batch.actions.shape[2]
        border.check(batch.observations, "observations", (samples, agents, self.networks.actor.inputs))
        border.check(batch.actions, "actions", (samples, agents, action))
        border.check(batch.rewards, "rewards", (samples, agents))
        border.check(batch.terminated, "terminated", (samples, agents), torch.bool)
        if batch.next_observations is not None:
            border.check(batch.next_observations, "next_observations", (samples, agents, observation))
        if noise is not None:
            border.check(noise, "noise", (agents, action, samples))

    def _tile(self, agents: int) -> int:
        """Samples that go through the layers together."""
        if self.networks.actor.separate or self.networks.critics[0].separate:
            width = self.networks.actor.net.layers[0][0].shape[1]
            return _SAMPLES if agents * width <= _NUMBERS else _SAMPLES_OF_MANY
        return max(_ROWS // agents, 1)

    def _run(self, name: str, batch: Batch, settings: KernelSettings, noise: Tensor | None) -> Tensor:
        places = [parameter.data_ptr() for parameter in self._parameters]
        if self._prepared is None or self._prepared.places != places:
            self._prepared = _Prepared(self.networks, places)
        prepared = self._prepared
        prepared.gradients[name].begin()
        library = kernels()
        assert library is not None
        self._check(batch, noise)
        held: list[Tensor] = []  # what the kernel reads stays alive until it has ended
        samples, agents, observation = batch.observations.shape
        sums = torch.zeros(max(2 * len(self.networks.critics), 3), dtype=torch.float64)
        noise = None if noise is None else noise.contiguous()
        update = _Update(
            _KINDS[type(self.networks.critics[0])],
            samples,
            agents,
            observation,
            batch.actions.shape[2],
            len(self.networks.critics),
            self._tile(agents),
            _vectors(batch.observations, held),
            _vectors(batch.actions, held),
            _vectors(batch.rewards[:, :, None], held),
            _vectors(batch.next_observations, held),
            _vectors(batch.terminated[:, :, None], held),
            None if noise is None else noise.data_ptr(),
            *settings,
            prepared.actor,
            prepared.target_actor,
            prepared.critics,
            prepared.target_critics,
            sums.data_ptr(),
        )
        getattr(library, name)(ctypes.byref(update), torch.get_num_threads())
        return sums


class _Gradients:
    """Those of some modules, side by side in one tensor.

    Args:
        modules: whose parameters they are of.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.parameters = [parameter for module in modules for parameter in module.parameters()]
        sizes = [parameter.numel() for parameter in self.parameters]
        self.numbers = torch.zeros(sum(sizes))
        parts = self.numbers.split(sizes)
        self.views = [part.view(own.shape) for part, own in zip(parts, self.parameters, strict=True)]
        self.places = {id(own): view.data_ptr() for own, view in zip(self.parameters, self.views, strict=True)}

    def begin(self) -> None:
        """Hand them, all 0, to the parameters."""
        self.numbers.zero_()
        for parameter, view in zip(self.parameters, self.views, strict=True):
            parameter.grad = view


class _Prepared:
    """Networks as the kernel reads them.

    Args:
        networks: of a learner.
        places: where their parameters lie now.
    """

    def __init__(self, networks: Networks, places: list[int]) -> None:
        self.places = places
        of_actor, of_critics = _Gradients([networks.actor]), _Gradients(networks.critics)
        self.gradients = {"cfpos_update_actor": of_actor, "cfpos_update_critics": of_critics}
        self._held: list[object] = []
        self.actor = self._mlp(networks.actor.net, of_actor.places)
        self.target_actor = _Mlp() if networks.target_actor is None else self._mlp(networks.target_actor.net, {})
        self.critics = self._critics(networks.critics, of_critics.places)
        self.target_critics = self._critics(networks.target_critics, {})

    def _mlp(self, net: BatchedMlp, gradients: dict[int, int]) -> _Mlp:
        parameters = [parameter for layer in net.layers for parameter in layer]
        sizes = [net.layers[0][0].shape[2], *(weight.shape[1] for weight, _ in net.layers)]
        pointers = ctypes.c_void_p * len(parameters)
        arrays = (
            (ctypes.c_int64 * len(sizes))(*sizes),
            pointers(*(parameter.data_ptr() for parameter in parameters)),
            pointers(*(gradients.get(id(parameter)) for parameter in parameters)),
        )
        self._held.append(arrays)
        return _Mlp(len(net.layers[0][0]), len(net.layers), *(ctypes.addressof(array) for array in arrays))

    def _critics(self, critics: list[Critic], gradients: dict[int, int]) -> int | None:
        if not critics:
            return None
        nets = (_CriticNets * len(critics))()
        for place, critic in zip(nets, critics, strict=True):
            if isinstance(critic, PermutationInvariantCritic):
                place.embedding, place.net = self._mlp(critic.embedding, gradients), self._mlp(critic.head, gradients)
            else:
                assert isinstance(critic, ConcatenatedCritic | OwnCritic)
                place.net = self._mlp(critic.net, gradients)
        self._held.append(nets)
        return ctypes.addressof(nets)


def _vectors(vectors: Tensor | None, held: list[Tensor]) -> _Vectors:
    """[N, n, size], the vectors themselves dense."""
    if vectors is None:
        return _Vectors()
    if vectors.stride(2) != 1:
        vectors = vectors.contiguous()
    held.append(vectors)
    return _Vectors(vectors.data_ptr(), vectors.stride(0), vectors.stride(1))
