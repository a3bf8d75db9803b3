"""Supervised training of any network that locates users: one loop, one protocol for ECC and its learned baselines.

``fit(model, pool, config, validation=pool)``: AdamW with warm-up and cosine, clipped gradients, an averaged copy of the
weights, lost base stations. The order of the data depends on the seed and the step alone, so a run that stopped goes
on bit for bit, and processes started by torchrun share each batch.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from tqdm import tqdm

from cfpos_envs.checkpoints import State
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.data import Batch, Pool, draw_arrivals
from cfpos_envs.supervised.errors import errors_m
from cfpos_envs.supervised.fit_config import FitConfig, learning_rate_factor, uses_bfloat16
from cfpos_envs.supervised.processes import agreed, check_shared, process_group

_CALIBRATION_SAMPLES = 4096


class Locator(Protocol):
    """What ``fit`` trains: an ``nn.Module`` with these two methods; ``calibrate(batch)`` is called if it exists."""

    def loss(self, batch: Batch) -> Tensor:
        """Scalar to descend, a mean over the batch."""

    def predict(self, batch: Batch) -> Tensor:
        """Positions [B, 3] in metres."""


@dataclass
class FitResult:
    """What a run gave.

    Attributes:
        model: the averaged network, in evaluation mode.
        losses: of every step.
        curve: ``(samples seen, mean validation error in metres)`` at every evaluation.
        cpu_seconds: processor time of this process, evaluations included.
        samples_per_s: snapshots trained on per second of that time.
    """

    model: Any
    losses: list[float]
    curve: list[tuple[int, float]]
    cpu_seconds: float
    samples_per_s: float


@dataclass
class Hooks:
    """What a caller wants reported.

    Attributes:
        scalars: called with the number of samples seen and named numbers.
        evaluated: called with the number of samples seen and the averaged model after every evaluation.
        checkpoint: called with the state of the run.
        stopped: asked after every step; true ends the run after a checkpoint with KeyboardInterrupt.
    """

    scalars: Callable[[int, dict[str, float]], None] | None = None
    evaluated: Callable[[int, Any], None] | None = None
    checkpoint: Callable[[State], None] | None = None
    stopped: Callable[[], bool] | None = None


def fit(
    model: Any,
    pool: Pool,
    config: FitConfig,
    *,
    validation: Pool | None = None,
    hooks: Hooks | None = None,
    resume: State | None = None,
    progress: bool | None = None,
) -> FitResult:
    """Train ``model`` on ``pool``.

    Args:
        model: see ``Locator``; changed in place.
        pool: training snapshots.
        config: settings.
        validation: snapshots for the learning curve; they never choose anything.
        hooks: see there.
        resume: a state that ``hooks.checkpoint`` got.
        progress: show a bar; None: only on a terminal.

    Returns:
        The averaged network and what it took.

    Raises:
        ValueError: the pool is smaller than a batch, or the state is of another run.
        FloatingPointError: the loss became NaN or infinite.
    """
    return Fit(model, pool, config, validation, hooks or Hooks()).run(resume, progress)


@dataclass
class _Record:
    """What was noted so far."""

    losses: list[float] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0


class Fit:
    """One run of ``fit``; the arguments are those of that function."""

    def __init__(self, model: Any, pool: Pool, config: FitConfig, validation: Pool | None, hooks: Hooks) -> None:
        if len(pool) < config.batch_size:
            raise ValueError(f"the pool has {len(pool)} snapshots, a batch {config.batch_size}; make a larger pool.")
        self.rank, self.processes = process_group()
        check_shared(config.batch_size, self.processes)
        self.pool, self.config, self.validation, self.hooks = pool, config, validation, hooks
        self.model = model.to(config.device)
        self.model.train()
        self.average = copy.deepcopy(model).eval().requires_grad_(False)
        self.low_precision = uses_bfloat16(config)
        self.step_module = self._step_module()
        fused = torch.device(config.device).type in ("cpu", "cuda")
        self.optimiser = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad],
            lr=config.lr,
            weight_decay=config.weight_decay,
            fused=fused,
        )
        self.step = 0
        self.record = _Record()
        self._order: tuple[int, Tensor] | None = None

    def run(self, resume: State | None, progress: bool | None) -> FitResult:
        """Train to the end."""
        if resume is not None:
            self.load_state_dict(resume)
        config, began = self.config, time.process_time()
        started_at, before = self.step, self.record.cpu_seconds
        hidden = None if progress is None else not progress
        bar = tqdm(total=config.steps, initial=self.step, unit="step", disable=hidden, dynamic_ncols=True)
        waiting: list[Tensor] = []
        with bar:
            while self.step < config.steps:
                waiting.append(self._advance())
                self.step += 1
                bar.update()
                due = self._due(config.evaluations) or self.step % config.checkpoint_every == 0
                stop = agreed(self.hooks.stopped is not None and self.hooks.stopped(), config.device)
                if due or stop or self.step == config.steps or len(waiting) >= 100:
                    self._note(waiting)
                    waiting = []
                self.record.cpu_seconds = before + time.process_time() - began
                if self._due(config.evaluations):
                    bar.set_postfix(error_m=f"{self._evaluate():.3g}", refresh=False)
                if stop or self.step % config.checkpoint_every == 0 or self.step == config.steps:
                    self._checkpoint()
                if stop:
                    raise KeyboardInterrupt(f"stopped after {self.step * config.batch_size} samples")
        self._calibrate()
        seconds = time.process_time() - began
        self.record.cpu_seconds = before + seconds
        seen = (self.step - started_at) * config.batch_size
        record = self.record
        rate = seen / max(seconds, 1e-9)
        return FitResult(self.average, record.losses, record.curve, record.cpu_seconds, rate)

    def state_dict(self) -> State:
        """Everything needed to go on bit for bit."""
        return {
            "config": dataclasses.asdict(self.config),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "losses": torch.tensor(self.record.losses),
            "curve": [list(point) for point in self.record.curve],
            "cpu_seconds": self.record.cpu_seconds,
        }

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state_dict``.

        Raises:
            ValueError: the state is of a run with other settings.
        """
        for name, value in state["config"].items():
            if name not in ("checkpoint_every", "device") and getattr(self.config, name) != value:
                raise ValueError(f"the run was started with {name}={value}, now it is {getattr(self.config, name)}.")
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = int(state["step"])
        points = [(int(seen), float(error)) for seen, error in state["curve"]]
        self.record = _Record(state["losses"].tolist(), points, float(state["cpu_seconds"]))

    def _advance(self) -> Tensor:
        factor = learning_rate_factor(self.step / self.config.steps, self.config.warmup, self.config.lr_final_factor)
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.lr * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.step_module(self._next_batch())
        loss.backward()
        if self.config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        self.optimiser.step()
        self._follow()
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        # A running mean at first: an average that remembers the initial weights would lag behind.
        weight = 1 - min(self.config.averaging, self.step / (self.step + 1))
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), weight)
        for kept, fresh in zip(self.average.buffers(), self.model.buffers(), strict=True):
            kept.copy_(fresh)

    def _next_batch(self) -> Batch:
        """This process's part of the step's batch; the whole batch is the same for any number of processes."""
        size = self.config.batch_size
        per_epoch = len(self.pool) // size
        epoch, place = divmod(self.step, per_epoch)
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "order", epoch))
            self._order = (epoch, torch.randperm(len(self.pool), generator=generator))
        index = self._order[1][place * size : (place + 1) * size]
        part = slice(self.rank * size // self.processes, (self.rank + 1) * size // self.processes)
        batch = self.pool.batch(index[part])
        if self.config.bs_dropout:
            generator = torch.Generator().manual_seed(derive_seed(self.config.seed, "lost", self.step))
            arrived = draw_arrivals((size, batch.valid.shape[1]), self.config.bs_dropout, generator)
            batch = batch.replace(valid=batch.valid & arrived[part])
        return batch.to(self.config.device)

    def _evaluate(self) -> float:
        self._calibrate()
        error = math.nan
        if self.validation is not None:
            error = float(errors_m(self.average, self.validation).mean())
            self.record.curve.append((self.step * self.config.batch_size, error))
            self._scalars({"validation/mean_m": error})
        if self.hooks.evaluated is not None:
            self.hooks.evaluated(self.step * self.config.batch_size, self.average)
        return error

    def _calibrate(self) -> None:
        """Let the averaged network measure its own latent scales, on training data."""
        calibrate = getattr(self.average, "calibrate", None)
        if calibrate is not None:
            calibrate(self.pool.batch(slice(0, _CALIBRATION_SAMPLES)).to(self.config.device))

    def _note(self, waiting: list[Tensor]) -> None:
        values = torch.stack(waiting).float()
        if self.processes > 1:
            dist.all_reduce(values)
            values /= self.processes
        if not bool(torch.isfinite(values).all()):
            raise FloatingPointError(
                f"the loss became NaN or infinite before step {self.step}; lower lr or use precision=float32."
            )
        self.record.losses += values.tolist()
        self._scalars({"train/loss": float(values.mean()), "train/lr": self.optimiser.param_groups[0]["lr"]})

    def _scalars(self, values: dict[str, float]) -> None:
        if self.hooks.scalars is not None and self.rank == 0:
            self.hooks.scalars(self.step * self.config.batch_size, values)

    def _checkpoint(self) -> None:
        if self.hooks.checkpoint is not None and self.rank == 0:
            self.hooks.checkpoint(self.state_dict())

    def _due(self, times: int) -> bool:
        return times > 0 and (self.step * times) // self.config.steps > ((self.step - 1) * times) // self.config.steps

    def _step_module(self) -> Callable[[Batch], Tensor]:
        module: nn.Module = _LossOf(self.model, self.low_precision)
        if self.processes > 1:
            module = nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)
        return torch.compile(module) if self.config.compile else module


class _LossOf(nn.Module):
    """The loss as ``forward``, which is what torch.compile and data-parallel training look at."""

    def __init__(self, model: Any, low_precision: bool) -> None:
        super().__init__()
        self.model, self.low_precision = model, low_precision

    def forward(self, batch: Batch) -> Tensor:
        with torch.autocast(batch.features.device.type, torch.bfloat16, enabled=self.low_precision):
            return self.model.loss(batch)
