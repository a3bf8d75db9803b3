"""The MADDPG agent: its policies and the entry to their training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..training import Trainer
from .config import MaddpgConfig
from .policies import MaddpgPolicies
from .rollout import CriticRollout, ModelRollout

__all__ = ["Maddpg", "MaddpgConfig"]


class Maddpg(MaddpgPolicies):
    """Multi-agent DDPG: policies trained centrally, used with each agent's observation alone (Lowe et al. 2017).

    Arguments, attributes and errors are those of ``MaddpgPolicies``.
    """

    def train(
        self,
        total_steps: int | None = None,
        log_dir: str | Path | None = None,
        resume: str | Path | None = None,
        figures: Callable[[int], dict[str, Any]] | None = None,
        callback: Callable[[int], None] | None = None,
        progress: bool | None = None,
    ) -> dict[str, float]:
        """Train, and keep the policy with the best label-free score of all evaluations (the untrained one included).

        Args:
            total_steps: environment steps of the whole run, num_envs x rounds played; None on resuming: as planned.
            log_dir: folder for TensorBoard files, ``last.pt`` (everything needed to resume) and ``best.pt``.
            resume: folder or ``last.pt`` of an unfinished run; it goes on bit for bit as if never stopped.
            figures: called with the step at every evaluation; its matplotlib figures go to TensorBoard by name.
            callback: called with the step after every round.
            progress: show a bar with the time left; None: only on a terminal.

        Returns:
            ``best_score``, ``final_score``, ``steps`` and, where the environment knows the truth, ``rmse_m`` and
            ``bound_rmse_m`` of the final policy on test drops.

        Raises:
            ValueError: nothing to train, a run that is finished or of another game, or a folder that holds a run.
            FileNotFoundError: nothing to resume from.
            FloatingPointError: a loss, gradient or reward is NaN or infinite; names the last good checkpoint.
        """
        self.check_trainable()
        rollout = ModelRollout(self) if self.config.critic == "model" else CriticRollout(self)
        return Trainer(self, rollout, total_steps, log_dir, resume, figures, callback, progress).run()
