"""Following a moving user: what a policy estimates along a way, its error, its picture."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cfpos_envs.channels.sources import UserSource
from cfpos_envs.drawing.scene import scene_figure
from cfpos_envs.measurements.base import PositionEstimate
from cfpos_envs.registry import make_scenario
from cfpos_envs.scenarios.ecc.config import EccConfig
from cfpos_envs.scenarios.ecc.game import EccScenario
from cfpos_envs.scenarios.ecc.state import EccState
from cfpos_envs.streams import Streams, derive_seed


@runtime_checkable
class Locates(Protocol):
    """An estimator."""

    def locate(self, measurements: Any) -> PositionEstimate:
        """Positions of all users from one snapshot."""


@runtime_checkable
class ActsInBatches(Protocol):
    """A policy that plays."""

    def act_batch(self, observations: Tensor) -> Tensor:
        """Actions of all agents in a batch of episodes."""


@dataclass(frozen=True)
class Track:
    """True and estimated ways of the users of some episodes.

    Attributes:
        truth_m, estimate_m: [episodes, rounds, users, 3].
        source: the scene, for pictures.
    """

    truth_m: np.ndarray
    estimate_m: np.ndarray
    source: UserSource

    @property
    def error_m(self) -> np.ndarray:
        """[episodes, rounds, users] distance between estimate and truth."""
        distance: np.ndarray = np.linalg.norm(self.estimate_m - self.truth_m, axis=-1)
        return distance

    @property
    def mean_error_m(self) -> float:
        """Mean over all points of all ways."""
        return float(self.error_m.mean())

    def figure(self, episode: int = 0) -> Figure:
        """The ways of one episode from above and from the side."""
        errors = self.error_m[episode]
        return scene_figure(
            self.source,
            truth_m=self.truth_m[episode],
            now_m=self.truth_m[episode, -1],
            estimates_m=list(self.estimate_m[episode]),
            title=f"mean error along the way {errors.mean():.2f} m",
        )


def track(
    env_id: str,
    policy: object,
    rounds: int = 60,
    mobility: str = "spiral",
    episodes: int = 1,
    seed: int = 7,
    **overrides: Any,
) -> Track:
    """Let a policy locate moving users at every point of their ways.

    Args:
        env_id: an id of this family.
        policy: with ``locate(measurements)``, asked at every point, or ``act_batch(observations)``, which plays.
        rounds: points of each way.
        mobility: ``spiral`` or ``waypoint``.
        episodes: number of ways.
        seed: of the ways; the split is ``test``.
        overrides: config fields.

    Raises:
        ValueError: ``mobility="static"``, unknown id or override, an answer of the wrong shape.
        TypeError: the policy has neither method, or the id is another game's.
    """
    if mobility == "static":
        raise ValueError("mobility='static' has no way to follow; choose spiral or waypoint")
    still = make_scenario(env_id, **overrides)
    if not isinstance(still, EccScenario):
        raise TypeError(f"{env_id} measures no CSI snapshots; choose one of the ecc ids")
    if not isinstance(still.config, EccConfig):
        raise TypeError(f"{env_id} has the users of a file, who do not move; choose another of the ecc ids")
    config = dataclasses.replace(still.config, rounds=rounds, mobility=mobility, split="test")
    made = EccScenario(config, still.device)
    made.counted_bits(policy)  # refuses a policy beyond the fronthaul budget
    state = made.reset(Streams(derive_seed(seed, "track"), "test", made.device), episodes)
    estimates: list[Tensor] = []
    for _ in range(rounds):
        actions = _actions(made, state, policy)
        state = made.step(state, actions).state
        estimates.append(made.estimate(state))
    estimate = np.stack([e.detach().cpu().numpy() for e in estimates], axis=1)
    return Track(state.true_position_m.cpu().numpy(), estimate, made.world.source)


def _actions(scenario: EccScenario, state: EccState, policy: object) -> Tensor:
    if isinstance(policy, Locates):
        position = policy.locate(scenario.measurements(state)).position
        wanted = tuple(scenario.estimate(state).shape)
        if tuple(position.shape) != wanted:
            raise ValueError(f"locate answered positions of shape {tuple(position.shape)}; they must be {wanted}")
        return scenario.encode_estimate(state, position)
    if isinstance(policy, ActsInBatches):
        return policy.act_batch(scenario.observe(state))
    raise TypeError(f"{type(policy).__name__} has neither locate nor act_batch; it cannot follow a user")
