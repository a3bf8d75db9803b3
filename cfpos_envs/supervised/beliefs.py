"""What a network's read-out says of its own errors, before anything is calibrated: spreads and signs of doubt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfpos_envs.measurements.base import Rows

DOUBTS_PER_AXIS = 5
"""How many numbers ``axis_doubts`` makes."""
_LEAST_SHARE = 1e-6
"""Probabilities and spreads below this one, in bins, say no more."""


@dataclass(frozen=True)
class Belief(Rows):
    """S predictive distributions.

    Attributes:
        position_m: what is answered.
        covariance_m2: second moment around the answer under the network's own probabilities; None: it states none.
        doubts: numbers of any meaning that tell sure answers from unsure ones.
    """

    position_m: Float[Tensor, "S 3"]
    covariance_m2: Float[Tensor, "S 3 3"] | None
    doubts: Float[Tensor, "S doubts"]


@dataclass(frozen=True)
class Answers(Rows):
    """What the central unit answers to S snapshots, and what it has to judge the answers by.

    Attributes:
        belief: answers.
        log_gain: standardised, as received; what an invalid link holds means nothing.
        valid: links with a path whose message arrived.
    """

    belief: Belief
    log_gain: Float[Tensor, "S L"]
    valid: Bool[Tensor, "S L"]


def axis_moments(
    probability: Float[Tensor, "*batch K"], centres_m: Float[Tensor, " K"], answer_m: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch"]:
    """sum_i p_i (c_i - a)^2: second moment of a distribution over bins around an answer.

    Args:
        probability: p, of sum 1.
        centres_m: c, of the bins.
        answer_m: a.
    """
    return (probability * (centres_m - answer_m.unsqueeze(-1)).square()).sum(dim=-1)


def axis_doubts(
    logits: Float[Tensor, "*batch K"],
    centres_m: Float[Tensor, " K"],
    answer_m: Float[Tensor, "*batch"],
    width_m: float,
    near_bins: float,
) -> Float[Tensor, "*batch 5"]:
    """How unsure a distribution over bins is, on logarithmic scales and in units of bins.

    Spread within ``near_bins`` of the answer, spread in all, entropy, probability of everything farther away, largest
    probability of a bin there (a second mode).

    Args:
        logits: of the bins.
        centres_m: of the bins.
        answer_m: what is answered.
        width_m: of a bin.
        near_bins: how far the answer's own mode reaches.
    """
    log_probability = torch.log_softmax(logits, dim=-1)
    probability = log_probability.exp()
    near = (centres_m - answer_m.unsqueeze(-1)).abs() <= (near_bins + 0.5) * width_m
    own = probability * near
    own_mass = own.sum(dim=-1).clamp(min=_LEAST_SHARE)
    own_spread = (axis_moments(own, centres_m, answer_m) / own_mass).sqrt() / width_m
    spread = axis_moments(probability, centres_m, answer_m).sqrt() / width_m
    entropy = -(probability * log_probability).sum(dim=-1)
    other = probability.masked_fill(near, 0.0)
    positive = torch.stack((own_spread, spread, other.sum(dim=-1), other.amax(dim=-1)), dim=-1)
    logs = positive.clamp(min=_LEAST_SHARE).log()
    return torch.cat((logs, entropy.unsqueeze(-1)), dim=-1)


def diagonal_m2(variances_m2: Sequence[Float[Tensor, "*batch"]]) -> Float[Tensor, "*batch 3 3"]:
    """Covariance of axes that know nothing of each other."""
    return torch.diag_embed(torch.stack(list(variances_m2), dim=-1))
