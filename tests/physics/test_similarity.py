import math

import pytest
import torch
from scipy import stats

from cfpos_envs.physics import similarity
from cfpos_envs.physics.arrays import angle_profile, normalised_spectra, read_profile, scattered_spectra
from cfpos_envs.physics.dcp.innovations import predicted_rss_dbm
from cfpos_envs.physics.dcp.links import link_geometry
from cfpos_envs.physics.dcp.model import RadioModel
from cfpos_envs.physics.geometry import displacement
from cfpos_envs.physics.units import dbm_to_watts


def test_aoa_similarity_by_hand_as_printed_and_averaged() -> None:
    cosine = torch.tensor([[1.0, 0.5, 0.0, 0.5], [1.0, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(similarity.aoa_similarity(cosine), torch.tensor([0.5, 1.0]))
    # Eq. (8) as printed divides the sum by sqrt(M): a perfect match gives sqrt(4) = 2, not 1.
    torch.testing.assert_close(similarity.aoa_similarity(cosine, None, "paper"), torch.tensor([1.0, 2.0]))
    mask = torch.tensor([[True, True, False, False], [True, False, False, False]])
    torch.testing.assert_close(similarity.aoa_similarity(cosine, mask), torch.tensor([0.75, 1.0]))
    expected = torch.tensor([1.5 / math.sqrt(2), 1.0])
    torch.testing.assert_close(similarity.aoa_similarity(cosine, mask, "paper"), expected)
    with pytest.raises(ValueError, match="'paper' or 'mean'"):
        similarity.aoa_similarity(cosine, None, "sum")


def test_rss_distance_by_hand_is_zero_for_a_perfect_match() -> None:
    measured = torch.tensor([[3.0, 4.0], [1.0, 1.0], [0.0, 2.0]])
    predicted = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    # Distances 5, 0 and 1 over their maximum: the best user gets 0 and the worst 1, so this is no similarity.
    torch.testing.assert_close(similarity.rss_distance_paper(measured, predicted), torch.tensor([1.0, 0.0, 0.2]))
    perfect = similarity.rss_distance_paper(measured, measured)
    assert torch.equal(perfect, torch.zeros(3))


def test_rss_distance_forgets_its_scale() -> None:
    measured, predicted = torch.rand(2, 3, 5, generator=torch.Generator().manual_seed(1))
    far = measured + 1000.0 * (predicted - measured)
    near = similarity.rss_distance_paper(measured, predicted)
    torch.testing.assert_close(similarity.rss_distance_paper(measured, far), near, rtol=1e-4, atol=1e-5)


def test_joint_similarity_is_the_quotient_with_a_floor() -> None:
    xi = similarity.joint_similarity_paper(torch.tensor([0.8, 0.5]), torch.tensor([0.4, 0.0]))
    torch.testing.assert_close(xi, torch.tensor([2.0, 5e5]))


def test_log_similarities_by_hand() -> None:
    residual = torch.tensor([[3.0, 4.0, 0.0, 0.0]])
    # rms = sqrt(25 / 4) = 2.5.
    assert float(similarity.rss_log_similarity(residual)) == pytest.approx(-math.log(2.55), rel=1e-5)
    masked = similarity.rss_log_similarity(residual, torch.tensor([[False, True, False, False]]))
    assert float(masked) == pytest.approx(-math.log(4.05), rel=1e-5)
    assert float(similarity.rss_log_similarity(torch.zeros(1, 3))) == pytest.approx(-math.log(0.05), rel=1e-3)
    cosine = torch.tensor([[0.9, 0.7]])
    assert float(similarity.aoa_log_similarity(cosine)) == pytest.approx(-math.log(0.2), rel=1e-5)
    assert float(similarity.aoa_log_similarity(torch.ones(1, 2))) == pytest.approx(-math.log(1e-6), rel=1e-5)


def test_robust_likelihoods_by_hand() -> None:
    z = torch.tensor([0.0, 2.0, -2.0])
    expected = torch.tensor([0.0, -2.5 * math.log(2.0), -2.5 * math.log(2.0)])
    torch.testing.assert_close(similarity.robust_similarity(z), expected)
    torch.testing.assert_close(similarity.cauchy_similarity(z), torch.tensor([0.0, -math.log(5.0), -math.log(5.0)]))


def test_masked_statistics() -> None:
    values = torch.tensor([[5.0, 1.0, 9.0], [2.0, 4.0, 6.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert similarity.masked_mean(values, mask).tolist() == [3.0, 0.0]
    assert similarity.masked_mean(values, None).tolist() == [5.0, 4.0]
    assert similarity.masked_median(values, mask).tolist() == [1.0, 0.0]
    assert similarity.masked_median(values, None).tolist() == [5.0, 4.0]


def test_repaired_similarity_ranks_estimates_and_the_printed_distance_does_not(radio: RadioModel) -> None:
    generator = torch.Generator().manual_seed(2)
    aps = torch.rand(36, 2, generator=generator) * 100
    orientation, height = torch.rand(36, generator=generator) * 6.28, torch.full((36,), 10.0)
    truth = torch.rand(6, 2, generator=generator) * 100
    # 300 joint estimates of 6 users with errors from 0.1 to 30 m.
    scale = 10 ** (torch.rand(300, 1, 1, generator=generator) * 2.5 - 1)
    estimates = truth + scale * torch.randn(300, 6, 2, generator=generator)

    def links(points: torch.Tensor) -> object:
        site = (aps.expand(len(points), 36, 2), orientation.expand(len(points), 36), height.expand(len(points), 36))
        return link_geometry(*site, points, 100.0, True)

    measured, predicted = links(truth[None]), links(estimates)
    rss, guess = predicted_rss_dbm(radio, measured), predicted_rss_dbm(radio, predicted)
    table = normalised_spectra(181, 8, 0.5, radio.angular_spread_rad)
    profile = angle_profile(scattered_spectra(measured.angle_rad, 8, 0.5, radio.angular_spread_rad), table)
    cosine = read_profile(profile.expand(300, -1, -1, -1), predicted.folded_rad).transpose(1, 2)
    error = displacement(truth.expand(300, 6, 2), estimates, 100.0, True).diagonal(dim1=1, dim2=2)
    rmse = error.square().sum(dim=1).mean(dim=-1).sqrt()

    def rank(reward: torch.Tensor) -> float:
        return float(stats.spearmanr(reward.sum(dim=-1), -rmse).statistic)

    watts, guessed = dbm_to_watts(rss).transpose(1, 2).expand(300, 6, 36), dbm_to_watts(guess).transpose(1, 2)
    printed = similarity.rss_distance_paper(watts, guessed)
    repaired = similarity.rss_log_similarity((rss - guess).transpose(1, 2))
    assert rank(repaired) > 0.95
    assert rank(similarity.aoa_log_similarity(cosine)) > 0.95
    # Normalised by its own maximum, the printed distance knows next to nothing about the size of the errors.
    assert abs(rank(1 - printed)) < 0.4


@pytest.mark.parametrize("count", [1, 2, 5, 6, 8, 9, 20])
def test_few_slices_are_sorted_like_many(count: int) -> None:
    values = torch.randn(4, count, 3, generator=torch.Generator().manual_seed(count))
    assert torch.equal(torch.stack(similarity.sorted_along(values, 1), dim=1), values.sort(dim=1).values)


def test_median_of_a_known_number_is_the_general_one() -> None:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(50, 11, generator=generator)
    for left_out in (1, 4, 10):
        mask = torch.rand(50, 11, generator=generator).argsort(dim=1).argsort(dim=1) >= left_out
        assert torch.equal(
            similarity.masked_median(values, mask, 11 - left_out), similarity.masked_median(values, mask)
        )


def test_mean_by_shares_is_the_mean_by_the_mask() -> None:
    values = torch.tensor([[1.0, 2.0, 6.0], [1.0, 1.0, 1.0]])
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert similarity.masked_mean(values, mask).tolist() == [3.5, 0.0]
    assert similarity.masked_mean(values, similarity.shares(mask)).tolist() == [3.5, 0.0]
