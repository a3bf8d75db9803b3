"""What runs at a base station: from preprocessed CSI to the latent matrix Z of equation (16)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfpos_envs.supervised.convolutions import layer
from cfpos_envs.supervised.layers import PrivateLinear, initialised


@dataclass(frozen=True)
class InputShape:
    """One BS's features as an image.

    Attributes:
        channels: C, 2 for complex CSI.
        rows: H, the joint time-antenna axis of equation (14) (or antenna lags).
        columns: W, subcarriers (or frequency lags); flat features have C = H = 1.
    """

    channels: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Numbers per BS."""
        return self.channels * self.rows * self.columns


class MlpEncoder(nn.Module):
    """Private two-layer network per BS on the flattened features; the tokens have no order in frequency.

    Args:
        num_bs: L.
        shape: of the features.
        hidden: width of the hidden layer.
        tokens, width: N_sc and d_z of Z.
        generator: initial weights.
    """

    def __init__(
        self, num_bs: int, shape: InputShape, hidden: int, tokens: int, width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.first = PrivateLinear(num_bs, shape.size, hidden, generator)
        self.second = PrivateLinear(num_bs, hidden, tokens * width, generator)

    def forward(self, images: Float[Tensor, "L B C H W"]) -> Float[Tensor, "L B tokens width"]:
        """Z of every BS."""
        hidden = nn.functional.silu(self.first(images.flatten(2)))
        return self.second(hidden).unflatten(-1, (self.tokens, self.width))

    def multiply_adds(self) -> int:
        """Multiply-adds of one BS for one snapshot."""
        return sum(layer.weight[0].numel() for layer in (self.first, self.second))


class Residual(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU(norm(x)))))): 3 x 3 kernels, normalised over each sample alone.

    Group normalisation with one group: unlike batch normalisation its result does not depend on the other samples,
    so a batch may be split over processes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.SiLU(),
            _conv(channels, channels, (3, 3)),
            nn.GroupNorm(1, channels),
            nn.SiLU(),
            _conv(channels, channels, (3, 3)),
        )

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Same size."""
        norm, _, first, second_norm, _, second = self.body
        hidden = layer(images, norm, first)  # type: ignore[arg-type]
        return layer(hidden, second_norm, second, images)  # type: ignore[arg-type]


class SegNetEncoder(nn.Module):
    """Res-SegNet encoder of one BS: residual blocks with down-sampling along time-antenna only.

    Every stage halves the rows and keeps the columns, so that row n of Z belongs to subcarrier n.

    Args:
        shape: of the features; columns = N_sc.
        channels: of the stages.
        width: d_z.
        generator: initial weights.
    """

    def __init__(self, shape: InputShape, channels: Sequence[int], width: int, generator: torch.Generator) -> None:
        super().__init__()
        stages: list[nn.Module] = [_conv(shape.channels, channels[0], (3, 3))]
        rows = [shape.rows]
        for size_in, size_out in zip((channels[0], *channels[:-1]), channels):
            rows.append(-(-rows[-1] // 2))
            stages += [Residual(size_in), _conv(size_in, size_out, (3, 3), stride=(2, 1))]
        self.rows = tuple(rows)
        self.stages = nn.Sequential(*stages, Residual(channels[-1]))
        self.collapse = nn.utils.skip_init(nn.Conv2d, channels[-1], width, (rows[-1], 1))
        initialised(self, generator)

    def forward(self, images: Float[Tensor, "B C H N"]) -> Float[Tensor, "B N width"]:
        """Z with one row per subcarrier."""
        for stage in self.stages:
            images = layer(images, None, stage) if isinstance(stage, nn.Conv2d) else stage(images)
        return self.collapse(images)[:, :, 0].transpose(1, 2)

    def multiply_adds(self, columns: int) -> int:
        """Multiply-adds of the plain formulation for one snapshot.

        Args:
            columns: N_sc.
        """
        count, rows = self.collapse.weight.numel(), self.rows[0]
        for stage in self.stages:
            if isinstance(stage, nn.Conv2d):
                rows = -(-rows // stage.stride[0])
            parts = stage.modules()
            count += rows * sum(part.weight.numel() for part in parts if isinstance(part, nn.Conv2d))
        return count * columns


class SegNetDecoder(nn.Module):
    """Mirror of ``SegNetEncoder`` for Stage I; discarded afterwards.

    Args:
        encoder: whose stages are mirrored.
        shape: of the features to reconstruct.
        channels, width: those of the encoder.
        generator: initial weights.
    """

    def __init__(
        self,
        encoder: SegNetEncoder,
        shape: InputShape,
        channels: Sequence[int],
        width: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.rows = encoder.rows
        self.expand = nn.utils.skip_init(nn.ConvTranspose2d, width, channels[-1], (self.rows[-1], 1))
        self.expand.weight.data.uniform_(-1, 1, generator=generator).mul_(width**-0.5)
        self.expand.bias.data.zero_()
        wide = (channels[0], *channels[:-1])
        self.blocks = nn.ModuleList(
            nn.Sequential(Residual(size_in), _conv(size_in, size_out, (3, 3)))
            for size_in, size_out in zip(reversed(channels), reversed(wide))
        )
        self.out = nn.Sequential(Residual(channels[0]), _conv(channels[0], shape.channels, (3, 3)))
        initialised(self, generator)

    def forward(self, latents: Float[Tensor, "B N width"]) -> Float[Tensor, "B C H N"]:
        """Reconstructed features."""
        images = self.expand(latents.transpose(1, 2)[:, :, None])
        for block, rows in zip(self.blocks, reversed(self.rows[:-1])):
            images = nn.functional.interpolate(_through(block, images), size=(rows, images.shape[-1]), mode="nearest")
        return _through(self.out, images)


class SegNetEncoders(nn.Module):
    """One private ``SegNetEncoder`` per BS; the arguments are those of one."""

    def __init__(
        self, num_bs: int, shape: InputShape, channels: Sequence[int], width: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.shape, self.channels, self.width = shape, tuple(channels), width
        self.each = nn.ModuleList(SegNetEncoder(shape, channels, width, generator) for _ in range(num_bs))

    def forward(self, images: Float[Tensor, "L B C H N"]) -> Float[Tensor, "L B N width"]:
        """Z of every BS."""
        return torch.stack([encoder(image) for encoder, image in zip(self.each, images)])

    def decoders(self, generator: torch.Generator) -> nn.ModuleList:
        """Decoders for Stage I, one per BS."""
        made = []
        for encoder in self.each:
            assert isinstance(encoder, SegNetEncoder)
            made.append(SegNetDecoder(encoder, self.shape, self.channels, self.width, generator))
        return nn.ModuleList(made)

    def multiply_adds(self) -> int:
        """Multiply-adds of one BS for one snapshot."""
        first = self.each[0]
        assert isinstance(first, SegNetEncoder)
        return first.multiply_adds(self.shape.columns)


class RawTokens(nn.Module):
    """No encoder: the features of each subcarrier are its token (the strategy "raw CSI" of section IV-D)."""

    def forward(self, images: Float[Tensor, "L B C H N"]) -> Float[Tensor, "L B N width"]:
        """Features with the subcarrier first."""
        return images.permute(0, 1, 4, 2, 3).flatten(3)

    def multiply_adds(self) -> int:
        """None: a BS forwards what it measured."""
        return 0


def _through(block: nn.Module, images: Tensor) -> Tensor:
    """A residual block and the convolution after it."""
    assert isinstance(block, nn.Sequential)
    convolution = block[1]
    assert isinstance(convolution, nn.Conv2d)
    return layer(block[0](images), None, convolution)


def _conv(size_in: int, size_out: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Module:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.utils.skip_init(nn.Conv2d, size_in, size_out, kernel, stride=stride, padding=padding)
