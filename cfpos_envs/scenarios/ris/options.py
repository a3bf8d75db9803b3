"""Options of the localisation game, on top of those of its scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from cfpos_envs.checks import one_of, whole
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.scenarios.ris.config import RisConfig
from cfpos_envs.scenarios.ris.validation import number

OBSERVATIONS = ("correlations", "spectra", "tensor")
ACTIONS = ("correction", "absolute")
REWARDS = ("explained", "paths", "gain", "error")
_CLOCK_MARGIN_M = 1.0


@dataclass(frozen=True)
class RisGameConfig(RisConfig):
    """A scene and how it is played; the scene's fields are those of ``RisConfig``.

    Attributes:
        rounds: episode length T.
        observation: ``correlations``: per path and axis the lag-one correlation of what was received, turned by the
            present estimate; ``spectra``: per path and axis the power spectrum; ``tensor``: the samples themselves.
        action: ``correction`` of the present estimate by at most the reach of the round, or the ``absolute`` point.
        reward: ``paths``: share of the received energy that the estimate explains, judged path by path so that weak
            ones count; ``explained``: share of all of it; ``gain``: increase of ``paths`` in the round; ``error``:
            -log(error / m + 0.01) by the simulated truth (privileged, for studies).
        area_m: half the side of the cube around the UEs' middle in which estimates stay.
        reach_m: largest correction of a coordinate, and of the clock, in the first round.
        zoom: factor of the reach from round to round, in (0, 1].

    Raises:
        ValueError: for a value outside its range, or an area that does not hold all places of the UEs.
    """

    rounds: int = 6
    observation: str = "correlations"
    action: str = "correction"
    reward: str = "paths"
    area_m: float = 6.0
    reach_m: float = 5.0
    zoom: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("rounds", self.rounds, 1)
        one_of("observation", self.observation, OBSERVATIONS)
        one_of("action", self.action, ACTIONS)
        one_of("reward", self.reward, REWARDS)
        number("area_m", self.area_m, 1e-3, 1e4)
        number("reach_m", self.reach_m, 1e-3, 1e4)
        number("zoom", self.zoom, 1e-3, 1.0)
        places = self.places_m("ue")
        needed = float((places - self.aim_m).abs().max()) + self.ue_box_m
        if needed > self.area_m:
            raise ValueError(
                f"area_m={self.area_m:g} is too small for UEs up to {needed:g} m from their middle; raise area_m or "
                "lower ue_box_m"
            )

    @property
    def clock_m(self) -> tuple[float, float]:
        """Lowest and highest clock bias that an estimate may have, metres: what may occur, and a margin."""
        low_ns, high_ns = self.bias_range_ns
        last_ns = self.bias_step_ns * (self.num_ues + self.num_bs - 2)
        ends = sorted((0.0, last_ns))
        low, high = (1e-9 * SPEED_OF_LIGHT_M_S * ns for ns in (low_ns + ends[0], high_ns + ends[1]))
        return low - _CLOCK_MARGIN_M, high + _CLOCK_MARGIN_M

    def reach_in(self, rounds_played: torch.Tensor) -> torch.Tensor:
        """Largest correction, metres, after so many rounds."""
        return self.reach_m * self.zoom ** rounds_played.to(torch.float32)
