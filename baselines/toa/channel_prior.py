"""Channel estimates from a prior: a widened line of sight at a believed place plus scattered paths behind it.

The prior covariance of one link's response (N antennas, S subcarriers) is

    beta (pi C_a(c, sigma_c) x C_d(tau, sigma_tau) + (1 - pi) I_N x C_s(tau) + epsilon I),

with C_a and C_d the steering and delay responses averaged over Gaussian errors of the cosine c of the angle and of the
delay tau, and C_s an exponential delay profile that begins at tau; epsilon is what no model foresees. A phase per
antenna and subcarrier moves any link to c = tau = 0, where all links share one small basis for the delays; in the
eigenvectors of C_a the antennas separate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.waveform import delay_response, subcarrier_frequencies_hz

# What is left out of the basis holds less than this share of a link's power per subcarrier.
_BASIS_SHARE = 1e-5
_NODES = 9
_LINKS_AT_A_TIME = 64


@dataclass(frozen=True)
class LinkPrior:
    """Where the channel of every link is believed to be.

    Attributes:
        gain: mean power beta of an entry of the response.
        los_share: pi in [0, 1], the share of the line of sight.
        delay_s, delay_std_s: its delay, that of the scattered paths' beginning, and the former's uncertainty.
        cosine, cosine_std: cosine of its angle to the array axis, and the uncertainty.
        floor_share: epsilon, power in any direction and at any delay, so that a good LS estimate is never overruled.
    """

    gain: Float[Tensor, "B M K"]
    los_share: Float[Tensor, "B M K"]
    delay_s: Float[Tensor, "B M K"]
    delay_std_s: Float[Tensor, "B M K"]
    cosine: Float[Tensor, "B M K"]
    cosine_std: Float[Tensor, "B M K"]
    floor_share: Float[Tensor, "B M K"]


@dataclass(frozen=True)
class Scattering:
    """Scattered paths behind a line of sight as the comb sees them: eigenvectors of the exponential delay profile.

    Attributes:
        vectors: eigenvectors with weight, S x r.
        values: their eigenvalues, falling; with unit power per subcarrier they add up to nearly S.
    """

    vectors: Complex[Tensor, "S R"]
    values: Float[Tensor, " R"]


@lru_cache(maxsize=8)
def scattering(num_subcarriers: int, subcarrier_spacing_hz: float, delay_spread_s: float) -> Scattering:
    """Eigenvectors of [C_s]_{s,s'} = 1 / (1 + j 2 pi (f_s - f_s') T), the profile exp(-tau / T) / T.

    Args:
        num_subcarriers, subcarrier_spacing_hz: the comb.
        delay_spread_s: T, the RMS delay spread of the scattered paths, >= 0.
    """
    frequency = subcarrier_frequencies_hz(num_subcarriers, subcarrier_spacing_hz)
    apart = 2 * math.pi * delay_spread_s * (frequency.unsqueeze(-1) - frequency)
    values, vectors = torch.linalg.eigh(1 / torch.complex(torch.ones_like(apart), apart))
    kept = values > _BASIS_SHARE * num_subcarriers
    return Scattering(vectors[:, kept].flip(-1).contiguous(), values[kept].flip(-1).contiguous())


def steering(cosine: Float[Tensor, "*batch"], model: TimingModel) -> Complex[Tensor, "*batch N"]:
    """``ula_response`` by the cosine of the angle, which is all that a ULA sees."""
    index = torch.arange(model.num_antennas, dtype=cosine.dtype, device=cosine.device)
    phase = -2 * math.pi * model.spacing_wavelengths * cosine.unsqueeze(-1) * index
    return torch.polar(torch.ones_like(phase), phase)


def centred(
    cfr: Complex[Tensor, "*batch N S"],
    cosine: Float[Tensor, "*batch"],
    delay_s: Float[Tensor, "*batch"],
    model: TimingModel,
) -> Complex[Tensor, "*batch N S"]:
    """The response with a path of this cosine and delay moved to cosine 0 and delay 0."""
    delays = delay_response(delay_s, model.num_subcarriers, model.subcarrier_spacing_hz).conj()
    return cfr * steering(cosine, model).conj().unsqueeze(-1) * delays.unsqueeze(-2)


def mmse_channel(
    cfr: Complex[Tensor, "B M K N S"], model: TimingModel, prior: LinkPrior, delay_spread_s: float
) -> Complex[Tensor, "B M K N S"]:
    """Linear MMSE estimate C (C + v I)^-1 H of every link's response, C as at the top of this module.

    Args:
        cfr: least-squares response with noise variance v = ``model.cfr_noise_variance``.
        model: the comb, the arrays, the noise.
        prior: where the links are believed to be.
        delay_spread_s: RMS delay spread of the scattered paths.
    """
    shape = cfr.shape
    if cfr.numel() == 0:
        return cfr
    links = cfr.reshape(-1, *shape[-2:])
    fields = [getattr(prior, name).reshape(-1).double() for name in LinkPrior.__dataclass_fields__]
    basis = _delay_basis(model, delay_spread_s, float(prior.delay_std_s.max()))
    pieces = [
        _mmse(links[low : low + _LINKS_AT_A_TIME], model, [f[low : low + _LINKS_AT_A_TIME] for f in fields], basis)
        for low in range(0, len(links), _LINKS_AT_A_TIME)
    ]
    return torch.cat(pieces).reshape(shape)


def flat_channel(
    cfr: Complex[Tensor, "B M K N S"], model: TimingModel, gain: Float[Tensor, "B M K"]
) -> Complex[Tensor, "B M K N S"]:
    """Plain linear MMSE with the flat prior beta I: the least-squares response times beta / (beta + v)."""
    return cfr * (gain / (gain + model.cfr_noise_variance))[..., None, None]


def nmse_db(
    estimate: Complex[Tensor, "B M K N S"],
    channel: Complex[Tensor, "B M K N S"],
    valid: Bool[Tensor, "B M K"] | None = None,
) -> float:
    """10 log10 of sum |error|^2 / sum |channel|^2, every link normalised by its own power first.

    Args:
        estimate, channel: responses.
        valid: links that count; None: all.
    """
    error = (estimate - channel).abs().square().sum(dim=(-2, -1)) / channel.abs().square().sum(dim=(-2, -1))
    return 10 * math.log10(float((error if valid is None else error[valid]).mean()))


def _delay_basis(model: TimingModel, delay_spread_s: float, delay_std_s: float) -> tuple[Tensor, Tensor]:
    """Basis V of all believed delays around zero, and the scattered paths' covariance V^H C_s V in it."""
    size, spacing = model.num_subcarriers, model.subcarrier_spacing_hz
    behind = scattering(size, spacing, delay_spread_s)
    frequency = subcarrier_frequencies_hz(size, spacing)
    apart = frequency.unsqueeze(-1) - frequency
    direct = torch.exp(-0.5 * (2 * math.pi * delay_std_s * apart).square()) + 0j
    scattered = (behind.vectors * behind.values) @ behind.vectors.mH
    values, vectors = torch.linalg.eigh(direct + scattered)
    vectors = vectors[:, values > _BASIS_SHARE * size]
    return vectors, vectors.mH @ scattered @ vectors


