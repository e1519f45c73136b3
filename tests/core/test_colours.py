"""What a file says of its own numbers: colour profiles, ranges, transparency, orientation."""

from io import BytesIO
from itertools import product

import numpy as np
import pytest
from colour_files import SPACES, grey_profile, in_space, ink_profile, write_png, write_tiff
from PIL import Image, ImageCms

from ptinv.core.pictures import read_colours, to_rgb
from ptinv.errors import Doubt, PictureError, Remark

FADING = np.tile(np.linspace(0, 1, 128), (128, 1))[..., None]  # from left to right


def furthest(read: Image.Image, right: Image.Image | np.ndarray) -> int:
    """By how many levels any pixel is off."""
    return np.abs(np.asarray(read).astype(int) - np.asarray(right).astype(int)).max()


def over_white(picture: Image.Image) -> np.ndarray:
    """The right values where a picture fades in."""
    return (255 + (np.asarray(picture) - 255.0) * FADING).round()


WAYS = ["png 8", "png 16", "png 8 fading", "png 16 fading", "tif 8", "tif 16", "tif 8 fading"]
WAYS += ["tif 16 fading", "jpg 8", "webp 8"]


@pytest.mark.parametrize(("space", "way"), [*product(SPACES, WAYS)])
def test_any_space_depth_and_format_is_read_as_the_one_picture(birds, tmp_path, space, way):
    kind, bits, *fading = way.split()
    numbers, profile = in_space(birds, SPACES[space]), SPACES[space].profile()
    if fading:
        numbers = np.concatenate([numbers, FADING], axis=2)
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        write_png(path, numbers, int(bits), profile)
    elif kind == "tif":
        levels = (numbers * (2 ** int(bits) - 1)).round().astype(f"u{int(bits) // 8}")
        write_tiff(path, levels, profile)
    else:
        image = Image.fromarray((numbers * 255).round().astype(np.uint8))
        lossy = {"quality": 95, "subsampling": "4:4:4"} if kind == "jpg" else {"lossless": True}
        image.save(path, icc_profile=profile, **lossy)
    read = to_rgb(path)
    if kind == "jpg":
        off = np.abs(np.asarray(read).astype(int) - np.asarray(birds)).mean()
        assert off < (4 if space == "ProPhoto" else 2)
    else:
        assert furthest(read, over_white(birds) if fading else birds) <= 2
    naive = Image.open(path).convert("RGB")
    assert space == "sRGB" or fading or furthest(naive, birds) > 12  # the test can fail


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("tagged", ["none", "sRGB", "Pillow's sRGB"])
def test_a_picture_in_srgb_keeps_its_numbers(birds, tmp_path, tagged, bits):
    profiles = {
        "none": None,
        "sRGB": SPACES["sRGB"].profile(),
        "Pillow's sRGB": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    }
    write_png(tmp_path / "a.png", np.asarray(birds) / 255, bits, profiles[tagged])
    assert to_rgb(tmp_path / "a.png").tobytes() == birds.tobytes()


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_a_profile(birds, tmp_path, bits):
    grey = np.asarray(birds.convert("L"))[..., None]
    linear = SPACES["sRGB"].linear(grey / 255)
    write_png(tmp_path / "a.png", linear ** (1 / 1.8), bits, grey_profile(1.8))
    assert furthest(to_rgb(tmp_path / "a.png"), grey.repeat(3, axis=2)) <= 2


def test_inks_are_what_their_profile_says(tmp_path):
    def lab(inks: tuple[int, ...]) -> tuple[int, int, int]:
        c, m, y, k = inks
        if k:  # black, so that a black point needs no compensation
            return (0, 128, 128)
        return (255 - 50 * c - 60 * m - 10 * y, 128 - 20 * c + 30 * m, 128 + 40 * y - 20 * c)

    corners = list(product((0, 1), repeat=4))
    image = Image.fromarray(np.array(corners, np.uint8)[None].repeat(16, 0) * 255, mode="CMYK")
    image.save(tmp_path / "a.tif", icc_profile=ink_profile(lab))
    read = np.asarray(to_rgb(tmp_path / "a.tif"))[0].astype(int)
    right = np.array([srgb_of(*lab(corner)) for corner in corners])
    assert np.abs(read - right).max() <= 3
    assert np.abs(np.asarray(image.convert("RGB"))[0] - right).mean() > 17


