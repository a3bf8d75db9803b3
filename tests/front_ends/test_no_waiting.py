"""A step never reads a number back from the device: on a GPU that would stop the stream of work."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cfpos_envs import list_envs, make_env
from cfpos_envs.front_ends.vector import VectorEnv


class NoReading(TorchDispatchMode):
    """Refuses what ``.item()``, ``bool()`` and ``nonzero()`` come down to."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "item", "nonzero", "is_nonzero", "masked_select"), name
        if name == "_to_copy" and (kwargs or {}).get("device") is not None:
            assert args[0].device == torch.device(kwargs["device"])
        return function(*args, **(kwargs or {}))


def test_the_guard_sees_reading() -> None:
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoReading():
        bool(torch.ones(3).sum() > 1)


@pytest.mark.parametrize("env_id", [name for name in list_envs() if name.startswith(("dcp", "toa", "tdoa", "rtt"))])
def test_steps_wait_for_nothing(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiled kernels work on the CPU alone; an accelerator is left to torch.
    options = {"kernel": "torch"} if env_id.startswith("dcp") else {}
    env = make_env(env_id, num_envs=3, seed=0, num_aps=9, num_ues=2, num_antennas=4, num_sites=2, **options)
    env.reset()
    actions = torch.zeros(3, len(env.agents), env.action_size)
    for name in ("cpu", "numpy", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, _refuse)
    # What the environment does on an accelerator.
    monkeypatch.setattr(VectorEnv, "_waits_for_devices", False)
    with NoReading():
        for _ in range(env.rounds):
            step = env.step(actions)
    assert step.rewards.shape == (3, 9)


def test_bad_actions_are_reported_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VectorEnv, "_waits_for_devices", False)
    env = make_env("dcp-rss-v0", num_envs=1, seed=0, num_aps=4, num_ues=1, num_sites=1)
    env.reset()
    with pytest.raises(RuntimeError, match="NaN"):
        env.step(torch.full((1, 4, env.action_size), torch.nan))


def _refuse(*_: Any, **__: Any) -> None:
    raise AssertionError("a tensor was read back")
