"""What runs at the central unit: from decoded latents and gains to positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cfpos_envs.supervised.layers import PrivateLinear, initialised, linear, mlp

SIDE_FEATURES = 2
"""Numbers per BS beside its latents and delays: standardised log gain and whether the link is valid."""


@dataclass(frozen=True)
class Received:
    """What the CU has of a batch of snapshots.

    Attributes:
        latents: decoded numbers of every BS.
        log_gain: decoded log10 gain, standardised.
        valid: the BS has a path to the user and its message arrived.
        delays: what is known of the delays of valid links, zeros elsewhere; None: nothing but what latents hold.
    """

    latents: Float[Tensor, "L B N width"]
    log_gain: Float[Tensor, "B L"]
    valid: Bool[Tensor, "B L"]
    delays: Float[Tensor, "B L features"] | None = None

    def side(self) -> Float[Tensor, "B L side"]:
        """``SIDE_FEATURES`` numbers per BS, then ``delays``; the gain of an invalid link reads zero."""
        gain = torch.where(self.valid, self.log_gain, torch.zeros_like(self.log_gain))
        side = torch.stack((gain, self.valid.to(gain.dtype)), dim=-1)
        return side if self.delays is None else torch.cat((side, self.delays.to(side.dtype)), dim=-1)


def gain_mask(
    log_gain: Float[Tensor, "B L"], valid: Bool[Tensor, "B L"], beta: float, printed: bool = False
) -> Float[Tensor, "B L"]:
    """L m with m = softmax(beta g), equation (23), over standardised log gains of the usable links.

    The source takes g itself, which is so small that its softmax is 1/L for every link; and 1/L on every value only
    shrinks the fused token. With L m a link of average gain keeps its value. Invalid links get 0.

    Args:
        log_gain: standardised.
        valid: links that count.
        beta: temperature > 0.
        printed: m itself, as in the source.
    """
    scores = torch.where(valid, beta * log_gain, torch.full_like(log_gain, -1e4))
    share = torch.softmax(scores, dim=-1) * valid
    return share if printed else share * log_gain.shape[-1]


class ChannelMaskedAttention(nn.Module):
    """Equations (24)-(28): a fusion token attends to the tokens of all base stations, their values weighted by gain.

    Args:
        num_bs: L.
        size: d of a token.
        heads: of the attention.
        beta: temperature of the gain mask; None: no mask (the baseline "transformer").
        literal: one head and nothing but equation (27): no normalisation, residual or feed-forward network.
        generator: initial weights.
        printed: see ``gain_mask``.
    """

    def __init__(
        self,
        num_bs: int,
        size: int,
        heads: int,
        beta: float | None,
        literal: bool,
        generator: torch.Generator,
        printed: bool = False,
    ) -> None:
        super().__init__()
        self.printed = printed
        self.heads, self.beta, self.literal = (1 if literal else heads), beta, literal
        self.query, self.key, self.value = (linear(size, size, generator) for _ in range(3))
        if not literal:
            self.norm = nn.LayerNorm(size)
            self.join = linear(size, size, generator)
            self.feed = nn.Sequential(nn.LayerNorm(size), *mlp((size, 2 * size, size), generator))

    def forward(
        self, fusion: Float[Tensor, "S size"], tokens: Float[Tensor, "B S L size"], received: Received
    ) -> Float[Tensor, "B S size"]:
        """The fusion token's row of (27), for every snapshot and every sequence position.

        Args:
            fusion: b^(0), one per position.
            tokens: of the base stations.
            received: gains and which links are valid.
        """
        batch, length, _, size = tokens.shape
        rows = torch.cat((fusion.expand(batch, length, size)[:, :, None], tokens), dim=2)
        seen = rows if self.literal else self.norm(rows)
        weights = torch.ones_like(received.log_gain)
        if self.beta is not None:
            weights = gain_mask(received.log_gain, received.valid, self.beta, self.printed)
        weights = nn.functional.pad(weights.to(seen.dtype), (1, 0), value=1.0)[:, None, :, None]
        # Only the row of the fusion token is read, so only its query is needed.
        query = self._heads(self.query(seen[:, :, :1]))
        key, value = self._heads(self.key(seen)), self._heads(self.value(seen * weights))
        scores = (query * key).sum(dim=-1, keepdim=True) / (size / self.heads) ** 0.5
        heard = nn.functional.pad(received.valid, (1, 0), value=True)[:, None, :, None, None]
        attention = torch.softmax(scores.float().masked_fill(~heard, -1e9), dim=2).to(value.dtype)
        fused = (attention * value).sum(dim=2).flatten(-2)
        if self.literal:
            return fused
        fused = rows[:, :, 0] + self.join(fused)
        return fused + self.feed(fused)

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.heads, -1))


class CmaLstm(nn.Module):
    """The paper's CU: token projection, channel-masked attention, LSTM over subcarriers (32), regression head (33).

    Args:
        num_bs: L.
        num_tokens, width: N_sc and d_z of the latents.
        size: d of a token inside.
        hidden: state of the LSTM.
        heads, beta, literal: see ``ChannelMaskedAttention``.
        flat: tokens of all subcarriers of a BS as one (N_sc d_z wide) instead of one per subcarrier.
        outputs: numbers that the head reads.
        generator: initial weights.
        side: numbers per BS beside its latents.
        printed: see ``gain_mask``.
    """

    def __init__(
        self,
        num_bs: int,
        num_tokens: int,
        width: int,
        size: int,
        hidden: int,
        heads: int,
        beta: float | None,
        literal: bool,
        flat: bool,
        outputs: int,
        generator: torch.Generator,
        side: int = SIDE_FEATURES,
        printed: bool = False,
    ) -> None:
        super().__init__()
        self.num_tokens, self.flat = num_tokens, flat
        positions, token = (1, num_tokens * width) if flat else (num_tokens, width)
        inner = num_tokens * size if flat else size
        self.project = PrivateLinear(num_bs, token, inner, generator)
        self.side = PrivateLinear(num_bs, side, inner, generator)
        self.fusion = nn.Parameter(0.02 * torch.randn(positions, inner, generator=generator))
        self.attention = ChannelMaskedAttention(num_bs, inner, heads, beta, literal, generator, printed)
        # Made without memory first: its own initialisation would draw from the global generator.
        self.lstm = nn.LSTM(size, hidden, batch_first=True, device="meta").to_empty(device="cpu")
        initialised(self.lstm, generator)
        self.head = mlp((hidden, hidden, outputs), generator)

    def forward(self, received: Received) -> Float[Tensor, "B N outputs"]:
        """What the head reads after every subcarrier; the last row is the estimate."""
        latents = received.latents.flatten(2)[:, :, None] if self.flat else received.latents
        links, batch, positions, width = latents.shape
        # The bias of the private projection is the embedding of the BS.
        tokens = self.project(latents.reshape(links, batch * positions, width)).unflatten(1, (batch, positions))
        tokens = tokens + self.side(received.side().transpose(0, 1))[:, :, None]
        fused = self.attention(self.fusion, tokens.permute(1, 2, 0, 3), received)
        sequence = fused.reshape(batch, self.num_tokens, -1) if self.flat else fused
        states, _ = self.lstm(sequence)
        return self.head(states)


class MlpFusion(nn.Module):
    """The fast CU: one residual network on all latents and side information at once.

    Args:
        num_bs: L.
        num_latents: numbers per BS.
        hidden: width.
        depth: residual layers after the first.
        outputs: numbers that the head reads.
        generator: initial weights.
        side: numbers per BS beside its latents.
    """

    def __init__(
        self,
        num_bs: int,
        num_latents: int,
        hidden: int,
        depth: int,
        outputs: int,
        generator: torch.Generator,
        side: int = SIDE_FEATURES,
    ) -> None:
        super().__init__()
        self.first = linear(num_bs * (num_latents + side), hidden, generator)
        self.layers = nn.ModuleList(linear(hidden, hidden, generator) for _ in range(depth))
        self.last = linear(hidden, outputs, generator)

    def forward(self, received: Received) -> Float[Tensor, "B 1 outputs"]:
        """One row for the head per snapshot."""
        valid = received.valid.T[:, :, None].to(received.latents.dtype)
        rows = torch.cat((received.latents.flatten(2) * valid, received.side().transpose(0, 1)), dim=-1)
        hidden = nn.functional.silu(self.first(rows.transpose(0, 1).flatten(1)))
        for layer in self.layers:
            hidden = hidden + nn.functional.silu(layer(hidden))
        return self.last(hidden)[:, None]
