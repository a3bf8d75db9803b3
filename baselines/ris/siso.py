"""Benchmark: one antenna at either end and one surface, whose profiles identify the direction in which it sends.

Half the sum of a pair of slots holds the line of sight, half the difference z_{t,n} the path over the surface. With
m_t(psi) = v(psi)^H phi_t, v = a(psi) * conj(a(omega)), the latter's delay and outgoing cosines maximise

    |sum_{t,n} conj(m_t(psi)) z_{t,n} d(tau)_n^*|^2 / sum_t |m_t(psi)|^2

and one equation is left for the distance: the clock is the line of sight's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.measurements.base import Rows
from cfpos_envs.physics.ris.geometry import ris_cosines
from cfpos_envs.physics.ris.modes import mode_vector
from cfpos_envs.physics.ris.phases import element_response

from .departure import climb_ratio
from .harmonics import circle, circle_power, climb_from, diagonal_sums, from_circle, wrapped_cosine
from .pairs import PairGeometry

# Elements of a surface are half a wavelength apart: slope of their response in the cosine.
_SLOPE = torch.pi
_ROUNDS = 4
_FLOOR = 1e-9


@dataclass(frozen=True)
class SisoFixes(Rows):
    """What the single-antenna link measures.

    Attributes:
        position_m, bias_m: p and b, the latter nearest to zero modulo the window.
        valid: finite, and the geometry has a solution in front of the surface.
    """

    position_m: Float[Tensor, "T 3"]
    bias_m: Float[Tensor, " T"]
    valid: Bool[Tensor, " T"]


def line_of_sight_delay_m(direct: Complex[Tensor, "T N"], slope: float) -> Float[Tensor, " T"]:
    """Delay of the strongest path: 8 N points of the window, then Newton.

    Args:
        direct: half-sums, averaged over the pairs.
        slope: radians per metre and subcarrier.
    """
    power = circle_power(direct.unsqueeze(-1), slope, 8 * direct.shape[-1])
    grid = circle(slope, power.shape[-1], power)
    start = grid[power.argmax(dim=-1, keepdim=True)]
    found = climb_from(from_circle(power, slope, direct.shape[-1]), slope, start, float(grid[1]))
    return found.squeeze(-1)


def surface_path(
    reflected: Complex[Tensor, "T P N"],
    seen: Complex[Tensor, "T P NR"],
    shape: tuple[int, int],
    slope: float,
) -> tuple[Float[Tensor, "T 2"], Float[Tensor, " T"]]:
    """Outgoing cosines and delay of the path over the surface.

    Args:
        reflected: half-differences z of P pairs.
        seen: profiles as the path meets them, a(omega) * phi_t.
        shape: elements along the surface's axes.
        slope: radians per metre and subcarrier.
    """
    n = reflected.shape[-1]
    grids = [wrapped_cosine(circle(_SLOPE, 2 * size, reflected.real)) for size in shape]
    delays = circle(slope, 2 * n, reflected.real)
    first, second = torch.meshgrid(*grids, indexing="ij")
    inside = (first.square() + second.square() <= 1.0).flatten()
    places = torch.stack((first.flatten()[inside], second.flatten()[inside]), dim=-1)
    beams = element_response(places, shape).conj()  # [C, NR]
    over_delay = reflected @ mode_vector(delays, n, slope).conj().mT  # [T, P, D]
    response = beams @ seen.mT  # [T, C, P]
    matched = (response.conj() @ over_delay).abs().square()
    ratio = matched / response.abs().square().sum(dim=-1, keepdim=True).clamp(min=_FLOOR)
    best = ratio.flatten(-2).argmax(dim=-1)
    found = list(places[best // len(delays)].unbind(dim=-1))
    delay = delays[best % len(delays)]
    steps = [2.0 / (2 * size) for size in shape]
    for _ in range(_ROUNDS):
        delay = _refined_delay(reflected, seen, shape, slope, found, delay, float(delays[1]))
        focused = (reflected @ mode_vector(delay, n, slope).conj().unsqueeze(-1)).squeeze(-1)
        for axis in range(2):
            found[axis] = _refined_cosine(focused, seen, shape, found, axis, steps[axis])
    return torch.stack(found, dim=-1), delay


def fix_position(
    links: PairGeometry,
    cosines: Float[Tensor, "T 2"],
    delays_m: Float[Tensor, "T 2"],
    window_m: float,
) -> SisoFixes:
    """Where the ray from the surface meets the difference of the two path lengths.

    With q relative to the base station, k the ray's direction and Delta = delay_1 - delay_0 - |q| = r - |q + r k|:
    r = (Delta^2 - |q|^2) / (2 (q.k + Delta)).

    Args:
        links: where everything is; the first surface counts. The ray leaves it on the base station's side.
        cosines: outgoing, to the x and z axes.
        delays_m: of the line of sight and of the path over the surface, modulo the window.
        window_m: c N / B.
    """
    q = links.ris_m[:, 0] - links.bs_m
    hop = torch.linalg.vector_norm(q, dim=-1)
    across = torch.sqrt((1.0 - cosines.square().sum(dim=-1)).clamp(min=0.0))
    k = torch.stack((cosines[:, 0], -torch.sign(q[:, 1]) * across, cosines[:, 1]), dim=-1)
    # The path over the surface is the longer one.
    longer = torch.remainder(delays_m[:, 1] - delays_m[:, 0], window_m)
    difference = longer - hop
    r = (difference.square() - hop.square()) / (2.0 * ((q * k).sum(dim=-1) + difference))
    position = links.ris_m[:, 0] + r.unsqueeze(-1) * k
    bias = delays_m[:, 0] - torch.linalg.vector_norm(position - links.bs_m, dim=-1)
    bias = torch.remainder(bias + window_m / 2, window_m) - window_m / 2
    valid = torch.isfinite(position).all(dim=-1) & (r > 0)
    return SisoFixes(position, bias, valid)


def locate_siso(
    links: PairGeometry,
    phases: Complex[Tensor, "T P NR"],
    received: Complex[Tensor, "T P 2 N"],
    shape: tuple[int, int],
    slope: float,
    window_m: float,
) -> SisoFixes:
    """The whole way from samples to positions. Trials with NaN or nothing but zeros are not ``valid``.

    Args:
        links: where everything is.
        phases: profiles phi_t of the first surface.
        received: samples by pair, sign and subcarrier.
        shape: elements along the surface's axes.
        slope: radians per metre and subcarrier.
        window_m: c N / B.
    """
    if not len(received):  # transforms of nothing are refused
        return SisoFixes(links.bs_m, links.bs_m[:, 0], torch.zeros(0, dtype=torch.bool, device=received.device))
    samples = received.to(torch.complex128)
    size = samples.abs().amax(dim=(1, 2, 3))
    usable = torch.isfinite(size) & (size > 0)
    samples = torch.where(usable[:, None, None, None], samples / size[:, None, None, None], 1.0)
    direct = samples.mean(dim=(1, 2))
    reflected = (samples[:, :, 0] - samples[:, :, 1]) / 2
    # Any place will do: the incoming cosines do not depend on the UE.
    incoming, _ = ris_cosines(links.bs_m + 1.0, links.bs_m, links.ris_m[:, :1])
    seen = phases.to(torch.complex128) * element_response(incoming, shape)
    cosines, late = surface_path(reflected, seen, shape, slope)
    early = line_of_sight_delay_m(direct, slope)
    found = fix_position(links, cosines, torch.stack((early, late), dim=-1), window_m)
    return SisoFixes(found.position_m, found.bias_m, found.valid & usable)


def _refined_delay(
    reflected: Tensor,
    seen: Tensor,
    shape: tuple[int, int],
    slope: float,
    cosines: list[Tensor],
    delay: Tensor,
    step: float,
) -> Tensor:
    response = (seen @ element_response(torch.stack(cosines, dim=-1), shape).conj().unsqueeze(-1)).squeeze(-1)
    line = (reflected.mT @ response.conj().unsqueeze(-1)).squeeze(-1)
    power = circle_power(line.unsqueeze(-1), slope, 2 * line.shape[-1])
    coefficients = from_circle(power, slope, line.shape[-1])
    return climb_from(coefficients, slope, delay.unsqueeze(-1), step).squeeze(-1)


def _refined_cosine(
    focused: Tensor, seen: Tensor, shape: tuple[int, int], cosines: list[Tensor], axis: int, step: float
) -> Tensor:
    """Maximum of |sum_t conj(m_t) y_t|^2 / sum_t |m_t|^2 along one axis; both are trigonometric polynomials of it."""
    held = mode_vector(cosines[1 - axis], shape[1 - axis], _SLOPE).conj().unsqueeze(-1)
    tables = seen.unflatten(-1, shape)
    tables = tables if axis == 0 else tables.mT
    profiles = (tables @ held.unsqueeze(1)).squeeze(-1)  # m_t(x) = v(x)^H profiles_t, [T, P, n]
    line = (profiles * focused.conj().unsqueeze(-1)).sum(dim=-2)
    top = diagonal_sums(line.unsqueeze(-1) * line.conj().unsqueeze(-2))
    below = diagonal_sums(profiles.mT @ profiles.conj())
    return climb_ratio(top, below, _SLOPE, _FLOOR, cosines[axis], step)
