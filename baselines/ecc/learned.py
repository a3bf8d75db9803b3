"""Estimators that learn from labelled CSI by the protocol of ECC: same loop, same snapshots, same averages."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from tqdm import tqdm

from cfpos_envs.arithmetic_threads import torch_threads
from cfpos_envs.checkpoints import NamedGame, check_game, game_of, read_checkpoint, write_checkpoint
from cfpos_envs.checks import SEEDS, Notice
from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.scenarios.ecc.aside import check_set_aside, elsewhere
from cfpos_envs.scenarios.ecc.pool import LabelledCsi
from cfpos_envs.settings import former_value
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.agent_config import EccFastAgentConfig
from cfpos_envs.supervised.calibration import Calibration, calibrate_network, stored_calibration, too_few_places
from cfpos_envs.supervised.data import Batch, Pool, joined, one_per_place
from cfpos_envs.supervised.doubts import judge
from cfpos_envs.supervised.fit_config import FitConfig
from cfpos_envs.supervised.fitting import fit
from cfpos_envs.supervised.heads import HEADS, Area
from cfpos_envs.supervised.loading import load_weights

from .common import CsiAnswers, CsiEstimator, same_network
from .surveys import snapshots_aside, system_of, training_snapshots

if TYPE_CHECKING:
    from ..base import Env

_CALIBRATION_SAMPLES = 4096
_TRAINING = ("weights", "train_samples", "train_steps", "batch_size", "lr", "set_aside")


@runtime_checkable
class CalibratesInputs(Protocol):
    """A network that wants to see some inputs before it learns."""

    def calibrate_inputs(self, batch: Batch) -> None:
        """Look at snapshots."""


@dataclass(frozen=True)
class LearnedOptions(Declared):
    """Options of every learned estimator.

    Attributes:
        weights: file that ``save`` wrote; empty: learn from the environment's training split at the first use.
        train_samples: labelled snapshots to learn from, at least ``batch_size``.
        train_steps: steps of gradient descent.
        batch_size: snapshots per step.
        lr: highest learning rate.
        head, bins: what the network states, see ``EccFastAgentConfig``.
        set_aside: further places, a tenth of ``train_samples`` at most, that the stated uncertainty is learned on; 0:
            none, no uncertainty is stated.
        seed: of weights, snapshots and their order.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "train_samples": (1, 1 << 31),
        "train_steps": (1, 1 << 31),
        "batch_size": (1, 1 << 24),
        "lr": (0, 1),
        "bins": (2, 10_000),
        "set_aside": (0, 1 << 31),
        "seed": SEEDS,
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"head": HEADS}

    weights: str = ""
    train_samples: int = 16_384
    train_steps: int = 400
    batch_size: int = 256
    lr: float = FitConfig.lr
    head: str = EccFastAgentConfig.head
    bins: int = EccFastAgentConfig.bins
    set_aside: int = EccFastAgentConfig.set_aside
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.train_samples < self.batch_size:
            raise ValueError(f"train_samples is {self.train_samples}; it must be at least batch_size={self.batch_size}")
        self.fit_config()

    def fit_config(self) -> FitConfig:
        """The training loop's settings."""
        samples = self.train_steps * self.batch_size
        return FitConfig(samples=samples, batch_size=self.batch_size, lr=self.lr, evaluations=0, seed=self.seed)


