"""Odd pictures that do work: turned, transparent, of other modes and shapes."""

import numpy as np
import pytest
from commands import pixels, ptinv_, remarks
from PIL import Image
from small import PROMPT

pytestmark = pytest.mark.usefixtures("here")
STEPS = ["--steps", "3"]


def odd(kind: str, picture: Image.Image) -> str:
    """Writes a picture of a kind; its name."""
    grey = picture.convert("L")
    match kind:
        case "turned":
            exif = Image.Exif()
            exif[0x0112] = 6
            picture.transpose(Image.Transpose.ROTATE_90).save("odd.png", exif=exif)
        case "alpha":
            picture.putalpha(grey)
            picture.save("odd.png")
        case "16-bit":
            Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save("odd.png")
        case "palette":
            picture.quantize(16).save("odd.png")
        case "CMYK":
            picture.convert("CMYK").save("odd.jpg")
            return "odd.jpg"
        case "grey":
            grey.save("odd.png")
        case "animated":
            picture.save("odd.gif", save_all=True, append_images=[picture.rotate(180)])
            return "odd.gif"
        case "portrait":
            picture.resize((32, 80)).save("odd.png")
        case "panorama":
            picture.resize((160, 32)).save("odd.png")
    return "odd.png"


SIZES = {"portrait": (32, 80), "panorama": (160, 32)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    "turned alpha 16-bit palette CMYK grey animated portrait panorama".split(),
)
def test_an_odd_picture_is_edited_in_its_own_size(picture, capsys, kind):
    name = odd(kind, picture.copy())
    assert ptinv_("invert", name, *STEPS, "-o", "x.safetensors") == 0
    assert ptinv_("edit", "x.safetensors", PROMPT, "-o", "a.png") == 0
    assert ptinv_("edit", name, PROMPT, "--method", "pti", *STEPS, "-o", "b.png") == 0
    assert pixels("a.png") == pixels("b.png")
    assert pixels("a.png")[0] == SIZES.get(kind, (48, 32))
    said = f"{name} holds 2 frames; only the first is used"
    assert remarks(capsys).count(said) == (2 if kind == "animated" else 0)
    if kind == "turned":
        assert ptinv_("edit", "picture.png", PROMPT, "--method", "pti", *STEPS, "-o", "c.png") == 0
        assert pixels("a.png") == pixels("c.png")
