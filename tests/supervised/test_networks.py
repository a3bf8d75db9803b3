"""The networks of the base stations and the central unit, each against its equation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from agents.ecc.autoencoder import Autoencoders, cosine_loss
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.supervised.agent_config import EccAgentConfig, EccFastAgentConfig
from cfpos_envs.supervised.data import Batch
from cfpos_envs.supervised.encoders import InputShape, MlpEncoder, SegNetEncoders
from cfpos_envs.supervised.fusion import ChannelMaskedAttention, Received, gain_mask
from cfpos_envs.supervised.heads import weighted_loss
from cfpos_envs.supervised.inputs import as_images, batch_of, feature_images, input_shape, network_shape
from cfpos_envs.supervised.network import EccNetwork
from tests.physics.ecc.reference import encoder_input

SYSTEM = CsiSystem(
    carrier_hz=3.5e9,
    subcarrier_spacing_hz=720e3,
    num_subcarriers=6,
    num_slots=4,
    array_shape=(2, 2),
    spacing_wavelengths=0.5,
    num_bs=3,
    area_min_m=(0.0, 0.0, 0.0),
    area_max_m=(60.0, 40.0, 10.0),
    pilot_power_w=1.0,
    noise_power_w=1e-3,
    log_gain_mean=(1.0, 1.1, 1.2),
    log_gain_std=(0.2, 0.3, 0.4),
)
SMALL: dict[str, Any] = {"channels": (4, 6), "fusion_size": 8, "fusion_hidden": 8, "heads": 2, "encoder_hidden": 8}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(config: EccAgentConfig, count: int = 5, seed: int = 1) -> Batch:
    csi = torch.randn(count, 3, 4, 4, 6, generator=generator(seed), dtype=torch.complex64)
    made = batch_of(csi, torch.ones(count, 3, dtype=torch.bool), config, SYSTEM)
    return made.replace(position_m=60 * torch.rand(count, 3, generator=generator(seed + 1)))


def network(config: EccAgentConfig) -> EccNetwork:
    made = EccNetwork(config, network_shape(config, SYSTEM), generator())
    made.calibrate_inputs(batch(config))
    return made


VARIANTS: dict[str, EccAgentConfig] = {
    "fast": EccFastAgentConfig(**SMALL),
    "fast cov": EccFastAgentConfig(features="cov", **SMALL),
    "fast bins": EccFastAgentConfig(head="bins", bins=12, **SMALL),
    "bins": EccAgentConfig(head="bins", bins=12, **SMALL),
    "fast free": EccFastAgentConfig(clock="free", **SMALL),
    "free": EccAgentConfig(clock="free", features="acf", **SMALL),
    "full": EccAgentConfig(**SMALL),
    "all slots": EccAgentConfig(slots=0, **SMALL),
    "two slots": EccAgentConfig(slots=2, **SMALL),
    "segnet acf": EccAgentConfig(features="acf", **SMALL),
    "amplitude": EccAgentConfig(features="amplitude", **SMALL),
    "flat": EccAgentConfig(tokens="flat", **SMALL),
    "literal": EccAgentConfig(literal=True, **SMALL),
    "no mask": EccAgentConfig(mask=False, **SMALL),
    "mask as printed": EccAgentConfig(mask_printed=True, **SMALL),
    "raw": EccAgentConfig(strategy="raw", **SMALL),
    "scalar": EccFastAgentConfig(strategy="scalar", features="stabilised", **SMALL),
    "unquantised": EccAgentConfig(bits=0, **SMALL),
    "no gain bits": EccAgentConfig(gain_bits=0, **SMALL),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_learns_through_its_quantiser_and_answers_from_its_bits(name: str) -> None:
    config = VARIANTS[name]
    made, some = network(config), batch(config)
    made.loss(some).backward()
    silent = [
        key
        for key, parameter in made.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.abs().sum() > 0))
    ]
    # A key's bias shifts all scores alike, which a softmax does not see.
    assert [key for key in silent if key != "fusion.attention.key.bias"] == []
    made.eval()
    located = made.predict(some)
    torch.testing.assert_close(located, made.head.position_m(made(some)[:, -1]))
    assert located.shape == (5, 3)


@pytest.mark.parametrize("name", ["fast", "fast free", "full", "flat", "literal"])
def test_what_an_invalid_link_holds_does_not_matter(name: str) -> None:
    config = VARIANTS[name]
    made, some = network(config).eval(), batch(config)
    valid = some.valid.clone()
    valid[:, 1] = False
    changed = some.features.clone()
    changed[:, 1] = 7.0
    first = made.predict(some.replace(valid=valid))
    torch.testing.assert_close(first, made.predict(some.replace(valid=valid, features=changed)))
    assert not torch.allclose(first, made.predict(some))
    lost = made.encode(some, received=valid)
    torch.testing.assert_close(made.decode(lost), first)
    nothing = made.predict(some.replace(valid=torch.zeros_like(valid)))
    assert bool(torch.isfinite(nothing).all())


def test_gain_mask_is_the_softmax_times_the_number_of_links() -> None:
    gains = torch.tensor([[0.0, math.log(2.0), math.log(3.0)]])
    everyone = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(gain_mask(gains, everyone, 1.0), torch.tensor([[0.5, 1.0, 1.5]]))
    two = torch.tensor([[True, False, True]])
    torch.testing.assert_close(gain_mask(gains, two, 1.0), torch.tensor([[0.75, 0.0, 2.25]]))
    assert gain_mask(gains, ~everyone, 1.0).tolist() == [[0, 0, 0]]
    torch.testing.assert_close(gain_mask(gains, two, 1.0, printed=True), torch.tensor([[0.25, 0.0, 0.75]]))


@pytest.mark.parametrize("printed", [False, True])
def test_literal_attention_is_equation_27(printed: bool) -> None:
    size, links, beta = 6, 3, 0.7
    part = ChannelMaskedAttention(links, size, 1, beta, True, generator(), printed)
    fusion, tokens = torch.randn(2, size), torch.randn(4, 2, links, size)
    gains, valid = torch.randn(4, links), torch.ones(4, links, dtype=torch.bool)
    answer = part(fusion, tokens, Received(torch.zeros(links, 4, 2, 1), gains, valid))
    mask = torch.softmax(beta * gains, dim=-1) * (1 if printed else links)
    for snapshot, place in itertools.product(range(4), range(2)):
        rows = torch.cat((fusion[place][None], tokens[snapshot, place]))
        gated = torch.diag(torch.cat((torch.ones(1), mask[snapshot]))) @ rows
        scores = part.query(rows) @ part.key(rows).T / size**0.5
        # The bias of the value projection is no part of (27), so it is gated with its row in neither version.
        output = torch.softmax(scores, dim=-1) @ part.value(gated)
        torch.testing.assert_close(answer[snapshot, place], output[0])


def test_weighted_loss_is_equation_34() -> None:
    positions, target = torch.randn(7, 4, 3, generator=generator()), torch.randn(7, 3, generator=generator(1))
    weights = [2 * i / (4 * 5) for i in (1, 2, 3, 4)]
    assert sum(weights) == pytest.approx(1)
    squares = (positions - target[:, None]).square().sum(dim=-1)
    expected = sum(weight * squares[:, index].mean() for index, weight in enumerate(weights))
    torch.testing.assert_close(weighted_loss(positions, target, False, 1.0), expected)
    roots = sum(weight * squares[:, index].sqrt().mean() for index, weight in enumerate(weights))
    torch.testing.assert_close(weighted_loss(positions, target, True, 1.0), roots, atol=1e-4, rtol=1e-4)


def test_cosine_loss_sees_neither_scale_nor_common_phase() -> None:
    truth, other = torch.randn(2, 3, 2, 5, 6, generator=generator())
    turned = torch.view_as_real(torch.view_as_complex(truth.movedim(-3, -1).contiguous()) * 2.5j).movedim(-1, -3)
    torch.testing.assert_close(cosine_loss(truth, turned), -torch.ones(3))
    first = torch.view_as_complex(truth.movedim(-3, -1).contiguous()).flatten(1)
    second = torch.view_as_complex(other.movedim(-3, -1).contiguous()).flatten(1)
    expected = -(first.conj() * second).sum(1).abs() / (first.norm(dim=1) * second.norm(dim=1))
    torch.testing.assert_close(cosine_loss(truth, other), expected)
    assert float(cosine_loss(truth, 0 * other).abs().max()) < 1e-3


def test_stage_one_trains_encoders_alone_and_split_freezes_them() -> None:
    config = EccAgentConfig(strategy="local-split", **SMALL)
    made, some = network(config), batch(config)
    assert not any(parameter.requires_grad for parameter in made.encoder.parameters())
    stage = Autoencoders(made, generator())
    optimiser = torch.optim.Adam(stage.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = stage.loss(some)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    # 8 x 6 complex numbers of noise through a bottleneck of 24 reals: far from -1, but far from the start as well.
    assert losses[-1] < losses[0] - 0.2
    with pytest.raises(ValueError, match="segnet"):
        Autoencoders(network(EccFastAgentConfig(**SMALL)), generator())


def test_rows_of_z_stay_with_their_subcarriers() -> None:
    encoders = SegNetEncoders(1, InputShape(2, 8, 24), (4, 4), 3, generator())
    image = torch.randn(1, 1, 2, 8, 24, generator=generator(1))
    # Normalisation over the whole image lets a change be felt everywhere, but strongest where it is.
    for column in (3, 12, 20):
        changed = image.clone()
        changed[..., column] += 1e-2
        moved = (encoders(changed) - encoders(image)).abs().sum(dim=-1)[0, 0]
        assert moved.shape == (24,)
        assert abs(int(moved.argmax()) - column) <= 3


def test_multiply_adds_are_counted() -> None:
    assert MlpEncoder(3, InputShape(1, 1, 10), 7, 4, 2, generator()).multiply_adds() == 10 * 7 + 7 * 8
    encoders = SegNetEncoders(3, InputShape(2, 4, 6), (3,), 2, generator())
    blocks = 2 * (3 * 3 * 9) * 24 + (3 * 3 * 9) * 12 + 2 * (3 * 3 * 9) * 12
    assert encoders.multiply_adds() == (2 * 3 * 9) * 24 + blocks + (3 * 2 * 2) * 6


def test_features_are_the_ones_of_the_source() -> None:
    csi = torch.randn(2, 3, 4, 4, 6, generator=generator(), dtype=torch.complex64)
    config = EccAgentConfig(slots=0, **SMALL)
    images = feature_images(csi, config, SYSTEM)
    assert images.shape == (2, 3, 2, 16, 6)
    scale = (2 * 4 * 4 * 6) ** 0.5
    torch.testing.assert_close(images, encoder_input(csi).movedim(-1, -3) * scale)
    for features in ("stabilised", "amplitude", "cov", "acf"):
        chosen = EccFastAgentConfig(features=features, **SMALL)
        shape = input_shape(chosen, SYSTEM)
        numbers = torch.arange(float(shape.size))
        assert sorted(as_images(numbers, chosen, SYSTEM).flatten().tolist()) == numbers.tolist()


def test_settings_that_cannot_work_are_refused() -> None:
    for wrong, message in (
        ({"fusion_size": 10, "heads": 4}, "multiple of heads"),
        ({"encoder": "mlp", "strategy": "local-joint"}, "needs encoder=segnet"),
        ({"bits": 17}, "bits=17 must be at most 16"),
        ({"gain_bits": 33}, "gain_bits=33 must be at most 32"),
        ({"beta": 0}, "beta=0"),
        ({"features": "phase"}, "features='phase'"),
        ({"bs_dropout": 1.5}, "bs_dropout=1.5"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"pool": 0}, "pool=0"),
    ):
        with pytest.raises(ValueError, match=message):
            EccAgentConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="latent_width"):
        EccAgentConfig.preset("small", latent_with=3)
    with pytest.raises(ValueError, match="no image"):
        network(EccAgentConfig(features="cov", **SMALL))
    with pytest.raises(ValueError, match="slots=3 does not divide"):
        network(EccAgentConfig(slots=3, **SMALL))
