"""Named random streams: changing what one part of an experiment draws leaves every other part as it was."""

from __future__ import annotations

import hashlib

import torch

_SEED_BITS = 63


def derive_seed(*parts: object) -> int:
    """Hash any printable parts to a seed; unlike addition, neighbouring seeds give unrelated streams.

    Args:
        parts: numbers and strings, e.g. ``derive_seed(7, "test", "layout", 3)``.

    Returns:
        An integer in [0, 2**63).
    """
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - _SEED_BITS)


class Streams:
    """A family of independent ``torch.Generator`` objects, one per name, made on first use.

    The split (``"train"`` or ``"test"``) is part of every seed, so training and evaluation never share a
    layout, a shadowing map or a drop, whatever the seed.

    Args:
        seed: any integer.
        split: name of the data split.
        device: where the generators draw.
    """

    def __init__(self, seed: int, split: str = "train", device: torch.device | str = "cpu") -> None:
        self.seed = int(seed)
        self.split = split
        self.device = torch.device(device)
        self._generators: dict[str, torch.Generator] = {}

    def __getitem__(self, name: str) -> torch.Generator:
        """The running generator called ``name``."""
        if name not in self._generators:
            self._generators[name] = self.fresh(name)
        return self._generators[name]

    def fresh(self, *name: object) -> torch.Generator:
        """A new generator at the start of the stream ``name``: always the same draws, whatever came before."""
        return torch.Generator(self.device).manual_seed(derive_seed(self.seed, self.split, *name))

    def state_dict(self) -> dict:
        """Everything needed to go on with the same draws."""
        states = {name: generator.get_state() for name, generator in self._generators.items()}
        return {"seed": self.seed, "split": self.split, "states": states}

    def load_state_dict(self, state: dict) -> None:
        """Take up the draws where ``state_dict`` left them."""
        self.seed, self.split = int(state["seed"]), str(state["split"])
        self._generators = {}
        for name, generator_state in state["states"].items():
            generator = torch.Generator(self.device)
            generator.set_state(generator_state)
            self._generators[name] = generator
