"""The interactive page in a real browser: its numbers are those of the physics, and it does what hands tell it."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from cfpos_envs.physics.bounds import error_ellipse
from cfpos_envs.physics.toa.bounds import gdop, unit_vectors_to
from cfpos_envs.physics.toa.maps import timing_drop_bound
from cfpos_envs.physics.toa.ranging import FAMILIES, SYNC_PRESETS
from scripts import explorer
from scripts.plots.curves import range_difference_m, tdoa_fixes
from scripts.plots.loci import user_fisher
from scripts.plots.sites import DrawnSiteConfig, Site, make_site
from tests.scripts.commands import error_line, run

BROWSER, CHROMEDRIVER = shutil.which("chromium"), shutil.which("chromedriver")
in_browser = pytest.mark.skipif(
    BROWSER is None or CHROMEDRIVER is None,
    reason="needs a browser: Debian's packages chromium and chromium-driver",
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "explorer.html"
    explorer.main(["--out", str(path)])
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    yield driver
    driver.quit()


def resize(browser: webdriver.Chrome, width: int, height: int) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture
def page(browser: webdriver.Chrome, page_file: Path) -> Iterator[webdriver.Chrome]:
    """The page, fresh at 1280 x 800; whatever a test does with it, the console must stay empty."""
    resize(browser, 1280, 800)
    browser.get(page_file.as_uri())
    wait(browser, lambda: counted(browser, "drawn") > 0)
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    # Nothing was asked of any server.
    assert browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []


def wait(browser: webdriver.Chrome, until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end, "the page did not answer within a minute"
        time.sleep(0.02)


def counted(browser: webdriver.Chrome, what: str) -> int:
    return int(browser.execute_script(f"return Number(document.documentElement.dataset.{what} || 0)"))


def after(browser: webdriver.Chrome, action: Callable[[], object], what: str = "drawn") -> None:
    """Do something and wait until the page has been drawn anew."""
    before = counted(browser, what)
    action()
    wait(browser, lambda: counted(browser, what) > before)


def text(browser: webdriver.Chrome, element: str) -> str:
    return browser.find_element(By.ID, element).text


def shown_bound(browser: webdriver.Chrome) -> float:
    return float(browser.execute_script("return Number(document.getElementById('n-peb').dataset.value)"))


def press(browser: webdriver.Chrome, element: str, key: str, times: int = 1) -> None:
    for _ in range(times):
        after(browser, lambda: browser.find_element(By.ID, element).send_keys(key))


def choose(browser: webdriver.Chrome, element: str, value: str) -> None:
    script = (
        "const e = document.getElementById(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change'))"
    )
    after(browser, lambda: browser.execute_script(script, element, value))


def user_on_screen(browser: webdriver.Chrome) -> tuple[dict[str, float], float, float]:
    """The rectangle of the map's axes, and the pixel of the user."""
    area = browser.execute_script("return document.querySelector('#map .nsewdrag').getBoundingClientRect().toJSON()")
    x, y = (float(value) for value in re.findall(r"[\d.]+", text(browser, "n-position")))
    return area, area["left"] + x / 500 * area["width"], area["bottom"] - y / 500 * area["height"]


def drag(browser: webdriver.Chrome, from_x: float, from_y: float, to_x: float, to_y: float) -> None:
    chain = ActionChains(browser, duration=20)
    pointer = chain.w3c_actions.pointer_action
    pointer.move_to_location(round(from_x), round(from_y)).pointer_down()
    pointer.move_to_location(round((from_x + to_x) / 2), round(to_y)).move_to_location(round(to_x), round(to_y))
    pointer.pointer_up()
    chain.perform()


def javascript_network(site: Site, settings: DrawnSiteConfig) -> dict[str, Any]:
    """A site of the Python side as an argument for ``Bounds.network``."""
    model = {
        "family": site.model.family,
        "rmsBandwidthHz": site.model.rms_bandwidth_hz,
        "snrReference": 10 ** (settings.snr_db / 10),
        "referenceDistanceM": 100.0,
        "slopeDb": site.model.path_loss_slope_db,
        "processingErrorS": site.model.processing_error_std_s,
    }
    aps = [
        {"x": x, "y": y, "syncS": std} for (x, y), std in zip(site.ap_positions_m.tolist(), site.sync_std_s.tolist())
    ]
    return {"model": model, "aps": aps, "heightM": settings.ap_height_m}


