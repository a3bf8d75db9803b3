"""Options of edge-cloud cooperative positioning, every default once: scene and radio in ``CsiSite``, game below."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cfpos_envs.physics.channel import thermal_noise_w
from cfpos_envs.physics.timing import SPEED_OF_LIGHT_M_S
from cfpos_envs.scenarios.ecc.validation import validate_game, validate_site, validate_site_name

SNR_REFERENCE_M = 100.0


@dataclass(frozen=True)
class CsiSite:
    """A scene with its base stations and their radio.

    Attributes:
        source: ``embedded`` (the city of boxes that is part of this package) or ``raytraced`` (a stored data set).
        dataset: folder of the stored data set, for ``raytraced``.
        scene_seed: number of the embedded city. It is part of the scene, not of an experiment: training and test play
            in the same streets, as fingerprints demand, at other places and with other noise.
        size_m: extent (x, y, z) of the box in which users are.
        blocks: street blocks along x and y, one building each.
        building_height_m: least and largest.
        num_bs, bs_height_m: L; height of masts that stand on no roof.
        num_scatterers: point scatterers per BS.
        num_reflections: one- and two-bounce image sources per BS, each as many.
        num_paths: strongest paths kept per link.
        carrier_hz: decides wavelength and path gains.
        subcarrier_spacing_hz, subcarrier_stride, num_subcarriers: every stride-th subcarrier of the grid is kept, N in
            all.
        num_slots: T pilot slots per snapshot.
        array_rows, array_columns, spacing_wavelengths: planar array of every BS.
        tx_power_w: power of the user over the whole grid (N * stride subcarriers).
        noise_figure_db: of the BSs.
        snr_db: if given, sets the noise so that a line of sight of 100 m has this SNR on every entry of a
            least-squares CSI estimate.
        slot_jitter_rad: standard deviation of every path's own phase from slot to slot.
        clock_offset_ns: every user's clock is off by a uniform number of nanoseconds up to this, the same at all BSs;
            0 is perfect synchronisation, which all features that hold delays profit from.
        estimator: ``lmmse`` or ``ls``.
    """

    source: str = "embedded"
    dataset: str = ""
    scene_seed: int = 0
    size_m: tuple[float, ...] = (220.0, 300.0, 30.0)
    blocks: tuple[int, ...] = (4, 5)
    building_height_m: tuple[float, ...] = (10.0, 28.0)
    num_bs: int = 6
    bs_height_m: float = 25.0
    num_scatterers: int = 8
    num_reflections: int = 20
    num_paths: int = 12
    carrier_hz: float = 3.5e9
    subcarrier_spacing_hz: float = 60e3
    subcarrier_stride: int = 12
    num_subcarriers: int = 24
    num_slots: int = 10
    array_rows: int = 2
    array_columns: int = 4
    spacing_wavelengths: float = 0.5
    tx_power_w: float = 0.2
    noise_figure_db: float = 7.0
    snr_db: float | None = None
    slot_jitter_rad: float = 0.05
    clock_offset_ns: float = 0.0
    estimator: str = "lmmse"

    @property
    def kept_spacing_hz(self) -> float:
        """Distance of neighbouring kept subcarriers."""
        return self.subcarrier_spacing_hz * self.subcarrier_stride

    @property
    def pilot_power_w(self) -> float:
        """|x_n|^2: the user's power on one subcarrier of the grid."""
        return self.tx_power_w / (self.num_subcarriers * self.subcarrier_stride)

    @property
    def noise_power_w(self) -> float:
        """sigma^2 on one subcarrier."""
        if self.snr_db is None:
            return thermal_noise_w(self.subcarrier_spacing_hz, self.noise_figure_db)
        wavelength_m = SPEED_OF_LIGHT_M_S / self.carrier_hz
        gain = (wavelength_m / (4 * math.pi * SNR_REFERENCE_M)) ** 2
        return self.pilot_power_w * gain / 10 ** (self.snr_db / 10)


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
