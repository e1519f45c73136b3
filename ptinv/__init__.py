"""ptinv: text-driven editing of real pictures by Prompt Tuning Inversion (arXiv 2305.04441).

import ptinv

model = ptinv.load()  # the embedded tiny model, or the path of a Stable Diffusion v1
edited = ptinv.edit(model, "picture.png", "a yellow car")
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import ddim as ddim
    from .api import Result as Result
    from .api import edit as edit
    from .api import generate as generate
    from .api import invert as invert
    from .api import reconstruct as reconstruct
    from .api import result as result
    from .api import steps as steps
    from .core.attention import Control as Control
    from .core.model import StableDiffusion as StableDiffusion
    from .core.sampling import Step as Step
    from .errors import CheckpointError as CheckpointError
    from .errors import Doubt as Doubt
    from .errors import InputError as InputError
    from .errors import PictureError as PictureError
    from .errors import Remark as Remark
    from .methods.stages import Stage as Stage
    from .methods.table import METHODS as METHODS
    from .methods.table import Method as Method
    from .options import Options as Options
    from .settings import Settings as Settings
    from .storage.checkpoint import load as load
    from .storage.inversion import Inversion as Inversion
    from .word_maps import AttentionMaps as AttentionMaps
    from .word_maps import attention_maps as attention_maps

__version__ = "0.1.0"

_HOMES = {
    "api": "Result edit generate invert reconstruct result steps",
    "core.attention": "Control",
    "core.model": "StableDiffusion",
    "core.sampling": "Step",
    "errors": "CheckpointError Doubt InputError PictureError Remark",
    "methods.stages": "Stage",
    "methods.table": "METHODS Method",
    "options": "Options",
    "settings": "Settings",
    "storage.checkpoint": "load",
    "storage.inversion": "Inversion",
    "word_maps": "AttentionMaps attention_maps",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}
__all__ = ["ddim", *_HOME]


def __getattr__(name: str):
    """Imports on first use, so that `ptinv --version` doesn't wait for torch."""
    if name == "ddim":
        return import_module("ptinv.ddim")
    if name in _HOME:
        return getattr(import_module(f"ptinv.{_HOME[name]}"), name)
    raise AttributeError(f"module 'ptinv' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
