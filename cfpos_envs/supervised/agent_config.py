"""Settings of the ECC agents: frozen dataclasses, validated on construction, the single source of every default."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from cfpos_envs.checks import MOST_STEPS, MOST_WIDTH
from cfpos_envs.fields import Range
from cfpos_envs.physics.ecc.csi import STABILISE
from cfpos_envs.physics.ecc.features import FEATURES
from cfpos_envs.settings import Presets, Settings
from cfpos_envs.supervised.fit_config import FIT_RANGES, PRECISIONS, FitConfig
from cfpos_envs.supervised.heads import HEADS
from cfpos_envs.supervised.quantiser import LEAST_BITS, MOST_BITS, MOST_DELAY_BITS, MOST_GAIN_BITS, check_bits

CLOCKS = ("trusted", "free")
CHOICES: dict[str, tuple[str, ...]] = {
    "features": FEATURES,
    "stabilise": STABILISE,
    "encoder": ("segnet", "mlp"),
    "fusion": ("cma", "mlp"),
    "tokens": ("per-subcarrier", "flat"),
    "head": HEADS,
    "loss": ("wmse", "distance"),
    "strategy": ("scratch", "local-split", "local-joint", "raw", "scalar"),
    "precision": PRECISIONS,
    "clock": CLOCKS,
}

# The sizes of the source, for a GPU: 380 epochs of 3 000 snapshots in Stage I, 210 in Stage II at the very least.
_PAPER: dict[str, object] = {
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
}


@dataclass(frozen=True)
class EccAgentConfig(Settings):
    """Everything that can be set on ``ecc`` (An et al.; numbers in brackets are its equations).

    Attributes:
        features: what an encoder sees of the normalised CSI: ``stabilised`` (10)-(15), or phase-free ``amplitude``
            (angle-delay), ``cov`` (spatial covariance and frequency autocorrelation), ``acf`` (antenna-lag by
            frequency-lag autocorrelation).
        stabilise: of ``stabilised``: a reference phase ``per-entry`` (slot and subcarrier, (11)) or one ``per-slot``.
        slots: of ``stabilised``: 1 averages the T slots, 0 keeps them all, k averages them in k groups.
        encoder: ``segnet`` (2-D Res-SegNet) or ``mlp`` (private two-layer network) per BS.
        encoder_hidden: width of the ``mlp`` encoder.
        channels: of the stages of ``segnet``; every stage halves the time-antenna rows.
        latent_width: d_z, latent numbers per token.
        bits: Q per latent number; 0: no quantiser (an upper reference, nothing can be sent).
        gain_bits: B_g of the gain; a flag of one bit for "no path" always goes with it.
        clock: ``trusted``: delays mean what they say; ``free``, for ``acf``: a user's clock may be off by any time, the
            same at all base stations. Every BS takes its mean delay out of what it sees and sends it beside the
            latents; the CU reads the differences of these delays, 14 L numbers per BS.
        delay_bits: B_d of that delay, over the period 1 / spacing of the kept subcarriers; the ``mlp`` encoder makes
            so many tokens fewer that messages do not grow.
        fusion: ``cma`` (channel-masked attention and LSTM) or ``mlp`` at the CU.
        fusion_size: d of a token in ``cma``.
        fusion_hidden: state of the LSTM, or width of ``mlp``.
        fusion_depth: residual layers of ``mlp``.
        heads: of the attention.
        mask: gain mask (23) in the attention; without it ``cma`` is the baseline "transformer".
        mask_printed: the mask as (23) is printed, shares that add up to 1; else L times that, so that a link of average
            gain keeps its value.
        beta: temperature of the mask over standardised log gains.
        literal: equation (27) and nothing else: one head, no normalisation, residual or feed-forward network.
        tokens: of the attention: ``per-subcarrier`` or ``flat`` (one of width N_sc d per BS, (24) as printed).
        head: what the CU states: ``regression``, three numbers, or ``bins``, probabilities over bins along every axis.
        bins: of ``bins``, along the longest edge of the area; vertical ones are half as high.
        components: of ``bins``: products of bins along the axes that are mixed; 1: the axes do not know of each other.
        loss: of ``regression``: ``wmse`` (34) or ``distance``: the same weights over the distances instead of their
            squares.
        strategy: ``scratch``; ``local-joint``: Stage I, then everything; ``local-split``: Stage I, then the CU alone;
            ``raw``: lossless CSI at the CU, no encoder; ``scalar``: no encoder, the CSI quantised number by number.
        local_samples: snapshots that Stage I sees.
        pool: snapshots made (or taken from a data set) for training.
        move_m: users of a ray-traced data set are moved anywhere within so many metres in training, their stored paths
            with them: every snapshot of the pool is another place.
        validation: further snapshots for the learning curve.
        set_aside: further places, a tenth of ``pool`` at most, that the stated uncertainty is learned on; where places
            are a given set, a tenth of them that training leaves out; 0: none, no uncertainty is stated.
        samples: snapshots seen in Stage II, with repetition, where the caller of ``train`` says nothing else.
        batch_size: snapshots per step, over all processes.
        lr: highest learning rate of AdamW.
        lr_final_factor: it falls by this factor along a cosine.
        warmup: part of the run over which it rises from 0.
        weight_decay: of AdamW.
        averaging: weight of the past in the averaged weights that are evaluated and kept; 0: none.
        grad_clip: largest gradient norm; 0: none.
        bs_dropout: probability in training that a BS's message is lost.
        precision: ``float32``; ``bfloat16``: mixed precision; ``auto``: that where the processor has instructions
            for it.
        compile: run the step through ``torch.compile``.
        evaluations: how often, evenly spread, the validation error is measured.
        checkpoint_every: steps between two checkpoints.
        seed: of weights, pool, data order.

    Raises:
        ValueError: a value outside its range, named with the range.
    """

    title: ClassVar[str] = "ECC"
    former: ClassVar[Mapping[str, object]] = {"head": "regression", "set_aside": 0}
    unsaid: ClassVar[Collection[str]] = ("set_aside",)
    presets: ClassVar[Presets] = {
        "default": {},
        "small": {},
        "urban": {"pool": 200_000, "samples": 1_000_000, "local_samples": 50_000},
        "paper": _PAPER,
    }
    choices: ClassVar[Mapping[str, Sequence[str]]] = CHOICES
    ranges: ClassVar[Mapping[str, Range]] = {
        **FIT_RANGES,
        "slots": (0, 10_000),
        "latent_width": (1, 1024),
        "channels": (1, 4096),
        "bits": (0, MOST_BITS),
        "gain_bits": (0, MOST_GAIN_BITS),
        "delay_bits": (LEAST_BITS, MOST_DELAY_BITS),
        "encoder_hidden": (1, MOST_WIDTH),
        "fusion_size": (1, MOST_WIDTH),
        "fusion_hidden": (1, MOST_WIDTH),
        "fusion_depth": (0, 1000),
        "heads": (1, 1024),
        "beta": (1e-6, 1e6),
        "bins": (2, 10_000),
        "components": (1, 64),
        "local_samples": (1, MOST_STEPS),
        "pool": (2, 1 << 31),
        "move_m": (0, 1),
        "validation": (1, 1 << 31),
        "set_aside": (0, 1 << 31),
    }

    num_envs: int = 256
    features: str = "stabilised"
    stabilise: str = "per-entry"
    slots: int = 1
    encoder: str = "segnet"
    encoder_hidden: int = 256
    channels: tuple[int, ...] = (16, 32, 32)
    latent_width: int = 4
    bits: int = 4
    gain_bits: int = 8
    clock: str = "trusted"
    delay_bits: int = 12
    fusion: str = "cma"
    fusion_size: int = 64
    fusion_hidden: int = 128
    fusion_depth: int = 2
    heads: int = 4
    mask: bool = True
    mask_printed: bool = False
    beta: float = 1.0
    literal: bool = False
    tokens: str = "per-subcarrier"
    head: str = "regression"
    bins: int = 150
    components: int = 1
    loss: str = "wmse"
    strategy: str = "local-joint"
    local_samples: int = 20_000
    pool: int = 50_000
    move_m: float = 0.0
    validation: int = 2_000
    set_aside: int = 6_000
    samples: int = 150_000
    batch_size: int = FitConfig.batch_size
    lr: float = 1e-3
    lr_final_factor: float = FitConfig.lr_final_factor
    warmup: float = FitConfig.warmup
    weight_decay: float = FitConfig.weight_decay
    averaging: float = FitConfig.averaging
    grad_clip: float = FitConfig.grad_clip
    bs_dropout: float = 0.03
    precision: str = FitConfig.precision
    compile: bool = FitConfig.compile
    evaluations: int = FitConfig.evaluations
    checkpoint_every: int = FitConfig.checkpoint_every

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits != 0:
            check_bits("bits", self.bits, LEAST_BITS, MOST_BITS)
        check_bits("gain_bits", self.gain_bits, 0, MOST_GAIN_BITS)
        check_bits("delay_bits", self.delay_bits, LEAST_BITS, MOST_DELAY_BITS)
        if self.clock == "free" and self.features != "acf":
            raise ValueError(
                f"clock=free reads delays from features=acf, not {self.features}; use acf, or features=stabilised with "
                "stabilise=per-entry, which holds no common delay, with clock=trusted."
            )
        if not self.channels:
            raise ValueError("channels=[] must name at least one stage, e.g. [16, 32].")
        if self.fusion == "cma" and self.fusion_size % self.heads:
            raise ValueError(f"fusion_size={self.fusion_size} must be a multiple of heads={self.heads}.")
        if self.strategy.startswith("local") and self.encoder != "segnet":
            raise ValueError(f"strategy={self.strategy} needs encoder=segnet, which has a decoder; or use scratch.")
        self.fit_config(self.samples)

    @property
    def quantiser_bits(self) -> int | None:
        """Q, or None where the CU gets unquantised numbers."""
        return None if self.bits == 0 or self.strategy == "raw" else self.bits

    @property
    def delay_tokens(self) -> int:
        """Tokens of the ``mlp`` encoder whose bits the delay takes."""
        if self.clock == "trusted" or self.quantiser_bits is None:
            return 0
        return -(-self.delay_bits // (self.latent_width * self.quantiser_bits))

    @property
    def encodes(self) -> bool:
        """Whether base stations have a network; else they send (quantised or not) the features themselves."""
        return self.strategy not in ("raw", "scalar")

    def fit_config(self, samples: int) -> FitConfig:
        """The settings of a training loop over ``samples`` snapshots."""
        names = {entry.name for entry in dataclasses.fields(FitConfig)} - {"samples"}
        return FitConfig(samples=samples, **{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class EccFastAgentConfig(EccAgentConfig):
    """Everything that can be set on ``ecc-fast``: the attributes of ``EccAgentConfig`` with other defaults."""

    presets: ClassVar[Presets] = {
        "default": {},
        "small": {},
        # As wide as a file below 5 MB in half precision allows.
        "urban": {"pool": 160_000, "samples": 2_560_000, "fusion_hidden": 720},
    }

    features: str = "acf"
    encoder: str = "mlp"
    fusion: str = "mlp"
    fusion_hidden: int = 512
    head: str = "bins"
    loss: str = "distance"
    strategy: str = "scratch"
    pool: int = 100_000
    samples: int = 1_500_000
    lr: float = FitConfig.lr
