"""Sheets of pictures: each is in its place, nothing overlaps, and words fit."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageFont

from ptinv import sheet
from ptinv.sheet import Cell, Column, Row, Strip

GREY = Image.new("RGB", (40, 24), (120, 120, 120))
RED, BLUE = (255, 0, 0), (0, 0, 255)


# Strips


@pytest.mark.parametrize("picture", [(256, 256), (32, 256), (256, 32), (192, 256)])
@pytest.mark.parametrize("cells", [2, 7, 20, 76])
def test_nothing_in_strips_overlaps(picture, cells):
    strips, (width, height) = sheet.lay_out(picture, cells, 2)
    assert [len(strip) for strip in strips] == [cells, cells]
    corners = list(itertools.chain(*strips))
    across = max(picture[0], sheet.NARROW) + sheet.SPACE
    down = picture[1] + sheet.LABEL + sheet.SPACE
    assert width <= sheet.WIDE
    assert all(x + across <= width for x, _ in corners)
    assert all(y + down + sheet.FOOTER <= height for _, y in corners)
    for (x, y), (other_x, other_y) in itertools.combinations(corners, 2):
        assert abs(x - other_x) >= across or abs(y - other_y) >= down


def test_pictures_are_pasted_as_they_are_and_words_stay_in_their_columns():
    """Around the long word, the columns to either side have no word to draw."""
    words = ["", "counterrevolutionaries" * 3, ""]
    strips = [Strip("a heading", [Cell(GREY, word, "max 1%" * bool(word)) for word in words])]
    (corners,), size = sheet.lay_out(GREY.size, 3, 1)
    made = sheet.draw_strips(strips, ("0", GREY, "max"))
    assert made.size == size
    inked = []
    for x, y in corners:
        box = (x, y, x + GREY.width, y + GREY.height)
        assert made.crop(box).tobytes() == GREY.tobytes()
        under = made.crop((x, box[3], x + sheet.NARROW, box[3] + sheet.LABEL))
        inked.append(np.asarray(under.convert("L")).min() < 128)
    assert inked == [False, True, False]


# Tables


def table(headings: str, groups: str, text: str = "a red car") -> Image.Image:
    columns = [Column(heading, text, {"red"}) for heading in headings]
    tiles = [Image.new("RGB", (7, 7), RED) for _ in columns]
    return sheet.draw_table(columns, [Row("a name", (), tiles, group) for group in groups])


def runs_of_red(colours: list) -> list[tuple[int, int]]:
    """(start, length) of each unbroken run."""
    runs = []
    for i, colour in enumerate(colours):
        if colour == RED and runs and sum(runs[-1]) == i:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        elif colour == RED:
            runs.append((i, 1))
    return runs


def test_tiles_stand_apart_where_the_group_changes():
    made = table("xxy", "aab")
    assert made.mode == "RGB" and made.getpixel((0, 0)) == (255, 255, 255)
    bottom, right = made.height - sheet.MARGIN - 1, made.width - sheet.MARGIN - 1
    across = runs_of_red([made.getpixel((x, bottom)) for x in range(made.width)])
    down = runs_of_red([made.getpixel((right, y)) for y in range(made.height)])
    for runs in (across, down):
        assert [length for _, length in runs] == [sheet.TILE] * 3
        gaps = [b - a - sheet.TILE for (a, _), (b, _) in zip(runs, runs[1:], strict=False)]
        assert gaps == [sheet.GAP, sheet.WIDE_GAP]
    assert across[0][0] == sheet.MARGIN + sheet.LEFT


def test_columns_and_rows_are_not_mixed_up():
    columns, names = [Column("", text) for text in ("one", "two")], ("first", "second")
    colours = ((RED, BLUE), (BLUE, RED))
    rows = [
        Row(name, (), [Image.new("RGB", (128, 128), colour) for colour in line])
        for name, line in zip(names, colours, strict=True)
    ]
    made = sheet.draw_table(columns, rows)
    x, y = made.width - sheet.MARGIN - 1, made.height - sheet.MARGIN - 1
    next_tile = sheet.TILE + sheet.GAP
    assert made.getpixel((x, y)) == made.getpixel((x - next_tile, y - next_tile)) == RED
    assert made.getpixel((x - next_tile, y)) == made.getpixel((x, y - next_tile)) == BLUE


def test_lines_hold_all_words_and_are_no_wider_than_they_may_be():
    text = "two orange mushrooms and a blue house in a room"
    font = ImageFont.load_default(13)
    lines = sheet.wrapped(text, 13, 100)
    assert " ".join(lines) == text and len(lines) > 2
    assert all(font.getlength(line) <= 100 for line in lines)
    for line, after in zip(lines, lines[1:], strict=False):  # no line ends before it is full
        assert font.getlength(f"{line} {after.split()[0]}") > 100
    assert sheet.wrapped("", 13, 100) == []
    assert sheet.wrapped("a mushroom", 13, 5) == ["a", "mushroom"]


def test_stressed_words_are_black_and_the_others_grey():
    def darkest(text: str) -> int:
        made = table("x", "a", text)
        below_heading, above_tile = sheet.MARGIN + 19, made.height - sheet.MARGIN - sheet.TILE
        head = made.crop((sheet.MARGIN + sheet.LEFT, below_heading, made.width, above_tile))
        return head.convert("L").getextrema()[0]

    assert darkest("red") < 40 < 90 < darkest("car")


def test_a_longer_prompt_makes_room_for_itself():
    short, long = (table("x", "a", text) for text in ("a car", "a car and " * 10 + "a dog"))
    assert long.height > short.height and long.width == short.width
