"""The grid of pictures: everything is in its place, and its words fit."""

import grid
from PIL import Image, ImageFont

RED, BLUE = (255, 0, 0), (0, 0, 255)


def _page(headings: str, groups: str, text: str = "a red car") -> Image.Image:
    columns = [grid.Column(heading, text, {"red"}) for heading in headings]
    tiles = [Image.new("RGB", (7, 7), RED) for _ in columns]
    return grid.page(columns, [grid.Row("a name", (), tiles, group) for group in groups])


def _runs(colours: list) -> list[tuple[int, int]]:
    """(start, length) of each unbroken run of red."""
    runs = []
    for i, colour in enumerate(colours):
        if colour == RED and runs and sum(runs[-1]) == i:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        elif colour == RED:
            runs.append((i, 1))
    return runs


def test_tiles_stand_apart_where_the_group_changes():
    page = _page("xxy", "aab")
    assert page.mode == "RGB" and page.getpixel((0, 0)) == (255, 255, 255)
    bottom, right = page.height - grid.MARGIN - 1, page.width - grid.MARGIN - 1
    across = _runs([page.getpixel((x, bottom)) for x in range(page.width)])
    down = _runs([page.getpixel((right, y)) for y in range(page.height)])
    for runs in (across, down):
        assert [length for _, length in runs] == [grid.TILE] * 3
        gaps = [b - a - grid.TILE for (a, _), (b, _) in zip(runs, runs[1:], strict=False)]
        assert gaps == [grid.GAP, grid.WIDE_GAP]
    assert across[0][0] == grid.MARGIN + grid.LEFT


def test_columns_and_rows_are_not_mixed_up():
    columns, names = [grid.Column("", text) for text in ("one", "two")], ("first", "second")
    colours = ((RED, BLUE), (BLUE, RED))
    rows = [
        grid.Row(name, (), [Image.new("RGB", (128, 128), colour) for colour in line])
        for name, line in zip(names, colours, strict=True)
    ]
    page = grid.page(columns, rows)
    x, y = page.width - grid.MARGIN - 1, page.height - grid.MARGIN - 1
    next_tile = grid.TILE + grid.GAP
    assert page.getpixel((x, y)) == page.getpixel((x - next_tile, y - next_tile)) == RED
    assert page.getpixel((x - next_tile, y)) == page.getpixel((x, y - next_tile)) == BLUE


def test_lines_hold_all_words_and_are_no_wider_than_they_may_be():
    text = "two orange mushrooms and a blue house in a room"
    font = ImageFont.load_default(13)
    lines = grid.wrapped(text, 13, 100)
    assert " ".join(lines) == text and len(lines) > 2
    assert all(font.getlength(line) <= 100 for line in lines)
    for line, after in zip(lines, lines[1:], strict=False):  # no line ends before it is full
        assert font.getlength(f"{line} {after.split()[0]}") > 100
    assert grid.wrapped("", 13, 100) == []
    assert grid.wrapped("a mushroom", 13, 5) == ["a", "mushroom"]


def test_stressed_words_are_black_and_the_others_grey():
    def darkest(text: str) -> int:
        page = _page("x", "a", text)
        below_heading, above_tile = grid.MARGIN + 19, page.height - grid.MARGIN - grid.TILE
        head = page.crop((grid.MARGIN + grid.LEFT, below_heading, page.width, above_tile))
        return head.convert("L").getextrema()[0]

    assert darkest("red") < 40 < 90 < darkest("car")


def test_a_longer_prompt_makes_room_for_itself():
    short, long = (_page("x", "a", text) for text in ("a car", "a car and " * 10 + "a dog"))
    assert long.height > short.height and long.width == short.width
