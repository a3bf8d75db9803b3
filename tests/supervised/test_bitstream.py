"""The fronthaul message: every bit counted, and nothing decoded from bytes that do not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfpos_envs.supervised.bitstream import (
    BitstreamError,
    Layout,
    Messages,
    fronthaul_ratio,
    messages_from_bytes,
    pack_messages,
    unpack_messages,
)


def drawn(layout: Layout, seed: int, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**layout.bits, (*shape, layout.coefficients), generator=generator, dtype=torch.int32)
    gains = torch.randint(0, 2**layout.gain_bits, shape, generator=generator)
    return codes, gains, torch.rand(shape, generator=generator) < 0.7


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 16), st.integers(0, 32), st.integers(0, 1000))
def test_what_is_sent_is_received(coefficients: int, bits: int, gain_bits: int, seed: int) -> None:
    layout = Layout(coefficients, bits, gain_bits)
    codes, gains, has_path = drawn(layout, seed, (3, 2))
    messages = pack_messages(layout, codes, gains, has_path)
    got_codes, got_gains, got_paths = unpack_messages(messages)
    assert torch.equal(got_codes, codes.long())
    assert torch.equal(got_gains, gains)
    assert torch.equal(got_paths, has_path)
    assert messages.counted_bits().tolist() == [[1 + gain_bits + coefficients * bits] * 2] * 3


def test_bytes_are_those_worked_out_by_hand() -> None:
    # flag 1, gain 101, codes 11 00 10 -> 1101 1100 10(00 0000)
    layout = Layout(coefficients=3, bits=2, gain_bits=3)
    messages = pack_messages(layout, torch.tensor([[3, 0, 2]]), torch.tensor([5]), torch.tensor([True]))
    assert messages.to_bytes() == [bytes([0b11011100, 0b10000000])]


@pytest.mark.parametrize(("bits", "percent"), [(10, 6.25), (8, 5.0), (6, 3.75), (4, 2.5)])
def test_counted_payload_is_the_printed_share_of_lossless_csi(bits: int, percent: float) -> None:
    layout = Layout(coefficients=24 * 32, bits=bits, gain_bits=32)
    messages = pack_messages(layout, *drawn(layout, 0, (1, 6)))
    payload = messages.counted_bits() - 1 - 32
    assert torch.equal(payload, torch.full((1, 6), 768 * bits))
    assert 100 * fronthaul_ratio(int(payload[0, 0]), num_slots=10, num_antennas=8, num_subcarriers=24) == percent


def test_a_silent_bs_sends_nothing() -> None:
    layout = Layout(4, 4, 8)
    codes, gains, has_path = drawn(layout, 3, (1, 3))
    messages = pack_messages(layout, codes, gains, has_path, torch.tensor([[True, False, True]]))
    wire = messages.to_bytes()
    assert wire[1] is None
    assert messages.counted_bits().tolist() == [[25, 0, 25]]
    again = messages_from_bytes(layout, wire, 3)
    assert torch.equal(again.data, messages.data)
    assert torch.equal(again.received, messages.received)


def test_damaged_messages_are_refused() -> None:
    layout = Layout(4, 4, 8)
    whole = pack_messages(layout, *drawn(layout, 4, (1, 2)))
    with pytest.raises(BitstreamError, match="truncated message of 3 bytes, the layout has 4"):
        unpack_messages(dataclasses.replace(whole, data=whole.data[..., :-1]))
    with pytest.raises(BitstreamError, match="over-long message of 5 bytes"):
        unpack_messages(Messages(layout, torch.nn.functional.pad(whole.data, (0, 1)), whole.received))
    dirty = whole.data.clone()
    dirty[0, 0, -1] |= 1
    with pytest.raises(BitstreamError, match="after the 25"):
        unpack_messages(dataclasses.replace(whole, data=dirty))
    sent = whole.to_bytes()
    assert sent[0] is not None
    with pytest.raises(BitstreamError, match="truncated"):
        messages_from_bytes(layout, [sent[0][:2], sent[1]], 2)
    with pytest.raises(BitstreamError, match="2 messages for 6 base stations"):
        messages_from_bytes(layout, sent, 6)
    with pytest.raises(BitstreamError, match="5 codes given, the layout has 4"):
        pack_messages(layout, torch.zeros(1, 2, 5, dtype=torch.int32), torch.zeros(1, 2).long(), torch.ones(1, 2) > 0)
