"""What all training runs do alike around their loop: start or go on, checkpoints, log, Ctrl-C, torch's threads."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from cfpos_envs.arithmetic_threads import torch_threads
from cfpos_envs.checkpoints import BEST, LAST, State, checkpoint_path, read_checkpoint, write_checkpoint

from .base import Agent, Plan
from .interruption import Interruption, check_same_settings
from .metrics import RunLog


class TrainingRun:
    """One run of an agent; a subclass plays or fits in ``run``.

    Args:
        agent: whose policies are trained.
        plan: the arguments of ``Agent.train``.

    Attributes:
        log_dir: where files go; None: nowhere.
        log: what goes to TensorBoard; inside ``session`` only.
        interruption: whether somebody asked to stop.

    Raises:
        ValueError: the folder already holds a run.
    """

    free_settings: ClassVar[Collection[str]] = frozenset({"checkpoint_every", "threads", "device"})
    """Settings that may change between the parts of one run without changing what it computes."""
    log: RunLog

    def __init__(self, agent: Agent, plan: Plan) -> None:
        self.agent, self.plan = agent, plan
        self.log_dir = plan.log_dir
        self.interruption = Interruption()
        if plan.resume is None and self.log_dir is not None and (self.log_dir / LAST).exists():
            raise ValueError(f"{self.log_dir} already holds a run; resume it (resume={self.log_dir}) or use another.")

    def stored(self, resume: str | Path) -> tuple[Path, State]:
        """The checkpoint of the run that is to go on, whose settings are those of the agent.

        Returns:
            Its file, and its content with ``agent`` and ``run``.

        Raises:
            FileNotFoundError: there is none.
            ValueError: a policy without a run, or a run with other settings.
        """
        path = checkpoint_path(resume, LAST)
        content = read_checkpoint(path, LAST)
        if "run" not in content:
            raise ValueError(f"{path} holds a policy but no training state; resume from the run's {LAST}.")
        check_same_settings(content["agent"]["config"], self.agent.config.to_dict(), self.free_settings)
        self.log_dir = self.log_dir or path.parent
        return path, content

    @contextlib.contextmanager
    def session(self, steps: int = 0, *signals: signal.Signals) -> Iterator[None]:
        """Inside, torch has the run's threads, Ctrl-C (and ``signals``) only ask to stop, and ``log`` is open.

        Args:
            steps: where the run starts or goes on.
            signals: to treat like Ctrl-C.
        """
        with torch_threads(self.agent.config.threads), self.interruption.noted(*signals):
            self.log = RunLog(self.log_dir, steps)
            with contextlib.closing(self.log):
                yield

    def write_last(self, run: State) -> None:
        """Write the policies and what the run needs to go on."""
        self._write(LAST, {"agent": self.agent.policy_state(), "run": run})

    def write_best(self, policy: State, **more: object) -> None:
        """Write a policy that is worth keeping."""
        self._write(BEST, {"agent": policy, **more})

    def _write(self, name: str, content: State) -> None:
        if self.log_dir is not None:
            write_checkpoint(self.log_dir / name, content)


def progress_bar(
    progress: bool | None,
    total: int,
    unit: str,
    initial: int = 0,
    description: str | None = None,
    over: Iterable[Any] | None = None,
) -> tqdm[Any]:
    """A bar, ``over`` something that is counted or updated by hand.

    Args:
        progress: whether it is shown; None: only on a terminal.
        total, unit: what the bar is full with.
        initial: where it starts.
        description: what stands before it.
        over: what it counts.
    """
    hidden = None if progress is None else not progress
    return tqdm(over, description, total, initial=initial, unit=unit, disable=hidden, dynamic_ncols=True)
