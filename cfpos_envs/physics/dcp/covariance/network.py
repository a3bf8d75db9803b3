"""A small network that reads links, learned from simulated single links of the same array and scattering.

It learns what one array sees of one user in some direction at some SNR: no position and no site enters, so that it
holds wherever such arrays stand.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from cfpos_envs.physics.dcp.channel import channel_covariance, draw_sample_covariance, path_angles
from cfpos_envs.physics.dcp.covariance import kernel
from cfpos_envs.physics.dcp.covariance.moments import (
    LEAST_SNR_DB,
    MOST_SNR_DB,
    LinkMoments,
    array_tables,
    link_moments,
)
from cfpos_envs.physics.dcp.covariance.readings import LinkReadings
from cfpos_envs.physics.dcp.model import RadioModel

_TRAINED = Path(__file__).resolve().parent / "trained"
_FEATURE_LIMIT = 4.0
_LOG_STD_LIMIT = 4.0
_TAIL = 10.0
"""Degrees of freedom of the errors that the network is fitted under."""
_BEARING_UNIT_RAD = math.radians(2.0)
_POWER_UNIT_DB = 0.3
_WITHIN_ONE = math.erf(math.sqrt(0.5))
"""Share of Gaussian errors within one standard deviation."""
_HELD_OUT_SHARE = 0.2
"""As many links again, that the deviations are scaled by."""
_LINKS_AT_A_TIME = 20_000


@dataclass(frozen=True)
class ArrayLaw:
    """What decides what one array sees of one user: the key of its network.

    Attributes:
        num_antennas, spacing_wavelengths: the linear array; at least two antennas.
        angular_spread_rad, num_paths: Laplacian standard deviation of the paths around the user's direction, and their
            number.
        snapshots: over how many a covariance is averaged.
    """

    num_antennas: int
    spacing_wavelengths: float
    angular_spread_rad: float
    num_paths: int
    snapshots: int

    @classmethod
    def of(cls, radio: RadioModel) -> ArrayLaw:
        """That of a radio, whose other constants do not matter."""
        return cls(
            radio.num_antennas, radio.spacing_wavelengths, radio.angular_spread_rad, radio.num_paths, radio.snapshots
        )


@dataclass(frozen=True)
class LearningSettings:
    """How a network is learned.

    Attributes:
        links: simulated ones.
        epochs, batch_size, lr: passes over them, links per step, highest learning rate of Adam; it rises and falls.
        width: of the two hidden layers.
        seed: of weights, links and their order.
    """

    links: int = 40_000
    epochs: int = 14
    batch_size: int = 500
    lr: float = 4e-3
    width: int = 64
    seed: int = 0


@dataclass(frozen=True)
class LinkNetwork:
    """Two hidden layers on the moments of a link.

    Attributes:
        mean, scale: of the features of the links that it learned from.
        weights, biases: of its three layers; four outputs: bearing minus beam, mean power minus measured power,
            and the logarithms of their deviations.
        widening: factors on both deviations that make two thirds of the errors of held-out links smaller than one.
    """

    mean: Float[Tensor, " F"]
    scale: Float[Tensor, " F"]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    widening: Float[Tensor, "2"]

    def outputs(self, values: Float[Tensor, "N F"]) -> Float[Tensor, "N 4"]:
        """Estimates and logarithms of deviations in their units, for upright links."""
        signal = ((values - self.mean) / self.scale).clamp(-_FEATURE_LIMIT, _FEATURE_LIMIT)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1]):
            signal = torch.nn.functional.silu(torch.addmm(bias, signal, weight))
        return torch.addmm(self.biases[-1], signal, self.weights[-1])

    def read(self, moments: LinkMoments) -> LinkReadings:
        """Readings [N] of links by their moments."""
        with torch.no_grad():
            return self.readings(self.outputs(moments.values), moments.beam_rad, moments.mirrored)

    def readings(
        self, outputs: Float[Tensor, "N 4"], beam_rad: Float[Tensor, " N"], mirrored: Bool[Tensor, " N"]
    ) -> LinkReadings:
        """Readings [N] from what ``outputs`` gives for links with these beams."""
        shift, log_std = outputs.split(2, dim=-1)
        std = log_std.clamp(-_LOG_STD_LIMIT, _LOG_STD_LIMIT).exp() * self.widening
        turn = torch.where(mirrored, -shift[:, 0], shift[:, 0]) * _BEARING_UNIT_RAD
        return LinkReadings(
            (beam_rad + turn).clamp(0.0, math.pi),
            std[:, 0] * _BEARING_UNIT_RAD,
            shift[:, 1] * _POWER_UNIT_DB,
            std[:, 1] * _POWER_UNIT_DB,
        )

    def to(self, device: torch.device) -> LinkNetwork:
        """The same on another device."""
        return LinkNetwork.of_state({name: value.to(device) for name, value in self.state().items()})

    def state(self) -> dict[str, Tensor]:
        """Tensors by name, for ``torch.save``."""
        layers = {f"weight{i}": w for i, w in enumerate(self.weights)} | {
            f"bias{i}": b for i, b in enumerate(self.biases)
        }
        return {"mean": self.mean, "scale": self.scale, "widening": self.widening, **layers}

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> LinkNetwork:
        """The network that ``state`` gave."""
        layers = range(sum(name.startswith("weight") for name in state))
        weights, biases = (tuple(state[f"{kind}{index}"] for index in layers) for kind in ("weight", "bias"))
        return cls(state["mean"], state["scale"], weights, biases, state["widening"])


@dataclass(frozen=True)
class SimulatedLinks:
    """Single links with their truth.

    Attributes:
        covariance: sample covariances.
        snr_db: measured: of signal and noise over the noise.
        bearing_rad: true direction to the array's axis, in [0, pi].
        correction_db: mean power over the fading minus the measured one.
    """

    covariance: Complex[Tensor, "N L L"]
    snr_db: Float[Tensor, " N"]
    bearing_rad: Float[Tensor, " N"]
    correction_db: Float[Tensor, " N"]


def simulate_links(
    generator: torch.Generator,
    law: ArrayLaw,
    count: int,
    snr_db: tuple[float, float] = (LEAST_SNR_DB, MOST_SNR_DB),
    bearing_rad: tuple[float, float] = (0.0, math.pi),
) -> SimulatedLinks:
    """Links with directions and, in dB, SNR per antenna uniform between limits, by eqs. (1) to (3).

    Args:
        generator: source of randomness.
        law: array and scattering.
        count: N.
        snr_db, bearing_rad: lowest and highest SNR and direction.
    """
    bearing = bearing_rad[0] + (bearing_rad[1] - bearing_rad[0]) * torch.rand(count, generator=generator)
    level = snr_db[0] + (snr_db[1] - snr_db[0]) * torch.rand(count, generator=generator)
    angles = path_angles(generator, bearing, law.num_paths, law.angular_spread_rad).double()
    noise = torch.pow(10.0, -level.double() / 10.0)
    mean = channel_covariance(angles, torch.ones_like(noise), law.num_antennas, law.spacing_wavelengths)
    mean = mean + noise[:, None, None] * torch.eye(law.num_antennas)
    covariance = draw_sample_covariance(generator, mean, law.snapshots, torch.complex64)
    power = torch.diagonal(covariance, dim1=-2, dim2=-1).real.sum(dim=-1).double() / law.num_antennas
    measured_db, mean_db = 10.0 * torch.log10(power), 10.0 * torch.log10(1.0 + noise)
    return SimulatedLinks(
        covariance,
        (measured_db - 10.0 * torch.log10(noise)).float(),
        bearing,
        (mean_db - measured_db).float(),
    )


def learn_links(law: ArrayLaw, settings: LearningSettings | None = None) -> LinkNetwork:
    """Learn to read the links of an array: seconds of one core.

    The negative log-likelihood of both errors under Student's t with 10 degrees of freedom is minimised by Adam; links
    that were held out then set the scale of the stated deviations.

    Args:
        law: array and scattering.
        settings: None takes the defaults.
    """
    settings = settings or LearningSettings()
    # Whoever asks for an estimate may have switched gradients off.
    with torch.inference_mode(False), torch.enable_grad():
        generator = torch.Generator().manual_seed(settings.seed)
        values, wanted = _examples(generator, law, settings.links)
        network = _untrained(generator, values, settings.width)
        parameters = [parameter.requires_grad_() for parameter in (*network.weights, *network.biases)]
        steps = settings.epochs * len(values.split(settings.batch_size))
        optimiser = torch.optim.Adam(parameters, lr=settings.lr)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.lr, total_steps=steps)
        for _ in range(settings.epochs):
            for batch in torch.randperm(len(values), generator=generator).split(settings.batch_size):
                loss = _negative_log_likelihood(network.outputs(values[batch]), wanted[batch]).mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                rate.step()
        for parameter in parameters:
            parameter.requires_grad_(False)
        values, wanted = _examples(generator, law, max(1, round(_HELD_OUT_SHARE * settings.links)))
        shift, log_std = network.outputs(values).split(2, dim=-1)
        size = (wanted - shift).abs() / log_std.clamp(-_LOG_STD_LIMIT, _LOG_STD_LIMIT).exp()
        return dataclasses.replace(network, widening=size.quantile(_WITHIN_ONE, dim=0))


@functools.lru_cache(maxsize=32)
def link_network(law: ArrayLaw, training: bool = True) -> LinkNetwork:
    """The network of an array: the one that comes along, or one learned now and kept while the process lasts.

    Args:
        law: array and scattering.
        training: whether a missing one may be learned.

    Raises:
        ValueError: there is none, and none may be learned.
    """
    path = shipped_path(law)
    if path.is_file():
        return LinkNetwork.of_state(torch.load(path, map_location="cpu", weights_only=True))
    if not training:
        raise ValueError(
            f"no link network for {law.num_antennas} antennas {law.spacing_wavelengths:g} wavelengths apart, "
            f"{math.degrees(law.angular_spread_rad):.3g} degrees of spread, {law.num_paths} paths and "
            f"{law.snapshots} snapshots comes along; allow training, which takes seconds, or use links=likelihood"
        )
    return learn_links(law)


def shipped_path(law: ArrayLaw) -> Path:
    """Where the network of an array lies, if it comes along."""
    spread = round(math.degrees(law.angular_spread_rad), 3)
    name = f"L{law.num_antennas}-d{law.spacing_wavelengths:g}-s{spread:g}-N{law.num_paths}-T{law.snapshots}"
    return _TRAINED / f"{name}.pt"


def network_readings(
    covariance: Complex[Tensor, "*batch L L"], snr_db: Float[Tensor, "*batch"], law: ArrayLaw, training: bool = True
) -> LinkReadings:
    """Readings of links by the network of their array.

    Args:
        covariance: R of the channel estimate, positive semidefinite and not zero.
        snr_db: of signal and noise over the noise, as measured.
        law: array and scattering.
        training: whether a missing network may be learned.

    Raises:
        ValueError: see ``link_network``.
    """
    network, batch = link_network(law, training).to(covariance.device), covariance.shape[:-2]
    links, level = covariance.flatten(0, -3), snr_db.flatten()
    if not kernel.serves(links):
        return network.read(link_moments(links, level, law.spacing_wavelengths)).view(batch)
    tables = kernel.NetworkTables(network.mean, network.scale, _FEATURE_LIMIT, network.weights, network.biases)
    array = array_tables(law.num_antennas, law.spacing_wavelengths)
    outputs, beam = kernel.compiled_outputs(links, level, array, tables)
    return network.readings(outputs, beam, beam > math.pi / 2).view(batch)


def _examples(generator: torch.Generator, law: ArrayLaw, count: int) -> tuple[Tensor, Tensor]:
    """Features [count, F] of simulated links and what is to be read from them, in its units, [count, 2]."""
    values, wanted = [], []
    for low in range(0, count, _LINKS_AT_A_TIME):
        links = simulate_links(generator, law, min(_LINKS_AT_A_TIME, count - low))
        moments = link_moments(links.covariance, links.snr_db, law.spacing_wavelengths)
        turn = links.bearing_rad - moments.beam_rad
        turn = torch.where(moments.mirrored, -turn, turn) / _BEARING_UNIT_RAD
        values.append(moments.values)
        wanted.append(torch.stack((turn, links.correction_db / _POWER_UNIT_DB), dim=-1))
    return torch.cat(values), torch.cat(wanted)


def _untrained(generator: torch.Generator, values: Tensor, width: int) -> LinkNetwork:
    sizes = (values.shape[-1], width, width, 4)
    weights = tuple(
        torch.randn(below, above, generator=generator) / math.sqrt(below) for below, above in itertools.pairwise(sizes)
    )
    biases = tuple(torch.zeros(size) for size in sizes[1:])
    # Small outputs: it starts from the beam and the measured power.
    weights[-1].mul_(0.1)
    scale = values.std(dim=0).clamp(min=1e-6)
    return LinkNetwork(values.mean(dim=0), scale, weights, biases, torch.ones(2))


def _negative_log_likelihood(outputs: Tensor, wanted: Tensor) -> Tensor:
    shift, log_std = outputs.split(2, dim=-1)
    log_std = log_std.clamp(-_LOG_STD_LIMIT, _LOG_STD_LIMIT)
    z = (wanted - shift) * torch.exp(-log_std)
    return log_std + 0.5 * (_TAIL + 1.0) * torch.log1p(z.square() / _TAIL)
