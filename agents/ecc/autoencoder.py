"""Stage I: every base station learns to compress its own CSI, without labels and without the central unit."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfpos_envs.physics.ecc.clock import without_delay
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.encoders import SegNetEncoders
from cfpos_envs.supervised.network import EccNetwork

_EPSILON = 1e-8
# Keeps the gradient of a magnitude finite at zero.
_TINY = 1e-24


class Autoencoders(nn.Module):
    """The encoders of a network, each with a decoder of its own; the quantiser is bypassed (Algorithm 1).

    All base stations are trained in one step; as they share nothing, it is the same as one after the other.

    Args:
        network: its encoders are trained in place.
        generator: initial weights of the decoders.

    Raises:
        ValueError: encoders without a decoder.
    """

    def __init__(self, network: EccNetwork, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(network.encoder, SegNetEncoders):
            raise ValueError("Stage I needs encoder=segnet, which has a decoder; use strategy=scratch.")
        self.encoder = network.encoder.requires_grad_(True)
        self.decoders = network.encoder.decoders(generator).to(network.centre_m.device)
        self.register_buffer("feature_scale", network.feature_scale.clone())
        self.free = network.config.clock == "free"

    def forward(self, batch: Batch) -> Float[Tensor, "L B C H W"]:
        """Reconstructed features of all base stations."""
        latents = self.encoder(self.images(batch))
        return torch.stack([decoder(rows) for decoder, rows in zip(self.decoders, latents, strict=True)])

    def loss(self, batch: Batch) -> Tensor:
        """Mean of (22) over valid links."""
        similarity = cosine_loss(self.images(batch), self.forward(batch).float())
        valid = batch.valid.T
        return (similarity * valid).sum() / valid.sum().clamp(min=1)

    def predict(self, batch: Batch) -> Tensor:
        """Nothing is located in Stage I; asked for, every position is unknown."""
        return torch.full_like(batch.position_m, torch.nan)

    def images(self, batch: Batch) -> Float[Tensor, "L B C H W"]:
        """Scaled features, BS first, as ``EccNetwork.images`` makes them."""
        scale: Tensor = self.feature_scale  # type: ignore[assignment]
        seen = without_delay(batch.features) if self.free else batch.features
        return seen.transpose(0, 1) / scale[:, None, None, None, None]


def cosine_loss(
    truth: Float[Tensor, "*batch C H W"], reconstruction: Float[Tensor, "*batch C H W"]
) -> Float[Tensor, "*batch"]:
    """Negative normalised correlation (22), -|<h, h'>| / (||h|| ||h'|| + epsilon).

    With two channels these are the real and imaginary parts of complex CSI and the inner product is complex.

    Args:
        truth, reconstruction: features.
    """
    products = (truth * reconstruction).sum(dim=(-3, -2, -1))
    if truth.shape[-3] == 2:
        crossed = (truth.flip(-3) * reconstruction).diff(dim=-3).sum(dim=(-3, -2, -1))
        magnitude = (products.square() + crossed.square() + _TINY).sqrt()
    else:
        magnitude = products.abs()
    norms = truth.flatten(-3).norm(dim=-1) * reconstruction.flatten(-3).norm(dim=-1)
    return -magnitude / (norms + _EPSILON)
