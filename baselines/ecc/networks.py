"""Learned baselines: an unmasked transformer, angle-delay images, frequency convolutions, plainly quantised CSI."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn

from cfpos_envs.checks import MOST_WIDTH
from cfpos_envs.fields import Range
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.physics.ecc.csi import STABILISE, normalise_gain, stabilise_phase
from cfpos_envs.physics.ecc.features import FEATURES
from cfpos_envs.supervised.agent_config import CHOICES, EccFastAgentConfig
from cfpos_envs.supervised.beliefs import Answers
from cfpos_envs.supervised.bitstream import Layout, pack_messages, unpack_messages
from cfpos_envs.supervised.data import Batch, check_batch
from cfpos_envs.supervised.fusion import SIDE_FEATURES, Received
from cfpos_envs.supervised.heads import Area, Head, make_head
from cfpos_envs.supervised.inputs import batch_of, feature_images, network_shape
from cfpos_envs.supervised.layers import initialised, mlp
from cfpos_envs.supervised.network import EccNetwork
from cfpos_envs.supervised.quantiser import (
    gain_codes,
    gain_levels,
    gaussian_step,
    midrise_codes,
    midrise_levels,
)

from .common import FLAG_BITS, FLOAT_BITS
from .learned import LearnedCsi, LearnedOptions

_MOST_BITS, _MOST_GAIN_BITS = 16, 32


@dataclass(frozen=True)
class TransformerOptions(LearnedOptions):
    """Options of ``transformer``.

    Attributes:
        features: what a BS's encoder sees, see ``physics.ecc.features``; ``stabilised`` is the source's.
        encoder: ``mlp``, or ``segnet``, the source's, which takes ten times longer.
        latent_width, bits, gain_bits: d_z, Q and B_g of the message.
        size, hidden, heads: width of tokens, of the LSTM, and number of heads.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "latent_width": (1, 1024),
        "bits": (0, _MOST_BITS),
        "gain_bits": (0, _MOST_GAIN_BITS),
        "size": (1, MOST_WIDTH),
        "hidden": (1, MOST_WIDTH),
        "heads": (1, 1024),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"features": FEATURES, "encoder": CHOICES["encoder"]}

    features: str = "acf"
    encoder: str = "mlp"
    latent_width: int = 4
    bits: int = 4
    gain_bits: int = 8
    size: int = 64
    hidden: int = 128
    heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config()

    def config(self) -> EccFastAgentConfig:
        """The network as ECC's settings with the gain mask off."""
        return EccFastAgentConfig(
            features=self.features,
            encoder=self.encoder,
            latent_width=self.latent_width,
            bits=self.bits,
            gain_bits=self.gain_bits,
            fusion="cma",
            fusion_size=self.size,
            fusion_hidden=self.hidden,
            heads=self.heads,
            mask=False,
            head=self.head,
            bins=self.bins,
        )


class _EccShaped(LearnedCsi):
    """A baseline whose network is an ``EccNetwork`` of other settings."""

    @abstractmethod
    def config(self) -> EccFastAgentConfig:
        """Settings of the network."""

    def make_network(self, system: CsiSystem, generator: torch.Generator) -> Any:
        """An ``EccNetwork``."""
        config = self.config()
        return EccNetwork(config, network_shape(config, system), generator)

    def inputs(self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], system: CsiSystem) -> Batch:
        """Features of ``config`` and the gains."""
        return batch_of(csi, valid, self.config(), system)


class Transformer(_EccShaped):
    """ECC with plain self-attention over the base stations instead of the channel-masked one: no gain mask."""

    name: ClassVar[str] = "transformer"
    options_class: ClassVar[type[LearnedOptions]] = TransformerOptions
    options: TransformerOptions

    def config(self) -> EccFastAgentConfig:
        """See ``TransformerOptions``."""
        return self.options.config()

    @property
    def fronthaul_bits(self) -> float:
        """Those of its bitstream; before a network of base stations is known, of 24 tokens."""
        tokens = 24 if self.system is None else network_shape(self.config(), self.system).num_tokens
        options = self.options
        return float(Layout(tokens * options.latent_width, options.bits, options.gain_bits).message_bits)


@dataclass(frozen=True)
class AdcpmOptions(LearnedOptions):
    """Options of ``adcpm``.

    Attributes:
        train_steps: fewer than elsewhere, for each is slow.
        channels: of the stages of the SegNet encoder.
        latent_width: numbers per delay that it hands to the regressor.
        hidden: width of the regressor.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "channels": (1, 4096),
        "latent_width": (1, 1024),
        "hidden": (1, MOST_WIDTH),
    }

    train_steps: int = 60
    channels: tuple[int, ...] = (16, 32)
    latent_width: int = 4
    hidden: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config()

    def config(self) -> EccFastAgentConfig:
        """The network as ECC's settings without a quantiser."""
        return EccFastAgentConfig(
            features="amplitude",
            encoder="segnet",
            channels=self.channels,
            latent_width=self.latent_width,
            bits=0,
            gain_bits=_MOST_GAIN_BITS,
            fusion="mlp",
            fusion_hidden=self.hidden,
            head=self.head,
            bins=self.bins,
        )


