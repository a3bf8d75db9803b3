"""What all training runs do alike around their loop: start or go on, checkpoints, log, Ctrl-C, torch's threads."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from cfpos_envs.arithmetic_threads import torch_threads
from cfpos_envs.checkpoints import (
    BEST,
    LAST,
    PREVIOUS,
    DamagedError,
    DamagedWarning,
    State,
    UnwritableError,
    folder_of,
    found_checkpoint,
    holds_run,
    read_checkpoint,
    remove_leftovers,
    write_checkpoint,
)

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
        kept: how far the checkpoint is from which the run could go on now; None: there is none.

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
        self.kept: str | None = None
        self._last_is_whole = True
        if self.log_dir is not None and holds_run(self.log_dir) and not _is_of(plan.resume, self.log_dir):
            raise ValueError(f"{self.log_dir} already holds a run; resume it (resume={self.log_dir}) or use another.")

    def stored(self, resume: str | Path) -> tuple[Path, State]:
        """The checkpoint of the run that is to go on, whose settings are those of the agent.

        A ``last.pt`` that is damaged is left for the one before it, with a warning.

        Returns:
            Its file, and its content with ``agent`` and ``run``.

        Raises:
            FileNotFoundError: there is none.
            ValueError: a policy without a run, or a run with other settings.
        """
        folder = folder_of(resume)
        path, content = found_checkpoint(folder if Path(resume) == folder / LAST else resume, LAST)
        self._last_is_whole = path.name != PREVIOUS
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
        if self.log_dir is not None:
            remove_leftovers(self.log_dir)
        with torch_threads(self.agent.config.threads), self.interruption.noted(*signals):
            try:
                self.log = RunLog(self.log_dir, steps)
                with contextlib.closing(self.log):
                    yield
            except UnwritableError as error:
                after = f"go on with resume={self.log_dir} from {self.kept}" if self.kept else "nothing was kept yet"
                raise OSError(f"{str(error).removesuffix('.')}; {after}") from None

    def write_last(self, run: State, progress: str) -> None:
        """Write the policies and what the run needs to go on; the checkpoint before is kept as ``previous.pt``.

        Args:
            run: what the run needs.
            progress: how far it is, for messages.
        """
        if self.log_dir is not None:
            content = {"agent": self.agent.policy_state(), "run": run, "note": self.plan.note}
            write_checkpoint(self.log_dir / LAST, content, self.log_dir / PREVIOUS if self._last_is_whole else None)
            self._last_is_whole, self.kept = True, progress

    def write_best(self, policy: State, **more: object) -> None:
        """Write a policy that is worth keeping."""
        if self.log_dir is not None:
            write_checkpoint(self.log_dir / BEST, {"agent": policy, "note": self.plan.note, **more})

    def mend_best(self, policy: State | None) -> None:
        """Write ``best.pt`` again if it is damaged or was never written.

        Args:
            policy: what it held, from the checkpoint that the run goes on from; None: nothing yet.
        """
        if self.log_dir is not None and policy is not None and best_of(self.log_dir) is None:
            if (self.log_dir / BEST).exists():
                warnings.warn(f"{self.log_dir / BEST} was damaged and is written again", DamagedWarning, stacklevel=2)
            self.write_best(policy)


def best_of(folder: Path) -> State | None:
    """What ``best.pt`` in a run's folder holds; None: it is not there, or damaged."""
    try:
        return read_checkpoint(folder / BEST)
    except (FileNotFoundError, DamagedError):
        return None


def _is_of(resume: str | Path | None, folder: Path) -> bool:
    return resume is not None and folder_of(resume).resolve() == folder.resolve()


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
