"""Settings of supervised training and what follows from them alone: learning rate over the run, precision."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from cfpos_envs.checks import MOST_STEPS, SEEDS
from cfpos_envs.fields import Declared, Range

PRECISIONS = ("auto", "float32", "bfloat16")
FIT_RANGES: dict[str, Range] = {
    "samples": (1, MOST_STEPS),
    "batch_size": (1, 1 << 24),
    "checkpoint_every": (1, MOST_STEPS),
    "evaluations": (0, 1_000_000),
    "seed": SEEDS,
    "grad_clip": (0, 1e9),
    **dict.fromkeys(("lr", "lr_final_factor", "warmup", "weight_decay", "averaging", "bs_dropout"), (0, 1)),
}


@dataclass(frozen=True)
class FitConfig(Declared):
    """How a network is trained.

    Attributes:
        samples: snapshots seen in the whole run, with repetition.
        batch_size: snapshots per step, over all processes.
        lr: highest learning rate of AdamW.
        lr_final_factor: it falls by this factor along a cosine.
        warmup: part of the run over which it rises from 0.
        weight_decay: of AdamW.
        averaging: weight of the past in the averaged weights that are evaluated and kept; 0: none.
        grad_clip: largest gradient norm; 0: none.
        bs_dropout: probability that a BS's message is lost, drawn per snapshot; at least one BS stays.
        precision: ``bfloat16`` multiplies in 16 bits (mixed precision), ``auto`` does so where the processor has
            instructions for it.
        compile: run the step through ``torch.compile``.
        evaluations: how often, evenly spread, the validation error is measured.
        checkpoint_every: steps between two checkpoints.
        seed: of data order and losses of messages.
        device: torch device.

    Raises:
        ValueError: a value outside its range.
    """

    ranges: ClassVar[Mapping[str, Range]] = FIT_RANGES
    choices: ClassVar[Mapping[str, Collection[str]]] = {"precision": PRECISIONS}

    samples: int = 500_000
    batch_size: int = 256
    lr: float = 1.5e-3
    lr_final_factor: float = 0.01
    warmup: float = 0.05
    weight_decay: float = 0.01
    averaging: float = 0.998
    grad_clip: float = 1.0
    bs_dropout: float = 0.0
    precision: str = "auto"
    compile: bool = False
    evaluations: int = 10
    checkpoint_every: int = 1000
    seed: int = 0
    device: str = "cpu"

    @property
    def steps(self) -> int:
        """Gradient steps of the run."""
        return max(1, math.ceil(self.samples / self.batch_size))


def learning_rate_factor(fraction: float, warmup: float, final: float) -> float:
    """Factor on the learning rate: a line from 0 to 1 over ``warmup``, then half a cosine down to ``final``.

    Args:
        fraction: of the run, in [0, 1].
        warmup: part of the run, in [0, 1].
        final: last value.
    """
    if fraction < warmup:
        return (fraction + 1e-3) / (warmup + 1e-3)
    rest = (fraction - warmup) / max(1 - warmup, 1e-9)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * rest))


def uses_bfloat16(config: FitConfig) -> bool:
    """Whether products are made in 16 bits."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if torch.device(config.device).type == "cuda":
        return torch.cuda.is_bf16_supported()
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported is not None and supported())
