"""Requests: one thing to be made, checked before a model is loaded.

Everything that can be refused without one is refused here, with InputError. A stored inversion's
settings come between a method's defaults and the options that are given.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.pictures import Picture, to_rgb
from ..core.sampling import Branches
from ..errors import Doubt, InputError, PictureError, remark
from ..settings import NAMES, OF_AN_INVERSION, Settings, check_names, check_prompt
from ..storage.inversion import SUFFIX, Inversion
from ..storage.pictures import Reading, checked, open_picture
from .masks import check_mask, painted
from .stages import NOISE_MAPS
from .table import METHODS, OF_SOME, PAIRED, Method, find, name_of

# other names that `reconstruct` takes: sampling without a tuning, and a mere round trip
SAMPLERS = {name: replace(METHODS["ddim-global"], title=name) for name in ("ddim", "vae")}
# options that `generate` has a use for only where the picture is an edit of another
OF_AN_EDIT = {*NAMES} - {*OF_AN_INVERSION} - OF_SOME - {"reweight"} | {*PAIRED}


@dataclass(frozen=True, eq=False)
class Request:
    """Everything that making it takes, but the model."""

    command: str  # "edit", "reconstruct", "invert" or "generate"
    method: Method
    image: Image.Image | None  # RGB, in its own size; None for a picture that is generated
    inversion: Inversion | None  # a stored one, to go on from
    prompt: str | None  # None for an inversion that no text is known for yet
    settings: Settings
    branches: Branches  # of the method's, those to be sampled
    given: dict[str, Any]  # the settings that were asked for; the others are defaults

    @property
    def name(self) -> str:
        """The method's name, or its title if it has none."""
        return name_of(self.method, METHODS | SAMPLERS) or self.method.title


def opened(picture: Picture | Inversion, read: Reading = to_rgb) -> Image.Image | Inversion:
    """A picture as RGB, or an inversion; from an image, a path (also of an inversion's file), or
    bytes or truths (h, w[, 3 or 4]). read: `painted` for a mask. Raises PictureError."""
    if isinstance(picture, Inversion):
        return picture
    if isinstance(picture, str | PathLike):
        stored = Path(picture).suffix.lower() == SUFFIX
        return Inversion.load(picture) if stored and read is to_rgb else open_picture(picture, read)
    if isinstance(picture, np.ndarray) and picture.dtype in (np.uint8, np.bool_):
        if picture.ndim == 2 or picture.shape[2:] in ((3,), (4,)):
            picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
        kinds = "a PIL image, a path, an inversion or uint8 (h, w), (h, w, 3) or (h, w, 4)"
        of = f" of {picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else ""
        raise PictureError(f"a picture must be {kinds}, not {type(picture).__name__}{of}")
    return checked(picture, read)


def request_edit(
    picture: Picture | Inversion, prompt: str, method: str | Method | None = None, **options
) -> Request:
    """An edit. Raises InputError, among all else for an empty prompt."""
    check_prompt(prompt, "what the picture should become")
    picture = opened(picture)
    method = find(method_of(picture) if method is None else method)
    given = _read(options)
    return _request("edit", picture, prompt, method, given, given)


def request_reconstruction(
    picture: Picture | Inversion,
    prompt: str | None = None,
    method: str | Method | None = None,
    **options,
) -> Request:
    """A picture as the method gives it back unedited: an edit at η = 0, without a mask by default.

    The prompt describes the picture: by default it is a stored inversion's own, and it is the
    source text of a method that needs one or keeps residuals, which lead back only where sampling
    is as inversion was; ω is the same both ways then. Raises InputError.
    """
    picture = opened(picture)
    method = find(method_of(picture, "pti") if method is None else method, METHODS | SAMPLERS)
    if prompt is None and isinstance(picture, Inversion):
        prompt = picture.settings["source" if method.needs_source else "prompt"]
    prompt = "" if prompt is None else prompt
    check_prompt(prompt)
    given = _read(options)
    options = ({} if "mask_from" in given else {"mask": None}) | given | {"eta": 0.0}
    if method.needs_source or method.extra is NOISE_MAPS:
        prompt = prompt or options.get("source") or ""
        if options.get("source", prompt) != prompt:
            raise InputError("source and prompt both say what the picture shows; give one of them")
        options |= {"source": prompt} if prompt else {}
    if method.extra is NOISE_MAPS:
        options = {"inversion_guidance": method.settings(**options).guidance} | options
    request = _request("reconstruct", picture, prompt, method, options, given, ["eta"])
    return replace(request, branches=method.branches[:1])


def request_inversion(
    picture: Picture, prompt: str | None = None, method: str | Method = "pti", **options
) -> Request:
    """An inversion. Options that only an edit uses are checked and not kept. Raises InputError."""
    picture = opened(picture)
    if isinstance(picture, Inversion):
        raise InputError("this is an inversion already; give it to edit or reconstruct")
    method = find(method)
    method.settings(**_read(options) | {"mask": None, "paste_back": False})
    lasting = {n: value for n, value in options.items() if n in (*OF_AN_INVERSION, "among")}
    if prompt is not None:
        check_prompt(prompt)
    return _request("invert", picture, prompt, method, lasting | {"mask": None}, options)