def _mmse(cfr: Tensor, model: TimingModel, fields: list[Tensor], basis: tuple[Tensor, Tensor]) -> Tensor:
    gain, los_share, delay, delay_std, cosine, cosine_std, floor_share = fields
    vectors, scattered = basis
    response = centred(cfr.to(torch.complex128), cosine, delay, model)
    reduced = response @ vectors.conj()

    index = torch.arange(model.num_antennas, dtype=torch.float64, device=cfr.device)
    apart = 2 * math.pi * model.spacing_wavelengths * (index.unsqueeze(-1) - index)
    spread = torch.exp(-0.5 * (apart * cosine_std[:, None, None]).square())
    modes, turn = torch.linalg.eigh(spread)
    turn = turn.to(reduced.dtype)
    reduced = turn.mT @ reduced

    nodes, weights = (torch.from_numpy(part).to(gain) for part in np.polynomial.hermite_e.hermegauss(_NODES))
    shifted = delay_response(delay_std.unsqueeze(-1) * nodes, model.num_subcarriers, model.subcarrier_spacing_hz)
    rays = (shifted @ vectors.conj()) * (weights / weights.sum()).sqrt().unsqueeze(-1)
    direct = rays.mT @ rays.conj()

    power = (gain * los_share).unsqueeze(-1) * modes.clamp(min=0.0)
    rest = (gain * (1 - los_share))[:, None, None, None] * scattered
    floor = (gain * floor_share)[:, None, None]
    eye = torch.eye(vectors.shape[-1], dtype=rest.dtype, device=cfr.device)
    covariance = power[..., None, None] * direct.unsqueeze(1) + rest + floor.unsqueeze(-1) * eye
    noise = model.cfr_noise_variance * eye
    solved = torch.linalg.solve(covariance + noise, reduced.unsqueeze(-1))
    inside = turn @ (covariance @ solved).squeeze(-1) @ vectors.mT
    outside = response - (response @ vectors.conj()) @ vectors.mT
    estimate = inside + outside * (floor / (floor + model.cfr_noise_variance))
    return centred(estimate, -cosine, -delay, model).to(cfr.dtype)
