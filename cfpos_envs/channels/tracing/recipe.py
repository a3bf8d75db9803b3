"""The recipe of a ray-traced data set: every setting that its numbers depend on, and the hash that names it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfpos_envs.files.city_maps import is_map, map_digest, read_map

FORMAT_VERSION = 1
"""Of the shards; a change of their arrays raises it, and with it every hash."""


@dataclass(frozen=True)
class Place:
    """Where in a shipped scene the users are.

    Attributes:
        centre_m: x, y of the middle of the area, metres in the scene's coordinates.
        size_m: width (x) and depth (y) of the area, metres.
    """

    centre_m: tuple[float, float]
    size_m: tuple[float, float]


_PAPER_SIZE = (220.0, 300.0)
PLACES = {
    "munich": Place((0.0, 0.0), _PAPER_SIZE),
    "florence": Place((-100.0, -200.0), _PAPER_SIZE),
    "san_francisco": Place((10.0, -10.0), _PAPER_SIZE),
    "etoile": Place((180.0, -20.0), _PAPER_SIZE),
    "simple_street_canyon": Place((0.0, 0.0), (150.0, 100.0)),
}
"""The scenes that come with the ray tracer, and the part of each that is used by default."""


_ADDED: dict[str, Any] = {"roof_m": 5.0, "map_digest": ""}
"""Settings that recipes of older data sets do not name, with the values that they had."""


@dataclass(frozen=True)
class Recipe:
    """Settings of a data set. How many users it has is not one of them: shards are independent, so a set can grow.

    Attributes:
        scene: one of ``PLACES``, or a map of buildings (CityJSON ``.json`` or ``.geojson``, see ``files.city_maps``).
        centre_m, size_m: middle (x, y) and size (x, y) of the area, metres; None: those of ``PLACES``, or all buildings
            of a map.
        height_m: lowest and highest user above the ground below it, metres.
        indoor: whether users may be below a roof. Without walls that let waves through (``refraction``) few of them
            have any path.
        clearance_m: users keep this distance to the surface below them, metres.
        num_bss: base stations, one per cell of a grid over the area, each on the highest roof of its cell.
        roof_m: least height above the ground from which on a roof carries a base station.
        mast_m: height of the antenna above its roof, metres.
        carrier_hz: carrier frequency, at which materials are evaluated.
        max_depth: greatest number of interactions of a path, 0 (line of sight only) to 10.
        rays: rays shot per base station. More rays find more of the weak paths.
        refraction: paths through walls.
        diffraction: paths over edges (first order).
        max_paths: strongest paths kept per link.
        dynamic_range_db: paths weaker than the link's strongest by more than this are left out.
        batch: users traced at a time. The tracer finds the different paths of a batch in a hash table of fixed size:
            larger batches are faster but lose some weak paths (1 % at 50, 4 % at 200), so it is part of the recipe.
            Memory grows with batch * rays * max_depth.
        shard_users: users per file.
        seed: of the users' positions and the tracer's rays.
        map_digest: of a map's file; found by itself. A map with another content is another recipe.

    Raises:
        ValueError: a value out of range, or a map that cannot be read.
    """

    scene: str = "munich"
    centre_m: tuple[float, float] | None = None
    size_m: tuple[float, float] | None = None
    height_m: tuple[float, float] = (0.0, 30.0)
    indoor: bool = False
    clearance_m: float = 0.5
    num_bss: int = 6
    roof_m: float = 5.0
    mast_m: float = 3.0
    carrier_hz: float = 3.5e9
    max_depth: int = 5
    rays: int = 10_000
    refraction: bool = False
    diffraction: bool = False
    max_paths: int = 32
    dynamic_range_db: float = 60.0
    batch: int = 25
    shard_users: int = 500
    seed: int = 0
    map_digest: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scene", str(self.scene))
        if self.scene not in PLACES and not is_map(self.scene):
            raise ValueError(
                f"scene is {self.scene!r}; choose one of {', '.join(PLACES)}, or a map: a CityJSON (.json) or "
                ".geojson file"
            )
        if self.scene in PLACES and self.map_digest:
            raise ValueError(f"map_digest is {self.map_digest!r}, but scene {self.scene!r} is no map; leave it out")
        if is_map(self.scene) and not self.map_digest:
            object.__setattr__(self, "map_digest", map_digest(self.scene))
        place = PLACES.get(self.scene)
        if place is None and (self.centre_m is None or self.size_m is None):
            city = read_map(self.scene)
            place = Place(city.centre_m, city.size_m)
        for name in ("centre_m", "size_m"):
            value = getattr(self, name)
            object.__setattr__(self, name, _pair(name, getattr(place, name) if value is None else value))
        object.__setattr__(self, "height_m", _pair("height_m", self.height_m))
        low, high = self.height_m
        if not 0 <= low < high:
            raise ValueError(f"height_m is {self.height_m}; it must be (lowest, highest) with 0 <= lowest < highest")
        if min(self.area_size_m) <= 0:
            raise ValueError(f"size_m is {self.size_m}; both sides must be positive")
        _check_range(self, "max_depth", 0, 10, int)
        for name in ("num_bss", "rays", "max_paths", "batch", "shard_users"):
            _check_range(self, name, 1, 10**9, int)
        _check_range(self, "seed", 0, 2**31, int)
        for name in ("clearance_m", "mast_m", "roof_m"):
            _check_range(self, name, 0.0, 1e3, float)
        for name in ("carrier_hz", "dynamic_range_db"):
            _check_range(self, name, 1.0, 1e12, float)
        for name in ("indoor", "refraction", "diffraction"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be true or false")

    @property
    def area_centre_m(self) -> tuple[float, float]:
        """Middle of the area."""
        assert self.centre_m is not None
        return self.centre_m

    @property
    def area_size_m(self) -> tuple[float, float]:
        """Size of the area."""
        assert self.size_m is not None
        return self.size_m

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Recipe:
        """The recipe of ``as_dict``.

        Raises:
            ValueError: unknown settings.
        """
        names = {entry.name for entry in dataclasses.fields(cls)}
        unknown = sorted(set(settings) - names)
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}; a recipe has {', '.join(sorted(names))}")
        pairs: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()
        }
        return cls(**pairs)

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits that name the recipe."""
        settings = self.as_dict()
        if self.map_digest:
            # Wherever the map lies.
            settings["scene"] = Path(self.scene).name
        # Settings that came later are no part of older recipes.
        for name, default in _ADDED.items():
            if settings[name] == default:
                del settings[name]
        text = json.dumps({"format": FORMAT_VERSION, **settings}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def differences(self, other: Recipe) -> str:
        """``name: mine, not theirs`` of every setting that differs; empty if none does."""
        mine, theirs = self.as_dict(), other.as_dict()
        return "; ".join(f"{name}: {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name])


def _pair(name: str, value: Any) -> tuple[float, float]:
    try:
        first, second = (float(part) for part in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}; it must be two numbers") from None
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError(f"{name} is {value!r}; both numbers must be finite")
    return first, second


def _check_range(recipe: Recipe, name: str, low: float, high: float, kind: type) -> None:
    value = getattr(recipe, name)
    allowed = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        noun = "a number" if kind is float else "an integer"
        raise ValueError(f"{name} is {value!r}; it must be {noun} from {low:g} to {high:g}")
    # 1 and 1.0 are the same setting and must give the same hash.
    object.__setattr__(recipe, name, kind(value))
