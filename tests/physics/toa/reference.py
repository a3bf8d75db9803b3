"""Differences of ranges and closed forms that the tests compare with."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.toa.link_features import FEATURE_LAWS


def tdoa_difference_fisher(
    unit: Float[Tensor, "*batch M K D"],
    variance_m2: Float[Tensor, "*batch M K"],
    reference: int = 0,
    independent: bool = False,
) -> Float[Tensor, "*batch K D D"]:
    """J = (D U)^T (D Sigma D^T)^-1 (D U) of the differences to one AP, 1/m^2.

    Args:
        unit: see ``unit_vectors_to``.
        variance_m2: variances of the pseudo-ranges, finite: every AP counts here.
        reference: which AP is subtracted.
        independent: the textbook shortcut, which drops the correlation of the differences: then the number depends on
            the reference and is no bound.

    Raises:
        ValueError: for fewer than two APs or an unknown reference.
    """
    matrix = differencing_matrix(unit.shape[-3], reference, unit.dtype).to(unit.device)
    covariance = difference_covariance(variance_m2.transpose(-1, -2), reference, independent)
    slopes = torch.einsum("pm,...mkd->...kpd", matrix, unit)
    return slopes.mT @ torch.linalg.solve(covariance, slopes)


def range_differences(range_m: Float[Tensor, "*batch M"], reference: int = 0) -> Float[Tensor, "*batch P"]:
    """r_m - r_reference for the other APs in order, metres: the unknown UE offset is gone.

    Args:
        range_m: pseudo-ranges of one UE, APs last.
        reference: which AP is subtracted.
    """
    matrix = differencing_matrix(range_m.shape[-1], reference, range_m.dtype).to(range_m.device)
    return range_m @ matrix.transpose(0, 1)


def bayes_error(use_rss: bool = True) -> float:
    """Smallest error rate of any classifier at equal odds, Phi(-|d'|/2)."""
    laws = FEATURE_LAWS if use_rss else FEATURE_LAWS[:4]
    separation = math.sqrt(sum(law.separation**2 for law in laws))
    return 0.5 * math.erfc(separation / (2 * math.sqrt(2)))


def differencing_matrix(num_aps: int, reference: int = 0, dtype: torch.dtype = torch.float64) -> Float[Tensor, "P M"]:
    """D of M - 1 differences to a reference AP; for reference 0 it is [-1 | I].

    Args:
        num_aps: M >= 2.
        reference: which AP is subtracted, 0 <= reference < M.
        dtype: of the result.

    Raises:
        ValueError: for fewer than two APs or a reference that is none of them.
    """
    if num_aps < 2:
        raise ValueError(f"a time difference needs at least 2 APs, got {num_aps}")
    if not 0 <= reference < num_aps:
        raise ValueError(f"reference must be an AP index in [0, {num_aps - 1}], got {reference}")
    eye = torch.eye(num_aps, dtype=dtype)
    others = [ap for ap in range(num_aps) if ap != reference]
    return eye[others] - eye[reference]


def difference_covariance(
    variance_m2: Float[Tensor, "*batch M"], reference: int = 0, independent: bool = False
) -> Float[Tensor, "*batch P P"]:
    """Covariance D Sigma D^T of range differences, m^2: all share the error of the reference AP.

    Args:
        variance_m2: variances of the pseudo-ranges (diagonal of Sigma).
        reference: which AP is subtracted.
        independent: the textbook shortcut: only the diagonal, as if the differences were independent.
    """
    matrix = differencing_matrix(variance_m2.shape[-1], reference, variance_m2.dtype).to(variance_m2.device)
    covariance = (matrix * variance_m2.unsqueeze(-2)) @ matrix.transpose(0, 1)
    return torch.diag_embed(torch.diagonal(covariance, dim1=-2, dim2=-1)) if independent else covariance
