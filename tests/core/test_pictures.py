"""Pictures as images and as tensors: every mode becomes RGB, sizes fit the networks."""

import math
import os
import random

import numpy as np
import pytest
import torch
from PIL import Image

from ptinv.core import pictures
from ptinv.core.pictures import to_rgb
from ptinv.errors import PictureError


def _plain(color=(10, 20, 30), size=(32, 24)) -> Image.Image:
    return Image.new("RGB", size, color)


def _noise(width=32, height=24, seed=0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 77, (77, 77, 77)),
        ("LA", (0, 51), (204, 204, 204)),
        ("La", (0, 51), (204, 204, 204)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("RGBX", (1, 2, 3, 9), (1, 2, 3)),
        ("RGBA", (255, 0, 0, 51), (255, 204, 204)),
        ("RGBA", (9, 9, 9, 0), (255, 255, 255)),
        ("RGBA", (9, 8, 7, 255), (9, 8, 7)),
        ("RGBa", (51, 0, 0, 51), (255, 204, 204)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (200, 128, 128), (200, 200, 200)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 200, (1, 1, 1)),
        ("I;16B", 257 * 99, (99, 99, 99)),
        ("I", 65535, (255, 255, 255)),
        ("I", 255, (255, 255, 255)),
        ("I", 256, (1, 1, 1)),
        ("F", 100.4, (100, 100, 100)),
        ("F", 65535.0, (255, 255, 255)),
    ],
)
def test_modes(mode, color, expected):
    rgb = to_rgb(Image.new(mode, (20, 16), color))
    assert (rgb.mode, rgb.size) == ("RGB", (20, 16))
    assert rgb.getpixel((3, 5)) == expected


def test_lab_is_converted():
    for lab, expected in (((255, 128, 128), (255, 255, 255)), ((138, 209, 198), (255, 0, 0))):
        pixel = to_rgb(Image.new("LAB", (16, 16), lab)).getpixel((0, 0))
        assert np.abs(np.subtract(pixel, expected)).max() <= 6


def test_palette_with_an_alpha_channel():
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0])
    image = image.convert("PA")
    image.putalpha(51)
    assert image.mode == "PA"
    assert to_rgb(image).getpixel((0, 0)) == (255, 204, 204)


def test_a_mode_i_image_that_came_from_a_png_is_sixteen_bit():
    image = Image.new("I", (16, 16), 255)  # as older Pillows open it
    image.format = "PNG"
    assert to_rgb(image).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(("mode", "value"), [("I", -1), ("I", 65536), ("F", math.nan)])
def test_grey_of_an_unknown_range(mode, value):
    with pytest.raises(PictureError, match="save it as an 8-bit or 16-bit picture"):
        to_rgb(Image.new(mode, (16, 16), value))


def test_a_plain_picture_is_returned_as_it_is():
    image = _plain()
    assert to_rgb(image) is image
    assert to_rgb(to_rgb(_plain().convert("RGBA"))).tobytes() == image.tobytes()


def test_an_image_in_memory_with_an_orientation_is_turned_upright():
    image = _noise()
    image.getexif()[0x0112] = 3
    assert (np.asarray(to_rgb(image)) == np.asarray(_noise())[::-1, ::-1]).all()
    assert (np.asarray(image) == np.asarray(_noise())).all()


def test_an_opened_file_is_read_whole_before_it_is_closed(tmp_path):
    _noise().save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        rgb = to_rgb(image)
    assert rgb is not image and rgb.tobytes() == _noise().tobytes()


def test_what_may_never_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path, tmp_path / "none.png", "/dev/zero"):
        with pytest.raises(PictureError, match="no regular file of this name"):
            to_rgb(path)


