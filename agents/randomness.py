"""Libraries that draw from global random numbers, kept from touching anybody else's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from cfpos_envs.checkpoints import State
from cfpos_envs.streams import derive_seed

# Of Python, NumPy, PyTorch and, if lent, a CUDA device; the first two have no type of their own.
_States = tuple[Any, Any, torch.Tensor, torch.Tensor | None]


class LentRandomness:
    """Global generators of Python, NumPy and PyTorch that exist only inside ``with randomness.lent():``.

    On entering, the process's own states are put aside and ours are put in their place; on leaving, the other way
    round. Whoever draws from global numbers in between (Stable-Baselines3 does) continues our sequence, everybody
    else with theirs. Not for use from several threads at once: global means global.

    Args:
        seed: start of the three sequences.
        name: which library they are for; others get unrelated ones.
        device: also lend the generator of this CUDA device.
    """

    def __init__(self, seed: int, name: str, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._python = random.Random(derive_seed(seed, name, "python")).getstate()
        legacy = np.random.RandomState(np.random.MT19937(derive_seed(seed, name, "numpy")))
        self._numpy: Any = legacy.get_state(legacy=True)
        number = derive_seed(seed, name, "torch")
        self._torch = torch.Generator().manual_seed(number).get_state()
        self._cuda = torch.Generator(self._device).manual_seed(number).get_state() if self._on_cuda else None

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Our sequences are the global ones until the block ends, however it ends."""
        theirs = self._present()
        self._install((self._python, self._numpy, self._torch, self._cuda))
        try:
            yield
        finally:
            self._python, self._numpy, self._torch, self._cuda = self._present()
            self._install(theirs)

    def state_dict(self) -> State:
        """Where the sequences are: tensors and plain values."""
        version, words, gauss = self._python
        kind, keys, position, has_gauss, cached = self._numpy
        return {
            "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
            "numpy": {
                "kind": str(kind),
                "keys": torch.from_numpy(keys.astype(np.int64)),
                "position": int(position),
                "has_gauss": int(has_gauss),
                "cached": float(cached),
            },
            "torch": self._torch,
            "cuda": self._cuda,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on where ``state_dict`` stopped."""
        python, numpy = state["python"], state["numpy"]
        self._python = (python["version"], tuple(python["words"].tolist()), python["gauss"])
        keys = numpy["keys"].numpy().astype(np.uint32)
        self._numpy = (numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"])
        self._torch = state["torch"]
        if self._on_cuda and state["cuda"] is not None:
            self._cuda = state["cuda"]

    @property
    def _on_cuda(self) -> bool:
        return self._device.type == "cuda"

    def _present(self) -> _States:
        cuda = torch.cuda.get_rng_state(self._device) if self._on_cuda else None
        # The one place that may look at NumPy's global generator: to put it aside and back.
        return random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state(), cuda  # noqa: NPY002

    def _install(self, states: _States) -> None:
        python, numpy, cpu, cuda = states
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, self._device)
