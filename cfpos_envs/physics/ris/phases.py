"""Unit-modulus profiles of a surface that serve a sector: dominant singular vector, its balanced form, chirp, random.

With v(out, in) = a(out) * conj(a(in)), a = response of the surface's elements, a profile phi gives the path over the
surface the array gain rho = v^H phi, |rho| <= N_R.

Source: Zhang, Wang, Tay, arXiv 2306.07504, phase design: maximise the mean of |rho|^2 over a sector, relax the moduli,
take the phases of the dominant singular vector. That vector is one narrow beam once the sector is wider than a beam
(half-width in cosines times n / 2 above 1, 5.7 degrees for 20 x 20 elements); the chirp is our answer to that.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.ris.geometry import RIS_AXES, spherical_direction
from cfpos_envs.physics.ris.modes import mode_vector

SECTOR_POINTS = 21
"""Directions along each angle of a sector."""
_BALANCED_STARTS, _BALANCED_STEPS = 5, 200

Cosines = tuple[float, float]


def element_response(cosines: Float[Tensor, "*batch 2"], shape: tuple[int, int]) -> Complex[Tensor, "*batch NR"]:
    """a(x_1, x_2) = a_{n_1}(x_1) (x) a_{n_2}(x_2) with a_n(x)_i = exp(j pi i x): half-wavelength elements.

    Args:
        cosines: to the two axes of the array.
        shape: elements along them; the first index is slow.
    """
    first = mode_vector(cosines[..., 0], shape[0], math.pi)
    second = mode_vector(cosines[..., 1], shape[1], math.pi)
    return (first.unsqueeze(-1) * second.unsqueeze(-2)).flatten(-2)


def cascade(
    outgoing: Float[Tensor, "*#batch 2"], incoming: Float[Tensor, "*#batch 2"], shape: tuple[int, int]
) -> Complex[Tensor, "*batch NR"]:
    """Both hops in one vector, v = a(outgoing) * conj(a(incoming)); the profile phi = v sends all power there.

    Args:
        outgoing, incoming: cosines at the surface, see ``geometry.ris_cosines``.
        shape: elements along its axes.
    """
    # Only the difference of the cosines enters.
    return element_response(outgoing - incoming, shape)


def array_gain(
    phases: Complex[Tensor, "*#batch NR"],
    outgoing: Float[Tensor, "*#batch 2"],
    incoming: Float[Tensor, "*#batch 2"],
    shape: tuple[int, int],
) -> Complex[Tensor, "*batch"]:
    """What a profile makes of a path, rho = v^H phi.

    Args:
        phases: profile phi.
        outgoing, incoming: cosines at the surface.
        shape: elements along its axes.
    """
    return (cascade(outgoing, incoming, shape).conj() * phases).sum(dim=-1)


def sector_cosines(azimuth_rad: float, elevation_rad: float, half_width_rad: float) -> Float[Tensor, "C 2"]:
    """Cosines at a surface of a grid of directions around a centre.

    Args:
        azimuth_rad, elevation_rad: the centre, seen from the surface.
        half_width_rad: in either angle, >= 0.
    """
    offsets = torch.linspace(-half_width_rad, half_width_rad, SECTOR_POINTS, dtype=torch.float64)
    azimuth, elevation = torch.meshgrid(azimuth_rad + offsets, elevation_rad + offsets, indexing="ij")
    direction = spherical_direction(azimuth, elevation).flatten(0, 1)
    return direction @ torch.tensor(RIS_AXES, dtype=torch.float64).mT


def svd_profile(
    shape: tuple[int, int],
    incoming: tuple[Cosines, ...],
    azimuth_rad: float,
    elevation_rad: float,
    half_width_rad: float,
) -> Complex[Tensor, " NR"]:
    """Phases of the dominant left singular vector of all columns v of the sector, one set per base station.

    Several base stations: the columns of the Khatri-Rao product, those of the Kronecker product that diag(phi) leaves.
    Computed once per set of arguments.

    Args:
        shape: elements along the surface's axes.
        incoming: cosines at which each base station arrives.
        azimuth_rad, elevation_rad, half_width_rad: sector, see ``sector_cosines``.
    """
    return _svd_profile(shape, incoming, azimuth_rad, elevation_rad, half_width_rad).clone()


def balanced_profile(
    shape: tuple[int, int],
    incoming: tuple[Cosines, ...],
    azimuth_rad: float,
    elevation_rad: float,
    half_width_rad: float,
) -> Complex[Tensor, " NR"]:
    """Serves all base stations alike: maximises sum_i log(mean over the sector of |v_i^H phi|^2).

    Fixed point phi <- exp(j arg(phi + N_R / I sum_i S_i phi / (phi^H S_i phi))), S_i = sum v v^H of base station i,
    from the singular vector and several random starts; of all that is passed, the profile whose worst base station
    fares best. The same on the plain sum would end with one base station alone.
    Computed once per set of arguments.

    Args:
        shape, incoming, azimuth_rad, elevation_rad, half_width_rad: see ``svd_profile``.
    """
    return _balanced_profile(shape, incoming, azimuth_rad, elevation_rad, half_width_rad).clone()


def chirp_profile(
    shape: tuple[int, int],
    incoming: tuple[Cosines, ...],
    azimuth_rad: float,
    elevation_rad: float,
    half_width_rad: float,
) -> Complex[Tensor, " NR"]:
    """Spreads the power evenly: along each axis the local cosine runs from one edge of the sector to the other.

    Phase of element i = pi times the sum of the first i local cosines, Kronecker product of the axes, times
    conj(a(incoming)); several base stations: phases of the sum of their profiles.

    Args:
        shape, incoming, azimuth_rad, elevation_rad, half_width_rad: see ``svd_profile``.
    """
    sector = sector_cosines(azimuth_rad, elevation_rad, half_width_rad)
    axes = [_chirp(float(column.min()), float(column.max()), n) for column, n in zip(sector.unbind(-1), shape)]
    spread = (axes[0].unsqueeze(-1) * axes[1]).flatten()
    arriving = element_response(torch.tensor(incoming, dtype=torch.float64), shape)
    return unit_modulus((spread * arriving.conj()).sum(dim=0))


def random_profiles(generator: draws.Source, *size: int) -> Complex[Tensor, "*size"]:
    """Uniform phases.

    Args:
        generator: where to draw from, and on which device.
        size: shape of the result.
    """
    phase = 2 * math.pi * draws.uniform(generator, *size, dtype=torch.float64)
    return torch.polar(torch.ones_like(phase), phase)


def unit_modulus(values: Complex[Tensor, "*batch"]) -> Complex[Tensor, "*batch"]:
    """Nearest unit-modulus numbers; 1 for zero."""
    angle = values.angle()
    return torch.polar(torch.ones_like(angle), angle)


@lru_cache(maxsize=64)
def _svd_profile(
    shape: tuple[int, int], incoming: tuple[Cosines, ...], azimuth: float, elevation: float, half_width: float
) -> Tensor:
    gram = sum(_sector_grams(shape, incoming, azimuth, elevation, half_width))
    # Ascending eigenvalues: the last vector is the dominant one.
    return unit_modulus(torch.linalg.eigh(gram).eigenvectors[:, -1])


@lru_cache(maxsize=64)
def _balanced_profile(
    shape: tuple[int, int], incoming: tuple[Cosines, ...], azimuth: float, elevation: float, half_width: float
) -> Tensor:
    grams = torch.stack(_sector_grams(shape, incoming, azimuth, elevation, half_width))
    size, stations = math.prod(shape), len(incoming)
    starts = random_profiles(torch.Generator().manual_seed(0), _BALANCED_STARTS, size).mT
    phi = torch.cat((_svd_profile(shape, incoming, azimuth, elevation, half_width).unsqueeze(-1), starts), dim=-1)
    best, best_worst = phi, torch.zeros(phi.shape[-1], dtype=torch.float64)
    for _ in range(_BALANCED_STEPS):
        pulled = grams @ phi
        power = (phi.conj() * pulled).sum(dim=-2, keepdim=True).real.clamp(min=torch.finfo(torch.float64).tiny)
        worst = power.amin(dim=0).squeeze(0)
        best = torch.where(worst > best_worst, phi, best)
        best_worst = torch.maximum(worst, best_worst)
        # The pull alone may jump between the base stations for ever; half of it does not.
        phi = unit_modulus(phi + (pulled / power).sum(dim=0) * (size / stations))
    return best[:, int(best_worst.argmax())]


def _sector_grams(
    shape: tuple[int, int], incoming: tuple[Cosines, ...], azimuth: float, elevation: float, half_width: float
) -> list[Tensor]:
    """Sum of v v^H over the sector for each base station."""
    sector = sector_cosines(azimuth, elevation, half_width)
    grams = []
    for arriving in incoming:
        columns = cascade(sector, torch.tensor(arriving, dtype=torch.float64), shape)
        grams.append(columns.mT @ columns.conj())
    return grams


def _chirp(low: float, high: float, size: int) -> Tensor:
    steps = torch.linspace(low, high, max(size - 1, 1), dtype=torch.float64)[: size - 1]
    phase = math.pi * torch.cat((torch.zeros(1, dtype=torch.float64), steps.cumsum(dim=0)))
    return torch.polar(torch.ones_like(phase), phase)
