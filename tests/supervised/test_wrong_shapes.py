"""Batches and messages that are another network's are refused in one line that says what is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from baselines.ecc.networks import MfcNet, MfcOptions
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.bitstream import BitstreamError
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.inputs import check_raw
from tests.supervised.test_networks import SMALL, SYSTEM, batch, generator, network

CONFIG = EccFastAgentConfig(**SMALL)
TAKES = r"the network takes \[snapshots, base stations, channels, rows, columns\] = \[B, 3, 2, 9, 4\]"


@pytest.mark.parametrize("cut", [lambda f: f[:, :2], lambda f: f[..., :3], lambda f: f[0], lambda f: f.flatten(2)])
@pytest.mark.parametrize("use", ["predict", "loss", "encode"])
def test_features_of_another_shape(use: str, cut: Callable[[torch.Tensor], torch.Tensor]) -> None:
    made, some = network(CONFIG), batch(CONFIG)
    wrong = object.__new__(Batch)
    wrong.__dict__.update({**some.__dict__, "features": cut(some.features)})
    with pytest.raises(ValueError, match=TAKES) as refused:
        getattr(made, use)(wrong)
    assert str(tuple(cut(some.features).shape)) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["log_gain", "valid"])
@pytest.mark.parametrize("cut", [lambda v: v[:, :2], lambda v: v[:1], lambda v: v[:, 0]])
def test_gains_and_flags_of_another_shape(name: str, cut: Callable[[torch.Tensor], torch.Tensor]) -> None:
    right, baseline = batch(CONFIG), MfcNet(options=MfcOptions(channels=3, depth=0)).make_network(SYSTEM, generator())
    for made, some in ((network(CONFIG), right), (baseline, batch(EccAgentConfig()))):
        wrong = object.__new__(Batch)
        wrong.__dict__.update({**some.__dict__, name: cut(getattr(some, name))})
        with pytest.raises(ValueError, match=rf"^{name} has shape .*, with these features it must be \(5, 3\): one"):
            made.predict(wrong)


def test_features_of_another_network_in_a_baseline() -> None:
    made = MfcNet(options=MfcOptions(channels=3, depth=0)).make_network(SYSTEM, generator())
    right = batch(EccAgentConfig())
    assert made.predict(right).shape == (5, 3)
    with pytest.raises(ValueError, match=r"features have shape \(5, 3, 2, 9, 4\), the network takes .* 3, 2, 4, 6\]"):
        made.predict(batch(CONFIG))


@pytest.mark.parametrize(
    ("shape", "config"),
    [
        ((5, 2, 4, 4, 6), CONFIG),
        ((5, 3, 4, 4, 7), CONFIG),
        ((5, 3, 4, 6), CONFIG),
        ((3, 4, 4, 6), CONFIG),
        ((5, 3, 2, 4, 6), EccAgentConfig(slots=0)),
    ],
)
def test_raw_csi_of_another_shape(shape: tuple[int, ...], config: EccAgentConfig) -> None:
    raw, valid = torch.ones(shape, dtype=torch.complex64), torch.ones(shape[:2], dtype=torch.bool)
    with pytest.raises(
        ValueError, match=r"csi is torch.complex64 of shape .*antennas, subcarriers\] = \[S, 3, 4, 4, 6\]"
    ):
        check_raw(raw, valid, config, SYSTEM)


def test_flags_of_another_shape_and_real_numbers() -> None:
    raw = torch.ones(5, 3, 4, 4, 6, dtype=torch.complex64)
    with pytest.raises(ValueError, match=r"valid has shape \(4, 3\), with this csi it must be \(5, 3\)"):
        check_raw(raw, torch.ones(4, 3, dtype=torch.bool), CONFIG, SYSTEM)
    with pytest.raises(ValueError, match=r"csi is torch.float32 of shape"):
        check_raw(raw.real, torch.ones(5, 3, dtype=torch.bool), CONFIG, SYSTEM)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bits": 3}, r"messages with bits=3 \(81 bits\), the decoder has bits=4 \(105 bits\)"),
        ({"latent_width": 2, "gain_bits": 4}, r"with coefficients=12, gain_bits=4 \(53 bits\), the decoder has coef"),
        ({"clock": "free"}, r"messages with coefficients=20, delay_bits=12 \(101 bits\), the decoder has"),
        ({"head": "regression"}, r"messages with head=regression \(105 bits\), the decoder has head=bins \(105 bits\)"),
    ],
)
def test_messages_of_another_layout(change: dict[str, object], said: str) -> None:
    sender = network(dataclasses.replace(CONFIG, **change))  # type: ignore[arg-type]
    with pytest.raises(BitstreamError, match=said):
        network(CONFIG).eval().decode(sender.encode(batch(CONFIG)))


def test_messages_of_fewer_base_stations() -> None:
    made = network(CONFIG).eval()
    sent = made.encode(batch(CONFIG))
    fewer = dataclasses.replace(sent, data=sent.data[:, :2], received=sent.received[:, :2])
    with pytest.raises(BitstreamError, match=r"messages of shape \(5, 2, 14\), the decoder takes \[snapshots, 3 base"):
        made.decode(fewer)
