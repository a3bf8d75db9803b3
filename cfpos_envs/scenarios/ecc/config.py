"""Options of edge-cloud cooperative positioning, every default once: scene and radio in ``CsiSite``, game below."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cfpos_envs.channels.scene import CsiSite, validate_site
from cfpos_envs.scenarios.ecc.validation import validate_game, validate_site_name

SITE_PRESETS: dict[str, CsiSite] = {
    "urban": CsiSite(),
    "urban-small": CsiSite(size_m=(60.0, 60.0, 15.0), blocks=(3, 3), building_height_m=(5.0, 13.0), bs_height_m=12.0),
}


@dataclass(frozen=True)
class EccConfig:
    """Options of one game. A field of the site left at None is taken from the site preset; see ``CsiSite``.

    Attributes:
        split: ``train`` or ``test``: other places and other noise in the same scene.
        site: preset (``urban urban-small``, and those that data sets add).
        num_ues: J users per episode, each positioned for itself.
        rounds: episode length. Static users are measured once and heard of in every round; moving ones are measured
            anew each round.
        features: what a BS sees of the CSI: ``acf``, ``cov``, ``amplitude`` or ``stabilised``; see
            ``physics.csi_features``.
        stabilise: phase stabilisation of ``stabilised``: ``per-entry`` (the paper's) or ``per-slot``.
        fusion: ``mean`` of the BSs' reports, or ``confidence``: each BS reports a fourth number, its weight.
        confidence_scale: lambda in the weight exp(lambda a).
        reward: ``error``: minus the distance of the fused report from the truth (privileged: supervised learning
            seen as a game), or ``consistency``: label-free agreement of the reports with each other
            and with what was measured.
        fronthaul_bits_max: most bits that a policy may send per BS, user and snapshot; None: no limit.
        lost_bs: number of BSs, others in every episode, that send nothing.
        mobility: ``static``; ``spiral``: three turns of 6 m radius from the ground to the top; ``waypoint``: straight
            from one random point to the next.
        speed_m_s: of ``waypoint``.
        round_s: time between two measurements of a moving user, for ``waypoint``.
    """

    split: str = "train"
    site: str = "urban"
    num_ues: int = 1
    rounds: int = 2
    features: str = "acf"
    stabilise: str = "per-entry"
    fusion: str = "mean"
    confidence_scale: float = 3.0
    reward: str = "error"
    fronthaul_bits_max: float | None = None
    lost_bs: int = 0
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
        validate_site_name(self.site, tuple(SITE_PRESETS))
        validate_site(self.settings)
        validate_game(self)

    @cached_property
    def settings(self) -> CsiSite:
        """The site preset with this config's own site fields put over it."""
        changes: dict[str, Any] = {}
        for entry in dataclasses.fields(CsiSite):
            value = getattr(self, entry.name)
            if value is not None:
                # YAML and JSON know no tuples.
                changes[entry.name] = tuple(value) if isinstance(value, list) else value
        return dataclasses.replace(SITE_PRESETS[self.site], **changes)

    @property
    def snapshots(self) -> int:
        """Measured snapshots per episode: one, or one per round if users move."""
        return 1 if self.mobility == "static" else self.rounds
