"""The page in a real browser: what a person does at it, and that nothing leaves the machine."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from small import PROMPT

import ptinv
from ptinv.storage.provenance import Recipe

gradio = pytest.importorskip("gradio", reason='the page needs pip install -e ".[app]"')
PROGRAM = Path(__file__).parents[3] / "tools" / "app.py"
MADE, STOPPED = re.compile("made in"), "Stopped."
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(small_folder, tmp_path_factory):
    """The program as it is started, with the small model; ended as a terminal does."""
    temporary = tmp_path_factory.mktemp("app")
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), "--model", str(small_folder), "--dtype", "float32"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    said = ""
    try:
        while not (found := re.search("http://127.0.0.1:[0-9]+/", said)):
            line = process.stderr.readline()
            assert line, f"ended, after {said!r}"
            said += line
        yield found[0]
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
        assert process.returncode == 0 and "local_app" not in rest  # a server may note who left
        assert not any(temporary.glob("ptinv-app-*"))  # nothing of anybody's is left
    finally:
        process.kill()


@pytest.fixture
def page(visit, address):
    """A person's own window."""
    return lambda **how: opened(visit(address, **how))


def opened(visit):
    visit.page.get_by_role("button", name="Edit", exact=True).wait_for(timeout=30_000)
    visit.page.wait_for_timeout(500)
    return visit


@pytest.fixture(scope="module")
def birds_file(tmp_path_factory, birds):
    path = tmp_path_factory.mktemp("files") / "birds.png"
    birds.save(path)
    return path


def upload(page, path):
    page.locator("#picture input[type=file]").set_input_files(path)
    page.locator("#picture img").wait_for()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def says(page, text, timeout=60_000):
    page.locator("#note").get_by_text(text).wait_for(timeout=timeout)


def is_made(page):
    """Waits for an edit that is not the one before."""
    says(page, MADE)


def downloaded(page, to):
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").or_(
            page.get_by_role("button", name="Download")
        ).first.click()
    download.value.save_as(to)
    return Recipe.read(to)


def slow(page):
    """Settings of an edit that takes a while."""
    page.get_by_text("All settings").click()
    page.locator("#option-steps textarea, #option-steps input").fill("500")


