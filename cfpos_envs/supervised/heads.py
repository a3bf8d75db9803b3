"""How a network states a position: three numbers, or probabilities over bins along every axis.

Bins say what three numbers cannot: two places that explain the messages equally well stay two places. The same network
learns them many times faster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfpos_envs.supervised.beliefs import DOUBTS_PER_AXIS, Belief, axis_doubts, axis_moments, diagonal_m2

HEADS = ("regression", "bins")
MARGIN_BINS = 4
"""Bins beyond the area on each side."""
_MODE_BINS = 4
"""A position is the mean of the probabilities this near to the largest one."""
_EPSILON_M2 = 1e-6
_TINY = 1e-30


@dataclass(frozen=True)
class Area:
    """Where users may be: opposite corners (x, y, z) of a box, metres."""

    low_m: tuple[float, float, float]
    high_m: tuple[float, float, float]

    @property
    def centre_m(self) -> tuple[float, float, float]:
        """Middle of the box."""
        x, y, z = (0.5 * (low + high) for low, high in zip(self.low_m, self.high_m, strict=True))
        return x, y, z

    @property
    def scale_m(self) -> float:
        """Half of its longest edge: one scale for all axes keeps distances in proportion."""
        return 0.5 * max(high - low for low, high in zip(self.low_m, self.high_m, strict=True))


class Head(nn.Module, ABC):
    """What turns a network's last numbers into a position and into a loss.

    Attributes:
        size: numbers that the network has to give.
        num_doubts: numbers in the ``doubts`` of its beliefs.
        area: where users may be.
    """

    size: int
    num_doubts: int = 0

    def __init__(self, area: Area) -> None:
        super().__init__()
        self.area = area

    @abstractmethod
    def loss(self, outputs: Float[Tensor, "B N size"], position_m: Float[Tensor, "B 3"]) -> Float[Tensor, ""]:
        """Mean over the batch of the loss of N successive outputs, the later ones weighing more (34)."""

    @abstractmethod
    def position_m(self, outputs: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch 3"]:
        """The positions that outputs stand for, metres."""

    def belief(self, outputs: Float[Tensor, "S size"]) -> Belief:
        """Positions with what the outputs say of their errors; nothing unless a head knows better."""
        position = self.position_m(outputs)
        return Belief(position, None, position.new_zeros(len(position), self.num_doubts))

    def check_covers(self, position_m: Float[Tensor, "S 3"]) -> None:
        """ValueError if places to learn from cannot be said."""


class RegressionHead(Head):
    """Three numbers: the position in units of the area.

    Args:
        area: where users may be.
        distance: descend distances instead of their squares: the mean error itself.
    """

    size = 3
    centre_m: Tensor

    def __init__(self, area: Area, distance: bool) -> None:
        super().__init__(area)
        self.distance = distance
        self.register_buffer("centre_m", torch.tensor(area.centre_m), persistent=False)

    def loss(self, outputs: Float[Tensor, "B N 3"], position_m: Float[Tensor, "B 3"]) -> Float[Tensor, ""]:
        """WMSE (34), or the same weights over the distances, in units of the area."""
        target = (position_m - self.centre_m) / self.area.scale_m
        return weighted_loss(outputs.float(), target, self.distance, self.area.scale_m)

    def position_m(self, outputs: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Units of the area to metres."""
        return outputs.float() * self.area.scale_m + self.centre_m


