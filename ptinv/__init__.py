"""ptinv: text-driven editing of real pictures by Prompt Tuning Inversion (arXiv 2305.04441).

import ptinv
from PIL import Image

model = ptinv.load("weights/tiny")
edited = ptinv.edit(model, Image.open("picture.png"), "a yellow car")
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "load": "storage.checkpoint",
    "StableDiffusion": "core.model",
    "Step": "core.sampling",
    "invert": "api",
    "edit": "api",
    "reconstruct": "api",
    "generate": "api",
    "steps": "api",
    "result": "api",
    "Result": "api",
    "attention_maps": "word_maps",
    "AttentionMaps": "word_maps",
    "METHODS": "methods.table",
    "Method": "methods.table",
    "Settings": "settings",
    "Inversion": "storage.inversion",
    "InputError": "errors",
    "CheckpointError": "errors",
    "PictureError": "errors",
}
__all__ = ["ddim", *_HOMES]


def __getattr__(name: str):
    """Imports on first use, so that `ptinv --version` doesn't wait for torch."""
    if name == "ddim":
        return import_module("ptinv.ddim")
    if name in _HOMES:
        return getattr(import_module(f"ptinv.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ptinv' has no attribute {name!r}")
