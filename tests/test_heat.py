"""Maps as heat, and sheets of them: brighter is more, nothing overlaps, nothing is too tall."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from ptinv import heat
from ptinv.errors import InputError
from ptinv.heat import Cell, Layout, Strip

GREY = Image.new("RGB", (40, 24), (120, 120, 120))


def brightness(picture):
    return np.asarray(picture.convert("L"), np.int32)


def test_more_heat_is_brighter_and_the_most_is_brightest():
    steps = heat.ramp(torch.linspace(0, 1, 65)[None])[0] @ torch.tensor([0.299, 0.587, 0.114])
    assert (steps.diff() > 0).all()
    rising = torch.arange(10.0).expand(6, 10)
    row = brightness(heat.over(GREY, rising))[12]
    assert (np.diff(row) >= 0).all() and row[-1] > row[0] + 100


def test_heat_is_relative_to_the_map_s_own_maximum():
    seen = torch.rand(6, 10, generator=torch.Generator().manual_seed(0))
    assert heat.over(GREY, seen).tobytes() == heat.over(GREY, 0.01 * seen).tobytes()


def test_where_nothing_is_seen_the_picture_is_left_in_dim_grey(picture):
    pixels = np.asarray(heat.over(picture, torch.zeros(4, 6)), np.int32)
    assert pixels.shape[:2] == picture.size[::-1]
    assert np.ptp(pixels, axis=2).max() <= 4  # the ramp's own lowest blue
    original = brightness(picture)
    assert pixels.mean() < original.mean()
    assert np.corrcoef(pixels[..., 0].ravel(), original.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("cell", [(256, 256), (32, 256), (256, 32), (192, 256)])
@pytest.mark.parametrize("cells", [2, 7, 20, 76])
def test_nothing_on_a_sheet_overlaps(cell, cells):
    layout = Layout(cell, cells, 2)
    corners = [layout.corner(strip, i) for strip in range(2) for i in range(cells)]
    width, height = layout.size
    assert width <= heat.WIDE
    assert all(x + layout.column <= width for x, _ in corners)
    assert all(y + layout.line + heat.FOOTER <= height for _, y in corners)
    for (x, y), (other_x, other_y) in itertools.combinations(corners, 2):
        assert abs(x - other_x) >= layout.column or abs(y - other_y) >= layout.line


def test_a_sheet_too_tall_to_be_saved_is_refused():
    Layout((256, 256), 7, 48)
    with pytest.raises(InputError, match="ask for fewer"):
        Layout((256, 256), 7, 49)


def test_pictures_are_pasted_as_they_are_and_words_stay_in_their_columns():
    """Around the long word, the columns to either side have no word to draw."""
    words = ["", "counterrevolutionaries" * 3, ""]
    strips = [Strip("a heading", [Cell(GREY, word, "max 1%" * bool(word)) for word in words])]
    layout, made = Layout(GREY.size, 3, 1), heat.sheet(strips, "max")
    assert made.size == layout.size
    inked = []
    for i in range(3):
        x, y = layout.corner(0, i)
        box = (x, y, x + GREY.width, y + GREY.height)
        assert made.crop(box).tobytes() == GREY.tobytes()
        under = made.crop((x, box[3], x + layout.column, y + layout.line))
        inked.append(brightness(under).min() < 128)
    assert inked == [False, True, False]
