"""Gaussian processes with a squared-exponential kernel and noise: tuning the kernel, conditioning, predicting.

Written out for this one kernel: distances between fingerprints are computed once per tuning, not once per step of it,
and predictions whose first block alone moves keep the distances of the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.linalg.lapack import dpotri
from scipy.optimize import minimize
from scipy.spatial.distance import cdist, pdist, squareform

_START = (1.0, 1.0, 1e-2)
_BOUNDS = ((1e-2, 1e3), (1e-2, 1e2), (1e-6, 1e0))
_JITTER = 1e-10
"""On the diagonal, so that equal fingerprints do not make the matrix singular."""


@dataclass(frozen=True)
class Kernel:
    """k(a, b) = amplitude exp(-|a - b|^2 / (2 length^2)) + noise [a is b], for targets of mean 0 and variance 1.

    Attributes:
        amplitude, length, noise: above 0.
    """

    amplitude: float
    length: float
    noise: float

    def between(self, squared: np.ndarray) -> np.ndarray:
        """The kernel of different points with these squared distances."""
        return self.amplitude * np.exp(squared * (-0.5 / self.length**2))


def tuned_kernel(inputs: np.ndarray, targets: np.ndarray, restarts: int) -> tuple[float, Kernel]:
    """The kernel with the largest marginal likelihood of all targets, and its logarithm.

    log p(y) = -y'K^-1 y / 2 - log det K / 2 - n log(2 pi) / 2, summed over the targets, with the gradient
    tr((K^-1 y y'K^-1 - K^-1) dK) / 2 by the logarithms of the parameters (Rasmussen and Williams, 5.8 and 5.9), climbed
    by L-BFGS-B inside of bounds.

    Args:
        inputs: [n, F] standardised fingerprints.
        targets: [n, T] of any mean and scale.
        restarts: further starts, drawn evenly over the logarithms of the bounds.
    """
    bounds = np.log(_BOUNDS)
    draws = np.random.RandomState(0)
    starts = [np.log(_START), *(draws.uniform(bounds[:, 0], bounds[:, 1]) for _ in range(restarts))]
    squared = squareform(pdist(inputs, "sqeuclidean"))
    values = _standardised(targets)[0]
    ends = [minimize(_loss, start, (squared, values), "L-BFGS-B", jac=True, bounds=bounds) for start in starts]
    best = min(ends, key=lambda end: float(end.fun))
    amplitude, length, noise = np.exp(best.x).tolist()
    return -float(best.fun), Kernel(amplitude, length, noise)


def _loss(logs: np.ndarray, squared: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Negative log marginal likelihood and its gradient by the logarithms of amplitude, length and noise."""
    amplitude, length, noise = np.exp(logs).tolist()
    signal = Kernel(amplitude, length, noise).between(squared)
    count, width = targets.shape
    matrix = signal.copy()
    matrix.flat[:: count + 1] += noise + _JITTER
    try:
        factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError:
        return math.inf, np.zeros(3)
    weights = cho_solve((factor, True), targets, check_finite=False)
    log_likelihood = -0.5 * (targets * weights).sum() - width * (
        np.log(np.diag(factor)).sum() + 0.5 * count * math.log(2 * math.pi)
    )
    inverse, _ = dpotri(factor, lower=True)
    inverse_diagonal = np.diag(inverse)

    def along(change: np.ndarray) -> float:
        # The upper triangle of the inverse is left empty.
        half = np.vdot(inverse, change)
        trace = 2.0 * half - inverse_diagonal @ np.diag(change)
        return 0.5 * float((weights * (change @ weights)).sum() - width * trace)

    by_noise = 0.5 * noise * float(np.square(weights).sum() - width * inverse_diagonal.sum())
    gradient = np.array((along(signal), along(signal * squared) / length**2, by_noise))
    return -float(log_likelihood), -gradient


@dataclass(frozen=True)
class Conditioned:
    """A kernel conditioned on reference points, whose inputs come in blocks of columns.

    Attributes:
        kernel: of the standardised targets.
        blocks: [P, F_i] inputs.
        factor: lower Cholesky factor of the kernel's matrix.
        weights: [P, T] its inverse times the standardised targets.
        mean, scale: [T] of the targets.
    """

    kernel: Kernel
    blocks: list[np.ndarray]
    factor: np.ndarray
    weights: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def on(cls, kernel: Kernel, blocks: list[np.ndarray], targets: np.ndarray) -> Conditioned:
        """Condition on targets [P, T].

        Raises:
            LinAlgError: the matrix is not positive definite.
        """
        values, mean, scale = _standardised(targets)
        matrix = kernel.between(squareform(pdist(np.hstack(blocks), "sqeuclidean")))
        matrix.flat[:: len(matrix) + 1] += kernel.noise + _JITTER
        factor = cholesky(matrix, lower=True, overwrite_a=True, check_finite=False)
        weights = cho_solve((factor, True), values, check_finite=False)
        return cls(kernel, blocks, factor, weights, mean, scale)

    def squared(self, queries: np.ndarray, block: int) -> np.ndarray:
        """[Q, P] squared distances to the references in one block of columns."""
        return cdist(queries, self.blocks[block], "sqeuclidean")

    def means(self, covariance: np.ndarray) -> np.ndarray:
        """[Q, T] expected targets, from kernels [Q, P] between queries and references."""
        return covariance @ self.weights * self.scale + self.mean

    def variances(self, covariance: np.ndarray) -> np.ndarray:
        """[Q, T] variances of the targets with their noise, from the same."""
        solved = solve_triangular(self.factor, covariance.T, lower=True, check_finite=False)
        left = self.kernel.amplitude + self.kernel.noise - np.square(solved).sum(axis=0)
        return left.clip(min=0.0)[:, None] * np.square(self.scale)


def _standardised(targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets of mean 0 and variance 1, their mean and their scale; a target that is constant keeps its scale."""
    mean, scale = targets.mean(axis=0), targets.std(axis=0)
    scale = np.where(scale < 10 * np.finfo(float).eps, 1.0, scale)
    return (targets - mean) / scale, mean, scale
