"""CSI estimation from received pilots: least squares, linear MMSE ((4) of An et al.) and its long-term covariance."""

from __future__ import annotations

import torch
from jaxtyping import Complex
from torch import Tensor


def ls_estimate(
    received: Complex[Tensor, "*batch A N"], pilots: Complex[Tensor, " N"]
) -> Complex[Tensor, "*batch A N"]:
    """Least-squares estimate y_n / x_n; its error has variance sigma^2 / |x_n|^2.

    Args:
        received: Y of (2), with any leading dimensions.
        pilots: x_n, none of them zero.
    """
    return received / pilots


def long_term_covariance(channels: Complex[Tensor, "samples *links A N"]) -> Complex[Tensor, "*links N A A"]:
    """R_{h,n} = E[h_n h_n^H] by averaging over independent realisations, per link and subcarrier.

    Args:
        channels: realisations in the first dimension.
    """
    columns = channels.movedim(0, -1).movedim(-2, -3)  # [*links, N, A, samples]
    return columns @ columns.mH / columns.shape[-1]


def lmmse_filter(
    covariance: Complex[Tensor, "*links N A A"], pilots: Complex[Tensor, " N"], noise_power_w: float
) -> Complex[Tensor, "*links N A A"]:
    """The matrix of (4): R x_n^* (|x_n|^2 R + sigma^2 I)^-1.

    Args:
        covariance: R_{h,n}, Hermitian.
        pilots: x_n.
        noise_power_w: sigma^2 > 0.
    """
    # Gains of 1e-9 and below: in double precision and in units of the noise, or the inverse loses the weak directions.
    covariance = covariance.to(torch.complex128)
    symbols = pilots.to(torch.complex128)[:, None, None]
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    scaled = covariance * (symbols.abs().square() / noise_power_w)
    # scaled and (scaled + I)^-1 commute, so a left solve gives the product.
    return (torch.linalg.solve(scaled + eye, scaled) / symbols).to(torch.complex64)


def lmmse_estimate(
    received: Complex[Tensor, "*batch A N"], matrix: Complex[Tensor, "*#batch N A A"]
) -> Complex[Tensor, "*batch A N"]:
    """LMMSE estimate (4), every subcarrier by its own matrix.

    Args:
        received: Y of (2).
        matrix: of ``lmmse_filter``.
    """
    return torch.einsum("...nab,...bn->...an", matrix, received)
