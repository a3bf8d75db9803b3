"""What a sample covariance leaves open of the angles of its paths, and the score of bearing and power that follows.

The law of one link: N path angles around the user's bearing, frozen, and T snapshots of fading and noise. The angles
are never seen. By Fisher's identity the score of what *is* seen is the posterior mean of the score of both,

    d log p(R_hat | bearing, power) = E[ d log p(R_hat, angles | bearing, power) | R_hat ],

so that a Markov chain over the angles of one link gives it, and nothing has to be taken as Gaussian. Beams about the
middle of a linear array turn its Toeplitz covariances into real ones, of which the real part of the sample covariance
is a sufficient statistic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfpos_envs.physics.dcp.channel import draw_white
from cfpos_envs.physics.dcp.covariance.network import ArrayLaw

_CANDIDATES = 4
"""Places that an angle chooses from, itself one of them."""
_LEAST_STEP = 0.02
_MOST_STEP = 8.0
"""Distance of these places, in scales of the Laplacian; drawn anew each time, uniform in the logarithm."""
_EDGE = 1e-12
DB_PER_NEPER = 10.0 / math.log(10.0)


@dataclass(frozen=True)
class PathDraws:
    """Simulated links, their hidden path angles with them.

    Attributes:
        offset: angle of every path minus the bearing, in scales of the Laplacian (spread / sqrt(2)).
        received: real part of the sample covariance in real beams, over the power of the signal.
    """

    offset: Float[Tensor, "n N"]
    received: Float[Tensor, "n L L"]


@dataclass(frozen=True)
class PathScores:
    """Of both bearing (1/rad) and power (1/dB), along the chain of every link.

    Attributes:
        mean: of the score of what is seen.
        spread: covariance of the score along the chain: what the hidden angles take from the information.
        power_information: mean information on the power if the angles were known, 1/dB^2.
    """

    mean: Float[Tensor, "n 2"]
    spread: Float[Tensor, "n 2 2"]
    power_information: Float[Tensor, " n"]


def angle_information(law: ArrayLaw) -> float:
    """Information on the bearing if all path angles were known: 2 N / spread^2, that of N Laplacian draws, 1/rad^2.

    Raises:
        ValueError: no angular spread: there is nothing hidden.
    """
    if law.angular_spread_rad <= 0.0:
        raise ValueError("the information of hidden path angles needs an angular spread above zero")
    return 2.0 * law.num_paths / law.angular_spread_rad**2


def real_beams(phase: Float[Tensor, "*batch"], size: int) -> Float[Tensor, "*batch L"]:
    """Steering vectors about the array's middle in a real basis: sqrt(2) cos and sin of their phases.

    Args:
        phase: between neighbouring antennas, radians.
        size: antennas.
    """
    place = torch.arange(size, dtype=phase.dtype) - (size - 1) / 2
    turns = phase.unsqueeze(-1) * place[place > 0]
    parts = [math.sqrt(2.0) * torch.cos(turns), math.sqrt(2.0) * torch.sin(turns)]
    return torch.cat([*parts, torch.ones_like(phase).unsqueeze(-1)] if size % 2 else parts, dim=-1)


def real_covariance(covariance: torch.Tensor) -> Float[Tensor, "*batch L L"]:
    """Re(Q^H R Q) with the unitary Q that takes steering vectors to ``real_beams``.

    Args:
        covariance: R, Hermitian [..., L, L].
    """
    size = covariance.shape[-1]
    half = size // 2
    unit = torch.eye(size, dtype=torch.complex128)
    low, high = unit[:half].flip(0), unit[size - half :]
    # The antennas' phases are turned the other way by exp(-j l psi).
    rows = [(high + low) / math.sqrt(2.0), 1j * (high - low) / math.sqrt(2.0)]
    basis = torch.cat([*rows, unit[half : half + 1]] if size % 2 else rows)
    return (basis @ covariance.to(torch.complex128) @ basis.mH).real


def draw_links(
    generator: torch.Generator, law: ArrayLaw, bearing_rad: Float[Tensor, " n"], snr_db: Float[Tensor, " n"]
) -> PathDraws:
    """Links by the law of the game, eqs. (1) to (3), in double precision.

    Args:
        generator: source of randomness.
        law: array and scattering, of some spread.
        bearing_rad: true direction to the array's axis.
        snr_db: per antenna.
    """
    offset = draw_offsets(generator, law, len(bearing_rad))
    mean = _mean_covariance(real_beams(_phase(law, bearing_rad, offset), law.num_antennas), _noise(snr_db))
    white = draw_white(generator, (len(offset),), law.num_antennas, law.snapshots).to(torch.complex128)
    coloured = torch.linalg.cholesky(mean).to(torch.complex128) @ white
    return PathDraws(offset, (coloured @ coloured.mH).real / law.snapshots)


def draw_offsets(generator: torch.Generator, law: ArrayLaw, links: int) -> Float[Tensor, "n N"]:
    """Path angles of the law minus the bearing, in scales of the Laplacian."""
    centred = torch.rand(links, law.num_paths, generator=generator, dtype=torch.float64) - 0.5
    return -torch.sign(centred) * torch.log1p((-2.0 * centred.abs()).clamp(min=_EDGE - 1.0))


def path_scores(
    generator: torch.Generator,
    law: ArrayLaw,
    bearing_rad: Float[Tensor, " n"],
    snr_db: Float[Tensor, " n"],
    start: PathDraws,
    sweeps: int,
    warm_up: int = 0,
) -> PathScores:
    """Run the chain of every link at a hypothesised bearing and power.

    One path at a time is taken out and put to one of ``_CANDIDATES`` places a random step apart, the window placed at
    random over where it was, with probabilities by the Wishart likelihood and the Laplacian: a step in detailed
    balance. Inverses are computed anew each time: at high SNR rank-one updates lose all their digits.

    Args:
        generator: source of randomness.
        law: array and scattering.
        bearing_rad, snr_db: where the score is asked for. The power is that of the signal, the noise is known.
        start: the links and where their chains begin. At the true angles, and the score asked for at the truth, a
            chain is in its law from the first step on.
        sweeps: that count, >= 1.
        warm_up: that are forgotten before, where chains begin elsewhere.

    Raises:
        ValueError: no angular spread.
    """
    scale = law.angular_spread_rad / math.sqrt(2.0)
    if scale <= 0.0:
        raise ValueError("a posterior of path angles needs an angular spread above zero")
    size, snapshots = law.num_antennas, law.snapshots
    offset, received, noise = start.offset.clone(), start.received, _noise(snr_db)
    beams = real_beams(_phase(law, bearing_rad, offset), size)
    total = torch.zeros(len(offset), 2, dtype=torch.float64)
    squares = torch.zeros(len(offset), 2, 2, dtype=torch.float64)
    known = torch.zeros(len(offset), dtype=torch.float64)
    for sweep in range(warm_up + sweeps):
        if sweep >= warm_up:
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(_mean_covariance(beams, noise)))
            pulled = inverse @ received @ inverse
            score = torch.stack(
                (
                    torch.sign(offset).sum(dim=-1) / scale,
                    _power_score(inverse, pulled, received, noise) * (snapshots / DB_PER_NEPER),
                ),
                dim=-1,
            )
            total += score
            squares += score.unsqueeze(-1) * score.unsqueeze(-2)
            signal = torch.eye(size, dtype=torch.float64) - noise[:, None, None] * inverse
            known += signal.square().sum(dim=(-2, -1)) * (snapshots / DB_PER_NEPER**2)
        if sweep + 1 < warm_up + sweeps:
            _sweep(generator, law, bearing_rad, noise, received, offset, beams)
    mean = total / sweeps
    return PathScores(mean, squares / sweeps - mean.unsqueeze(-1) * mean.unsqueeze(-2), known / sweeps)


def _sweep(
    generator: torch.Generator,
    law: ArrayLaw,
    bearing_rad: Tensor,
    noise: Tensor,
    received: Tensor,
    offset: Tensor,
    beams: Tensor,
) -> None:
    """Every path once; changes ``offset`` and ``beams``."""
    part, links = 1.0 / law.num_paths, torch.arange(len(offset))
    places, covariance = torch.arange(_CANDIDATES), _mean_covariance(beams, noise)
    for path in range(law.num_paths):
        beam = beams[:, path]
        covariance = covariance - part * beam.unsqueeze(-1) * beam.unsqueeze(-2)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        pulled = inverse @ received @ inverse
        step = torch.rand(len(offset), generator=generator, dtype=torch.float64)
        step = _LEAST_STEP * torch.exp(step * math.log(_MOST_STEP / _LEAST_STEP))
        here = torch.randint(_CANDIDATES, (len(offset), 1), generator=generator)
        found = offset[:, path, None] + (places - here) * step[:, None]
        tried = real_beams(_phase(law, bearing_rad, found), law.num_antennas)
        growth = 1.0 + part * ((tried @ inverse) * tried).sum(dim=-1)
        fit = part * ((tried @ pulled) * tried).sum(dim=-1) / growth
        uniform = torch.rand(growth.shape, generator=generator, dtype=torch.float64).clamp(_EDGE, 1.0 - _EDGE)
        # Gumbel's trick: the largest of these is a draw by the likelihood.
        likely = law.snapshots * (fit - torch.log(growth)) - found.abs()
        chosen = (likely - torch.log(-torch.log(uniform))).argmax(dim=-1)
        offset[:, path], beams[:, path] = found[links, chosen], tried[links, chosen]
        beam = beams[:, path]
        covariance = covariance + part * beam.unsqueeze(-1) * beam.unsqueeze(-2)


def _power_score(inverse: Tensor, pulled: Tensor, received: Tensor, noise: Tensor) -> Tensor:
    """Of one snapshot, by the logarithm of the signal's power: tr(W R_s W S) - tr(W R_s) with R_s = R - noise I."""
    trace, fit = _trace(inverse), (inverse * received).sum(dim=(-2, -1))
    return (fit - noise * _trace(pulled)) - (inverse.shape[-1] - noise * trace)


def _trace(matrix: Tensor) -> Tensor:
    return torch.diagonal(matrix, dim1=-2, dim2=-1).sum(dim=-1)


def _mean_covariance(beams: Tensor, noise: Tensor) -> Float[Tensor, "n L L"]:
    """Covariance for these path angles, over the power of the signal."""
    eye = torch.eye(beams.shape[-1], dtype=torch.float64)
    return beams.mT @ beams / beams.shape[-2] + noise[:, None, None] * eye


def _noise(snr_db: Tensor) -> Tensor:
    return torch.pow(10.0, -snr_db.double() / 10.0)


def _phase(law: ArrayLaw, bearing_rad: Tensor, offset: Tensor) -> Tensor:
    """Phase between neighbouring antennas of paths at these offsets."""
    angle = bearing_rad.double().unsqueeze(-1) + offset * (law.angular_spread_rad / math.sqrt(2.0))
    return 2.0 * math.pi * law.spacing_wavelengths * torch.cos(angle)