def single_bound(site: Site, points: np.ndarray) -> np.ndarray:
    return timing_drop_bound(
        site.model, site.ap_positions_m, site.height_diff_m, torch.from_numpy(points), sync_std_s=site.sync_std_s
    ).numpy()


SITES = [
    DrawnSiteConfig(family=family, layout=layout, aps=aps, sync=sync, ap_height_m=height, equal_snr=equal, seed=5)
    for family in FAMILIES
    for layout, aps, sync, height, equal in (
        ("uniform", 9, "ota", 10.0, False),
        ("grid", 16, "white_rabbit", 0.0, True),
        ("line", 5, "ptp", 3.0, False),
        ("circle", 2, "perfect", 25.0, False),
    )
]


def test_the_page_is_one_small_file_that_loads_nothing(page_file: Path) -> None:
    assert page_file.stat().st_size < 6_000_000
    content = page_file.read_text(encoding="utf-8")
    template = (explorer.TEMPLATES / "page.html").read_text(encoding="utf-8")
    assert all(target.startswith("data:") for target in re.findall(r"\b(?:src|href)=\"([^\"]*)", template))
    assert "default-src 'none'" in content
    assert all(f"/*{part}*/" not in content for part in re.findall(r"/\*([A-Z]+)\*/", template))
    assert content.count("</script>") == 6


def test_a_wrong_name_is_refused(tmp_path: Path) -> None:
    assert "must end in .html" in error_line(run("explorer", "--out", "page.pdf", folder=tmp_path))
    assert list(tmp_path.iterdir()) == []


@in_browser
def test_bounds_in_the_browser_are_those_of_the_physics(page: webdriver.Chrome) -> None:
    script = """
        const { model, aps, heightM } = arguments[0], net = Bounds.network(model, aps, heightM);
        return arguments[1].map(([x, y]) => {
          const J = Bounds.fisher(net, x, y), e = Bounds.ellipse(J), g = Bounds.gdop(net, x, y), b = Bounds.peb(J);
          const number = (v) => (Number.isFinite(v) ? v : -1);
          return [number(b), number(g), e ? e.long : -1, e ? e.short : -1, e ? e.angle : 0];
        });"""
    for settings in SITES:
        site = make_site(settings)
        points = np.random.default_rng(1).uniform(0, 500, (25, 2))
        points[0] = site.ap_positions_m[0].numpy()  # under an AP
        points[1] = [123.0, 250.0]  # in the line of APs
        found = np.array(page.execute_script(script, javascript_network(site, settings), points.tolist()))
        bound = single_bound(site, points)
        known = np.isfinite(bound)
        np.testing.assert_allclose(found[:, 0], np.where(known, bound, -1), rtol=1e-6, err_msg=str(settings))
        unit, _ = unit_vectors_to(site.ap_positions_m, site.height_diff_m, torch.from_numpy(points))
        dilution = gdop(unit, unknown_offset=settings.family == "tdoa").numpy()
        expected = np.where(np.isfinite(dilution), dilution, -1)
        np.testing.assert_allclose(found[:, 1], expected, rtol=1e-6, err_msg=str(settings))
        for (_, _, long, short, angle), point in zip(found[known], points[known]):
            axes, direction = error_ellipse(torch.from_numpy(user_fisher(site, point)))
            np.testing.assert_allclose([long, short], axes.numpy(), rtol=1e-6, err_msg=str(settings))
            if long > 1.001 * short:
                assert abs(math.sin(angle - float(direction))) < 1e-6


