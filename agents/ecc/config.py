"""Settings of the ECC agents: one frozen dataclass, validated on construction, the single source of every default."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agents.config import unknown_name
from agents.ecc.quantiser import LEAST_BITS, MOST_BITS, MOST_GAIN_BITS, check_bits
from agents.ecc.supervised import PRECISIONS, FitConfig
from cfpos_envs.physics.csi import STABILISE
from cfpos_envs.physics.csi_features import FEATURES

CHOICES: dict[str, tuple[str, ...]] = {
    "features": FEATURES,
    "stabilise": STABILISE,
    "encoder": ("mlp", "segnet"),
    "fusion": ("mlp", "cma"),
    "tokens": ("per-subcarrier", "flat"),
    "loss": ("wmse", "distance"),
    "strategy": ("scratch", "local-split", "local-joint", "raw"),
    "precision": PRECISIONS,
}

# name -> (lowest, highest) allowed value, both included
_RANGES: dict[str, tuple[float, float]] = {
    "num_envs": (1, math.inf),
    "slots": (0, math.inf),
    "latent_width": (1, 1024),
    "encoder_hidden": (1, math.inf),
    "fusion_size": (1, math.inf),
    "fusion_hidden": (1, math.inf),
    "fusion_depth": (0, math.inf),
    "heads": (1, math.inf),
    "beta": (0, math.inf),
    "local_samples": (1, math.inf),
    "pool": (2, math.inf),
    "validation": (1, math.inf),
    "threads": (1, math.inf),
}
_WHOLE = frozenset(_RANGES) - {"beta"} | {"seed"}
_FLAGS = ("mask", "literal")


@dataclass(frozen=True)
class EccConfig:
    """Everything that can be set on ``ecc`` and ``ecc-fast`` (An et al.; numbers in brackets are its equations).

    Attributes:
        num_envs: parallel episodes where the environment is built by the agent.
        features: what an encoder sees of the normalised CSI: ``stabilised`` (10)-(15), or phase-free ``amplitude``
            (angle-delay), ``cov`` (spatial covariance and frequency autocorrelation), ``acf`` (antenna-lag by
            frequency-lag autocorrelation).
        stabilise: of ``stabilised``: a reference phase ``per-entry`` (slot and subcarrier, (11)) or one ``per-slot``.
        slots: of ``stabilised``: the T slots are averaged in groups to this many; 0: all T are kept.
        encoder: ``mlp`` (private two-layer network) or ``segnet`` (2-D Res-SegNet) per BS.
        encoder_hidden: width of the ``mlp`` encoder.
        channels: of the stages of ``segnet``; every stage halves the time-antenna rows.
        latent_width: d_z, latent numbers per subcarrier.
        bits: Q per latent number; 0: no quantiser (an upper reference, nothing can be sent).
        gain_bits: B_g of the gain; a flag of one bit for "no path" always goes with it.
        fusion: ``cma`` (channel-masked attention and LSTM) or ``mlp`` at the CU.
        fusion_size: d of a token in ``cma``.
        fusion_hidden: state of the LSTM, or width of ``mlp``.
        fusion_depth: residual layers of ``mlp``.
        heads: of the attention.
        mask: gain mask (23) in the attention; without it ``cma`` is the baseline "transformer".
        beta: temperature of the mask over standardised log gains.
        literal: equation (27) and nothing else: one head, no normalisation, residual or feed-forward network.
        tokens: of the attention: ``per-subcarrier`` or ``flat`` (one of width N_sc d per BS, (24) as printed).
        loss: ``wmse`` (34) or ``distance``: the same weights over the distances instead of their squares.
        strategy: ``scratch``; ``local-joint``: Stage I, then everything; ``local-split``: Stage I, then the CU alone;
            ``raw``: lossless CSI at the CU, no encoder.
        local_samples: snapshots that Stage I sees.
        pool: snapshots made (or taken from a data set) for training.
        validation: further snapshots for the learning curve.
        samples: snapshots seen in Stage II, with repetition, where the caller of ``train`` says nothing else.
        batch_size, lr, lr_final_factor, warmup, weight_decay, averaging, grad_clip, bs_dropout, precision, compile,
            evaluations, checkpoint_every: as in ``FitConfig``.
        seed: of weights, pool, data order.
        device: torch device.
        threads: torch threads during training; None leaves torch's setting.

    Raises:
        ValueError: a value outside its range, named with the range.
    """

    num_envs: int = 256
    features: str = "acf"
    stabilise: str = "per-entry"
    slots: int = 1
    encoder: str = "mlp"
    encoder_hidden: int = 256
    channels: tuple[int, ...] = (16, 32, 32)
    latent_width: int = 4
    bits: int = 4
    gain_bits: int = 8
    fusion: str = "mlp"
    fusion_size: int = 64
    fusion_hidden: int = 512
    fusion_depth: int = 2
    heads: int = 4
    mask: bool = True
    beta: float = 1.0
    literal: bool = False
    tokens: str = "per-subcarrier"
    loss: str = "wmse"
    strategy: str = "scratch"
    local_samples: int = 20_000
    pool: int = 100_000
    validation: int = 2_000
    samples: int = 500_000
    batch_size: int = FitConfig.batch_size
    lr: float = FitConfig.lr
    lr_final_factor: float = FitConfig.lr_final_factor
    warmup: float = FitConfig.warmup
    weight_decay: float = FitConfig.weight_decay
    averaging: float = FitConfig.averaging
    grad_clip: float = FitConfig.grad_clip
    bs_dropout: float = 0.03
    precision: str = FitConfig.precision
    compile: bool = False
    evaluations: int = FitConfig.evaluations
    checkpoint_every: int = FitConfig.checkpoint_every
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(unknown_name(name, str(getattr(self, name)), allowed))
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}={getattr(self, name)!r} is not a switch; use true or false.")
        for name in sorted(_WHOLE | set(_RANGES)):
            _check_number(name, getattr(self, name))
        if self.bits != 0:
            check_bits("bits", self.bits, LEAST_BITS, MOST_BITS)
        check_bits("gain_bits", self.gain_bits, 0, MOST_GAIN_BITS)
        object.__setattr__(self, "channels", _channels(self.channels))
        if self.fusion == "cma" and self.fusion_size % self.heads:
            raise ValueError(f"fusion_size={self.fusion_size} must be a multiple of heads={self.heads}.")
        if self.strategy.startswith("local") and self.encoder != "segnet":
            raise ValueError(f"strategy={self.strategy} needs encoder=segnet, which has a decoder; or use scratch.")
        self.fit_config(self.samples)

    @property
    def quantiser_bits(self) -> int | None:
        """Q, or None where the CU gets unquantised numbers."""
        return None if self.bits == 0 or self.strategy == "raw" else self.bits

    def fit_config(self, samples: int) -> FitConfig:
        """The settings of a training loop over ``samples`` snapshots."""
        names = {entry.name for entry in dataclasses.fields(FitConfig)} - {"samples"}
        return FitConfig(samples=samples, **{name: getattr(self, name) for name in names})

    @classmethod
    def build(cls, fields: dict[str, Any]) -> EccConfig:
        """A config from a dict; an unknown name is refused with its nearest matches."""
        names = [field.name for field in dataclasses.fields(cls)]
        for name in fields:
            if name not in names:
                raise ValueError(unknown_name("ECC setting", name, names))
        plain: dict[str, Any] = {}
        for name, value in fields.items():
            plain[name] = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        return cls(**plain)

    @classmethod
    def preset(cls, preset: str, **overrides: Any) -> EccConfig:
        """A named setting (``PRESETS``), with changes on top.

        Raises:
            ValueError: unknown preset or field, with the nearest names.
        """
        if preset not in PRESETS:
            raise ValueError(unknown_name("preset", preset, PRESETS))
        return cls.build({**PRESETS[preset], **overrides})

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain numbers, strings and lists, for checkpoints and logs."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}


_FAST: dict[str, Any] = {}
_FULL: dict[str, Any] = {
    "encoder": "segnet",
    "fusion": "cma",
    "features": "stabilised",
    "fusion_hidden": 128,
    "strategy": "local-joint",
    "lr": 1e-3,
}
PRESETS: dict[str, dict[str, Any]] = {
    # CPU minutes.
    "ecc-fast-small": {**_FAST},
    "ecc-small": {**_FULL, "pool": 50_000, "samples": 150_000},
    # CPU, tens of minutes.
    "ecc-fast-urban": {**_FAST, "pool": 400_000, "samples": 8_000_000, "encoder_hidden": 384, "fusion_hidden": 768},
    "ecc-urban": {**_FULL, "pool": 200_000, "samples": 1_000_000, "local_samples": 50_000},
    # The sizes of the paper; for a GPU.
    "ecc-paper": {
        **_FULL,
        "slots": 0,
        "channels": (32, 64, 128, 128),
        "latent_width": 32,
        "bits": 10,
        "gain_bits": 32,
        "fusion_size": 128,
        "fusion_hidden": 256,
        "local_samples": 1_140_000,
        "pool": 630_000,
        "samples": 10_000_000,
        "bs_dropout": 0.0,
        "batch_size": 512,
        "compile": True,
    },
}
"""Name -> fields. ``ecc-paper`` sees what the source's runs saw: 380 epochs of 3 000 snapshots in Stage I."""


def _channels(value: Any) -> tuple[int, ...]:
    widths = (value,) if isinstance(value, int) else tuple(value)
    if not widths or any(isinstance(width, bool) or not isinstance(width, int) or width < 1 for width in widths):
        raise ValueError(f"channels={value!r} must be whole numbers >= 1, e.g. [16, 32].")
    return widths


def _check_number(name: str, value: Any) -> None:
    if value is None and name == "threads":
        return
    low, high = _RANGES.get(name, (-math.inf, math.inf))
    kind = int if name in _WHOLE else (int, float)
    described = "a whole number" if name in _WHOLE else "a number"
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        raise ValueError(f"{name}={value!r} must be {described} in [{low:g}, {high:g}].")
