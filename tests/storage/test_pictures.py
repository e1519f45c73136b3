"""Picture files: every kind and mishap, on files made here."""

import math
import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO

import numpy as np
import pytest
from colour_files import write_tiff
from PIL import Image, ImageCms

from ptinv.core.pictures import to_rgb
from ptinv.errors import InputError, PictureError, Remark
from ptinv.metrics import psnr
from ptinv.storage import files, pictures
from ptinv.storage.pictures import open_picture, save_picture

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def plain(color=(10, 20, 30), size=(32, 24)) -> Image.Image:
    return Image.new("RGB", size, color)


def noise(width=32, height=24, seed=0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def ramp16() -> np.ndarray:
    """Every 8-bit level v once, as the 16-bit level 257 v."""
    return np.arange(256, dtype=np.uint16).reshape(16, 16) * 257


def png_header(width: int, height: int) -> bytes:
    """The start of a PNG of this size, without any pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def refused(path, words: str) -> None:
    with pytest.raises(PictureError, match=words) as caught:
        open_picture(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extra", [{"transparency": 1}, {"transparency": bytes([255, 0])}])
def test_transparent_palette(tmp_path, extra):
    image = Image.new("P", (16, 16), 1)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", **extra)
    rgb = open_picture(tmp_path / "p.png")
    assert rgb.getpixel((0, 0)) == (10, 20, 30)
    assert rgb.getpixel((1, 0)) == (255, 255, 255)


def test_transparent_colour_of_a_png(tmp_path):
    image = plain((1, 2, 3))
    image.putpixel((0, 0), (4, 5, 6))
    image.save(tmp_path / "key.png", transparency=(1, 2, 3))
    rgb = open_picture(tmp_path / "key.png")
    assert (rgb.getpixel((0, 0)), rgb.getpixel((1, 1))) == ((4, 5, 6), (255, 255, 255))


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_sixteen_bit_files_are_scaled(tmp_path, name):
    Image.fromarray(ramp16()).save(tmp_path / name)
    levels = np.asarray(open_picture(tmp_path / name))
    assert (levels == (ramp16() // 257)[..., None]).all()


def test_a_dark_sixteen_bit_png_stays_dark(tmp_path):
    Image.fromarray(np.full((16, 16), 255, dtype=np.uint16)).save(tmp_path / "dark.png")
    assert open_picture(tmp_path / "dark.png").getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "A.PNG"])
def test_lossless_files_come_back_exactly(tmp_path, name):
    noise().save(tmp_path / name)
    assert (np.asarray(open_picture(str(tmp_path / name))) == np.asarray(noise())).all()


@pytest.mark.parametrize("kind", pictures.READ)
def test_every_promised_kind_is_opened(tmp_path, kind):
    plain().save(tmp_path / "a.png", format=kind)
    pixel = open_picture(tmp_path / "a.png").getpixel((5, 5))
    assert np.abs(np.subtract(pixel, (10, 20, 30))).max() <= 4


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "L"])
def test_jpeg_modes(tmp_path, mode):
    plain((200, 60, 20)).convert(mode).save(tmp_path / "a.jpg", quality=95)
    expected = plain((200, 60, 20)).convert(mode).convert("RGB").getpixel((0, 0))
    pixel = open_picture(tmp_path / "a.jpg").getpixel((5, 5))
    assert np.abs(np.subtract(pixel, expected)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    # What the camera stores for an upright picture, as the EXIF standard defines the eight.
    upright = np.asarray(noise())
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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16"])
def test_a_turned_tiff_is_the_same_by_its_path_and_by_its_bytes(tmp_path, mode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = noise().convert("L").convert("I;16") if mode == "I;16" else noise().convert(mode)
    image.save(tmp_path / "a.tif", exif=exif)
    with open(tmp_path / "a.tif", "rb") as file, Image.open(file) as image:
        by_bytes = to_rgb(image)
    by_path = open_picture(tmp_path / "a.tif")
    assert by_path.size == by_bytes.size and by_path.tobytes() == by_bytes.tobytes()
    assert to_rgb(tmp_path / "a.tif").tobytes() == by_bytes.tobytes()


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_first_frame_of_an_animation(tmp_path, name):
    frames = [plain((255, 0, 0)), plain((0, 0, 255))]
    lossless = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **lossless)
    assert open_picture(tmp_path / name).getpixel((0, 0)) == (255, 0, 0)


def test_missing_folder_empty_and_no_picture(tmp_path):
    refused(tmp_path / "none.png", "no regular file")
    refused(tmp_path, "is a folder")
    (tmp_path / "empty.png").touch()
    refused(tmp_path / "empty.png", "is empty")
    (tmp_path / "words.png").write_text("not a picture")
    refused(tmp_path / "words.png", "not a picture that is opened here .PNG, JPEG, WEBP, GIF, BMP")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "no regular file")


SCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n"
WATCHED = """
import sys
from ptinv.core.pictures import to_rgb
from ptinv.errors import PictureError
from ptinv.methods.masks import painted
from ptinv.storage.pictures import open_picture

started = []
ways = "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile"
sys.addaudithook(lambda event, args: started.append(args) if event in ways else None)
for path in sys.argv[1:]:
    for read in (open_picture, lambda path: open_picture(path, painted), to_rgb):
        try:
            read(path).load()
        except (PictureError, OSError) as error:
            print(error)
sys.exit(f"started {started}" if started else 0)
"""


@pytest.mark.slow
def test_no_picture_starts_a_program_whatever_its_name_says(tmp_path):
    """PostScript is Ghostscript's to draw, FITS may be gzip's; Pillow goes by the content."""
    contents = {
        "script.png": SCRIPT,
        "script.jpg": b"\xc5\xd0\xd3\xc6"
        + struct.pack("<II", 32, len(SCRIPT))
        + bytes(20)
        + SCRIPT,
        "stars.png": b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
        "meta.png": b"\xd7\xcd\xc6\x9a" + bytes(60),
        "icon.png": b"icns" + bytes(60),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [str(tmp_path / name) for name in contents]
    done = subprocess.run([sys.executable, "-c", WATCHED, *paths], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * len(paths)
    assert sum("not a picture that is opened here" in line for line in lines) == 2 * len(paths)


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "SGI", "JPEG2000", "PDF"])
def test_other_formats_are_not_opened(tmp_path, kind):
    noise().save(tmp_path / "a.png", format=kind)
    refused(tmp_path / "a.png", "not a picture that is opened here")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.webp", "a.gif", "a.tif"])
def test_truncated(tmp_path, name):
    noise(64, 64).save(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    refused(tmp_path / name, "truncated or damaged")


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
    (tmp_path / "a.png").write_bytes(png_header(*size))
    refused(tmp_path / "a.png", words)


@pytest.mark.skipif(AS_ROOT, reason="root may read and write everything")
def test_permissions(tmp_path):
    plain().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    refused(tmp_path / "a.png", "may not be read")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PictureError, match="not writable"):
            files.check_output(tmp_path / "b.png", pictures.FORMATS)
    finally:
        tmp_path.chmod(0o700)


def test_check_output(tmp_path):
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("new.png", "new.JPG", "new.jpeg", "new.webp", "old.png"):
        assert files.check_output(str(tmp_path / name), pictures.FORMATS) == tmp_path / name
    for name, words in (
        ("a.gif", r"must end in \.png, \.jpg, \.jpeg, \.webp"),
        ("a", "must end in"),
        ("folder.png", "is a folder"),
        ("none/a.png", "there is no folder"),
        ("old.png/a.png", "there is no folder"),
    ):
        with pytest.raises(InputError, match=words):
            files.check_output(tmp_path / name, pictures.FORMATS)
    assert sorted(tmp_path.iterdir()) == before and old.read_bytes() == b"old"


def test_check_output_of_a_bare_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.check_output("a.png", pictures.FORMATS).name == "a.png"


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
    save_picture(plain(), tmp_path / "a.png", text)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == text


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_a_saved_picture_says_that_it_is_srgb_and_is_the_same_on_any_day(tmp_path, name):
    image = noise()
    save_picture(image, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    with Image.open(tmp_path / name) as opened:
        opened.load()
        if name == "a.png":
            assert opened.info["srgb"] == 0
        else:
            profile = ImageCms.ImageCmsProfile(BytesIO(opened.info["icc_profile"]))
            assert "sRGB" in ImageCms.getProfileDescription(profile)
            assert opened.info["icc_profile"][24:36] == bytes(12)  # when it was made
        assert open_picture(tmp_path / name).tobytes() == opened.convert("RGB").tobytes()
    save_picture(image, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


@pytest.mark.parametrize("marked", [1, 5])  # reduced; also a transparency mask
def test_the_preview_of_a_raw_photograph_or_a_pyramid_is_refused(tmp_path, marked):
    preview = np.zeros((120, 160, 3), np.uint8)
    write_tiff(tmp_path / "a.dng", preview, _254=marked)
    with pytest.raises(PictureError, match="a.dng: .* preview; export it as PNG or JPEG"):
        open_picture(tmp_path / "a.dng")
    with Image.open(tmp_path / "a.dng") as image, pytest.raises(PictureError, match="preview"):
        pictures.checked(image)
    write_tiff(tmp_path / "page.tif", preview, _254=2)
    assert open_picture(tmp_path / "page.tif").size == (160, 120)


def test_what_a_file_s_numbers_were_taken_for_is_said_with_its_name(tmp_path, recwarn):
    write_tiff(tmp_path / "a.tif", np.linspace(0, 1, 1024, dtype=np.float32).reshape(32, 32, 1))
    open_picture(tmp_path / "a.tif")
    (said,) = recwarn
    assert str(said.message).startswith(f"{tmp_path / 'a.tif'}: ") and "0 to 1" in str(said.message)
    assert (said.category, said.filename) == (Remark, __file__)


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    save_picture(noise(), tmp_path / "a.jpg")
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
    with pytest.raises(OSError, match="no"):
        save_picture(plain(), tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_save_replaces_and_refuses(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    save_picture(noise(), tmp_path / "a.png")
    assert open_picture(tmp_path / "a.png").tobytes() == noise().tobytes()
    with pytest.raises(InputError, match="must end in"):
        save_picture(noise(), tmp_path / "a.txt")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_the_mode_honours_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        save_picture(plain(), tmp_path / "a.png")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_a_damaged_image_of_a_python_user(tmp_path):
    noise(64, 64).save(tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "a.jpg") as image:
        with pytest.raises(PictureError, match="truncated or damaged"):
            pictures.checked(image)


def test_the_extreme_sizes_are_accepted():
    assert pictures.checked(plain(size=(16, 16))).size == (16, 16)
    assert pictures.checked(plain(size=(128, 16))).size == (128, 16)


def test_a_python_users_image_is_validated_too():
    with pytest.raises(PictureError, match="too small"):
        pictures.checked(plain(size=(0, 0)))
