"""The page that explains an edit, as a browser shows it: with and without scripts, wide and narrow,
in light and dark, by keyboard and by mouse."""

import io

import numpy as np
import pytest
from explanation import page
from explanation.measurements import measure
from PIL import Image
from small import PROMPT

from ptinv.core.pictures import resize
from ptinv.methods.stages import silent

PLACE = page.Place("../", "ptinv edit …", "python tools/explain.py …")
SHOWN = "nodes => nodes.map(node => node.checkVisibility())"
FRAMES = {"up": 3, "down": 3, "between": 11, "where": 3}  # of each panel's slider, in four steps


@pytest.fixture(scope="module")
def story(small_model, picture):
    return measure(small_model, picture, PROMPT, "pti", {"steps": 4}, silent)


@pytest.fixture(scope="module")
def address(story, tmp_path_factory):
    """The page on disk."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page.page_of(story, PLACE), encoding="utf-8")
    return path.as_uri()


def shown(view, panel):
    """The places of a panel's frames that are to be seen."""
    seen = view.eval_on_selector_all(f"#{panel} .frame", SHOWN)
    return [i for i, is_seen in enumerate(seen) if is_seen]


def test_it_opens_from_disk_without_a_complaint_or_another_request(visit, address):
    visited = visit(address)
    visited.page.wait_for_load_state("networkidle")
    assert visited.errors == []
    assert [url for url in visited.requests if not url.startswith("data:")] == [address]
    broken = "nodes => nodes.filter(node => !node.complete || !node.naturalWidth).length"
    assert visited.page.eval_on_selector_all("img", broken) == 0


def test_a_slider_shows_the_picture_of_its_place_by_keyboard(visit, address, story):
    view = visit(address).page
    for panel, count in FRAMES.items():
        slider = view.locator(f"#{panel} input")
        for key, at in (("Home", 0), ("ArrowRight", 1), ("End", count - 1)):
            slider.press(key)
            assert shown(view, panel) == [at]
            frame = view.locator(f"#{panel} .frame").nth(at)
            assert slider.get_attribute("aria-valuetext") == frame.get_attribute("data-value")
    view.locator("#between input").press("Home")
    for i, one in enumerate(story.strengths):
        seen = view.locator("#between .frame:visible")
        assert (
            seen.locator("figcaption").inner_text().startswith(f"η = {one.eta:g}, {one.psnr:.2f}")
        )
        file = seen.locator("img").evaluate(
            "async node => [...new Uint8Array(await (await fetch(node.src)).arrayBuffer())]"
        )
        drawn = Image.open(io.BytesIO(bytes(file))).convert("RGB")
        off = [difference(drawn, other.picture) for other in story.strengths]
        assert off[i] == min(off)
        view.locator("#between input").press("ArrowRight")


def difference(a, b):
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


def test_a_slider_takes_the_line_in_its_drawing_along(visit, address):
    view = visit(address).page
    for panel, chart in (("down", "distances"), ("between", "decibels")):
        marker, places = view.locator(f"#{chart} .marker"), []
        for key in ("Home", "ArrowRight", "End"):
            view.locator(f"#{panel} input").press(key)
            places.append(float(marker.get_attribute("x1")))
        assert marker.get_attribute("class") == "marker on" and places == sorted(set(places))


