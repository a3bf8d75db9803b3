"""Options of edge-cloud cooperative positioning; scene and radio are those of ``EccSceneConfig``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from cfpos_envs.channels.scene import EccSceneConfig, validate_site
from cfpos_envs.checks import fits
from cfpos_envs.fields import Range
from cfpos_envs.scenarios.ecc.options import EccOptions, check_lost, validate_game
from cfpos_envs.scenarios.ranges import GAME_RANGES
from cfpos_envs.scenarios.site_config import SiteOptions

MOBILITIES = ("static", "spiral", "waypoint")

SITE_PRESETS: dict[str, EccSceneConfig] = {
    "urban": EccSceneConfig(),
    "urban-small": EccSceneConfig(
        size_m=(60.0, 60.0, 15.0), blocks=(3, 3), building_height_m=(5.0, 13.0), bs_height_m=12.0
    ),
}


@dataclass(frozen=True)
class EccConfig(EccOptions, SiteOptions[EccSceneConfig]):
    """Options of one game. A site field left at None is taken from ``site``; see ``EccSceneConfig``.

    Attributes:
        split: ``train`` or ``test``: other places and other noise in the same scene.
        site: preset (``urban urban-small``), or a mapping of any site fields with ``preset``:
            ``{preset: urban-small, num_bs: 4}``.
        num_ues: J users per episode, each positioned for itself.
        rounds: episode length. Static users are measured once and heard of in every round; moving ones are measured
            anew each round.
        features: what a BS sees of the CSI: ``acf``, ``cov``, ``amplitude`` or ``stabilised``; see
            ``physics.ecc.features``.
        stabilise: phase stabilisation of ``stabilised``: ``per-entry`` (the paper's) or ``per-slot``.
        fusion: ``mean`` of the BSs' reports, or ``confidence``: each BS reports a fourth number, its weight.
        confidence_scale: lambda in the weight exp(lambda a).
        reward: ``error``: minus the distance of the fused report from the truth (privileged: supervised learning
            seen as a game), or ``consistency``: label-free agreement of the reports with each other
            and with what was measured.
        fronthaul_bits_max: most bits that a policy may send per BS, user and snapshot; None: no limit.
        lost_bs: number of BSs, others in every episode, that send nothing.
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.
        mobility: ``static``; ``spiral``: three turns of 6 m radius from the ground to the top; ``waypoint``: straight
            from one random point to the next.
        speed_m_s: of ``waypoint``.
        round_s: time between two measurements of a moving user, for ``waypoint``.
    """

    ranges: ClassVar[Mapping[str, Range]] = {name: GAME_RANGES[name] for name in ("speed_m_s", "round_s")}
    choices: ClassVar[Mapping[str, Collection[str]]] = {"mobility": MOBILITIES}
    site_presets: ClassVar[Mapping[str, EccSceneConfig]] = SITE_PRESETS

    split: str = "train"
    site: str | Mapping[str, Any] = field(default="urban", hash=False)
    num_ues: int = 1
    rounds: int = 2
    features: str = "acf"
    stabilise: str = "per-entry"
    fusion: str = "mean"
    confidence_scale: float = 3.0
    reward: str = "error"
    fronthaul_bits_max: float | None = None
    lost_bs: int = 0
    rng: str = "stream"
    mobility: str = "static"
    speed_m_s: float = 5.0
    round_s: float = 0.5
    source: str | None = None
    dataset: str | None = None
    scene_seed: int | None = None
    size_m: Sequence[float] | None = None
    blocks: Sequence[int] | None = None
    building_height_m: Sequence[float] | None = None
    num_bs: int | None = None
    bs_height_m: float | None = None
    num_scatterers: int | None = None
    num_reflections: int | None = None
    num_paths: int | None = None
    carrier_hz: float | None = None
    subcarrier_spacing_hz: float | None = None
    subcarrier_stride: int | None = None
    num_subcarriers: int | None = None
    num_slots: int | None = None
    array_rows: int | None = None
    array_columns: int | None = None
    spacing_wavelengths: float | None = None
    tx_power_w: float | None = None
    noise_figure_db: float | None = None
    snr_db: float | None = None
    slot_jitter_rad: float | None = None
    clock_offset_ns: float | None = None
    estimator: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_site(self.settings)
        validate_game(self)
        check_lost(self.lost_bs, self.settings.num_bs)
        said = f"num_ues={self.num_ues}, num_bs={self.settings.num_bs}, rounds={self.rounds} and the sizes of the CSI"
        fits("an episode", self.numbers_per_episode, said)

    @property
    def numbers_per_episode(self) -> int:
        """What an episode holds: the CSI of all snapshots and the paths behind it."""
        s = self.settings
        csi = 2 * s.num_slots * s.array_rows * s.array_columns * s.num_subcarriers
        return self.num_ues * s.num_bs * self.snapshots * (csi + 4 * s.num_paths)

    @property
    def snapshots(self) -> int:
        """Measured snapshots per episode: one, or one per round if users move."""
        return 1 if self.mobility == "static" else self.rounds

    @property
    def moves(self) -> str:
        """How users move."""
        return self.mobility

    @property
    def site_name(self) -> str:
        """Preset and what differs from it."""
        return f"site {self.site_text}"
