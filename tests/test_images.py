"""Pictures in and out: every mode and mishap, on files made here."""

import math
import os
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ptinv import images
from ptinv.errors import InputError
from ptinv.images import PictureError, open_picture, save_picture, to_rgb
from ptinv.metrics import psnr

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def _plain(color=(10, 20, 30), size=(32, 24)) -> Image.Image:
    return Image.new("RGB", size, color)


def _noise(width=32, height=24, seed=0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _ramp16() -> np.ndarray:
    """Every 8-bit level v once, as the 16-bit level 257 v."""
    return np.arange(256, dtype=np.uint16).reshape(16, 16) * 257


def _png_header(width: int, height: int) -> bytes:
    """The start of a PNG of this size, without any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def _refused(path, words: str) -> None:
    with pytest.raises(PictureError, match=words) as caught:
        open_picture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("extra", [{"transparency": 1}, {"transparency": bytes([255, 0])}])
def test_transparent_palette(tmp_path, extra):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", **extra)
    rgb = open_picture(tmp_path / "p.png")
    assert rgb.getpixel((0, 0)) == (10, 20, 30)
    assert rgb.getpixel((1, 0)) == (255, 255, 255)


def test_palette_with_an_alpha_channel():
    image = Image.new("P", (16, 16), 0)
    image.putpalette([255, 0, 0])
    image = image.convert("PA")
    image.putalpha(51)
    assert image.mode == "PA"
    assert to_rgb(image).getpixel((0, 0)) == (255, 204, 204)


def test_transparent_colour_of_a_png(tmp_path):
    image = _plain((1, 2, 3))
    image.putpixel((0, 0), (4, 5, 6))
    image.save(tmp_path / "key.png", transparency=(1, 2, 3))
    rgb = open_picture(tmp_path / "key.png")
    assert (rgb.getpixel((0, 0)), rgb.getpixel((1, 1))) == ((4, 5, 6), (255, 255, 255))


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_sixteen_bit_files_are_scaled(tmp_path, name):
    Image.fromarray(_ramp16()).save(tmp_path / name)
    levels = np.asarray(open_picture(tmp_path / name))
    assert (levels == (_ramp16() // 257)[..., None]).all()


def test_a_dark_sixteen_bit_png_stays_dark(tmp_path):
    Image.fromarray(np.full((16, 16), 255, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert open_picture(tmp_path / "dark.png").getpixel((0, 0)) == (1, 1, 1)


def test_a_mode_i_image_that_came_from_a_png_is_sixteen_bit():
    image = Image.new("I", (16, 16), 255)  # as older Pillows open it
    image.format = "PNG"
    assert to_rgb(image).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(("mode", "value"), [("I", -1), ("I", 65536), ("F", math.nan)])
def test_grey_of_an_unknown_range(mode, value):
    with pytest.raises(PictureError, match="save it as an 8-bit or 16-bit picture"):
        to_rgb(Image.new(mode, (16, 16), value))


def test_to_rgb_gives_a_new_image_without_metadata():
    image = _plain()
    image.info["icc_profile"] = b"profile"
    rgb = to_rgb(image)
    rgb.putpixel((0, 0), (0, 0, 0))
    assert image.getpixel((0, 0)) == (10, 20, 30)
    assert (image.info, rgb.info) == ({"icc_profile": b"profile"}, {})


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "A.PNG"])
def test_lossless_files_come_back_exactly(tmp_path, name):
    _noise().save(tmp_path / name)
    assert (np.asarray(open_picture(str(tmp_path / name))) == np.asarray(_noise())).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L"])
def test_jpeg_modes(tmp_path, mode):
    _plain((200, 60, 20)).convert(mode).save(tmp_path / "a.jpg", quality=95)
    expected = _plain((200, 60, 20)).convert(mode).convert("RGB").getpixel((0, 0))
    pixel = open_picture(tmp_path / "a.jpg").getpixel((5, 5))
    assert np.abs(np.subtract(pixel, expected)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    # What the camera stores for an upright picture, as the EXIF standard defines the eight.
    upright = np.asarray(_noise())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(open_picture(tmp_path / "a.png")) == upright).all()
    with Image.open(tmp_path / "a.png") as image:
        once = to_rgb(image)
    assert (np.asarray(to_rgb(once)) == upright).all()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [_plain((255, 0, 0)), _plain((0, 0, 255))]
    lossless = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
    assert open_picture(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)


def test_missing_folder_empty_and_no_picture(tmp_path):
    _refused(tmp_path / "none.png", "no regular file")
    _refused(tmp_path, "is a folder")
    (tmp_path / "empty.png").touch()
    _refused(tmp_path / "empty.png", "is empty")
    (tmp_path / "words.png").write_text("not a picture")
    _refused(tmp_path / "words.png", "not a picture")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.tif"])
def test_truncated(tmp_path, name):
    _noise(64, 64).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    _refused(tmp_path / name, "truncated or damaged")


def test_a_damaged_image_of_a_python_user(tmp_path):
    _noise(64, 64).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "a.jpg") as image:
        with pytest.raises(PictureError, match="truncated or damaged"):
            to_rgb(image)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((15, 40), "too small, 15x40 pixels; use one of at least 16"),
        ((40, 15), "too small"),
        ((16 * 8 + 1, 16), "too elongated"),
        ((16, 16 * 8 + 1), "too elongated"),
        ((8001, 8000), "more than 64 million pixels"),  # Pillow is silent
        ((10_000, 10_000), "more than 64 million pixels"),  # Pillow warns
        ((100_000, 100_000), "more than 64 million pixels"),  # Pillow raises
    ],
)
def test_sizes_are_refused_from_the_header(tmp_path, size, words):
    # There is not one pixel behind the header: decoding would find the file truncated.
    (tmp_path / "a.png").write_bytes(_png_header(*size))
    _refused(tmp_path / "a.png", words)


def test_the_extreme_sizes_are_accepted():
    assert to_rgb(_plain(size=(16, 16))).size == (16, 16)
    assert to_rgb(_plain(size=(128, 16))).size == (128, 16)


def test_a_python_users_image_is_validated_too():
    with pytest.raises(PictureError, match="too small"):
        to_rgb(_plain(size=(0, 0)))


@pytest.mark.skipif(AS_ROOT, reason="root may read and write everything")
def test_permissions(tmp_path):
    _plain().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    _refused(tmp_path / "a.png", "may not be read")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PictureError, match="not writable"):
            images.check_output(tmp_path / "b.png")
    finally:
        tmp_path.chmod(0o700)


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
    assert images.fit(size, 512 * 512, 64) == expected


def test_fit_properties():
    rng = random.Random(0)
    for _ in range(2000):
        multiple = rng.choice([1, 8, 32, 64])
        area = rng.randint(256, 1024) ** 2
        short = rng.randint(16, 3000)
        long = rng.randint(short, 8 * short)
        width, height = images.fit((long, short), area, multiple)
        assert images.fit((short, long), area, multiple) == (height, width)
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

        w, h = images.fit((w0, h0), 512**2, 64)
        around = [(w + i, h + j) for i in (-64, 0, 64) for j in (-64, 0, 64) if w + i and h + j]
        assert error((w, h)) <= min(map(error, around)) + 1e-9


def test_fit_refuses_what_is_not_positive():
    for arguments in (((0, 5), 64, 8), ((5, 5), 0, 8), ((5, 5), 64, 0)):
        with pytest.raises(ValueError, match="positive"):
            images.fit(*arguments)


def test_resize():
    image = _noise()
    assert images.resize(image, (64, 40)).size == (64, 40)
    same = images.resize(image, image.size)
    assert same is not image and same.tobytes() == image.tobytes()


def test_round_trip_of_every_level():
    levels = np.random.default_rng(0).permuted(np.tile(np.arange(256), (3, 1)), axis=1)
    image = Image.fromarray(levels.reshape(3, 16, 16).transpose(1, 2, 0).astype(np.uint8))
    x = images.to_tensor(image)
    assert (x.shape, x.dtype, x.is_contiguous()) == ((1, 3, 16, 16), torch.float32, True)
    assert (x.min(), x.max()) == (-1, 1)
    assert images.to_picture(x).tobytes() == image.tobytes()


def test_to_tensor_keeps_the_axes_and_takes_rgb_only():
    image = _plain((0, 0, 0))
    image.putpixel((5, 2), (255, 0, 51))
    x = images.to_tensor(image)
    assert x[0, :, 2, 5].tolist() == pytest.approx([1, -1, -0.6])
    with pytest.raises(ValueError, match="RGB"):
        images.to_tensor(image.convert("L"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_to_picture_clamps_and_rounds(dtype):
    x = torch.tensor([-5, -1, 0.3, 5], dtype=dtype, requires_grad=True).expand(1, 3, 1, 4)
    picture = np.asarray(images.to_picture(x))
    assert picture[0, :, 0].tolist() == [0, 0, 166, 255]  # 1.3 · 127.5 = 165.75


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_to_picture_refuses_what_is_not_finite(value):
    x = torch.zeros(1, 3, 8, 8)
    x[0, 1, 2, 3] = value
    with pytest.raises(FloatingPointError, match="not finite .* try --dtype float32 or bfloat16"):
        images.to_picture(x)


def test_mask_averages_cells():
    image = Image.new("L", (64, 32), 0)
    image.paste(255, (0, 0, 8, 4))  # a quarter of the first 16x8 cell
    image.paste(255, (48, 24, 64, 32))  # the last cell
    mask = images.to_mask(image, (4, 4))
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 0, 0], expected[0, 0, 3, 3] = 0.25, 1
    assert mask.dtype == torch.float32
    assert torch.allclose(mask, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "I;16"])
def test_mask_modes_and_shape(mode):
    white = {"1": 1, "L": 255, "RGB": (255, 255, 255), "I;16": 65535}[mode]
    mask = images.to_mask(Image.new(mode, (40, 30), white), (8, 6))
    assert mask.shape == (1, 1, 6, 8) and (mask == 1).all()


def test_one_white_pixel_selects_something_and_black_nothing():
    image = Image.new("L", (512, 512), 0)
    with pytest.raises(PictureError, match="selects nothing"):
        images.to_mask(image, (8, 8))
    image.putpixel((100, 100), 255)
    assert images.to_mask(image, (8, 8)).max().item() == pytest.approx(1 / 64**2)


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
    spread = images.spread(corner_mask(), (64, 48))
    assert spread.shape == (48, 64)
    assert (spread[:12, :12] == 1).all()  # its own 8 pixels, and half of the next cell's
    assert not spread[20:].any() and not spread[:, 20:].any()
    assert (spread[0, 12:20].diff() < 0).all()
    torch.testing.assert_close(images.spread(torch.ones(1, 1, 6, 8), (50, 30)), torch.ones(30, 50))


def test_pixels_are_the_original_s_where_the_mask_is_0_and_the_edit_s_where_it_is_1():
    pasted = np.asarray(images.paste_back(OLD, NEW, corner_mask()))
    old, new = np.asarray(OLD), np.asarray(NEW)
    assert np.array_equal(pasted[20:], old[20:])
    assert np.array_equal(pasted[:, 20:], old[:, 20:])
    assert np.array_equal(pasted[:12, :12], new[:12, :12])
    edge = pasted[:12, 12:20]
    low, high = np.minimum(old, new)[:12, 12:20], np.maximum(old, new)[:12, 12:20]
    assert ((low <= edge) & (edge <= high)).all()


def test_nothing_is_pasted_under_a_full_mask_and_everything_under_an_empty_one():
    for mask, expected in ((torch.ones(1, 1, 6, 8), NEW), (torch.zeros(1, 1, 6, 8), OLD)):
        pasted = images.paste_back(OLD, NEW, mask)
        assert (pasted.mode, pasted.size) == (OLD.mode, OLD.size)
        assert pasted.tobytes() == expected.tobytes()


def test_a_mask_over_a_picture_reddens_what_it_covers_and_dims_the_rest():
    grey = Image.new("RGB", (64, 48), (100, 100, 100))
    shown = np.asarray(images.over(grey, corner_mask()))
    assert shown[0, 0].tolist() == [146, 79, 79]  # 65 and 35 % of (230, 40, 40)
    assert shown[-1, -1].tolist() == [45, 45, 45]


def test_check_output(tmp_path):
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("new.png", "new.JPG", "new.jpeg", "new.webp", "old.png"):
        assert images.check_output(str(tmp_path / name)) == tmp_path / name
    for name, words in (
        ("a.gif", r"must end in \.png, \.jpg, \.jpeg, \.webp"),
        ("a", "must end in"),
        ("folder.png", "is a folder"),
        ("none/a.png", "there is no folder"),
        ("old.png/a.png", "there is no folder"),
    ):
        with pytest.raises(InputError, match=words):
            images.check_output(tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before and old.read_bytes() == b"old"


def test_check_output_of_a_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert images.check_output("a.png").name == "a.png"


@pytest.mark.parametrize(
    ("name", "kind", "least"),
    [
        ("a.png", "PNG", math.inf),
        ("a.jpg", "JPEG", 30),
        ("a.jpeg", "JPEG", 30),
        ("a.WEBP", "WEBP", 30),
    ],
)
def test_save_and_open_again(tmp_path, name, kind, least):
    x = np.linspace(0, 255, 64).round().astype(np.uint8)
    image = Image.fromarray(np.stack(np.broadcast_arrays(x[None], x[:, None], np.uint8(90)), -1))
    save_picture(image, tmp_path / name, {"prompt": "a cat"})
    with Image.open(tmp_path / name) as opened:
        assert opened.format == kind
    assert psnr(open_picture(tmp_path / name), image) >= least
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_png_text(tmp_path):
    text = {"prompt": "a cat", "célèbre": "猫 ✓\nsecond line"}
    save_picture(_plain(), tmp_path / "a.png", text)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == text


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    save_picture(_noise(), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert {layer[1:3] for layer in image.layer} == {(1, 1)}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_failed_save_leaves_everything_as_it_was(tmp_path, error, old):
    class Failing:
        def save(self, file, **options):
            file.write(b"half a picture")
            raise error("stop")

    path = tmp_path / "a.png"
    if old:
        path.write_bytes(old)
    with pytest.raises(error, match="stop"):
        save_picture(Failing(), path)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == ([old] if old else [])


def test_a_save_that_cannot_replace_leaves_no_part(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError("no")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        save_picture(_plain(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_save_replaces_and_refuses(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    save_picture(_noise(), tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").tobytes() == _noise().tobytes()
    with pytest.raises(InputError, match="must end in"):
        save_picture(_noise(), tmp_path / "a.txt")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_mode_honours_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_picture(_plain(), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_psnr_by_hand():
    a, b = _plain((10, 20, 30)), _plain((13, 20, 34))
    expected = 10 * math.log10(255**2 / (25 / 3))  # squared differences 9, 0, 16
    assert expected == pytest.approx(38.9226, abs=1e-4)
    assert psnr(a, b) == pytest.approx(expected, rel=1e-6)
    assert psnr(images.to_tensor(a), b) == pytest.approx(expected, rel=1e-6)
    assert psnr(_plain((0, 0, 0)), _plain((255, 255, 255))) == 0


def test_psnr_of_equals_and_of_different_sizes():
    assert psnr(_noise(), _noise()) == math.inf
    assert psnr(_noise(), images.to_tensor(_noise())) == math.inf
    with pytest.raises(ValueError, match="differ in size"):
        psnr(_noise(32, 24), _noise(24, 32))
