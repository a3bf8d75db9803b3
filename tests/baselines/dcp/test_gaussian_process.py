"""Gaussian processes beside a library's: the same kernel, means and variances."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.spatial.distance import pdist, squareform
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from baselines.dcp.gaussian_process import Conditioned, Kernel, _loss, tuned_kernel

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 5))
TARGETS = np.stack((np.sin(INPUTS[:, 0]), 455000.0 + 30.0 * INPUTS[:, 1]), axis=1) + 0.1 * RNG.normal(size=(40, 2))
QUERIES = RNG.normal(size=(7, 5))


def reference(restarts: int) -> GaussianProcessRegressor:
    kernel = ConstantKernel(1.0, (1e-2, 1e3)) * RBF(1.0, (1e-2, 1e2)) + WhiteKernel(1e-2, (1e-6, 1e0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process = GaussianProcessRegressor(kernel, normalize_y=True, n_restarts_optimizer=restarts, random_state=0)
        return process.fit(INPUTS, TARGETS)


@pytest.mark.parametrize("restarts", [0, 2])
def test_the_tuned_kernel_is_that_of_a_library(restarts: int) -> None:
    theirs = reference(restarts)
    likelihood, kernel = tuned_kernel(INPUTS, TARGETS, restarts)
    np.testing.assert_allclose(np.log([kernel.amplitude, kernel.length, kernel.noise]), theirs.kernel_.theta, rtol=1e-5)
    assert likelihood == pytest.approx(theirs.log_marginal_likelihood_value_, rel=1e-9)


def test_means_and_variances_are_those_of_a_library() -> None:
    theirs = reference(0)
    amplitude, length, noise = np.exp(theirs.kernel_.theta)
    ours = Conditioned.on(Kernel(amplitude, length, noise), [INPUTS[:, :2], INPUTS[:, 2:]], TARGETS)
    squared = ours.squared(QUERIES[:, :2], 0) + ours.squared(QUERIES[:, 2:], 1)
    covariance = ours.kernel.between(squared)
    mean, deviation = theirs.predict(QUERIES, return_std=True)
    np.testing.assert_allclose(ours.means(covariance), mean, rtol=1e-9)
    np.testing.assert_allclose(ours.variances(covariance), np.square(deviation), rtol=1e-7)


def test_the_gradient_is_that_of_the_likelihood() -> None:
    squared, start = squareform(pdist(INPUTS, "sqeuclidean")), np.log((2.0, 1.5, 0.05))
    values = (TARGETS - TARGETS.mean(axis=0)) / TARGETS.std(axis=0)
    away = check_grad(lambda x: _loss(x, squared, values)[0], lambda x: _loss(x, squared, values)[1], start)
    assert away < 1e-4 * np.linalg.norm(_loss(start, squared, values)[1])
