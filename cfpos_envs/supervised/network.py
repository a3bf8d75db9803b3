"""The whole ECC system as one differentiable network, with the real bitstream between its two halves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from cfpos_envs.physics.ecc.clock import delay_differences, mean_delay, num_delay_differences, without_delay
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.beliefs import Answers
from cfpos_envs.supervised.bitstream import (
    Layout,
    Messages,
    check_agreed,
    pack_messages,
    unpack_delays,
    unpack_messages,
)
from cfpos_envs.supervised.data import Batch, check_batch
from cfpos_envs.supervised.encoders import InputShape, MlpEncoder, RawTokens, SegNetEncoders
from cfpos_envs.supervised.fusion import SIDE_FEATURES, CmaLstm, MlpFusion, Received
from cfpos_envs.supervised.heads import Area, make_head
from cfpos_envs.supervised.quantiser import (
    LatentQuantiser,
    cycle_codes,
    cycle_levels,
    gain_codes,
    gain_levels,
)

_DELAY_WEIGHT = 2.0
"""Of differences of delays at the central unit: few numbers beside the latents, learned faster with more weight."""


@dataclass(frozen=True)
class NetworkShape:
    """What the scene decides about the network.

    Attributes:
        num_bs: L.
        inputs: features of one BS.
        num_tokens: rows of Z: N_sc, or the columns of the features where these are not subcarriers.
        area: where users may be.
    """

    num_bs: int
    inputs: InputShape
    num_tokens: int
    area: Area


class EccNetwork(nn.Module):
    """Encoders at the base stations, quantisers, bitstream, fusion at the central unit.

    Args:
        config: settings.
        shape: sizes.
        generator: initial weights.

    Raises:
        ValueError: features that are no image where the encoder needs one.
    """

    feature_scale: Tensor
    centre_m: Tensor

    def __init__(self, config: EccAgentConfig, shape: NetworkShape, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        self.register_buffer("centre_m", torch.tensor(shape.area.centre_m))
        self.register_buffer("feature_scale", torch.ones(shape.num_bs))
        self.encoder = _encoder(config, shape, generator)
        width = config.latent_width if config.encodes else shape.inputs.channels * shape.inputs.rows
        delay_bits = config.delay_bits if config.clock == "free" else 0
        numbers, bits = shape.num_tokens * width, config.quantiser_bits or 0
        self.layout = Layout(numbers, bits, config.gain_bits, delay_bits, config.head)
        self.quantiser = LatentQuantiser(shape.num_bs, config.quantiser_bits)
        self.head = make_head(config.head, shape.area, config.bins, config.loss == "distance", config.components)
        self.fusion = _fusion(config, shape, width, self.head.size, generator)
        if config.strategy == "local-split":
            self.encoder.requires_grad_(False)

    def check_covers(self, position_m: Float[Tensor, "S 3"]) -> None:
        """ValueError if the head cannot say places to learn from."""
        self.head.check_covers(position_m)

    def calibrate_inputs(self, batch: Batch) -> None:
        """Take the scale of every BS's features, their RMS over valid links, from training data."""
        mean_square = batch.features.flatten(2).square().mean(dim=-1)
        heard = batch.valid.sum(0).clamp(min=1)
        self.feature_scale.copy_((mean_square * batch.valid).sum(0).div(heard).sqrt().clamp(min=1e-6))

    @torch.no_grad()
    def calibrate(self, batch: Batch) -> None:
        """Measure the latent scales of the present weights on training data."""
        latents = self._encode(batch)
        self.quantiser.mean_square.copy_(latents.float().square().mean(dim=(1, 2)))

    def forward(self, batch: Batch) -> Float[Tensor, "B N size"]:
        """What the head reads, the last row being the estimate; differentiable through the quantiser."""
        latents = self.quantiser(self._encode(batch))
        gain = gain_codes(batch.log_gain, self.config.gain_bits)
        return self.fusion(self._received(latents, gain, self._delay_codes(batch.features), batch.valid))

    def loss(self, batch: Batch) -> Tensor:
        """The head's loss, see ``heads``."""
        return self.head.loss(self.forward(batch), batch.position_m)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Float[Tensor, "B 3"]:
        """Positions in metres decoded from the real bitstream (where there is a quantiser)."""
        if self.layout.bits == 0:
            return self.head.position_m(self.forward(batch)[:, -1])
        return self.decode(self.encode(batch))

    @torch.no_grad()
    def answers(self, batch: Batch) -> Answers:
        """``predict`` with what the central unit can say of its errors."""
        if self.layout.bits == 0:
            return Answers(self.head.belief(self.forward(batch)[:, -1]), batch.log_gain, batch.valid)
        return self.read(self.encode(batch))

    @torch.no_grad()
    def encode(self, batch: Batch, received: Bool[Tensor, "B L"] | None = None) -> Messages:
        """What the base stations send.

        Args:
            batch: what they measured.
            received: false where a message is lost on its way; None: all arrive.
        """
        codes = self.quantiser.codes(self._encode(batch)).transpose(0, 1)
        gains = gain_codes(batch.log_gain, self.config.gain_bits)
        return pack_messages(self.layout, codes, gains, batch.valid, received, self._delay_codes(batch.features))

    @torch.no_grad()
    def decode(self, messages: Messages) -> Float[Tensor, "B 3"]:
        """Positions in metres from bits alone.

        Raises:
            BitstreamError: messages of another layout or number of base stations, or not of the layout's length.
        """
        return self.head.position_m(self.fusion(self._unpacked(messages))[:, -1])

    @torch.no_grad()
    def read(self, messages: Messages) -> Answers:
        """``decode`` with what the central unit can say of its errors.

        Raises:
            BitstreamError: as of ``decode``.
        """
        received = self._unpacked(messages)
        return Answers(self.head.belief(self.fusion(received)[:, -1]), received.log_gain, received.valid)

    def images(self, features: Float[Tensor, "B L C H W"]) -> Float[Tensor, "L B C H W"]:
        """Scaled features, BS first, as the encoders take them; without their mean delay where clocks are free."""
        seen = without_delay(features) if self.config.clock == "free" else features
        return seen.transpose(0, 1) / self.feature_scale[:, None, None, None, None]

    def encoder_multiply_adds(self) -> int:
        """Multiply-adds of one BS for one snapshot."""
        assert isinstance(self.encoder, (MlpEncoder, SegNetEncoders, RawTokens))
        return self.encoder.multiply_adds()

    def encoder_parameters(self) -> int:
        """Parameters at one BS."""
        return sum(parameter.numel() for parameter in self.encoder.parameters()) // self.shape.num_bs

    def fusion_parameters(self) -> int:
        """Parameters at the CU."""
        return sum(parameter.numel() for parameter in self.fusion.parameters())

    def _encode(self, batch: Batch) -> Float[Tensor, "L B D"]:
        inputs = self.shape.inputs
        check_batch(batch, (self.shape.num_bs, inputs.channels, inputs.rows, inputs.columns))
        return self.encoder(self.images(batch.features)).flatten(2)

    def _delay_codes(self, features: Tensor) -> Integer[Tensor, "B L"] | None:
        """Codes of the mean delays that ``images`` takes out; None where clocks are trusted."""
        bits = self.layout.delay_bits
        return cycle_codes(mean_delay(features), bits) if bits else None

    def _unpacked(self, messages: Messages) -> Received:
        check_agreed(messages, self.layout, self.shape.num_bs)
        codes, gains, has_path = unpack_messages(messages)
        latents = self.quantiser.levels(codes).transpose(0, 1)
        delays = unpack_delays(messages) if self.layout.delay_bits else None
        return self._received(latents, gains, delays, has_path & messages.received)

    def _received(
        self,
        latents: Float[Tensor, "L B D"],
        gain_code: Integer[Tensor, "B L"],
        delay_code: Integer[Tensor, "B L"] | None,
        valid: Bool[Tensor, "B L"],
    ) -> Received:
        gain, delays = gain_levels(gain_code, self.config.gain_bits), None
        if delay_code is not None:
            cycles = cycle_levels(delay_code, self.layout.delay_bits)
            delays = _DELAY_WEIGHT * delay_differences(cycles, valid, self.shape.inputs.columns)
        return Received(latents.unflatten(-1, (self.shape.num_tokens, -1)), gain, valid, delays)


