"""From a picture, or from what is stored of one, to the inversion that a method needs.

An inversion is walked and tuned once and serves many edits; what a later edit asks for decides
whether its parts still fit. What is decided is logged, not printed.
"""

import logging
from dataclasses import replace

import torch
from PIL import Image

from . import images
from .errors import InputError
from .inversion.record import EXTRAS, Inversion, pixels_of
from .methods import Method, find
from .model import StableDiffusion
from .provenance import made_with
from .sampling import Progress, silent
from .settings import OF_AN_INVERSION, Settings, check_prompt, of_an_inversion
from .task import Task

log = logging.getLogger(__name__)


def method_of(picture: Image.Image | Inversion) -> str | Method:
    """What to do with a picture if no method is named, or with an inversion: what made it."""
    return picture.settings["method"] if isinstance(picture, Inversion) else "pti"


def settings_of(
    picture: Image.Image | Inversion, method: str | Method, prompt: str | None = None, **options
) -> Settings:
    """The given options over the method's defaults; an inversion's own settings come in between.

    Those are what its trajectory was walked with and, if the same method made the rest, how.
    prompt: the new picture's, if that is known; else the inversion's own.
    Raises InputError for settings out of range, and where the inversion was made with others.
    """
    row = find(method)
    if not isinstance(picture, Inversion):
        settings = row.settings(**options)
        if settings.reuse_tuning:
            raise InputError("reuse_tuning needs an inversion in the picture's place; give one")
        return settings
    stored = picture.settings
    made_by = find(stored["method"])
    if made_by.trajectory is not row.trajectory:
        raise InputError(
            f"the inversion is {made_by.trajectory.title}, and this method needs "
            f"{row.trajectory.title}; invert the picture anew"
        )
    names = set(row.trajectory.depends(picture.made_by, stored["prompt"]))
    if made_by == row and row.extra:
        names |= {*row.extra.depends(picture.made_by, stored["prompt"]), "source"}
    if row.needs_source:
        names.add("source")
    kept = {name: stored[name] for name in OF_AN_INVERSION if name in names}
    settings = row.settings(**{**kept, **options})
    if made_by != row:
        _say_what_is_not_its_own(row, {**kept, **options}, options)
    _check_trajectory(picture, row, settings, stored["prompt"] if prompt is None else prompt)
    if settings.reuse_tuning and row.extra and not _made_alike(picture, row):
        raise InputError("reuse_tuning finds no tuning of this method in the inversion")
    return settings


def _say_what_is_not_its_own(row: Method, kept: dict, options: dict) -> None:
    """Logs where the trajectory of another method's inversion is not what a row would walk."""
    usual = vars(Settings()) | row.defaults
    names = ("encode_ratio", "inversion_guidance")
    differ = [n for n in names if n in kept and n not in options and kept[n] != usual[n]]
    if differ:
        said = ", ".join(f"{name} {kept[name]} (its own: {usual[name]})" for name in differ)
        log.warning("the method walks the inversion's trajectory, with %s", said)


def _check_trajectory(
    inversion: Inversion, row: Method, settings: Settings, prompt: str | None
) -> None:
    """Raises InputError unless the trajectory is the one that the settings and prompt ask for."""
    was = row.trajectory.depends(inversion.made_by, inversion.settings["prompt"])
    for name, value in row.trajectory.depends(settings, prompt).items():
        if was[name] != value:
            # a prompt may have stood in for the source that was not given, then or now
            why = "the text that guided the inversion" if name == "source" else "the inversion's"
            raise InputError(
                f"{name} must be {was[name]!r}, {why}; give that, or invert the picture anew"
            )


def _made_alike(inversion: Inversion, row: Method) -> bool:
    """Whether an inversion holds what a method needs besides a trajectory, for any prompt."""
    return find(inversion.settings["method"]).extra is row.extra and bool(inversion.extras)


@torch.no_grad()
def invert(
    model: StableDiffusion,
    image: Image.Image,
    prompt: str | None = None,
    method: str | Method = "pti",
    progress: Progress = silent,
    **options,
) -> Inversion:
    """A picture's trajectory and, given a prompt, whatever else the method makes beforehand.

    image: of any size and mode. prompt: the edit's target, or for a mere reconstruction whatever
    describes the picture; without one nothing is tuned until an edit needs it. options: the fields
    of `Settings`; those that only an edit has a use for are not kept.
    Raises InputError for settings out of range and FloatingPointError if the numbers overflow.
    """
    row = find(method)
    row.settings(**{**options, "mask": None, "paste_back": False})  # refused now, if at all
    lasting = {name: value for name, value in options.items() if name in OF_AN_INVERSION}
    settings = row.settings(**lasting, mask=None)
    if prompt is not None:
        check_prompt(prompt)
    task = Task(model, images.to_rgb(image), prompt or "", settings, row.branches)
    made = made_with(model)
    return replace(inverted(task, method, prompt, progress), made_with=made)


def inverted(task: Task, method: str | Method, prompt: str | None, progress: Progress) -> Inversion:
    """An inversion that doesn't say what it was made with, for which the model's files are read."""
    row = find(method)
    kept = of_an_inversion(task.settings) | {"method": method, "prompt": prompt}
    trajectory = row.trajectory.run(task, progress)
    inversion = Inversion(pixels_of(task.image), trajectory[:, 0], kept)
    if not row.extra or (prompt is None and _asks_for_a_prompt(row, task.settings)):
        return inversion
    return with_extras(inversion, task, method, prompt, progress)


def _asks_for_a_prompt(row: Method, settings: Settings) -> bool:
    """Whether what a method makes beforehand depends on the prompt, and so must wait for one."""
    without, other = (row.extra.depends(settings, prompt) for prompt in (None, "another"))
    return without != other


def with_extras(
    inversion: Inversion, task: Task, method: str | Method, prompt: str | None, progress: Progress
) -> Inversion:
    """The same inversion with what the method makes for the task's prompt, from its trajectory."""
    trajectory = inversion.on(task.model.device)["trajectory"]
    made = find(method).extra.run(task, trajectory, progress)
    return replace(
        inversion,
        settings=of_an_inversion(task.settings) | {"method": method, "prompt": prompt},
        **{name: made[name][:, 0] if name in made else None for name in EXTRAS},
    )


def fitted(inversion: Inversion, task: Task, method: str | Method, progress: Progress) -> Inversion:
    """A stored inversion as it is, or with its extras made (again) where a method needs others.

    Raises InputError if its trajectory is not the one that the task asks for.
    """
    inversion.check_fits(task.model)
    row = find(method)
    _check_trajectory(inversion, row, task.settings, task.prompt)
    if not row.extra or task.settings.reuse_tuning:
        return inversion
    if _made_alike(inversion, row):
        was = row.extra.depends(inversion.made_by, inversion.settings["prompt"])
        now = row.extra.depends(task.settings, task.prompt)
        differ = [name for name, value in now.items() if was[name] != value]
        if not differ:
            return inversion
        log.info("the inversion has another %s: again, %s", ", ".join(differ), row.extra.title)
    elif inversion.extras:
        log.info("the inversion holds nothing of this method's own: %s", row.extra.title)
    return with_extras(inversion, task, method, task.prompt, progress)
