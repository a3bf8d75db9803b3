"""A bound must be reached by the best estimator and beaten by none: maximum likelihood brackets it from both sides."""

import dataclasses
import math

import pytest
import torch

from cfpos_envs.physics.dcp import bounds
from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import displacement
from tests.physics.reference import wrap_angle

TRIALS = 6000
NUM_APS = 10


def site() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(21)
    aps = torch.rand(NUM_APS, 2, generator=generator, dtype=torch.float64) * 100
    orientation = torch.rand(NUM_APS, generator=generator, dtype=torch.float64) * 6.28
    return aps, orientation, torch.full_like(orientation, 10.0), torch.tensor([[37.0, 61.0]], dtype=torch.float64)


def predict(radio: RadioModel, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """RSS (dBm) and bearings of many points, [points, APs] each."""
    aps, orientation, height, _ = site()
    links = link_geometry(aps, orientation, height, points, radio.side_m, radio.wrap)
    return predicted_rss_dbm(radio, links).T, links.angle_rad.T


def maximum_likelihood(
    radio: RadioModel, rss: torch.Tensor, bearing: torch.Tensor, rss_weight: torch.Tensor, aoa_weight: torch.Tensor
) -> torch.Tensor:
    """Gauss-Newton from the truth with numerical derivatives: it knows nothing of the code under test."""
    points = site()[3].expand(len(rss), 2).clone()
    steps = 1e-4 * torch.eye(2, dtype=torch.float64)
    for _ in range(8):
        at = predict(radio, points)
        residual = torch.cat((rss - at[0], wrap_angle(bearing - at[1])), dim=-1)
        columns = []
        for step in steps:
            high, low = predict(radio, points + step), predict(radio, points - step)
            columns.append(torch.cat((high[0] - low[0], wrap_angle(high[1] - low[1])), dim=-1) / 2e-4)
        slope = torch.stack(columns, dim=-1)
        weight = torch.cat((rss_weight, aoa_weight)).unsqueeze(-1)
        normal = slope.mT @ (weight * slope)
        points = points + torch.linalg.solve(normal, slope.mT @ (weight.squeeze(-1) * residual).unsqueeze(-1)).squeeze(
            -1
        )
    return points


@pytest.mark.parametrize(("use_rss", "use_aoa"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("hidden_db", [0.0, 0.05])
def test_maximum_likelihood_reaches_the_bound_and_does_not_beat_it(
    radio: RadioModel, use_rss: bool, use_aoa: bool, hidden_db: float
) -> None:
    # The bound is attained where errors are small against distances: many paths and snapshots.
    radio = dataclasses.replace(radio, num_paths=2000, snapshots=10_000)
    aps, orientation, height, truth = site()
    statistics = bounds.measurement_statistics(radio)
    rss, bearing = (value[0] for value in predict(radio, truth))
    gain_db = rss - 10 * math.log10(8 * 0.6) - 30
    snr_db = gain_db + 10 * math.log10(0.6 / radio.noise_power_w)
    variance, information = statistics.look_up(snr_db, bearing)
    variance = variance + hidden_db**2
    generator = torch.Generator().manual_seed(22)
    noise = torch.randn(2, TRIALS, NUM_APS, dtype=torch.float64, generator=generator)
    estimates = maximum_likelihood(
        radio,
        rss + variance.sqrt() * noise[0],
        bearing + noise[1] / information.sqrt(),
        use_rss / variance,
        use_aoa * information,
    )
    errors = displacement(truth, estimates, radio.side_m, radio.wrap)[0]
    rmse = float(errors.square().sum(dim=-1).mean().sqrt())
    bound = bounds.drop_bound(
        radio, statistics, aps, orientation, height, truth, hidden_db, None, use_rss=use_rss, use_aoa=use_aoa
    )
    # The ratio's own deviation is below 1 / sqrt(4 * 6000) = 0.7 %.
    assert 0.97 < rmse / float(bound) < 1.06
    # The errors have the predicted shape, not only the predicted size.
    fisher = bounds.drop_fisher(
        radio, statistics, aps, orientation, height, truth, hidden_db, None, use_rss=use_rss, use_aoa=use_aoa
    )[0]
    whitened = errors @ torch.linalg.cholesky(fisher)
    torch.testing.assert_close(torch.cov(whitened.T), torch.eye(2, dtype=torch.float64), atol=0.12, rtol=0)
