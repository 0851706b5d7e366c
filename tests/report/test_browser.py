"""The report in a real browser: it draws without errors, filters, sorts, selects, and fits a phone."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .examples import report, result, rows

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt install chromium-driver)"
    ),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A headless Chromium with the report open."""
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(report())
    options = Options()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        driver.get(path.as_uri())
        _wait(driver, "return document.documentElement.dataset.ready === 'true'")
        yield driver
    finally:
        driver.quit()


def _wait(driver, script: str, *arguments: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not driver.execute_script(script, *arguments):
        if time.monotonic() > deadline:
            pytest.fail(f"still false after {seconds:.0f} s: {script}")
        driver.execute_async_script("requestAnimationFrame(arguments[0])")


def _shown(driver) -> int:
    return int(driver.execute_script("return document.getElementById('shown').textContent.split(' ')[0]"))


def _select(driver, field: str, value: str) -> None:
    driver.execute_script(
        "const s = document.querySelector(`select[data-field=${arguments[0]}]`); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change', {bubbles: true}))",
        field,
        value,
    )


def test_everything_is_drawn_without_errors(browser) -> None:
    assert browser.get_log("browser") == []
    drawn = browser.execute_script(
        "return [...document.querySelectorAll('.plot')].map(n => [n.id, n.querySelectorAll('svg, canvas').length])"
    )
    assert {name for name, parts in drawn if parts} == {
        "pareto-plot", "time-parts", "memory-parts", "communication", "parallel", "rejected",
    }  # fmt: skip


def test_a_filter_narrows_plot_and_table(browser) -> None:
    everything = _shown(browser)
    _select(browser, "remat", rows()[1].predicted.layout.remat)
    filtered = _shown(browser)
    visible = browser.execute_script("return document.querySelectorAll('#layout-table tbody tr:not([hidden])').length")
    points = browser.execute_script(
        "return document.getElementById('pareto-plot').data.filter(t => t.mode === 'markers')"
        ".filter(t => t.name.startsWith('remat')).reduce((n, t) => n + t.x.length, 0)"
    )
    assert 0 < filtered < everything
    assert visible == filtered == points
    browser.execute_script("document.getElementById('filters').reset()")
    _wait(browser, "return document.getElementById('shown').textContent.startsWith(arguments[0])", str(everything))


def test_a_click_on_a_row_shows_that_layout(browser) -> None:
    row = browser.find_element("css selector", "#layout-table tbody tr:nth-child(3)")
    text = browser.execute_script("return arguments[0].cells[1].textContent", row)
    browser.execute_script("arguments[0].click()", row)
    panel = browser.find_element("id", "selected")
    assert text in panel.get_attribute("textContent")
    assert "Memory:" in panel.get_attribute("textContent")
    assert "chosen" in row.get_attribute("class")


def test_the_keyboard_selects_too(browser) -> None:
    row = browser.find_element("css selector", "#layout-table tbody tr:nth-child(5)")
    row.send_keys("\n")
    text = browser.execute_script("return arguments[0].cells[1].textContent", row)
    assert text in browser.find_element("id", "selected").get_attribute("textContent")


def test_a_heading_sorts_the_table(browser) -> None:
    column = (
        "return [...document.querySelectorAll('#layout-table tbody tr')].map(r => Number(r.cells[4].dataset.value))"
    )
    button = browser.find_element("css selector", "#layout-table th:nth-child(5) button")
    browser.execute_script("arguments[0].click()", button)
    ascending = browser.execute_script(column)
    assert ascending == sorted(ascending)
    browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script(column) == sorted(ascending, reverse=True)


def test_the_plot_holds_the_numbers_of_the_search(browser) -> None:
    best = browser.execute_script(
        "const t = document.getElementById('pareto-plot').data.find(t => t.name === 'the best'); return [t.x, t.y]"
    )
    times = [row.predicted.step_time_s for row in rows()]
    assert sorted(best[0]) == pytest.approx(sorted(times), rel=1e-4)
    front = browser.execute_script(
        "return document.getElementById('pareto-plot').data.find(t => t.name === 'Pareto front').x.length"
    )
    assert front == len({e.layout for e in result().pareto})


def test_the_theme_can_be_switched(browser) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    before = browser.execute_script(background)
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(background) != before
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(background) == before


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_screen(browser, width: int) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        _wait(browser, "return innerWidth === arguments[0]", width)
        _wait(browser, "return document.documentElement.scrollWidth <= innerWidth", seconds=10)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
