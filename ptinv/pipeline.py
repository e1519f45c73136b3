"""The verbs that make pictures: edit one, reconstruct it, or generate one.

Each takes a method, by name or as a row, and runs that row of the table in `methods.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from . import images
from .choices import Found
from .editing.controls import chained
from .editing.rules import blended, of_row, pinned
from .errors import InputError
from .inversion.record import Inversion
from .inverting import fitted, inverted, method_of, settings_of
from .methods import Method, find
from .model import StableDiffusion
from .sampling import Progress, Rows, Walk, last, silent, walk_down
from .settings import Settings, check_prompt
from .task import Task

# other names that `reconstruct` takes: sampling without a tuning, and a mere round trip
SAMPLERS = {"ddim": "ddim-global", "vae": "ddim-global"}

# what `generate` has a use for only where the picture is to be an edit of another
OF_AN_EDIT = (
    *("focus", "source_focus", "subtract", "mask", "mask_from", "mask_threshold"),
    *("cross_replace", "self_replace", "self_cells", "align"),
)


@dataclass(frozen=True)
class Result:
    """Where a walk ended, and what can be seen of the way."""

    model: StableDiffusion
    z0: Tensor  # (1, c, h, w)
    inversion: Inversion  # whose trajectory it followed
    mask: Tensor | None  # (1, 1, h, w), the last one used
    settings: Settings

    @cached_property
    def decoded(self) -> Image.Image:
        """The result in the model's size."""
        return self.model.decode(self.z0)

    @property
    def picture(self) -> Image.Image:
        """The result in the size of the picture, whose own pixels are put back if so asked."""
        original = self.inversion.picture
        made = images.resize(self.decoded, original.size)
        if self.settings.paste_back and self.mask is not None:
            made = images.paste_back(original, made, self.mask)
        return made


def edit(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options,
) -> Image.Image:
    """The picture as the prompt would have it, in its own size.

    picture: an image of any size and mode, or what `invert` made of it. An inversion keeps its
    trajectory and settings; if its embeddings were tuned for another prompt, or other settings are
    given, they are tuned again. method: the inversion's own if none is named, else "pti".
    options: the fields of `Settings`.
    Raises InputError for an empty prompt, a focus word that isn't in it, or settings out of range,
    and FloatingPointError if the numbers overflow.
    """
    check_prompt(prompt, "what the picture should become")
    method = method or method_of(picture)
    settings = settings_of(picture, method, prompt, **options)
    return run(model, picture, prompt, method, settings, progress).picture


def reconstruct(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str | None = None,
    method: str | Method | None = None,
    progress: Progress = silent,
    **options,
) -> Image.Image:
    """The picture as the method gives it back unedited, in its own size: `edit` at η = 0.

    method: as in `edit`, or "ddim" (sampling with the prompt alone) or "vae" (only encoded and
    decoded: the ceiling of all others). Nothing is masked unless a mask is given. Raises as `edit`,
    but takes an empty prompt.
    """
    method = method or method_of(picture)
    prompt = own_prompt(picture, method) if prompt is None else prompt
    settings = settings_of_reconstruction(picture, prompt, method, **options)
    return unedited(model, picture, prompt, method, settings, progress).picture


def settings_of_reconstruction(
    picture: Image.Image | Inversion, prompt: str, method: str | Method, **options
) -> Settings:
    """What `reconstruct` runs a method with. Raises as `settings_of`.

    The prompt says what the picture shows, and so is the source text of a method that needs one.
    What a method keeps of the steps that it misses leads back only where it samples with what it
    inverted with: the prompt then is the source text, too, and ω is the same both ways.
    """
    row = find(method, SAMPLERS)
    if "mask_from" not in options:
        options = {"mask": None, **options}
    options = {**options, "eta": 0.0}
    if row.needs_source and prompt:
        if options.get("source", prompt) != prompt:
            raise InputError("source and prompt both say what the picture shows; give one of them")
        options = {**options, "source": prompt}
    if row.exact_as_inverted:
        guidance = row.settings(**options).guidance
        options = {"source": prompt or None, "inversion_guidance": guidance, **options}
    return settings_of(picture, row, prompt, **options)


def own_prompt(picture: Image.Image | Inversion, method: str | Method) -> str:
    """What a stored inversion is reconstructed for if nothing else is said; nothing for a picture.

    The prompt that it was made for, or the source text for a method that walks on its branch.
    """
    if not isinstance(picture, Inversion):
        return ""
    name = "source" if find(method, SAMPLERS).needs_source else "prompt"
    return picture.settings[name] or ""


