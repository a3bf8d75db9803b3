"""Options of the game on measured epochs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from cfpos_envs.checks import nearest
from cfpos_envs.datasets.base import REPORTED
from cfpos_envs.fields import Declared, Range
from cfpos_envs.files.epochs import EpochOptions
from cfpos_envs.measurements.toa import NLOS_MEAN_M
from cfpos_envs.scenarios.dcp.config import DcpConfig
from cfpos_envs.scenarios.ranges import GAME_RANGES, MOST_M
from cfpos_envs.scenarios.toa.config import ToaConfig
from cfpos_envs.streams import RNGS

FAMILIES = ("rtt", "toa", "tdoa", "dcp")
SAMPLE, TABLE = "sample", "table"
_OWN = ("family", "split", "site", "num_ues", "rounds", "kernel", "rng")


@dataclass(frozen=True)
class MeasuredConfig(Declared):
    """Options of ``measured``.

    Attributes:
        split: ``train`` or ``test``: other places or walks of the same set.
        data: folder of a public set, or a table of own measurements; None: a small made-up sample.
        set: ``feng/office``, ``haiyao/CarPark``, ``lias/8_14``, ``hanyang/DRIVE``, ``tetam``, see docs/measured.md;
            ``table`` for own measurements; ``sample``.
        site: places of the access points of a ``table``: a site file (YAML, CSV or GeoJSON).
        table: how a ``table`` is read: any of ``renamed unit missing without window_s on_bad``.
        family: which game is played: ``rtt``, ``toa`` or ``tdoa`` with the ranges, ``dcp`` with the powers.
        num_ues: K, epochs that are users of one episode; None: as many as make 50 episodes show the test part once.
        rounds: episode length; what was measured stays the same.
        std_m: standard deviation of a range in line of sight, metres; ``reported`` by the devices; None: the set's.
        nlos_mean_m: mean excess of ranges without line of sight, for estimators that must be told.
        game: further options of the simulated game whose rules are played (``toa-v0``, ``dcp-rss-v0``), e.g.
            ``{reward: similarity}``.
        rng: how episodes are drawn: ``stream``, one after another from running generators, or ``counter``: each by its
            number, so that it is the same alone or in any batch.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "test")

    ranges: ClassVar[Mapping[str, Range]] = {
        "num_ues": GAME_RANGES["num_ues"],
        "rounds": GAME_RANGES["rounds"],
        "std_m": (1e-6, MOST_M),
        "nlos_mean_m": (0, MOST_M),
    }
    choices: ClassVar[Mapping[str, Collection[str]]] = {
        "split": splits,
        "family": FAMILIES,
        "std_m": (REPORTED,),
        "rng": RNGS,
    }

    split: str = "train"
    data: str | None = None
    set: str = SAMPLE
    site: str | None = None
    table: Mapping[str, Any] | None = field(default=None, hash=False)
    family: str = "rtt"
    num_ues: int | None = None
    rounds: int = 5
    std_m: float | str | None = None
    nlos_mean_m: float = NLOS_MEAN_M
    game: Mapping[str, Any] | None = field(default=None, hash=False)
    rng: str = "stream"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_data()
        _known("table", self.table or {}, EpochOptions, ())
        _known("game", self.game or {}, DcpConfig if self.family == "dcp" else ToaConfig, _OWN)

    def _check_data(self) -> None:
        if (self.data is None) != (self.set == SAMPLE):
            raise ValueError(
                f"set={self.set!r} needs data=FOLDER with its files; without data there is set={SAMPLE} alone"
                if self.data is None
                else f"data={self.data} needs set=NAME, e.g. feng/office or {TABLE}"
            )
        if (self.site is None) == (self.set == TABLE):
            raise ValueError(
                f"set={TABLE} needs site=FILE with the places of the access points"
                if self.site is None
                else f"site={self.site} is for set={TABLE}; public sets bring their own places"
            )


def _known(option: str, given: Mapping[str, Any], of: type, without: tuple[str, ...]) -> None:
    allowed = [entry.name for entry in fields(of) if entry.name not in without]
    for name in given:
        if name not in allowed:
            raise ValueError(
                f"{option} has no key {name!r}{nearest(name, allowed) or '.'} Allowed: {', '.join(allowed)}"
            )
