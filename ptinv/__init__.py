"""ptinv: text-driven editing of real pictures by Prompt Tuning Inversion (arXiv 2305.04441).

import ptinv
from PIL import Image

model = ptinv.load("weights/tiny")
edited = ptinv.edit(model, Image.open("picture.png"), "a yellow car")
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "load": "model",
    "StableDiffusion": "model",
    "invert": "inverting",
    "edit": "pipeline",
    "reconstruct": "pipeline",
    "generate": "pipeline",
    "attention_maps": "maps",
    "AttentionMaps": "maps",
    "METHODS": "methods",
    "Settings": "settings",
    "Inversion": "inversion.record",
    "CheckpointError": "tensors",
    "PictureError": "images",
    "InputError": "errors",
}
__all__ = ["ddim", *_HOMES]


def __getattr__(name: str):
    """Imports on first use, so that `ptinv --version` doesn't wait for torch."""
    if name == "ddim":
        return import_module("ptinv.ddim")
    if name in _HOMES:
        return getattr(import_module(f"ptinv.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ptinv' has no attribute {name!r}")