def srgb_of(light: float, a: float, b: float) -> np.ndarray:
    """CIE L*a*b* under D50, in bytes as profiles have it, as levels of sRGB."""
    light, a, b = light * 100 / 255, a - 128, b - 128
    fy = (light + 16) / 116
    f = np.array([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * [0.9642, 1.0, 0.8249]
    space = SPACES["sRGB"]
    return (255 * space.encoded(np.linalg.solve(space.to_d50, xyz))).round()


@pytest.mark.parametrize("wrong", ["bytes", "cut off", "of inks"])
def test_a_profile_that_cannot_be_used_is_said_and_left_out(birds, tmp_path, wrong):
    profile = {
        "bytes": b"no profile",
        "cut off": SPACES["P3"].profile()[:300],
        "of inks": ink_profile(lambda inks: (128, 128, 128)),
    }[wrong]
    birds.save(tmp_path / "a.png", icc_profile=profile)
    with pytest.warns(Doubt, match="colour profile cannot be used"):
        assert to_rgb(tmp_path / "a.png").tobytes() == birds.tobytes()


def test_a_picture_in_memory_is_read_by_its_profile(birds):
    file = BytesIO()
    numbers = (in_space(birds, SPACES["P3"]) * 255).round().astype(np.uint8)
    Image.fromarray(numbers).save(file, "PNG", icc_profile=SPACES["P3"].profile())
    assert furthest(to_rgb(Image.open(file)), birds) <= 2


def test_what_is_opaque_everywhere_has_no_transparency(birds):
    opaque = birds.convert("RGBA")
    assert read_colours(opaque).mode == "RGB"
    opaque.putpixel((0, 0), (0, 0, 0, 254))
    assert read_colours(opaque).mode == "RGBA"


GREY = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16, 1)


@pytest.mark.parametrize(
    ("numbers", "tags", "said"),
    [
        (GREY, {}, "0 to 1"),
        (GREY * 255, {}, "0 to 255"),
        (GREY * 65535, {}, "0 to 65535"),
        (GREY * 100, {"_341": 100.0}, None),
        ((GREY * 65535).round().astype(np.uint16), {}, None),
        (((1 - GREY) * 65535).round().astype(np.uint16), {"_262": 0}, None),
        (((1 - GREY) * 255).round().astype(np.uint8), {"_262": 0}, None),
        ((GREY * (1 + 2**-20) - 1e-7).astype(np.float32), {}, "read as 0 to 1"),
    ],
)
def test_what_white_is(tmp_path, recwarn, numbers, tags, said):
    write_tiff(tmp_path / "a.tif", numbers, **tags)
    read = np.asarray(to_rgb(tmp_path / "a.tif"))[..., 0]
    assert furthest(read, np.arange(256).reshape(16, 16)) <= 1
    remarks = [str(one.message) for one in recwarn if issubclass(one.category, Remark)]
    assert [said in remark for remark in remarks] == [True] * (said is not None)


@pytest.mark.parametrize("name", ["grey16-trns.png", "rgb16-trns.png"])
def test_a_transparent_colour_of_sixteen_bits(wild, name):
    with Image.open(wild / name) as image:
        declared = image.info["transparency"]
        read = np.asarray(to_rgb(image))
        assert image.info["transparency"] == declared
    assert (read[:, :32] == 255).all()
    assert not (read[:, 32:] == 255).any()


@pytest.mark.parametrize("name", ["big-long", "neg-rational", "subifd-bytes"])
def test_exif_that_cannot_be_written_again_turns_a_picture_upright(wild, name):
    path = wild / f"exif-{name}.jpg"
    turned = Image.open(path).convert("RGB").transpose(Image.Transpose.ROTATE_270)
    assert to_rgb(path).tobytes() == turned.tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif"])
def test_every_orientation_of_exif(tmp_path, kind, orientation):
    upright = np.zeros((24, 40, 3), np.uint8)
    upright[:8, :8] = 255  # a corner, so that each orientation is another picture
    turned = upright.swapaxes(0, 1)
    stored = [
        *(upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1]),
        *(turned, turned[::-1], turned[::-1, ::-1], turned[:, ::-1]),
    ][orientation - 1]
    exif = Image.Exif()
    exif[274] = orientation
    lossless = {"lossless": True} if kind == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(
        tmp_path / f"a.{kind}", exif=exif, **lossless
    )
    read = to_rgb(tmp_path / f"a.{kind}")
    assert read.size == (40, 24)
    assert furthest(read, upright) <= (60 if kind == "jpg" else 0)


def test_grey_beyond_every_range_is_refused(tmp_path):
    write_tiff(tmp_path / "a.tif", (GREY * 70_000).astype(np.float32))  # as old Pillows read it
    with pytest.raises(PictureError, match="the grey values go from 0.0 to 70000.0"):
        to_rgb(tmp_path / "a.tif")