def request_generation(prompt: str, **options) -> Request:
    """A picture from noise; with a source, an edit of that prompt's picture. Raises InputError."""
    source = options.get("source")
    for name in () if source else sorted(OF_AN_EDIT & options.keys()):
        if options[name] is not None:
            raise InputError(f"{name} is for an edit of another prompt's picture; give a source")
    method = METHODS["p2p" if source else "ddim-global"]
    check_prompt(prompt)
    wanted = _read(options) | {"encode_ratio": 1.0}
    unused = "encode_ratio", "inversion_guidance", "paste_back", "reuse_tuning"
    return _request("generate", None, prompt, method, wanted, options, unused)


def _request(
    command: str,
    picture: Image.Image | Inversion | None,
    prompt: str | None,
    method: Method,
    wanted: dict[str, Any],
    given: dict[str, Any],
    unused: Collection[str] = (),
) -> Request:
    """Checks wanted settings and the mask's size; doubts what is given for nothing, or `unused`."""
    inversion = picture if isinstance(picture, Inversion) else None
    image = inversion.picture if inversion else picture
    settings = settings_for(picture, method, prompt, **wanted)
    if isinstance(settings.mask, Image.Image):
        check_mask(settings.mask, image and image.size)
    request = Request(command, method, image, inversion, prompt, settings, method.branches, wanted)
    ignored = method.ignored.union(unused)
    if idle := [n for n in given if n in ignored and given[n] != method.own(n)]:
        by = f"{command} by {request.name} does not use {'it' if len(idle) == 1 else 'them'}"
        remark(f"{', '.join(idle)} will change nothing: {by}", Doubt)
    return request


def _read(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with a mask opened. TypeError for a name that is none's; InputError as below."""
    check_names(options)
    mask = options.get("mask")
    if mask is None or isinstance(mask, str) and mask == "auto":
        return options
    if "file" not in (options.get("mask_from") or "file"):
        mend = "join it, as in attention*file, or leave one of them out"
        raise InputError(f"mask_from leaves out the file that mask gives; {mend}")
    return options | {"mask": opened(mask, painted)}


def method_of(picture: Image.Image | Inversion, usual: str = "auto") -> str | Method:
    """The method for a picture if none is named, or for an inversion: the one that made it."""
    method = picture.settings["method"] if isinstance(picture, Inversion) else usual
    if isinstance(method, list):
        raise InputError("the inversion was made by a method without a name; give the method")
    return method


def stages_of(inversion: Inversion) -> list[str | None]:
    """The titles of the stages that made an inversion's trajectory and what else it holds."""
    method = inversion.settings["method"]
    return method if isinstance(method, list) else find(method).stages


def made_alike(inversion: Inversion, method: Method) -> bool:
    """True if an inversion holds what a method needs besides a trajectory, for any prompt."""
    held, needed = inversion.extras.keys(), method.extra.makes
    return stages_of(inversion)[1] == method.stages[1] and bool(held) and held >= {*needed}


def settings_for(
    picture: Picture | Inversion | None, method: str | Method, prompt: str | None = None, **options
) -> Settings:
    """The given options over what an inversion's stages were made with, as far as the method has
    the same stages, over the method's defaults. prompt: the wanted picture's, if that is known.
    Raises InputError for settings out of range, and unless the inversion's trajectory is the one
    that the settings and prompt call for. Remarks where it is not what the method's own would be.
    """
    method = find(method)
    if not isinstance(picture, Inversion):
        settings = method.settings(**options)
        if settings.reuse_tuning and picture is not None:
            raise InputError("reuse_tuning needs an inversion in the picture's place; give one")
        return settings
    (trajectory, extra), name = stages_of(picture), picture.settings["method"]
    if trajectory != method.trajectory.title:
        wrong = f"the inversion is {trajectory}, and this method needs {method.trajectory.title}"
        raise InputError(f"{wrong}; invert the picture anew")
    usual = method if isinstance(name, list) else find(name)  # whose defaults it was made with
    stored, text = picture.made_by, picture.settings["prompt"]
    was = method.trajectory.key(stored, text)

    # kept are the settings of the stages that both have, but those of differing defaults
    names = {name for name, value in was.items() if value != ""}
    alike = extra == method.stages[1]
    if alike:
        uses = method.extra.uses if method.extra else OF_AN_INVERSION
        names |= {name for name in uses if name != "source" and usual.own(name) == method.own(name)}
    if method.needs_source or alike and not usual.needs_source:
        names.add("source")
    kept = {name: value for name, value in vars(stored).items() if name in names}
    settings = method.settings(**kept | options)

    own = {n: method.own(n) for n in ("encode_ratio", "inversion_guidance") if n not in options}
    differ = [f"{n} {was[n]} (its own: {own[n]})" for n in own if was.get(n, own[n]) != own[n]]
    if differ and (usual.stages, usual.defaults) != (method.stages, method.defaults):
        remark(f"the method walks the inversion's trajectory, with {', '.join(differ)}", Doubt)
    now = method.trajectory.key(settings, text if prompt is None else prompt)
    for name in (name for name in now if was[name] != now[name]):
        # a prompt may have stood in for the source that was not given, then or now
        why = "the text that guided the inversion" if name == "source" else "the inversion's"
        mend = "give that, or invert the picture anew"
        raise InputError(f"{name} must be {was[name]!r}, {why}; {mend}")
    if settings.reuse_tuning and method.extra and not made_alike(picture, method):
        raise InputError("reuse_tuning finds no tuning of this method in the inversion")
    return settings
