"""Fingerprints: exact matches, exact search, known accuracy, lost links."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from baselines import make_policy
from baselines.dcp.database import PredictedDatabase, SurveyedDatabase, reference_points
from baselines.dcp.matching import median_position
from baselines.dcp.nearest import FEATURES, Queries, nearest_references, weighted_position
from baselines.dcp.radio_map import RadioMap
from baselines.dcp.survey import simulate_survey
from cfpos_envs.physics.geometry import lattice
from cfpos_envs.physics.similarity import aoa_similarity
from tests.baselines.dcp.synthetic import draw_drops, errors_m, noise_free_drop, radio_model, rmse_m, with_lost_links


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("matching", ["nn", "wknn"])
def test_a_measurement_like_a_reference_finds_that_reference(feature: str, matching: str) -> None:
    points = lattice(100.0, 5.0)[torch.tensor([[0, 19], [210, 399]])]
    drop = noise_free_drop(points, seed=5)
    estimate = make_policy("fingerprint", feature=feature, matching=matching, spacing=5.0).locate(drop.measurements)
    # The table of directions is rounded to a quarter of a degree, so angular matches are not perfect to the last digit.
    limit = 0.3 if (feature, matching) == ("aoa", "wknn") else 0.02
    assert errors_m(drop, estimate.position).max() < limit


# RMSE of nearest neighbour and 4-WKNN, metres; unshadowed, 36 APs with 8 antennas, model-based database.
KNOWN = {
    (2.5, "rss-db"): (1.07, 0.51),
    (2.5, "eq7"): (1.41, 1.04),
    (2.5, "joint-db"): (1.05, 0.48),
    (2.5, "aoa"): (1.20, 0.94),
    (0.5, "rss-db"): (0.33, 0.29),
    (0.5, "eq7"): (0.76, 0.67),
    (0.5, "joint-db"): (0.32, 0.28),
    (0.5, "aoa"): (0.44, 0.43),
}


@pytest.mark.parametrize(("spacing", "feature"), KNOWN)
def test_accuracy_by_spacing_and_feature(spacing: float, feature: str) -> None:
    drop = draw_drops(80, seed=1, num_sites=2)
    for matching, expected in zip(("nn", "wknn"), KNOWN[spacing, feature]):
        policy = make_policy("fingerprint", feature=feature, matching=matching, spacing=spacing)
        assert rmse_m(drop, policy.locate(drop.measurements).position) == pytest.approx(expected, rel=0.15)


def test_a_known_map_helps_and_an_unknown_one_hurts() -> None:
    unknown = draw_drops(40, seed=1, num_sites=2, shadowing_db=4.0)
    known = dataclasses.replace(
        unknown, measurements=dataclasses.replace(unknown.measurements, shadowing_maps=unknown.maps_db)
    )
    rss = make_policy("fingerprint", feature="rss-db", spacing=1.0)
    assert rmse_m(known, rss.locate(known.measurements).position) < 0.4
    assert rmse_m(unknown, rss.locate(unknown.measurements).position) > 2.0


def test_a_surveyed_database_is_noisier_than_a_predicted_one() -> None:
    drop = draw_drops(30, seed=1, num_sites=1)
    predicted = make_policy("fingerprint", spacing=2.5, matching="nn").locate(drop.measurements)
    surveyed = make_policy("fingerprint", spacing=2.5, matching="nn", database="surveyed").locate(drop.measurements)
    assert rmse_m(drop, predicted.position) < rmse_m(drop, surveyed.position) < 2.0


@pytest.mark.parametrize("feature", ["eq7", "joint-db", "aoa", "rss-db"])
@pytest.mark.parametrize("surveyed", [False, True])
def test_the_search_is_exact(feature: str, surveyed: bool) -> None:
    # Unknown shadowing moves the measurements far from every reference: the bound of the ratio search must widen.
    drop = draw_drops(3, seed=2, num_aps=9, num_sites=1, shadowing_db=6.0)
    site = RadioMap.of(drop.measurements).select(0)
    points = reference_points(100.0, 4.0, "cells")
    survey = simulate_survey(site, points, seed=0)
    assert survey.angular_power is not None
    database = (
        SurveyedDatabase(points, survey.rss_dbm, survey.angular_power) if surveyed else PredictedDatabase(site, points)
    )
    rss = drop.measurements.rss_dbm.transpose(1, 2).flatten(0, 1)
    spectra = drop.measurements.angular_power.transpose(1, 2).flatten(0, 1)
    columns = torch.tensor([0, 2, 3, 7])
    distances, found = nearest_references(database, Queries(rss, spectra), columns, feature, 4)

    unit = torch.nn.functional.normalize(spectra, dim=-1)[:, None]
    cosine = (unit * database.unit_spectra()[None]).sum(dim=-1)[..., columns]
    xi_a = aoa_similarity(cosine)
    level = database.rss_dbm.max()
    linear = torch.pow(10, (rss - level) / 10)[:, None] - torch.pow(10, (database.rss_dbm - level) / 10)[None]
    decibels = rss[:, None] - database.rss_dbm[None]
    expected = {
        "rss-db": decibels[..., columns].norm(dim=-1),
        "aoa": torch.sqrt(2 - 2 * xi_a),
        "eq7": linear[..., columns].norm(dim=-1) / xi_a,
        "joint-db": decibels[..., columns].norm(dim=-1) / xi_a,
    }[feature]
    best = expected.topk(4, largest=False)
    torch.testing.assert_close(distances, best.values, rtol=1e-4, atol=1e-5)
    assert (found == best.indices).float().mean() > 0.95  # ties may fall either way


def test_weighted_position_by_hand_and_over_the_seam() -> None:
    points = torch.tensor([[[99.0, 50.0], [1.0, 50.0]]])
    # Weights 1 / 1 and 1 / 3: a quarter of the way from 99 m across the seam to 1 m.
    located = weighted_position(points, torch.tensor([[1.0, 3.0]]), 100.0, True)
    torch.testing.assert_close(located, torch.tensor([[99.5, 50.0]]))
    flat = weighted_position(points, torch.tensor([[1.0, 3.0]]), 100.0, False)
    torch.testing.assert_close(flat, torch.tensor([[74.5, 50.0]]))


def test_median_position_ignores_an_outlier_and_the_seam() -> None:
    answers = torch.tensor([[[99.0, 10.0]], [[1.0, 10.0]], [[0.5, 10.0]], [[0.2, 60.0]], [[98.0, 10.0]]])
    centre = torch.remainder(median_position(answers, 100.0, True), 100.0)
    torch.testing.assert_close(centre, torch.tensor([[0.2, 10.0]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(median_position(answers, 100.0, False), torch.tensor([[1.0, 10.0]]))


def test_per_ap_answers_fused_by_the_median_are_coarser_but_sane() -> None:
    drop = draw_drops(6, seed=1, num_sites=1, radio=radio_model(wrap=False))
    central = make_policy("fingerprint", spacing=5.0).locate(drop.measurements)
    median = make_policy("fingerprint", spacing=5.0, fusion="median").locate(drop.measurements)
    assert rmse_m(drop, central.position) < rmse_m(drop, median.position) < 30.0


def test_batches_and_single_episodes_agree() -> None:
    drop = draw_drops(6, seed=4, num_sites=3, shadowing_db=4.0)
    policy = make_policy("fingerprint", spacing=2.5)
    together = policy.locate(drop.measurements).position
    single = [policy.locate(drop.measurements.select(slice(i, i + 1))).position for i in range(6)]
    torch.testing.assert_close(together, torch.cat(single), atol=1e-3, rtol=0)


def test_lost_links_are_left_out_and_silence_is_invalid() -> None:
    drop = draw_drops(4, seed=6, num_sites=1)
    lost = torch.zeros(4, 36, 6, dtype=torch.bool)
    lost[0, ::3, 1] = True
    lost[1, :, 2] = True
    for value in (math.nan, -math.inf):
        policy = make_policy("fingerprint", spacing=2.5)
        estimate = policy.locate(with_lost_links(drop.measurements, lost, value))
        assert torch.isfinite(estimate.position).all()
        assert not estimate.valid[1, 2]
        assert int(estimate.valid.sum()) == 23
        assert errors_m(drop, estimate.position)[0, 1] < 2.0


def test_rss_alone_needs_no_spectra() -> None:
    drop = draw_drops(2, seed=6, num_sites=1)
    blind = dataclasses.replace(
        drop.measurements, angular_power=torch.full_like(drop.measurements.angular_power, math.nan)
    )
    assert make_policy("fingerprint", feature="rss-db", spacing=5.0).locate(blind).valid.all()
    assert not make_policy("fingerprint", spacing=5.0).locate(blind).valid.any()


def test_databases_are_kept_per_site_and_bounded() -> None:
    policy = make_policy("fingerprint", spacing=10.0)
    for seed in range(20):
        policy.locate(draw_drops(4, seed=seed, num_aps=4, num_ues=1, num_sites=2).measurements)
        policy.locate(draw_drops(4, seed=seed, num_aps=4, num_ues=1, num_sites=2).measurements)
        assert len(policy._cache) == min(2 * (seed + 1), 32)


def test_a_site_with_the_same_number_but_other_content_is_another_site() -> None:
    here, there = (draw_drops(2, seed=seed, num_sites=1) for seed in (1, 2))
    used = make_policy("fingerprint", spacing=5.0)
    used.locate(here.measurements)
    fresh = make_policy("fingerprint", spacing=5.0)
    assert torch.equal(used.locate(there.measurements).position, fresh.locate(there.measurements).position)


def test_surveys_repeat_by_seed_and_follow_the_map() -> None:
    drop = draw_drops(1, seed=1, num_sites=1, shadowing_db=4.0, map_known=True)
    site, points = RadioMap.of(drop.measurements).select(0), reference_points(100.0, 10.0, "border")
    first, again, other = (simulate_survey(site, points, seed) for seed in (0, 0, 1))
    assert torch.equal(first.rss_dbm, again.rss_dbm)
    assert not torch.equal(first.rss_dbm, other.rss_dbm)
    assert len(points) == 121
    deviation = (first.rss_dbm - site.rss_dbm(points).T).std()
    assert 0.1 < deviation < 0.6  # sampling noise only: the 4 dB of the map are in both
