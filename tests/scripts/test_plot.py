"""The pictures of scripts/plot.py: what is drawn obeys its equations, files are written, wrong words are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cfpos_envs.evaluation import evaluate_many
from cfpos_envs.physics.geometry import grid_layout
from cfpos_envs.physics.toa.maps import timing_drop_bound
from cfpos_envs.physics.units import SPEED_OF_LIGHT_M_S
from scripts import plot
from scripts.plots import curves, ellipses, loci, maps, results
from scripts.plots.sites import LAYOUTS, DrawnSiteConfig, equal_range_std_m, make_site, place_aps
from tests.front_ends.toy import Greedy, OneShot, register_toy
from tests.scripts.commands import error_line, files_below, run

TOY = register_toy()
metres = st.floats(0.0, 500.0)
places = st.tuples(metres, metres).map(np.array)


@given(places, places, places, st.sampled_from([0.0, 0.0, 3.0, -25.0]))
def test_every_point_of_a_hyperbola_has_its_time_difference(
    user: np.ndarray, reference: np.ndarray, other: np.ndarray, height: float
) -> None:
    gap = float(np.hypot(*(other - reference)))
    assume(gap > 1.0)
    tdoa_s = float(curves.range_difference_m(user, reference, other, height)) / SPEED_OF_LIGHT_M_S
    difference = SPEED_OF_LIGHT_M_S * tdoa_s
    assume(abs(difference) < 0.999 * gap)
    for near, reach in ((None, 1000.0), (user, 2.0)):
        points = curves.hyperbola_points(reference, other, difference, height, reach, near=near)
        found = curves.range_difference_m(points, reference, other, height)
        np.testing.assert_allclose(found, difference, rtol=0, atol=1e-9)
    # The close-up goes through the user.
    assert np.hypot(*(points - user).T).min() < 0.1 * max(1.0, gap / math.sqrt(gap**2 - difference**2))


def test_special_hyperbolae_by_hand() -> None:
    left, right = np.array([-50.0, 0.0]), np.array([50.0, 0.0])
    bisector = curves.hyperbola_points(left, right, 0.0, 0.0, 200.0)
    np.testing.assert_allclose(bisector[:, 0], 0.0, atol=1e-12)
    assert bisector[:, 1].min() == pytest.approx(-200)
    assert bisector[:, 1].max() == pytest.approx(200)
    ray = curves.hyperbola_points(left, right, 100.0, 0.0, 200.0)  # behind the nearer AP, the reference
    np.testing.assert_allclose(ray[:, 1], 0.0, atol=1e-12)
    assert ray[:, 0].max() == pytest.approx(-50)
    assert ray[:, 0].min() == pytest.approx(-200)
    # 60 m nearer to the reference: half axes 30 and 40, vertex at -30.
    vertex = curves.hyperbola_points(left, right, 60.0, 0.0, 200.0)[200]
    np.testing.assert_allclose(vertex, [-30.0, 0.0], atol=1e-12)
    # 40 m above the plane both half axes are sqrt(1 + 1) longer.
    np.testing.assert_allclose(curves.hyperbola_points(left, right, 60.0, 40.0, 200.0)[200, 0], -30 * math.sqrt(2))
    assert curves.hyperbola_points(left, right, 99.999, 40.0, 200.0).shape == (0, 2)
    with pytest.raises(ValueError, match="smaller than their distance"):
        curves.hyperbola_points(left, right, 101.0, 0.0, 200.0)
    with pytest.raises(ValueError, match="at one place"):
        curves.hyperbola_points(left, left, 0.0, 0.0, 200.0)


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.integers(3, 7), st.sampled_from([0.0, 12.0]))
def test_the_user_is_among_the_fixes_and_every_fix_fits(seed: int, count: int, height: float) -> None:
    rng = np.random.default_rng(seed)
    aps, user = rng.uniform(0, 500, (count, 2)), rng.uniform(0, 500, 2)
    differences = np.array([curves.range_difference_m(user, aps[0], other, height) for other in aps[1:]])
    fixes = curves.tdoa_fixes(aps, differences, height)
    assert 1 <= len(fixes) <= (2 if count == 3 else 1)
    assert np.hypot(*(fixes - user).T).min() < 1e-3
    for fix in fixes:
        found = [curves.range_difference_m(fix, aps[0], other, height) for other in aps[1:]]
        np.testing.assert_allclose(found, differences, atol=1e-3)


def test_two_aps_leave_a_curve_and_a_line_a_mirror_image() -> None:
    user = np.array([310.0, 180.0])

    def fixes(aps: np.ndarray) -> np.ndarray:
        differences = np.array([curves.range_difference_m(user, aps[0], other, 10.0) for other in aps[1:]])
        return curves.tdoa_fixes(aps, differences, 10.0)

    line = place_aps(DrawnSiteConfig(layout="line", aps=4)).numpy()
    assert fixes(line[:2]).shape == (0, 2)
    found = fixes(line)
    np.testing.assert_allclose(found[np.argsort(found[:, 1])], [[310, 180], [310, 320]], atol=1e-6)
    assert fixes(np.vstack((line[:2], [[100.0, 400.0], [420.0, 60.0]]))).shape == (1, 2)


def test_ellipse_is_the_contour_of_the_information() -> None:
    fisher = np.array([[4.0, 1.5], [1.5, 1.0]])
    centre = np.array([30.0, 40.0])
    points = curves.ellipse_points(fisher, centre, 0.95, count=4001)
    away = points - centre
    chi2 = -2 * math.log(0.05)
    np.testing.assert_allclose(np.einsum("pi,ij,pj->p", away, fisher, away), chi2, rtol=1e-9)
    area = 0.5 * abs(float(np.sum(away[:-1, 0] * away[1:, 1] - away[1:, 0] * away[:-1, 1])))
    assert area == pytest.approx(math.pi * chi2 / math.sqrt(np.linalg.det(fisher)), rel=1e-5)
    lengths = np.hypot(*curves.ellipse_points(np.diag([1.0, 4.0]), np.zeros(2), None, enlarged=10, count=401).T)
    assert lengths.max() == pytest.approx(10.0)
    assert lengths.min() == pytest.approx(5.0)
    assert curves.ellipse_points(np.diag([1.0, 0.0]), centre).shape == (0, 2)


def test_layouts() -> None:
    for count in (4, 9, 16, 36, 100):
        grid = place_aps(DrawnSiteConfig(layout="grid", aps=count)).numpy()
        lattice = grid_layout(count, 500.0).double().numpy()
        np.testing.assert_allclose(grid[np.lexsort(grid.T)], lattice[np.lexsort(lattice.T)], atol=1e-4)
    for layout in LAYOUTS:
        for count in (1, 2, 7, 23):
            aps = place_aps(DrawnSiteConfig(layout=layout, aps=count))
            assert aps.shape == (count, 2)
            assert aps.dtype == torch.float64
            assert bool(((aps >= 0) & (aps <= 500)).all())
    ring = place_aps(DrawnSiteConfig(layout="circle", aps=7, radius_m=60.0))
    torch.testing.assert_close(torch.linalg.vector_norm(ring - 250, dim=-1), torch.full((7,), 60.0).double())
    assert place_aps(DrawnSiteConfig(layout="line", aps=5))[:, 1].unique().numel() == 1


def test_links_have_the_snr_that_was_asked_for() -> None:
    distance = torch.tensor([100.0, 1000.0], dtype=torch.float64)
    lossy, equal = (make_site(DrawnSiteConfig(snr_db=17.0, equal_snr=flag)).model for flag in (False, True))
    torch.testing.assert_close(10 * lossy.snr_linear(distance).log10(), torch.tensor([17.0, -4.0]).double())
    torch.testing.assert_close(10 * equal.snr_linear(distance).log10(), torch.tensor([17.0, 17.0]).double())
    # 20 dBm - (32.4 + 42 + 10.88) dB, thermal noise of 30 kHz at 290 K with 7 dB: -122.2 dBm.
    assert DrawnSiteConfig(tx_power_dbm=20.0).reference_snr_db == pytest.approx(20 - 85.281 + 122.204, abs=0.01)
    # A burst from the centre: the AP at the distance of 100 m keeps the noise of 17 dB.
    burst = make_site(DrawnSiteConfig(snr_db=17.0, sync="ota", layout="circle", aps=3, radius_m=100.0, ap_height_m=0.0))
    noise_s = 1 / math.sqrt(8 * math.pi**2 * burst.model.rms_bandwidth_hz**2 * 10**1.7)
    torch.testing.assert_close(burst.sync_std_s, torch.full((3,), noise_s, dtype=torch.float64), rtol=1e-9, atol=0.0)


@pytest.mark.parametrize("family", ["toa", "tdoa", "rtt"])
def test_maps_agree_with_single_points(family: str) -> None:
    site = make_site(DrawnSiteConfig(family=family, layout="uniform", aps=9, sync="ota", seed=3))
    bound = maps.peb_map(site, 25.0)
    rows, columns = np.meshgrid(np.arange(21), np.arange(21), indexing="ij")
    points = torch.from_numpy(np.stack((bound.x_m[columns], bound.y_m[rows]), axis=-1)).reshape(-1, 2)
    single = timing_drop_bound(site.model, site.ap_positions_m, site.height_diff_m, points, sync_std_s=site.sync_std_s)
    np.testing.assert_allclose(bound.values_m.ravel(), single.numpy(), rtol=1e-6)
    x, y, value = bound.best
    assert value == bound.values_m.min()
    assert value == bound.values_m[list(bound.y_m).index(y), list(bound.x_m).index(x)]


def test_the_ring_is_best_at_its_centre_only_for_equal_links() -> None:
    unit = equal_range_std_m(maps.RING)
    equal = maps.peb_map(make_site(replace(maps.RING, equal_snr=True)), 10.0)
    assert equal.best[:2] == (250.0, 250.0)
    assert equal.best[2] / unit == pytest.approx(2 / math.sqrt(20), rel=1e-6)  # 0.4472
    assert equal.values_m.min() >= equal.best[2] * (1 - 1e-12)
    lossy = maps.peb_map(make_site(maps.RING), 10.0)
    x, y, value = lossy.best
    assert 180 < math.hypot(x - 250, y - 250) < 220
    assert value < 0.6 * lossy.values_m[25, 25]


def test_levels_and_colours_fit_the_map() -> None:
    assert maps.contour_levels(0.05, 20.0) == [0.1, 0.3, 1.0, 3.0, 10.0]
    assert maps.contour_levels(0.15, 0.6) == [0.2, 0.3, 0.5]
    assert maps.contour_levels(0.11, 0.19) == [0.12, 0.15]
    values = np.array([[0.12, 0.5], [2.2, np.inf]])
    assert maps.colour_range(values) == (0.1, 3.0)
    assert maps.colour_range(np.full((2, 2), np.inf)) == (0.1, 10.0)
    low, high = maps.colour_range(np.full((2, 2), 0.3))
    assert low <= 0.3 <= high
    assert high >= 2 * low


def test_every_contour_is_labelled_with_its_level() -> None:
    figure, bound = maps.peb_map_figure(DrawnSiteConfig(family="tdoa", layout="circle", aps=6), 5.0)
    axes = figure.axes[0]
    labels = [label for label in axes.texts if label.get_text().endswith(" m")]
    assert {"0.3 m", "1 m"} <= {label.get_text() for label in labels}
    for label in labels:
        x, y = label.get_position()
        near = bound.values_m[np.abs(bound.y_m - y).argmin(), np.abs(bound.x_m - x).argmin()]
        assert near == pytest.approx(float(label.get_text().removesuffix(" m")), rel=0.25)
    assert len({(round(x), round(y)) for x, y in (label.get_position() for label in labels)}) == len(labels)


def test_ellipses_are_enlarged_by_a_round_factor_that_fills_the_lattice() -> None:
    assert ellipses.enlargement(np.array([0.1, 0.2, np.inf]), 50.0) == 100.0
    assert ellipses.enlargement(np.array([np.inf]), 50.0) == 1.0
    site = make_site(DrawnSiteConfig(family="tdoa", aps=4))
    points, fisher = ellipses.lattice_fisher(site, 100.0)
    assert points.shape == (25, 2)
    assert fisher.shape == (25, 2, 2)
    np.testing.assert_allclose(fisher[7], loci.user_fisher(site, points[7]), rtol=1e-9, atol=1e-12)


def test_time_and_tdoa_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot.main(["peb-map", "--aps", "5", "--resolution", "20", "--time", "--out", str(tmp_path / "a.png")])
    assert "676 points x 5 APs: " in capsys.readouterr().out
    plot.main(["tdoa-loci", "--aps", "2", "--out", str(tmp_path / "b.png")])
    assert "every point of a curve fits" in capsys.readouterr().out
    plot.main(["tdoa-loci", "--layout", "line", "--aps", "3", "--out", str(tmp_path / "c.png")])
    assert "fits as well: x = 310.0 m, y = 320.0 m" in capsys.readouterr().out
    plot.main(["tdoa-loci", "--layout", "line", "--aps", "3", "--ue", "400", "250", "--out", str(tmp_path / "d.png")])
    assert "bound at the user: infinite" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "name", "magic"),
    [
        (["peb-map", "--resolution", "25"], "new/folder/map.png", b"\x89PNG"),
        (["peb-map", "--preset", "ring", "--resolution", "25"], "ring.svg", b"<?xml"),
        (["peb-map", "--aps", "1", "--resolution", "50"], "nothing.png", b"\x89PNG"),
        (["tdoa-loci", "--aps", "4", "--reference", "2"], "loci.pdf", b"%PDF"),
        (["ellipses", "--families", "toa", "tdoa", "--aps", "3", "--layout", "line"], "shapes.svg", b"<?xml"),
        (["episode", "--env", TOY, "--policy", "random", "--seed", "3"], "episode.pdf", b"%PDF"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_pictures_are_written_in_every_format(arguments: list[str], name: str, magic: bytes, tmp_path: Path) -> None:
    plot.main([*arguments, "--out", str(tmp_path / name)])
    content = (tmp_path / name).read_bytes()
    assert content.startswith(magic)
    assert len(content) > 5000
    if name.endswith(".svg"):
        text = content.decode()
        # Letters stay letters, units stand at the axes.
        assert "x [m]" in text
        assert "y [m]" in text
    assert files_below(tmp_path) == {str(Path(*Path(name).parts[:i])) for i in range(1, len(Path(name).parts) + 1)}


def test_distributions_are_read_from_results(tmp_path: Path) -> None:
    files = [
        result.to_json(tmp_path / f"{result.policy}.json")
        for result in evaluate_many(TOY, [OneShot(), Greedy()], episodes=5)
    ]
    figure, found = results.cdf_figure(files)
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["one-shot", "greedy", "bound (RMSE)"]
    drawn = np.asarray(axes.get_lines()[0].get_xdata())
    np.testing.assert_allclose(drawn, np.maximum(np.sort(found[0].errors, axis=None), 1e-3))
    plot.main(["cdf", *map(str, files), "--out", str(tmp_path / "cdf.png")])
    assert (tmp_path / "cdf.png").read_bytes().startswith(b"\x89PNG")
    # On other drops the bound is another one: none is drawn.
    other = evaluate_many(TOY, [OneShot()], episodes=5, seed=9)[0].to_json(tmp_path / "other.json")
    labels = [text.get_text() for text in results.cdf_figure([files[0], other])[0].axes[0].get_legend().get_texts()]
    assert labels == ["one-shot", "one-shot (other)"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["peb-mab"], "invalid choice: 'peb-mab'"),
        ([], "KIND"),
        (["peb-map", "--apps", "3"], "did you mean --aps"),
        (["peb-map", "--layout", "gird"], "did you mean grid"),
        (["peb-map", "--sync", "ptb"], "did you mean ptp"),
        (["peb-map", "--family", "tdo"], "did you mean tdoa"),
        (["peb-map", "--aps", "0"], "aps must lie in [1, 1000], got 0"),
        (["peb-map", "--aps", "few"], "invalid int value: 'few'"),
        (["peb-map", "--bandwidth", "0"], "bandwidth must lie in"),
        (["peb-map", "--snr", "nan"], "snr must lie in"),
        (["peb-map", "--side", "-5"], "side must lie in"),
        (["peb-map", "--resolution", "0"], "--resolution=0 must lie in"),
        (["peb-map", "--equal-snr", "--tx-power", "20"], "exclude each other"),
        (["peb-map", "--preset", "ring", "--equal-snr"], "shows both"),
        (["peb-map", "--out", "map.bmp"], "must end in .png, .svg or .pdf"),
        (["tdoa-loci", "--aps", "1"], "draws 2 to 12 APs"),
        (["tdoa-loci", "--reference", "3"], "must be an AP index in [0, 2]"),
        (["tdoa-loci", "--ue", "600", "0"], "--ue must lie in the area"),
        (["tdoa-loci", "--family", "toa"], "--family is unknown"),
        (["ellipses", "--families", "toe"], "did you mean toa"),
        (["ellipses", "--spacing", "0"], "--spacing=0 must lie in"),
        (["ellipses", "--enlarged", "-1"], "must be a positive factor"),
        (["cdf", "nowhere.json"], "nowhere.json"),
        (["cdf"], "FILE"),
        (["episode", "--env", "dcp-ja-v0", "--policy", "music"], "did you mean dcp-jar-v0"),
        (["episode", "--env", TOY, "--policy", "musik"], "music"),
        (["episode", "--env", TOY, "--policy", "random", "--set", "num_aps"], "must look like num_aps=16"),
        (["episode", "--env", TOY, "--policy", "random", "--set", "no_such=1"], "unknown override 'no_such'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        plot.main([*arguments, *([] if "--out" in arguments or not arguments else ["--out", "x.png"])])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert ended.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert said in lines[0]
    assert files_below(tmp_path) == set()


def test_an_unwritable_place_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{}")
    assert "cannot write" in error_line(run("plot", "ellipses", "--out", "file/x.png", folder=tmp_path))
    assert "not an evaluation result" in error_line(run("plot", "cdf", "file", "--out", "x.png", folder=tmp_path))
    # A refused command makes no folder for its picture either.
    assert "not an evaluation result" in error_line(run("plot", "cdf", "file", folder=tmp_path))
    assert files_below(tmp_path) == {"file"}
    assert not (tmp_path / "outputs").exists()
