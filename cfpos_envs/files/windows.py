"""Which of the links that come one by one belong to one epoch."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from cfpos_envs.checks import number


def gathered(
    time_s: Float[np.ndarray, " L"],
    ap: Int[np.ndarray, " L"],
    window_s: float,
    user: Shaped[np.ndarray, " L"] | None = None,
) -> Int[np.ndarray, " L"]:
    """The epoch of every link, numbered from 0 by their first link's time.

    A user's epoch begins with a link and takes that user's later ones until ``window_s`` has passed or an AP answers
    again: anchors that are asked in turn give one epoch per turn, wherever the windows of a clock would have cut.

    Args:
        time_s: of the links, in any order.
        ap: which AP each belongs to.
        window_s: longest time from the first to the last link of an epoch, > 0.
        user: whose links they are; None: one user's.

    Raises:
        ValueError: a window that is not positive, or times that are not finite.
    """
    number("window_s", window_s, 0.0, above=True)
    if not np.isfinite(time_s).all():
        raise ValueError(f"time_s has {int((~np.isfinite(time_s)).sum())} entries that are not finite")
    owners = [0] * len(time_s) if user is None else user.tolist()
    epoch = np.empty(len(time_s), dtype=np.int64)
    begun: dict[object, tuple[int, float, set[int]]] = {}
    count = 0
    for link in np.argsort(time_s, kind="stable").tolist():
        when, which, owner = float(time_s[link]), int(ap[link]), owners[link]
        index, start, heard = begun.get(owner, (-1, -np.inf, set()))
        if when - start > window_s or which in heard:
            index, start, heard = count, when, set()
            count += 1
            begun[owner] = index, start, heard
        heard.add(which)
        epoch[link] = index
    return epoch