class Adcpm(_EccShaped):
    """Angle-delay channel power matrices of all base stations through a SegNet encoder and an MLP at the CU."""

    name: ClassVar[str] = "adcpm"
    options_class: ClassVar[type[LearnedOptions]] = AdcpmOptions
    options: AdcpmOptions

    def config(self) -> EccFastAgentConfig:
        """See ``AdcpmOptions``."""
        return self.options.config()

    @property
    def fronthaul_bits(self) -> float:
        """A N powers and the gain as 32-bit floats, and the flag."""
        return float(FLOAT_BITS * (_entries(self.system) + 1) + FLAG_BITS)


@dataclass(frozen=True)
class MfcOptions(LearnedOptions):
    """Options of ``mfcnet``.

    Attributes:
        stabilise: ``per-slot`` keeps the delays that the convolutions read, ``per-entry`` is (10).
        channels: width of the convolutions.
        depth: residual blocks.
    """

    ranges: ClassVar[Mapping[str, Range]] = {"channels": (3, 4096), "depth": (0, 1000)}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"stabilise": STABILISE}

    stabilise: str = "per-slot"
    channels: int = 96
    depth: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % 3:
            raise ValueError(f"channels is {self.channels}; channels must be a positive multiple of 3")
        self.config()

    def config(self) -> EccFastAgentConfig:
        """The features as ECC's settings."""
        return EccFastAgentConfig(features="stabilised", stabilise=self.stabilise)


class MfcNet(LearnedCsi):
    """Convolutions of several widths along the subcarriers of all base stations' stabilised CSI, then an MLP."""

    name: ClassVar[str] = "mfcnet"
    options_class: ClassVar[type[LearnedOptions]] = MfcOptions
    options: MfcOptions

    def make_network(self, system: CsiSystem, generator: torch.Generator) -> Any:
        """A ``FrequencyConvolutions``."""
        options = self.options
        head = make_head(options.head, Area(system.area_min_m, system.area_max_m), options.bins, distance=True)
        return FrequencyConvolutions(system, options.channels, options.depth, head, generator)

    def inputs(self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], system: CsiSystem) -> Batch:
        """Stabilised CSI averaged over the slots."""
        return batch_of(csi, valid, self.options.config(), system)

    @property
    def fronthaul_bits(self) -> float:
        """Lossless CSI, (37): 64 T A N; before a network of base stations is known, of ten slots."""
        return float(64 * 10 * _entries(None)) if self.system is None else float(self.system.lossless_bits)


class FrequencyConvolutions(nn.Module):
    """Residual blocks of convolutions of widths 1, 3 and 5 along frequency, mean and maximum over it, regression.

    Args:
        system: sizes and area.
        channels: width, a multiple of 3.
        depth: blocks.
        head: what it states.
        generator: initial weights.
    """

    centre_m: Tensor

    def __init__(self, system: CsiSystem, channels: int, depth: int, head: Head, generator: torch.Generator) -> None:
        super().__init__()
        self.head = head
        self.takes = (system.num_bs, 2, system.num_antennas, system.num_subcarriers)
        # Files hold it.
        self.register_buffer("centre_m", torch.tensor(system.centre_m))
        self.enter = _across(system.num_bs * 2 * system.num_antennas, channels, 1)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_across(channels, channels // 3, width) for width in (1, 3, 5)) for _ in range(depth)
        )
        self.join = nn.ModuleList(_across(channels, channels, 1) for _ in range(depth))
        # Convolutions do not know where they are; the order of the subcarriers does not matter to a mean.
        self.regress = mlp((2 * channels + SIDE_FEATURES * system.num_bs, 2 * channels, channels, head.size), generator)
        initialised(self, generator)

    def forward(self, batch: Batch) -> Float[Tensor, "B size"]:
        """What the head reads.

        Raises:
            ValueError: features of another shape than the network was made for.
        """
        check_batch(batch, self.takes)
        heard = batch.valid[:, :, None, None, None]
        images = (batch.features * heard).flatten(1, 3)  # [B, L 2 A, N]
        hidden = self.enter(images[:, :, None])
        for widths, join in zip(self.blocks, self.join, strict=True):
            assert isinstance(widths, nn.ModuleList)
            rows = nn.functional.silu(hidden)
            hidden = hidden + join(nn.functional.silu(torch.cat([layer(rows) for layer in widths], dim=1)))
        pooled = torch.cat((hidden.mean(dim=(2, 3)), hidden.amax(dim=(2, 3))), dim=1)
        side = Received(batch.log_gain.T[..., None, None], batch.log_gain, batch.valid).side().flatten(1)
        outputs: Tensor = self.regress(torch.cat((pooled, side), dim=1))
        return outputs

    def check_covers(self, position_m: Float[Tensor, "S 3"]) -> None:
        """ValueError if the head cannot say places to learn from."""
        self.head.check_covers(position_m)

    def loss(self, batch: Batch) -> Tensor:
        """The head's loss, see ``heads``."""
        return self.head.loss(self.forward(batch)[:, None], batch.position_m)

    def predict(self, batch: Batch) -> Float[Tensor, "B 3"]:
        """Positions in metres."""
        return self.head.position_m(self.forward(batch))

    def answers(self, batch: Batch) -> Answers:
        """``predict`` with what is known of the errors."""
        return Answers(self.head.belief(self.forward(batch)), batch.log_gain, batch.valid)


