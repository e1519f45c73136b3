"""Masks as pictures: a picture made a mask of the latent, and a mask laid over pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from ptinv.errors import Doubt, PictureError
from ptinv.methods import masks
from ptinv.storage.pictures import checked, open_picture


def to_mask(image, size):
    """As an edit makes it of a picture that is given."""
    image = checked(image, masks.painted)
    masks.check_mask(image, None)
    return masks.to_mask(image, size)


def test_mask_averages_cells():
    image = Image.new("L", (64, 32), 0)
    image.paste(255, (0, 0, 8, 4))  # a quarter of the first 16x8 cell
    image.paste(255, (48, 24, 64, 32))  # the last cell
    mask = to_mask(image, (4, 4))
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 0, 0], expected[0, 0, 3, 3] = 0.25, 1
    assert mask.dtype == torch.float32
    assert torch.allclose(mask, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
def test_mask_modes_and_shape(mode):
    white = {"1": 1, "L": 255, "RGB": (255, 255, 255), "I;16": 65535}[mode]
    mask = to_mask(Image.new(mode, (40, 30), white), (6, 8))
    assert mask.shape == (1, 1, 6, 8) and (mask == 1).all()


def grey_of(mask: Image.Image) -> np.ndarray:
    assert mask.mode == "RGB"
    return np.asarray(mask.convert("L"))


def halves(left: int | tuple, right: int | tuple, mode: str) -> Image.Image:
    image = Image.new(mode, (32, 16), right)
    image.paste(left, (0, 0, 16, 16))
    return image


@pytest.mark.parametrize(
    ("image", "left", "right"),
    [
        (halves(1, 0, "L"), 255, 0),
        (halves(1, 0, "I"), 255, 0),
        (halves(0.25, 1.0, "F"), 64, 255),
        (halves(1, 0, "I;16"), 255, 0),
        (halves((1, 1, 1), (0, 0, 0), "RGB"), 255, 0),
        (halves(2, 0, "L"), 2, 0),
        (halves((255, 255, 255, 255), (255, 255, 255, 0), "RGBA"), 255, 0),
        (halves((255, 255, 255, 51), (0, 0, 0, 255), "RGBA"), 51, 0),
        (halves((255, 255), (0, 255), "LA"), 255, 0),
        (halves((0, 0, 0, 0), (0, 0, 0, 255), "RGBA"), 255, 0),  # only erased
        (halves((90, 0, 0, 255), (0, 0, 0, 255), "RGBA"), 27, 0),
    ],
)
def test_what_a_mask_selects(image, left, right, recwarn):
    grey = grey_of(checked(image, masks.painted))
    assert (grey[:, :16] == left).all() and (grey[:, 16:] == right).all()


@pytest.mark.parametrize("name", ["mask01.png", "mask-white-on-transparent.png"])
def test_masks_as_other_programs_write_them_select_a_part(wild, name):
    grey = grey_of(open_picture(wild / name, masks.painted))
    assert set(np.unique(grey)) == {0, 255}
    assert 0.1 < (grey == 255).mean() < 0.9


def test_a_mask_that_selects_everything_is_said():
    with pytest.warns(Doubt, match="all white and selects everything"):
        masks.check_mask(Image.new("RGB", (32, 32), "white"), None)


def test_one_white_pixel_selects_something_and_black_nothing():
    image = Image.new("L", (512, 512), 0)
    with pytest.raises(PictureError, match="selects nothing"):
        to_mask(image, (8, 8))
    image.putpixel((100, 100), 255)
    assert to_mask(image, (8, 8)).max().item() == pytest.approx(1 / 64**2)


def random_picture(size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    return Image.fromarray(pixels)


OLD, NEW = random_picture((64, 48), 1), random_picture((64, 48), 2)


def corner_mask():
    """The first of 8 × 6 cells, each of 8 × 8 pixels."""
    mask = torch.zeros(1, 1, 6, 8)
    mask[..., 0, 0] = 1
    return mask


def test_a_mask_spreads_to_a_cell_around_with_a_soft_edge():
    spread = masks.spread(corner_mask(), (64, 48))
    assert spread.shape == (48, 64)
    assert (spread[:12, :12] == 1).all()  # its own 8 pixels, and half of the next cell's
    assert not spread[20:].any() and not spread[:, 20:].any()
    assert (spread[0, 12:20].diff() < 0).all()
    torch.testing.assert_close(masks.spread(torch.ones(1, 1, 6, 8), (50, 30)), torch.ones(30, 50))


def test_pixels_are_the_original_s_where_the_mask_is_0_and_the_edit_s_where_it_is_1():
    pasted = np.asarray(masks.paste_back(OLD, NEW, corner_mask()))
    old, new = np.asarray(OLD), np.asarray(NEW)
    assert np.array_equal(pasted[20:], old[20:])
    assert np.array_equal(pasted[:, 20:], old[:, 20:])
    assert np.array_equal(pasted[:12, :12], new[:12, :12])
    edge = pasted[:12, 12:20]
    low, high = np.minimum(old, new)[:12, 12:20], np.maximum(old, new)[:12, 12:20]
    assert ((low <= edge) & (edge <= high)).all()


def test_nothing_is_pasted_under_a_full_mask_and_everything_under_an_empty_one():
    for mask, expected in ((torch.ones(1, 1, 6, 8), NEW), (torch.zeros(1, 1, 6, 8), OLD)):
        pasted = masks.paste_back(OLD, NEW, mask)
        assert (pasted.mode, pasted.size) == (OLD.mode, OLD.size)
        assert pasted.tobytes() == expected.tobytes()


def test_a_mask_over_a_picture_reddens_what_it_covers_and_dims_the_rest():
    grey = Image.new("RGB", (64, 48), (100, 100, 100))
    shown = np.asarray(masks.over(grey, corner_mask()))
    assert shown[0, 0].tolist() == [145, 79, 79]  # 65 and 35 % of (230, 40, 40)
    assert shown[-1, -1].tolist() == [45, 45, 45]
