"""Path loss and spatially correlated shadowing maps."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs import draws
from cfpos_envs.physics.geometry import nearest_image


def path_gain_db(
    distance_3d_m: Float[Tensor, "*batch"], intercept_db: float, slope_db: float
) -> Float[Tensor, "*batch"]:
    """Large-scale gain beta[dB] = intercept - slope * log10(d / 1 m).

    Source: Liu et al. (DCP), section V with the constants of Bjornson and Sanguinetti (2020): -30.5 and 36.7 dB.

    Args:
        distance_3d_m: slant distance in metres, > 0.
        intercept_db: gain at 1 m.
        slope_db: loss per decade of distance.
    """
    return intercept_db - slope_db * torch.log10(distance_3d_m)


def distance_from_gain(
    gain_db: Float[Tensor, "*batch"], intercept_db: float, slope_db: float
) -> Float[Tensor, "*batch"]:
    """Slant distance (m) at which the path loss alone gives ``gain_db``: the inverse of ``path_gain_db``."""
    return torch.pow(10.0, (intercept_db - gain_db) / slope_db)


def shadowing_maps(
    generator: draws.Source,
    num_maps: int,
    side_m: float,
    wrap: bool,
    resolution_m: float,
    std_db: float,
    decorrelation_m: float,
) -> Float[Tensor, "M G G"]:
    """Gaussian shadowing maps with correlation 2^(-d / decorrelation_m), drawn by circulant embedding.

    The correlation law is that of Liu et al. (DCP), section V. On the torus d is the wrapped distance and the map is
    periodic with G = side / resolution points per axis; otherwise the field is drawn on a torus of twice the side
    and cut to G + 1 points per axis, border included.

    Args:
        generator: source of randomness.
        num_maps: independent maps M, one per AP.
        side_m, resolution_m: area and grid spacing, metres.
        wrap: periodic maps.
        std_db: standard deviation, dB, >= 0.
        decorrelation_m: distance at which the correlation is one half, metres, > 0.

    Returns:
        Maps in dB; entry [m, i, j] is at x = i * resolution, y = j * resolution.
    """
    cells = max(1, round(side_m / resolution_m))
    spacing = side_m / cells
    size = cells if wrap else 2 * cells
    axis = nearest_image(torch.arange(size, dtype=torch.float64) * spacing, size * spacing, wrap=True)
    distance = torch.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    spectrum = torch.fft.fft2(torch.pow(2.0, -distance / decorrelation_m)).real.clamp(min=0.0)
    # The torus metric is not exactly positive definite; after clamping, restore unit variance.
    spectrum = spectrum / spectrum.mean()
    white = draws.normal(generator, num_maps, size, size, dtype=torch.float64)
    coloured = torch.fft.ifft2(torch.fft.fft2(white) * spectrum.sqrt().to(white.device)).real
    kept = coloured if wrap else coloured[:, : cells + 1, : cells + 1]
    return (std_db * kept).to(torch.float32)


def sample_maps(
    maps_db: Float[Tensor, "*batch M G G"], points_m: Float[Tensor, "*batch K 2"], side_m: float, wrap: bool
) -> Float[Tensor, "*batch M K"]:
    """Bilinear value of every map at every point; differentiable in the points.

    Args:
        maps_db: maps as made by ``shadowing_maps`` (periodic if ``wrap``, else with both borders).
        points_m: positions inside the area, metres.
        side_m, wrap: the area.
    """
    size = maps_db.shape[-1]
    cells = size if wrap else size - 1
    scaled = points_m / (side_m / cells)
    scaled = torch.remainder(scaled, float(cells)) if wrap else scaled.clamp(0.0, float(cells))
    low = scaled.detach().floor().clamp(max=float(cells - 1))
    fraction = scaled - low
    i, j = low[..., 0].long(), low[..., 1].long()
    i_next, j_next = ((i + 1) % size, (j + 1) % size) if wrap else (i + 1, j + 1)
    flat = maps_db.flatten(-2)

    def corner(row: Tensor, column: Tensor) -> Tensor:
        index = (row * size + column).unsqueeze(-2)
        return torch.gather(flat, -1, index.expand(*flat.shape[:-1], index.shape[-1]))

    fx, fy = fraction[..., 0].unsqueeze(-2), fraction[..., 1].unsqueeze(-2)
    near = corner(i, j) * (1 - fy) + corner(i, j_next) * fy
    far = corner(i_next, j) * (1 - fy) + corner(i_next, j_next) * fy
    return near * (1 - fx) + far * fx