@in_browser
def test_burst_calibration_and_layouts_agree(page: webdriver.Chrome) -> None:
    settings = DrawnSiteConfig(layout="circle", aps=7, sync="ota", ap_height_m=4.0)
    site = make_site(settings)
    script = """const { model, aps, heightM } = arguments[0];
        return Bounds.calibrated(model, aps, heightM, { x: 250, y: 250 }).map((ap) => ap.syncS)"""
    found = page.execute_script(script, javascript_network(site, settings))
    np.testing.assert_allclose(found, site.sync_std_s.numpy(), rtol=1e-9)
    for layout in ("grid", "circle", "line"):
        for count in (2, 7, 16, 23, 100):
            placed = page.execute_script(
                "return Layouts.place(arguments[0], arguments[1], 500, 200, 0).map((p) => [p.x, p.y])", layout, count
            )
            expected = make_site(DrawnSiteConfig(layout=layout, aps=count)).ap_positions_m.numpy()
            np.testing.assert_allclose(placed, expected, atol=1e-9)
    many = np.array(page.execute_script("return Layouts.place('uniform', 4000, 500, 200, 3).map((p) => [p.x, p.y])"))
    # The mean of 4000 uniform numbers strays by 2.3 m; six times that is 14 m.
    np.testing.assert_allclose(many.mean(axis=0), 250, atol=14)
    assert many.min() >= 0
    assert many.max() < 500


@in_browser
def test_curves_in_the_browser_obey_their_equations(page: webdriver.Chrome) -> None:
    rng = np.random.default_rng(2)
    for height in (0.0, 12.0):
        for near in (False, True):
            user, reference, other = rng.uniform(0, 500, (3, 2))
            script = """
                const p = ([x, y]) => ({ x, y }), [user, reference, other] = arguments[0].map(p), h = arguments[1];
                const near = arguments[2] ? user : null, reach = arguments[2] ? 2 : 1000;
                const difference = Bounds.rangeDifference(user, reference, other, h);
                const range = Math.hypot(user.x - other.x, user.y - other.y, h);
                return [difference, Bounds.hyperbolaPoints(reference, other, difference, h, reach, near),
                  range, Bounds.circlePoints(other, range, h, reach, near)]"""
            given = [user.tolist(), reference.tolist(), other.tolist()]
            difference, curve, distance, circle = page.execute_script(script, given, height, near)
            points = np.column_stack((curve["x"], curve["y"]))
            assert len(points) > 100
            assert difference == pytest.approx(float(range_difference_m(user, reference, other, height)), abs=1e-9)
            np.testing.assert_allclose(range_difference_m(points, reference, other, height), difference, atol=1e-9)
            around = np.column_stack((circle["x"], circle["y"]))
            slant = np.sqrt(((around - other) ** 2).sum(axis=1) + height**2)
            np.testing.assert_allclose(slant, distance, atol=1e-9)
            if near:
                assert np.hypot(*(points - user).T).min() < 0.5
                assert np.hypot(*(around - user).T).max() < 3.0


@in_browser
def test_sliders_by_keyboard_change_the_numbers_as_the_physics_says(page: webdriver.Chrome) -> None:
    point = np.array([[310.0, 180.0]])
    settings = DrawnSiteConfig(family="tdoa", layout="circle", aps=6)
    assert shown_bound(page) == pytest.approx(single_bound(make_site(settings), point)[0], rel=1e-6)
    press(page, "aps", Keys.ARROW_RIGHT, 3)
    press(page, "height", Keys.ARROW_RIGHT, 2)
    press(page, "bandwidth", Keys.ARROW_LEFT)
    press(page, "snr", Keys.ARROW_RIGHT, 4)
    choose(page, "sync", "gnss")
    choose(page, "layout", "grid")
    after(page, lambda: page.find_element(By.CSS_SELECTOR, "input[value=rtt]").send_keys(Keys.SPACE))
    after(page, lambda: page.find_element(By.ID, "pathloss").send_keys(Keys.SPACE), "fine")
    settings = DrawnSiteConfig(
        family="rtt", layout="grid", aps=9, ap_height_m=12.0, bandwidth_mhz=40.0, snr_db=24.0, sync="gnss",
        equal_snr=True,
    )  # fmt: skip
    # The fine map of an earlier choice may be drawn after the last key, so the number is waited for.
    expected_m = pytest.approx(single_bound(make_site(settings), point)[0], rel=1e-6)
    wait(page, lambda: shown_bound(page) == expected_m)
    said = {name: page.find_element(By.ID, name).get_attribute("aria-valuetext") for name in ("aps", "height", "snr")}
    assert said == {"aps": "9", "height": "12 m", "snr": "24 dB"}
    assert page.find_element(By.CSS_SELECTOR, "output[for=bandwidth]").text == "40 MHz"
    for sync in SYNC_PRESETS:
        choose(page, "sync", sync)
        expected = make_site(DrawnSiteConfig(**{**settings.__dict__, "sync": sync}))
        assert shown_bound(page) == pytest.approx(single_bound(expected, point)[0], rel=1e-6)


