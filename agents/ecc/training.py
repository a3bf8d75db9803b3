"""A training run of an ECC agent: the pool, Stage I, Stage II, checkpoints, TensorBoard."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from tqdm import tqdm

from cfpos_envs.checkpoints import (
    BEST,
    LAST,
    checkpoint_path,
    read_checkpoint,
    write_checkpoint,
)
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.scenarios.ecc.pool import CHUNK_SAMPLES, draw_snapshots
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.data import Pool
from cfpos_envs.supervised.errors import errors_m
from cfpos_envs.supervised.fitting import FitResult, Hooks, fit
from cfpos_envs.supervised.inputs import pool_of
from cfpos_envs.supervised.network import EccNetwork
from cfpos_envs.supervised.processes import join_process_group, others_missed, process_group

from ..interruption import Interruption, check_same_settings, torch_threads
from ..memory import keep_freed_memory
from ..metrics import RunLog
from . import pictures
from .autoencoder import Autoencoders

SCALARS: dict[str, str] = {
    "train/loss": "mean of the WMSE (34), or of the weighted distances, in normalised coordinates",
    "train/lr": "learning rate",
    "local/loss": "Stage I: negative cosine similarity (22), mean over the base stations",
    "local/lr": "learning rate of Stage I",
    "validation/mean_m": "mean 3-D error in metres on snapshots set aside; nothing is selected by it",
    "validation/median_m": "median of the same errors",
    "validation/p90_m": "90th percentile of the same errors",
}
_CALIBRATION_SAMPLES = 4096
_PICTURE_SAMPLES = 8
# Settings that may change between the parts of one run without changing what it computes.
_FREE_SETTINGS = frozenset({"checkpoint_every", "threads", "device", "num_envs"})


@runtime_checkable
class EccLearner(Protocol):
    """What a run needs of its agent: the attributes of ``Ecc``."""

    config: EccAgentConfig
    env: Any
    system: CsiSystem
    network: EccNetwork
    steps_trained: int

    def policy_state(self) -> dict[str, Any]:
        """A copy of the networks and of what they belong to."""

    def load_policy(self, state: dict[str, Any]) -> None:
        """Take over networks from ``policy_state``."""


class Training:
    """One run of ``Ecc.train``; the arguments are those of that method."""

    def __init__(
        self,
        agent: EccLearner,
        total_steps: int | None,
        log_dir: str | Path | None,
        resume: str | Path | None,
        figures: Callable[[int], dict[str, Any]] | None,
        callback: Callable[[int], None] | None,
        progress: bool | None,
    ) -> None:
        self.agent, self.config = agent, agent.config
        self.figures, self.callback, self.progress = figures, callback, progress
        self.log_dir = Path(log_dir) if log_dir is not None else None
        self.stage, self.fit_state = "local", None
        self.samples = agent.config.samples if total_steps is None else total_steps
        if self.samples < 1:
            raise ValueError(f"total_steps={total_steps} must be at least 1 snapshot.")
        if not agent.config.strategy.startswith("local"):
            self.stage = "joint"
        if resume is not None:
            self._resume(resume, total_steps)
        elif self.log_dir is not None and (self.log_dir / LAST).exists():
            raise ValueError(f"{self.log_dir} already holds a run; resume it (resume={self.log_dir}) or use another.")
        self._interruption = Interruption()

    def run(self) -> dict[str, float]:
        """Train to the end; see ``Ecc.train``."""
        keep_freed_memory()
        join_process_group(self.config.device)
        rank, processes = process_group()
        if rank > 0:
            # The first process alone writes.
            self.log_dir = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._told_how_to_go_on())
            stack.enter_context(torch_threads(self.config.threads))
            # torchrun hands Ctrl-C on, and ends the others by SIGTERM when one has failed.
            stack.enter_context(self._interruption.noted(*[signal.SIGTERM] * (processes > 1)))
            self.log = RunLog(self.log_dir)
            stack.callback(self.log.close)
            began = time.process_time()
            self.pool, self.validation = make_pool(self.agent, self.progress).split(self.config.validation)
            pool_seconds = time.process_time() - began
            self.agent.network.calibrate_inputs(self.pool.batch(slice(0, _CALIBRATION_SAMPLES)))
            seconds = 0.0
            if self.stage == "local":
                seconds = self._local().cpu_seconds
                self.stage, self.fit_state = "joint", None
            joint = self._joint()
            self.agent.network = joint.model.eval()
            self.agent.steps_trained = self.samples
            self._write(BEST, {"agent": self.agent.policy_state()})
            found = errors_m(self.agent.network, self.validation)
            results = {
                "steps": float(self.samples),
                **_statistics(found),
                "pool_cpu_s": pool_seconds,
                "train_cpu_s": seconds + joint.cpu_seconds,
            }
            self.log.hyper_parameters(self.config.to_dict(), results)
        return results

    def _local(self) -> FitResult:
        """Stage I: every BS trains its own autoencoder on unlabelled snapshots (Algorithm 1)."""
        seed = derive_seed(self.config.seed, "decoders")
        model = Autoencoders(self.agent.network, torch.Generator().manual_seed(seed))
        hooks = Hooks(
            scalars=lambda seen, values: self.log.scalars(seen, _renamed(values, "local")),
            evaluated=self._local_evaluated,
            checkpoint=self._checkpoint,
            stopped=lambda: self._interruption.asked,
        )
        config = self.config.fit_config(self.config.local_samples)
        result = fit(model, self.pool, config, hooks=hooks, resume=self.fit_state, progress=self.progress)
        self.agent.network.encoder.load_state_dict(result.model.encoder.state_dict())
        self.agent.network.encoder.requires_grad_(self.config.strategy != "local-split")
        return result

    def _joint(self) -> FitResult:
        """Stage II: encoders (unless frozen) and CU end to end through the quantiser (Algorithm 2)."""
        hooks = Hooks(
            scalars=self.log.scalars,
            evaluated=self._evaluated,
            checkpoint=self._checkpoint,
            stopped=lambda: self._interruption.asked,
        )
        return fit(
            self.agent.network,
            self.pool,
            self.config.fit_config(self.samples),
            validation=self.validation,
            hooks=hooks,
            resume=self.fit_state,
            progress=self.progress,
        )

    def _local_evaluated(self, seen: int, model: Any) -> None:
        if self.log_dir is not None:
            batch = self.validation.batch(slice(0, _PICTURE_SAMPLES)).to(self.config.device)
            self.log.figures(seen, pictures.reconstruction(model, batch, self.config, self.agent.system))

    def _evaluated(self, seen: int, model: Any) -> None:
        training, self.agent.network = self.agent.network, model
        try:
            if self.log_dir is not None:
                found = errors_m(model, self.validation)
                statistics = {f"validation/{name}": value for name, value in _statistics(found).items()}
                self.log.scalars(seen, statistics)
                shown = {"validation/cdf": pictures.error_cdf(found, f"after {seen} snapshots")}
                if self.figures is not None:
                    shown.update(self.figures(seen))
                self.log.figures(seen, shown)
            if self.callback is not None:
                self.callback(seen)
        finally:
            self.agent.network = training

    def _checkpoint(self, state: dict[str, Any]) -> None:
        run = {"stage": self.stage, "fit": state, "samples": self.samples}
        self._write(LAST, {"agent": self.agent.policy_state(), "run": run})

    def _write(self, name: str, content: dict[str, Any]) -> None:
        if self.log_dir is not None:
            write_checkpoint(self.log_dir / name, content)

    @contextlib.contextmanager
    def _told_how_to_go_on(self) -> Iterator[None]:
        """Ends that are not the run's own, with the setting that goes on."""
        again = "" if self.log_dir is None else f"; go on with resume={self.log_dir}"
        try:
            with others_missed():
                yield
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{stop}{again}" if str(stop) else "") from None
        except ConnectionError as missed:
            begun = self.log_dir is not None and (self.log_dir / LAST).exists()
            raise ConnectionError(f"{missed}{again if begun else '; nothing was kept yet'}") from None

    def _resume(self, resume: str | Path, total_steps: int | None) -> None:
        path = checkpoint_path(resume, LAST)
        content = read_checkpoint(path, LAST)
        if "run" not in content:
            raise ValueError(f"{path} holds a policy but no training state; resume from the run's {LAST}.")
        run = content["run"]
        check_same_settings(content["agent"]["config"], self.config.to_dict(), _FREE_SETTINGS)
        if total_steps is not None and total_steps != run["samples"]:
            raise ValueError(
                f"the run was planned for {run['samples']} snapshots, and its learning rate follows that plan; "
                "resume with the same total_steps or start a new run."
            )
        self.samples = int(run["samples"])
        self.stage, self.fit_state = str(run["stage"]), run["fit"]
        done = self.fit_state is not None and self.fit_state["step"] * self.config.batch_size >= self.samples
        if self.stage == "joint" and done:
            raise ValueError(f"the run in {path.parent} is finished; evaluate its {BEST}.")
        self.agent.load_policy(content["agent"])
        self.log_dir = self.log_dir or path.parent


def make_pool(agent: EccLearner, progress: bool | None = None) -> Pool:
    """``config.pool`` snapshots for training and after them ``config.validation`` to be set aside.

    Args:
        agent: whose environment measures.
        progress: show a bar; None: only on a terminal.
    """
    config = agent.config
    count = config.pool + config.validation
    chunk = min(CHUNK_SAMPLES, count)
    whole = -(-count // chunk) * chunk
    seed = derive_seed(config.seed, "pool")
    hidden = None if progress is None else not progress
    parts = draw_snapshots(agent.env.config, whole, seed, chunk, config.device)
    shown = tqdm(parts, "pool", total=whole // chunk, unit="chunk", disable=hidden, dynamic_ncols=True)
    return pool_of(((part.csi, part.valid, part.position_m) for part in shown), config, agent.system, count)


def _statistics(errors: np.ndarray) -> dict[str, float]:
    return {
        "mean_m": float(errors.mean()),
        "median_m": float(np.median(errors)),
        "p90_m": float(np.percentile(errors, 90)),
    }


def _renamed(values: dict[str, float], stage: str) -> dict[str, float]:
    return {name.replace("train/", f"{stage}/"): value for name, value in values.items()}