def test_to_rgb_gives_a_new_image_without_metadata():
    image = _plain()
    image.info["icc_profile"] = b"profile"
    rgb = to_rgb(image)
    rgb.putpixel((0, 0), (0, 0, 0))
    assert image.getpixel((0, 0)) == (10, 20, 30)
    assert (image.info, rgb.info) == ({"icc_profile": b"profile"}, {})


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((512, 512), (512, 512)),
        ((7, 7), (512, 512)),
        ((1920, 1080), (704, 384)),
        ((1080, 1920), (384, 704)),
        ((600, 400), (640, 448)),
    ],
)
def test_fit_examples(size, expected):
    assert pictures.fit(size, 512 * 512, 64) == expected


def test_fit_properties():
    rng = random.Random(0)
    for _ in range(2000):
        multiple = rng.choice([1, 8, 32, 64])
        area = rng.randint(256, 1024) ** 2
        short = rng.randint(16, 3000)
        long = rng.randint(short, 8 * short)
        width, height = pictures.fit((long, short), area, multiple)
        assert pictures.fit((short, long), area, multiple) == (height, width)
        assert min(width, height) > 0 and width % multiple == height % multiple == 0
        if min(width, height) == multiple:
            continue  # the smallest there is, however far below it the ideal lies
        # A side of n multiples is nearest in ratio to no length beyond √(n (n ± 1)) multiples.
        ns = (width // multiple, height // multiple)
        factor = math.prod(math.sqrt(n / (n - 1)) for n in ns)
        assert 1 / factor <= width * height / area <= factor
        assert 1 / factor <= (width / height) / (long / short) <= factor


def test_fit_beats_every_neighbour():
    rng = random.Random(1)
    for _ in range(200):
        w0, h0 = rng.randint(100, 2000), rng.randint(100, 2000)

        def error(size, aspect=w0 / h0):
            w, h = size
            return abs(math.log(w * h / 512**2)) + abs(math.log(w / h / aspect))

        w, h = pictures.fit((w0, h0), 512**2, 64)
        around = [(w + i, h + j) for i in (-64, 0, 64) for j in (-64, 0, 64) if w + i and h + j]
        assert error((w, h)) <= min(map(error, around)) + 1e-9


def test_fit_refuses_what_is_not_positive():
    for arguments in (((0, 5), 64, 8), ((5, 5), 0, 8), ((5, 5), 64, 0)):
        with pytest.raises(ValueError, match="positive"):
            pictures.fit(*arguments)


def test_resize():
    image = _noise()
    assert pictures.resize(image, (64, 40)).size == (64, 40)
    same = pictures.resize(image, image.size)
    assert same is not image and same.tobytes() == image.tobytes()


def test_round_trip_of_every_level():
    levels = np.random.default_rng(0).permuted(np.tile(np.arange(256), (3, 1)), axis=1)
    image = Image.fromarray(levels.reshape(3, 16, 16).transpose(1, 2, 0).astype(np.uint8))
    x = pictures.to_tensor(image)
    assert (x.shape, x.dtype, x.is_contiguous()) == ((1, 3, 16, 16), torch.float32, True)
    assert (x.min(), x.max()) == (-1, 1)
    assert pictures.to_picture(x).tobytes() == image.tobytes()


def test_to_tensor_keeps_the_axes_and_takes_rgb_only():
    image = _plain((0, 0, 0))
    image.putpixel((5, 2), (255, 0, 51))
    x = pictures.to_tensor(image)
    assert x[0, :, 2, 5].tolist() == pytest.approx([1, -1, -0.6])
    with pytest.raises(ValueError, match="RGB"):
        pictures.to_tensor(image.convert("L"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_to_picture_clamps_and_rounds(dtype):
    x = torch.tensor([-5, -1, 0.3, 5], dtype=dtype, requires_grad=True).expand(1, 3, 1, 4)
    picture = np.asarray(pictures.to_picture(x))
    assert picture[0, :, 0].tolist() == [0, 0, 166, 255]  # 1.3 · 127.5 = 165.75


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_to_picture_refuses_what_is_not_finite(value):
    x = torch.zeros(1, 3, 8, 8)
    x[0, 1, 2, 3] = value
    with pytest.raises(FloatingPointError, match="not finite .* try --dtype float32 or bfloat16"):
        pictures.to_picture(x)
