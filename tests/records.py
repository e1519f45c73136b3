"""Records of how a picture was made, as a PNG's text chunks, right and with something wrong."""

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def retold(path, **changed):
    """Writes the same PNG with other text chunks; None leaves one out."""
    chunks = PngInfo()
    with Image.open(path) as image:
        image.load()
        for name, value in (image.text | changed).items():
            if value is not None:
                chunks.add_text(name, value)
        image.save(path, pnginfo=chunks)


DAMAGED = [  # what is changed, and why it is refused
    ({"settings": None}, "damaged"),
    ({"settings": "{"}, "damaged"),
    ({"settings": "[]"}, "damaged"),
    ({"settings": "[" * 100_000}, "damaged"),
    ({"settings": '{"strength": 1}'}, "damaged"),
    ({"settings": '{"steps": ' + "9" * 10_000 + "}"}, "damaged"),
    ({"seed": "9" * 10_000}, "damaged"),
    ({"settings": '{"source": "' + "a" * 10**5 + '"}'}, "source must be at most 10000 char"),
    ({"settings": '{"steps": 0}'}, "steps must be"),
    ({"settings": '{"eta": NaN}'}, "eta must be"),
    ({"settings": '{"mask": "a.png"}'}, "mask must be"),
    ({"settings": '{"reweight": {"car": -1}}'}, "the weight of 'car' must be"),
    ({"seed": "five"}, "damaged"),
    ({"seed": "-5"}, "seed must be"),
    ({"threads": "many"}, "damaged"),
    ({"prompt": None}, "damaged"),
    ({"picture_hash": None}, "damaged"),
    ({"model_hash": None}, "damaged"),
    ({"command": "invert"}, "damaged"),
    ({"Software": None}, "doesn't say how it was made"),
    ({"Software": "Gimp"}, "doesn't say how it was made"),
]

GENERATED = {  # the settings in the record of a picture that was generated in 3 steps
    "steps": 3,
    "guidance": 7.5,
    "guidance_gate": [0.0, 1.0],
    "negative": "",
    "reweight": {},
    "sampler": "ddim",
}
