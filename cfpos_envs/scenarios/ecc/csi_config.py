"""Options of the edge-cloud game on a person's own CSI."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cfpos_envs.checks import SEEDS
from cfpos_envs.fields import Range
from cfpos_envs.scenarios.ecc.options import EccOptions, validate_game

SPLIT_BY = ("place", "group")


@dataclass(frozen=True)
class EccCsiConfig(EccOptions):
    """Options of ``ecc-csi``.

    Attributes:
        split: ``train``, ``validation`` or ``test``: other places of the same file.
        data: the file (``.npz``, ``.h5``, ``.hdf5``, ``.mat``), see docs/data/csi.md; None: the small sample that comes
            with the package.
        antenna_order: how the file numbers antennas, a name (``rows columns sionna quadriga deepmimo ...``) or the
            permutation; None: what the file says, else ``rows``. ``cfpos check-csi`` finds it.
        phase: ``exp(-j2pi f tau)`` or ``conjugated``; None: what the file says, else the first.
        subcarrier_order: ``ascending``, ``descending`` or ``fft``; None: what the file says, else the first.
        split_by: ``place``: in blocks of the ground, so that no neighbour of a training place is tested; ``group``:
            whole groups of the file's array ``group`` (walks, days).
        split_block_m: side of these blocks; None: a twelfth of the longest side of the area.
        validation_share, test_share: about this share of the snapshots is set aside.
        split_seed: which blocks or groups.
        num_ues: J users per episode, each positioned for itself.
        rounds: episode length; what was measured stays the same.
        features: what a BS sees of the CSI: ``acf``, ``cov``, ``amplitude`` or ``stabilised``; see
            ``physics.ecc.features``.
        stabilise: phase stabilisation of ``stabilised``: ``per-entry`` (the paper's) or ``per-slot``.
        fusion: ``mean`` of the BSs' reports, or ``confidence``: each BS reports a fourth number, its weight.
        confidence_scale: lambda in the weight exp(lambda a).
        reward: ``error``: minus the distance of the fused report from the surveyed place, or ``consistency``:
            label-free, which needs CSI in units of the channel's gain and clocks that agree.
        fronthaul_bits_max: most bits that a policy may send per BS, user and snapshot; None: no limit.
        lost_bs: number of BSs, others in every episode, that send nothing.
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")

    ranges: ClassVar[Mapping[str, Range]] = {
        "antenna_order": (0, 1 << 20),
        "split_block_m": (1e-3, 1e5),
        "validation_share": (1e-6, 1),
        "test_share": (1e-6, 1),
        "split_seed": (0, SEEDS[1]),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {"split_by": SPLIT_BY}

    split: str = "train"
    data: str | None = None
    antenna_order: str | Sequence[int] | None = field(default=None, hash=False)
    phase: str | None = None
    subcarrier_order: str | None = None
    split_by: str = "place"
    split_block_m: float | None = None
    validation_share: float = 0.1
    test_share: float = 0.2
    split_seed: int = 0
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

    def __post_init__(self) -> None:
        super().__post_init__()
        validate_game(self)
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share={self.validation_share:g} and test_share={self.test_share:g} leave nothing to train "
                "on; lower them"
            )
        if self.antenna_order is not None and not isinstance(self.antenna_order, str):
            object.__setattr__(self, "antenna_order", tuple(int(entry) for entry in self.antenna_order))

    @property
    def site_name(self) -> str:
        """The file."""
        return "the sample of the package" if self.data is None else f"file {self.data}"
