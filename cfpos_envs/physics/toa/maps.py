"""Bounds of a time-based network at the positions of a drop, and over whole areas."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.bounds import aoa_fisher
from cfpos_envs.physics.toa.bounds import (
    SMALLEST_RANGE_M,
    embed_ground,
    peb,
    range_fisher,
    range_information,
    shadowed_rss_fisher,
    ula_aoa_information,
    unit_vectors_to,
)
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.toa.ranging import delay_variance_s2, range_variance_m2

# 1024 points and 100 APs make temporaries of 0.8 MB, which stay in the cache of a core.
CHUNK_LINKS = 1024 * 100
# An eigenvalue below this share of the largest one is rounding, in double precision (as in ``position_error_bound``).
_SINGULAR = {torch.float64: 1e-14, torch.float32: 1e-6}


def timing_drop_fisher(
    model: TimingModel,
    ap_positions_m: Float[Tensor, "*batch M 2"],
    height_diff_m: Float[Tensor, "*batch M"],
    positions_m: Float[Tensor, "*batch K 2"],
    *,
    sync_std_s: Float[Tensor, "*batch M"] | None = None,
    valid: Bool[Tensor, "*batch M K"] | None = None,
    ap_orientation_rad: Float[Tensor, "*batch M"] | None = None,
    shadowing_std_db: float | None = None,
    full_3d: bool = False,
) -> Float[Tensor, "*batch K D D"]:
    """Fisher information of all links of a drop in double precision, 1/m^2: ranges, and on request angles and powers.

    Args:
        model: the known constants; its family decides between TOA, TDOA and RTT.
        ap_positions_m, height_diff_m: the site.
        positions_m: true positions.
        sync_std_s: clock errors where they differ between APs; None: the model's.
        valid: links that count, e.g. those with a line of sight for the bound of a genie; None: all.
        ap_orientation_rad: array axes; given, the arrays' angles are added (``ula_aoa_information``).
        shadowing_std_db: given, the powers are added (``shadowed_rss_fisher``).
        full_3d: D = 3, the height of the UE is unknown too.

    Raises:
        ValueError: for a shadowing that is not positive or links without any error.
    """
    aps, points = ap_positions_m.double(), positions_m.detach().double()
    unit, slant = unit_vectors_to(aps, height_diff_m.double(), points, full_3d)
    snr = model.snr_linear(slant)
    sync = None if sync_std_s is None else sync_std_s.double().unsqueeze(-1)
    fisher = range_fisher(model.family, unit, range_information(model.range_variance_m2(snr, sync), valid))
    if shadowing_std_db is not None:
        fisher = fisher + shadowed_rss_fisher(unit, slant, model.path_loss_slope_db, shadowing_std_db, valid)
    if ap_orientation_rad is not None:
        vectors = points.unsqueeze(-3) - aps.unsqueeze(-2)
        angle = torch.atan2(vectors[..., 1], vectors[..., 0]) - ap_orientation_rad.double().unsqueeze(-1)
        information = ula_aoa_information(snr, angle, model.num_antennas, model.spacing_wavelengths)
        bearing = aoa_fisher(vectors, information if valid is None else information * valid)
        fisher = fisher + (embed_ground(bearing) if full_3d else bearing)
    return fisher


def timing_drop_bound(
    model: TimingModel,
    ap_positions_m: Float[Tensor, "*batch M 2"],
    height_diff_m: Float[Tensor, "*batch M"],
    positions_m: Float[Tensor, "*batch K 2"],
    *,
    sync_std_s: Float[Tensor, "*batch M"] | None = None,
    valid: Bool[Tensor, "*batch M K"] | None = None,
    ap_orientation_rad: Float[Tensor, "*batch M"] | None = None,
    shadowing_std_db: float | None = None,
    full_3d: bool = False,
) -> Float[Tensor, "*batch K"]:
    """Position error bound of every UE of a drop, metres (arguments of ``timing_drop_fisher``); inf if undetermined."""
    fisher = timing_drop_fisher(
        model,
        ap_positions_m,
        height_diff_m,
        positions_m,
        sync_std_s=sync_std_s,
        valid=valid,
        ap_orientation_rad=ap_orientation_rad,
        shadowing_std_db=shadowing_std_db,
        full_3d=full_3d,
    )
    return peb(fisher).to(positions_m.dtype)


def timing_fisher_map(
    model: TimingModel,
    ap_positions_m: Float[Tensor, "M 2"],
    height_diff_m: Float[Tensor, " M"],
    points_m: Float[Tensor, "P 2"],
    *,
    sync_std_s: Float[Tensor, " M"] | None = None,
    dtype: torch.dtype = torch.float64,
    chunk_links: int = CHUNK_LINKS,
) -> Float[Tensor, "P 2 2"]:
    """Fisher information of the ranges at many points, 1/m^2: ``timing_drop_fisher`` made for maps.

    Runs over chunks of points with a few temporaries of ``chunk_links`` numbers each. Single precision halves the time;
    its error is about 1e-7 times the condition number of the matrix, so use it to look at, not to compare with.

    Args:
        model: the known constants.
        ap_positions_m, height_diff_m: the site.
        points_m: where.
        sync_std_s: clock errors where they differ between APs; None: the model's.
        dtype: torch.float64 or torch.float32.
        chunk_links: points times APs worked on at a time, >= 1.

    Raises:
        ValueError: for another dtype, an empty site or a chunk below 1.
    """
    if dtype not in _SINGULAR:
        raise ValueError(f"dtype must be torch.float64 or torch.float32, got {dtype}")
    if len(ap_positions_m) == 0 or chunk_links < 1:
        raise ValueError(f"a map needs APs and chunk_links >= 1, got {len(ap_positions_m)} APs and {chunk_links}")
    # Coordinates relative to the site keep single precision good far away from the origin.
    origin = ap_positions_m.double().mean(dim=0)
    aps = (ap_positions_m.double() - origin).to(dtype)
    points = (points_m.double() - origin).to(dtype)
    height2 = height_diff_m.double().square().to(dtype)
    one_pass, fixed = _variance_terms(model, sync_std_s, len(aps))
    fixed = fixed.to(dtype)
    result = torch.empty(len(points), 3, dtype=dtype)
    rows = max(1, chunk_links // len(aps))
    for start in range(0, len(points), rows):
        piece = points[start : start + rows]
        ux = piece[:, :1] - aps[:, 0]
        uy = piece[:, 1:] - aps[:, 1]
        square = torch.addcmul(height2, ux, ux).addcmul_(uy, uy)
        weight = square.clamp(min=1.0).pow_(model.path_loss_slope_db / 20).mul_(one_pass).add_(fixed).reciprocal_()
        scale = square.clamp_(min=SMALLEST_RANGE_M**2).rsqrt_()
        ux.mul_(scale)
        uy.mul_(scale)
        if model.family == "tdoa":
            total = weight.sum(dim=-1, keepdim=True)
            ux.sub_((weight * ux).sum(dim=-1, keepdim=True).div_(total))
            uy.sub_((weight * uy).sum(dim=-1, keepdim=True).div_(total))
        weighted = weight * ux
        out = result[start : start + rows]
        torch.sum(weighted * ux, dim=-1, out=out[:, 0])
        torch.sum(weighted.mul_(uy), dim=-1, out=out[:, 1])
        torch.sum(weight.mul_(uy).mul_(uy), dim=-1, out=out[:, 2])
    return result[:, [0, 1, 1, 2]].unflatten(-1, (2, 2))


def peb_of_map(fisher: Float[Tensor, "P 2 2"]) -> Float[Tensor, " P"]:
    """PEB = sqrt(tr J / det J) of many 2 x 2 matrices, metres; the closed form of ``peb``, infinite where singular."""
    trace = fisher[:, 0, 0] + fisher[:, 1, 1]
    # Normalised first: the determinant of information per square metre may leave the range of single precision.
    a, b, d = (fisher[:, i, j] / trace for i, j in ((0, 0), (0, 1), (1, 1)))
    determinant = a * d - b * b
    known = torch.isfinite(determinant) & (determinant > _SINGULAR[fisher.dtype])
    return torch.where(known, 1 / (determinant * trace), torch.inf).sqrt()


def timing_peb_map(
    model: TimingModel,
    ap_positions_m: Float[Tensor, "M 2"],
    height_diff_m: Float[Tensor, " M"],
    points_m: Float[Tensor, "P 2"],
    *,
    sync_std_s: Float[Tensor, " M"] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Float[Tensor, " P"]:
    """Position error bound at many points, metres (arguments of ``timing_fisher_map``); inf where undetermined."""
    return peb_of_map(
        timing_fisher_map(model, ap_positions_m, height_diff_m, points_m, sync_std_s=sync_std_s, dtype=dtype)
    )


def _variance_terms(model: TimingModel, sync_std_s: Tensor | None, num_aps: int) -> tuple[float, Tensor]:
    """Range variance = first * slant^(slope / 10) + second (per AP), so that a map needs one power per link."""
    sync = torch.full((num_aps,), model.sync_std_s, dtype=torch.float64) if sync_std_s is None else sync_std_s.double()
    noise_s2 = delay_variance_s2(model.snr_linear(torch.ones(1, dtype=torch.float64)), model.rms_bandwidth_hz)
    fixed = model.range_variance_m2(torch.full_like(sync, torch.inf), sync)
    return float(range_variance_m2(model.family, noise_s2, 0.0)), fixed
