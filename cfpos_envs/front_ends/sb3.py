"""Our batched environments as Stable-Baselines3 sees them: one small policy shared by all agents."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from cfpos_envs.checkpoints import State
from cfpos_envs.front_ends.base import BatchedEnv, VectorStep, begin_by_reset

Share = Literal["agent", "entity"]
Indices = int | Iterable[int] | None
Info = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """How the vectors of all agents are cut into the rows of one shared policy.

    ``share="agent"``: one row per agent. ``share="entity"``: one row per (agent, entity) pair, where one agent's
    vectors are equal parts, one per entity (``Scenario.entities``). Rows run over episodes, then agents, then entities.

    Attributes:
        agents: n.
        parts: K, rows per agent; 1 for ``share="agent"``.
        observation_size, action_size: of one agent.
        agent_id: whether a one-hot code of the agent follows each row's observation.
    """

    agents: int
    parts: int
    observation_size: int
    action_size: int
    agent_id: bool = False

    @classmethod
    def of(cls, env: BatchedEnv, share: Share = "agent", agent_id: bool = False) -> Rows:
        """The rows of a batched environment.

        Raises:
            ValueError: unknown ``share``, or entities are asked for where there are none.
        """
        if share not in ("agent", "entity"):
            raise ValueError(f"share={share!r} is unknown; choose one of agent, entity.")
        parts = 1
        if share == "entity":
            if env.entities is None:
                raise ValueError("share=entity needs an environment with entities; use share=agent.")
            parts = env.entities.count
        return cls(len(env.agents), parts, env.observation_size, env.action_size, agent_id)

    @property
    def per_episode(self) -> int:
        """Rows that one episode gives in each round."""
        return self.agents * self.parts

    @property
    def row_observation_size(self) -> int:
        """Length of one row's observation."""
        return self.observation_size // self.parts + (self.agents if self.agent_id else 0)

    @property
    def row_action_size(self) -> int:
        """Length of one row's action."""
        return self.action_size // self.parts

    def observations(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "rows row_obs"]:
        """The observations of all rows; without ``agent_id`` any number of agents and of entities will do.

        Raises:
            ValueError: another number of agents although rows carry their agent's code.
        """
        size = self.observation_size // self.parts
        batch, agents = observations.shape[:2]
        rows = observations.reshape(batch, agents, -1, size)
        if self.agent_id:
            if agents != self.agents:
                raise ValueError(f"agent_id=true was made for {self.agents} agents, not {agents}; use agent_id=false.")
            code = torch.eye(agents, dtype=rows.dtype, device=rows.device)[None, :, None]
            rows = torch.cat([rows, code.expand(batch, agents, rows.shape[2], agents)], -1)
        return rows.flatten(0, 2)

    def actions(self, rows: Float[Tensor, "rows row_act"], agents: int) -> Float[Tensor, "B n act"]:
        """The joint actions that the rows' actions make, in a game of ``agents`` agents with as many entities as
        :meth:`observations` was given."""
        return rows.reshape(-1, agents, self.parts * self.row_action_size)

    def rewards(self, step: VectorStep) -> Float[Tensor, " rows"]:
        """What each row has earned: its own entity's share where rows are pairs.

        Raises:
            ValueError: the environment does not say what each entity earns.
        """
        if self.parts == 1:
            return step.rewards.flatten()
        if "entity_rewards" not in step.metrics:
            raise ValueError("share=entity needs entity_rewards from the environment; use share=agent.")
        return step.metrics["entity_rewards"].flatten()


