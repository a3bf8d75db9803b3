"""One evaluator for everything that locates a user: trained agents and estimators on exactly the same drops."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from cfpos_envs.arithmetic_threads import DEFAULT_THREADS, torch_threads
from cfpos_envs.front_ends.base import Env, Game
from cfpos_envs.front_ends.parallel import ParallelEnv
from cfpos_envs.front_ends.vector import VectorEnv
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.registry import check_overrides, make_scenario
from cfpos_envs.results import METRICS, EvaluationResult, format_table
from cfpos_envs.scenarios.base import TensorState
from cfpos_envs.streams import Streams, derive_seed

__all__ = ["CHUNK_EPISODES", "METRICS", "EvaluationResult", "evaluate", "evaluate_many", "format_table"]

CHUNK_EPISODES = 50
"""Episodes are always drawn in groups of this size, so that the first 50 of 200 are the 50 of a shorter run."""


def evaluate(
    env: object,
    policy: object,
    episodes: int = 200,
    seed: int = 7,
    threads: int | None = DEFAULT_THREADS,
    **overrides: object,
) -> EvaluationResult:
    """Measure one policy on unseen sites and drops.

    The scenario is rebuilt with ``split="test"``, whose sites, maps and drops no training ever draws. The same seed
    gives the same drops, channels and noise to every policy, and the first episodes of a longer run are those of a
    shorter one. A policy with ``locate(measurements)`` answers once; one with ``act_batch(observations)`` plays all
    rounds of a batch; any other plays them through PettingZoo's dictionaries with ``act``.

    A user for whom a policy (or, where rounds are played, the game) says that there is no valid answer lowers
    ``valid_share`` but keeps its error: the position given counts if it is finite, else the centre of the area does.

    Args:
        env: an id, or an environment whose scenario and config are used.
        policy: see above; its ``name`` is reported.
        episodes: number of episodes, at least 1.
        seed: of the drops.
        threads: torch threads meanwhile; None: as many as torch has.
        overrides: config fields that differ from those of ``env``.

    Raises:
        ValueError: unknown id or override, ``episodes`` below 1, or an answer of the wrong shape.
        TypeError: ``policy`` has none of the three methods.
    """
    return evaluate_many(env, [policy], episodes, seed, threads, **overrides)[0]


def evaluate_many(
    env: object,
    policies: Sequence[object],
    episodes: int = 200,
    seed: int = 7,
    threads: int | None = DEFAULT_THREADS,
    **overrides: object,
) -> list[EvaluationResult]:
    """``evaluate`` several policies; every drop is made once and given to all of them.

    Args:
        env, episodes, seed, threads, overrides: as in ``evaluate``.
        policies: any mixture of kinds.

    Returns:
        One result per policy, in the order given.
    """
    if isinstance(episodes, bool) or not isinstance(episodes, int) or episodes < 1:
        raise ValueError(f"episodes is {episodes!r}; it must be an integer of at least 1")
    env_id, scenario = _test_scenario(env, overrides)
    runners = [_runner(policy) for policy in policies]
    # Before anything is played: a policy beyond the scenario's budget is refused here.
    sent_bits = [float(scenario.counted_bits(policy)) for policy in policies]
    tallies = [_Tally() for _ in policies]
    bound_names = [scenario.bound_of(policy) for policy in policies]
    own_name = scenario.bound_of(None)
    bounds: dict[str, list[np.ndarray]] = {name: [] for name in bound_names}
    sites: list[np.ndarray] = []
    sights: list[np.ndarray | None] = []
    with torch_threads(threads):
        for start in _test_states(scenario, episodes, seed):
            state = scenario.answered(start)
            truth = scenario.truth(state)
            for name, found in bounds.items():
                bound = truth.get("peb_m") if name == own_name else scenario.named_bound_m(state, name)
                if bound is not None:
                    found.append(_to_numpy(bound))
            measured = scenario.measurements(state)
            if isinstance(measured, _OfSites) and measured.site_ids is not None:
                sites.append(_to_numpy(measured.site_ids).astype(int))
            seen = scenario.in_sight(state) if isinstance(scenario, KnowsSight) else None
            sights.append(None if seen is None else seen.cpu().numpy().astype(int))
            for policy, run, tally in zip(policies, runners, tallies):
                tally.add(run(scenario, state if isinstance(policy, Locates) else start))
    shared = {
        "env_id": env_id,
        "config": dataclasses.asdict(scenario.config),
        "seed": seed,
        "sites": np.concatenate(sites) if sites else None,
        "in_sight": _together(sights),
    }
    return [
        tally.result(
            _name(policy),
            {
                **shared,
                "fronthaul_bits": sent,
                "bounds": np.concatenate(bounds[name]) if bounds[name] else None,
                "bound_of": name if bounds[name] else "",
            },
        )
        for policy, tally, sent, name in zip(policies, tallies, sent_bits, bound_names)
    ]


@dataclass
class _ChunkResult:
    """What one policy did on a group of episodes: [episodes, ues, ...] arrays, [rounds + 1] squared errors, seconds."""

    errors: np.ndarray
    valid: np.ndarray
    positions_m: np.ndarray
    truth_m: np.ndarray | None
    covariance_m2: np.ndarray | None
    reason: np.ndarray | None
    radii: np.ndarray | None
    squared_by_round: list[float] | None
    seconds: float
    policy_seconds: float


@dataclass
class _Tally:
    """Collects the groups of one policy."""

    chunks: list[_ChunkResult] = field(default_factory=list)

    def add(self, chunk: _ChunkResult) -> None:
        self.chunks.append(chunk)

    def result(self, policy: str, shared: dict[str, Any]) -> EvaluationResult:
        errors = _together([chunk.errors for chunk in self.chunks])
        valid = _together([chunk.valid for chunk in self.chunks])
        assert errors is not None
        assert valid is not None
        rounds = [chunk.squared_by_round for chunk in self.chunks if chunk.squared_by_round is not None]
        weights = [chunk.errors.size for chunk in self.chunks]
        by_round = np.sqrt(np.average(rounds, axis=0, weights=weights)).tolist() if rounds else None
        per_user = [(1e3 * c.seconds / c.errors.size, 1e3 * c.policy_seconds / c.errors.size) for c in self.chunks]
        latency_ms, policy_ms = np.median(per_user, axis=0).tolist()
        return EvaluationResult(
            policy=policy,
            errors=errors,
            valid_share=float(valid.mean()),
            rmse_by_round=by_round,
            latency_ms=latency_ms,
            policy_ms=policy_ms,
            positions_m=_together([chunk.positions_m for chunk in self.chunks]),
            covariance_m2=_together([chunk.covariance_m2 for chunk in self.chunks]),
            valid=valid,
            reason=_together([chunk.reason for chunk in self.chunks]),
            truth_m=_together([chunk.truth_m for chunk in self.chunks]),
            radii=_together([chunk.radii for chunk in self.chunks]),
            **shared,
        )


def _together(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The groups one after another; None where one has none."""
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if len(given) == len(parts) else None


