"""Delays on a circle: they are known modulo the window c N / B."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def unwrapped(
    delays_m: Float[Tensor, "*batch L"], present: Bool[Tensor, "*batch L"], window_m: float
) -> Float[Tensor, "*batch L"]:
    """Delays counted from behind their largest circular gap, so that differences between paths are right.

    Args:
        delays_m: in any window, metres.
        present: the others are ignored and left where they are, in [0, window).
        window_m: c N / B.

    Returns:
        Delays in [0, 2 window): those below the start of the longest arc without delays gain one window.
    """
    delays = torch.remainder(delays_m, window_m)
    # A tiny negative delay is rounded up to the window itself.
    delays = torch.where(delays < window_m, delays, 0.0)
    # An absent delay stands in the place of the first present one: it opens no gap.
    first = delays.gather(-1, present.int().argmax(dim=-1, keepdim=True))
    ordered = torch.where(present, delays, first).sort(dim=-1).values
    following = torch.cat((ordered[..., 1:], ordered[..., :1] + window_m), dim=-1)
    widest = (following - ordered).argmax(dim=-1, keepdim=True)
    start = torch.remainder(following.gather(-1, widest), window_m)
    # The start is one of the delays but for rounding, which must not send it round the circle.
    return delays + window_m * (present & (delays < start - 1e-9 * window_m))
