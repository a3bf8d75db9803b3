"""The game on measured epochs: what somebody measured, played by the rules of a simulated game."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cfpos_envs.datasets import MeasuredSet
from cfpos_envs.measurements.base import Measurements
from cfpos_envs.scenarios.base import Entities, Scenario, Transition
from cfpos_envs.scenarios.features import Words
from cfpos_envs.scenarios.measured.config import MeasuredConfig
from cfpos_envs.scenarios.measured.powers import PowersGame
from cfpos_envs.scenarios.measured.ranges import RangesGame
from cfpos_envs.scenarios.measured.stored import stored_set
from cfpos_envs.streams import Streams

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class MeasuredScenario(Scenario[Any]):
    """Positioning of users that somebody has measured: epochs of ranges or powers at known access points.

    The rules are those of ``toa-v0``, ``tdoa-v0``, ``rtt-v0`` or ``dcp-rss-v0``, so that agents trained there act here.
    True places are for scoring alone; rewards ask whether held-out links agree.

    Attributes:
        measured: the set.
        rules: the game that is played.

    Args:
        config: validated options.
        device: where the tensors live.

    Raises:
        FileNotFoundError, ValueError: the set cannot be read, or does not fit the game.
    """

    config: MeasuredConfig
    config_class = MeasuredConfig
    entities: Entities
    fixed_site = True

    def __init__(self, config: MeasuredConfig, device: torch.device | str = "cpu") -> None:
        self.measured: MeasuredSet = stored_set(config)
        made = PowersGame if config.family == "dcp" else RangesGame
        self.rules: PowersGame | RangesGame = made(config, self.measured, device)
        rules = self.rules
        super().__init__(config, device, rules.agents, rules.observation_rows, rules.action_rows, rules.num_ues)
        self.rounds = rules.rounds
        self.family, self.differentiable = rules.family, rules.differentiable
        self.privileged_reward = rules.privileged_reward

    def words(self) -> Words:
        """For ``describe``."""
        rules, measured, split = self.rules.words(), self.measured, self.config.split
        epochs = len(measured.train if split == "train" else measured.test)
        return Words(
            title=(
                f"Measured epochs, {measured.name} ({measured.source.title}): {len(self.agents)} APs (agents);",
                f"{self.entities.count} of the {epochs} epochs of the {split} part are the users of an episode of "
                f"{self.rounds} rounds.",
            ),
            agent=rules.agent,
            reward=rules.reward,
            closing=rules.closing,
        )

    def ranges(self) -> dict[str, float | str | list[float]]:
        """Those of the rules."""
        return self.rules.ranges()

    def reset(self, streams: Streams, num_envs: int) -> Any:
        """Epochs in random order, all of them before one comes again; see ``Scenario.reset``."""
        return self.rules.reset(streams, num_envs)

    def observe(self, state: Any) -> Tensor:
        """See the rules."""
        return self.rules.observe(state)

    def step(self, state: Any, actions: Tensor) -> Transition[Any]:
        """See the rules."""
        return self.rules.step(state, actions)

    def measurements(self, state: Any) -> Measurements:
        """What was measured: no truth, NaN where nothing was."""
        return self.rules.measurements(state)

    def answered(self, state: Any) -> Any:
        """See the rules."""
        return self.rules.answered(state)

    def encode_estimate(self, state: Any, positions: Tensor) -> Tensor:
        """See the rules."""
        return self.rules.encode_estimate(state, positions)

    def with_estimate(self, state: Any, positions: Tensor) -> Any:
        """See the rules."""
        return self.rules.with_estimate(state, positions)

    def truth(self, state: Any) -> dict[str, Tensor]:
        """See ``Scenario.truth``; there is no bound."""
        return self.rules.truth(state)

    def displacement_m(self, start_m: Tensor, end_m: Tensor) -> Tensor:
        """The difference."""
        return self.rules.displacement_m(start_m, end_m)

    @property
    def area_centre_m(self) -> Tensor:
        """[2] middle of the searched square."""
        return self.rules.area_centre_m

    def global_state(self, state: Any) -> Tensor:
        """See the rules."""
        return self.rules.global_state(state)

    @property
    def state_size(self) -> int:
        """See the rules."""
        return self.rules.state_size

    def fronthaul_bits(self) -> float:
        """See the rules."""
        return self.rules.fronthaul_bits()

    def draw(self, axes: Axes, state: Any, history: list[Tensor]) -> None:
        """See the rules."""
        self.rules.draw(axes, state, history)
