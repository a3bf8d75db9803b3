"""The received block as a five-way tensor: every path is a product of five complex exponentials.

Axes, always in this order: two of the UE's array, two of the base station's, the subcarriers. Along axis m a path has
the steering vector v_m(x)_i = exp(j w_m i x), i = 0..n_m - 1, with the slopes w = (+pi, +pi, -pi, -pi, -2 pi B / (N c))
and the parameters x = (theta_1, theta_2, psi_1, psi_2, delay in metres): direction cosines at the UE, direction cosines
of departure at the base station, c times the delay. Everything below is generic in the axis.

Source: Zhang, Wang, Tay, arXiv 2306.07504, signal model, for half-wavelength arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S

NUM_MODES = 5
UE_MODES, BS_MODES, DELAY_MODE = (0, 1), (2, 3), 4


def mode_slopes(bandwidth_hz: float, num_subcarriers: int) -> tuple[float, ...]:
    """The five slopes w_m: radians per element and unit of the parameter (cosines; metres for the delay).

    Args:
        bandwidth_hz: B > 0; neighbouring subcarriers are B / N apart.
        num_subcarriers: N >= 1.
    """
    delay = -2 * math.pi * bandwidth_hz / (num_subcarriers * SPEED_OF_LIGHT_M_S)
    return (math.pi, math.pi, -math.pi, -math.pi, delay)


def mode_vector(parameter: Float[Tensor, "*batch"], size: int, slope: float) -> Complex[Tensor, "*batch n"]:
    """Steering vectors of one axis, v(x)_i = exp(j w i x).

    Args:
        parameter: x, any shape.
        size: n >= 1 elements along the axis.
        slope: w.
    """
    index = torch.arange(size, device=parameter.device, dtype=parameter.dtype)
    phase = slope * parameter.unsqueeze(-1) * index
    return torch.polar(torch.ones_like(phase), phase)


def steering(
    sizes: Sequence[int], slopes: Sequence[float], parameters: Float[Tensor, "*batch L 5"]
) -> tuple[Complex[Tensor, "*batch L _n"], ...]:
    """Steering vectors of all axes and paths.

    Args:
        sizes: elements along the five axes.
        slopes: see ``mode_slopes``.
        parameters: (theta_1, theta_2, psi_1, psi_2, delay_m) of every path.

    Raises:
        ValueError: not five sizes and slopes.
    """
    _check_five(sizes, slopes)
    return tuple(mode_vector(parameters[..., m], n, w) for m, (n, w) in enumerate(zip(sizes, slopes)))


def derivative(vector: Complex[Tensor, "*batch n"], slope: float) -> Complex[Tensor, "*batch n"]:
    """Derivative of steering vectors by their parameter, v'_i = j w i v_i.

    Args:
        vector: of ``mode_vector``.
        slope: w of its axis.
    """
    index = torch.arange(vector.shape[-1], device=vector.device, dtype=vector.real.dtype)
    return vector * (1j * slope * index)


def steering_derivatives(
    vectors: Sequence[Complex[Tensor, "*batch L _n"]], slopes: Sequence[float]
) -> tuple[Complex[Tensor, "*batch L _n"], ...]:
    """``derivative`` on every axis.

    Args:
        vectors: of ``steering``.
        slopes: see ``mode_slopes``.
    """
    return tuple(derivative(vector, slope) for vector, slope in zip(vectors, slopes))


def synthesise(
    vectors: Sequence[Complex[Tensor, "*batch L _n"]], gains: Complex[Tensor, "*batch L"]
) -> Complex[Tensor, "*batch U1 U2 B1 B2 N"]:
    """Sum over the paths of gain times outer product of the five steering vectors: the deterministic channel.

    H_n = sum_l g_l a_U(theta_l) a_B(psi_l)^H d(tau_l)_n, entry by entry.

    Args:
        vectors: of ``steering``.
        gains: g_l; their precision is the result's.
    """
    vectors = [vector.to(gains.dtype) for vector in vectors]
    u1, u2, b1, b2, n = (vector.shape[-1] for vector in vectors)
    left = _outer(_outer(vectors[0], vectors[1]), _outer(vectors[2], vectors[3])) * gains.unsqueeze(-1)
    return (left.mT @ vectors[4]).reshape(*gains.shape[:-1], u1, u2, b1, b2, n)


def correlate(
    received: Complex[Tensor, "*batch U1 U2 B1 B2 N"], vectors: Sequence[Complex[Tensor, "*batch L _n"]]
) -> Complex[Tensor, "*batch L"]:
    """Matched filter v^H Y of every path: the tensor contracted with the conjugate of its five vectors.

    Args:
        received: Y.
        vectors: any five vectors per path; derivatives too.
    """
    focused = focus_delay(received, vectors[DELAY_MODE])
    bs = _outer(vectors[2], vectors[3]).to(received.dtype).conj()
    ue = _outer(vectors[0], vectors[1]).to(received.dtype).conj()
    return ((focused @ bs.unsqueeze(-1)).squeeze(-1) * ue).sum(dim=-1)


def correlate_derivatives(
    received: Complex[Tensor, "*batch U1 U2 B1 B2 N"],
    vectors: Sequence[Complex[Tensor, "*batch L _n"]],
    slopes: Sequence[float],
) -> tuple[Complex[Tensor, "*batch L"], Complex[Tensor, "*batch L 5"]]:
    """Matched filters with the vectors themselves and with each axis' vector replaced by its derivative.

    The tensor is read once; what follows works on the small parts.

    Args:
        received: Y.
        vectors: of ``steering``.
        slopes: see ``mode_slopes``.
    """
    vectors = [vector.to(received.dtype) for vector in vectors]
    primes = steering_derivatives(vectors, slopes)
    paths = vectors[0].shape[-2]
    focused = focus_delay(received, torch.cat((vectors[4], primes[4]), dim=-2))
    plain, delayed = focused[..., :paths, :, :], focused[..., paths:, :, :]
    # Base station side: the vector itself and its two derivatives, in one product.
    bs = torch.stack(
        (_outer(vectors[2], vectors[3]), _outer(primes[2], vectors[3]), _outer(vectors[2], primes[3])), dim=-1
    ).conj()
    ue = torch.stack(
        (_outer(vectors[0], vectors[1]), _outer(primes[0], vectors[1]), _outer(vectors[0], primes[1])), dim=-2
    ).conj()
    table = ue @ (plain @ bs)
    last = (ue[..., :1, :] @ (delayed @ bs[..., :1]))[..., 0, 0]
    by_axis = (table[..., 1, 0], table[..., 2, 0], table[..., 0, 1], table[..., 0, 2], last)
    return table[..., 0, 0], torch.stack(by_axis, dim=-1)


def focus_delay(
    received: Complex[Tensor, "*batch U1 U2 B1 B2 N"], vector: Complex[Tensor, "*batch L N"]
) -> Complex[Tensor, "*batch L U B"]:
    """The block seen at the delay of every path: Y contracted over the subcarriers, as a UE by base station matrix.

    Args:
        received: Y.
        vector: delay vectors d(tau_l), not conjugated.
    """
    u1, u2, b1, b2, n = received.shape[-5:]
    flat = received.reshape(*received.shape[:-5], u1 * u2 * b1 * b2, n)
    focused = flat @ vector.to(received.dtype).conj().mT
    return focused.mT.reshape(*vector.shape[:-1], u1 * u2, b1 * b2)


def _outer(first: Tensor, second: Tensor) -> Tensor:
    """Kronecker product of vectors, the first index slow."""
    return (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)


def _check_five(sizes: Sequence[int], slopes: Sequence[float]) -> None:
    if len(sizes) != NUM_MODES or len(slopes) != NUM_MODES:
        raise ValueError(
            f"a received block has {NUM_MODES} axes (two of the UE, two of the base station, subcarriers); "
            f"got {len(sizes)} sizes and {len(slopes)} slopes"
        )
