"""Requests: one thing to be made, checked before a model is loaded.

Everything that can be refused without one is refused here, with InputError. A stored inversion's
settings come between a method's defaults and the options that are given.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from ..core.sampling import Branches
from ..errors import InputError
from ..settings import ATTENTION, OF_AN_INVERSION, Settings, check_prompt, names_of
from ..storage.inversion import Inversion
from ..storage.pictures import checked
from .masks import check_mask
from .table import METHODS, Method, find

log = logging.getLogger(__name__)

Picture = Image.Image | Inversion
# other names that `reconstruct` takes: sampling without a tuning, and a mere round trip
SAMPLERS = dict.fromkeys(("ddim", "vae"), METHODS["ddim-global"])
# options that `generate` has a use for only where the picture is an edit of another
OF_AN_EDIT = [*(name for name in names_of(ATTENTION) if name != "reweight"), "mask", "mask_from"]


@dataclass(frozen=True)
class Request:
    """Everything that making it takes, but the model."""

    method: str | Method  # as it was named
    row: Method
    image: Image.Image | None  # RGB, in its own size; None for a picture that is generated
    inversion: Inversion | None  # a stored one, to go on from
    prompt: str | None  # None for an inversion that no text is known for yet
    settings: Settings
    branches: Branches  # of the row's, those to be sampled


def request_edit(
    picture: Picture, prompt: str, method: str | Method | None = None, **options
) -> Request:
    """An edit. Raises InputError, among all else for an empty prompt."""
    check_prompt(prompt, "what the picture should become")
    method = method or method_of(picture)
    return _request(picture, prompt, method, settings_for(picture, method, prompt, **options))


def request_reconstruction(
    picture: Picture, prompt: str | None = None, method: str | Method | None = None, **options
) -> Request:
    """A picture as the method gives it back unedited: an edit at η = 0, without a mask by default.

    The prompt describes the picture, and so is the source text of a method that needs one. For a
    stored inversion it is by default the inversion's own, or the source text. The residuals that a
    method keeps lead back only where it samples with what it inverted with: the prompt is then the
    source text, too, and ω is the same both ways. Raises InputError.
    """
    method = method or method_of(picture)
    row = find(method, METHODS | SAMPLERS)
    if prompt is None and isinstance(picture, Inversion):
        prompt = picture.settings["source" if row.needs_source else "prompt"]
    if prompt is None:
        prompt = ""
    check_prompt(prompt)
    options = ({} if "mask_from" in options else {"mask": None}) | options | {"eta": 0.0}
    if row.needs_source and prompt:
        if options.get("source", prompt) != prompt:
            raise InputError("source and prompt both say what the picture shows; give one of them")
        options["source"] = prompt
    if row.exact_as_inverted:
        guidance = row.settings(**options).guidance
        options = {"source": prompt or None, "inversion_guidance": guidance} | options
    request = _request(picture, prompt, method, settings_for(picture, row, prompt, **options))
    return replace(request, branches=row.branches[:1])


def request_inversion(
    picture: Image.Image, prompt: str | None = None, method: str | Method = "pti", **options
) -> Request:
    """An inversion. Options that only an edit uses are checked and not kept. Raises InputError."""
    if isinstance(picture, Inversion):
        raise InputError("this is an inversion already; give it to edit or reconstruct")
    row = find(method)
    row.settings(**options | {"mask": None, "paste_back": False})
    lasting = {name: value for name, value in options.items() if name in OF_AN_INVERSION}
    if prompt is not None:
        check_prompt(prompt)
    return _request(picture, prompt, method, row.settings(**lasting, mask=None))


def request_generation(prompt: str, **options) -> Request:
    """A picture from noise; with a source, an edit of that prompt's picture. Raises InputError."""
    source = options.get("source")
    for name in () if source else OF_AN_EDIT:
        if options.get(name) is not None:
            raise InputError(f"{name} is for an edit of another prompt's picture; give a source")
    method = "p2p" if source else "ddim-global"
    settings = METHODS[method].settings(**options | {"encode_ratio": 1.0})
    check_prompt(prompt)
    return _request(None, prompt, method, settings)


