"""The ray tracer (Sionna RT) behind two functions: where roofs and ground are, and the paths of a batch of users.

The only module that imports the extra ``[raytracing]``, and only when a ``Tracer`` is made.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cfpos_envs.channels.tracing.map_scene import write_scene
from cfpos_envs.channels.tracing.recipe import Recipe
from cfpos_envs.channels.tracing.requirements import require_ray_tracing
from cfpos_envs.channels.tracing.storage import Paths
from cfpos_envs.files.city_maps import is_map, map_digest, read_map
from cfpos_envs.importers.path_checks import DIFFRACTED, REFLECTED, REFRACTED

_ROOF_STEP_M = 2.0
_ROOF_TIE_M = 0.5
_CELL_MARGIN = 0.25
_FAR_M = 50.0
_VARIANT = "llvm_ad_mono_polarized"
_SPECULAR, _REFRACTION, _DIFFRACTION = 1, 4, 8


class Tracer:
    """A loaded scene with its base stations.

    Args:
        recipe: what to load and how to trace.

    Attributes:
        bs_positions_m: [L, 3] antennas of the base stations, on the highest roof of each cell of the area.

    Raises:
        RayTracingUnavailableError: the extra or a recent LLVM is missing.
        ValueError: a part of the area has no roof for its base station.
    """

    def __init__(self, recipe: Recipe) -> None:
        require_ray_tracing()
        import drjit
        import mitsuba

        drjit.set_thread_count(1)
        mitsuba.set_variant(_VARIANT)
        import sionna.rt

        self._rt, self._mi, self._drjit = sionna.rt, mitsuba, drjit
        self.recipe = recipe
        self.version = f"sionna-rt {sionna.rt.__version__}, mitsuba {mitsuba.__version__}, drjit {drjit.__version__}"
        self._scene = self._loaded_scene()
        box = self._scene.mi_scene.bbox()
        self._low_z, self._high_z = float(box.min.z) - _FAR_M, float(box.max.z) + _FAR_M
        self.bs_positions_m = self._roof_tops()
        for index, position in enumerate(self.bs_positions_m):
            self._scene.add(sionna.rt.Transmitter(f"bs_{index}", position=position.tolist()))
        self._receivers: list[Any] = []
        self._solver = sionna.rt.PathSolver(deterministic=True)

    def surface_m(self, xy_m: np.ndarray) -> np.ndarray:
        """Height [n] of the highest surface at ``xy_m`` [n, 2]; NaN where the scene has none."""
        return self._first_hit(xy_m, self._high_z, -1.0)

    def ground_m(self, xy_m: np.ndarray) -> np.ndarray:
        """Height [n] of the lowest surface at ``xy_m`` [n, 2]; NaN where the scene has none."""
        return self._first_hit(xy_m, self._low_z, 1.0)

    def trace(self, users_m: np.ndarray) -> Paths:
        """All paths between the base stations and ``users_m`` [n, 3], strongest first on each link.

        Reciprocity: rays leave the base stations, which costs a third of the memory that rays from the users cost.
        """
        recipe = self.recipe
        self._place(users_m)
        traced = self._solver(
            self._scene,
            max_depth=recipe.max_depth,
            samples_per_src=recipe.rays,
            specular_reflection=True,
            diffuse_reflection=False,
            refraction=recipe.refraction,
            diffraction=recipe.diffraction,
            seed=recipe.seed,
        )
        users, bss = len(users_m), recipe.num_bss
        amplitude = (np.array(traced.a[0]) + 1j * np.array(traced.a[1])).reshape(users, bss, -1)
        valid = np.array(traced.valid).reshape(users, bss, -1) & (np.abs(amplitude) > 0)
        if valid.shape[-1] == 0:
            return Paths.empty(users, bss)
        kinds = np.array(traced.interactions).reshape(-1, users, bss, valid.shape[-1])
        fields = {
            "amplitude": amplitude,
            "delay_s": _array(traced.tau, valid.shape),
            "bs_azimuth_rad": _array(traced.phi_t, valid.shape),
            "bs_zenith_rad": _array(traced.theta_t, valid.shape),
            "ue_azimuth_rad": _array(traced.phi_r, valid.shape),
            "ue_zenith_rad": _array(traced.theta_r, valid.shape),
            "reflections": (kinds == _SPECULAR).sum(axis=0),
            "kind": _kind(kinds),
        }
        return Paths.from_padded(fields, valid, recipe.max_paths, recipe.dynamic_range_db)

    def _loaded_scene(self) -> Any:
        if is_map(self.recipe.scene):
            if map_digest(self.recipe.scene) != self.recipe.map_digest:
                raise ValueError(
                    f"{self.recipe.scene} has changed since the recipe was made; make a new data set of it"
                )
            with tempfile.TemporaryDirectory() as folder:
                path = write_scene(read_map(self.recipe.scene), Path(folder))
                scene = self._rt.load_scene(str(path), merge_shapes=True)
        else:
            scene = self._rt.load_scene(getattr(self._rt.scene, self.recipe.scene), merge_shapes=True)
        scene.frequency = self.recipe.carrier_hz
        # One isotropic vertical element: the array response is applied to the paths when CSI is made of them.
        element = self._rt.PlanarArray(
            num_rows=1, num_cols=1, vertical_spacing=0.5, horizontal_spacing=0.5, pattern="iso", polarization="V"
        )
        scene.tx_array = scene.rx_array = element
        return scene

    def _place(self, users_m: np.ndarray) -> None:
        for receiver in self._receivers[len(users_m) :]:
            self._scene.remove(receiver.name)
        del self._receivers[len(users_m) :]
        for index in range(len(self._receivers), len(users_m)):
            receiver = self._rt.Receiver(f"ue_{index}", position=users_m[index].tolist())
            self._scene.add(receiver)
            self._receivers.append(receiver)
        for receiver, position in zip(self._receivers, users_m, strict=True):
            place = self._mi.Point3f(*position.tolist())
            # As literals they would stand in the kernels, and every place of every user would be compiled anew.
            self._drjit.make_opaque(place)
            receiver.position = place

    def _first_hit(self, xy_m: np.ndarray, start_z: float, direction: float) -> np.ndarray:
        mi = self._mi
        x, y = (mi.Float(np.ascontiguousarray(xy_m[:, axis], dtype=np.float32)) for axis in (0, 1))
        ray = mi.Ray3f(mi.Point3f(x, y, mi.Float(start_z)), mi.Vector3f(0.0, 0.0, direction))
        distance = np.array(self._scene.mi_scene.ray_intersect(ray).t, dtype=np.float64)
        return np.where(np.isfinite(distance), start_z + direction * distance, np.nan)

    def _roof_tops(self) -> np.ndarray:
        recipe = self.recipe
        centre, size = np.array(recipe.area_centre_m), np.array(recipe.area_size_m)
        counts = grid_counts(recipe.num_bss, size)
        cell = size / counts
        steps = [np.arange(_CELL_MARGIN * side, (1 - _CELL_MARGIN) * side, _ROOF_STEP_M) for side in cell]
        offsets = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 2)
        positions = []
        for corner in np.ndindex(*counts):
            points = centre - size / 2 + np.array(corner) * cell + offsets
            roof, ground = self.surface_m(points), self.ground_m(points)
            if not np.nanmax(roof - ground) >= recipe.roof_m:
                raise ValueError(
                    f"scene {recipe.scene!r} has no roof above {recipe.roof_m:g} m in one of {recipe.num_bss} cells "
                    "of its area; move it (centre_m), change its size (size_m), take fewer base stations (num_bss) or "
                    "lower roofs (roof_m)"
                )
            roof = np.where(roof - ground >= recipe.roof_m, roof, -np.inf)
            # Of equally high points the one nearest the middle of the cell, so that rounding decides nothing.
            far = np.linalg.norm(offsets - cell / 2, axis=1)
            best = np.argmin(np.where(roof >= np.nanmax(roof) - _ROOF_TIE_M, far, np.inf))
            positions.append([*points[best], roof[best] + recipe.mast_m])
        return np.array(positions, dtype=np.float32)


def grid_counts(cells: int, size_m: np.ndarray) -> tuple[int, int]:
    """Columns and rows with columns * rows = cells, the cells as square as possible."""
    pairs = [(columns, cells // columns) for columns in range(1, cells + 1) if cells % columns == 0]
    return min(pairs, key=lambda pair: abs(math.log((size_m[0] / pair[0]) / (size_m[1] / pair[1]))))


def _array(tensor: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(tensor, dtype=np.float32).reshape(shape)


def _kind(interactions: np.ndarray) -> np.ndarray:
    """[users, bss, paths] sum of the flags of ``path_checks`` over the interactions of each path."""
    return (
        REFLECTED * (interactions == _SPECULAR).any(axis=0)
        + REFRACTED * (interactions == _REFRACTION).any(axis=0)
        + DIFFRACTED * (interactions == _DIFFRACTION).any(axis=0)
    )
