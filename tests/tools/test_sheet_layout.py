"""Sheets of pictures: each is whole and in its place, and words stay in theirs."""

import itertools

import numpy as np
import pytest
from PIL import Image
from world import sheets as sheet
from world.sheets import FONT, Row, Tile, draw_sheet, fonts, spelt

from ptinv.errors import InputError

Box = tuple[int, int, int, int]  # left, upper, right, lower
COLOURS = [(r, g, b) for r, g, b in itertools.product((60, 100, 140, 180, 220), repeat=3) if r != g]


def tiles(count: int, size: tuple[int, int] = (40, 24)) -> list[Image.Image]:
    """Pictures of a colour each, which is no grey as that of type is."""
    return [Image.new("RGB", size, colour) for colour in COLOURS[:count]]


def place(made: Image.Image, tile: Image.Image) -> Box:
    """Where a tile is on a sheet, whole."""
    colour = np.array([*tile.getpixel((0, 0)), 255], np.uint8).view(np.uint32)
    hit = np.asarray(made.convert("RGBA")).view(np.uint32)[..., 0] == colour
    assert hit.sum() == tile.width * tile.height
    (left, right), (upper, lower) = (
        (line.argmax(), len(line) - line[::-1].argmax()) for line in (hit.any(0), hit.any(1))
    )
    assert (right - left, lower - upper) == tile.size
    return left, upper, right, lower


def darkest(made: Image.Image, box: Box) -> int:
    """The least grey level in a box."""
    return made.crop(box).convert("L").getextrema()[0]


@pytest.mark.parametrize("size", [(256, 256), (32, 128), (3000, 20)])
@pytest.mark.parametrize("count", [1, 7, 24])
def test_all_pictures_are_whole_and_a_long_row_goes_on_below(size, count):
    shown = tiles(count, size)
    made = draw_sheet([Row([Tile(tile, "a label") for tile in shown], "a name", "a remark")])
    boxes = [place(made, tile) for tile in shown]
    assert made.width <= max(sheet.WIDE, size[0] + 300)
    assert boxes == sorted(boxes, key=lambda box: (box[1], box[0]))
    lines = [len(list(line)) for _, line in itertools.groupby(boxes, key=lambda box: box[1])]
    assert sum(lines) == count and set(lines[:-1]) <= {lines[0]}
    assert len(lines) - 1 >= lines[0] - lines[-1]  # so one fewer across would take more lines
    columns = sorted({left for left, *_ in boxes})
    assert all(b - a >= max(size[0], sheet.NARROW) for a, b in itertools.pairwise(columns))
    for left, upper, right, _ in boxes:
        assert darkest(made, (left, upper - sheet.LINE, right, upper)) < 200  # its label


def test_names_stand_at_the_left_and_labels_over_their_own_pictures():
    """A row and a column without words stay without."""
    one, two, three, four = shown = tiles(4)
    rows = [Row([Tile(one), Tile(two, "two")], "a name"), Row([Tile(three), Tile(four)])]
    made = draw_sheet(rows)
    boxes = first, second, third, fourth = [place(made, tile) for tile in shown]
    assert first[0] == third[0] == sheet.MARGIN + sheet.NAMES + sheet.GAP
    assert second[0] == fourth[0] == first[0] + sheet.NARROW + sheet.GAP
    assert first[1] == second[1] < third[1] == fourth[1]
    over = [(x, y - sheet.GAP, x + sheet.NARROW, y) for x, y, _, _ in boxes]
    assert [darkest(made, box) < 100 for box in over] == [False, True, False, False]
    beside = [(0, y, first[0], y + sheet.LINE) for y in (first[1], third[1])]
    assert [darkest(made, box) < 100 for box in beside] == [True, False]
    assert made.mode == "RGB" and made.getpixel((0, 0)) == (255, 255, 255)


