"""Delay and angle of the first path of every link: from the LS channel alone, and near a believed place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.measurements.toa import TimingMeasurements
from cfpos_envs.physics.toa.model import TimingModel
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from cfpos_envs.physics.waveform import delay_response, subcarrier_frequencies_hz

from .channel_prior import LinkPrior, centred, scattering, steering

_BEAMS = 16
_GRID = 13
_WINDOW_STD = 3.0
# The fix may be worse than it says: look around by at least half a resolution cell.
_SMALLEST_STD_CELLS = 1 / 6
_SCORING_STEPS = 3
# A line of sight has at least this share of its expected power, and of that at the link's own first peak (-5 dB).
_PRESENT = 0.3
_LINKS_AT_A_TIME = 512


@dataclass(frozen=True)
class PathEstimate:
    """The first path of every link.

    Attributes:
        range_m: c times the delay.
        range_std_m: its deviation with the AP's clock error, ``noise_std_m`` without.
        cosine, cosine_std: cosine of the angle to the array axis.
        consistent: the path fits the believed position; else it is the link's own first peak.
    """

    range_m: Float[Tensor, "B M K"]
    range_std_m: Float[Tensor, "B M K"]
    noise_std_m: Float[Tensor, "B M K"]
    cosine: Float[Tensor, "B M K"]
    cosine_std: Float[Tensor, "B M K"]
    consistent: Bool[Tensor, "B M K"]


def path_gain(measurements: TimingMeasurements) -> Float[Tensor, "B M K"]:
    """Mean power beta of an entry of the response, from the known SNR: beta = SNR sigma^2 / (N P_t)."""
    return torch.pow(10.0, measurements.snr_db.double() / 10) / measurements.model.max_snr_linear


def beam_cosine(
    cfr: Complex[Tensor, "B M K N S"], model: TimingModel, delay_s: Float[Tensor, "B M K"]
) -> Float[Tensor, "B M K"]:
    """Cosine of the strongest beam at a delay: a 16 times oversampled DFT over the antennas and a parabola.

    Args:
        cfr: frequency responses.
        model: comb and array.
        delay_s: where to look.
    """
    delays = delay_response(delay_s, model.num_subcarriers, model.subcarrier_spacing_hz).conj()
    aligned = torch.einsum("...ns,...s->...n", cfr.to(delays.dtype), delays)
    bins = _BEAMS * model.num_antennas
    power = torch.fft.ifft(aligned, n=bins, dim=-1).abs().square()
    index = power.argmax(dim=-1, keepdim=True)
    left, top, right = (torch.gather(power, -1, (index + shift) % bins).squeeze(-1) for shift in (-1, 0, 1))
    bend = 2 * top - left - right
    offset = torch.where(bend > 0, 0.5 * (right - left) / bend.clamp(min=torch.finfo(bend.dtype).tiny), 0.0)
    share = (index.squeeze(-1) + offset.clamp(-0.5, 0.5)) / bins
    return (torch.remainder(share + 0.5, 1.0) - 0.5) / model.spacing_wavelengths


def refined_path(
    cfr: Complex[Tensor, "B M K N S"],
    model: TimingModel,
    prior: LinkPrior,
    own: PathEstimate,
    los_share: float,
    delay_spread_s: float,
) -> PathEstimate:
    """Maximum-likelihood delay and cosine of every link near its believed place, scattered paths counted as noise.

    The likelihood of one path s = a(c) x d(tau) is |s^H Q^-1 H|^2 / (s^H Q^-1 s) with Q = v I + beta (1 - pi) I x C_s.
    Since Q^-1 H = (H - C_s-part of the MMSE channel) / v, this is the matched filter on the channel without its
    estimated scattering. Best point of a grid, then Fisher scoring. A link whose power there is far below that at its
    own first peak has no line of sight there and keeps its own estimate.

    Args:
        cfr: least-squares responses.
        model: comb, array, noise.
        prior: believed places, widths and gains; its own share is not used: whether there is a path is asked anew.
        own: the links' own estimates.
        los_share: pi, in (0, 1].
        delay_spread_s: RMS delay spread of the scattered paths.
    """
    shape = prior.delay_s.shape
    fields = [getattr(prior, name).reshape(-1).double() for name in LinkPrior.__dataclass_fields__]
    own_delay, own_cosine = own.range_m.reshape(-1) / SPEED_OF_LIGHT_M_S, own.cosine.reshape(-1)
    links = cfr.reshape(-1, *cfr.shape[-2:])
    pieces = []
    for low in range(0, len(links), _LINKS_AT_A_TIME):
        part = slice(low, low + _LINKS_AT_A_TIME)
        chosen = [field[part] for field in (*fields, own_delay, own_cosine)]
        pieces.append(_refined(links[part].to(torch.complex128), model, chosen, los_share, delay_spread_s))
    delay, delay_std, cosine, cosine_std, present = (torch.cat(column).reshape(shape) for column in zip(*pieces))
    present = present & own.consistent
    return PathEstimate(
        torch.where(present, SPEED_OF_LIGHT_M_S * delay, own.range_m),
        own.range_std_m,
        torch.where(present, SPEED_OF_LIGHT_M_S * delay_std, own.noise_std_m),
        torch.where(present, cosine, own.cosine),
        torch.where(present, cosine_std, own.cosine_std),
        present,
    )


def scattered_delay_std_s(
    model: TimingModel, gain: Float[Tensor, "*batch"], los_share: float, delay_spread_s: float
) -> Float[Tensor, "*batch"]:
    """Deviation of an efficient delay estimate in line of sight with scattered paths behind it, seconds.

    The bound of ``refined_path``; without scattered paths 1 / sqrt(8 pi^2 beta_rms^2 SNR).

    Args:
        model: comb, array, noise.
        gain: mean power of an entry of the response.
        los_share: share of the line of sight in it, in (0, 1].
        delay_spread_s: RMS delay spread of the scattered paths.
    """
    flat = gain.reshape(-1).double()
    nothing = torch.zeros_like(flat)
    likelihood = _Likelihood(None, model, flat * (1 - los_share), nothing, nothing, delay_spread_s)
    information, _ = likelihood.information(nothing, flat * los_share)
    return information.clamp(min=1e-300).rsqrt().reshape(gain.shape)


def _refined(
    cfr: Tensor, model: TimingModel, fields: list[Tensor], los_share: float, delay_spread_s: float
) -> tuple[Tensor, ...]:
    gain, _, delay, delay_std, cosine, cosine_std, _, own_delay, own_cosine = fields
    cell = 1 / model.bandwidth_hz
    likelihood = _Likelihood(cfr, model, gain * (1 - los_share), delay, cosine, delay_spread_s)
    grid = torch.linspace(-_WINDOW_STD, _WINDOW_STD, _GRID, dtype=gain.dtype, device=gain.device)
    shifts = grid * delay_std.clamp(min=_SMALLEST_STD_CELLS * cell).unsqueeze(-1)
    turns = grid * cosine_std.clamp(
        min=_SMALLEST_STD_CELLS / (model.num_antennas * model.spacing_wavelengths)
    ).unsqueeze(-1)
    turns = turns * (model.num_antennas > 1)
    turn = torch.zeros_like(delay)
    # The cosine hardly depends on the delay and the reverse: one after the other is enough.
    shift = _best_of(shifts, likelihood.values(shifts, turn.unsqueeze(-1).expand_as(shifts)))
    turn = _best_of(turns, likelihood.values(shift.unsqueeze(-1).expand_as(turns), turns))
    shift = _best_of(shifts, likelihood.values(shifts, turn.unsqueeze(-1).expand_as(shifts)))
    for _ in range(_SCORING_STEPS):
        delay_step, turn_step = likelihood.scoring_step(shift, turn)
        shift = shift + delay_step.clamp(-cell / 4, cell / 4)
        turn = turn + turn_step.clamp(-0.25 / model.num_antennas, 0.25 / model.num_antennas) * (model.num_antennas > 1)
    power, energy = (part.squeeze(-1) for part in likelihood.parts(shift.unsqueeze(-1), turn.unsqueeze(-1)))
    own = likelihood.values((own_delay - delay).unsqueeze(-1), (own_cosine - cosine).unsqueeze(-1)).squeeze(-1)
    expected = gain * los_share * energy
    delay_information, cosine_information = likelihood.information(shift, gain * los_share)
    return (
        delay + shift,
        delay_information.clamp(min=1e-300).rsqrt(),
        cosine + turn,
        cosine_information.clamp(min=1e-12).rsqrt(),
        power >= _PRESENT * torch.maximum(own, expected),
    )


class _Likelihood:
    """Likelihood of one path per link around its believed place, with scattered paths as coloured noise."""

    def __init__(
        self,
        cfr: Tensor | None,
        model: TimingModel,
        scattered_gain: Tensor,
        delay: Tensor,
        cosine: Tensor,
        spread_s: float,
    ) -> None:
        self.model = model
        behind = scattering(model.num_subcarriers, model.subcarrier_spacing_hz, spread_s)
        self.vectors, noise = behind.vectors, model.cfr_noise_variance
        self.shrink = scattered_gain.unsqueeze(-1) * behind.values
        self.shrink = self.shrink / (self.shrink + noise)
        if cfr is not None:
            self.whitened = self._whiten(centred(cfr, cosine, delay, model))
        self.omega = 2 * math.pi * subcarrier_frequencies_hz(model.num_subcarriers, model.subcarrier_spacing_hz)
        self.index = torch.arange(model.num_antennas, dtype=torch.float64, device=delay.device)
        self.index = self.index - (model.num_antennas - 1) / 2

    def _whiten(self, values: Tensor) -> Tensor:
        """Q^-1 of [L, n, S]."""
        inside = (values @ self.vectors.conj()) * self.shrink.unsqueeze(-2)
        return (values - inside @ self.vectors.mT) / self.model.cfr_noise_variance

    def values(self, shift_s: Tensor, turn: Tensor) -> Tensor:
        """|s^H Q^-1 H|^2 / (s^H Q^-1 s) at [L, G] shifts and turns."""
        return self.parts(shift_s, turn)[0]

    def parts(self, shift_s: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """The same and its denominator, the energy of a whitened path of unit gain."""
        delays = delay_response(shift_s, self.model.num_subcarriers, self.model.subcarrier_spacing_hz)
        matched = torch.einsum("lns,lgs,lgn->lg", self.whitened, delays.conj(), steering(turn, self.model).conj())
        inside = (delays @ self.vectors.conj()).abs().square() * self.shrink.unsqueeze(-2)
        energy = self.model.num_subcarriers - inside.sum(dim=-1)
        energy = energy * (self.model.num_antennas / self.model.cfr_noise_variance)
        return matched.abs().square() / energy, energy

    def scoring_step(self, shift_s: Tensor, turn: Tensor) -> tuple[Tensor, Tensor]:
        """One step of Fisher scoring in delay and cosine with the amplitude at its best."""
        delays = delay_response(shift_s, self.model.num_subcarriers, self.model.subcarrier_spacing_hz)
        beams, slopes = steering(turn, self.model), -1j * self.omega * delays
        whitened = self._whiten(torch.stack((delays, slopes), dim=1))
        energy = (delays.conj() * whitened[:, 0]).sum(dim=-1).real
        mixed, steep = ((slopes.conj() * whitened[:, i]).sum(dim=-1) for i in (0, 1))
        antennas = self.model.num_antennas
        per_antenna = torch.einsum("lns,ls->ln", self.whitened, delays.conj())
        matched = (beams.conj() * per_antenna).sum(dim=-1)
        amplitude = matched / (antennas * energy)
        slope = torch.einsum("lns,ls,ln->l", self.whitened, slopes.conj(), beams.conj())
        score = 2 * (amplitude.conj() * (slope - amplitude * antennas * mixed)).real
        power = amplitude.abs().square().clamp(min=1e-300)
        curvature = 2 * power * antennas * (steep.real - mixed.abs().square() / energy)
        turned = 2 * math.pi * self.model.spacing_wavelengths * self.index
        turn_score = 2 * (amplitude.conj() * (1j * turned * beams.conj() * per_antenna).sum(dim=-1)).real
        turn_curvature = 2 * power * energy * turned.square().sum()
        return score / curvature.clamp(min=1e-300), turn_score / turn_curvature.clamp(min=1e-300)

    def information(self, shift_s: Tensor, power: Tensor) -> tuple[Tensor, Tensor]:
        """Fisher information of delay (1/s^2) and cosine for a path of the given mean power."""
        delays = delay_response(shift_s, self.model.num_subcarriers, self.model.subcarrier_spacing_hz)
        slopes = -1j * self.omega * delays
        whitened = self._whiten(torch.stack((delays, slopes), dim=1))
        energy = (delays.conj() * whitened[:, 0]).sum(dim=-1).real
        mixed, steep = ((slopes.conj() * whitened[:, i]).sum(dim=-1) for i in (0, 1))
        turned = 2 * math.pi * self.model.spacing_wavelengths * self.index
        common = 2 * power * self.model.num_antennas
        return common * (steep.real - mixed.abs().square() / energy), 2 * power * energy * turned.square().sum()


def _best_of(candidates: Tensor, values: Tensor) -> Tensor:
    return torch.gather(candidates, -1, values.argmax(dim=-1, keepdim=True)).squeeze(-1)