def looks(view):
    """What the divided pair looks like, without its labels and the line."""
    file = view.locator(".divider").screenshot()
    drawn = Image.open(io.BytesIO(file)).convert("RGB")
    width, height = drawn.size
    return drawn.crop((0, height // 3, width, height))


def test_the_divider_goes_from_before_to_after_by_keyboard_and_by_mouse(visit, address, story):
    view = visit(address).page
    divider, slider = view.locator(".divider"), view.locator(".divider input")
    divider.scroll_into_view_if_needed()

    def nearest():
        seen = looks(view)
        pictures = (story.picture, story.edited.picture)
        whole = (resize(one, divider_size(view)) for one in pictures)
        below = [one.crop((0, one.height // 3, one.width, one.height)) for one in whole]
        off = [difference(seen, one.resize(seen.size)) for one in below]
        return ("before", "after")[off.index(min(off))]

    slider.press("End")
    assert nearest() == "before"
    slider.press("Home")
    assert nearest() == "after"
    box = divider.bounding_box()
    y = box["y"] + box["height"] / 2
    view.mouse.move(box["x"] + 1, y)
    view.mouse.down()
    view.mouse.move(box["x"] + 0.7 * box["width"], y, steps=5)
    view.mouse.up()
    assert abs(int(slider.input_value()) - 70) <= 2
    line = view.locator(".handle").bounding_box()
    assert abs(line["x"] + line["width"] / 2 - box["x"] - 0.7 * box["width"]) < 0.03 * box["width"]
    share = int(slider.input_value())
    assert slider.get_attribute("aria-valuetext") == f"{share} % before, {100 - share} % after"


def divider_size(view):
    box = view.locator(".divider").bounding_box()
    return round(box["width"]), round(box["height"])


@pytest.mark.parametrize("width", [1280, 390])
def test_without_javascript_everything_is_to_be_seen(visit, address, width):
    visited = visit(address, width=width, javascript=False)
    view = visited.page
    for panel, count in FRAMES.items():
        assert view.locator(f"#{panel} .frame:visible").count() == count
    assert view.locator("img:visible").count() == view.locator("img").count()
    assert view.locator("svg:visible").count() == view.locator("svg").count() == 4
    assert view.locator("input").count() == 0
    before, after = (view.locator(".divider img").nth(i).bounding_box() for i in (0, 1))
    assert before["x"] + before["width"] <= after["x"] and before["y"] == after["y"]
    assert visited.errors == []


@pytest.mark.parametrize("javascript", [True, False])
@pytest.mark.parametrize("width", [1280, 800, 390, 320])
def test_nothing_is_wider_than_the_window(visit, address, width, javascript):
    view = visit(address, width=width, javascript=javascript).page
    for selector in ("p", "img", "h2", "figure", "table", "pre", ".chart", ".equation", ".slider"):
        for box in (one.bounding_box() for one in view.locator(f"{selector}:visible").all()):
            assert box["x"] >= 0 and box["x"] + box["width"] <= width + 0.5, selector
    if javascript:
        assert view.evaluate("document.documentElement.scrollWidth") <= width


def luminance(colour):
    """Relative luminance (WCAG 2) of "rgb(r, g, b)"."""
    levels = [float(level) / 255 for level in colour[4:-1].split(",")]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in levels]
    return sum(share * x for share, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_light_and_dark(visit, address, scheme):
    view = visit(address, color_scheme=scheme).page
    colour = "(node, name) => getComputedStyle(node)[name]"
    paper = luminance(view.locator("body").evaluate(colour, "backgroundColor"))
    assert (paper > 0.8) is (scheme == "light") and (paper < 0.05) is (scheme == "dark")
    wash = luminance(view.locator(".equation").first.evaluate(colour, "backgroundColor"))
    for selector, behind, name in (
        ("main p", paper, "color"), ("figcaption", paper, "color"), (".note", paper, "color"),
        (".computed", wash, "color"), (".tick", paper, "fill"), (".name.accent", paper, "fill"),
        ("h2 span", paper, "color"), (".label", paper, "color"), ("math", wash, "color"),
    ):  # fmt: skip
        ink = luminance(view.locator(selector).first.evaluate(colour, name))
        dark, light = sorted((ink, behind))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector


def test_the_keyboard_reaches_all_that_can_be_moved(visit, address):
    view = visit(address).page
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.className") == "skip"
    view.keyboard.press("Enter")
    assert view.url.endswith("#seen")
    reached = set()
    for _ in range(80):
        view.keyboard.press("Tab")
        label = "document.activeElement.getAttribute('aria-label')"
        if view.evaluate("document.activeElement.type") == "range":
            reached.add(view.evaluate(label) + view.evaluate(
                "document.activeElement.closest('section').id"))  # fmt: skip
    assert len(reached) == len(FRAMES) + 1
