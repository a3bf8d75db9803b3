"""A map's buildings as a scene that the ray tracer loads: two meshes and a file that names their materials."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfpos_envs.files.city_maps import CityMap

GROUND_MARGIN_M = 60.0
"""The ground reaches this far beyond the buildings."""
WALLS, GROUND = "itu_brick", "itu_concrete"
"""Materials of ITU-R P.2040, by the names of the ray tracer."""

_COLOURS = {WALLS: "0.6 0.3 0.2", GROUND: "0.5 0.5 0.5"}


def write_scene(city: CityMap, folder: Path) -> Path:
    """Write ``scene.xml`` and its meshes, and return its path.

    Args:
        city: buildings in metres.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_ply(folder / "buildings.ply", city.vertices_m, city.faces)
    low = city.vertices_m[:, :2].min(axis=0) - GROUND_MARGIN_M
    high = city.vertices_m[:, :2].max(axis=0) + GROUND_MARGIN_M
    corners = np.array([[low[0], low[1], 0], [high[0], low[1], 0], [high[0], high[1], 0], [low[0], high[1], 0]])
    _write_ply(folder / "ground.ply", corners, np.array([[0, 1, 2], [0, 2, 3]]))
    parts = [_material(name) for name in (WALLS, GROUND)]
    parts += [_shape("buildings", WALLS), _shape("ground", GROUND)]
    path = folder / "scene.xml"
    path.write_text('<scene version="2.1.0">\n' + "".join(parts) + "</scene>\n", encoding="utf-8")
    return path


def _material(name: str) -> str:
    return (
        f'  <bsdf type="twosided" id="mat-{name}"><bsdf type="diffuse">'
        f'<rgb value="{_COLOURS[name]}" name="reflectance"/></bsdf></bsdf>\n'
    )


def _shape(name: str, material: str) -> str:
    return (
        f'  <shape type="ply" id="mesh-{name}"><string name="filename" value="{name}.ply"/>'
        f'<boolean name="face_normals" value="true"/><ref id="mat-{material}" name="bsdf"/></shape>\n'
    )


def _write_ply(path: Path, vertices_m: np.ndarray, faces: np.ndarray) -> None:
    """Binary Stanford PLY with single-precision vertices."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices_m)}\nproperty float x\nproperty float y\n"
        f"property float z\nelement face {len(faces)}\nproperty list uchar int vertex_index\nend_header\n"
    )
    records = np.empty(len(faces), dtype=[("count", "u1"), ("vertex", "<i4", 3)])
    records["count"], records["vertex"] = 3, faces
    path.write_bytes(header.encode("ascii") + vertices_m.astype("<f4").tobytes() + records.tobytes())
