"""The built site in headless Chromium, served from this machine: what a reader would see, tried out."""
from __future__ import annotations

import functools
import io
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from conftest import CHROMIUM, ROOT, SITE

pytestmark = [pytest.mark.browser, pytest.mark.site]

PAGES = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("chapters/**/*.html")) or ["none"]
each_page = pytest.mark.parametrize("page_name", PAGES)
SHOTS = ROOT / "_build" / "screenshots"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync"]
FIGURES = ".bd-article div.cell_output svg[role=img], .bd-article div.cell_output img, .bd-article figure img"
READABLE = 3.0  # WCAG's least contrast for graphics and large text


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address():
    handler = functools.partial(Quiet, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium, address):
    """open_page(name, width, scheme) -> a page, with everything that went wrong on it in `page.faults`."""
    contexts = []

    def visit(name: str, *, width: int = 1280, scheme: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.faults = []
        page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("requestfailed", lambda request: page.faults.append(f"failed: {request.url}"))
        page.on("response", lambda answer: page.faults.append(f"{answer.status}: {answer.url}")
                if answer.status >= 400 else None)
        page.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:"))
                else page.faults.append(f"not on this site: {request.url}"))
        page.goto(f"{address}/{name}", wait_until="load")
        page.evaluate("() => window.MathJax?.startup?.promise")
        page.wait_for_timeout(150)
        return page

    yield visit
    for context in contexts:
        context.close()


def shot(page, name: str, kind: str) -> None:
    """A picture of the whole page, for a human to look at."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name.removeprefix('chapters/').removesuffix('.html').replace('/', '-')}-{kind}.png",
                    full_page=True)


def contrast(first, second):
    """WCAG's contrast ratio of colours. first, second: (..., 3) in 0..255."""
    import numpy as np

    def luminance(colour):
        part = np.asarray(colour, dtype=float) / 255
        part = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return part @ (0.2126, 0.7152, 0.0722)

    high, low = np.maximum(luminance(first), luminance(second)), np.minimum(luminance(first), luminance(second))
    return (high + 0.05) / (low + 0.05)


def ink(figure):
    """What a figure's screenshot shows: the background's colour and the grey pixels that stand out from it."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(figure.screenshot())).convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    background = colours[counts.argmax()]
    grey = np.ptp(pixels.astype(int), axis=1) < 40
    return background, float((grey & (contrast(pixels, background) >= READABLE)).mean())


@each_page
def test_a_page_has_no_faults_and_asks_nobody_else(open_page, page_name):
    page = open_page(page_name)
    page.mouse.wheel(0, 20_000)
    page.wait_for_timeout(150)
    shot(page, page_name, "light")
    assert not page.faults


@each_page
def test_a_phone_shows_the_page_without_sideways_scroll(open_page, page_name):
    page = open_page(page_name, width=390)
    for details in page.query_selector_all(".bd-article details"):
        details.evaluate("element => element.open = true")
    page.wait_for_timeout(150)
    shot(page, page_name, "phone")
    width = page.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
    wide = page.evaluate("""() => [...document.querySelectorAll('.bd-article *')].filter(e => {
        for (let p = e; p && !p.classList.contains('bd-article'); p = p.parentElement)
            if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return false;
        return e.getBoundingClientRect().right > innerWidth + 1;
    }).slice(0, 5).map(e => e.tagName + '.' + e.className)""")
    assert width <= 390, f"{width} px wide: {wide}"
    assert not wide, f"reach over the edge: {wide}"


@each_page
def test_figures_read_in_both_themes(open_page, page_name):
    """No box around a figure: its ground is the page's own; and its grey ink (text, axes) stands out from it."""
    for scheme in ("light", "dark"):
        page = open_page(page_name, scheme=scheme)
        shot(page, page_name, scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ground = [int(float(part)) for part in ground.split("(")[1].rstrip(")").split(",")[:3]]
        for figure in page.query_selector_all(FIGURES):
            if not figure.is_visible():
                continue
            background, share = ink(figure)
            name = figure.get_attribute("aria-label") or figure.get_attribute("alt")
            assert contrast(background, ground) < 1.15, f"{scheme}: a box behind {name!r}"
            assert share > 0.002, f"{scheme}: text and axes of {name!r} can't be read"


def test_the_theme_switch_goes_dark_and_light(open_page):
    page = open_page("chapters/index.html")
    seen = set()
    for _ in range(3):
        page.click("button.theme-switch-button:visible")
        page.wait_for_timeout(100)
        text, ground = page.evaluate("""() => { const style = getComputedStyle(document.body);
            return [style.color, style.backgroundColor] }""")
        text, ground = ([int(float(part)) for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
                        for colour in (text, ground))
        assert contrast(text, ground) > 7
        seen.add(page.evaluate("document.documentElement.dataset.theme"))
    assert seen == {"light", "dark"}
    assert not page.faults


def test_search_finds_fine_tuning(open_page, address):
    page = open_page("chapters/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("fine-tuning")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?*")
    page.wait_for_selector("#search-results li a")
    found = page.eval_on_selector_all("#search-results li a", "links => links.map(link => link.getAttribute('href'))")
    assert any("chapters/" in link for link in found)
    page.wait_for_load_state("networkidle")           # the results fetch their summaries: leaving earlier cuts them off
    page.click("#search-results li a")
    page.wait_for_load_state("load")
    assert "fine" in page.inner_text("article").lower()
    assert not page.faults


def test_formulas_are_set(open_page):
    shown = 0
    for name in PAGES:
        page = open_page(name)
        wanted = page.evaluate("document.querySelectorAll('.math').length")
        if wanted:
            page.wait_for_selector("mjx-container svg", state="attached")
            assert page.evaluate("document.querySelectorAll('.math mjx-container').length") >= wanted
            assert not page.query_selector("[data-mml-node=merror]"), f"{name}: a formula has an error"
            shown += 1
    assert shown


def test_the_keyboard_reaches_the_content(open_page):
    page = open_page("chapters/index.html")
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent").lower()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main-content"


def test_a_folded_solution_opens(open_page):
    exercises = [name for name in PAGES if "/exercises/" in name]
    if not exercises:
        pytest.skip("no exercise page yet")
    page = open_page(exercises[0])
    solution = page.locator("details:has-text('Show the solution')").first
    assert solution.get_attribute("open") is None
    solution.locator("summary").click()
    assert solution.get_attribute("open") is not None
