"""The rows of the tables: a method with its options, written as on the command line.

    METHOD                            with its paper's defaults
    METHOD:option=value,option=value  "pti:guidance=4,mask=none"

A value is a number, true, false, none, two numbers as 0:0.5, or a text. Two stand for what an edit
comes with: `@caption`, the true text of the picture, and `@mask`, the true edit's mask. Two more
"methods" bound all others: `nothing`, the picture as it is, and `truth`, the true edit through the
VAE.
"""

import json
from dataclasses import dataclass
from typing import Any

from PIL import Image

import ptinv

CAPTION, MASK = "@caption", "@mask"
BOUNDS = ("nothing", "truth")
TOLD = f"source={CAPTION}"
FREE = "init_embedding=null,inner_steps=0"  # c_t = ∅: reconstructs without a tuning
STRENGTHS = ("1.5", "2", "3", "5")  # of guidance; 7.5 is the default

VARIANTS = {
    "the picture as it is": "nothing",
    "the true edit through the VAE": "truth",
    "auto": "auto",
    "auto, told": f"auto:{TOLD}",
    "fast": "fast",
    "fast, told": f"fast:{TOLD}",
    "pti": "pti",
    "pti, told": f"pti:{TOLD}",
    "pti, per-object masks": "pti:mask_relative_to=object",
    "pti, no mask": "pti:mask=none",
    "pti, true mask": f"pti:mask={MASK}",
    "pti, DiffEdit's mask": "pti:mask_from=difference,mask_threshold=0.5",
    "pti, DiffEdit's mask, told": f"pti:mask_from=difference,mask_threshold=0.5,{TOLD}",
    "∅": f"pti:{FREE}",
    "∅, told": f"pti:{FREE},{TOLD}",
    "∅, per-object masks": f"pti:{FREE},mask_relative_to=object",
    "∅, no mask": f"pti:{FREE},mask=none",
    "∅, true mask": f"pti:{FREE},mask={MASK}",
    "∅, DiffEdit's mask": f"pti:{FREE},mask_from=difference,mask_threshold=0.5",
    "∅, DiffEdit's mask, told": f"pti:{FREE},mask_from=difference,mask_threshold=0.5,{TOLD}",
    "ddim-global": "ddim-global",
    **{f"ddim-global, ω = {w}": f"ddim-global:guidance={w}" for w in STRENGTHS},
    "ddim-edit": "ddim-edit",
    **{f"ddim-edit, ω = {w}": f"ddim-edit:guidance={w}" for w in STRENGTHS},
    "diffedit": "diffedit",
    "diffedit, told": f"diffedit:{TOLD}",
    "diffedit-port": "diffedit-port",
    "latent": "latent",
    "noising": "noising",
    "sdedit": "sdedit",
    "ilvr": "ilvr",
    "edit-friendly": "edit-friendly",
    **{f"{name}, told": f"{name}:{TOLD}" for name in ("p2p", "null-text", "npi", "npi-prox")},
    **{f"{name}, told": f"{name}:{TOLD}" for name in ("direct", "pti-p2p")},
}


@dataclass(frozen=True)
class Variant:
    """One row: a method, or a bound, and its options where they are not its defaults."""

    label: str
    method: str
    options: dict[str, Any]

    @property
    def strengths(self) -> dict[str, dict[str, Any]]:
        """Further defaults of its method, by what is new to a picture."""
        return {} if self.method in BOUNDS else ptinv.METHODS[self.method].strengths

    def given(self, caption: str, mask: Image.Image) -> dict[str, Any]:
        """The options for one edit."""
        own = {CAPTION: caption, MASK: mask}
        return {
            name: own.get(value, value) if isinstance(value, str) else value
            for name, value in self.options.items()
        }

    def settings(self, caption: str) -> dict[str, Any]:
        """All settings for an edit of a picture with this caption, as JSON has them; the true mask
        is named. Raises InputError for what cannot be used."""
        if self.method in BOUNDS:
            return {}
        stand_in = Image.new("L", (8, 8), "white")
        given = self.given(caption, stand_in)
        values = vars(ptinv.METHODS[self.method].settings(**given))
        return {name: MASK if value is stand_in else value for name, value in values.items()}


def parse(row: str) -> Variant:
    """A row of the table by its label, or one that is written out. Raises InputError for what is
    neither, and for an option that would change nothing."""
    method, _, rest = VARIANTS.get(row, row).partition(":")
    parts = [part.partition("=") for part in rest.split(",") if part]
    options = {name.strip(): _value(text.strip()) for name, _, text in parts}
    if method not in BOUNDS:
        if method not in ptinv.METHODS:
            known = ", ".join([*BOUNDS, *ptinv.METHODS])
            raise ptinv.InputError(f"there is no method {method!r}; there are {known}")
        if unknown := options.keys() - vars(ptinv.Settings()).keys():
            raise ptinv.InputError(f"{row!r}: there is no option {', '.join(sorted(unknown))}")
        if idle := options.keys() & ptinv.METHODS[method].ignored:
            raise ptinv.InputError(f"{row!r}: {', '.join(sorted(idle))} would change nothing")
    elif options:
        raise ptinv.InputError(f"{row!r}: {method} takes no options")
    variant = Variant(row, method, options)
    try:
        variant.settings("a picture")
    except ptinv.InputError as error:
        raise ptinv.InputError(f"{row!r}: {error}") from error
    return variant


def _value(text: str) -> Any:
    """Value of an option, from its text."""
    words = {"none": None, "null": "null", "true": True, "false": False}
    if text in words:
        return words[text]
    ends = text.split(":")
    try:
        return tuple(map(float, ends)) if len(ends) == 2 else json.loads(text)
    except ValueError:
        return text
