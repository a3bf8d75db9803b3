"""The message of a base station as real bits: path flag, gain, latent codes, packed into bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Integer, UInt8
from torch import Tensor

_BYTE = 8
FLAG_BITS = 1


class BitstreamError(ValueError):
    """A message is not what the agreed layout makes: too short, too long, or with bits set after its end."""


@dataclass(frozen=True)
class Layout:
    """The fixed-length message of one BS, most significant bit first: 1 flag (the BS has a path to the user), B_g gain
    bits, B_d delay bits, D codes of Q bits, zeros up to a whole byte.

    Attributes:
        coefficients: D, numbers in the latent vector.
        bits: Q, bits per number.
        gain_bits: B_g.
        delay_bits: B_d; 0 where clocks are trusted.
        head: what the central unit that the encoders were trained with states. It is not sent: bytes alone do not tell
            which network made them.
    """

    coefficients: int
    bits: int
    gain_bits: int
    delay_bits: int = 0
    head: str = ""

    @property
    def payload_bits(self) -> int:
        """D Q, equation (38)."""
        return self.coefficients * self.bits

    @property
    def message_bits(self) -> int:
        """Everything that crosses the fronthaul: flag, gain, delay and payload."""
        return self.side_bits + self.payload_bits

    @property
    def side_bits(self) -> int:
        """What comes before the payload."""
        return FLAG_BITS + self.gain_bits + self.delay_bits

    @property
    def message_bytes(self) -> int:
        """Bytes that hold the message."""
        return -(-self.message_bits // _BYTE)


@dataclass(frozen=True)
class Messages:
    """What all base stations sent for a batch of snapshots.

    Attributes:
        layout: what the bytes mean.
        data: packed bytes of every BS.
        received: false where a BS sent nothing; its bytes are zeros and mean nothing.
    """

    layout: Layout
    data: UInt8[Tensor, "*batch L bytes"]
    received: Bool[Tensor, "*batch L"]

    def counted_bits(self) -> Integer[Tensor, "*batch L"]:
        """Bits that crossed the fronthaul, 0 from a BS that sent nothing."""
        bits = self.data.shape[-1] * _BYTE - padding_bits(self.layout)
        return self.received.to(torch.int64) * bits

    def to_bytes(self) -> list[bytes | None]:
        """The messages one by one, in the order of the flattened batch; None from a BS that sent nothing."""
        rows = self.data.reshape(-1, self.data.shape[-1]).cpu()
        heard = self.received.flatten().tolist()
        return [bytes(row.tolist()) if there else None for row, there in zip(rows, heard, strict=True)]


def padding_bits(layout: Layout) -> int:
    """Zeros that fill the last byte of a message."""
    return layout.message_bytes * _BYTE - layout.message_bits


def pack_bits(bits: Integer[Tensor, "*batch count"]) -> UInt8[Tensor, "*batch bytes"]:
    """Bytes of bits, most significant first, the last one filled up with zeros.

    Args:
        bits: zeros and ones.
    """
    missing = -bits.shape[-1] % _BYTE
    filled = torch.nn.functional.pad(bits.to(torch.uint8), (0, missing))
    grouped = filled.unflatten(-1, (-1, _BYTE))
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=bits.device)
    return (grouped * weights).sum(dim=-1, dtype=torch.uint8)


def unpack_bits(data: UInt8[Tensor, "*batch bytes"], count: int) -> Integer[Tensor, "*batch count"]:
    """The first ``count`` bits of packed bytes."""
    shifts = torch.arange(_BYTE - 1, -1, -1, dtype=torch.uint8, device=data.device)
    return ((data[..., None] >> shifts) & 1).flatten(-2)[..., :count]


def codes_to_bits(codes: Integer[Tensor, "*batch count"], width: int) -> Integer[Tensor, "*batch bits"]:
    """Every code as ``width`` bits, one after another.

    Args:
        codes: 0 ... 2^width - 1.
        width: bits per code; 0 gives no bits.
    """
    shifts = torch.arange(width - 1, -1, -1, dtype=codes.dtype, device=codes.device)
    return ((codes[..., None] >> shifts) & 1).to(torch.uint8).flatten(-2)


def bits_to_codes(bits: Integer[Tensor, "*batch bits"], width: int) -> Integer[Tensor, "*batch count"]:
    """The inverse of ``codes_to_bits``."""
    if width == 0:
        return bits.new_zeros((*bits.shape[:-1], 1), dtype=torch.int64)
    weights = 2 ** torch.arange(width - 1, -1, -1, dtype=torch.int64, device=bits.device)
    return (bits.unflatten(-1, (-1, width)).to(torch.int64) * weights).sum(dim=-1)


def pack_messages(
    layout: Layout,
    codes: Integer[Tensor, "*batch L D"],
    gain_codes: Integer[Tensor, "*batch L"],
    has_path: Bool[Tensor, "*batch L"],
    received: Bool[Tensor, "*batch L"] | None = None,
    delay_codes: Integer[Tensor, "*batch L"] | None = None,
) -> Messages:
    """What the base stations send.

    Args:
        layout: sizes.
        codes: latent codes, 0 ... 2^Q - 1.
        gain_codes: 0 ... 2^B_g - 1.
        has_path: the BS hears the user; without that its codes mean nothing.
        received: false where a message is lost; None: all arrive.
        delay_codes: 0 ... 2^B_d - 1; None where the layout has no delay.

    Raises:
        BitstreamError: another number of codes than the layout has.
    """
    if codes.shape[-1] != layout.coefficients:
        raise BitstreamError(f"{codes.shape[-1]} codes given, the layout has {layout.coefficients}; use its encoder.")
    parts = [has_path[..., None].to(torch.uint8), codes_to_bits(gain_codes[..., None], layout.gain_bits)]
    if delay_codes is not None:
        parts.append(codes_to_bits(delay_codes[..., None], layout.delay_bits))
    bits = torch.cat((*parts, codes_to_bits(codes, layout.bits)), dim=-1)
    there = torch.ones_like(has_path) if received is None else received
    return Messages(layout, pack_bits(bits) * there[..., None].to(torch.uint8), there)


def unpack_messages(
    messages: Messages,
) -> tuple[Integer[Tensor, "*batch L D"], Integer[Tensor, "*batch L"], Bool[Tensor, "*batch L"]]:
    """Latent codes, gain codes and path flags.

    Raises:
        BitstreamError: the bytes are fewer or more than the layout has, or bits are set after the end.
    """
    layout = messages.layout
    check_length(layout, messages.data.shape[-1])
    bits = unpack_bits(messages.data, layout.message_bytes * _BYTE)
    if bool(bits[..., layout.message_bits :].any()):
        raise BitstreamError(f"bits are set after the {layout.message_bits} of a message; it is damaged, drop it.")
    gain_end = FLAG_BITS + layout.gain_bits
    gain_codes = bits_to_codes(bits[..., FLAG_BITS:gain_end], layout.gain_bits)[..., 0]
    codes = bits_to_codes(bits[..., layout.side_bits : layout.message_bits], layout.bits)
    return codes, gain_codes, bits[..., 0].bool()


def unpack_delays(messages: Messages) -> Integer[Tensor, "*batch L"]:
    """Delay codes of messages that ``unpack_messages`` has accepted; zeros where the layout has none."""
    layout = messages.layout
    bits = unpack_bits(messages.data, layout.side_bits)
    return bits_to_codes(bits[..., FLAG_BITS + layout.gain_bits :], layout.delay_bits)[..., 0]


def messages_from_bytes(layout: Layout, received: Sequence[bytes | None], num_bs: int) -> Messages:
    """One snapshot's messages as they came over the wire.

    Args:
        layout: sizes.
        received: one entry per BS, in the agreed order; None from a BS that sent nothing.
        num_bs: L.

    Raises:
        BitstreamError: another number of entries than base stations, or a message of the wrong length.
    """
    if len(received) != num_bs:
        raise BitstreamError(f"{len(received)} messages for {num_bs} base stations; give None for one that is silent.")
    rows = []
    for message in received:
        if message is not None:
            check_length(layout, len(message))
        rows.append(torch.tensor(list(message or bytes(layout.message_bytes)), dtype=torch.uint8))
    there = torch.tensor([message is not None for message in received])
    return Messages(layout, torch.stack(rows)[None], there[None])


def check_agreed(messages: Messages, layout: Layout, num_bs: int) -> None:
    """BitstreamError unless messages were made for this layout by so many base stations."""
    if messages.layout != layout:
        names = [
            f.name for f in dataclasses.fields(Layout) if getattr(messages.layout, f.name) != getattr(layout, f.name)
        ]
        raise BitstreamError(
            f"messages with {_named(messages.layout, names)} ({messages.layout.message_bits} bits), the decoder has "
            f"{_named(layout, names)} ({layout.message_bits} bits); encode with the same network."
        )
    if messages.data.shape[-2:-1] != (num_bs,):
        raise BitstreamError(
            f"messages of shape {tuple(messages.data.shape)}, the decoder takes [snapshots, {num_bs} base stations, "
            "bytes]; give zeros and received=False for one that is silent."
        )


def _named(layout: Layout, names: Sequence[str]) -> str:
    return ", ".join(f"{name}={getattr(layout, name)}" for name in names)


def check_length(layout: Layout, num_bytes: int) -> None:
    """BitstreamError unless a message has exactly the bytes of its layout."""
    if num_bytes != layout.message_bytes:
        fault = "truncated" if num_bytes < layout.message_bytes else "over-long"
        raise BitstreamError(
            f"{fault} message of {num_bytes} bytes, the layout has {layout.message_bytes} "
            f"({layout.message_bits} bits); encoder and decoder must share d_z, bits and gain_bits."
        )


def fronthaul_ratio(payload_bits: int, num_slots: int, num_antennas: int, num_subcarriers: int) -> float:
    """Payload over the 64 T N_r N_sc bits of forwarding the CSI as complex64, equation (39).

    Args:
        payload_bits: D Q as counted.
        num_slots, num_antennas, num_subcarriers: T, N_r, N_sc.
    """
    return payload_bits / (64 * num_slots * num_antennas * num_subcarriers)
