"""What a run writes to TensorBoard, every name with its meaning."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cfpos_envs.checkpoints import UnwritableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

SCALARS: dict[str, str] = {
    "reward/episode": "sum over rounds, mean over agents and parallel episodes, with exploration",
    "reward/round_<t>": "the same for one round (games of at most 12 rounds); shows the stages of chained games",
    "score/train": "label-free score at the end of the training episodes, with exploration",
    "score/validation": "label-free score of the noise-free policy on fixed validation drops; selects best.pt",
    "score/best": "score/validation of the policy in best.pt",
    "test/rmse_m": "position RMSE in metres of the noise-free policy on fixed test drops; never used to select",
    "test/bound_rmse_m": "root mean squared position error bound of the same drops, metres",
    "loss/critic": "mean squared Bellman error, summed over twin critics and over separate networks",
    "loss/actor": "minus the value of the policy, plus the saturation penalty",
    "value/mean": "mean value that the first critic gives to stored actions",
    "value/objective": "mean differentiable objective of the round (model critic)",
    "gradient/actor": "mean gradient norm of the actor networks before clipping",
    "gradient/critic": "mean gradient norm of the critic networks before clipping",
    "policy/saturation": "fraction of actions within 1 % of their limits",
    "explore/noise": "standard deviation of the exploration noise",
    "rate/actor": "learning rate of the actors",
    "speed/env_steps_per_s": "environment steps per second of wall-clock time, updates included",
}
_MOST_ROUNDS = 12


class RunLog:
    """Collects the scalars of rounds and writes their means.

    Args:
        log_dir: TensorBoard folder; None: nothing is written.
        steps: where the run starts or goes on; later entries of an interrupted run are dropped.

    Raises:
        UnwritableError: its files cannot be written; all methods that write raise it too.
    """

    def __init__(self, log_dir: Path | None, steps: int = 0) -> None:
        self._writer: SummaryWriter | None = None
        self._folder, self._hook = log_dir, threading.excepthook
        if log_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            threading.excepthook = self._reported
            with self._writing():
                self._writer = SummaryWriter(str(log_dir), purge_step=steps if steps else None)
        self._values: dict[str, list[Tensor]] = defaultdict(list)
        self._episode: list[Tensor] = []
        self._since, self._steps = time.perf_counter(), steps

    def add_round(self, rewards: Tensor, metrics: dict[str, Tensor], scalars: dict[str, Tensor], done: bool) -> None:
        """Note one round; at the end of an episode its sums too."""
        for name, value in scalars.items():
            self._values[name].append(value)
        self._episode.append(rewards.mean())
        if done:
            if len(self._episode) <= _MOST_ROUNDS:
                for index, reward in enumerate(self._episode):
                    self._values[f"reward/round_{index}"].append(reward)
            self._values["reward/episode"].append(torch.stack(self._episode).sum())
            if "score" in metrics:
                self._values["score/train"].append(metrics["score"].mean())
            self._episode = []

    def write(self, steps: int, extra: dict[str, float]) -> None:
        """Write the means since the last call at ``steps``, with ``explore/noise`` and the like as extra."""
        now = time.perf_counter()
        values = {name: float(torch.stack(entries).mean()) for name, entries in self._values.items()}
        values["speed/env_steps_per_s"] = (steps - self._steps) / max(now - self._since, 1e-9)
        self._values.clear()
        self._since, self._steps = now, steps
        self.scalars(steps, {**values, **extra})

    def scalars(self, steps: int, values: dict[str, float]) -> None:
        """Write numbers by name."""
        if self._writer is not None:
            with self._writing():
                for name, value in values.items():
                    self._writer.add_scalar(name, value, steps)

    def figures(self, steps: int, figures: dict[str, Figure]) -> None:
        """Write matplotlib figures by name, and close them."""
        import matplotlib.pyplot as plt

        for name, figure in figures.items():
            if self._writer is not None:
                with self._writing():
                    self._writer.add_figure(name, figure, steps)
            plt.close(figure)

    def hyper_parameters(self, settings: Mapping[str, object], results: dict[str, float]) -> None:
        """Write the settings beside the final results, for TensorBoard's table of runs."""
        if self._writer is not None:
            plain = {n: v if isinstance(v, (int, float, str, bool)) else str(v) for n, v in settings.items()}
            with self._writing():
                self._writer.add_hparams(plain, {f"hparam/{n}": v for n, v in results.items()}, run_name=".")

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            try:
                with self._writing():
                    self._writer.close()
            finally:
                threading.excepthook = self._hook

    def _reported(self, died: threading.ExceptHookArgs) -> None:
        # The writing thread's error is raised by the next call that writes.
        if not (isinstance(died.exc_value, OSError) and type(died.thread).__module__.startswith("tensorboard.")):
            self._hook(died)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise UnwritableError(f"cannot write TensorBoard's files into {self._folder}: {reason}") from None