def test_without_names_there_is_no_column_for_them():
    (tile,) = tiles(1)
    made = draw_sheet([Row([Tile(tile)])])
    assert place(made, tile)[:2] == (sheet.MARGIN, sheet.MARGIN)
    assert made.size == (sheet.NARROW + 2 * sheet.MARGIN, tile.height + 2 * sheet.MARGIN)


def test_a_row_without_cells_is_a_heading():
    one, two = tiles(2)
    made = draw_sheet([Row([Tile(one)]), Row([], "a heading"), Row([Tile(two)])])
    under, over = place(made, one)[3], place(made, two)[1]
    assert over - under == sheet.LINE + 2 * sheet.GAP
    assert darkest(made, (0, under, sheet.NAMES, over)) < 100


@pytest.mark.parametrize("text", ["counterrevolutionaries" * 3, "two red cars and a boat " * 9])
def test_words_stay_in_their_columns(text):
    """Those to either side, and the names' column, have none to draw."""
    shown = tiles(3)
    made = draw_sheet([Row([Tile(tile, text * (i == 1)) for i, tile in enumerate(shown)], ".")])
    boxes = [place(made, tile) for tile in shown]
    inked = [darkest(made, (x, 0, x + sheet.NARROW, y)) < 128 for x, y, _, _ in boxes]
    assert inked == [False, True, False]
    assert darkest(made, (0, 0, boxes[0][0], boxes[0][1])) == 255


def test_a_line_is_begun_only_where_the_last_one_is_full_or_ends():
    def height(text: str) -> int:
        return draw_sheet([Row([Tile(tiles(1)[0], text)])]).height

    lines = [height(text) - height("") for text in ("a red car", "a red\ncar", "a red car " * 5)]
    assert lines[:2] == [sheet.LINE, 2 * sheet.LINE]
    assert 3 * sheet.LINE <= lines[2] < 5 * sheet.LINE


def test_a_label_and_stressed_words_are_black_and_the_rest_of_a_remark_grey():
    def ink(label: str, remark: str) -> int:
        (tile,) = tiles(1)
        made = draw_sheet([Row([Tile(tile, label, remark, {"red"})])])
        return darkest(made, (0, 0, made.width, place(made, tile)[1]))

    assert ink("car", "") < 60 and ink("", "a red car") < 60 < 90 < ink("", "a car")


def test_a_footer_takes_the_whole_width_below_all():
    shown = tiles(4)
    rows = [Row([Tile(tile) for tile in shown])]
    plain, made = draw_sheet(rows), draw_sheet(rows, "what all of these pictures have in common")
    assert made.width == plain.width and 0 < made.height - plain.height <= sheet.LINE + sheet.GAP
    assert darkest(made, (0, place(made, shown[0])[3], made.width, made.height)) < 150


def test_a_sheet_too_tall_to_be_saved_is_refused():
    rows = [Row([Tile(tile)]) for tile in tiles(1, (8, 1000))] * 15
    assert sheet.TALL - 1000 < draw_sheet(rows).height < sheet.TALL
    for too_many in (rows + rows[:1], rows * 1000):
        with pytest.raises(InputError, match="more than 16000 pixels tall; ask for fewer pictures"):
            draw_sheet(too_many)


def test_letters_that_no_font_has_are_written_as_their_code_points(monkeypatch):
    monkeypatch.setattr("world.sheets.fonts", lambda: [FONT])
    spelt.cache_clear()
    assert spelt("é猫")[0] == "U+00E9+U+732B"
    spelt.cache_clear()


@pytest.mark.parametrize("letter", ["\x07", "\n", "\x1c", "\u2029"])
def test_what_cannot_be_printed_is_written_as_its_code_point(letter):
    assert spelt(letter) == (f"U+{ord(letter):04X}", FONT)


def test_a_system_s_font_writes_what_ours_lacks():
    word, font = spelt("Ж")
    if len(fonts()) == 1:
        pytest.skip("no such font here")
    assert (word, font is FONT) == ("Ж", False)
    assert spelt("word…") == ("word…", FONT)
