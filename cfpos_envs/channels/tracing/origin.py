"""Where an imported data set came from: what stands in the place of a recipe."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from cfpos_envs.checks import number, whole

ORIGIN_KEY = "tool"
"""A recipe in a header with this key is an ``Origin``."""


@dataclass(frozen=True)
class Origin:
    """Data that another tool made.

    Attributes:
        tool: name of that tool.
        scene: what it calls the scenario.
        num_bss: base stations.
        carrier_hz: carrier frequency.
        content: digest of all arrays, so that another import has another hash.
        max_paths: strongest paths kept per link.
        dynamic_range_db: paths weaker than the link's strongest by more than this are left out.
        shard_users: users per file; the last one of a split may hold fewer.
        bs_names: names of the base stations.

    Raises:
        ValueError: a value out of range.
    """

    tool: str
    scene: str
    num_bss: int
    carrier_hz: float
    content: str
    max_paths: int
    dynamic_range_db: float
    shard_users: int
    bs_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("num_bss", "max_paths", "shard_users"):
            whole(name, getattr(self, name), 1)
        for name in ("carrier_hz", "dynamic_range_db"):
            object.__setattr__(self, name, number(name, getattr(self, name), 0.0, above=True))
        if len(self.bs_names) != self.num_bss:
            raise ValueError(f"bs_names are {list(self.bs_names)}; there are {self.num_bss} base stations")

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Origin:
        """The origin of ``as_dict``.

        Raises:
            ValueError: unknown or missing fields.
        """
        try:
            return cls(**{**fields, "bs_names": tuple(str(name) for name in fields["bs_names"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"the origin of an imported data set cannot be read ({error})") from None

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that name the data."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]