def brush(page):
    """Draws a stroke over the middle of the mask."""
    page.locator("#mask").scroll_into_view_if_needed()
    box = page.locator("#mask canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 20, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=5)
    page.mouse.up()
    page.wait_for_timeout(1000)


def ask(page, birds_file, prompt=PROMPT):
    upload(page, birds_file)
    page.get_by_label("What it should become").fill(prompt)


def test_a_picture_a_sentence_the_edit_and_its_strength(
    page, address, birds_file, birds, small_model, tmp_path
):
    visit = page()
    at = visit.page
    ask(at, birds_file)
    press(at, "Edit")
    is_made(at)
    assert at.locator("#result img").count() == 2
    first = downloaded(at, tmp_path / "a.png")
    assert (first.prompt, first.method) == (PROMPT, "auto")
    same = ptinv.edit(small_model, birds, PROMPT)
    with Image.open(tmp_path / "a.png") as made:
        assert made.convert("RGB").tobytes() == same.tobytes()
        whole = made.text["cost"]
    slider = at.locator("#eta input[type=range]")
    eta = float(slider.input_value())
    slider.press("ArrowLeft")
    at.locator("#history img").nth(1).wait_for(timeout=60_000)
    second = downloaded(at, tmp_path / "b.png")
    assert second.settings.eta == pytest.approx(eta - 0.05)
    assert second.settings.source == first.settings.source
    with Image.open(tmp_path / "b.png") as made:
        assert made.text["cost"] == whole  # of the sampling alone, both times
    outside = [url for url in visit.requests if not url.startswith((address, "data:", "blob:"))]
    assert outside == []


def test_a_mask_is_seen_before_the_edit_and_brushed(page, birds_file, birds, tmp_path):
    visit = page()
    at = visit.page
    ask(at, birds_file)
    press(at, "Look first")
    at.locator("#mask canvas").first.wait_for(timeout=60_000)
    at.wait_for_timeout(2000)
    assert at.locator("#words input").count() == 3 and not at.locator("#result img").count()
    press(at, "Edit")
    is_made(at)
    assert not downloaded(at, tmp_path / "own.png").mask_hash  # a mask that is shown is not brushed
    at.wait_for_timeout(2000)
    brush(at)
    at.get_by_label("Keep the picture's own pixels").check()
    press(at, "Edit")
    at.locator("#history img").nth(1).wait_for(timeout=60_000)
    recipe = downloaded(at, tmp_path / "a.png")
    assert recipe.mask_hash and recipe.settings.paste_back
    with Image.open(tmp_path / "a.png") as made:
        assert made.getpixel((64, 64)) != birds.getpixel((64, 64))


def test_another_method_shows_the_settings_that_it_reads(page):
    at = page().page
    at.get_by_text("All settings").click()
    for method, shown in (("ilvr", True), ("pti", False)):
        at.get_by_role("combobox", name="Method", exact=True).click()
        at.get_by_role("option", name=method, exact=True).click()
        state = "visible" if shown else "hidden"
        at.locator("#option-low_pass").wait_for(state=state, timeout=10_000)


def test_a_mask_that_is_wiped_can_be_brushed_anew(page, birds_file, tmp_path):
    at = page().page
    ask(at, birds_file)
    press(at, "Look first")
    at.locator("#mask canvas").first.wait_for(timeout=60_000)
    at.wait_for_timeout(2000)
    at.locator("#mask").get_by_role("button", name=re.compile("clear", re.IGNORECASE)).click()
    at.wait_for_timeout(2000)
    brush(at)
    press(at, "Edit")
    is_made(at)
    assert downloaded(at, tmp_path / "a.png").mask_hash


def test_a_run_stops_at_once_and_another_waits_its_turn(page, birds_file):
    one, other = page().page, page().page
    ask(one, birds_file)
    slow(one)
    ask(other, birds_file)
    press(one, "Edit")
    one.get_by_text(re.compile("left")).first.wait_for(timeout=30_000)
    press(other, "Edit")
    other.get_by_text(re.compile("queue: 1/1")).first.wait_for(timeout=30_000)
    begun = time.monotonic()
    press(one, "Stop")
    says(one, STOPPED)
    is_made(other)
    assert time.monotonic() - begun < 30
    assert not one.locator("#result img").count()


def test_a_picture_that_ptinv_made_brings_its_settings_and_what_it_was_made_of(
    page, birds_file, birds, small_model, tmp_path
):
    how = dict(method="pti", steps=4, eta=0.35, negative="snow")
    ptinv.result(small_model, birds, PROMPT, **how).save(tmp_path / "made.png")
    at = page().page
    upload(at, tmp_path / "made.png")
    says(at, "The settings are restored, and the picture that they were for.")
    assert at.get_by_label("What it should become").input_value() == PROMPT
    assert at.get_by_label("What it should not show").input_value() == "snow"
    press(at, "Edit")
    is_made(at)
    downloaded(at, tmp_path / "again.png")
    with Image.open(tmp_path / "made.png") as was, Image.open(tmp_path / "again.png") as made:
        assert made.tobytes() == was.tobytes() and made.text["settings"] == was.text["settings"]


def test_what_is_no_picture_is_refused_in_a_sentence(page, tmp_path, birds_file):
    (tmp_path / "notes.png").write_text("a yellow car")
    at = page().page
    at.locator("#eta input[type=range]").press("ArrowLeft")  # there is nothing to sample yet
    at.wait_for_timeout(1000)
    assert not at.get_by_text("Error", exact=True).count()
    at.locator("#picture input[type=file]").set_input_files(tmp_path / "notes.png")
    says(at, "notes.png: the file is not a picture that is opened here (PNG, JPEG, ")
    press(at, "Edit")
    says(at, "there is no picture yet")
    upload(at, birds_file)
    press(at, "Edit")
    says(at, "the prompt is empty")


@pytest.mark.parametrize("width, scheme", [(1280, "light"), (390, "dark")])
def test_the_page_fits_its_window(page, birds_file, width, scheme):
    visit = page(width=width, color_scheme=scheme)
    upload(visit.page, birds_file)
    wide = "document.documentElement.scrollWidth"
    assert visit.page.evaluate(wide) <= width
    assert visit.errors == []
