"""What every agent offers to the command line, the evaluator and other callers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checkpoints import (
    SIGNATURE_PARTS,
    State,
    check_game,
    folder_of,
    game_of,
    read_checkpoint,
    write_checkpoint,
)
from cfpos_envs.front_ends.base import BatchedEnv
from cfpos_envs.locks import exclusive
from cfpos_envs.settings import Settings
from cfpos_envs.supervised.processes import launched

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AgentT = TypeVar("AgentT", bound="Agent")


@dataclass(frozen=True)
class Plan:
    """What ``Agent.train`` was asked to do; the attributes are its arguments."""

    total_steps: int | None = None
    log_dir: Path | None = None
    resume: str | Path | None = None
    figures: Callable[[int], dict[str, Figure]] | None = None
    callback: Callable[[int], None] | None = None
    progress: bool | None = None
    note: str | None = None


class Agent(ABC):
    """A trainer and the policies it trains, for one environment.

    A subclass is made with ``(env, config)``, where ``env`` is anything that ``agents.environments.as_vector_env``
    takes; it sets ``env`` and ``config``, fills ``act_batch``, ``network_state``, ``load_networks`` and ``run`` (the
    last by way of ``agents.training.PlayingAgent`` if it learns by playing), and names itself and its settings in
    ``agents.registry``.

    Attributes:
        name: under which it is registered; checkpoints carry it.
        config_class: its settings.
        remedy: what to change when numbers become infinite.
        shares_batches: whether processes started by torchrun train one model together.
        signature_parts: the parts of a game's signature that its policies rely on.
        env: the batched environment it trains on.
        config: its settings' values.
        steps_trained: environment steps behind the present policies.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Settings]]
    remedy: ClassVar[str] = "lower the learning rate"
    shares_batches: ClassVar[bool] = False
    signature_parts: ClassVar[Collection[str]] = SIGNATURE_PARTS
    env: BatchedEnv
    config: Settings
    steps_trained: int = 0

    @abstractmethod
    def __init__(self, env: object, config: Any) -> None: ...

    def train(
        self,
        total_steps: int | None = None,
        log_dir: str | Path | None = None,
        resume: str | Path | None = None,
        figures: Callable[[int], dict[str, Figure]] | None = None,
        callback: Callable[[int], None] | None = None,
        progress: bool | None = None,
        note: str | None = None,
    ) -> dict[str, float]:
        """Train from the start, or go on with a run, and keep the result.

        Agents that learn by playing keep the policy with the best label-free score of all evaluations (the untrained
        one included); supervised ones the averaged weights of the end.

        Args:
            total_steps: environment steps of the whole run, num_envs x rounds played (for supervised models: what their
                page says); None on resuming: as planned.
            log_dir: folder for TensorBoard files, ``last.pt`` (everything needed to resume), ``previous.pt`` (what
                ``last.pt`` was before) and ``best.pt``; locked meanwhile.
            resume: folder or ``last.pt`` of an unfinished run; it goes on bit for bit as if it had not been stopped
                (not with RLlib, see its page).
            figures: called with the step at every evaluation; its matplotlib figures go to TensorBoard by name.
            callback: called with the step after every round, or where there are none at every evaluation.
            progress: show a bar with the time left; None: only on a terminal.
            note: what checkpoints are to hold besides, as ``note``; the command line puts the run's settings there.

        Returns:
            ``steps`` and what was measured at the end, by name: ``best_score``, ``final_score`` and, where the
            environment knows the truth, ``rmse_m`` and ``bound_rmse_m`` of the final policy on test drops; for
            supervised models what their page says.

        Raises:
            ValueError: nothing to train, a run that is finished or of another game, or a folder that holds a run or
                that another process or thread writes to.
            FileNotFoundError: nothing to resume from.
            OSError: the folder cannot be written, or the disk is full; says from where the run can go on.
            ConnectionError: processes that share the training, or their cluster, cannot be reached.
            FloatingPointError: a loss, gradient or reward is NaN or infinite; names the last good checkpoint.
        """
        self.check_trainable()
        folder = None if log_dir is None else Path(log_dir)
        plan = Plan(total_steps, folder, resume, figures, callback, progress, note)
        written = folder_of(resume) if folder is None and resume is not None else folder
        # Of the processes of torchrun the first alone writes.
        with nullcontext() if written is None or launched()[0] > 0 else exclusive(written):
            return self.run(plan)

    def run(self, plan: Plan) -> dict[str, float]:
        """What ``train`` does once the agent is known to be trainable.

        Raises:
            ValueError: an agent that only plays.
        """
        raise ValueError(f"agent {self.name} cannot be trained; define {type(self).__name__}.run(plan).")

    @abstractmethod
    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Noise-free actions of all agents."""

    @abstractmethod
    def network_state(self) -> State:
        """A copy of the policies and of the sizes that they are for: tensors and plain values only."""

    @abstractmethod
    def load_networks(self, state: State) -> None:
        """Take over policies from ``network_state``; ValueError if their sizes are others."""

    def policy_state(self) -> State:
        """A copy of the policies and of what they belong to, as files hold it."""
        return {
            "name": self.name,
            "config": self.config.to_dict(),
            **game_of(self.env),
            **self.network_state(),
            "steps": self.steps_trained,
        }

    def load_policy(self, state: State) -> None:
        """Take over policies from ``policy_state``; ValueError if they belong to another game."""
        self.check_game(state)
        self.load_networks(state)
        self.steps_trained = int(state["steps"])

    def begin_with(self, path: str | Path) -> None:
        """Take over the policy of a file or of a run's folder (its best) as a start; no step of it counts.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged file, or the policies of another agent, of another game or of other sizes.
        """
        state: State = read_checkpoint(path)["agent"]
        if state["name"] != self.name:
            raise ValueError(f"start_from={path} is of the agent {state['name']}, not {self.name}; train that one")
        self.load_policy(state)
        self.steps_trained = 0

    def check_game(self, state: State) -> None:
        """ValueError if ``state`` (of ``policy_state``) belongs to another game."""
        check_game(state, self.env, self.signature_parts)

    def check_trainable(self) -> None:  # noqa: B027 - most agents learn wherever they play
        """ValueError if the agent can play in this environment but not learn there."""

    def act(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Noise-free actions by agent name, from observations by agent name."""
        return self.env.unpack(self.act_batch(self.env.pack(observations)), list(observations))

    def reset(self) -> None:  # noqa: B027 - most agents have no memory
        """A new episode begins; agents with memory forget the last one here."""

    def save(self, path: str | Path) -> None:
        """Write the policies (not the training state) to a file, whole or not at all."""
        write_checkpoint(path, {"agent": self.policy_state()})

    @classmethod
    def load(cls: type[AgentT], path: str | Path, env: object) -> AgentT:
        """The policies of a file or of a run's folder (its best), for ``env``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged file, or the policies of another agent, of another game or of other sizes.
        """
        return cls.from_state(read_checkpoint(path)["agent"], env)

    @classmethod
    def from_state(cls: type[AgentT], state: State, env: object) -> AgentT:
        """An agent with the policies of ``policy_state``; raises as ``load`` does."""
        if state["name"] != cls.name:
            raise ValueError(f"the checkpoint is of the agent {state['name']}, not {cls.name}; use load_agent.")
        agent = cls(env, cls.config_class.restored(state["config"]))
        agent.load_policy(state)
        return agent