@runtime_checkable
class Locates(Protocol):
    """A policy that answers once."""

    def locate(self, measurements: Any) -> PositionEstimate:
        """Positions from what the central unit received."""


@runtime_checkable
class ActsOnBatches(Protocol):
    """A policy that plays all rounds of a batch."""

    def act_batch(self, observations: Tensor) -> Tensor:
        """Actions [B, n, action_size] from observations [B, n, observation_size]."""


@runtime_checkable
class Acts(Protocol):
    """A policy that plays all rounds of one episode."""

    def act(self, observations: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Actions from observations, both by agent name."""


@runtime_checkable
class KnowsSight(Protocol):
    """A game that knows how many stations see a user; for reports, never for policies."""

    def in_sight(self, state: Any) -> Tensor | None:
        """[B, K] stations with a line of sight; None where nobody knows."""


@runtime_checkable
class _Restarts(Protocol):
    def reset(self) -> object:
        """A new episode begins."""


@runtime_checkable
class _Named(Protocol):
    name: object


@runtime_checkable
class _OfSites(Protocol):
    """Measurements that say at which of several sites they were made."""

    site_ids: Tensor | None


_Run = Callable[[Game, TensorState], _ChunkResult]


def _runner(policy: object) -> _Run:
    if isinstance(policy, Locates):
        return partial(_run_locate, policy)
    if isinstance(policy, ActsOnBatches):
        return partial(_run_batch, policy)
    if isinstance(policy, Acts):
        return partial(_run_dicts, policy)
    raise TypeError(f"{type(policy).__name__} is not a policy; it needs a method locate, act_batch or act")


def _run_locate(policy: Locates, scenario: Game, state: TensorState) -> _ChunkResult:
    measurements = scenario.measurements(state)
    _restart(policy)
    began = _now(scenario)
    estimate = policy.locate(measurements)
    seconds = _now(scenario) - began
    wanted = scenario.estimate(state).shape
    if estimate.position.shape != wanted or estimate.valid.shape != wanted[:-1]:
        given = f"position {tuple(estimate.position.shape)}, valid {tuple(estimate.valid.shape)}"
        raise ValueError(f"{_name(policy)}.locate answered {given}; position must be {tuple(wanted)}, valid without D")
    position = estimate.position.detach().to(scenario.estimate(state).dtype)
    finite = torch.isfinite(position).all(-1)
    if not bool(finite.all()):
        position = torch.where(finite[..., None], position, scenario.area_centre_m.to(position))
    truth = scenario.truth(scenario.with_estimate(state, position))
    return _ChunkResult(
        errors=_to_numpy(truth["error_m"]),
        valid=_to_numpy(estimate.valid & finite),
        positions_m=_to_numpy(position),
        truth_m=_if_given(truth.get("true_position")),
        covariance_m2=_if_given(estimate.covariance),
        reason=None if estimate.reason is None else estimate.reason.cpu().numpy().astype(int),
        radii=_if_given(estimate.radii),
        squared_by_round=None,
        seconds=seconds,
        policy_seconds=seconds,
    )


def _run_batch(policy: ActsOnBatches, scenario: Game, state: TensorState) -> _ChunkResult:
    env = VectorEnv(scenario, num_envs=len(scenario.estimate(state)), seed=0)
    env.game_state = state
    _restart(policy)
    squared = [_mean_square(env.truth()["error_m"])]
    seconds, policy_seconds, ended = 0.0, 0.0, False
    while not ended:
        began = _now(scenario)
        observations = env.observe()
        asked = _now(scenario)
        actions = policy.act_batch(observations)
        answered = _now(scenario)
        taken = env.step(actions)
        seconds += _now(scenario) - began
        policy_seconds += answered - asked
        squared.append(_mean_square(env.truth()["error_m"]))
        ended = bool((taken.terminated | taken.truncated).all())
    return _played(env.truth(), env.estimate, squared, seconds, policy_seconds)


def _run_dicts(policy: Acts, scenario: Game, state: TensorState) -> _ChunkResult:
    env = ParallelEnv(scenario, seed=0)
    ends: list[dict[str, Tensor]] = []
    estimates: list[Tensor] = []
    squared: list[list[float]] = []
    seconds = policy_seconds = 0.0
    for episode in range(len(scenario.estimate(state))):
        observations, infos = env.reset_to(state.select(slice(episode, episode + 1)))
        _restart(policy)
        rounds = [infos[env.possible_agents[0]]["error_m"]]
        while env.agents:
            asked = _now(scenario)
            actions = policy.act(observations)
            answered = _now(scenario)
            observations, _, _, _, infos = env.step(actions)
            seconds += _now(scenario) - asked
            policy_seconds += answered - asked
            rounds.append(infos[env.possible_agents[0]]["error_m"])
        ends.append(env.vector.truth())
        estimates.append(env.vector.estimate)
        squared.append([float(np.mean(np.square(r, dtype=float))) for r in rounds])
    mean_squared = np.mean(squared, axis=0).tolist()
    end = {name: torch.cat([truth[name] for truth in ends]) for name in ends[0]}
    return _played(end, torch.cat(estimates), mean_squared, seconds, policy_seconds)


def _played(
    truth: Mapping[str, Tensor], estimate: Tensor, squared: list[float], seconds: float, policy_seconds: float
) -> _ChunkResult:
    """The end of games in which rounds were played."""
    errors = _to_numpy(truth["error_m"])
    finite = np.isfinite(errors)
    return _ChunkResult(
        errors=errors,
        valid=finite & _to_numpy(truth["valid"]) if "valid" in truth else finite,
        positions_m=_to_numpy(estimate),
        truth_m=_if_given(truth.get("true_position")),
        covariance_m2=None,
        reason=None,
        radii=None,
        squared_by_round=squared,
        seconds=seconds,
        policy_seconds=policy_seconds,
    )


def _test_scenario(env: object, overrides: dict[str, object]) -> tuple[str, Game]:
    """The env's scenario with the test split, and its id."""
    changes: dict[str, Any] = {**overrides, "split": "test"}
    if isinstance(env, str):
        return env, make_scenario(env, **changes)
    if not isinstance(env, Env) or env.scenario is None:
        raise TypeError(f"env is a {type(env).__name__}; it must be an id, ParallelEnv, VectorEnv or SingleAgentEnv")
    scenario = env.scenario
    changes = {**check_overrides(type(scenario.config), overrides, vars(scenario.config)), "split": "test"}
    make: Any = type(scenario)
    return env.env_id, make(dataclasses.replace(scenario.config, **changes), device=env.device)


def _test_states(scenario: Game, episodes: int, seed: int) -> Iterator[TensorState]:
    """Fresh drops in groups of at most ``CHUNK_EPISODES``; no policy can influence what comes next."""
    streams = Streams(derive_seed(seed, "evaluate"), "test", scenario.device)
    for start in range(0, episodes, CHUNK_EPISODES):
        state = scenario.reset(streams, CHUNK_EPISODES)
        yield state.select(slice(0, min(CHUNK_EPISODES, episodes - start)))


def _now(scenario: Game) -> float:
    """Seconds; on a GPU after the queued work is done, else the clock would only see its queueing."""
    if scenario.device.type == "cuda":
        torch.cuda.synchronize(scenario.device)
    return time.perf_counter()


def _restart(policy: object) -> None:
    if isinstance(policy, _Restarts):
        policy.reset()


def _name(policy: object) -> str:
    return str(policy.name) if isinstance(policy, _Named) else type(policy).__name__


def _mean_square(errors: Tensor) -> float:
    return float(errors.double().square().mean())


def _if_given(tensor: Tensor | None) -> np.ndarray | None:
    return None if tensor is None else _to_numpy(tensor)


def _to_numpy(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array.astype(float) if array.dtype != bool else array
