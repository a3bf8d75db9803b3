"""The training loop of all agents: rounds, evaluations, checkpoints, and how a run stops and goes on."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from cfpos_envs.checkpoints import BEST, LAST, State
from cfpos_envs.settings import RunSettings
from cfpos_envs.streams import derive_seed

from .assessment import Assessment, FixedDrops, is_as_good
from .base import Agent, Plan
from .runs import TrainingRun, best_of, progress_bar

_LOG_POINTS = 500


@dataclass(frozen=True)
class Round:
    """What one round of all parallel episodes gave.

    Attributes:
        rewards: [B, n] as the environment paid them.
        metrics: the environment's label-free tensors.
        scalars: what to log as means over rounds; must be finite.
        done: whether the episodes are over.
        logged: what to log as it is at present.
        env_steps: environment steps that it stands for; None: one per parallel episode.
    """

    rewards: torch.Tensor
    metrics: dict[str, torch.Tensor]
    scalars: dict[str, torch.Tensor]
    done: bool
    logged: dict[str, float] = field(default_factory=dict)
    env_steps: int | None = None


@runtime_checkable
class Rollout(Protocol):
    """How one kind of agent plays and learns; everything that its next rounds depend on lives here."""

    def play(self, steps: int, fraction: float) -> Sequence[Round]:
        """Play one or more rounds and do the updates that are due.

        Args:
            steps: environment steps before.
            fraction: part of the run that is done, in [0, 1).
        """

    def state_dict(self) -> State:
        """Everything that decides how the run goes on: tensors and plain values."""

    def load_state_dict(self, state: State) -> None:
        """Go on from ``state_dict``."""

    def close(self) -> None:
        """Give back what was opened for the run."""


class PlayingAgent(Agent):
    """An agent that learns by playing its environment."""

    config: RunSettings

    @abstractmethod
    def rollout(self) -> Rollout:
        """How it plays and learns, for one run."""

    def run(self, plan: Plan) -> dict[str, float]:
        """Play to the end, see ``Trainer``."""
        rollout = self.rollout()
        try:
            return Trainer(self, rollout, plan).run()
        finally:
            rollout.close()


class Trainer(TrainingRun):
    """One run of an agent: plays a rollout to the end, evaluates, keeps the best policy, writes and resumes.

    Args:
        agent: whose policies are trained.
        rollout: how they are.
        plan: the arguments of ``Agent.train``.
    """

    agent: PlayingAgent

    def __init__(self, agent: PlayingAgent, rollout: Rollout, plan: Plan) -> None:
        super().__init__(agent, plan)
        self.config = agent.config
        self.rollout = rollout
        self.steps = 0
        self.best: State | None = None
        self.best_score = -math.inf
        self.record: torch.Tensor | None = None
        self.last_score = -math.inf
        self.replanned = False
        if plan.resume is not None:
            self.total_steps = self._resume(plan.resume, plan.total_steps)
        elif plan.total_steps is None or plan.total_steps < 1:
            raise ValueError(f"total_steps={plan.total_steps} must be at least 1 environment step.")
        else:
            self.total_steps = int(plan.total_steps)
        self._validation = self._drops("validation", self.config.validation_envs, None)
        self._test = self._drops("test", self.config.test_envs, "test") if agent.env.knows_truth else None

    def run(self) -> dict[str, float]:
        """Train to the end; see ``Agent.train``."""
        with self.session(self.steps), progress_bar(self.plan.progress, self.total_steps, "step", self.steps) as bar:
            self.mend_best(self.best)
            if self.steps == 0:
                self._evaluate()
            if self.replanned:
                # What stands there says that the run has finished.
                self.write_best(self.best or self.agent.policy_state())
            if self.steps == 0 or self.replanned:
                self._checkpoint()
            while self.steps < self.total_steps:
                self._advance()
                bar.update(min(self.steps, self.total_steps) - bar.n)
                if self.config.evaluations:
                    bar.set_postfix(score=f"{self.last_score:.4g}", refresh=False)
            return self._finish()

    def _advance(self) -> None:
        before, fraction = self.steps, min(self.steps / self.total_steps, 1.0)
        rounds = self.rollout.play(before, fraction)
        for result in rounds:
            self._guard(result)
            self.log.add_round(result.rewards, result.metrics, result.scalars, result.done)
        self.steps = before + sum(result.env_steps or self.agent.env.num_envs for result in rounds)
        self.agent.steps_trained = self.steps
        if self._due(before, self.total_steps / _LOG_POINTS):
            self.log.write(self.steps, rounds[-1].logged)
        if self.config.evaluations and self._due(before, self.total_steps / self.config.evaluations):
            self._evaluate()
        if self._due(before, self.config.checkpoint_every) or self.interruption.asked:
            self._checkpoint()
        if self.interruption.asked:
            where = f"; go on with resume={self.log_dir}" if self.log_dir else ""
            raise KeyboardInterrupt(f"stopped at environment step {self.steps}{where}")
        if self.plan.callback is not None:
            self.plan.callback(self.steps)

    def _evaluate(self) -> None:
        values = {}
        if self._validation is not None:
            self._select(self._validation.play(self.agent))
            values = {"score/validation": self.last_score, "score/best": self.best_score}
        if self._test is not None:
            values.update({f"test/{name}": value for name, value in self._test.play(self.agent).metres.items()})
        self.log.scalars(self.steps, values)
        if self.plan.figures is not None:
            self.log.figures(self.steps, self.plan.figures(self.steps))

    def _select(self, assessment: Assessment) -> None:
        """Keep the newest policy whose score is not clearly below the highest one seen."""
        self.last_score = assessment.score
        if not math.isfinite(self.last_score):
            raise FloatingPointError(self._not_finite("the validation score"))
        if self.record is None or is_as_good(assessment.scores, self.record):
            self.best_score, self.best = self.last_score, self.agent.policy_state()
            self.write_best(self.best)
        if self.record is None or assessment.score > float(self.record.mean()):
            self.record = assessment.scores

    def _finish(self) -> dict[str, float]:
        self._checkpoint()
        if self.best is not None:
            self.agent.load_policy(self.best)
        results = {"steps": float(self.steps)}
        if self._validation is not None:
            results.update(best_score=self.best_score, final_score=self.last_score)
        if self._test is not None:
            results.update(self._test.play(self.agent).metres)
        self.log.hyper_parameters(self.config.to_dict(), results)
        # Only now: a run that is killed while its last figures are computed can still be resumed to get them.
        self.write_best(self.agent.policy_state(), finished=True, results=results)
        return results

    def _guard(self, result: Round) -> None:
        values = [result.rewards.mean(), *result.scalars.values()]
        if not bool(torch.isfinite(torch.stack([value.to(torch.float64) for value in values])).all()):
            names = ["the reward", *result.scalars]
            wrong = [name for name, value in zip(names, values, strict=True) if not bool(torch.isfinite(value))]
            raise FloatingPointError(self._not_finite(" and ".join(wrong)))

    def _not_finite(self, what: str) -> str:
        place = f"last good checkpoint: {self.log_dir / LAST}" if self.log_dir else "no checkpoint (log_dir=None)"
        return f"{what} became NaN or infinite after environment step {self.steps}; {place}; {self.agent.remedy}."

    def _checkpoint(self) -> None:
        run = {
            "rollout": self.rollout.state_dict(),
            "steps": self.steps,
            "total_steps": self.total_steps,
            "best": self.best,
            "best_score": self.best_score,
            "record": self.record,
            "last_score": self.last_score,
        }
        self.write_last(run, self._place(self.steps))

    def _resume(self, resume: str | Path, total_steps: int | None) -> int:
        path, content = self.stored(resume)
        run = content["run"]
        total = int(run["total_steps"] if total_steps is None else total_steps)
        only_figures_missing = total == run["total_steps"] and not (best_of(path.parent) or {}).get("finished", False)
        if run["steps"] >= total and not only_figures_missing:
            raise ValueError(
                f"the run in {path.parent} is finished ({run['steps']} of {total} environment steps); "
                f"evaluate its {BEST} or raise total_steps."
            )
        self.replanned = total != run["total_steps"]
        self.agent.load_policy(content["agent"])
        self.rollout.load_state_dict(run["rollout"])
        self.steps, self.agent.steps_trained = int(run["steps"]), int(run["steps"])
        self.best, self.best_score, self.last_score = run["best"], run["best_score"], run["last_score"]
        self.record = run["record"]
        self.kept = self._place(self.steps)
        return total

    def _drops(self, name: str, episodes: int, split: str | None) -> FixedDrops | None:
        if episodes == 0 or self.config.evaluations == 0:
            return None
        seed = derive_seed(self.config.seed, name)
        return FixedDrops(self.agent.env.sibling(episodes, seed, split), seed, episodes)

    def _due(self, before: int, interval: int | float) -> bool:
        return math.floor(self.steps / interval) > math.floor(before / interval)

    @staticmethod
    def _place(steps: int) -> str:
        return f"environment step {steps}"
