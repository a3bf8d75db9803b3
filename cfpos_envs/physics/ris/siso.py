"""The single-antenna link that the array's gain is measured against: one surface, profiles in pairs +phi_t, -phi_t.

    y_{t,s,n} = g_0 d(tau_0)_n + s g_1 (v^H phi_t) d(tau_1)_n + fading + noise,      s = +1, -1

with g_1 before the surface's array gain: half the sum of a pair holds the line of sight, half the difference the path
over the surface.

Source: a benchmark of Zhang, Wang, Tay, arXiv 2306.07504, with one antenna at either end; pairs of profiles are ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.ris.channel import complex_normal
from cfpos_envs.physics.ris.modes import mode_vector
from cfpos_envs.physics.ris.phases import array_gain


def draw_siso_samples(
    generator: draws.Source,
    phases: Complex[Tensor, "T NR"],
    shape: tuple[int, int],
    outgoing: Float[Tensor, "*batch 2"],
    incoming: Float[Tensor, "*batch 2"],
    delay_m: Float[Tensor, "*batch 2"],
    gains: Complex[Tensor, "*batch 2"],
    fading_variance: Float[Tensor, "*batch 2"],
    noise_variance: float,
    num_subcarriers: int,
    delay_slope: float,
) -> Complex[Tensor, "*batch T 2 N"]:
    """Received samples, divided by the amplitude of the pilot.

    Args:
        generator: draws fading and noise.
        phases: profiles phi_t, one per pair of slots.
        shape: elements along the surface's axes.
        outgoing, incoming: cosines at the surface.
        delay_m: c tau of the line of sight and of the path over the surface.
        gains: their gains, the surface's before its array gain.
        fading_variance: of the line of sight per subcarrier; over the surface per element and subcarrier. Neither
            changes over the slots, but the latter is seen through every profile.
        noise_variance: sigma^2 / P per sample.
        num_subcarriers: N.
        delay_slope: radians per metre and subcarrier, the last of ``modes.mode_slopes``.
    """
    batch, pairs, elements = outgoing.shape[:-1], *phases.shape
    delays = mode_vector(delay_m, num_subcarriers, delay_slope)
    scattered = complex_normal(generator, *batch, num_subcarriers) * fading_variance[..., :1].sqrt()
    direct = delays[..., 0, :] * gains[..., :1] + scattered
    seen_gain = array_gain(phases, outgoing.unsqueeze(-2), incoming.unsqueeze(-2), shape)
    reflected = (seen_gain * gains[..., 1:]).unsqueeze(-1)
    reflected = reflected * delays[..., 1:, :]
    per_element = complex_normal(generator, *batch, elements, num_subcarriers)
    seen = phases.to(per_element.dtype) @ per_element
    reflected = reflected + seen * fading_variance[..., 1:, None].sqrt()
    pair = direct[..., None, None, :] + torch.stack((reflected, -reflected), dim=-2)
    noise = complex_normal(generator, *batch, pairs, 2, num_subcarriers)
    return pair.to(noise.dtype) + noise_variance**0.5 * noise
