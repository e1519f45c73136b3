"""The stage for both sides: one scene, one model twice, and the authors' modules on import.

Old code meets new diffusers here. Its attention hook looks for a class that is gone, so
`attend_with` gives its controllers the probabilities instead; libraries that it imports only to
show pictures and progress are stood in for. What is compared is left as it is.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module, util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
from PIL import Image
from torch import Tensor

import ptinv
from ptinv.errors import InputError

SOURCE, PROMPT = "two pink birds in the snow", "two pink dogs in the snow"
STEPS = 10  # whose tenths need no rounding
SHOWING = ("cv2", "IPython", "IPython.display", "matplotlib", "matplotlib.pyplot", "mlcbase")
SHOWING += ("matplotlib.backends", "matplotlib.backends.backend_agg", "ipywidgets")


@dataclass(frozen=True)
class Stage:
    """One model as this project's and as a diffusers pipeline, with a picture to edit."""

    folder: Path  # of the model, in diffusers' layout
    picture: Image.Image

    @cached_property
    def model(self) -> ptinv.StableDiffusion:
        """This project's."""
        return ptinv.load(self.folder)

    @cached_property
    def z0(self) -> Tensor:
        """The picture's latent, (1, c, h, w), that both sides start from."""
        return self.model.encode(self.picture)

    def ours(self, method: str | ptinv.Method, **options: Any) -> Tensor:
        """z_0 of this project's edit, everywhere and with all of the schedule."""
        options = dict(steps=STEPS, encode_ratio=1.0, mask=None, source=SOURCE) | options
        return ptinv.result(self.model, self.picture, PROMPT, method, **options).latent

    def parts(self) -> dict[str, Any]:
        """Networks, tokenizer and scheduler by the names that a pipeline has for them. The schedule
        is Stable Diffusion's, steps_offset 1, which leaves no first step that goes nowhere."""
        if util.find_spec("diffusers") is None:
            raise InputError("diffusers is not installed; run: pip install 'ptinv[peers]'")
        import diffusers

        pipe = diffusers.StableDiffusionPipeline.from_pretrained(
            self.folder, torch_dtype=torch.float32
        )
        names = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
        parts = {name: getattr(pipe, name) for name in names}
        how = dict(steps_offset=1, set_alpha_to_one=False, clip_sample=False)
        parts["scheduler"] = diffusers.DDIMScheduler.from_config(parts["scheduler"].config, **how)
        parts["scheduler"].set_timesteps(STEPS)
        parts["unet"].requires_grad_(False)
        return parts

    def pipe(self) -> SimpleNamespace:
        """A fresh object with what the authors' functions ask of a pipeline."""
        return SimpleNamespace(**self.parts(), device=torch.device("cpu"))


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number of theirs."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@contextmanager
def modules(repository: Path, *names: str) -> Iterator[list[ModuleType]]:
    """The modules of a repository, forgotten afterwards: many call theirs `utils`."""
    before, path = dict(sys.modules), list(sys.path)
    sys.path.insert(0, str(repository))
    here = {entry.stem for entry in repository.iterdir()}
    for name in [name for name in sys.modules if name.split(".")[0] in here]:
        del sys.modules[name]
    absent = [name for name in SHOWING if util.find_spec(name.split(".")[0]) is None]
    sys.modules.update({name: MagicMock() for name in absent})
    try:
        yield [import_module(name) for name in names]
    except ImportError as error:
        raise InputError(f"{repository} cannot be imported ({error}); clone it anew") from error
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - set(before):
            if name.split(".")[0] in here or name in absent:
                del sys.modules[name]
        sys.modules.update({n: m for n, m in before.items() if n.split(".")[0] in here})


class Attend:
    """An attention processor of diffusers that gives a controller the probabilities."""

    def __init__(self, controller: Callable, place: str):
        self.controller, self.place = controller, place

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_) -> Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = map(attn.head_to_batch_dim, (q, k, v))
        probabilities = attn.get_attention_scores(q, k)
        is_cross = encoder_hidden_states is not None
        probabilities = self.controller(probabilities, is_cross, self.place)
        return attn.to_out[0](attn.batch_to_head_dim(probabilities @ v))


def attend_with(pipe: Any, controller: Any) -> None:
    """Stands in for Prompt-to-Prompt's `register_attention_control`."""
    if controller is None:
        return
    names = list(pipe.unet.attn_processors)
    places = {name: name.split("_")[0] for name in names}  # down, mid or up
    pipe.unet.set_attn_processor({n: Attend(controller, places[n]) for n in names})
    controller.num_att_layers = len(names)
