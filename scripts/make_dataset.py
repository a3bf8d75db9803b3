"""Trace a data set of channels in a city model: ``python scripts/make_dataset.py --out data/munich``.

Interrupted runs go on where they stopped; a larger --train or --test enlarges a set; --ray traces on all nodes of a
Ray cluster. Needs the extra ``[raytracing]`` and LLVM 19 (docs/raytracing.md).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

from cfpos.scripts.cli import Parser
from cfpos.scripts.plots.city_maps import map_figure
from cfpos.scripts.plots.style import check_target, save
from cfpos_envs.channels.tracing.cluster import NEW_CLUSTER, ClusterUnavailableError, connected, on_cluster
from cfpos_envs.channels.tracing.generate import MadeShard, generate, summary
from cfpos_envs.channels.tracing.recipe import PLACES, Recipe
from cfpos_envs.channels.tracing.requirements import RayTracingUnavailableError
from cfpos_envs.channels.tracing.storage import SPLITS, Header
from cfpos_envs.files.city_maps import read_map

_STEPS_M = (0.05, 0.25, 0.5, 1.0)
_HELP = {
    "scene": f"city model: {', '.join(PLACES)}, or a map of buildings: CityJSON (.json) or .geojson",
    "centre_m": "x y of the middle of the area, metres",
    "size_m": "width and depth of the area, metres",
    "height_m": "lowest and highest user above ground, metres",
    "indoor": "users may be below roofs",
    "clearance_m": "distance kept to surfaces below, metres",
    "num_bss": "base stations",
    "roof_m": "least height of a roof that carries a base station, metres",
    "mast_m": "antenna above its roof, metres",
    "carrier_hz": "carrier frequency",
    "max_depth": "interactions per path, at most 10",
    "rays": "rays per base station",
    "refraction": "paths through walls",
    "diffraction": "paths over edges",
    "max_paths": "strongest paths kept per link",
    "dynamic_range_db": "weaker paths are left out",
    "batch": "users traced at a time (memory)",
    "shard_users": "users per file",
    "seed": "of users and rays",
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--train", type=int, default=18_000, help="training users")
    parser.add_argument("--test", type=int, default=2_000, help="held-out users")
    parser.add_argument("--spiral", type=int, default=0, help="points of spirals for tracking, 50 per way")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="plan of a map's buildings, stations and users")
    parser.add_argument("--check", action="store_true", help="trace nothing, only report what is there")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=NEW_CLUSTER,
        metavar="ADDRESS",
        help="trace on a Ray cluster (auto, HOST:6379); without ADDRESS: on all cores of this machine",
    )
    parser.add_argument("--moves", action="store_true", help="only measure how well users can be moved: moves.json")
    for entry in dataclasses.fields(Recipe):
        if entry.name not in _HELP:
            continue
        flag, default = f"--{entry.name.replace('_', '-')}", entry.default
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=_HELP[entry.name])
        elif entry.name in ("centre_m", "size_m", "height_m"):
            parser.add_argument(flag, type=float, nargs=2, default=default, help=_HELP[entry.name])
        else:
            parser.add_argument(flag, type=type(default), default=default, help=_HELP[entry.name])
    return parser


def _bar(shards: Iterable[MadeShard], total: int) -> Iterable[MadeShard]:
    return tqdm(shards, unit="shard", desc="tracing", total=total, disable=not total)


def _generate(recipe: Recipe, folder: Path, users: dict[str, int], address: str | None) -> None:
    if address is None:
        generate(recipe, folder, users, progress=_bar)
        return
    with connected(address):
        generate(recipe, folder, users, progress=_bar, maker=on_cluster)


def _moves(recipe: Recipe, folder: Path) -> str:
    from cfpos_envs.channels.tracing.moves import move_errors
    from cfpos_envs.channels.tracing.tracer import Tracer

    tracer = Tracer(recipe)
    rows = move_errors(recipe, tracer, _STEPS_M)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"recipe": recipe.as_dict(), "tracer": tracer.version, "rows": rows}
    (folder / "moves.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return "\n".join(str({key: float(f"{value:.3g}") for key, value in row.items()}) for row in rows)


def _frame(folder: Path) -> str:
    """Where x = y = 0 of a map's data set lies; empty for other scenes and where the map is gone."""
    recipe = Header.read(folder).recipe
    if not isinstance(recipe, Recipe) or not recipe.map_digest or not Path(recipe.scene).is_file():
        return ""
    city = read_map(recipe.scene)
    if city.geo_origin is not None:
        return (
            f"  x = y = 0 is latitude {city.geo_origin.latitude_deg:.7f}, longitude {city.geo_origin.longitude_deg:.7f}"
        )
    return f"  x = y = 0 is ({city.origin[0]:.3f}, {city.origin[1]:.3f}) in {city.crs}"


def main(arguments: list[str] | None = None) -> int:
    """Make the data set; 1 and one line on stderr if that cannot be."""
    chosen = vars(_parser().parse_args(arguments))
    folder, only_check, only_moves = chosen.pop("out"), chosen.pop("check"), chosen.pop("moves")
    address, picture = chosen.pop("ray"), chosen.pop("picture")
    users = {split: chosen.pop(split) for split in SPLITS}
    try:
        if picture is not None:
            check_target(picture)
        if only_moves:
            print(_moves(Recipe(**chosen), folder))
            return 0
        if not only_check:
            _generate(Recipe(**chosen), folder, users, address)
        print(summary(folder))
        if frame := _frame(folder):
            print(frame)
        if picture is not None:
            print(f"wrote {save(map_figure(folder), picture)}")
    except (ValueError, RayTracingUnavailableError, ClusterUnavailableError) as error:
        print(f"make_dataset: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
