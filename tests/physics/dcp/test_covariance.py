"""Links read from whole covariances: moments and lags by hand, honest deviations, and matrices that are refused."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from cfpos_envs.physics.arrays import ula_response
from cfpos_envs.physics.dcp.covariance import kernel
from cfpos_envs.physics.dcp.covariance.likelihood import lag_law, likelihood_readings
from cfpos_envs.physics.dcp.covariance.moments import array_tables, link_moments
from cfpos_envs.physics.dcp.covariance.network import (
    ArrayLaw,
    LearningSettings,
    LinkNetwork,
    SimulatedLinks,
    learn_links,
    link_network,
    network_readings,
    simulate_links,
)
from cfpos_envs.physics.dcp.covariance.readings import LinkReadings, check_covariances

DEFAULT = ArrayLaw(8, 0.5, math.radians(10.0), 20, 100)
SMALL = dataclasses.replace(DEFAULT, num_antennas=3)
READERS = {"likelihood": likelihood_readings, "network": network_readings}


def waves(*angles_rad: float, antennas: int = 8) -> Tensor:
    """[1, L, L] covariance of uncorrelated plane waves of equal power."""
    steering = ula_response(torch.tensor(angles_rad, dtype=torch.float64), antennas)
    return (steering.mT @ steering.conj() / len(angles_rad)).unsqueeze(0).to(torch.complex64)


def moments_of(covariance: Tensor) -> Tensor:
    return link_moments(covariance, torch.full((len(covariance),), 60.0), 0.5).values[0]


def test_one_wave_has_no_moment_but_its_power() -> None:
    values = moments_of(waves(1.1))
    # The first beam weighs all antennas alike and takes the whole trace; the others get what rounding leaves.
    assert float(values[0]) == pytest.approx(0.0, abs=1e-4)
    assert float(values[1:8].max()) < math.log(3e-3)
    found = link_moments(waves(1.1), torch.tensor([60.0]), 0.5).beam_rad
    assert float(found) == pytest.approx(1.1, abs=2e-3)


def test_two_waves_are_as_wide_as_they_are_apart() -> None:
    middle, apart = 0.3, 0.06
    steps = [math.acos((middle * math.pi + side) / math.pi) for side in (-apart, apart)]
    values = moments_of(waves(*steps, antennas=3))
    # Three pivots, U_10, U_20, U_21, then the width that the factor tells and its ratio to that seen.
    told, ratio = float(values[6]), float(values[7])
    assert told == pytest.approx(math.log(apart**2), abs=0.02)
    assert ratio == pytest.approx(0.0, abs=0.02)
    assert float(values[3]) == pytest.approx(0.0, abs=2e-3)


def test_the_mirror_image_has_the_same_moments() -> None:
    links = simulate_links(torch.Generator().manual_seed(1), DEFAULT, 20, (10.0, 25.0), (0.3, 1.4))
    one, other = (link_moments(matrices, links.snr_db, 0.5) for matrices in (links.covariance, links.covariance.conj()))
    assert bool((one.mirrored != other.mirrored).all())
    torch.testing.assert_close(one.beam_rad, math.pi - other.beam_rad, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.values, other.values, atol=0.05, rtol=0.01)


@pytest.mark.parametrize("snr_db", [0.0, 30.0])
def test_lags_are_distributed_as_the_closed_form_says(snr_db: float) -> None:
    # More paths and snapshots than the default, so that first order in their errors is enough.
    many = dataclasses.replace(DEFAULT, num_paths=100, snapshots=1000)
    law, index = lag_law(many, snr_db, torch.device("cpu")), 50
    angle = float(law.angle_rad[index])
    links = simulate_links(torch.Generator().manual_seed(2), many, 6000, (snr_db, snr_db), (angle, angle))
    lags = torch.stack([torch.diagonal(links.covariance, -lag, 1, 2).mean(dim=-1) for lag in range(8)], dim=-1)
    noise = 10.0 ** (-snr_db / 10.0)
    normal = lags[:, 1:] / (lags[:, :1].real - noise)
    lags = torch.cat((normal.real, normal.imag), dim=-1)
    whitening = law.power.whitening.mT.view(len(law.angle_rad), 14, 14)[index].double()
    stated = torch.linalg.inv(whitening.mT @ whitening)
    mean = torch.linalg.solve(whitening, law.power.center[index].double())
    std = stated.diagonal().sqrt()
    torch.testing.assert_close((lags.double().mean(dim=0) - mean) / std, torch.zeros(14).double(), atol=0.12, rtol=0)
    torch.testing.assert_close(
        lags.double().mT.cov() / (std * std[:, None]), stated / (std * std[:, None]), atol=0.08, rtol=0
    )
    if snr_db > 0.0:
        # Without noise the regression rests on differences of lags so small that first order does not reach them.
        return
    error = torch.diagonal(links.covariance, dim1=1, dim2=2).real.mean(dim=-1) - 1.0 - noise
    rest = error - (lags @ law.regression[:, index] - law.offset[index])
    assert float(rest.var()) == pytest.approx(float(law.rest_variance[index]), rel=0.1)
    assert float(rest.var()) < 0.97 * float(error.var())


def read(reader: str, links: SimulatedLinks) -> LinkReadings:
    return READERS[reader](links.covariance, links.snr_db, DEFAULT)


def within(error: Tensor, std: Tensor) -> list[float]:
    return [float((error.abs() < times * std).float().mean()) for times in (1, 2, 3)]


@pytest.mark.parametrize("snr_db", [(10.0, 25.0), (35.0, 70.0)])
@pytest.mark.parametrize("bearing_deg", [(0.0, 20.0), (20.0, 160.0), (160.0, 180.0)])
@pytest.mark.parametrize("reader", list(READERS))
def test_deviations_are_honest(reader: str, snr_db: tuple[float, float], bearing_deg: tuple[float, float]) -> None:
    low, high = (math.radians(angle) for angle in bearing_deg)
    links = simulate_links(torch.Generator().manual_seed(3), DEFAULT, 1500, snr_db, (low, high))
    found = read(reader, links)
    for shares in (
        within(found.bearing_rad - links.bearing_rad, found.bearing_std_rad),
        within(found.correction_db - links.correction_db, found.power_std_db),
    ):
        assert shares[0] == pytest.approx(0.683, abs=0.09)
        assert shares[1] == pytest.approx(0.954, abs=0.04)
        assert shares[2] > 0.98


@pytest.mark.parametrize("reader", list(READERS))
def test_more_is_read_than_beams_and_traces_hold(reader: str) -> None:
    links = simulate_links(torch.Generator().manual_seed(4), DEFAULT, 3000, (35.0, 70.0))
    beam = link_moments(links.covariance, links.snr_db, 0.5).beam_rad
    found = read(reader, links)
    better = (found.bearing_rad - links.bearing_rad).square().mean() / (beam - links.bearing_rad).square().mean()
    assert float(better) < 0.6
    rest = (found.correction_db - links.correction_db).square().mean() / links.correction_db.square().mean()
    assert float(rest) < 0.87


def test_learning_follows_from_the_seed_and_leaves_the_global_generator_alone() -> None:
    settings = LearningSettings(links=1000, epochs=5, batch_size=50, width=16)
    before = torch.get_rng_state()
    one = learn_links(SMALL, settings)
    with torch.inference_mode():
        again = learn_links(SMALL, settings)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, again.state()[name]) for name, value in one.state().items())
    other = learn_links(SMALL, dataclasses.replace(settings, seed=1))
    assert not torch.equal(one.weights[0], other.weights[0])
    links = simulate_links(torch.Generator().manual_seed(5), SMALL, 2000, (35.0, 70.0))
    moments = link_moments(links.covariance, links.snr_db, 0.5)
    error = LinkNetwork.of_state(one.state()).read(moments).bearing_rad - links.bearing_rad
    assert float(error.square().mean()) < 0.9 * float((moments.beam_rad - links.bearing_rad).square().mean())


def test_networks_that_do_not_come_along_are_refused_where_none_may_be_learned() -> None:
    assert isinstance(link_network(DEFAULT, training=False), LinkNetwork)
    with pytest.raises(ValueError, match=r"no link network for 3 antennas .* use links=likelihood") as caught:
        link_network(SMALL, training=False)
    assert "\n" not in str(caught.value)


def test_matrices_that_are_no_covariances_are_refused() -> None:
    good = waves(0.5, 2.0)
    check_covariances(torch.cat((good, torch.zeros_like(good))))
    uneven = good.clone()
    uneven[0, 0, 3] *= 1.5
    with pytest.raises(ValueError, match="covariance of 1 links is not Hermitian"):
        check_covariances(uneven)
    for shift in (-0.3, -10.0):
        with pytest.raises(ValueError, match="covariance of 1 links is not positive semidefinite"):
            check_covariances(torch.cat((good, good + shift * torch.eye(8))))
    with pytest.raises(ValueError, match="single antennas"):
        check_covariances(good[:, :1, :1])


@pytest.mark.parametrize("antennas", [2, 3, 8, 17])
def test_compiled_moments_are_those_of_torch(antennas: int, monkeypatch: pytest.MonkeyPatch) -> None:
    law = dataclasses.replace(DEFAULT, num_antennas=antennas)
    # 33 links fill two vectors of sixteen and one lane. With more SNR rounding decides the last pivots.
    links = simulate_links(torch.Generator().manual_seed(3), law, 33, (0.0, 20.0))
    if not kernel.serves(links.covariance):
        pytest.skip("there is no compiler here")
    ours = link_moments(links.covariance, links.snr_db, 0.5)
    monkeypatch.setattr(kernel, "serves", lambda _: False)
    theirs = link_moments(links.covariance, links.snr_db, 0.5)
    assert torch.equal(ours.mirrored, theirs.mirrored)
    # Between two antennas the parabola through three beams is so flat that rounding moves its top.
    torch.testing.assert_close(ours.beam_rad, theirs.beam_rad, rtol=0, atol=2e-2 if antennas == 2 else 1e-3)
    sharp = (ours.beam_rad - theirs.beam_rad).abs() < 1e-5
    assert bool(sharp.any())
    torch.testing.assert_close(ours.values[sharp], theirs.values[sharp], rtol=5e-3, atol=5e-3)


def test_compiled_networks_read_what_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    links = simulate_links(torch.Generator().manual_seed(3), DEFAULT, 50, (0.0, 20.0))
    if not kernel.serves(links.covariance):
        pytest.skip("there is no compiler here")
    ours = network_readings(links.covariance, links.snr_db, DEFAULT)
    monkeypatch.setattr(kernel, "serves", lambda _: False)
    theirs = network_readings(links.covariance, links.snr_db, DEFAULT)
    for name, value in vars(ours).items():
        torch.testing.assert_close(value, getattr(theirs, name), rtol=1e-3, atol=1e-3)


def test_networks_of_other_arrays_are_refused_before_anything_is_read() -> None:
    network, links = link_network(DEFAULT), waves(1.1, antennas=5)
    tables = kernel.NetworkTables(network.mean, network.scale, 4.0, network.weights, network.biases)
    with pytest.raises(ValueError, match="a network of 51 features cannot read arrays of 5 antennas"):
        kernel.compiled_outputs(links, torch.tensor([10.0]), array_tables(5, 0.5), tables)


def test_covariances_of_double_precision_and_with_gradients_are_left_to_torch() -> None:
    covariance = waves(1.1)
    assert not kernel.serves(covariance.to(torch.complex128))
    assert not kernel.serves(covariance.requires_grad_())
