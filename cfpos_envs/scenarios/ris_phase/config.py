"""Options of the surfaces' game; the radio is that of a ``RisConfig``."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from cfpos_envs.fields import Declared, Range
from cfpos_envs.scenarios.ranges import MOST_ROUNDS
from cfpos_envs.scenarios.ris.config import PRESETS, RisConfig, as_point
from cfpos_envs.streams import RNGS

ACTIONS = ("beam", "raw")
FEEDBACKS = ("none", "energy", "position")
REWARDS = ("energy", "bound", "error")


@dataclass(frozen=True)
class _Scene(RisConfig):
    """A scene whose refusals name the options of this game."""

    place_options: ClassVar[str] = "ue_position_m, ris_positions_m, euler_deg"


@dataclass(frozen=True)
class RisPhaseConfig(Declared):
    """Surfaces that choose their profiles before the pilots are sent.

    Attributes:
        split: ``train`` or ``test``: never the same places or noise.
        action: ``beam``: direction and width along both axes of a generalised chirp; ``raw``: the phase of every
            element, relative to the chirp over the sector.
        feedback: what the network reports after each round: ``none``; ``energy`` of the path over the surface; also the
            ``position`` that it then has found.
        reward: ``energy``: energy of the surface's path, in 10 dB; ``bound``: -log(PEB / m) of the profiles that
            were played (privileged); ``error``: -log(error / m + 0.001) of an efficient estimator (privileged).
        rounds: pilots are sent T times; the user stays.
        sector_deg: half-width of the sector, in azimuth and elevation, in which every surface knows the users to be.
        num_ris, num_ues: surfaces R and users J that they serve with one profile.
        preset, snr_db, ris_shape: of the radio; see ``RisConfig``.
        ris_positions_m: where the surfaces are if a user is in the middle of all sectors; they are displaced, not the
            sectors, so that no surface can guess from its sector where in it the user is.
        ue_position_m: middle of the first user's places.
        ue_box_m: half the side of the cube in which the first user is drawn.
        euler_deg: orientation of the users; the default faces up, so that no surface is ever behind them.
        site_deg: half-width of the directions that the middle of a sector may have.
        site_share: distances to the surfaces vary by up to this share.
        report_db: reported energies are believed with this standard deviation: distances are not known.
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.

    Raises:
        ValueError: for a value outside its range.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        **RisConfig.ranges,
        "rounds": (1, MOST_ROUNDS),
        "sector_deg": (0.1, 30),
        "ue_position_m": (-1e6, 1e6),
        "ue_box_m": (0, 1e3),
        "site_deg": (0, 30),
        "site_share": (0, 0.9),
        "report_db": (1e-3, 100),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "split": ("train", "test"),
        "action": ACTIONS,
        "feedback": FEEDBACKS,
        "reward": REWARDS,
        "rng": RNGS,
        "preset": tuple(PRESETS),
    }

    split: str = "train"
    action: str = "beam"
    feedback: str = "energy"
    reward: str = "energy"
    rounds: int = 4
    sector_deg: float = 10.0
    num_ris: int = 2
    num_ues: int = 1
    preset: str = "small"
    snr_db: float = 10.0
    ris_shape: Sequence[int] | None = None
    ris_positions_m: Sequence[Sequence[float]] = ((5.0, 18.0, -3.0), (15.0, -10.0, 3.0))
    ue_position_m: Sequence[float] = (10.0, 10.0, -10.0)
    ue_box_m: float = 2.0
    euler_deg: Sequence[float] = (45.0, 0.0, 0.0)
    site_deg: float = 3.0
    site_share: float = 0.1
    report_db: float = 1.5
    rng: str = "stream"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_point("ue_position_m", self.ue_position_m)
        scene = self.scene
        object.__setattr__(self, "ris_positions_m", scene.ris_positions_m)
        object.__setattr__(self, "ue_position_m", scene.ue_positions_m[0])
        object.__setattr__(self, "ris_shape", scene.ris_shape)
        object.__setattr__(self, "euler_deg", scene.euler_deg)
        if min(scene.system.ris_shape) < 2:
            raise ValueError(f"ris_shape={self.ris_shape} has no beams; give at least 2 elements along each axis")

    @cached_property
    def scene(self) -> RisConfig:
        """Radio and places as the physics takes them; refuses what does not fit."""
        return _Scene(
            preset=self.preset,
            split=self.split,
            num_ris=self.num_ris,
            snr_db=self.snr_db,
            ris_shape=self.ris_shape,
            ris_positions_m=self.ris_positions_m,
            ue_positions_m=(self.ue_position_m,),
            ue_box_m=self.ue_box_m,
            euler_deg=self.euler_deg,
        )

    @property
    def numbers_per_episode(self) -> int:
        """What an episode holds: the profiles of all rounds, two numbers per element."""
        return 2 * self.rounds * self.num_ris * math.prod(self.scene.system.ris_shape)

    @property
    def sector_rad(self) -> float:
        """Half-width of the sector."""
        return math.radians(self.sector_deg)
