"""ptinv: text-driven editing of real pictures by Prompt Tuning Inversion (arXiv 2305.04441).

import ptinv

model = ptinv.load()  # the embedded tiny model, or the path of a Stable Diffusion v1
edited = ptinv.edit(model, "picture.png", "a yellow car")
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what editors and type checkers see
    from . import ddim
    from .api import Result, edit, generate, infer_source, invert, reconstruct, result, steps
    from .core.attention import Control
    from .core.model import StableDiffusion
    from .core.sampling import Step
    from .errors import CheckpointError, Doubt, InputError, PictureError, Remark
    from .methods.stages import Stage
    from .methods.table import METHODS, Method
    from .options import Options
    from .settings import Settings
    from .storage.checkpoint import load
    from .storage.inversion import Inversion
    from .word_maps import AttentionMaps, attention_maps

# fmt: off
__all__ = [
    "METHODS", "AttentionMaps", "CheckpointError", "Control", "Doubt", "InputError", "Inversion",
    "Method", "Options", "PictureError", "Remark", "Result", "Settings", "StableDiffusion", "Stage",
    "Step", "attention_maps", "ddim", "edit", "generate", "infer_source", "invert", "load",
    "reconstruct", "result", "steps",
]
# fmt: on
__version__ = "0.1.0"

# the modules that have these names, the lightest first
_HOMES = "errors settings api storage.checkpoint methods.table word_maps options core.attention"


if not TYPE_CHECKING:  # a checker would take any name for one of these

    def __getattr__(name: str):
        """Imports on first use, so that `ptinv --version` doesn't wait for torch."""
        if name == "ddim":
            return import_module("ptinv.ddim")
        for home in _HOMES.split() if name in __all__ else ():
            if hasattr(module := import_module(f"ptinv.{home}"), name):
                return getattr(module, name)
        raise AttributeError(f"module 'ptinv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