class LearnedCsi(CsiEstimator):
    """An estimator with a network. Made without ``weights`` it learns when it is first asked, and says so.

    Attributes:
        system: the network of base stations that it learned in; None before that.
        train_cpu_s: processor time of its training.
        calibration: what covariances are stated by; None: none are.
    """

    options_class: ClassVar[type[LearnedOptions]] = LearnedOptions
    options: LearnedOptions

    def __init__(self, env: Env | None = None, options: object = None) -> None:
        super().__init__(env, options)
        self.system: CsiSystem | None = system_of(env)
        self.train_cpu_s = 0.0
        self.calibration: Calibration | None = None
        self._network: Any = None
        if self.options.weights:
            try:
                self.load(self.options.weights)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"weights={self.options.weights!r}: {error}") from error

    @abstractmethod
    def make_network(self, system: CsiSystem, generator: torch.Generator) -> Any:
        """What is trained: see ``cfpos_envs.supervised.fitting.Locator``; its inputs are those of ``inputs``."""

    @abstractmethod
    def inputs(self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], system: CsiSystem) -> Batch:
        """What the central unit has of S snapshots, after everything that the fronthaul does to it."""

    def train(self, progress: bool | None = None) -> None:
        """Learn from the environment's training split.

        Args:
            progress: show bars; None: only on a terminal.

        Raises:
            ValueError: made without an environment that measures CSI.
        """
        options = self.options
        hidden = None if progress is None else not progress
        parts = training_snapshots(self.env, self.name, options.train_samples, options.seed, options.batch_size)
        bar = tqdm(total=options.train_samples, desc=f"{self.name}: snapshots", disable=hidden, leave=False)
        system = self._known_system()
        pieces = []
        with bar:
            for part in parts:
                pieces.append(self._pool(part, system))
                bar.update(len(part.position_m))
        pool = joined(pieces)
        wanted, most = options.set_aside, options.train_samples // 10
        others, costs = snapshots_aside(self.env, min(wanted, most), options.seed)
        held = one_per_place(joined([self._pool(part, system) for part in others])) if others else None
        said = too_few_places(0 if held is None else len(held), costs or most < wanted)
        if held is None or said:
            if wanted:
                warnings.warn(f"no uncertainty will be stated: {said}", Notice, stacklevel=2)
            self.train_on(pool, progress)
            return
        if costs:
            pool = pool.select(elsewhere(pool.position_m, held.position_m).nonzero()[:, 0])
        self.train_on(pool, progress, held)

    def _pool(self, part: LabelledCsi, system: CsiSystem) -> Pool:
        batch = self.inputs(part.csi, part.valid, system)
        return Pool(batch.features.half(), batch.log_gain, batch.valid, part.position_m)

    def train_on(self, pool: Pool, progress: bool | None = None, held: Pool | None = None) -> None:
        """Learn from a pool of ``inputs`` with positions.

        Args:
            pool: at least ``batch_size`` snapshots.
            progress: show a bar; None: only on a terminal.
            held: others at places that are not in ``pool``, to learn from what the errors are like; None: no
                uncertainty will be stated.

        Raises:
            ValueError: the pool is smaller than a batch, places are in both pools, or there is no environment.
        """
        if held is not None:
            check_set_aside(held.position_m, pool.position_m)
        generator = torch.Generator().manual_seed(derive_seed(self.options.seed, self.name))
        network = self.make_network(self._known_system(), generator)
        network.check_covers(pool.position_m)
        if isinstance(network, CalibratesInputs):
            network.calibrate_inputs(pool.batch(slice(0, _CALIBRATION_SAMPLES)))
        with torch_threads():
            result = fit(network, pool, self.options.fit_config(), progress=progress)
        self._network, self.train_cpu_s = result.model.eval(), result.cpu_seconds
        self.calibration = None
        if held is not None:
            system = self._known_system()
            area = Area(system.area_min_m, system.area_max_m)
            self.calibration = calibrate_network(self._network, held, area, self.options.seed)

    def save(self, path: str | Path) -> None:
        """Write networks and what they belong to; ``weights=path`` takes them up again.

        Raises:
            ValueError: nothing has been learned.
        """
        if self._network is None:
            raise ValueError(f"{self.name} has learned nothing to save; call train() first")
        options = {k: v for k, v in dataclasses.asdict(self.options).items() if k not in _TRAINING}
        system = dataclasses.asdict(self._known_system())
        state = copy.deepcopy(self._network.state_dict())
        content = {"name": self.name, "options": options, "system": system, "network": state}
        if self.calibration is not None:
            content["calibration"] = self.calibration.state()
        game = game_of(self.env) if isinstance(self.env, NamedGame) else {}
        write_checkpoint(path, {"agent": {**game, **content}})

    def load(self, path: str | Path) -> None:
        """Take over what ``save`` wrote; the file decides on the options that shape the network.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, of another policy, or of another network of base stations.
        """
        stored = read_checkpoint(path)["agent"]
        if stored.get("name") != self.name:
            raise ValueError(f"{path} holds {stored.get('name')!r}, not {self.name!r}; load it with its own policy")
        listed: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored["system"].items()}
        there, here = CsiSystem(**listed), self.system
        differs = "" if here is None else same_network(there, here)
        if differs:
            raise ValueError(f"{path} was trained with {differs}; make the environment with the training overrides")
        # Files of the builds before name no game, their base stations say enough.
        if "signature" in stored and isinstance(self.env, NamedGame):
            check_game(stored, self.env, parts=("family",))
        before = self.options
        self.options = dataclasses.replace(before, **self._stored_options(stored["options"]))
        try:
            network = self.make_network(there, torch.Generator().manual_seed(0))
            calibration = stored_calibration(stored, network.head.num_doubts, there.num_bs)
            load_weights(network, stored["network"], self.options.head)
        except ValueError:
            self.options = before
            raise
        # Gains are standardised with the averages that the network was trained with.
        self.system, self._network, self.calibration = there, network.eval(), calibration

    def _stored_options(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        former = EccFastAgentConfig.former["head"]
        if "head" not in stored:
            warnings.warn(former_value(self.name, "head", former, self.options_class.head), Notice, stacklevel=3)
        return {"head": former, **stored}

    def _positions(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> Float[Tensor, "S 3"]:
        return self._answers(csi, valid, of).position_m

    @torch.no_grad()
    def _answers(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> CsiAnswers:
        """Answers with what the calibration states of them; not to be believed where ``doubts`` says so."""
        system = self._known_system()
        if self._network is None:
            options = self.options
            warnings.warn(
                f"{self.name} has no weights: it learns now from {options.train_samples} snapshots in "
                f"{options.train_steps} steps; weights=FILE would take up what save() wrote",
                Notice,
                stacklevel=2,
            )
            with torch.enable_grad():
                self.train()
        differs = same_network(system, of.system)
        if differs:
            raise ValueError(f"{self.name} was trained with {differs}; train it on this network")
        batch = self.inputs(csi, valid, system)
        judged = judge(system, batch, self._network.answers(batch), self.calibration, self._network)
        return CsiAnswers(judged.position_m, judged.covariance_m2, judged.reason, radii=judged.radii)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Float[Tensor, "S 3"]:
        """Positions in metres of what ``inputs`` made, by a network that has learned."""
        position: Tensor = self._network.predict(batch)
        return position

    def _known_system(self) -> CsiSystem:
        if self.system is None:
            # Says what is missing.
            next(training_snapshots(None, self.name, 1, 0))
        assert self.system is not None
        return self.system