def unedited(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str | Method,
    settings: Settings,
    progress: Progress = silent,
) -> Result:
    """What `reconstruct` shows, with settings from `settings_of_reconstruction`."""
    if method == "vae":
        check_prompt(prompt)
        settings = Settings(encode_ratio=0.0, mask=None)
        picture = picture.picture if isinstance(picture, Inversion) else picture
    row = find(method, SAMPLERS)
    # the source's branch alone, where there is one
    return run(model, picture, prompt, row, settings, progress, row.branches[:1])


@torch.no_grad()
def run(
    model: StableDiffusion,
    picture: Image.Image | Inversion,
    prompt: str,
    method: str | Method,
    settings: Settings,
    progress: Progress = silent,
    branches: Rows | None = None,
) -> Result:
    """One row of the table: inverts where there is no inversion yet, then walks down.

    branches: which of the row's to walk, all unless some are named; the last one is the result.
    """
    check_prompt(prompt)
    row = find(method)
    stored = isinstance(picture, Inversion)
    image = picture.picture if stored else images.to_rgb(picture)
    task = Task(model, image, prompt, settings, branches or row.branches)
    row.control(task)  # refused now, if at all
    if stored:
        inversion = fitted(picture, task, method, progress)
    else:
        inversion = inverted(task, method, prompt, progress)
    found, seen = inversion.on(model.device), []
    z0 = walked(row, task, found, found["trajectory"][-1], progress, seen.append)[-1:]
    if task.mask is not None and not seen:  # no step was made, so the edit shows nowhere
        seen.append(torch.zeros_like(z0[:, :1]))
    return Result(model, z0, inversion, seen[-1] if seen else None, settings)


def walked(
    row: Method,
    task: Task,
    found: Found,
    start: Tensor,
    progress: Progress,
    seen: Callable[[Tensor], None] = lambda mask: None,
) -> Tensor:
    """Where a row's walk from `start` (1, c, h, w) ends: z_0 of every branch, (b, c, h, w)."""
    alone, rules = len(task.branches) == 1, row.after(task, found)
    if task.mask is not None:
        source = task.branches.index("source") if not alone else None
        background = pinned(found["trajectory"]) if alone else of_row(source)
        rules += (blended(background, task.mask, seen),)
    walk = Walk(
        row.condition(task, found),
        task.settings.guidance,
        chained(row.control(task) + task.controls),
        row.guide(task),
        row.advance(task),
        rules,
        task.branches,
    )
    rungs = progress(task.rungs[::-1], "sampling")
    start = start.expand(len(task.branches), -1, -1, -1)
    return last(walk_down(task.model, start, rungs, walk), start)


def generate(
    model: StableDiffusion,
    prompt: str,
    seed: int = 0,
    steps: int = 50,
    guidance: float = 7.5,
    progress: Progress = silent,
    source: str | None = None,
    **options,
) -> Image.Image:
    """A picture from noise, in the size the model was trained on; the same for the same seed.

    source: another prompt, of whose picture from the same noise this is to be an edit, by
    Prompt-to-Prompt. options: the fields of `Settings` that have a say in it.
    Raises InputError as `edit`, and for what only such an edit has a use for without a source.
    """
    given = dict(seed=seed, steps=steps, guidance=guidance, source=source, **options)
    settings = settings_of_generating(**given)
    return model.decode(generated(model, prompt, settings, progress)[-1:])


def settings_of_generating(**options) -> Settings:
    """What `generate` runs with. Raises InputError for settings out of range."""
    source = options.get("source")
    for name in () if source else OF_AN_EDIT:
        if options.get(name) is not None:
            raise InputError(f"{name} is for an edit of another prompt's picture; give a source")
    return find(_generator(source)).settings(**{**options, "encode_ratio": 1.0})


def _generator(source: str | None) -> str:
    return "p2p" if source else "ddim-global"


@torch.no_grad()
def generated(
    model: StableDiffusion, prompt: str, settings: Settings, progress: Progress = silent
) -> Tensor:
    """z_0 of the picture that a prompt makes, after its source's if there is one: (1 or 2, …)."""
    check_prompt(prompt)
    row = find(_generator(settings.source))
    task = Task(model, None, prompt, settings, row.branches)
    g = torch.Generator().manual_seed(settings.seed)
    shape = 1, model.unet.config.latent_channels, *task.cells
    start = torch.randn(shape, generator=g).to(model.device)
    return walked(row, task, {}, start, progress)
