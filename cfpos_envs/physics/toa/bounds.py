"""Fisher information and error bounds of positions from ranges: TOA, TDOA, RTT, and hybrids with AOA and RSS.

The chain is: ``unit_vectors_to`` (where the APs are seen) and ``range_information`` (how precise each link is) ->
``toa_fisher``, or ``tdoa_fisher`` if the UE's clock is unknown -> ``peb``, ``error_ellipse`` (in ``bounds``) or
``gdop``. Information from angles and powers is added to the matrices. The unknown is the ground position (D = 2; the
height difference is known) or the full position (D = 3). ``timing_drop_bound`` runs it for the positions of a drop and
``timing_maps`` for whole areas.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.physics.bounds import position_error_bound
from cfpos_envs.physics.toa.ranging import check_family

# A link shorter than this has no direction and adds nothing: the range has no gradient at the AP itself.
SMALLEST_RANGE_M = 1e-6


def unit_vectors_to(
    ap_positions_m: Float[Tensor, "*batch M 2"],
    height_diff_m: Float[Tensor, "*batch M"],
    points_m: Float[Tensor, "*batch K 2"],
    full_3d: bool = False,
) -> tuple[Float[Tensor, "*batch M K D"], Float[Tensor, "*batch M K"]]:
    """Gradient of every range by the unknown position, u = (p - q) / |p - q|, and the slant range in metres.

    Args:
        ap_positions_m: ground positions of the APs.
        height_diff_m: AP minus UE height, positive or negative.
        points_m: ground positions of the UEs.
        full_3d: the UE's height is unknown as well: D = 3; else D = 2, the horizontal part of the same vector, which
            is shorter than 1.

    Returns:
        The vectors, zero at an AP itself, and the ranges.
    """
    ground = points_m.unsqueeze(-3) - ap_positions_m.unsqueeze(-2)
    drop = (-height_diff_m)[..., None, None].expand(*ground.shape[:-1], 1)
    vectors = torch.cat((ground, drop), dim=-1)
    slant = torch.linalg.vector_norm(vectors, dim=-1)
    kept = (vectors if full_3d else ground) * (slant > SMALLEST_RANGE_M).unsqueeze(-1)
    return kept / slant.clamp(min=SMALLEST_RANGE_M).unsqueeze(-1), slant


def range_information(
    variance_m2: Float[Tensor, "*batch M K"], valid: Bool[Tensor, "*batch M K"] | None = None
) -> Float[Tensor, "*batch M K"]:
    """Information 1 / sigma^2 of each range, 1/m^2; 0 for links that are not valid or infinitely uncertain.

    Args:
        variance_m2: see ``range_variance_m2``; > 0.
        valid: which links were measured; None: all.

    Raises:
        ValueError: for a variance that is zero, negative or NaN.
    """
    if not bool((variance_m2 > 0).all()):
        raise ValueError("variance_m2 must be positive; a range without error has no bound")
    weight = 1.0 / variance_m2
    return weight if valid is None else weight * valid


def toa_fisher(
    unit: Float[Tensor, "*batch M K D"], information_per_m2: Float[Tensor, "*batch M K"]
) -> Float[Tensor, "*batch K D D"]:
    """J = sum_m w_m u_m u_m^T, 1/m^2; for RTT the same with its own weights.

    Args:
        unit: see ``unit_vectors_to``.
        information_per_m2: w_m, see ``range_information``; 8 pi^2 beta_rms^2 SNR / c^2 for perfect clocks.
    """
    return torch.einsum("...mk,...mki,...mkj->...kij", information_per_m2, unit, unit)


def tdoa_fisher(
    unit: Float[Tensor, "*batch M K D"], information_per_m2: Float[Tensor, "*batch M K"]
) -> Float[Tensor, "*batch K D D"]:
    """J = U W U^T - (U w)(U w)^T / sum w, 1/m^2: what is left when the common offset has been estimated as well.

    Computed as the scatter of the u_m around their weighted mean, the same number without the cancellation. Equal to
    the bound of the M - 1 differences with their full covariance, whatever the reference.

    Args:
        unit: see ``unit_vectors_to``.
        information_per_m2: w_m of the pseudo-ranges.
    """
    total = information_per_m2.sum(dim=-2, keepdim=True).clamp(min=torch.finfo(information_per_m2.dtype).tiny)
    mean = ((information_per_m2 / total).unsqueeze(-1) * unit).sum(dim=-3, keepdim=True)
    return toa_fisher(unit - mean, information_per_m2)


def range_fisher(
    family: str,
    unit: Float[Tensor, "*batch M K D"],
    information_per_m2: Float[Tensor, "*batch M K"],
) -> Float[Tensor, "*batch K D D"]:
    """Fisher information of a measurement family: ``toa_fisher`` for "toa" and "rtt", ``tdoa_fisher`` for "tdoa".

    Raises:
        ValueError: for an unknown family.
    """
    return (tdoa_fisher if check_family(family) == "tdoa" else toa_fisher)(unit, information_per_m2)


def ula_aoa_information(
    snr_linear: Float[Tensor, "*batch"],
    angle_rad: Float[Tensor, "*batch"],
    num_antennas: int,
    spacing_wavelengths: float = 0.5,
) -> Float[Tensor, "*batch"]:
    """Information of a ULA on the bearing of one path, 8 pi^2 D^2 sin^2(theta) SNR (N^2 - 1) / 12, 1/rad^2.

    The twin of 1 / sigma_tau^2 = 8 pi^2 beta_rms^2 SNR, with elements where that has subcarriers and an unknown complex
    amplitude in both. For ``bounds.aoa_fisher``.

    Args:
        snr_linear: SNR of the whole pilot over the array, as in ``delay_variance_s2``.
        angle_rad: angle to the array axis; along the axis nothing is known.
        num_antennas: N >= 1; one antenna knows nothing.
        spacing_wavelengths: D = Delta / lambda.
    """
    aperture = spacing_wavelengths**2 * (num_antennas**2 - 1) / 12
    return 8 * math.pi**2 * aperture * torch.sin(angle_rad).square() * snr_linear


def shadowed_rss_fisher(
    unit: Float[Tensor, "*batch M K D"],
    slant_m: Float[Tensor, "*batch M K"],
    slope_db: float,
    std_db: float,
    valid: Bool[Tensor, "*batch M K"] | None = None,
) -> Float[Tensor, "*batch K D D"]:
    """Information of powers limited by shadowing: sum_m (slope / (ln 10 d_m std))^2 u_m u_m^T, 1/m^2.

    Args:
        unit, slant_m: see ``unit_vectors_to``.
        slope_db: loss per decade of distance.
        std_db: standard deviation of the shadowing, dB, > 0.
        valid: which links were measured; None: all.

    Raises:
        ValueError: unless the standard deviation is positive.
    """
    if not std_db > 0:
        raise ValueError(f"std_db of the shadowing must be positive, got {std_db}; without it use bounds.rss_fisher")
    weight = (slope_db / (math.log(10.0) * std_db * slant_m.clamp(min=SMALLEST_RANGE_M))).square()
    return toa_fisher(unit, weight if valid is None else weight * valid)


def embed_ground(fisher: Float[Tensor, "*batch 2 2"]) -> Float[Tensor, "*batch 3 3"]:
    """The same information on a ground position as part of a full one: nothing is said about the height."""
    return torch.nn.functional.pad(fisher, (0, 1, 0, 1))


def peb(fisher: Float[Tensor, "*batch D D"]) -> Float[Tensor, "*batch"]:
    """PEB = sqrt(tr J^-1), metres; infinite, never NaN, where the position is not determined.

    ``torch.isfinite`` of the result says where it is: fewer links than unknowns, all APs in one line with the UE,
    all at one place, or no information at all.
    """
    return position_error_bound(fisher)


def gdop(
    unit: Float[Tensor, "*batch M K D"],
    unknown_offset: bool = False,
    valid: Bool[Tensor, "*batch M K"] | None = None,
) -> Float[Tensor, "*batch K"]:
    """Geometric dilution of precision: the PEB if every range had a standard deviation of one metre.

    Args:
        unit: see ``unit_vectors_to``.
        unknown_offset: the UE's clock is unknown (TDOA).
        valid: which links were measured; None: all.
    """
    ones = torch.ones_like(unit[..., 0])
    weight = ones if valid is None else ones * valid
    return peb((tdoa_fisher if unknown_offset else toa_fisher)(unit, weight))
