"""Learned baselines: they learn, they keep what they learned, they count the bits that really cross."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from baselines import make_policy
from baselines.ecc.networks import Adcpm, CsiScalarQ, MfcNet, ScalarOptions, Transformer, scalar_fronthaul
from cfpos_envs import evaluate, make_env
from cfpos_envs.checkpoints import read_checkpoint, write_checkpoint
from cfpos_envs.checks import Notice
from cfpos_envs.physics.ecc.csi import side_gain
from cfpos_envs.supervised.bitstream import Layout
from cfpos_envs.supervised.data import Pool
from tests.baselines.ecc.synthetic import SYSTEM, draw_places, measure

NAMES = {"transformer": Transformer, "adcpm": Adcpm, "mfcnet": MfcNet, "csi-scalar-q": CsiScalarQ}
BRIEF = {"train_samples": 64, "train_steps": 2, "batch_size": 32}
ENV = "ecc-raytraced-v0"


def pool(policy: Any, count: int, seed: int) -> Pool:
    """What a policy would see of users in plain sight."""
    places = draw_places(count, seed)
    received = measure(places, seed)
    batch = policy.inputs(received.csi[:, 0], received.valid[:, 0], SYSTEM)
    return Pool(batch.features.half(), batch.log_gain, batch.valid, places)


def taught(name: str, **options: Any) -> Any:
    """A policy that has learned from users in plain sight of three arrays."""
    kind = NAMES[name]
    policy: Any = kind(None, kind.options_class(**options))
    policy.system = SYSTEM
    policy.train_on(pool(policy, 2000, 0), progress=False)
    return policy


# Users uniform in 40 x 40 x 6 m are 15.5 m from the middle on average: whoever learns nothing has that error.
@pytest.mark.parametrize(
    ("name", "steps", "most_m"),
    [("transformer", 120, 8.0), ("adcpm", 50, 10.0), ("mfcnet", 150, 9.0), ("csi-scalar-q", 120, 5.0)],
)
def test_learns_where_users_are(name: str, steps: int, most_m: float) -> None:
    policy = taught(name, train_steps=steps, batch_size=64, lr=3e-3)
    users = draw_places(300, seed=77)
    found = policy.locate(measure(users, seed=78))
    assert (found.position[:, 0] - users).norm(dim=-1).mean() < most_m


@pytest.mark.parametrize("name", NAMES)
def test_weights_survive_saving_and_another_process(name: str, tmp_path: Path) -> None:
    policy = taught(name, train_steps=2, batch_size=32)
    policy.save(tmp_path / "weights.pt")
    again: Any = make_policy(name, weights=str(tmp_path / "weights.pt"))
    received = measure(draw_places(5, seed=4))
    # A recurrent layer rounds differently once its weights lie in memory in another way.
    torch.testing.assert_close(again.locate(received).position, policy.locate(received).position, atol=1e-4, rtol=0)


def test_the_file_decides_what_the_network_is(tmp_path: Path) -> None:
    policy = taught("csi-scalar-q", train_steps=1, batch_size=32, bits=2, hidden=64)
    policy.save(tmp_path / "weights.pt")
    again: Any = make_policy("csi-scalar-q", weights=str(tmp_path / "weights.pt"))
    assert (again.options.bits, again.options.hidden) == (2, 64)
    assert again.fronthaul_bits == policy.fronthaul_bits == 2 * 8 * 8 * 2 + 8 + 1


def test_a_file_of_a_build_without_heads_holds_three_numbers_and_says_so(tmp_path: Path) -> None:
    before = taught("csi-scalar-q", train_steps=1, batch_size=32, head="regression")
    before.save(tmp_path / "old.pt")
    stored = read_checkpoint(tmp_path / "old.pt")
    del stored["agent"]["options"]["head"], stored["agent"]["options"]["bins"]
    write_checkpoint(tmp_path / "old.pt", stored)
    assert ScalarOptions.head == "bins"
    with pytest.warns(UserWarning, match=r"^the csi-scalar-q file is of a build before head: it means head=regression"):
        again: Any = make_policy("csi-scalar-q", weights=str(tmp_path / "old.pt"))
    received = measure(draw_places(5, seed=4))
    torch.testing.assert_close(again.locate(received).position, before.locate(received).position)


def test_a_file_that_is_refused_leaves_a_policy_as_it_was(tmp_path: Path) -> None:
    policy = taught("csi-scalar-q", train_steps=1, batch_size=32, hidden=8)
    other = taught("csi-scalar-q", train_steps=1, batch_size=32, hidden=16, bits=2)
    other.save(tmp_path / "whole.pt")
    whole = read_checkpoint(tmp_path / "whole.pt")["agent"]
    received = measure(draw_places(5, seed=4))
    options, before = policy.options, policy.locate(received).position
    less = {name: value for name, value in whole["network"].items() if not name.startswith("fusion.last")}
    for change, said in (
        ({"calibration": {"places": 300}}, "^the file's calibration is damaged"),
        ({"network": less}, "the weights are of another network"),
    ):
        write_checkpoint(tmp_path / "bad.pt", {"agent": {**whole, **change}})
        with pytest.raises(ValueError, match=said):
            policy.load(tmp_path / "bad.pt")
        assert policy.options == options
        assert torch.equal(policy.locate(received).position, before)
    policy.load(tmp_path / "whole.pt")
    assert policy.options.bits == 2


def test_places_of_a_calibration_are_not_trained_on() -> None:
    policy = NAMES["csi-scalar-q"](None, ScalarOptions(train_steps=1, batch_size=32, hidden=8))
    policy.system = SYSTEM
    some = pool(policy, 300, 0)
    with pytest.raises(ValueError, match=r"^250 of 250 places of the calibration are places of the training too"):
        policy.train_on(some, progress=False, held=some.first(250))
    policy.train_on(some, progress=False, held=pool(policy, 250, 1))
    assert policy.calibration is not None
    assert policy.calibration.places == 250


def test_a_set_of_few_places_states_nothing_and_says_so() -> None:
    env = make_env(ENV, seed=0, num_slots=2)
    policy: Any = make_policy("csi-scalar-q", env, hidden=8, **BRIEF)
    said = "^no uncertainty will be stated: 6 places set aside are too few .* a tenth of 2000 or more"
    with pytest.warns(UserWarning, match=said):
        policy.train(progress=False)
    assert policy.calibration is None


def test_foreign_and_broken_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    taught("mfcnet", train_steps=1, batch_size=32).save(path)
    with pytest.raises(ValueError, match="holds 'mfcnet', not 'adcpm'"):
        make_policy("adcpm", weights=str(path))
    with pytest.raises(ValueError, match="was trained with num_bs=3, not 6"):
        make_policy("mfcnet", ENV, weights=str(path))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="truncated"):
        make_policy("mfcnet", weights=str(path))
    with pytest.raises(FileNotFoundError, match=r"weights='nowhere.pt': no checkpoint at nowhere.pt"):
        make_policy("mfcnet", weights="nowhere.pt")


@pytest.mark.parametrize("name", NAMES)
def test_what_has_learned_nothing_says_so(name: str, tmp_path: Path) -> None:
    policy: Any = make_policy(name)
    with pytest.raises(ValueError, match=rf"{name} has learned nothing yet; make it with an ecc environment"):
        policy.locate(measure(draw_places(1, seed=0)))
    with pytest.raises(ValueError, match="has learned nothing to save"):
        policy.save(tmp_path / "x")


@pytest.mark.parametrize("name", NAMES)
def test_learns_from_its_environment_by_itself_and_repeats_it(name: str) -> None:
    results = []
    for _ in range(2):
        env = make_env(ENV, seed=0, num_slots=2)
        with pytest.warns(
            Notice, match=rf"^{name} has no weights: it learns now from {BRIEF['train_samples']} snapshots"
        ):
            results.append(evaluate(env, make_policy(name, env, **BRIEF), episodes=3))
    np.testing.assert_array_equal(results[0].errors, results[1].errors)
    assert results[0].fronthaul_bits == results[1].fronthaul_bits > 0


def test_payloads_are_what_crosses() -> None:
    env = make_env(ENV, seed=0)
    bits = {name: make_policy(name, env).fronthaul_bits for name in NAMES}  # type: ignore[attr-defined]
    # 2 A N Q + B_g + flag; d_z 24 Q + B_g + flag; (A N + 1) floats + flag; 64 T A N.
    assert bits == {
        "csi-scalar-q": 2 * 8 * 24 * 4 + 8 + 1,
        "transformer": 4 * 24 * 4 + 8 + 1,
        "adcpm": 32 * (8 * 24 + 1) + 1,
        "mfcnet": 64 * 10 * 8 * 24,
    }


def test_a_budget_is_kept() -> None:
    env = make_env(ENV, seed=0, fronthaul_bits_max=1000)
    with pytest.raises(ValueError, match="csi-scalar-q sends 1545 bits per BS"):
        evaluate(env, make_policy("csi-scalar-q", env), episodes=1)


def quantised(bits: int, scale: complex = 1.0) -> tuple[torch.Tensor, ...]:
    received = measure(draw_places(64, seed=8))
    csi, valid = received.csi[:, 0] * scale, received.valid[:, 0]
    return scalar_fronthaul(csi, torch.zeros(valid.shape), valid, ScalarOptions(bits=bits, gain_bits=8))


def test_more_bits_are_nearer_to_the_truth() -> None:
    exact, *_ = quantised(16)
    errors = [float((quantised(bits)[0] - exact).abs().square().sum((-1, -2)).mean()) for bits in (1, 2, 4, 8)]
    assert all(finer < 0.5 * coarser for coarser, finer in itertools.pairwise(errors))
    assert errors[-1] < 1e-3
    # The CSI of a link has unit energy.
    torch.testing.assert_close(side_gain(exact), torch.ones(exact.shape[:2]), atol=1e-3, rtol=0)


def test_scale_and_slot_phases_do_not_matter() -> None:
    csi, *_ = quantised(10)
    scaled, *_ = quantised(10, scale=3e-4)
    # Other oscillator phases in every slot.
    other = measure(draw_places(64, seed=8), seed=99)
    turned, *_ = scalar_fronthaul(
        other.csi[:, 0], torch.zeros(64, 3), other.valid[:, 0], ScalarOptions(bits=10, gain_bits=8)
    )
    # The same average but for one phase per link: its reference may be any of equally strong subcarriers.
    for again in (scaled, turned):
        likeness = (csi.conj() * again).sum(dim=(-1, -2, -3)).abs()
        assert likeness.min() > 0.99


def test_a_link_without_a_path_sends_its_flag_alone() -> None:
    received = measure(draw_places(4, seed=8))
    valid = torch.tensor([[True, False, True]]).expand(4, 3)
    csi, _, heard = scalar_fronthaul(
        received.csi[:, 0] * valid[..., None, None, None], torch.zeros(4, 3), valid, ScalarOptions()
    )
    assert torch.equal(heard, valid)
    assert not csi[:, 1].abs().any()
    assert csi[:, 0].abs().any()


def test_the_bytes_are_as_many_as_the_layout_says() -> None:
    options = ScalarOptions(bits=5, gain_bits=6)
    layout = Layout(2 * 8 * 8, options.bits, options.gain_bits)
    assert layout.message_bits == 2 * 8 * 8 * 5 + 6 + 1
    policy: Any = CsiScalarQ(None, options)
    policy.system = SYSTEM
    assert policy.fronthaul_bits == layout.message_bits


def test_nan_and_silence_are_not_believed() -> None:
    policy = taught("csi-scalar-q", train_steps=2, batch_size=32)
    received = measure(draw_places(3, seed=1))
    broken = received.csi.clone()
    broken[0, 0, 1] = torch.nan
    broken[1] = 0
    found = policy.locate(dataclasses.replace(received, csi=broken))
    assert torch.isfinite(found.position).all()
    assert found.valid[1:, 0].tolist() == [False, True]
    assert torch.equal(found.position[2], policy.locate(received).position[2])
    # What holds NaN counts as silent. Whether the others are then enough is the stated uncertainty's to say.
    silent = received.csi.clone()
    silent[0, 0, 1] = 0
    alike = policy.locate(dataclasses.replace(received, csi=silent))
    assert torch.equal(found.position[0], alike.position[0])
    assert bool(found.valid[0, 0] == alike.valid[0, 0])


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("transformer", {"features": "phase"}, "features"),
        ("transformer", {"size": 30}, "fusion_size=30 must be a multiple of heads=4"),
        ("mfcnet", {"channels": 32}, "channels must be a positive multiple of 3"),
        ("csi-scalar-q", {"bits": 0}, "bits=0"),
        ("adcpm", {"train_samples": 10}, "train_samples is 10; it must be at least batch_size=256"),
        ("adcpm", {"train_steps": 0}, "train_steps=0"),
        ("csi-scalar-q", {"lr": 2.0}, "lr"),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_policy(name, **options)
