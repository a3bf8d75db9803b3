"""Differences of ranges and closed forms that the tests compare with."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.toa.link_features import FEATURE_LAWS
from cfpos_envs.physics.toa.ranging import difference_covariance, differencing_matrix


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
