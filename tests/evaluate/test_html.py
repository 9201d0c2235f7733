"""The page that a browser is given: it stands alone, its sheet, charts and sliders are there and work."""

import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from pix2next.evaluate import report
from pix2next.evaluate.charts import Point, histograms, quality_against_cost, ticks
from pix2next.evaluate.compare import compare
from pix2next.evaluate.gallery import SHEET, WORST, Gallery, Largest, data_uri, eight_bits, error_map, shrunk
from pix2next.evaluate.html import pages
from pix2next.evaluate.scorer import Example
from pix2next.evaluate.uncertainty import Interval

from .browser import headless
from .made import lighten, make_folder, make_split, red

NASTY = '<script>alert("1")</script>&{{x}}'


class Elements(HTMLParser):
    """Every element with its attributes, and text by the element it stands in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.all if name == tag]


@pytest.fixture
def light(monkeypatch):
    lighten(monkeypatch)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with headless(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(tmp_path, light) -> Path:
    data = make_split(tmp_path / "data", ["a", "b<i>", "sub/c"], size=(90, 120))
    report.evaluate_model(red, data, tmp_path / "out", name=NASTY)
    return tmp_path / "out" / "report.html"


def test_nothing_is_fetched_and_names_are_escaped(page):
    text = page.read_text(encoding="utf-8")
    elements = Elements(text)
    for _, attributes in elements.all:
        for name in ("src", "href", "srcset", "data", "poster", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert not re.search(r"url\(|@import|https?:", text)
    assert len(elements.named("script")) == 1
    assert not elements.named("i")
    assert "&lt;script&gt;alert" in text


def test_every_picture_and_control_has_words(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    assert all("alt" in attributes for attributes in elements.named("img"))
    assert all(attributes["aria-label"] for attributes in elements.named("input") + elements.named("svg"))
    assert elements.named("html")[0]["lang"] == "en"


def test_table_sheet_and_views_are_there(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    assert len(elements.named("input")) == 3
    assert [a["class"] for a in elements.named("ol")] == ["sheet"]
    assert len([a for a in elements.named("section") if a["class"] == "view"]) == 3
    charts = [a["aria-label"] for a in elements.named("svg")]
    assert [chart.split(":")[0] for chart in charts] == ["PSNR", "SSIM", "RMSE", "LPIPS", "DISTS"]


def test_a_browser_shows_it_and_the_slider_wipes(page, browser):
    browser.open(page)
    assert browser.value("document.querySelectorAll('#means tbody tr').length") == 3
    assert browser.value("document.querySelectorAll('.sheet img').length") == 3
    broken = "[...document.images].filter(image => !image.naturalWidth).length"
    browser.value("Promise.all([...document.images].map(image => (image.loading = 'eager', image.decode())))")
    assert browser.value(broken) == 0
    clip = "getComputedStyle(document.querySelector('.over')).clipPath"
    halfway = browser.value(clip)
    browser.value("document.querySelector('.wipe input').focus()")
    for _ in range(20):
        browser.press("ArrowRight", 39)
    assert browser.value("document.querySelector('.wipe input').value") == "70"
    moved = browser.value(clip)
    assert moved != halfway
    assert "30%" in moved
    width = "document.querySelector('.under').getBoundingClientRect().width"
    assert browser.value(width) == browser.value(width.replace(".under", ".over")) > 0
    assert all(url.startswith(("file:", "data:")) for url in browser.asked)
    assert browser.complaints == []


def test_the_slider_uncovers_the_truth(page, browser):
    """Pixels, not styles: at 0 the stack shows the truth's brightness, at 100 that of what was made."""
    browser.open(page)
    place = browser.value(
        "(() => { const stack = document.querySelector('.stack'); stack.scrollIntoView();"
        " const r = stack.getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()"
    )
    left, top, width, height = (round(number) for number in place)
    shots = []
    for value in (0, 100):
        browser.value(
            f"(() => {{ const slider = document.querySelector('.wipe input'); slider.value = {value};"
            " slider.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        picture = cv2.imdecode(np.frombuffer(browser.shot(), np.uint8), cv2.IMREAD_GRAYSCALE)
        shots.append(picture[top + 5 : top + height - 5, left + 5 : left + width - 5].astype(float))
    assert np.abs(shots[0] - shots[1]).mean() > 5


def test_light_and_dark(page, browser):
    ink = "getComputedStyle(document.body).backgroundColor"
    browser.open(page)
    browser.dark(False)
    light_paper = browser.value(ink)
    browser.dark(True)
    assert light_paper == "rgb(255, 255, 255)" != browser.value(ink)


def test_a_choice_of_methods_changes_the_picture(tmp_path, light, browser):
    data = make_split(tmp_path / "data", ["a", "b"], size=(60, 60))
    contest = {"dark": make_folder(tmp_path / "dark", data, 0.3), "bright": make_folder(tmp_path / "bright", data, 0.9)}
    compare(contest, tmp_path / "out", data=data, metrics=["rmse"])
    browser.open(tmp_path / "out" / "report.html")
    source = "document.querySelector('.over').src"
    first = browser.value(source)
    browser.value(
        "(() => { const choice = document.querySelector('select'); choice.value = '1';"
        " choice.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    assert browser.value(source) != first
    assert browser.value("document.querySelector('.over').alt").endswith("as bright made it")
    assert browser.complaints == []


def example(number: int, error: int, size: tuple[int, int] = (20, 30)) -> Example:
    nir = np.full(size, 100, np.uint8)
    return Example(f"{number:04}", nir, {"m": nir + np.uint8(error)}, np.dstack([nir] * 3))


def test_the_gallery_keeps_the_worst_in_order():
    gallery = Gallery(["m"])
    for number in range(40):
        gallery.add(example(number, (number * 7) % 40))
    worst = [view.rmse["m"] for view in gallery.worst.in_order()]
    assert worst == sorted(range(20, 40), reverse=True)
    assert len(gallery.worst.in_order()) == WORST
    assert [tile.error for tile in gallery.sheet.in_order()] == list(range(39, -1, -1))


def test_equal_errors_stay_in_the_order_they_came():
    kept: Largest[str] = Largest(2)
    for name in ("a", "b", "c"):
        kept.add(1.0, name)
    assert kept.in_order() == ["a", "b"]


def test_a_page_of_many_pictures_is_of_bounded_size(tmp_path, light):
    """Noise is the worst that a codec can be given; photographs take a third of it."""
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3)).astype(np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 1.5)
    gallery = Gallery(["m"])
    gallery.add(Example("a", soft[..., 0].copy(), {"m": soft[..., 1].copy()}, soft))
    tile = len(gallery.sheet.in_order()[0].picture)
    view = gallery.worst.in_order()[0]
    large = len(view.rgb) + len(view.truth) + len(view.made["m"]) + len(view.error["m"])
    assert SHEET * tile + WORST * large < 15e6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_pictures_of_every_depth_look_alike(dtype):
    white = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    ramp = np.linspace(0, white, 64).astype(dtype)[None].repeat(8, axis=0)
    shown = eight_bits(ramp)
    assert shown.dtype == np.uint8
    assert np.abs(shown.astype(int) - np.linspace(0, 255, 64)[None]).max() <= 1


