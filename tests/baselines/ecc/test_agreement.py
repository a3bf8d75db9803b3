"""Whether lines of several arrays agree on a place: information, covariance and odds by hand, made CSI, spoilt CSI."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from baselines import make_policy
from baselines.ecc.agreement import Rays, agreement, direction_information
from cfpos_envs.measurements.base import PositionEstimate, Reason
from tests.border.csi_sample import sample

LOW, HIGH = torch.zeros(3), torch.tensor([40.0, 40.0, 10.0])
PLACES = torch.tensor([[[0.0, 20.0, 5.0], [20.0, 0.0, 5.0]]])
USER = torch.tensor([[20.0, 20.0, 5.0]])


def rays(quality: float, places: torch.Tensor = PLACES, toward: torch.Tensor = USER) -> Rays:
    """Lines to a place, each as well known in all directions across it."""
    directions = torch.nn.functional.normalize(toward[:, None] - places, dim=-1)
    return Rays(places, directions.unsqueeze(-2), quality * torch.eye(3).expand(*places.shape[:2], 3, 3))


def test_information_of_a_panel_by_hand() -> None:
    # Four antennas at +-1/4 wavelength: (2 pi / 4)^2 4 = pi^2 along y and z. Eigenvalues 5, 1, 1, 1: P / s2 = 1.
    corners = torch.tensor([[0.0, y, z] for y in (-0.25, 0.25) for z in (-0.25, 0.25)])
    values = torch.tensor([[[1.0, 1.0, 1.0, 5.0], [1.0, 1.0, 1.0, 5.0]]])
    turned = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    rotation = torch.stack((torch.eye(3), turned))[None]
    found = direction_information(values, corners, rotation, torch.tensor([[True, True]]))
    torch.testing.assert_close(found[0, 0], 2 * math.pi**2 * torch.diag(torch.tensor([0.0, 1.0, 1.0])))
    torch.testing.assert_close(found[0, 1], 2 * math.pi**2 * torch.diag(torch.tensor([1.0, 0.0, 1.0])))
    assert not direction_information(values, corners, rotation, torch.tensor([[False, True]]))[0, 0].any()


def test_covariance_of_two_crossing_lines_by_hand() -> None:
    found = agreement(rays(1e4), USER, USER[:, None], LOW, HIGH, 0.1)
    # 20 m away and 0.01 known: 0.2 m across a line; the height is seen by both.
    expected = torch.diag(torch.tensor([0.04, 0.04, 0.02], dtype=torch.float64))
    torch.testing.assert_close(found.covariance_m2[0], expected, rtol=4e-3, atol=1e-6)
    assert found.agreeing.tolist() == [2]
    assert float(found.chi_squared) == pytest.approx(0.0, abs=1e-6)
    assert float(found.elsewhere) == 0.0


def test_evidence_of_two_lines_by_hand() -> None:
    # Per line sqrt(det W) / (2 pi) over 1 / pi; the place by Laplace's method over the area.
    size = 40.0 * 40.0 * 10.0
    by_hand = 2 * math.log(1e4 / 2) + math.log((2 * math.pi) ** 1.5 * math.sqrt(0.04 * 0.04 * 0.02) / size)
    found = agreement(rays(1e4), USER, USER[:, None], LOW, HIGH, 0.1)
    assert float(found.evidence) == pytest.approx(by_hand, abs=0.01)


def test_the_pull_of_an_answer_that_is_not_at_the_maximum_is_in_its_covariance() -> None:
    moved = USER + torch.tensor([[0.0, 0.3, 0.0]])
    found = agreement(rays(1e4), moved, USER[:, None], LOW, HIGH, 0.1)
    assert float(found.covariance_m2[0, 1, 1]) == pytest.approx(0.04 + 0.09, rel=0.01)


def test_another_place_that_fits_as_well_is_told() -> None:
    places = torch.tensor([[[0.0, 0.0, 5.0], [40.0, 0.0, 5.0], [0.0, 40.0, 5.0], [40.0, 40.0, 5.0]]])
    one, other = torch.tensor([[10.0, 20.0, 5.0]]), torch.tensor([[30.0, 20.0, 5.0]])
    first, second = rays(1e6, places, one), rays(1e6, places, other)
    mixed = torch.cat((first.sides[:, :2], second.sides[:, 2:]), dim=1)
    found = agreement(
        Rays(places, mixed, first.information), one, torch.stack((one[0], other[0]))[None], LOW, HIGH, 0.1
    )
    # Two links mean one place, two the other: the answer's own has half of the odds.
    assert float(found.elsewhere) == pytest.approx(0.5, abs=0.02)
    assert float(found.covariance_m2[0, 0, 0]) == pytest.approx(200.0, rel=0.05)


def judged(estimate: PositionEstimate, truth_m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Valid, off by more than five deviations, and the squared error by the covariance."""
    assert estimate.covariance is not None
    covariance = estimate.covariance[:, 0].double()
    away = estimate.position[:, 0].double() - truth_m
    far = away.norm(dim=-1) > 5 * covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
    squared = (away * torch.linalg.solve(covariance, away.unsqueeze(-1)).squeeze(-1)).sum(dim=-1)
    return estimate.valid[:, 0], far, squared


def test_made_csi_with_blocked_links_states_its_errors() -> None:
    file = sample(400, seed=5)
    measured, truth = file.measurements(), torch.tensor(file.positions_m)
    estimate = make_policy("music", "ecc-csi-v0").locate(measured)
    valid, far, squared = judged(estimate, truth)
    error = (estimate.position[:, 0].double() - truth).norm(dim=-1)
    # Strongest paths that agree on a wrong place are rare, and not excluded.
    assert float((valid & far).double().mean()) < 0.01
    assert float(valid[error < 2].double().mean()) > 0.8
    assert float(error[valid].square().mean().sqrt()) < 0.5 * float(error.square().mean().sqrt())
    # 2.366 and 6.251: half and nine tenths of three Gaussian coordinates.
    assert 0.5 < float((squared[valid] < 2.366).double().mean()) < 0.7
    assert 0.75 < float((squared[valid] < 6.251).double().mean()) < 0.95
    few = measured.select(slice(0, 150))
    noise = torch.view_as_complex(torch.randn(*few.csi.shape, 2, generator=torch.Generator().manual_seed(0)))
    for csi, share in ((noise, 0.05), (few.csi.conj(), 0.25)):
        found = make_policy("music", "ecc-csi-v0").locate(dataclasses.replace(few, csi=csi))
        assert float(found.valid.double().mean()) < share
        assert found.reason is not None
        doubts = {Reason.POOR_GEOMETRY, Reason.AMBIGUOUS, Reason.LARGE_RESIDUALS}
        assert doubts <= set(found.reason.unique().tolist())
