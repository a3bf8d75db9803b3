"""Options of the hybrid game; its network is that of the time-based games."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from cfpos_envs.checks import fits
from cfpos_envs.fields import Range
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.scenarios.ranges import GAME_RANGES
from cfpos_envs.scenarios.site_config import SiteOptions
from cfpos_envs.scenarios.site_files import USER_HEIGHT_M
from cfpos_envs.scenarios.toa.config import SITE_PRESETS, ToaConfig, ToaSiteConfig
from cfpos_envs.streams import RNGS

REWARDS = ("similarity", "held-out")
_OF_THE_SITE = ("num_aps", "num_antennas", "side_m", "shadowing_db", "snr_db", "nlos_share")


@dataclass(frozen=True)
class HybridConfig(SiteOptions[ToaSiteConfig]):
    """Options of one game. A field of the site left at None is taken from the preset of ``toa-v0``.

    Attributes:
        split: ``train`` holds APs out for the held-out reward; ``test`` fuses all and uses other sites and drops.
        site: as in ``toa-v0``: a preset (``street clear office ...``), a site file, or a mapping that changes either.
        num_ues, rounds: K and the episode length.
        reward: ``held-out``: APs that took no part in the fusion judge it; ``similarity``: all measured links do.
        held_out_share: share of the APs left out per user and episode.
        direction_error_std: standard deviation of an array's own error of a direction cosine, known to the network;
            noise comes on top.
        nlos_direction_std: standard deviation of the extra error of a direction cosine without line of sight.
        coarse_points: points along a side of the lattice on which the first estimate is searched.
        confidence_scale: lambda in the weight exp(lambda (a - 1)), which multiplies the robust one.
        max_step_m: longest fused step of a round.
        speed_m_s: of the UEs, straight on with random headings; 0 for static.
        round_s: time between rounds, for moving users.
        ue_height_m: height of the UEs, used with the AP heights of a site file.
        num_aps, num_antennas, side_m, shadowing_db, snr_db, nlos_share: of the site; see ``toa-v0``. The standard
            deviation of the shadowing is known to the network.
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        **GAME_RANGES,
        "direction_error_std": (0, 10),
        "nlos_direction_std": (0, 10),
        "coarse_points": (2, 4096),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "split": ("train", "test"),
        "reward": REWARDS,
        "rng": RNGS,
    }
    site_presets: ClassVar[Mapping[str, ToaSiteConfig]] = SITE_PRESETS
    own_preset: ClassVar[str | None] = "clear"

    split: str = "train"
    site: str | Mapping[str, Any] = field(default="street", hash=False)
    num_ues: int = 4
    rounds: int = 5
    reward: str = "held-out"
    held_out_share: float = 0.25
    direction_error_std: float = 0.01
    nlos_direction_std: float = 0.3
    coarse_points: int = 20
    confidence_scale: float = 4.0
    max_step_m: float = 20.0
    speed_m_s: float = 0.0
    round_s: float = 0.1
    ue_height_m: float = USER_HEIGHT_M
    num_aps: int | None = None
    num_antennas: int | None = None
    side_m: float | None = None
    shadowing_db: float | None = None
    snr_db: float | None = None
    nlos_share: float | None = None
    rng: str = "stream"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.settings.shadowing_db > 0:
            raise ValueError(
                f"shadowing_db={self.settings.shadowing_db:g} of site {self.site!r} would make powers exact; "
                "set shadowing_db above 0"
            )

        said = f"num_aps={self.settings.num_aps}, coarse_points={self.coarse_points}"
        fits("an episode with its lattice", self.numbers_per_episode, said)

    @property
    def numbers_per_episode(self) -> int:
        """What an episode holds: the ranges' part, and three predictions with gradients at all lattice points."""
        return self.timing.numbers_per_episode + 9 * self.settings.num_aps * self.coarse_points**2

    @cached_property
    def timing(self) -> ToaConfig:
        """The time-based game on the same network: it draws sites, users and ranges, and checks what both share."""
        shared = ("split", "site", "num_ues", "rounds", "held_out_share", "speed_m_s", "round_s", "ue_height_m")
        return ToaConfig(family="toa", **{name: getattr(self, name) for name in (*shared, *_OF_THE_SITE)})

    @property
    def model(self) -> TimingModel:
        """The constants that the network knows."""
        return self.timing.model
