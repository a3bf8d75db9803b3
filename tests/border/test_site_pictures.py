"""Pictures of a person's own site: its area, its names, its heights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cfpos_envs.physics.toa.maps import timing_drop_bound
from scripts import plot
from scripts.plots import curves, loci, maps
from scripts.plots.sites import DrawnSiteConfig, make_site

HALL = str(Path(__file__).parents[2] / "docs" / "data" / "examples" / "hall.yaml")
OWN = DrawnSiteConfig(site=HALL)


@pytest.mark.parametrize("family", ["toa", "tdoa", "rtt"])
def test_the_map_shows_the_bound_inside_the_area_alone(family: str) -> None:
    site = make_site(replace(OWN, family=family))
    assert site.height_diff_m.tolist() == [4.5, 4.5, 6.0, 4.5, 2.5, 6.0]
    figure, bound = maps.peb_map_figure(replace(OWN, family=family), 2.0)
    assert bound.values_m.shape == (13, 21)
    points = torch.from_numpy(np.stack(np.meshgrid(bound.x_m, bound.y_m), axis=-1)).reshape(-1, 2)
    single = timing_drop_bound(site.model, site.ap_positions_m, site.height_diff_m, points, sync_std_s=site.sync_std_s)
    # The office is what lies left of 12 m and above 16 m.
    office = ((points[:, 0] < 12) & (points[:, 1] > 16)).numpy()
    values = bound.values_m.ravel()
    assert bool(np.isnan(values[office]).all())
    np.testing.assert_allclose(values[~office], single.numpy()[~office], rtol=1e-6)
    assert bound.best[2] == np.nanmin(values)
    words = [text.get_text() for text in figure.axes[0].texts]
    assert "crane, 7.5 m" in words
    assert any("APs 2.5 to 6 m above the user" in line for line in words)


def test_loci_of_aps_of_different_heights_meet_at_the_user() -> None:
    site = make_site(replace(OWN, family="tdoa"))
    aps, heights = site.ap_positions_m.numpy(), site.height_diff_m.numpy()
    user = np.array([25.0, 9.0])
    differences = np.array(
        [float(curves.range_difference_m(user, aps[0], q, heights[0], h)) for q, h in zip(aps[1:], heights[1:])]
    )
    np.testing.assert_allclose(curves.tdoa_fixes(aps, differences, heights), user[None], atol=1e-6)
    for other in (2, 4, 5):  # higher, lower, higher than the reference
        low, high = np.array([-20.0, -20.0]), np.array([60.0, 44.0])
        seen = float(differences[other - 1])
        curve = curves.locus_points(aps[0], aps[other], seen, (heights[0], heights[other]), low, high)
        curve = curve[np.isfinite(curve[:, 0])]
        again = curves.range_difference_m(curve, aps[0], aps[other], heights[0], heights[other])
        assert len(curve) > 100
        np.testing.assert_allclose(again, seen, atol=0.01)
        assert float(np.hypot(*(curve - user).T).min()) < 0.3
    figure, lines = loci.tdoa_loci_figure(replace(OWN, family="tdoa"), user, "crane")
    assert "reference crane" in figure.axes[0].get_title()
    assert lines[0].startswith("bound at the user: 0.")


def test_pictures_speak_the_coordinates_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "utm.csv"
    site.write_text("name,x_m,y_m\na,691611,5411000\nb,691651,5411000\nc,691651,5411024\nd,691611,5411024\n")
    options = ["--site", str(site), "--equal-snr", "--sync", "perfect", "--ap-height", "3"]
    plot.main(["peb-map", *options, "--resolution", "4", "--out", str(tmp_path / "a.svg")])
    assert "m at (6916" in (said := capsys.readouterr().out)
    assert ", 54110" in said
    assert "x - 691611 [m]" in (tmp_path / "a.svg").read_text(encoding="utf-8")
    plot.main(["tdoa-loci", *options, "--ue", "691620", "5411010", "--out", str(tmp_path / "b.png")])
    assert "bound at the user: " in capsys.readouterr().out
    plot.main(["ellipses", "--families", "toa", *options, "--spacing", "20", "--out", str(tmp_path / "c.png")])
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["peb-map", "--site", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["peb-map", "--site", HALL, "--aps", "4"], "--site says where the APs stand; leave --aps out"),
        (["ellipses", "--site", HALL, "--side", "4"], "leave --side out"),
        (["peb-map", "--site", HALL, "--ap-height", "4"], "leave --ap-height out"),
        (["peb-map", "--site", HALL, "--preset", "ring"], "--preset ring draws its own APs"),
        (["tdoa-loci", "--site", HALL, "--reference", "crain"], "did you mean crane"),
        (["tdoa-loci", "--site", HALL, "--reference", "6"], "must be an AP index in [0, 5]"),
        (["tdoa-loci", "--site", HALL, "--ue", "5", "20"], "--ue must lie in the area of"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else "",
)
def test_wrong_words_about_a_site_are_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        plot.main([*arguments, "--out", str(tmp_path / "x.png")])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert (ended.value.code, len(lines)) == (2, 1)
    assert said in lines[0]
    assert not (tmp_path / "x.png").exists()


def test_aps_without_an_area_span_it_or_the_file_is_refused(tmp_path: Path) -> None:
    site = tmp_path / "line.csv"
    site.write_text("x_m,y_m\n0,0\n20,0\n40,0\n")
    with pytest.raises(ValueError, match="its APs span no area; declare area or side_m"):
        make_site(DrawnSiteConfig(site=str(site)))