class Sb3VecEnv(VecEnv):
    """Every agent (or every pair of agent and entity) of every parallel episode is one environment to SB3.

    Observations and actions are float32 in [-1, 1]. Rows of one episode end together; the next episodes start at once,
    and ``infos`` hold ``terminal_observation`` (what was seen at the end), ``TimeLimit.truncated`` (true where the end
    is a time limit: values are bootstrapped) and ``episode`` with return ``r``, length ``l`` and seconds ``t``.

    Args:
        env: a batched environment, e.g. ``make_env("dcp-rss-v0", num_envs=16)``.
        share: what is a row, see ``Rows``.
        agent_id: append a one-hot code of the agent to each observation.
        scale: what is learned from, given what was paid, both tensors [rows], and the round; None: what was paid, which
            ``episode`` reports in any case.
        time_limits: whether ``TimeLimit.truncated`` is set. With a discount of 0 nothing is bootstrapped, and false
            spares SB3's PPO the valuation of the ends of episodes, which it does row by row.

    Attributes:
        env: the batched environment.
        rows: how it is cut.
        last_step: what it returned last.

    Raises:
        ValueError: not a batched environment, one that resets itself, or ``share`` asks for what it has not.
    """

    def __init__(
        self,
        env: object,
        share: Share = "agent",
        agent_id: bool = False,
        scale: Callable[[Tensor, VectorStep], Tensor] | None = None,
        time_limits: bool = True,
    ) -> None:
        if not isinstance(env, BatchedEnv):
            raise ValueError(
                f"{type(env).__name__} is not a batched environment; make one with make_env(id, num_envs=16)."
            )
        begin_by_reset(env)
        self.env, self.scale, self.time_limits = env, scale, time_limits
        self.rows = Rows.of(env, share, agent_id)
        self.last_step: VectorStep | None = None
        self.render_mode = None
        self._actions: Tensor | None = None
        count = env.num_envs * self.rows.per_episode
        self._returns, self._length, self._since = torch.zeros(count), 0, time.perf_counter()
        super().__init__(
            count,
            Box(-1.0, 1.0, (self.rows.row_observation_size,), np.float32),
            Box(-1.0, 1.0, (self.rows.row_action_size,), np.float32),
        )

    def reset(self) -> np.ndarray:
        """Begin all episodes; after ``seed(number)`` the environment's random streams start anew."""
        observations = self._begin(self._seeds[0])
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Note the actions [rows, action] for ``step_wait``."""
        rows = torch.as_tensor(np.asarray(actions, dtype=np.float32), device=self.env.device)
        self._actions = self.rows.actions(rows, self.rows.agents)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[Info]]:
        """Play the round.

        Raises:
            RuntimeError: episodes that end one by one, which no environment of ours has.
            ValueError: an agent is cut off while others play on (games of other people).
        """
        assert self._actions is not None
        step = self.env.step(self._actions)
        if self.env.agents_leave and self._length > 0:
            self._check_nobody_cut_off(step)
        self.last_step, self._actions = step, None
        paid = self.rows.rewards(step).detach().cpu()
        self._returns, self._length = self._returns + paid, self._length + 1
        learned = paid if self.scale is None else self.scale(paid, step)
        observations = self._array(step.observations)
        over = step.terminated | step.truncated
        if bool(over.any()) and not bool(over.all()):
            raise RuntimeError("episodes that end one by one cannot be shared by rows; use num_envs=1.")
        done = bool(over.all())
        infos: list[Info] = [{} for _ in range(self.num_envs)]
        if done:
            infos = self._endings(step, observations)
            observations = self._begin(None)
        return observations, learned.numpy().astype(np.float32), np.full(self.num_envs, done), infos

    def state_dict(self) -> State:
        """The running episodes, for checkpoints: the batched environment's state, returns and length so far."""
        return {"env": self.env.state_dict(), "returns": self._returns.clone(), "length": self._length}

    def load_state_dict(self, state: State) -> None:
        """Go on where ``state_dict`` stopped."""
        self.env.load_state_dict(state["env"])
        self._returns, self._length = state["returns"].clone(), int(state["length"])

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The same attribute for every row: they share one environment."""
        owner = self if attr_name == "render_mode" else self.env
        return [getattr(owner, attr_name)] * len(self._chosen(indices))

    def set_attr(self, attr_name: str, value: object, indices: Indices = None) -> None:
        """Set an attribute of the batched environment, for all rows at once."""
        setattr(self.env, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: object, indices: Indices = None, **method_kwargs: object
    ) -> list[Any]:
        """Call a method of the batched environment once; every row gets the answer."""
        answer = getattr(self.env, method_name)(*method_args, **method_kwargs)
        return [answer] * len(self._chosen(indices))

    def env_is_wrapped(self, wrapper_class: type, indices: Indices = None) -> list[bool]:
        """Never wrapped."""
        return [False] * len(self._chosen(indices))

    def _begin(self, seed: int | None) -> np.ndarray:
        self._returns, self._length, self._since = torch.zeros(self.num_envs), 0, time.perf_counter()
        return self._array(self.env.reset(seed=seed))

    def _check_nobody_cut_off(self, step: VectorStep) -> None:
        # SB3 learns from every row of every round; rounds that nobody played would end the values of who was cut off.
        # Who is terminated is worth nothing in them, as it should be.
        assert self.last_step is not None
        before = self.last_step.metrics
        cut = before["agent_valid"] & ~before["agent_terminated"] & ~step.metrics["agent_valid"]
        if bool(cut.any()):
            names = [name for name, gone in zip(self.env.agents, cut.any(0).tolist(), strict=True) if gone]
            raise ValueError(
                f"{', '.join(names)} of {self.env.env_id} is cut off while others play on, and Stable-Baselines3 "
                "cannot leave out rounds; train with maddpg, or let all time limits end together"
            )

    def _endings(self, step: VectorStep, observations: np.ndarray) -> list[Info]:
        # Where agents leave one by one, each has its own end (games of other people).
        gone = step.metrics.get("agent_terminated")
        ended = step.terminated[:, None].expand(-1, self.rows.agents) if gone is None else gone
        cut = (step.truncated[:, None] & ~ended).repeat_interleave(self.rows.parts, 1).flatten().tolist()
        seconds = round(time.perf_counter() - self._since, 6)
        return [
            {
                "terminal_observation": observations[row],
                "TimeLimit.truncated": self.time_limits and cut[row],
                "episode": {"r": earned, "l": self._length, "t": seconds},
            }
            for row, earned in enumerate(self._returns.tolist())
        ]

    def _array(self, observations: Tensor) -> np.ndarray:
        # A copy: SB3 keeps what it is given, and the environment may reuse its memory.
        return self.rows.observations(observations).detach().cpu().numpy().astype(np.float32, copy=True)

    def _chosen(self, indices: Indices) -> Sequence[int]:
        return list(self._get_indices(indices))
