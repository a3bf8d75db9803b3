"""A training run of an ECC agent: the pool, Stage I, Stage II, checkpoints, TensorBoard."""

from __future__ import annotations

import contextlib
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.checkpoints import BEST, State, holds_run
from cfpos_envs.checks import Notice
from cfpos_envs.measurements.ecc import CsiSystem
from cfpos_envs.scenarios.ecc.aside import Aside, aside, elsewhere
from cfpos_envs.scenarios.ecc.game import EccScenario
from cfpos_envs.scenarios.ecc.options import EccOptions
from cfpos_envs.scenarios.ecc.pool import CHUNK_SAMPLES, LabelledCsi, draw_snapshots
from cfpos_envs.scenarios.ecc.worlds import stored_count
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccAgentConfig
from cfpos_envs.supervised.calibration import LEAST_PLACES, Calibration, calibrate_network, check_places, too_few_places
from cfpos_envs.supervised.data import Pool, one_per_place
from cfpos_envs.supervised.errors import errors_m
from cfpos_envs.supervised.fitting import FitResult, Hooks, fit
from cfpos_envs.supervised.inputs import pool_of
from cfpos_envs.supervised.network import EccNetwork
from cfpos_envs.supervised.processes import join_process_group, others_missed, process_group

from ..base import Agent, Plan
from ..memory import keep_freed_memory
from ..runs import TrainingRun, best_of, progress_bar
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


class EccLearner(Agent):
    """What a run needs of its agent.

    Attributes:
        game: the environment's game.
        system: constants of the network it was trained in; they standardise the gains.
        network: encoders, quantiser, fusion.
        calibration: what the network's errors are like, or None.
    """

    config: EccAgentConfig
    game: EccScenario
    system: CsiSystem
    network: EccNetwork
    calibration: Calibration | None


@dataclass(frozen=True)
class Held:
    """Snapshots that a run sets aside.

    Attributes:
        pool: one per place.
        costs: whether training must leave out their places.
    """

    pool: Pool
    costs: bool


