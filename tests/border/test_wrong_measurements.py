"""Measurements that are wrong as a whole: no estimator answers them with confidence; right ones stay valid."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from cfpos.baselines.dcp.links import alike_counts, some_aps
from cfpos.baselines.registry import make_policy
from cfpos.baselines.validity import pooled_misfit
from cfpos_envs import make_env
from scripts.faulty import measured


@pytest.mark.parametrize(
    ("what", "game", "policies", "users"),
    [
        ("all ranges 0 m", "tdoa-v0", ("toa-em", "toa-huber"), 60),
        ("all powers -200 dBm", "dcp-jar-v0", ("rss-gn", "centroid"), 30),
        ("12 of 16 APs lost", "dcp-jar-v0", ("fingerprint",), 150),
        ("all links NLOS", "toa-v0", ("toa-em", "toa-huber"), 80),
        ("all links NLOS", "tdoa-v0", ("toa-nlos-drop",), 100),
        ("all links NLOS", "dcp-jar-v0", ("rss-mmse", "joint-em"), 60),
    ],
)
def test_wrong_measurements_get_no_confident_answers(what: str, game: str, policies: Sequence[str], users: int) -> None:
    (case,) = [
        case
        for case in measured.cases()
        if (case.what, case.env_id) == (what, game) and set(policies) <= set(case.policies)
    ]
    for row in measured.rows([dataclasses.replace(case, policies=policies)], users, 0):
        assert not measured.too_confident(row), row
        assert row["valid"] == 1.0 or row["reason"] != "-"


def test_a_centroid_knows_how_many_access_points_it_is_made_of() -> None:
    env = make_env("dcp-rss-v0", num_envs=60, seed=1, num_aps=16, num_sites=1, wrap=False)
    env.reset(seed=1)
    whole, truth = env.measurements, env.truth()["true_position"]
    spreads = []
    for count in (16, 4, 1):
        found = make_policy("centroid").locate(measured.heard_by(count)(whole, torch.Generator().manual_seed(0)))
        error = torch.linalg.vector_norm(found.position - truth, dim=-1)
        std = found.covariance.diagonal(dim1=-2, dim2=-1).sum(dim=-1).sqrt()
        spreads.append(float(std.median()))
        assert float((error > 5 * std).double().mean()) < 0.01
    # Where a single AP stands is anywhere: 100 m / sqrt(6) and more.
    assert spreads == sorted(spreads)
    assert spreads[-1] > 40.0


def test_numbers_of_access_points_are_rounded_to_half_octaves() -> None:
    heard = torch.arange(16) < torch.tensor([16, 15, 12, 11, 10, 8, 5, 4, 3, 1, 0])[:, None]
    # 16 / 2^(i / 2): 16, 11.3, 8, 5.66, 4, 2.83, 2, 1.41, 1.
    assert alike_counts(heard).tolist() == [16, 11, 11, 8, 8, 8, 4, 4, 2, 1, 0]
    sets = some_aps(40, 16, 5, seed=0)
    assert (sets.sum(dim=1) == 5).all()
    assert len(sets.unique(dim=0)) == 16


def test_a_group_that_fits_one_by_one_may_not_fit_together() -> None:
    # 99.9 % quantile of 20 degrees of freedom 45.3: 32 passes alone (p = .043); 192 of 120 has p = 3e-5.
    freedom = torch.full((1, 6), 20)
    assert pooled_misfit(torch.full((1, 6), 32.0), freedom).tolist() == [[True]]
    assert pooled_misfit(torch.full((1, 6), 26.0), freedom).tolist() == [[False]]
    # One user counts for 45.3 at most, and alone for nothing: 4 * 20 + 45.3 of 100 is right enough.
    assert pooled_misfit(torch.tensor([[1e6, 20.0, 20.0, 20.0, 20.0]]), freedom[:, :5]).tolist() == [[False]]
    assert pooled_misfit(torch.tensor([[1e6]]), freedom[:, :1]).tolist() == [[False]]
    # Of a large group a deviation that is 15 % too small is no reason, one that is 25 % too small is.
    many = torch.full((1, 500), 20)
    assert pooled_misfit(20.0 * 1.15**2 * torch.ones(1, 500), many).tolist() == [[False]]
    assert pooled_misfit(20.0 * 1.25**2 * torch.ones(1, 500), many).tolist() == [[True]]
