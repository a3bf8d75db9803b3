"""The supervised loop that ECC and its learned baselines share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cfpos_envs.supervised.data import Batch, Pool, draw_arrivals, joined
from cfpos_envs.supervised.errors import errors_m
from cfpos_envs.supervised.fit_config import FitConfig, learning_rate_factor, uses_bfloat16
from cfpos_envs.supervised.fitting import Hooks, fit

ROOT = Path(__file__).parents[2]


class Line(nn.Module):
    """The smallest locator: one linear map of the features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.map = nn.utils.skip_init(nn.Linear, size, 3)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def predict(self, batch: Batch) -> torch.Tensor:
        return self.map((batch.features * batch.valid[..., None]).flatten(1))

    def loss(self, batch: Batch) -> torch.Tensor:
        return (self.predict(batch).float() - batch.position_m).square().sum(dim=1).mean()


def pool(count: int, seed: int) -> Pool:
    """Positions that are a known linear map of two base stations' features."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 2, 4, generator=generator).half()
    truth = torch.linspace(-1, 1, 24).view(8, 3)
    position = features.float().flatten(1) @ truth + torch.tensor([1.0, -2.0, 0.5])
    return Pool(features, torch.zeros(count, 2), torch.ones(count, 2, dtype=torch.bool), position)


def config(**changes: Any) -> FitConfig:
    settings: dict[str, Any] = {
        "samples": 64 * 300,
        "batch_size": 64,
        "lr": 0.05,
        "averaging": 0.9,
        "weight_decay": 0.0,
        "precision": "float32",
        "grad_clip": 0.0,
        "checkpoint_every": 100,
    }
    return FitConfig(**{**settings, **changes})


def test_it_finds_what_can_be_found() -> None:
    result = fit(Line(8), pool(1000, 0), config(), validation=pool(200, 1), progress=False)
    assert float(errors_m(result.model, pool(200, 2)).mean()) < 1e-2
    assert len(result.losses) == 300
    assert [seen for seen, _ in result.curve] == [64 * 30 * (i + 1) for i in range(10)]
    assert result.curve[-1][1] < result.curve[0][1]


def test_a_stopped_run_goes_on_bit_for_bit() -> None:
    states: list[dict[str, Any]] = []
    whole = fit(Line(8), pool(1000, 0), config(bs_dropout=0.3), progress=False)
    hooks = Hooks(checkpoint=states.append, stopped=lambda: len(states) == 1)
    with pytest.raises(KeyboardInterrupt):
        fit(Line(8), pool(1000, 0), config(bs_dropout=0.3), hooks=hooks, progress=False)
    assert 0 < states[-1]["step"] < 300
    rest = fit(Line(8), pool(1000, 0), config(bs_dropout=0.3), resume=states[-1], progress=False)
    assert rest.losses == whole.losses
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, rest.model.state_dict()[name])
    with pytest.raises(ValueError, match=r"started with lr=0.05, now it is 0.01"):
        fit(Line(8), pool(1000, 0), config(bs_dropout=0.3, lr=0.01), resume=states[-1], progress=False)


def test_lost_messages_are_as_many_as_asked_for_and_never_all() -> None:
    kept = draw_arrivals((20_000, 4), 0.2, torch.Generator().manual_seed(0))
    assert 0.795 < float(kept.float().mean()) < 0.815
    alone = draw_arrivals((500, 4), 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(alone.sum(dim=1), torch.ones(500, dtype=torch.long))


def test_learning_rate_rises_then_follows_a_cosine() -> None:
    assert learning_rate_factor(0.0, 0.1, 0.01) < 0.011
    assert learning_rate_factor(0.1, 0.1, 0.01) == pytest.approx(1.0)
    assert learning_rate_factor(0.55, 0.1, 0.01) == pytest.approx((1 + 0.01) / 2)
    assert learning_rate_factor(1.0, 0.1, 0.01) == pytest.approx(0.01)
    assert learning_rate_factor(0.0, 0.0, 0.01) == pytest.approx(1.0)


def test_the_kept_weights_are_an_average_of_the_last_ones() -> None:
    seen: list[float] = []
    model = Line(8)
    average = fit(model, pool(500, 0), config(samples=64 * 50, averaging=0.5), progress=False).model
    assert not torch.equal(average.map.weight, model.map.weight)
    exact = fit(Line(8), pool(500, 0), config(samples=64 * 50, averaging=0.0), progress=False)
    again = Line(8)
    fit(again, pool(500, 0), config(samples=64 * 50, averaging=0.0), progress=False)
    assert torch.equal(exact.model.map.weight, again.map.weight)
    assert seen == []


def test_mixed_precision_loses_little() -> None:
    full = fit(Line(8), pool(1000, 0), config(), progress=False)
    mixed = fit(Line(8), pool(1000, 0), config(precision="bfloat16"), progress=False)
    assert full.losses != mixed.losses
    assert float(errors_m(mixed.model, pool(200, 2)).mean()) < 0.05
    assert uses_bfloat16(config(precision="bfloat16"))
    assert not uses_bfloat16(config(precision="float32"))


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    broken = pool(1000, 0)
    broken.position_m[3] = torch.nan
    with pytest.raises(FloatingPointError, match="became NaN"):
        fit(Line(8), broken, config(), progress=False)


def test_pools_are_cut_and_joined() -> None:
    one, two = pool(10, 0), pool(6, 1)
    both = joined([one, two])
    rest, last = both.split(6)
    assert torch.equal(last.position_m, two.position_m)
    assert len(rest) == 10
    with pytest.raises(ValueError, match="cannot set 16 of 16"):
        both.split(16)
    with pytest.raises(ValueError, match="the pool has 16 snapshots, a batch 64"):
        fit(Line(8), both, config(), progress=False)


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"lr": 2.0}, {"grad_clip": -1.0}, {"precision": "half"}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        config(**wrong)


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    """Each of two processes takes half of every batch: the losses are those of one process with the whole batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    one, two = _paper_losses(tmp_path / "one.npy"), _paper_losses(tmp_path / "two.npy", launch)
    assert one[-1] < 0.9 * one[0]
    np.testing.assert_allclose(two, one, rtol=2e-3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_step_gives_the_losses_of_the_plain_one(tmp_path: Path) -> None:
    plain, compiled = _paper_losses(tmp_path / "plain.npy"), _paper_losses(tmp_path / "compiled.npy", (), "compiled")
    assert plain[-1] < 0.9 * plain[0]
    np.testing.assert_allclose(compiled, plain, rtol=2e-3)


def _paper_losses(path: Path, launcher: Sequence[str] = (), *options: str) -> np.ndarray:
    """Losses of 30 steps of the reduced ``paper`` preset, trained in processes of their own."""
    script = str(Path(__file__).parent / "paper_training.py")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(path.with_suffix(".cache")),
    }
    command = [*(launcher or [sys.executable]), script, str(path), *options]
    subprocess.run(command, check=True, env=environment, timeout=900)
    losses: np.ndarray = np.load(path, allow_pickle=False)
    assert len(losses) == 30
    return losses
