"""The page of `abaw report` in a real browser: opened from disk, without scripts, on a narrow window and a wide one."""

import socket

import pytest

from abaw.stages import report
from tests.browser.chromium import missing, running
from tests.unit.stages.reported_run import HOSTILE, PLAIN, RUN, make_reported

REASON = missing()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)
NARROW, WIDE = 400, 1200
# Markup that changes the page's title, in two ways.
ATTACK = "<script>document.title = 'script'</script><img src=x onerror=\"document.title = 'error'\">"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages by name: of values with faces, of classes and of units."""
    root = tmp_path_factory.mktemp("reported")
    cfg = make_reported(root, videos=2)
    names = {"values": RUN, "classes": "fuse-expr-netease", "units": "fuse-au-netease"}
    for kind, name in names.items():
        report.run(cfg, name, out=root / f"{kind}.html", with_faces=kind == "values")
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser whose pages may not run scripts."""
    with running(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(params=["values", "classes", "units"])
def page(request, pages):
    return pages / f"{request.param}.html"


def test_pages_of_this_browser_run_no_scripts(browser, tmp_path):
    (tmp_path / "attack.html").write_text(f"<!doctype html><title>first</title>{ATTACK}")
    browser.open(tmp_path / "attack.html", width=WIDE)
    assert browser.evaluate("document.title") == "first"
    browser.clear()


def test_everything_is_there_without_scripts(browser, page):
    browser.open(page, width=WIDE)
    headings = browser.evaluate("[...document.querySelectorAll('h2')].map(one => one.textContent)")
    assert headings[:4] == ["Metrics", "By label", "Worst videos", "Timelines"]
    assert headings[-1] == "Run card"
    assert browser.evaluate("document.querySelectorAll('table').length") > 5
    assert "95 % interval" in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.scripts.length") == 0


def test_nothing_but_the_file_is_asked_for(browser, page):
    browser.clear()
    browser.open(page, width=WIDE)
    browser.open(page, width=NARROW)
    asked = [address for address in browser.requested() if not address.startswith("data:")]
    assert set(asked) == {page.resolve().as_uri()}


@pytest.mark.parametrize("width", [320, NARROW, WIDE])
def test_the_page_is_no_wider_than_its_window(browser, page, width):
    browser.open(page, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    # also with everything unfolded
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [NARROW, WIDE])
def test_every_picture_is_drawn(browser, page, width):
    browser.open(page, width=width)
    widths = browser.evaluate("[...document.images].map(one => one.naturalWidth)")
    assert len(widths) >= 3
    assert min(widths) > 0


def test_a_narrow_window_shows_pictures_made_for_it(browser, page):
    shown = {}
    for width in (NARROW, WIDE):
        browser.open(page, width=width)
        shown[width] = browser.evaluate("[...document.querySelectorAll('figure img')].map(one => one.naturalWidth)")
    assert set(shown[NARROW]) == {368}
    assert max(shown[WIDE]) == 1080


def test_the_console_stays_empty(browser, page):
    browser.clear()
    browser.open(page, width=WIDE)
    assert browser.log("browser") == []


def test_names_are_shown_as_they_are(browser, pages):
    browser.open(pages / "values.html", width=WIDE)
    names = browser.evaluate("[...document.querySelectorAll('article h3')].map(one => one.textContent)")
    assert set(names) == {HOSTILE, PLAIN}
    assert browser.evaluate("document.querySelectorAll('img:not([src^=\"data:\"])').length") == 0


def test_letters_are_dark_on_light(browser, page):
    browser.open(page, width=WIDE)
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"


def test_the_page_can_be_printed(browser, page):
    browser.open(page, width=WIDE)
    content = browser.devtools("Page.printToPDF")["data"]
    assert content.startswith("JVBERi0")  # "%PDF-" in base64


def test_what_gets_into_the_page_can_neither_run_nor_ask(pages, tmp_path):
    text = (pages / "values.html").read_text()
    with socket.create_server(("127.0.0.1", 0)) as elsewhere, running(tmp_path, scripts=True) as browser:
        elsewhere.settimeout(0.5)
        attack = f'{ATTACK}<img src="http://127.0.0.1:{elsewhere.getsockname()[1]}/x.png">'
        (tmp_path / "attacked.html").write_text(text.replace('<main id="content">', f'<main id="content">{attack}'))
        browser.open(tmp_path / "attacked.html", width=WIDE)
        assert browser.evaluate("document.title") == f"{RUN}: report"
        with pytest.raises(TimeoutError):
            elsewhere.accept()
        # on a page without the policy the same markup runs
        (tmp_path / "attack.html").write_text(f"<!doctype html><title>first</title>{ATTACK}")
        browser.open(tmp_path / "attack.html", width=WIDE)
        assert browser.evaluate("document.title") in ("script", "error")
