"""Two Gymnasium vector environments that must give the same, array by array with types and masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

CLOSE = {"rtol": 2e-3, "atol": 2e-3}
"""Batched products may sum in another order, and what follows from them moves on."""


def assert_alike(one: Any, other: Any, name: str) -> None:
    """The same names, types and shapes; numbers to rounding, everything else to the bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), name
        for key in one:
            assert_alike(one[key], other[key], f"{name}/{key}")
        return
    assert one.dtype == other.dtype, name
    assert one.shape == other.shape, name
    if one.dtype == object:
        assert [entry is None for entry in one] == [entry is None for entry in other], name
        for left, right in zip(one, other):
            if left is not None:
                assert_alike(left, right, name)
    elif one.dtype == bool:
        np.testing.assert_array_equal(one, other, err_msg=name)
    else:
        np.testing.assert_allclose(one, other, **CLOSE, err_msg=name)


def play_alike(ours: Any, theirs: Any, seeds: list[int], rounds: int) -> np.ndarray:
    """Reset both, play, reset the first episode alone after the first round, play on; which ended, [rounds, B]."""
    for name in ("single_observation_space", "single_action_space", "observation_space", "action_space", "num_envs"):
        assert getattr(ours, name) == getattr(theirs, name), name
    mode = ours.metadata["autoreset_mode"]
    assert mode is theirs.metadata["autoreset_mode"]
    both(ours, theirs, "reset", seed=seeds)
    draw, ends = np.random.default_rng(0), []
    for index in range(rounds):
        mask = np.arange(len(seeds)) == 0 if index == 1 else np.zeros(len(seeds), dtype=bool)
        if mode == AutoresetMode.DISABLED and ends:
            mask |= ends[-1]
        if mask.any():
            both(ours, theirs, "reset", options={"reset_mask": mask})
        actions = draw.uniform(-1, 1, ours.action_space.shape).astype(np.float32)
        seen, _, terminated, truncated, _ = both(ours, theirs, "step", actions)
        assert ours.observation_space.contains(seen)
        ends.append(terminated | truncated)
    return np.array(ends)


def both(ours: Any, theirs: Any, method: str, *args: Any, **kwargs: Any) -> Any:
    """What both answer to the same call, which must be alike."""
    # Gymnasium takes the mask out of the options that it is given.
    copied = {name: dict(value) if isinstance(value, dict) else value for name, value in kwargs.items()}
    answer, other = getattr(ours, method)(*args, **kwargs), getattr(theirs, method)(*args, **copied)
    for index, (left, right) in enumerate(zip(answer, other, strict=True)):
        assert_alike(left, right, f"{method}[{index}]")
    return answer
