"""Exploration noise and observation statistics: the small running states beside the networks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class ActionNoise:
    """Zero-mean exploration noise with unit stationary scale, multiplied by the caller's standard deviation.

    ``gaussian``: white. ``ou``: x <- (1 - theta) x + sqrt(1 - (1 - theta)^2) n, an Ornstein-Uhlenbeck process in
    discrete time whose stationary standard deviation is 1, so that both kinds take the same scale.

    Args:
        kind: ``gaussian`` or ``ou``.
        generator: source of the noise.
        theta: pull towards zero per round, for ``ou``.
    """

    def __init__(self, kind: str, generator: torch.Generator, theta: float = 0.15) -> None:
        self.kind, self.generator, self.theta = kind, generator, theta
        self._state: Tensor | None = None

    def reset(self) -> None:
        """A new episode: correlated noise starts from zero."""
        self._state = None

    def sample(self, shape: tuple[int, ...]) -> Tensor:
        """The next draw of unit scale."""
        white = torch.randn(shape, generator=self.generator, device=self.generator.device)
        if self.kind == "gaussian":
            return white
        previous = torch.zeros_like(white) if self._state is None else self._state
        keep = 1.0 - self.theta
        self._state = keep * previous + (1.0 - keep**2) ** 0.5 * white
        return self._state

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Uniformly random actions in [-1, 1]."""
        return 2.0 * torch.rand(shape, generator=self.generator, device=self.generator.device) - 1.0

    def state_dict(self) -> dict:
        """The draws to come."""
        return {"generator": self.generator.get_state(), "state": self._state}

    def load_state_dict(self, state: dict) -> None:
        """Go on with the stored draws."""
        self.generator.set_state(state["generator"])
        self._state = state["state"]


class Normaliser:
    """Running mean and variance of observation entries (Chan et al.'s merge of two samples), in float64.

    Args:
        shape: entries that are distinguished: (n, obs) per agent, (obs,) common to agents, (part,) common to entities.
        device: where the statistics live.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device | str = "cpu") -> None:
        self.shape = shape
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.squares = torch.zeros(shape, dtype=torch.float64, device=device)

    def update(self, observations: Float[Tensor, "B n obs"]) -> None:
        """Merge a batch into the statistics."""
        rows = self._rows(observations).to(torch.float64)
        count, mean = rows.shape[0], rows.mean(0)
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * count / total
        self.squares = self.squares + ((rows - mean) ** 2).sum(0) + delta**2 * self.count * count / total
        self.count = total

    def __call__(self, observations: Float[Tensor, "B n obs"]) -> Float[Tensor, "B n obs"]:
        """Observations with mean 0 and standard deviation 1, within +-10."""
        if self.count == 0:
            return observations
        deviation = (self.squares / self.count).sqrt().clamp_min(1e-3)
        scaled = (self._rows(observations) - self.mean.to(observations)) / deviation.to(observations)
        return scaled.clamp(-10.0, 10.0).reshape(observations.shape)

    def state_dict(self) -> dict[str, Tensor]:
        """The statistics."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over stored statistics."""
        self.count, self.mean, self.squares = (state[name].to(self.mean) for name in ("count", "mean", "squares"))

    def _rows(self, observations: Tensor) -> Tensor:
        return observations.reshape(-1, *self.shape)