class Training(TrainingRun):
    """One run of an ECC agent.

    Args:
        agent: whose networks are trained.
        plan: the arguments of ``Agent.train``.
    """

    free_settings = frozenset({*TrainingRun.free_settings, "num_envs"})

    agent: EccLearner

    def __init__(self, agent: EccLearner, plan: Plan) -> None:
        self.config = agent.config
        self.stage, self.fit_state = "local", None
        self.samples = agent.config.samples if plan.total_steps is None else plan.total_steps
        if self.samples < 1:
            raise ValueError(f"total_steps={plan.total_steps} must be at least 1 snapshot.")
        if not agent.config.strategy.startswith("local"):
            self.stage = "joint"
        super().__init__(agent, plan)
        if plan.resume is not None:
            self._resume(plan.resume, plan.total_steps)

    def run(self) -> dict[str, float]:
        """Train to the end; see ``Ecc.train``."""
        keep_freed_memory()
        join_process_group(self.config.device)
        rank, processes = process_group()
        if rank > 0:
            # The first process alone writes.
            self.log_dir = None
        # torchrun hands Ctrl-C on, and ends the others by SIGTERM when one has failed.
        also = [signal.SIGTERM] if processes > 1 else []
        with self._says_how_to_go_on(), self.session(0, *also):
            began = time.process_time()
            # What an earlier training has learned of its errors says nothing of these weights.
            self.agent.calibration = None
            self.pool, self.validation, held = self._pools()
            pool_seconds = time.process_time() - began
            self.agent.network.check_covers(self.pool.position_m)
            self.agent.network.calibrate_inputs(self.pool.batch(slice(0, _CALIBRATION_SAMPLES)))
            seconds = 0.0
            if self.stage == "local":
                seconds = self._local().cpu_seconds
                self.stage, self.fit_state = "joint", None
            joint = self._joint()
            self.agent.network = joint.model.eval()
            self.agent.steps_trained = self.samples
            began = time.process_time()
            if held is not None:
                self.agent.calibration = calibrated(self.agent, held.pool)
            calibration_seconds = time.process_time() - began
            found = errors_m(self.agent.network, self.validation)
            results = {
                "steps": float(self.samples),
                **_statistics(found),
                "pool_cpu_s": pool_seconds,
                "train_cpu_s": seconds + joint.cpu_seconds,
                "calibration_cpu_s": calibration_seconds,
            }
            self.log.hyper_parameters(self.config.to_dict(), results)
            self.write_best(self.agent.policy_state(), finished=True, results=results)
        return results

    def _pools(self) -> tuple[Pool, Pool, Held | None]:
        def asked() -> None:
            if self.interruption.asked:
                raise KeyboardInterrupt("stopped while the snapshots were made")

        pool, validation = training_and_validation(self.agent, self.plan.progress, asked)
        held = places_aside(self.agent, self.plan.progress, asked)
        if held is not None and held.costs:
            # Users that training moves stay outside of where they could have come from a place set aside.
            fresh = elsewhere(pool.position_m, held.pool.position_m, self.config.move_m)
            pool = pool.select(fresh.nonzero()[:, 0])
        return pool, validation, held

    def _local(self) -> FitResult:
        """Stage I: every BS trains its own autoencoder on unlabelled snapshots (Algorithm 1)."""
        seed = derive_seed(self.config.seed, "decoders")
        model = Autoencoders(self.agent.network, torch.Generator().manual_seed(seed))
        hooks = Hooks(
            scalars=lambda seen, values: self.log.scalars(seen, _renamed(values, "local")),
            evaluated=self._local_evaluated,
            checkpoint=self._checkpoint,
            stopped=lambda: self.interruption.asked,
        )
        config = self.config.fit_config(self.config.local_samples)
        result = fit(model, self.pool, config, hooks=hooks, resume=self.fit_state, progress=self.plan.progress)
        self.agent.network.encoder.load_state_dict(result.model.encoder.state_dict())
        self.agent.network.encoder.requires_grad_(self.config.strategy != "local-split")
        return result

    def _joint(self) -> FitResult:
        """Stage II: encoders (unless frozen) and CU end to end through the quantiser (Algorithm 2)."""
        hooks = Hooks(
            scalars=self.log.scalars,
            evaluated=self._evaluated,
            checkpoint=self._checkpoint,
            stopped=lambda: self.interruption.asked,
        )
        return fit(
            self.agent.network,
            self.pool,
            self.config.fit_config(self.samples),
            validation=self.validation,
            hooks=hooks,
            resume=self.fit_state,
            progress=self.plan.progress,
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
                if self.plan.figures is not None:
                    shown.update(self.plan.figures(seen))
                self.log.figures(seen, shown)
            if self.plan.callback is not None:
                self.plan.callback(seen)
        finally:
            self.agent.network = training

    def _checkpoint(self, state: State) -> None:
        self.write_last({"stage": self.stage, "fit": state, "samples": self.samples}, self._place(state))

    def _place(self, state: State) -> str:
        stage = "Stage I" if self.stage == "local" else "Stage II"
        return f"snapshot {state['step'] * self.config.batch_size} of {stage}"

    @contextlib.contextmanager
    def _says_how_to_go_on(self) -> Iterator[None]:
        """Ends that are not the run's own, with the setting that goes on."""
        again = f"; go on with resume={self.log_dir}"
        try:
            with others_missed():
                yield
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(f"{stop}{again if self._begun else ''}" if str(stop) else "") from None
        except ConnectionError as missed:
            raise ConnectionError(f"{missed}{again if self._begun else '; nothing was kept yet'}") from None

    @property
    def _begun(self) -> bool:
        return self.log_dir is not None and holds_run(self.log_dir)

    def _resume(self, resume: str | Path, total_steps: int | None) -> None:
        path, content = self.stored(resume)
        run = content["run"]
        if total_steps is not None and total_steps != run["samples"]:
            raise ValueError(
                f"the run was planned for {run['samples']} snapshots, and its learning rate follows that plan; "
                "resume with the same total_steps or start a new run."
            )
        self.samples = int(run["samples"])
        self.stage, self.fit_state = str(run["stage"]), run["fit"]
        done = self.fit_state is not None and self.fit_state["step"] * self.config.batch_size >= self.samples
        # Killed between its last checkpoint and its result, a run still has that to write.
        if self.stage == "joint" and done and best_of(path.parent) is not None:
            raise ValueError(f"the run in {path.parent} is finished; evaluate its {BEST}.")
        self.agent.load_policy(content["agent"])
        self.kept = None if self.fit_state is None else self._place(self.fit_state)


def training_and_validation(
    agent: EccLearner, progress: bool | None = None, between: Callable[[], None] | None = None
) -> tuple[Pool, Pool]:
    """What a run learns from and what its learning curve is measured on.

    Where snapshots are stored: every one of training once (again only to fill a batch), and those of the split
    ``validation``, which lie at other places. Else further ones that are made.

    Args:
        agent: whose environment measures.
        progress: show a bar; None: only on a terminal.
        between: called now and then meanwhile; what it raises ends the work.
    """
    config, game = agent.config, agent.game.config
    stored = stored_count(game)
    if stored is None:
        return make_pool(agent, progress, between).split(config.validation)
    aside = game.changed(split="validation")
    counts = max(min(config.pool, stored), config.batch_size), min(config.validation, stored_count(aside) or 0)
    pool, validation = (_drawn(agent, split, count, progress, between) for split, count in zip((game, aside), counts))
    return pool, validation


def places_aside(
    agent: EccLearner, progress: bool | None = None, between: Callable[[], None] | None = None
) -> Held | None:
    """Snapshots at places that training does not see, for the calibration; None and a warning where they are too few.

    Args:
        agent: whose environment measures.
        progress: show a bar; None: only on a terminal.
        between: called after every chunk; what it raises ends the making.
    """
    wanted, most = agent.config.set_aside, agent.config.pool // 10
    source = aside(agent.game.config, min(wanted, most))
    held = _held(agent, source, progress, between) if source.count >= LEAST_PLACES else None
    said = too_few_places(source.count if held is None else len(held.pool), source.costs or most < wanted)
    if said and wanted and process_group()[0] == 0:
        warnings.warn(f"no uncertainty will be stated: {said}", Notice, stacklevel=2)
    return None if said else held


def fresh_places(agent: EccLearner, places: int | None, progress: bool | None = None) -> Held:
    """Snapshots at places that a network which has been trained has not seen.

    Args:
        agent: with the network, whose environment measures.
        places: at most; None: ``set_aside`` or its default, or all that training has left out.
        progress: show a bar; None: only on a terminal.

    Raises:
        ValueError: there are no other places than those of training, or too few.
    """
    config, game = agent.config, agent.game.config.changed(split="train")
    count = places if places is not None else config.set_aside or type(config).set_aside
    source = aside(game, count)
    if source.costs:
        check_places(aside(game, LEAST_PLACES).count, source.costs)
        # Only what training has left out is fresh, and only all of it is what it has left out.
        source = aside(game, min(config.set_aside, config.pool // 10))
        wanted = LEAST_PLACES if places is None else count
        if source.count < wanted:
            raise ValueError(
                f"training has left out {source.count} of the stored places, too few to set {wanted} aside now; train "
                f"again with set_aside={wanted}."
            )
    check_places(min(count, source.count), source.costs)
    held = _held(agent, source, progress)
    return Held(held.pool.first(count), held.costs)


def _held(agent: EccLearner, source: Aside, progress: bool | None, between: Callable[[], None] | None = None) -> Held:
    config = agent.config
    pool = _pool_of(agent, source.draw(config.seed, config.device), source.count, progress, between)
    return Held(one_per_place(pool), source.costs)


def calibrated(agent: EccLearner, held: Pool) -> Calibration:
    """What an agent's network errs by at places that it has not been trained on.

    Args:
        agent: with the network.
        held: these places.

    Raises:
        ValueError: too few of them.
    """
    return calibrate_network(agent.network, held, agent.network.shape.area, agent.config.seed)


def make_pool(agent: EccLearner, progress: bool | None = None, between: Callable[[], None] | None = None) -> Pool:
    """``config.pool`` snapshots for training and after them ``config.validation`` to be set aside.

    Args:
        agent: whose environment measures.
        progress: show a bar; None: only on a terminal.
        between: called now and then meanwhile; what it raises ends the work.
    """
    return _drawn(agent, agent.game.config, agent.config.pool + agent.config.validation, progress, between)


def _drawn(
    agent: EccLearner, game: EccOptions, count: int, progress: bool | None, between: Callable[[], None] | None
) -> Pool:
    config = agent.config
    chunk = min(CHUNK_SAMPLES, count)
    whole = -(-count // chunk) * chunk
    parts = draw_snapshots(game, whole, derive_seed(config.seed, "pool"), chunk, config.device, config.move_m)
    return _pool_of(agent, parts, count, progress, between)


def _pool_of(
    agent: EccLearner,
    parts: Iterable[LabelledCsi],
    count: int,
    progress: bool | None,
    between: Callable[[], None] | None = None,
) -> Pool:
    chunks = -(-count // min(CHUNK_SAMPLES, count))
    shown = progress_bar(progress, chunks, "chunk", description="pool", over=parts)

    def rows() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for part in shown:
            if between is not None:
                between()
            yield part.csi, part.valid, part.position_m

    return pool_of(rows(), agent.config, agent.system, count)


def _statistics(errors: np.ndarray) -> dict[str, float]:
    return {
        "mean_m": float(errors.mean()),
        "median_m": float(np.median(errors)),
        "p90_m": float(np.percentile(errors, 90)),
    }


def _renamed(values: dict[str, float], stage: str) -> dict[str, float]:
    return {name.replace("train/", f"{stage}/"): value for name, value in values.items()}
