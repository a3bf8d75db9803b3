"""What every agent offers to the command line, the evaluator and whoever calls it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.checkpoints import read_checkpoint, write_checkpoint
from cfpos_envs.settings import Settings

AgentT = TypeVar("AgentT", bound="Agent")


class Agent(ABC):
    """A trainer and the policies it trains, for one environment.

    A subclass is made with ``(env, config)``, where ``env`` is anything that ``agents.environments.as_vector_env``
    takes; it sets the attributes below and names itself and its settings in ``agents.registry``.

    Attributes:
        name: under which it is registered; checkpoints carry it.
        config_class: its settings.
        remedy: what to change when numbers become infinite.
        shares_batches: whether processes started by torchrun train one model together.
        env: the batched environment it trains on.
        config: its settings' values.
        steps_trained: environment steps behind the present policies.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[Settings]]
    remedy: ClassVar[str] = "lower the learning rate"
    shares_batches: ClassVar[bool] = False
    env: Any
    config: Any
    steps_trained: int = 0

    @abstractmethod
    def __init__(self, env: Any, config: Any) -> None: ...

    @abstractmethod
    def train(
        self,
        total_steps: int | None = None,
        log_dir: str | Path | None = None,
        resume: str | Path | None = None,
        figures: Callable[[int], dict[str, Any]] | None = None,
        callback: Callable[[int], None] | None = None,
        progress: bool | None = None,
    ) -> dict[str, float]:
        """Train from the start, or go on with a run.

        Args:
            total_steps: environment steps of the whole run (for supervised models: what their page says); None on
                resuming: as planned.
            log_dir: folder for TensorBoard files, ``last.pt`` (what is needed to resume) and ``best.pt``.
            resume: folder or ``last.pt`` of an unfinished run.
            figures: called with the step at every evaluation; its matplotlib figures go to TensorBoard by name.
            callback: called with the step now and then.
            progress: show a bar with the time left; None: only on a terminal.

        Returns:
            ``steps`` and what was measured at the end, by name.
        """

    @abstractmethod
    def act_batch(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n act"]:
        """Noise-free actions of all agents."""

    @abstractmethod
    def policy_state(self) -> dict[str, Any]:
        """A copy of the policies and of what they belong to: tensors and plain values only.

        ``name`` (of the agent) and ``config`` (``Settings.to_dict``) must be among them.
        """

    @abstractmethod
    def load_policy(self, state: dict[str, Any]) -> None:
        """Take over policies from ``policy_state``; ValueError if they belong to another game."""

    def check_trainable(self) -> None:  # noqa: B027 - most agents learn wherever they play
        """ValueError if the agent can play in this environment but not learn there."""

    def act(self, observations: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Noise-free actions by agent name, from observations by agent name."""
        names = list(observations)
        stacked = np.stack([np.asarray(observations[name], dtype=np.float32) for name in names])
        chosen = self.act_batch(torch.as_tensor(stacked)[None])[0].cpu().numpy()
        return dict(zip(names, chosen, strict=True))

    def reset(self) -> None:  # noqa: B027 - most agents have no memory
        """A new episode begins; agents with memory forget the last one here."""

    def save(self, path: str | Path) -> None:
        """Write the policies (not the training state) to a file, whole or not at all."""
        write_checkpoint(path, {"agent": self.policy_state()})

    @classmethod
    def load(cls: type[AgentT], path: str | Path, env: Any) -> AgentT:
        """The policies of a file or of a run's folder (its best), for ``env``.

        Raises:
            FileNotFoundError: no such file.
            ValueError: damaged file, or the policies of another agent, of another game or of other sizes.
        """
        return cls.from_state(read_checkpoint(path)["agent"], env)

    @classmethod
    def from_state(cls: type[AgentT], state: dict[str, Any], env: Any) -> AgentT:
        """An agent with the policies of ``policy_state``; raises as ``load`` does."""
        if state["name"] != cls.name:
            raise ValueError(f"the checkpoint is of the agent {state['name']}, not {cls.name}; use load_agent.")
        agent = cls(env, cls.config_class.build(state["config"]))
        agent.load_policy(state)
        return agent