def _encoder(config: EccAgentConfig, shape: NetworkShape, generator: torch.Generator) -> nn.Module:
    if not config.encodes:
        return RawTokens()
    if config.encoder == "segnet":
        if shape.inputs.rows == 1:
            raise ValueError(
                f"features={config.features} is no image, which encoder=segnet needs; use stabilised, amplitude or acf"
            )
        return SegNetEncoders(shape.num_bs, shape.inputs, config.channels, config.latent_width, generator)
    return MlpEncoder(
        shape.num_bs, shape.inputs, config.encoder_hidden, shape.num_tokens, config.latent_width, generator
    )


def _fusion(
    config: EccAgentConfig, shape: NetworkShape, width: int, outputs: int, generator: torch.Generator
) -> nn.Module:
    delays = num_delay_differences(shape.num_bs, shape.inputs.columns) if config.clock == "free" else 0
    side = SIDE_FEATURES + delays
    if config.fusion == "mlp":
        numbers = shape.num_tokens * width
        return MlpFusion(shape.num_bs, numbers, config.fusion_hidden, config.fusion_depth, outputs, generator, side)
    return CmaLstm(
        shape.num_bs,
        shape.num_tokens,
        width,
        config.fusion_size,
        config.fusion_hidden,
        config.heads,
        config.beta if config.mask else None,
        config.literal,
        config.tokens == "flat",
        outputs,
        generator,
        side,
        config.mask_printed,
    )
