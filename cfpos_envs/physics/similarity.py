"""Similarity of measured and predicted fingerprints: eqs. (7)-(9) of Liu et al. (DCP) as printed, and repaired ones."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_FEW = 8


def masked_mean(
    values: Float[Tensor, "*batch M"], mask: Bool[Tensor, "*#batch M"] | Float[Tensor, "*#batch M"] | None
) -> Float[Tensor, "*batch"]:
    """Mean over the last dimension of the entries with a true mask (all if None); 0 where there is none.

    Instead of the mask its ``shares`` can be given, for those who take many means over the same entries.
    """
    if mask is None:
        return values.mean(dim=-1)
    return (values * (mask if mask.is_floating_point() else shares(mask, values.dtype))).sum(dim=-1)


def shares(mask: Bool[Tensor, "*batch M"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "*batch M"]:
    """Equal weights of the entries with a true mask, with sum 1; zeros where there is none."""
    weights = mask.to(dtype)
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1.0)


def masked_median(
    values: Float[Tensor, "*batch M"], mask: Bool[Tensor, "*#batch M"] | None, count: int | None = None
) -> Float[Tensor, "*batch"]:
    """Lower median over the last dimension of the entries with a true mask (all if None); 0 where there is none.

    Args:
        values: finite.
        mask: entries that count.
        count: how many there are, where every row has equally many (at least one): the median is then cheaper.
    """
    if mask is None:
        return values.kthvalue((values.shape[-1] + 1) // 2, dim=-1).values
    if count is not None:
        return values.masked_fill(~mask, math.inf).kthvalue((count + 1) // 2, dim=-1).values
    return torch.nan_to_num(values.masked_fill(~mask, math.nan).nanmedian(dim=-1).values, nan=0.0)


def sorted_along(values: Float[Tensor, "*batch"], dim: int) -> list[Float[Tensor, "*rest"]]:
    """The slices of ``values`` along a short dimension, in ascending order.

    A few values are sorted by exchanging neighbours, whole slices at a time: n rounds for n slices. Many are left to
    ``torch.sort``, which looks at one row after the other.
    """
    slices = list(values.unbind(dim))
    if len(slices) > _FEW:
        return list(values.sort(dim=dim).values.unbind(dim))
    for turn in range(len(slices)):
        for low in range(turn % 2, len(slices) - 1, 2):
            pair = slices[low], slices[low + 1]
            slices[low], slices[low + 1] = torch.minimum(*pair), torch.maximum(*pair)
    return slices


def aoa_similarity(
    cosine: Float[Tensor, "*batch M"],
    mask: Bool[Tensor, "*#batch M"] | Float[Tensor, "*#batch M"] | None = None,
    normalisation: str = "mean",
) -> Float[Tensor, "*batch"]:
    """Xi^a, eq. (8): per-AP cosine similarities of the angular power columns added over the APs.

    Args:
        cosine: per-AP similarity in [0, 1] (see ``arrays.angle_profile``).
        mask: APs that count, or their shares (see ``masked_mean``).
        normalisation: ``"paper"`` divides by sqrt(M) as printed (range [0, sqrt(M)]); ``"mean"`` by M (range [0, 1]).

    Raises:
        ValueError: for another normalisation.
    """
    if normalisation not in ("paper", "mean"):
        raise ValueError(f"normalisation must be 'paper' or 'mean', got {normalisation!r}")
    mean = masked_mean(cosine, mask)
    if normalisation == "mean":
        return mean
    count = cosine.shape[-1] if mask is None else (mask > 0).sum(dim=-1).to(cosine.dtype)
    return mean * count**0.5


def rss_distance_paper(
    rss_w: Float[Tensor, "*#batch K M"], predicted_w: Float[Tensor, "*batch K M"]
) -> Float[Tensor, "*batch K"]:
    """Xi^r, eq. (9) as printed: a *distance*, normalised by its maximum over the UEs, so in [0, 1] and 0 is best."""
    distance = torch.linalg.vector_norm(rss_w - predicted_w, dim=-1)
    largest = distance.amax(dim=-1, keepdim=True)
    return torch.where(largest > 0, distance / largest, torch.zeros_like(distance))


def joint_similarity_paper(
    xi_a: Float[Tensor, "*batch K"], xi_r: Float[Tensor, "*batch K"], floor: float = 1e-6
) -> Float[Tensor, "*batch K"]:
    """Xi, eq. (7): Xi^a / Xi^r. ``floor`` keeps a perfect RSS match finite."""
    return xi_a / xi_r.clamp(min=floor)


def rss_log_similarity(
    residual_db: Float[Tensor, "*batch M"], mask: Bool[Tensor, "*#batch M"] | Float[Tensor, "*#batch M"] | None = None
) -> Float[Tensor, "*batch"]:
    """RSS term of the repaired similarity: -log(rms / 1 dB + 0.05), rms over the APs of the dB difference."""
    rms = torch.sqrt(masked_mean(residual_db.square(), mask) + 1e-12)
    return -torch.log(rms + 0.05)


def aoa_log_similarity(
    cosine: Float[Tensor, "*batch M"], mask: Bool[Tensor, "*#batch M"] | Float[Tensor, "*#batch M"] | None = None
) -> Float[Tensor, "*batch"]:
    """AOA term of the repaired similarity: -log(1 - Xi^a) with Xi^a averaged over the APs (1/M)."""
    return -torch.log((1.0 - aoa_similarity(cosine, mask)).clamp(min=1e-6))


def robust_similarity(scaled_residual: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Student-t (nu = 4) log-likelihood of one residual over its scale, per AP: -2.5 log(1 + z^2 / 4)."""
    return -2.5 * torch.log(1.0 + scaled_residual.square() / 4.0)


def cauchy_similarity(scaled_residual: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Cauchy log-likelihood of one residual over its scale, per AP: -log(1 + z^2); it is robust to gross errors."""
    return -torch.log(1.0 + scaled_residual.square())


AGREEMENT_SCALES = (2.0, 6.0, 20.0)
"""Residuals in known standard deviations that count half: the first ranks good fits, the last leads to them."""


def agreement(z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Bounded robust agreement in (0, 1] of a residual of z standard deviations: mean of 1 / (1 + (z / c)^2) over c.

    A range that is far too long costs what one that is a little too long does, so the mean over the links is highest
    where most of them agree, not between all of them (a Geman-McClure kernel at three scales).
    """
    terms = [1.0 / (1.0 + (z / scale).square()) for scale in AGREEMENT_SCALES]
    return torch.stack(terms).mean(dim=0)