def _request(
    picture: Picture | None, prompt: str | None, method: str | Method, settings: Settings
) -> Request:
    row = find(method, METHODS | SAMPLERS)
    inversion = picture if isinstance(picture, Inversion) else None
    image = inversion.picture if inversion else picture and checked(picture)
    if isinstance(settings.mask, Image.Image):
        settings = replace(settings, mask=check_mask(settings.mask, image and image.size))
    return Request(method, row, image, inversion, prompt, settings, row.branches)


def method_of(picture: Picture) -> str | Method:
    """The method for a picture if none is named, or for an inversion: the one that made it."""
    return picture.settings["method"] if isinstance(picture, Inversion) else "pti"


def made_alike(inversion: Inversion, row: Method) -> bool:
    """True if an inversion holds what a method needs besides a trajectory, for any prompt."""
    return find(inversion.settings["method"]).extra is row.extra and bool(inversion.extras)


def settings_for(
    picture: Picture, method: str | Method, prompt: str | None = None, **options
) -> Settings:
    """The given options over the method's defaults; an inversion's own settings come in between.

    Those are what its trajectory was made with and, if the same method made the rest, how.
    prompt: the wanted picture's, if that is known; else the inversion's own.
    Raises InputError for settings out of range, and where the inversion was made with others.
    """
    row, inverted = find(method), isinstance(picture, Inversion)
    settings = row.settings(**(_kept(picture, row) if inverted else {}) | options)
    if inverted:
        _check_trajectory(picture, row, settings, prompt, options)
    if settings.reuse_tuning and not inverted:
        raise InputError("reuse_tuning needs an inversion in the picture's place; give one")
    if settings.reuse_tuning and row.extra and not made_alike(picture, row):
        raise InputError("reuse_tuning finds no tuning of this method in the inversion")
    return settings


def _kept(inversion: Inversion, row: Method) -> dict[str, Any]:
    """The inversion's own settings that a row goes on with, by name."""
    stored, made_by = inversion.settings, find(inversion.settings["method"])
    if made_by.trajectory is not row.trajectory:
        raise InputError(
            f"the inversion is {made_by.trajectory.title}, and this method needs "
            f"{row.trajectory.title}; invert the picture anew"
        )
    key = row.trajectory.key(inversion.made_by, stored["prompt"])
    names = {name for name, value in key.items() if value != ""}
    if made_by == row and row.extra:
        names.update(row.extra.uses, ["source"])
    if row.needs_source:
        names.add("source")
    return {name: stored[name] for name in OF_AN_INVERSION if name in names}


def _check_trajectory(
    inversion: Inversion, row: Method, settings: Settings, prompt: str | None, options: dict
) -> None:
    """Raises InputError unless the trajectory is the one that the settings and prompt call for.
    Logs where it is another method's, and not what the row's own settings would make."""
    stored = inversion.settings
    was = row.trajectory.key(inversion.made_by, stored["prompt"])
    usual = vars(Settings()) | row.defaults
    differ = [
        f"{name} {stored[name]} (its own: {usual[name]})"
        for name in ("encode_ratio", "inversion_guidance")
        if name in was and name not in options and stored[name] != usual[name]
    ]
    if differ and find(stored["method"]) != row:
        log.warning("the method walks the inversion's trajectory, with %s", ", ".join(differ))
    key = row.trajectory.key(settings, stored["prompt"] if prompt is None else prompt)
    for name, value in key.items():
        if was[name] != value:
            # a prompt may have stood in for the source that was not given, then or now
            why = "the text that guided the inversion" if name == "source" else "the inversion's"
            raise InputError(
                f"{name} must be {was[name]!r}, {why}; give that, or invert the picture anew"
            )