class BinHead(Head):
    """Logits over bins along x, y and z, learned from soft labels by cross-entropy.

    The label of bin i with centre c_i and width w is softmax_i(-((c_i - p) / w)^2 / 2) for the true coordinate p. Its
    mean is p to 1e-3 of a width, so that bins do not limit the resolution. A position is the mean of the probabilities
    around the largest one, so that two far places are not averaged into one between them.

    With several components the probabilities are a mixture of R products, sum_r pi_r p_r(x) p_r(y) p_r(z): where two
    places explain the messages, the x of one and the y of the other no longer make a third. The outputs are then R
    logits of pi and R times those of the axes, and the loss -log sum_r pi_r exp(sum over the axes of the expectation
    of log p_r under the labels), which is that of one product for R = 1 and by Jensen's inequality at least the
    cross-entropy of the mixture.

    Args:
        area: where users may be; ``MARGIN_BINS`` bins lie beyond it on each side.
        bins: along the longest edge; vertical ones are half as high.
        components: R >= 1.
    """

    num_doubts = 3 * DOUBTS_PER_AXIS
    centres_m: Tensor

    def __init__(self, area: Area, bins: int, components: int = 1) -> None:
        super().__init__(area)
        self.components = components
        side_m = 2 * area.scale_m / bins
        self.widths_m = (side_m, side_m, side_m / 2)
        edges = zip(area.low_m, area.high_m, self.widths_m, strict=True)
        axes = [_centres(low_m, high_m, width_m) for low_m, high_m, width_m in edges]
        self.counts = [len(axis) for axis in axes]
        self.size = components * sum(self.counts) + (components if components > 1 else 0)
        self.register_buffer("centres_m", torch.cat(axes), persistent=False)

    def loss(self, outputs: Float[Tensor, "B N size"], position_m: Float[Tensor, "B 3"]) -> Float[Tensor, ""]:
        """Sum over the axes of the cross-entropy between soft labels and probabilities, weighted as (34)."""
        log_shares, axes = self._components(outputs)
        agreed = log_shares
        for logits, labels in zip(axes, self.labels(position_m), strict=True):
            # The same as the expectation of log_softmax, for labels add up to 1.
            expected = (labels[:, None, None] * logits).sum(dim=-1) - torch.logsumexp(logits, dim=-1)
            agreed = agreed + expected
        entropy = -torch.logsumexp(agreed, dim=-1)
        return (entropy * late_weights(outputs)).sum(dim=1).mean()

    def labels(self, position_m: Float[Tensor, "B 3"]) -> list[Float[Tensor, "B _"]]:
        """Soft labels of every axis."""
        centres = self.centres_m.split(self.counts)
        return [
            torch.softmax(-0.5 * ((axis - position_m[:, i : i + 1]) / width).square(), dim=-1)
            for i, (axis, width) in enumerate(zip(centres, self.widths_m, strict=True))
        ]

    def position_m(self, outputs: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch 3"]:
        """Mean of the probabilities around the mode: of every axis, or around that of the likeliest component's modes
        which has the largest probability around it."""
        log_shares, axes = self._components(outputs)
        # [*batch, R] of the modes around which there may be an answer, [*batch, R, R] of the components around them.
        mass, sums = log_shares.exp().unsqueeze(-2), []
        for logits, axis in zip(axes, self.centres_m.split(self.counts), strict=True):
            probability = torch.softmax(logits, dim=-1)
            near = _near_modes(probability)
            part = near @ probability.transpose(-1, -2)
            mass = mass * part
            sums.append((near @ (probability * axis).transpose(-1, -2)) / part.clamp(min=_TINY))
        best = mass.sum(dim=-1).argmax(dim=-1)[..., None, None]
        chosen = mass.take_along_dim(best, dim=-2).squeeze(-2)
        share = chosen / chosen.sum(dim=-1, keepdim=True)
        return torch.stack([(share * mean.take_along_dim(best, dim=-2).squeeze(-2)).sum(dim=-1) for mean in sums], -1)

    def belief(self, outputs: Float[Tensor, "S size"]) -> Belief:
        """Positions, second moments of the bins around them, axis by axis, and the doubts of every axis."""
        position = self.position_m(outputs)
        variances, doubts = [], []
        pieces = zip(self.marginals(outputs), self.centres_m.split(self.counts), self.widths_m, strict=True)
        for i, (logits, axis, width) in enumerate(pieces):
            variances.append(axis_moments(torch.softmax(logits, dim=-1), axis, position[:, i]))
            doubts.append(axis_doubts(logits, axis, position[:, i], width, _MODE_BINS))
        return Belief(position, diagonal_m2(variances), torch.cat(doubts, dim=-1))

    def check_covers(self, position_m: Float[Tensor, "S 3"]) -> None:
        """ValueError if places to learn from lie beyond the outermost bins."""
        for i, (name, axis) in enumerate(zip("xyz", self.centres_m.cpu().split(self.counts), strict=True)):
            low, high = float(position_m[:, i].min()), float(position_m[:, i].max())
            if low < float(axis[0]) or high > float(axis[-1]):
                raise ValueError(
                    f"positions to learn from reach from {name}={low:.6g} to {high:.6g} m, the bins from "
                    f"{float(axis[0]):.6g} to {float(axis[-1]):.6g}; state the area that holds all users, or use "
                    f"head=regression."
                )

    def marginals(self, outputs: Float[Tensor, "*batch size"]) -> list[Float[Tensor, "*batch _"]]:
        """Logits of the bins of every axis by itself: of the mixture's marginals where components are mixed."""
        log_shares, axes = self._components(outputs)
        if self.components == 1:
            return [logits.squeeze(-2) for logits in axes]
        shares = log_shares.unsqueeze(-1)
        return [torch.logsumexp(shares + torch.log_softmax(logits, dim=-1), dim=-2) for logits in axes]

    def _components(
        self, outputs: Float[Tensor, "*batch size"]
    ) -> tuple[Float[Tensor, "*batch R"], Sequence[Float[Tensor, "*batch R _"]]]:
        """Logarithms of pi, and the logits of every axis."""
        outputs = outputs.float()
        if self.components == 1:
            return torch.zeros_like(outputs[..., :1]), outputs.unsqueeze(-2).split(self.counts, dim=-1)
        shares, logits = outputs.split([self.components, self.size - self.components], dim=-1)
        axes = logits.unflatten(-1, (self.components, -1)).split(self.counts, dim=-1)
        return torch.log_softmax(shares, dim=-1), axes


def make_head(kind: str, area: Area, bins: int, distance: bool, components: int = 1) -> Head:
    """A head by name.

    Args:
        kind: one of ``HEADS``.
        area: where users may be.
        bins: of ``bins``: along the longest edge of the area.
        distance: of ``regression``: see there.
        components: of ``bins``: of the mixture.
    """
    return BinHead(area, bins, components) if kind == "bins" else RegressionHead(area, distance)


def weighted_loss(
    positions: Float[Tensor, "B N 3"], target: Float[Tensor, "B 3"], distance: bool, scale_m: float
) -> Float[Tensor, ""]:
    """WMSE of equation (34), or the same weights over distances; mean over the batch.

    Args:
        positions: normalised estimates after each subcarrier.
        target: normalised truth.
        distance: distances instead of their squares: the mean error itself.
        scale_m: metres per unit, for the small number that keeps the gradient of the distance finite.
    """
    squared = (positions - target[:, None]).square().sum(dim=-1)
    if distance:
        squared = (squared + _EPSILON_M2 / scale_m**2).sqrt()
    return (squared * late_weights(positions)).sum(dim=1).mean()


def late_weights(outputs: Float[Tensor, "B N size"]) -> Float[Tensor, " N"]:
    """w_i = 2 i / (N (N + 1)) of equation (34)."""
    count = outputs.shape[1]
    return torch.arange(1, count + 1, device=outputs.device) * (2.0 / (count * (count + 1)))


def _centres(low_m: float, high_m: float, width_m: float) -> Float[Tensor, " K"]:
    count = max(1, round((high_m - low_m) / width_m)) + 2 * MARGIN_BINS
    middle = 0.5 * (low_m + high_m)
    return (middle + (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * width_m).float()


def _near_modes(probability: Float[Tensor, "*batch R K"]) -> Float[Tensor, "*batch R K"]:
    """1 at the bins around the mode of every row, 0 elsewhere."""
    mode = probability.argmax(dim=-1, keepdim=True)
    near = (torch.arange(probability.shape[-1], device=mode.device) - mode).abs() <= _MODE_BINS
    return near.to(probability.dtype)
