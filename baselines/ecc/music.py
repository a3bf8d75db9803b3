"""Directions by MUSIC at planar arrays, and the point in space where their lines pass each other most closely."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from cfpos_envs.fields import Declared, Range
from cfpos_envs.measurements.base import Reason, first_reason
from cfpos_envs.measurements.ecc import CsiMeasurements, CsiSystem
from cfpos_envs.physics.ecc.csi import element_response, rotation_matrix, upa_response

from .agreement import Agreement, Rays, agreement, direction_information
from .common import FLAG_BITS, FLOAT_BITS, CsiAnswers, CsiEstimator

_REFINEMENTS = 3
_DIRECTION_NUMBERS = 3
_LEAST_RANGE_M = 1.0
_PULL, _TINY = 1e-6, 1e-12
_LOADING = 1e-3
"""Of the largest eigenvalue, added to all."""
_HARDLY_KNOWN, _LEAST_SHARE = 0.5, 0.4
"""Share of the deviation of anywhere in the area, and probability of other places, from which on an answer is none."""

_LEAST_EVIDENCE = -math.log(20.0)
"""Log odds that the lines mean one place, below which they do not."""

_FLAT = 1e-3
"""Antennas this many wavelengths from a common plane are in it."""


@dataclass(frozen=True)
class Music3dOptions(Declared):
    """Options of ``music`` where it reads CSI.

    Attributes:
        num_sources: paths that the signal subspace holds, from 1 to less than the antennas; the direction of the
            strongest of them is used.
        grid: directions along each axis of the first search over the half sphere in front of an array.
        steps: reweightings of the intersection.
        scale_deg: angle beyond which a direction is taken for a reflection and counts less.
        both_sides: whether a user may be behind an array; a planar array cannot tell front from back.
    """

    ranges: ClassVar[Mapping[str, Range]] = {
        "num_sources": (1, 4096),
        "grid": (4, 4096),
        "steps": (1, 10_000),
        "scale_deg": (1e-6, 360),
    }

    num_sources: int = 1
    grid: int = 32
    steps: int = 10
    scale_deg: float = 5.0
    both_sides: bool = True


class Music3d(CsiEstimator):
    """Directions by MUSIC at every base station's array, then their intersection in space by least squares."""

    name: ClassVar[str] = "music"
    least_links: ClassVar[int] = 2
    needs_planes: ClassVar[bool] = True
    options_class: ClassVar[type] = Music3dOptions
    options: Music3dOptions

    @property
    def fronthaul_bits(self) -> float:
        """A direction of three 32-bit numbers, its gain, and the flag."""
        return float(FLOAT_BITS * (_DIRECTION_NUMBERS + 1) + FLAG_BITS)

    def _positions(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> Float[Tensor, "S 3"]:
        return self._answers(csi, valid, of).position_m

    def _answers(
        self, csi: Complex[Tensor, "S L T A N"], valid: Bool[Tensor, "S L"], of: CsiMeasurements
    ) -> CsiAnswers:
        """Where the lines meet, and how well they agree on it, see ``agreement``."""
        system, options = of.system, self.options
        if options.num_sources >= system.num_antennas:
            raise ValueError(
                f"num_sources is {options.num_sources}; with {system.num_antennas} antennas it must be at most "
                f"{system.num_antennas - 1}"
            )
        rotation, covariance = rotation_matrix(of.bs_orientation_rad), spatial_covariance(csi)
        sides = [(rotation @ local.unsqueeze(-1)).squeeze(-1) for local in self._local(covariance, system)]
        low, high = (csi.real.new_tensor(corner) for corner in (system.area_min_m, system.area_max_m))
        position = intersect(of.bs_positions_m, sides, valid, low, high, options.steps, options.scale_deg)
        values = torch.linalg.eigvalsh(_normal(covariance))
        elements = system.elements_wavelengths.to(values)
        information = direction_information(values, elements, rotation, valid)
        rays = Rays(of.bs_positions_m, torch.stack(sides, dim=-2), information)
        starts = torch.stack([start for _, _, start in crossings(of.bs_positions_m, sides, low, high)], dim=1)
        found = agreement(rays, position, starts, low, high, math.radians(options.scale_deg))
        return CsiAnswers(
            position,
            found.covariance_m2.to(position.dtype),
            _doubts(found, high - low),
            found.chi_squared.to(position.dtype),
            (2 * found.agreeing - 3).clamp(min=0),
        )

    def _local(self, covariance: Complex[Tensor, "S L A A"], system: CsiSystem) -> list[Float[Tensor, "S L 3"]]:
        """Directions in the array's frame; of antennas in a plane also their mirror images, for it cannot tell."""
        options, turned = self.options, torch.tensor([-1.0, 1.0, 1.0], device=covariance.device)
        found = (options.num_sources, options.grid)
        if system.element_positions_m is None:
            front = music_directions(covariance, system.array_shape, system.spacing_wavelengths, *found)
            return [front, front * turned] if options.both_sides else [front]
        frame, flat = plane_of(system.elements_wavelengths)
        frame = frame.to(covariance.device)
        elements = system.elements_wavelengths.to(covariance.device) @ frame.mT
        ahead, fit = strongest_directions(covariance, lambda u: element_response(u, elements), *found)
        if flat:
            return [ahead @ frame, (ahead * turned) @ frame] if options.both_sides else [ahead @ frame]
        behind, other = strongest_directions(covariance, lambda u: element_response(u, elements * turned), *found)
        return [torch.where((fit >= other).unsqueeze(-1), ahead, behind * turned) @ frame]


def plane_of(elements_wavelengths: Float[Tensor, "A 3"]) -> tuple[Float[Tensor, "3 3"], bool]:
    """A frame (rows x, y, z) whose x axis is normal to the plane that antennas lie in, and whether they do.

    For antennas in the y-z plane it is the frame that they are given in, with the x axis forward.

    Args:
        elements_wavelengths: antennas.
    """
    apart = (elements_wavelengths - elements_wavelengths.mean(dim=0)).double()
    axes = torch.linalg.svd(apart, full_matrices=True)[2]
    normal = axes[2] * torch.where(axes[2, axes[2].abs().argmax()] < 0, -1.0, 1.0)
    # The world's vertical, or north for a horizontal array, as near as it can be to the z axis.
    up = apart.new_tensor([0.0, 0.0, 1.0] if normal[2].abs() < 0.9 else [1.0, 0.0, 0.0])
    z = torch.nn.functional.normalize(up - (up @ normal) * normal, dim=0)
    frame = torch.stack((normal, torch.linalg.cross(z, normal), z))
    return frame.float(), bool((apart @ normal).abs().max() < _FLAT)


def spatial_covariance(csi: Complex[Tensor, "*batch T A N"]) -> Complex[Tensor, "*batch A A"]:
    """R = 1 / (T N) sum h h^H over slots and subcarriers, which makes paths of different delays incoherent.

    Args:
        csi: of one BS.
    """
    columns = csi.movedim(-3, -2).flatten(-2)  # [..., A, T N]
    return columns @ columns.mH / columns.shape[-1]


def music_directions(
    covariance: Complex[Tensor, "*batch A A"],
    array_shape: tuple[int, int],
    spacing_wavelengths: float,
    num_sources: int,
    grid: int,
) -> Float[Tensor, "*batch 3"]:
    """Direction of the strongest path, in the array's frame and in front of it.

    Args:
        covariance: R.
        array_shape, spacing_wavelengths: see ``physics.ecc.csi.upa_response``.
        num_sources, grid: see ``strongest_directions``.
    """
    return strongest_directions(
        covariance, lambda u: upa_response(u, array_shape, spacing_wavelengths), num_sources, grid
    )[0]


def strongest_directions(
    covariance: Complex[Tensor, "*batch A A"], response: Callable[[Tensor], Tensor], num_sources: int, grid: int
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    """Direction with x > 0 of the strongest path, and a score by which sides of an array are compared.

    The peaks of 1 / ||E_n^H a(u)||^2 (Schmidt 1986) over direction cosines (u_y, u_z): a grid, then finer ones around
    the best points. The height of a peak says how well a path fits, not how strong it is: of several sources the one
    with the most power 1 / (a^H R^-1 a) (Capon 1969) is returned.

    Args:
        covariance: R.
        response: a(u) of unit vectors [..., 3].
        num_sources: dimension of the signal subspace, below A.
        grid: points along an axis.

    Returns:
        The direction; for one source how much of its response the signal subspace holds, else its power.
    """
    values, vectors = torch.linalg.eigh(_normal(covariance))
    signal = vectors[..., -num_sources:]

    def search(centre: Tensor, half: float) -> tuple[Tensor, Tensor]:
        """Cosines [..., points, 2] around a centre, and the fit there: ||E_n^H a||^2 = A - ||E_s^H a||^2."""
        steps = torch.linspace(-half, half, grid, device=covariance.device)
        offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).flatten(0, 1)
        cosines = centre.unsqueeze(-2) + offsets
        inside = cosines.square().sum(dim=-1) < 1.0
        fit = torch.view_as_real(response(_unit(cosines)).conj() @ signal).square().sum(dim=(-1, -2))
        return cosines, torch.where(inside, fit, torch.full_like(fit, -1.0))

    coarse, coarse_fit = search(covariance.real.new_zeros((*covariance.shape[:-2], 2)), 1.0)
    # A path at the edge of the half sphere shows on both sides of it: more peaks are looked at than there are sources.
    heights, starts = _peaks(coarse_fit, grid).topk(1 if num_sources == 1 else 2 * num_sources, dim=-1)
    best, score = None, None
    for height, start in zip(heights.unbind(-1), starts.unbind(-1)):
        centre, half, fit = _entry(coarse, start), 2.0 / (grid - 1), height
        for _ in range(_REFINEMENTS):
            cosines, fits = search(centre, half)
            centre, fit = _entry(cosines, fits.argmax(dim=-1)), fits.amax(dim=-1)
            half = 2.0 * half / (grid - 1)
        found = fit if num_sources == 1 else _capon_power(values, vectors, response(_unit(centre)))
        found = torch.where(height > 0, found, torch.full_like(found, -torch.inf))
        if best is None or score is None:
            best, score = centre, found
        else:
            best, score = torch.where((found > score).unsqueeze(-1), centre, best), torch.maximum(score, found)
    assert best is not None
    assert score is not None
    return _unit(best), score


def _peaks(fit: Float[Tensor, "*batch points"], grid: int) -> Float[Tensor, "*batch points"]:
    """The fit where no neighbour on the grid fits better, -1 elsewhere."""
    maps = fit.reshape(-1, 1, grid, grid)
    highest = torch.nn.functional.max_pool2d(maps, 3, stride=1, padding=1)
    return torch.where(maps == highest, maps, torch.full_like(maps, -1.0)).reshape(fit.shape)


def _entry(cosines: Float[Tensor, "*batch points 2"], index: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch 2"]:
    return cosines.gather(-2, index[..., None, None].expand(*index.shape, 1, 2)).squeeze(-2)


def _capon_power(
    values: Float[Tensor, "*batch A"], vectors: Complex[Tensor, "*batch A A"], response: Complex[Tensor, "*batch A"]
) -> Float[Tensor, "*batch"]:
    """1 / (a^H (R + delta I)^-1 a) from the eigenvalues (ascending) and eigenvectors of R.

    The loading delta forgives what the last grid leaves of a path's direction, and not a direction that is no path.
    """
    loaded = values.clamp(min=0) + _LOADING * values[..., -1:] + torch.finfo(values.dtype).tiny
    parts = torch.view_as_real(vectors.mH @ response.unsqueeze(-1)).square().sum(dim=(-1, -2))
    return 1 / (parts / loaded).sum(dim=-1)


def intersect(
    places_m: Float[Tensor, "S L 3"],
    sides: list[Float[Tensor, "S L 3"]],
    valid: Bool[Tensor, "S L"],
    low_m: Float[Tensor, "3"],
    high_m: Float[Tensor, "3"],
    steps: int,
    scale_deg: float,
) -> Float[Tensor, "S 3"]:
    """The point nearest to the lines in the least-squares sense, directions that disagree losing their weight.

    p = (sum w (I - u u^T))^-1 sum w (I - u u^T) s with the weights of a Cauchy loss on the angle between u and p - s,
    w = 1 / (|p - s|^2 (1 + (angle / scale)^2)). Several starts (every pair of lines, on every side) are tried; the one
    with the least loss stays, so that reflections do not drag the point along.

    Args:
        places_m: s, the arrays.
        sides: unit directions u; where there are two, either may be the right one.
        valid: links that have a direction; with fewer than two, the nearest point to the middle of the area counts.
        low_m, high_m: corners of the area.
        steps: reweightings.
        scale_deg: width of the Cauchy loss.
    """
    scale = torch.deg2rad(torch.tensor(scale_deg))
    directions = torch.stack(sides, dim=-2)  # [S, L, D, 3]
    best = ((low_m + high_m) / 2).expand(len(places_m), 3)
    least = torch.full((len(places_m),), torch.inf, device=places_m.device)
    for first, second, point in crossings(places_m, sides, low_m, high_m):
        loss = _angles(places_m, directions, point)[0].div(scale).square().log1p().mul(valid).sum(dim=1)
        better = (loss < least) & valid[:, first] & valid[:, second]
        best, least = torch.where(better[:, None], point, best), torch.where(better, loss, least)
    centre = (low_m + high_m) / 2
    for _ in range(steps):
        angle, chosen = _angles(places_m, directions, best)
        distance = (best.unsqueeze(1) - places_m).norm(dim=-1).clamp(min=_LEAST_RANGE_M)
        # An angle of r scale is as far from its line as r scale times the distance.
        weight = valid / (distance.square() * (1 + (angle / scale).square()))
        best = _closest(places_m, chosen, weight, centre)
        best = torch.minimum(torch.maximum(best, low_m), high_m)
    return best


def crossings(
    places_m: Float[Tensor, "S L 3"],
    sides: list[Float[Tensor, "S L 3"]],
    low_m: Float[Tensor, "3"],
    high_m: Float[Tensor, "3"],
) -> Iterator[tuple[int, int, Float[Tensor, "S 3"]]]:
    """Every two arrays, and where their lines pass each other most closely, on every side; inside the area.

    Args:
        places_m, sides, low_m, high_m: see ``intersect``.
    """
    for first, second in itertools.combinations(range(places_m.shape[1]), 2):
        for one, other in itertools.product(range(len(sides)), repeat=2):
            point = _nearest_to_two(places_m[:, [first, second]], sides[one][:, first], sides[other][:, second])
            yield first, second, torch.minimum(torch.maximum(point, low_m), high_m)


def _angles(places_m: Tensor, directions: Tensor, point_m: Tensor) -> tuple[Tensor, Tensor]:
    """[S, L] angle between the better of each link's directions and the point, and that direction [S, L, 3]."""
    towards = torch.nn.functional.normalize(point_m.unsqueeze(1) - places_m, dim=-1)
    cosine, side = (directions * towards.unsqueeze(-2)).sum(dim=-1).max(dim=-1)
    index = side[..., None, None].expand(*side.shape, 1, 3)
    return cosine.clamp(-1.0, 1.0).acos(), directions.gather(-2, index).squeeze(-2)


def _closest(places_m: Tensor, directions: Tensor, weight: Tensor, centre_m: Tensor) -> Tensor:
    """The weighted least-squares point, pulled a little towards the middle where the lines say nothing."""
    # In double precision: one line alone leaves a matrix that only the pull makes invertible.
    directions, weight, eye = directions.double(), weight.double(), torch.eye(3, device=places_m.device).double()
    parts = weight[..., None, None] * (eye - directions.unsqueeze(-1) * directions.unsqueeze(-2))
    pull = _PULL * weight.sum(dim=1)[:, None, None] + _TINY
    matrix = parts.sum(dim=1) + pull * eye
    right = (parts @ places_m.double().unsqueeze(-1)).sum(dim=1) + pull * centre_m.double()[:, None]
    return torch.linalg.solve(matrix, right).squeeze(-1).to(places_m)


def _nearest_to_two(places_m: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Middle of the shortest segment between two half lines [S, 3] from ``places_m`` [S, 2, 3]."""
    apart = places_m[:, 0] - places_m[:, 1]
    overlap = (first * second).sum(dim=-1)
    along_first, along_second = (first * apart).sum(dim=-1), (second * apart).sum(dim=-1)
    slack = (1 - overlap.square()).clamp(min=1e-6)
    range_first = ((overlap * along_second - along_first) / slack).clamp(min=0)
    range_second = ((along_second - overlap * along_first) / slack).clamp(min=0)
    ends = places_m[:, 0] + range_first[:, None] * first, places_m[:, 1] + range_second[:, None] * second
    return (ends[0] + ends[1]) / 2


def _normal(covariance: Tensor) -> Tensor:
    """Zero in place of subnormal numbers, which keep the eigensolver from converging."""
    parts = torch.view_as_real(covariance)
    return torch.view_as_complex(torch.where(parts.abs() < torch.finfo(parts.dtype).tiny, 0.0, parts))


def _doubts(found: Agreement, size_m: Tensor) -> Tensor:
    """Why an answer is not to be believed, 0 where it is."""
    largest = torch.linalg.eigvalsh(found.covariance_m2)[..., -1].clamp(min=0.0).sqrt()
    believed = torch.zeros_like(largest, dtype=torch.bool)
    failures = (
        (Reason.POOR_GEOMETRY, largest > _HARDLY_KNOWN * float(size_m.max()) / math.sqrt(12)),
        (Reason.AMBIGUOUS, found.elsewhere > _LEAST_SHARE),
        (Reason.LARGE_RESIDUALS, found.evidence < _LEAST_EVIDENCE),
    )
    for _, failed in failures:
        believed = believed | failed
    return first_reason(~believed, *failures)


def _unit(cosines: Tensor) -> Tensor:
    """(sqrt(1 - y^2 - z^2), y, z)."""
    front = (1 - cosines.square().sum(dim=-1, keepdim=True)).clamp(min=0).sqrt()
    return torch.cat((front, cosines), dim=-1)
