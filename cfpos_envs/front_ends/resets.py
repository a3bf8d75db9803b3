"""What a caller asks of a reset, checked: which episodes begin anew, and from which seeds."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from torch import Tensor

from cfpos_envs.checks import SEEDS, shown, unknown_name

RESET_MASK = "reset_mask"
"""Name of the option of ``reset`` that says which episodes begin anew, as Gymnasium's vector environments have it."""

Seed = int | Sequence[int | None] | np.ndarray | None
"""What ``reset`` takes as seed: of the batch, of every episode, or none."""
Options = Mapping[str, Any] | None
"""What ``reset`` takes as options."""


def reset_mask(options: Options, num_envs: int) -> np.ndarray | None:
    """The episodes that begin anew, bool [B]; None for all.

    Args:
        options: of ``reset``; ``reset_mask`` in it is a boolean array or tensor [B].
        num_envs: B.

    Raises:
        ValueError: an option of another name, a mask of another shape or type, or one that resets nothing.
    """
    if not options:
        return None
    given = dict(options)
    for name in given.keys() - {RESET_MASK}:
        raise ValueError(unknown_name("reset option", name, (RESET_MASK,)))
    mask = given.get(RESET_MASK)
    if mask is None:
        return None
    wanted = f"it must be a boolean numpy array or tensor of shape ({num_envs},), true where an episode begins anew"
    if not isinstance(mask, (np.ndarray, Tensor)):
        raise ValueError(f"{RESET_MASK} is {shown(mask)}; {wanted}")
    mask = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else mask
    if mask.dtype != np.bool_ or mask.shape != (num_envs,):
        raise ValueError(f"{RESET_MASK} is of type {mask.dtype} and shape {mask.shape}; {wanted}")
    if not mask.any():
        raise ValueError(f"{RESET_MASK} is false everywhere, so nothing would begin; leave the reset out, or set one")
    return mask.copy()


def episode_seeds(seed: object, num_envs: int) -> list[int | None]:
    """One seed per episode; None where an episode goes on with the numbers it has.

    Args:
        seed: a sequence of B whole numbers from 0 on.
        num_envs: B.

    Raises:
        ValueError: another number of seeds, one that is negative or no whole number, or no sequence.
    """
    if not isinstance(seed, (Sequence, np.ndarray)) or isinstance(seed, (str, bytes)):
        raise ValueError(f"seed is {shown(seed)}; it must be an integer, a list of one per episode, or None")
    if len(seed) != num_envs:
        raise ValueError(f"seed has {len(seed)} entries for num_envs={num_envs}; give one integer per episode, or one")
    return [None if entry is None else checked_episode_seed(f"seed[{i}]", entry) for i, entry in enumerate(seed)]


def is_single(seed: object) -> bool:
    """Whether a seed is one integer, for the batch as a whole."""
    try:
        operator.index(seed)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def checked_mode(mode: AutoresetMode | str | None) -> AutoresetMode:
    """The mode of a name; None: ``DISABLED``.

    Raises:
        ValueError: an unknown mode.
    """
    if mode is None:
        return AutoresetMode.DISABLED
    named = {name: found for found in AutoresetMode for name in (found, found.value, found.name)}
    if isinstance(mode, (str, AutoresetMode)) and mode in named:
        return named[mode]
    allowed = ", ".join(found.value for found in AutoresetMode)
    raise ValueError(
        f"autoreset_mode is {shown(mode)}; it must be a gymnasium.vector.AutoresetMode or one of {allowed}"
    )


def checked_episode_seed(name: str, seed: object) -> int:
    """A seed as Gymnasium takes them.

    Args:
        name: what it is called in the message.
        seed: an integer from 0 on.

    Raises:
        ValueError: negative, too large, or no integer.
    """
    number = operator.index(seed) if is_single(seed) else -1  # type: ignore[arg-type]
    if isinstance(seed, (bool, np.bool_)) or not 0 <= number <= SEEDS[1]:
        raise ValueError(f"{name} is {shown(seed)}; it must be an integer from 0 to {SEEDS[1]}, or None")
    return number
