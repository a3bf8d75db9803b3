"""``clock=free``: messages and positions that a user's clock does not change, at no more bits."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from cfpos_envs.physics.ecc.clock import delayed
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.bitstream import unpack_delays, unpack_messages
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.inputs import network_shape
from cfpos_envs.supervised.network import EccNetwork
from cfpos_envs.supervised.quantiser import cycle_codes, cycle_levels
from tests.supervised.test_networks import SMALL, SYSTEM, batch, generator, network

CONFIG = EccFastAgentConfig(clock="free", head="bins", bins=12, **SMALL)
WIDE = dataclasses.replace(SYSTEM, num_subcarriers=24)


def off(some: Batch, cycles: float) -> Batch:
    """The same users with their clocks off."""
    return some.replace(features=delayed(some.features, torch.full(some.valid.shape, cycles)))


@pytest.mark.parametrize("cycles", [0.07, -0.4, 3.25])
def test_a_common_offset_changes_the_delays_and_nothing_else(cycles: float) -> None:
    made, some = network(CONFIG).eval(), batch(CONFIG, count=40)
    plain, turned = made.encode(some), made.encode(off(some, cycles))
    codes, others = (unpack_messages(messages) for messages in (plain, turned))
    # Rounding may take a number over the edge of its cell.
    assert float((codes[0] != others[0]).float().mean()) < 1e-3
    assert torch.equal(codes[1], others[1])
    moved = (unpack_delays(turned) - unpack_delays(plain) - round(cycles * 4096)).remainder(4096)
    assert set(moved.flatten().tolist()) <= {0, 1, 4095}
    torch.testing.assert_close(made.decode(turned), made.decode(plain), atol=0.02, rtol=0)
    trusted = network(dataclasses.replace(CONFIG, clock="trusted")).eval()
    believed = [unpack_messages(trusted.encode(here))[0] for here in (some, off(some, cycles))]
    assert float((believed[0] != believed[1]).float().mean()) > 0.05


@pytest.mark.parametrize(
    ("config", "bits"),
    [
        (EccFastAgentConfig(), 1 + 8 + 24 * 4 * 4),
        # Twelve bits of delay take a token of sixteen.
        (EccFastAgentConfig(clock="free"), 1 + 8 + 12 + 23 * 4 * 4),
        (EccFastAgentConfig(clock="free", delay_bits=17), 1 + 8 + 17 + 22 * 4 * 4),
        (EccFastAgentConfig(clock="free", latent_width=1, bits=2), 1 + 8 + 12 + 18 * 2),
        # Tokens that belong to lags stay.
        (EccAgentConfig(clock="free", features="acf"), 1 + 8 + 12 + 8 * 4 * 4),
        (EccAgentConfig(features="acf"), 1 + 8 + 8 * 4 * 4),
    ],
)
def test_the_bits_of_the_delay_are_counted(config: EccAgentConfig, bits: int) -> None:
    made = EccNetwork(config, network_shape(config, WIDE), generator())
    some = Batch(
        torch.randn(2, 3, 2, 9, 8, generator=generator()),
        torch.zeros(2, 3),
        torch.ones(2, 3, dtype=torch.bool),
        torch.zeros(2, 3),
    )
    sent = made.encode(some)
    assert made.layout.message_bits == bits
    assert sent.counted_bits().unique().tolist() == [bits]
    if config.clock == "trusted":
        assert int(unpack_delays(sent).sum()) == 0


def test_cycles_have_no_end() -> None:
    # A cell of 1/4096: the code before 0 is the last one.
    assert cycle_codes(torch.tensor([0.0, 1.0, -1e-4, 0.5]), 12).tolist() == [0, 0, 4095, 2048]
    levels = cycle_levels(torch.arange(4096), 12)
    assert torch.equal(cycle_codes(levels, 12), torch.arange(4096))
    assert float(levels[0]) == 0.5 / 4096


def test_files_of_builds_before_trust_clocks() -> None:
    former = {name: value for name, value in EccFastAgentConfig().to_dict().items() if "clock" not in name}
    former.pop("delay_bits")
    assert EccFastAgentConfig.restored(former).clock == "trusted"
    assert EccFastAgentConfig.restored(former).delay_tokens == 0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"clock": "off"}, "clock='off'.*trusted"),
        ({"clock": "free", "features": "cov"}, "clock=free reads delays from features=acf, not cov"),
        ({"delay_bits": 0}, r"delay_bits=0 must be at least 1 \(from 1 to 20\)"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EccFastAgentConfig(**wrong)


def test_a_delay_that_leaves_nothing_is_refused() -> None:
    config = EccFastAgentConfig(clock="free", latent_width=1, bits=1, delay_bits=20)
    with pytest.raises(ValueError, match="delay_bits=20 take all 6 tokens of latent_width=1 with bits=1"):
        network_shape(config, SYSTEM)
