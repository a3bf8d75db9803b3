"""MADDPG's updates by the compiled kernel of native/learner.cpp, for networks whose weights stay in the cache.

The mathematics is that of ``agents.critics`` and ``agents.learner``. Tensor operations pass whole batches from layer to
layer through memory; the kernel takes as many samples as the cache holds through all layers and back.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.compiled_products import kernels
from agents.critics import ConcatenatedCritic, Critic, OwnCritic, PermutationInvariantCritic
from agents.networks import Actor, BatchedMlp
from agents.replay import Batch

_KINDS: dict[type[Critic], int] = {ConcatenatedCritic: 0, PermutationInvariantCritic: 1, OwnCritic: 2}
# Bytes of all agents' first layers that see the joint vector: larger ones are one large product, for a BLAS.
_MOST_JOINT = 1 << 20
# Vectors that go through the layers together: few enough that their activations stay in the cache.
_ROWS = 256
# Samples where every agent has weights of its own, which are read anew for every tile.
_SAMPLES = 48


class _Mlp(ctypes.Structure):
    """``Mlp`` of native/critics.hpp."""

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
        *(
            (name, ctypes.c_int64)
            for name in ("kind", "samples", "agents", "observation", "action", "critics", "tile")
        ),
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


class Settings(NamedTuple):
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


def pays(networks: Networks, batch: Batch) -> bool:
    """Whether the kernel can do updates of these networks with this batch, and is faster than tensor operations."""
    critic = networks.critics[0]
    tensors = (batch.observations, batch.actions, batch.rewards, batch.next_observations, *networks.actor.parameters())
    return (
        kernels() is not None
        and all(x is None or (x.dtype is torch.float32 and x.device.type == "cpu") for x in tensors)
        and networks.actor.inputs == batch.observations.shape[2]
        and not (isinstance(critic, ConcatenatedCritic) and critic.net.layers[0][0].nbytes > _MOST_JOINT)
    )


def update_critics(
    networks: Networks, batch: Batch, settings: Settings, noise: Float[Tensor, "n act N"] | None
) -> tuple[Float[Tensor, " critics"], Float[Tensor, " critics"]]:
    """Set the critics' gradients of the weighted squared errors.

    Args:
        networks, batch, settings: see there.
        noise: added to the target policy's actions, which are then limited to [-1, 1].

    Returns:
        Sums of squared errors and of values over samples and agents.
    """
    sums = _run("cfpos_update_critics", networks, batch, settings, noise, networks.critics)
    return sums[: len(networks.critics)], sums[len(networks.critics) : 2 * len(networks.critics)]


def update_actor(networks: Networks, batch: Batch, settings: Settings) -> Float[Tensor, "3"]:
    """Set the actor's gradients of minus the first critic's weighted values plus the penalty.

    Returns:
        Sums over samples and agents: squared outputs before tanh, values, outputs that are saturated.
    """
    return _run("cfpos_update_actor", networks, batch, settings, None, [networks.actor])[:3]


def _run(
    name: str,
    networks: Networks,
    batch: Batch,
    settings: Settings,
    noise: Tensor | None,
    learning: list[Critic] | list[Actor],
) -> Tensor:
    library = kernels()
    assert library is not None
    for module in learning:
        _set_zero_gradients(module)
    held: list[object] = []  # what the kernel reads stays alive until it has ended
    samples, agents, observation = batch.observations.shape
    separate = networks.actor.separate or networks.critics[0].separate
    sums = torch.zeros(max(2 * len(networks.critics), 3), dtype=torch.float64)
    noise = None if noise is None else noise.contiguous()
    update = _Update(
        _KINDS[type(networks.critics[0])],
        samples,
        agents,
        observation,
        batch.actions.shape[2],
        len(networks.critics),
        _SAMPLES if separate else max(_ROWS // agents, 1),
        _vectors(batch.observations, held),
        _vectors(batch.actions, held),
        _vectors(batch.rewards[:, :, None], held),
        _vectors(batch.next_observations, held),
        _vectors(batch.terminated[:, :, None], held),
        None if noise is None else noise.data_ptr(),
        *settings,
        _mlp(networks.actor.net, held),
        _Mlp() if networks.target_actor is None else _mlp(networks.target_actor.net, held),
        _critics(networks.critics, held),
        _critics(networks.target_critics, held),
        sums.data_ptr(),
    )
    getattr(library, name)(ctypes.byref(update), torch.get_num_threads())
    return sums


def _set_zero_gradients(module: nn.Module) -> None:
    parameters = list(module.parameters())
    zeros = torch.zeros(sum(parameter.numel() for parameter in parameters))
    parts = zeros.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view(parameter.shape)


def _vectors(vectors: Tensor | None, held: list[object]) -> _Vectors:
    """[N, n, size], the vectors themselves dense."""
    if vectors is None:
        return _Vectors()
    if vectors.stride(2) != 1:
        vectors = vectors.contiguous()
    held.append(vectors)
    return _Vectors(vectors.data_ptr(), vectors.stride(0), vectors.stride(1))


def _mlp(net: BatchedMlp, held: list[object]) -> _Mlp:
    parameters = [parameter for layer in net.layers for parameter in layer]
    gradients = [parameter.grad for parameter in parameters]
    sizes = [net.layers[0][0].shape[2], *(weight.shape[1] for weight, _ in net.layers)]
    pointers = ctypes.c_void_p * len(parameters)
    arrays = (
        (ctypes.c_int64 * len(sizes))(*sizes),
        pointers(*(parameter.data_ptr() for parameter in parameters)),
        pointers(*(None if gradient is None else gradient.data_ptr() for gradient in gradients)),
    )
    held.append((arrays, gradients))
    return _Mlp(len(net.layers[0][0]), len(net.layers), *(ctypes.addressof(array) for array in arrays))


def _critics(critics: list[Critic], held: list[object]) -> int | None:
    if not critics:
        return None
    nets = (_CriticNets * len(critics))()
    for place, critic in zip(nets, critics, strict=True):
        if isinstance(critic, PermutationInvariantCritic):
            place.embedding, place.net = _mlp(critic.embedding, held), _mlp(critic.head, held)
        else:
            assert isinstance(critic, ConcatenatedCritic | OwnCritic)
            place.net = _mlp(critic.net, held)
    held.append(nets)
    return ctypes.addressof(nets)