@in_browser
def test_another_reference_moves_the_curves_and_not_the_bound(page: webdriver.Chrome) -> None:
    curves = page.find_element(By.ID, "o-curves")
    nearest, bound = curves.get_attribute("d"), shown_bound(page)
    assert text(page, "l-reference-name") == "the nearest AP"
    seen = {nearest}
    for index in range(6):
        choose(page, "reference", str(index))
        assert shown_bound(page) == bound
        assert text(page, "l-reference-name") == f"AP {index + 1}"
        seen.add(curves.get_attribute("d"))
    # One of the six is the nearest.
    assert len(seen) == 6
    press(page, "aps", Keys.ARROW_LEFT)
    assert page.find_element(By.ID, "reference").get_attribute("value") == ""
    choose(page, "reference", "4")
    after(page, lambda: page.find_element(By.CSS_SELECTOR, "input[value=toa]").send_keys(Keys.SPACE))
    assert not page.find_element(By.ID, "reference-row").is_displayed()


@in_browser
def test_the_user_is_dragged_clicked_and_moved_by_keys(page: webdriver.Chrome) -> None:
    area, x, y = user_on_screen(page)
    assert area["width"] == pytest.approx(area["height"], abs=1.0)  # a metre is a metre on both axes
    before = page.find_element(By.ID, "o-curves").get_attribute("d")
    pixel_m = 500 / area["width"]
    after(page, lambda: drag(page, x, y, x + 60, y - 90))
    wait(page, lambda: text(page, "n-position") != "310 m, 180 m")
    _, new_x, new_y = user_on_screen(page)
    assert (new_x, new_y) == pytest.approx((x + 60, y - 90), abs=2.0)
    # The numbers belong to the new place (known to a pixel), the curves have moved with it.
    place = np.array([[310 + 60 * pixel_m, 180 + 90 * pixel_m]])
    site = make_site(DrawnSiteConfig(family="tdoa", layout="circle", aps=6))
    assert shown_bound(page) == pytest.approx(single_bound(site, place)[0], rel=0.02)
    assert page.find_element(By.ID, "o-curves").get_attribute("d") != before
    there = text(page, "n-position")
    drag(page, area["left"] + 50, area["bottom"] - 50, area["left"] + 50, area["bottom"] - 50)  # a click
    wait(page, lambda: text(page, "n-position") != there)
    at = [float(value) for value in re.findall(r"[\d.]+", text(page, "n-position"))]
    assert at == pytest.approx([50 * pixel_m, 50 * pixel_m], abs=2.0)
    press(page, "map", Keys.ARROW_RIGHT, 2)
    moved = [float(value) for value in re.findall(r"[\d.]+", text(page, "n-position"))]
    assert moved == pytest.approx([at[0] + 10, at[1]], abs=1.01)
    drag(page, *user_on_screen(page)[1:], area["right"] + 200, area["top"] - 40)  # stays in the area
    wait(page, lambda: text(page, "n-position") == "500 m, 500 m")


