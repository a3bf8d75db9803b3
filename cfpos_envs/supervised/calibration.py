"""An uncertainty one can believe: covariances and regions of learned positions, calibrated on places set aside.

A network's own probabilities are no uncertainty. Places that it has not been trained on teach how large its errors are
beside the signs of doubt (``error_scales``); other such places then measure the radii within which half and nine tenths
of the truths lie (``conformal``), whatever is wrong with what was learned before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfpos_envs.checkpoints import State
from cfpos_envs.measurements.base import Rows
from cfpos_envs.measurements.regions import LEVELS, gaussian_radii
from cfpos_envs.streams import derive_seed
from cfpos_envs.supervised.beliefs import Answers
from cfpos_envs.supervised.conformal import conformal_radius
from cfpos_envs.supervised.data import Batch, Pool
from cfpos_envs.supervised.error_scales import ErrorScales, fit_error_scales
from cfpos_envs.supervised.heads import Area
from cfpos_envs.supervised.layers import mlp

LEAST_PLACES = 200
"""Places set aside below which nothing is learned: the 90 % region then holds 87 to 93 % of the truths on average over
sets of that size (its standard deviation is 3 points with the 80 places that measure radii)."""
_BATCH = 1024
_PLACE_NUMBERS = 3
"""How many the last signs of doubt are, the answer itself; the flags of the links stand before them."""
_RARE = 0.01
"""Share of the places that are heard by so few stations that errors there have not been learned."""
_MEASURED = 0.4
"""Share of the places that measures radii; the others teach covariances."""
_DAMAGED = "the file's calibration is damaged; learn it again by calibrate, or load another file."
_LEAST_RADIUS = 1e-6
"""Of a region, in standard deviations before they are scaled."""


@dataclass(frozen=True)
class Stated(Rows):
    """What is stated of S answers.

    Attributes:
        covariance_m2: symmetric, positive definite; the 90 % ellipsoid of a Gaussian of this covariance holds nine
            tenths of the truths.
        radii: of the regions of ``LEVELS``, in units of that covariance: the region is
            (p - answer)' C^-1 (p - answer) <= radius^2.
    """

    covariance_m2: Float[Tensor, "S 3 3"]
    radii: Float[Tensor, "S levels"]


@dataclass(frozen=True)
class Calibration:
    """What places set aside have taught.

    Attributes:
        scales: covariances up to a factor.
        factor: of all covariances.
        radii: see ``Stated``.
        places: set aside for it.
        fewest: stations that nearly all of them are heard by; files of the builds before do not say, 0.
    """

    scales: ErrorScales
    factor: float
    radii: tuple[float, ...]
    places: int
    fewest: int = 0

    def heard_share(self, num_bs: int) -> Float[Tensor, " L"]:
        """Share of the places that every one of L stations hears: the mean of the flags among the signs of doubt."""
        return self.scales.mean[-_PLACE_NUMBERS - num_bs : -_PLACE_NUMBERS]

    def check_serves(self, num_doubts: int, num_bs: int) -> None:
        """ValueError if it was learned from answers of another head, or of another number of stations.

        Args:
            num_doubts: of the head, see ``Head.num_doubts``.
            num_bs: L.
        """
        there, here = len(self.scales.mean), num_doubts + 2 * num_bs + _PLACE_NUMBERS
        if there == here and self.fewest > num_bs:
            raise ValueError(_DAMAGED)
        if there != here:
            raise ValueError(
                f"the file's calibration is of another head or network: it reads {there} signs of doubt, the answers "
                f"of this one ({num_bs} base stations) have {here}; learn it again by calibrate."
            )

    def states(self, answers: Answers, area: Area) -> Stated:
        """Covariances and radii of answers.

        Args:
            answers: of the network that the calibration belongs to.
            area: of its training.
        """
        covariance = self.factor * self.scales.covariance_m2(signs_of_doubt(answers, area))
        radii = covariance.new_tensor(self.radii).expand(len(covariance), -1)
        return Stated(covariance.to(answers.belief.position_m.dtype), radii.to(answers.belief.position_m.dtype))

    def state(self) -> State:
        """Tensors and plain values, as files hold them."""
        scales = self.scales
        return {
            "mean": scales.mean.clone(),
            "deviation": scales.deviation.clone(),
            "scale_m": scales.scale_m,
            "network": {name: value.clone() for name, value in scales.network.state_dict().items()},
            "factor": self.factor,
            "radii": list(self.radii),
            "places": self.places,
            "fewest": self.fewest,
        }

    @classmethod
    def restored(cls, state: State) -> Calibration:
        """From ``state``.

        Raises:
            ValueError: it is damaged: entries are missing, of sizes that do not belong together, or state nothing.
        """
        try:
            made: Calibration | None = cls._of(state)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError, RuntimeError):
            made = None
        if made is None or not made._means_something():
            raise ValueError(_DAMAGED)
        return made

    @classmethod
    def _of(cls, state: State) -> Calibration:
        weights = [value for name, value in state["network"].items() if name.endswith("weight")]
        sizes = (weights[0].shape[1], *(len(weight) for weight in weights))
        network = mlp(sizes, torch.Generator().manual_seed(0)).requires_grad_(False)
        network.load_state_dict(state["network"])
        scales = ErrorScales(state["mean"], state["deviation"], float(state["scale_m"]), network)
        radii, places = tuple(map(float, state["radii"])), int(state["places"])
        return cls(scales, float(state["factor"]), radii, places, int(state.get("fewest", 0)))

    def _means_something(self) -> bool:
        """Whether enough places taught it, its regions grow and covariances of its inputs are finite and positive."""
        scales = self.scales
        if self.places < LEAST_PLACES or self.fewest < 0:
            return False
        if len(self.radii) != len(LEVELS) or scales.mean.shape != scales.deviation.shape or scales.mean.dim() != 1:
            return False
        positive = (self.factor, scales.scale_m, *self.radii, *scales.deviation.tolist())
        if not all(0 < value < math.inf for value in positive) or list(self.radii) != sorted(self.radii):
            return False
        try:
            covariance = scales.covariance_m2(scales.mean.unsqueeze(0))
        except RuntimeError:
            return False
        return bool(torch.isfinite(covariance).all())


def stored_calibration(state: State, num_doubts: int, num_bs: int) -> Calibration | None:
    """What a network's file holds of its errors, looked through; None where it holds nothing.

    Args:
        state: of the file.
        num_doubts, num_bs: of the network, see ``Calibration.check_serves``.

    Raises:
        ValueError: it is damaged, or of another network.
    """
    stored = state.get("calibration")
    if stored is None:
        return None
    made = Calibration.restored(stored)
    made.check_serves(num_doubts, num_bs)
    return made


@runtime_checkable
class Answering(Protocol):
    """A trained network."""

    def answers(self, batch: Batch) -> Answers:
        """Positions and what is known of their errors."""


def calibrate_network(network: Answering, held: Pool, area: Area, seed: int) -> Calibration:
    """``learn_calibration`` for a network and snapshots at places that it has not been trained on.

    Args:
        network: in evaluation mode.
        held: one snapshot per place.
        area: of its training.
        seed: of the error network.

    Raises:
        ValueError: too few places.
    """
    return learn_calibration(answers_of(network, held), held.position_m, area, seed)


@torch.no_grad()
def answers_of(network: Answering, pool: Pool) -> Answers:
    """Answers to all snapshots of a pool, on the processor."""
    parts = [slice(low, low + _BATCH) for low in range(0, len(pool), _BATCH)]
    answered = [network.answers(pool.batch(part).to(_device_of(network))).to("cpu") for part in parts]
    return Answers.joined(answered)


def _device_of(network: Answering) -> torch.device:
    assert isinstance(network, nn.Module)
    return next(network.parameters()).device


def signs_of_doubt(answers: Answers, area: Area) -> Float[Tensor, "S F"]:
    """What covariances are learned from: the read-out's doubts, gains and flags of the links, the answer itself.

    Args:
        answers: of a network.
        area: whose size is the unit of places.
    """
    valid = answers.valid.to(answers.log_gain.dtype)
    place = (answers.belief.position_m - answers.log_gain.new_tensor(area.centre_m)) / area.scale_m
    return torch.cat((answers.belief.doubts, answers.log_gain * valid, valid, place), dim=-1)


def learn_calibration(answers: Answers, position_m: Float[Tensor, "S 3"], area: Area, seed: int) -> Calibration:
    """Learn from places set aside what the errors of a network are like.

    Covariances are learned from the first places, the radii of ``LEVELS`` are measured on the others. The factor makes
    the 90 % ellipsoid of a Gaussian hold nine tenths of the truths; errors have heavier tails than that, so that the
    ellipsoid of 50 % would hold more than half: its radius is stated apart.

    Args:
        answers: to snapshots at these places.
        position_m: of the truth.
        area: of the network's training.
        seed: of the error network.

    Raises:
        ValueError: fewer than ``LEAST_PLACES``.
    """
    check_places(len(position_m))
    learned = len(position_m) - int(_MEASURED * len(position_m))
    inputs, error_m = signs_of_doubt(answers, area), answers.belief.position_m - position_m
    generator = torch.Generator().manual_seed(derive_seed(seed, "calibration"))
    scales = fit_error_scales(inputs[:learned], error_m[:learned], generator)
    squared = mahalanobis_squared(error_m[learned:], scales.covariance_m2(inputs[learned:]))
    measured = [conformal_radius(squared.sqrt(), level) for level in LEVELS]
    # Answers without any error have regions too.
    measured = [max(radius, _LEAST_RADIUS) for radius in measured]
    unit = measured[-1] / float(gaussian_radii(error_m.shape[1])[-1])
    radii, heard = tuple(radius / unit for radius in measured), answers.valid.sum(dim=1)
    fewest = int(heard.sort().values[int(_RARE * len(heard))])
    return Calibration(scales, unit**2, radii, len(position_m), fewest)


def check_places(count: int, tenth: bool = False) -> None:
    """ValueError if so many places set aside are too few to learn from; ``tenth``: see ``too_few_places``."""
    said = too_few_places(count, tenth)
    if said:
        raise ValueError(said)


def too_few_places(count: int, tenth: bool = False) -> str:
    """Why so many places set aside teach nothing, and what to do; empty where they are enough.

    Args:
        count: of places.
        tenth: they are all that may be set aside, a tenth of those of training.
    """
    if count >= LEAST_PLACES:
        return ""
    more = f", a tenth of {10 * LEAST_PLACES} or more to train on" if tenth else ""
    return f"{count} places set aside are too few to calibrate an uncertainty; at least {LEAST_PLACES}{more}."


def mahalanobis_squared(error_m: Float[Tensor, "S D"], covariance_m2: Float[Tensor, "S D D"]) -> Float[Tensor, " S"]:
    """Squared Mahalanobis length e' C^-1 e, in double precision.

    Args:
        error_m: e.
        covariance_m2: C, positive definite.
    """
    error = error_m.double().unsqueeze(-1)
    return (error * torch.linalg.solve(covariance_m2.double(), error)).sum(dim=(-2, -1))