@dataclass(frozen=True)
class ScalarOptions(LearnedOptions):
    """Options of ``csi-scalar-q``.

    Attributes:
        bits: Q, bits per real number of the averaged CSI.
        gain_bits: B_g of the gain.
        features: what the CU makes of the CSI that it has received, see ``physics.ecc.features``.
        hidden: width of the network.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "bits": (1, _MOST_BITS),
        "gain_bits": (0, _MOST_GAIN_BITS),
        "hidden": (1, MOST_WIDTH),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"features": FEATURES}

    bits: int = 4
    gain_bits: int = 8
    features: str = "acf"
    hidden: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        self.config()

    def config(self) -> EccFastAgentConfig:
        """The network of the CU as ECC's settings; everything is at the CU, so nothing in it is quantised."""
        return EccFastAgentConfig(
            features=self.features,
            stabilise="per-slot",
            bits=0,
            gain_bits=_MOST_GAIN_BITS,
            fusion_hidden=self.hidden,
            head=self.head,
            bins=self.bins,
        )


class CsiScalarQ(LearnedCsi):
    """Slot-averaged CSI, every real number in Q bits, and an MLP at the CU: the fronthaul without any learning."""

    name: ClassVar[str] = "csi-scalar-q"
    options_class: ClassVar[type[LearnedOptions]] = ScalarOptions
    options: ScalarOptions

    def make_network(self, system: CsiSystem, generator: torch.Generator) -> Any:
        """An ``EccNetwork`` without a quantiser on one slot."""
        config = self.options.config()
        return EccNetwork(config, network_shape(config, _one_slot(system)), generator)

    def inputs(self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], system: CsiSystem) -> Batch:
        """Features of the CSI that came over the wire as bits."""
        config = self.options.config()
        measured = batch_of(csi, valid, config, system)
        received, log_gain, heard = scalar_fronthaul(csi, measured.log_gain, measured.valid, self.options)
        features = feature_images(received, config, _one_slot(system))
        floor = torch.where(heard, log_gain, measured.log_gain)
        return Batch(features, floor, heard, measured.position_m)

    @property
    def fronthaul_bits(self) -> float:
        """2 A N Q of CSI, the gain, the flag."""
        options = self.options
        return float(Layout(2 * _entries(self.system), options.bits, options.gain_bits).message_bits)


def scalar_fronthaul(
    csi: Complex[Tensor, "S L T A N"],
    log_gain: Float[Tensor, "S L"],
    valid: Bool[Tensor, "S L"],
    options: ScalarOptions,
) -> tuple[Complex[Tensor, "S L 1 A N"], Float[Tensor, "S L"], Bool[Tensor, "S L"]]:
    """What the CU decodes of the averaged CSI: pack every link into bytes, unpack them again.

    The slots have oscillator phases of their own, so each is turned by one phase before the average.

    Args:
        csi: T slots.
        log_gain: standardised.
        valid: links that have a path.
        options: bits.

    Returns:
        One slot of CSI of unit energy, standardised gains, flags.
    """
    average = stabilise_phase(normalise_gain(csi), "per-slot").mean(dim=-3, keepdim=True)
    reals = torch.view_as_real(normalise_gain(average)).flatten(2)
    # Of unit energy in 2 A N numbers, so the root mean square is known to everybody.
    rms = 1 / math.sqrt(reals.shape[-1])
    step = gaussian_step(options.bits)
    layout = Layout(reals.shape[-1], options.bits, options.gain_bits)
    codes = midrise_codes(reals / rms, step, options.bits)
    messages = pack_messages(layout, codes, gain_codes(log_gain, options.gain_bits), valid)
    codes, gains, heard = unpack_messages(messages)
    levels = midrise_levels(codes, step, options.bits) * rms * heard[..., None]
    received = torch.view_as_complex(levels.unflatten(-1, (*average.shape[-3:], 2)))
    return received, gain_levels(gains, options.gain_bits), heard


def _across(size_in: int, size_out: int, width: int) -> nn.Module:
    """A convolution along frequency, as one over images of one row."""
    return nn.utils.skip_init(nn.Conv2d, size_in, size_out, (1, width), padding=(0, width // 2))


def _one_slot(system: CsiSystem) -> CsiSystem:
    return dataclasses.replace(system, num_slots=1)


def _entries(system: CsiSystem | None) -> int:
    """A N; of the default network where none is known."""
    return 8 * 24 if system is None else system.num_antennas * system.num_subcarriers
