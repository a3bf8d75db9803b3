"""Closed forms for paths over surfaces that the tests compare with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def isolated_variances(
    sizes: Sequence[int],
    slopes: Sequence[float],
    gains: Complex[Tensor, "*batch L"],
    noise_variance: Float[Tensor, "*#batch"] | float,
) -> Float[Tensor, "*batch L 5"]:
    """Bound of every parameter if its path were alone: 6 sigma_e^2 / (|g|^2 prod(n) w_m^2 (n_m^2 - 1)).

    Args:
        sizes, slopes: of the axes; every size at least 2.
        gains: g_l.
        noise_variance: sigma_e^2.
    """
    power = gains.abs().square().unsqueeze(-1)
    n, w = (torch.tensor(values, dtype=power.dtype, device=power.device) for values in (sizes, slopes))
    noise = torch.as_tensor(noise_variance, dtype=power.dtype, device=power.device)[..., None, None]
    return 6.0 * noise / (power * n.prod() * w.square() * (n.square() - 1))