def test_no_error_is_black_and_a_large_one_bright():
    nir = np.zeros((4, 4), np.uint8)
    assert error_map(nir, nir).max() < 10
    assert error_map(nir, nir + np.uint8(64)).min() > 100


@pytest.mark.parametrize(("size", "becomes"), [((10, 20), (10, 20)), ((400, 200), (128, 64)), ((1, 9000), (1, 128))])
def test_shrinking_bounds_the_long_side(size, becomes):
    assert shrunk(np.zeros(size, np.uint8), 128).shape == becomes


def test_a_data_uri_is_the_picture():
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8), (0, 0), 3)
    head, _, body = data_uri(picture, quality=90).partition(",")
    assert head == "data:image/webp;base64"
    import base64

    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(body), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(decoded.astype(int) - picture).mean() < 6


def test_ticks_are_round_and_inside():
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(0.41, 0.59) == pytest.approx([0.45, 0.5, 0.55])
    assert ticks(3, 3) == [3]


def test_histograms_draw_every_value_once():
    svg = histograms("PSNR", {"a": [1.0, 1.0, 2.0], "b<": [1.5]}, {"a": 4 / 3, "b<": 1.5}, {"a": Interval(1, 2)})
    assert svg.count('class="bars') == 2
    assert svg.count('class="band') == 1
    assert "b&lt;" in svg
    heights = [float(height) for height in re.findall(r"v-([\d.]+)h", svg)]
    assert heights == [24.0, 12.0, 24.0]
    assert histograms("PSNR", {"a": []}, {}, {}) == ""


def test_charts_of_one_value_and_of_no_cost_stand():
    for svg in (
        histograms("x", {"a": [3.0]}, {"a": 3.0}, {}),
        quality_against_cost("x", [Point("free", 0, 0.0, 1.0, None)], True),
        quality_against_cost("x", [Point("a", 0, 2000.0, 1.0, None), Point("b", 1, 0, 2.0, Interval(1, 3))], False),
    ):
        assert "nan" not in svg
        assert "inf" not in svg


def test_dearer_stands_further_right_and_names_do_not_cover_each_other():
    points = [Point(str(index), index, 10.0**index, 20.0, None) for index in range(-2, 4)]
    svg = quality_against_cost("PSNR", points, True)
    across = [float(x) for x in re.findall(r'<circle class="[^"]*" cx="([\d.]+)"', svg)]
    assert across == sorted(set(across))
    named = [float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="start">-?\d<', svg)]
    assert min(abs(a - b) for a in named for b in named if a is not b) >= 13 - 0.2


def test_a_name_that_a_template_lacks_is_an_error():
    with pytest.raises(Exception, match="'title' is undefined"):
        pages().get_template("report.html").render()


def test_the_page_is_the_same_every_time(tmp_path, light):
    data = make_split(tmp_path / "data")
    for out in ("one", "two"):
        report.evaluate_model(red, data, tmp_path / out)
    for name in ("report.html", "report.md", "scores.json", "scores.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
