"""The numbers and words that shape an inversion and an edit, with the paper's defaults."""

from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Literal

from PIL import Image

from .errors import InputError


@dataclass(frozen=True)
class Settings:
    """All of them; a method's row in `methods.py` may have other defaults.

    Raises InputError (a ValueError), naming the setting, for a value out of range.
    """

    steps: int = 50  # of DDIM, over the whole schedule
    encode_ratio: float = 0.8  # how much of it is inverted: T' = round(encode_ratio · steps)
    inner_steps: int = 1  # N, of Adam at each timestep
    lr: float = 0.1  # β
    guidance: float = 7.5  # ω in sampling, and so in tuning
    init_embedding: Literal["target", "null", "source"] = "target"  # where c_T' starts
    source: str | None = None  # what the picture shows; no method here needs it
    eta: float = 0.9  # η of Eq. 9: 0 reconstructs, 1 leaves the tuned embedding out
    mask: Image.Image | Literal["auto"] | None = "auto"  # white where to edit; None: everywhere
    focus: str | None = None  # words of the prompt that the automatic mask follows
    mask_threshold: float = 0.3  # of the automatic mask, relative to the strongest attention
    reweight: dict[str, float] = field(default_factory=dict)  # word -> factor of its attention
    seed: int = 0
    reuse_tuning: bool = False  # of an inversion, for another prompt or ω than it was made for

    def __post_init__(self):
        check("steps", self.steps, 1, 500, whole=True)
        check("encode_ratio", self.encode_ratio, 0, 1)
        check("inner_steps", self.inner_steps, 0, 10_000, whole=True)
        check("lr", self.lr, 0, 1000)
        check("guidance", self.guidance, 0, 100)
        check("eta", self.eta, 0, 1)
        check("mask_threshold", self.mask_threshold, 0, 1)
        check("seed", self.seed, 0, 2**63 - 1, whole=True)
        for name in ("source", "focus"):
            if (text := getattr(self, name)) is not None:
                check_text(name, text)
        if not isinstance(self.reweight, dict):
            raise InputError(f"reweight must be words with their factors, not {self.reweight!r}")
        for word, factor in self.reweight.items():
            check_text("the word to weigh", word)
            check(f"the weight of {word!r}", factor, 0, 1000)
        if round(self.encode_ratio * self.steps) == 0:
            raise InputError(
                f"encode_ratio {self.encode_ratio} leaves none of the {self.steps} steps; raise it"
            )
        if not (self.mask is None or self.mask == "auto" or isinstance(self.mask, Image.Image)):
            raise InputError(f"mask must be a picture, 'auto' or None, not {self.mask!r}")
        if self.init_embedding not in ("target", "null", "source"):
            raise InputError(
                f"init_embedding must be target, null or source, not {self.init_embedding!r}"
            )
        if self.focus is not None and not self.focus.strip():
            raise InputError("focus is empty; name words of the prompt, or leave it out")
        if self.init_embedding == "source" and not self.source:
            raise InputError("init_embedding 'source' needs a source text; give one")
        if not isinstance(self.reuse_tuning, bool):
            raise InputError(f"reuse_tuning must be true or false, not {self.reuse_tuning!r}")


def check(name: str, value: Real, low: Real, high: Real, whole: bool = False) -> None:
    """Raises InputError unless low ≤ value ≤ high (which NaN never is), and whole if it must be."""
    right = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not (right and low <= value <= high):
        kind = "a whole number" if whole else "a number"
        raise InputError(f"{name} must be {kind} from {low} to {high}, not {value!r}")


def check_text(name: str, text: str) -> None:
    """Raises InputError unless it is a text, and one that can be written as UTF-8."""
    if not isinstance(text, str):
        raise InputError(f"{name} must be a text, not {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} holds bytes that are no characters; type it anew") from error


def check_prompt(prompt: str, purpose: str | None = None) -> None:
    """Raises InputError unless it is a text, and not an empty one where it serves a purpose."""
    check_text("the prompt", prompt)
    if purpose and not prompt.strip():
        raise InputError(f"the prompt is empty; say {purpose}")


# what an inversion's tensors depend on; the rest can change without inverting or tuning again
OF_THE_TRAJECTORY = ("steps", "encode_ratio")
OF_THE_TUNING = ("inner_steps", "lr", "guidance", "init_embedding", "source")
OF_GENERATING = ("steps", "guidance", "seed")
NAMES = tuple(f.name for f in fields(Settings))
