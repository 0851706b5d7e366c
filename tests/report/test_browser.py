"""The reports in a real browser: they draw without errors, filter, sort, select, print and fit a phone."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .examples import PAGES, page, report, result, rows, runs

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver (apt install chromium-driver)"
    ),
]


class _Reports:
    """A headless Chromium and the folder with one report of each kind."""

    def __init__(self, driver, folder: Path) -> None:
        self.driver = driver
        self.folder = folder
        self.shown = ""

    def open(self, kind: str):
        """Show a report and wait until it is drawn; one that is shown stays as it is."""
        path = self.folder / f"{kind}.html"
        if not path.exists():
            path.write_text(report(kind))
        if self.shown != kind:
            self.driver.get(path.as_uri())
            _wait(self.driver, "return document.documentElement.dataset.ready === 'true'")
            self.shown = kind
        return self.driver


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Reports]:
    """A headless Chromium."""
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield _Reports(driver, tmp_path_factory.mktemp("reports"))
    finally:
        driver.quit()


@pytest.fixture
def browser(reports: _Reports):
    """The report of a search."""
    return reports.open("search")


def _wait(driver, script: str, *arguments: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not driver.execute_script(script, *arguments):
        if time.monotonic() > deadline:
            pytest.fail(f"still false after {seconds:.0f} s: {script}")
        driver.execute_async_script("requestAnimationFrame(arguments[0])")


def _shown(driver) -> int:
    return int(driver.execute_script("return document.getElementById('shown').textContent.split(' ')[0]"))


def _select(driver, selector: str, value: str) -> None:
    driver.execute_script(
        "const s = document.querySelector(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event('change', {bubbles: true}))",
        selector,
        value,
    )


def _type(driver, field, text: str) -> None:
    driver.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
        field,
        text,
    )


KINDS = pytest.mark.parametrize("kind", PAGES)


@KINDS
def test_everything_is_drawn_without_errors(reports: _Reports, kind: str) -> None:
    driver = reports.open(kind)
    assert driver.get_log("browser") == []
    drawn = driver.execute_script(
        "return [...document.querySelectorAll('.plot')].map(n => [n.id, n.querySelectorAll('svg, canvas').length])"
    )
    explorer = {"pareto-plot"} if kind == "search" else set()
    figures = {block.id for section in page(kind).sections for block in section.blocks if block.kind == "figure"}
    assert {name for name, parts in drawn if parts} == figures | explorer


@KINDS
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(reports: _Reports, kind: str, width: int) -> None:
    driver = reports.open(kind)
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        _wait(driver, "return innerWidth === arguments[0]", width)
        _wait(driver, "return document.documentElement.scrollWidth <= innerWidth", seconds=10)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@KINDS
def test_controls_have_names(reports: _Reports, kind: str) -> None:
    nameless = reports.open(kind).execute_script(
        "return [...document.querySelectorAll('button, select, input, [role=img], [role=region]')].filter(n =>"
        " !(n.ariaLabel || n.textContent.trim() || n.labels?.[0]?.textContent.trim())).map(n => n.outerHTML)"
    )
    assert nameless == []


def test_a_filter_narrows_plot_and_table(browser) -> None:
    everything = _shown(browser)
    _select(browser, "select[data-field=remat]", rows()[1].predicted.layout.remat)
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


def test_layouts_can_be_shown_against_money(browser) -> None:
    _select(browser, "#measure", "usd")
    shown = browser.execute_script(
        "const p = document.getElementById('pareto-plot'); return [p.layout.yaxis.title.text,"
        " p.data.find(t => t.name === 'the best').y, p.data.some(t => t.name === 'Pareto front')]"
    )
    _select(browser, "#measure", "memory")
    assert shown[0] == "dollars per billion tokens"
    money = [row.predicted.dollars_per_billion_tokens for row in rows()]
    assert sorted(shown[1]) == pytest.approx(sorted(money), rel=1e-4)
    assert not shown[2]


def test_a_click_on_a_row_shows_that_layout(browser) -> None:
    row = browser.find_element("css selector", "#layout-table tbody tr:nth-child(3)")
    text = browser.execute_script("return arguments[0].cells[1].textContent", row)
    browser.execute_script("arguments[0].click()", row)
    panel = browser.find_element("id", "selected")
    assert text in panel.get_attribute("textContent")
    assert "Memory:" in panel.get_attribute("textContent")
    assert "chosen" in row.get_attribute("class")


def test_a_point_says_what_it_is_and_a_click_selects_it(browser) -> None:
    browser.execute_script("document.getElementById('pareto-plot').scrollIntoView({behavior: 'instant'})")
    star = browser.find_element("css selector", "#pareto-plot .scatterlayer .trace:nth-last-child(2) .point")
    webdriver.ActionChains(browser).move_to_element(star).perform()
    _wait(
        browser, "return document.querySelector('#pareto-plot .hoverlayer').textContent.includes('a step')", seconds=10
    )
    said = browser.execute_script("return document.querySelector('#pareto-plot .hoverlayer').textContent")
    webdriver.ActionChains(browser).click().perform()
    chosen = browser.execute_script("return document.querySelector('#selected h3').textContent")
    assert chosen.split(", ")[0] in said


def test_the_keyboard_selects_too(browser) -> None:
    row = browser.find_element("css selector", "#layout-table tbody tr:nth-child(5)")
    row.send_keys("\n")
    text = browser.execute_script("return arguments[0].cells[1].textContent", row)
    assert text in browser.find_element("id", "selected").get_attribute("textContent")


def test_a_heading_sorts_the_table(browser) -> None:
    column = (
        "return [...document.querySelectorAll('#layout-table tbody tr')]"
        ".map(r => Number(r.cells[4].dataset.value ?? r.cells[4].textContent))"
    )
    button = browser.find_element("css selector", "#layout-table th:nth-child(5) button")
    browser.execute_script("arguments[0].click()", button)
    ascending = browser.execute_script(column)
    assert ascending == sorted(ascending)
    browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script(column) == sorted(ascending, reverse=True)


def test_words_filter_a_table(reports: _Reports) -> None:
    driver = reports.open("validate")
    field = driver.find_element("css selector", "#runs .table-filter")
    visible = "return document.querySelectorAll('#runs tbody tr:not([hidden])').length"
    every = len(runs()[0])
    assert driver.execute_script(visible) == every
    _type(driver, field, "there ok")
    assert driver.execute_script(visible) == sum(run.group != "here" for run in runs()[0])
    assert driver.execute_script("return document.querySelector('#runs output').textContent") == f"5 of {every}"
    _type(driver, field, "")
    assert driver.execute_script(visible) == every


def test_missing_numbers_sort_last(reports: _Reports) -> None:
    driver = reports.open("validate")
    driver.execute_script("document.querySelector('#runs th:nth-child(7) button').click()")
    order = driver.execute_script(
        "return [...document.querySelectorAll('#runs tbody tr')].map(r => r.cells[6].textContent)"
    )
    assert order[-1] == ""
    numbers = [float(text) for text in order[:-1]]
    assert numbers == sorted(numbers)


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


def test_the_numbers_of_a_figure_can_be_opened_and_read(reports: _Reports) -> None:
    driver = reports.open("predict")
    driver.find_element("css selector", "figure:has(#memory-parts) summary").send_keys("\n")
    cells = (
        "return [...document.querySelectorAll('figure:has(#memory-parts) tbody tr')].map(r => r.innerText.split('\\t'))"
    )
    label, total = driver.execute_script(cells)[0][:2]
    assert label == "predicted"
    assert float(total) == pytest.approx(result().ranked[0].memory_bytes / 2**30, rel=1e-3)


def test_the_theme_can_be_switched(browser) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    line = "return document.getElementById('step-time').layout.font.color"
    before, drawn = browser.execute_script(background), browser.execute_script(line)
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(background) != before
    assert browser.execute_script(line) != drawn
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(background) == before


def test_paper_is_white_and_narrow(browser) -> None:
    browser.execute_script("document.documentElement.dataset.theme = 'dark'; dispatchEvent(new Event('beforeprint'))")
    drawn = browser.execute_script(
        "const p = document.getElementById('time-parts'); return [p._fullLayout.width, p.layout.font.color]"
    )
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert drawn[0] < 720
    assert drawn[1] == "#1c2430"
    assert browser.execute_script("return document.documentElement.dataset.theme") == "dark"
    _wait(browser, "return document.getElementById('time-parts')._fullLayout.width > 720", seconds=10)
    browser.execute_script("document.documentElement.dataset.theme = 'light'")