@in_browser
def test_a_finger_on_the_cross_drags_it_and_elsewhere_scrolls(page: webdriver.Chrome) -> None:
    resize(page, 390, 844)
    page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        after(page, lambda: page.execute_script("window.dispatchEvent(new Event('resize'))"), "fine")
        area, x, y = user_on_screen(page)

        def swipe(x: float, y: float, dx: float, dy: float) -> None:
            for kind, share in (("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0), ("touchEnd", 1.0)):
                point = {"x": x + share * dx, "y": y + share * dy}
                fingers = [] if kind == "touchEnd" else [point]
                page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

        swipe(x, y, -60, -70)
        wait(page, lambda: text(page, "n-position") != "310 m, 180 m")
        wait(page, lambda: user_on_screen(page)[1:] == pytest.approx((x - 60, y - 70), abs=2.5))
        assert page.execute_script("return window.scrollY") == 0
        there = text(page, "n-position")
        swipe(area["left"] + 20, area["top"] + 200, 0, -150)
        wait(page, lambda: page.execute_script("return window.scrollY") > 50)
        assert text(page, "n-position") == there
    finally:
        page.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})


@in_browser
def test_hovering_tells_the_bound_under_the_pointer(page: webdriver.Chrome) -> None:
    area, _, _ = user_on_screen(page)
    chain = ActionChains(page)
    for x in (-3, 0):
        chain.w3c_actions.pointer_action.move_to_location(
            round(area["left"] + 0.3 * area["width"] + x), round(area["bottom"] - 0.7 * area["height"])
        )
    chain.perform()
    wait(page, lambda: len(page.find_elements(By.CSS_SELECTOR, "#map .hovertext")) > 0)
    words = page.find_element(By.CSS_SELECTOR, "#map .hovertext").text
    found = re.search(r"x (\d+) m, y (\d+) m\s*bound ([\d.]+) m", words)
    assert found, words
    x, y, bound = (float(value) for value in found.groups())
    assert (x, y) == pytest.approx((150, 350), abs=6)
    site = make_site(DrawnSiteConfig(family="tdoa", layout="circle", aps=6))
    assert bound == pytest.approx(single_bound(site, np.array([[x, y]]))[0], rel=0.005)


@in_browser
def test_what_cannot_be_known_is_said(page: webdriver.Chrome) -> None:
    press(page, "aps", Keys.HOME)
    assert text(page, "n-peb") == "infinite"
    assert "TDOA on the ground needs 3" in text(page, "verdict")
    wait(page, lambda: "no position is determined" in text(page, "map"))
    after(page, lambda: page.find_element(By.CSS_SELECTOR, "input[value=toa]").send_keys(Keys.SPACE))
    assert math.isfinite(shown_bound(page))
    assert "mirror image" in text(page, "verdict")
    # The mirror image that the sentence speaks of: y -> 500 - y for APs on the middle line.
    line = make_site(DrawnSiteConfig(layout="line", aps=4)).ap_positions_m.numpy()
    user = np.array([310.0, 180.0])
    differences = np.array([range_difference_m(user, line[0], other) for other in line[1:]])
    assert sorted(tdoa_fixes(line, differences)[:, 1]) == pytest.approx([180, 320])


@in_browser
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 740)])
def test_everything_fits_on_desk_and_phone(page: webdriver.Chrome, width: int, height: int) -> None:
    resize(page, width, height)
    after(page, lambda: page.execute_script("window.dispatchEvent(new Event('resize'))"), "fine")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    area = page.execute_script("return document.querySelector('#map .nsewdrag').getBoundingClientRect().toJSON()")
    assert area["width"] == pytest.approx(area["height"], abs=1.0)
    assert area["width"] > 0.35 * width
    assert area["right"] < width
    overlay = page.execute_script("return document.getElementById('overlay').getBoundingClientRect().toJSON()")
    assert [overlay[key] for key in ("left", "top", "width")] == pytest.approx(
        [area[key] for key in ("left", "top", "width")], abs=1.0
    )
    for name in ("aps", "height", "bandwidth", "snr"):
        slider = page.find_element(By.ID, name)
        assert slider.rect["width"] > 150
        assert slider.rect["x"] + slider.rect["width"] <= width
    assert {"access point", "user"} < set(text(page, "legend").splitlines())
