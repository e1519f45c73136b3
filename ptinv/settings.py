"""The numbers and words that shape an inversion and an edit, with the paper's defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Literal, get_args

from PIL import Image

from .errors import InputError

Start = Literal["target", "null", "source"]
Sampler = Literal["ddim", "ancestral"]
Measure = Literal["map", "object"]
Align = Literal["auto", "replace", "refine"]
Norm = Literal["l0", "l1"]
Gate = float | tuple[float, float]  # a share of the steps from the first on, or from where to where
WordGates = Gate | Mapping[str, Gate]  # by word of the prompt; DEFAULT for all others
DEFAULT = "default"
MASKS = ("attention", "difference", "file")  # what an expression of masks can name
WORDS = ("focus", "source_focus", "subtract")  # the settings that name some


@dataclass(frozen=True)
class Settings:
    """All of them; a method's row in `methods.py` may have other defaults.

    Raises InputError (a ValueError), naming the setting, for a value out of range.
    """

    steps: int = 50  # of DDIM, over the whole schedule
    encode_ratio: float = 0.8  # how much of it is inverted: T' = round(encode_ratio · steps)
    inversion_guidance: float = 0.0  # ω on the way up; above 0 it needs a text of the picture
    inner_steps: int = 1  # N, of Adam at each timestep
    lr: float = 0.1  # β
    lr_decay: float = 0.0  # the share of β that each step takes from it (Null-Text Inversion)
    stop_below: float = 0.0  # the loss that ends a step's tuning (Null-Text Inversion)
    guidance: float = 7.5  # ω in sampling, and so in tuning
    init_embedding: Start = "target"  # where c_T' starts
    source: str | None = None  # what the picture shows
    eta: float = 0.9  # η of Eqs. 9 and 10: 0 is the picture, 1 leaves the inversion out
    sampler: Sampler = "ddim"  # the deterministic step of Eq. 4, or the ancestral one of Eq. 2
    low_pass: int = 4  # cells of the latent; what is coarser comes from the picture (ILVR)
    mask: Image.Image | Literal["auto"] | None = "auto"  # white where to edit; None: everywhere
    mask_from: str | None = None  # what masks are made of: see editing/masks.py
    mask_threshold: float = 0.3  # of the masks made of attention or of differences
    mask_relative_to: Measure = "map"  # what an attention mask's threshold is a share of
    mask_dilate: int = 0  # cells of the latent
    mask_feather: int = 0  # cells of the latent
    mask_draws: int = 10  # noises for the mask of differences
    mask_clamp: float = 3.0  # times its mean, where a map of differences is cut
    focus: str | None = None  # words of the prompt that an attention mask follows
    source_focus: str | None = None  # and of the source, where it has a branch of its own
    subtract: str | None = None  # words whose places such a mask leaves out
    reweight: dict[str, float] = field(default_factory=dict)  # word -> factor of its attention
    cross_replace: WordGates = 0.8  # when the source's cross-attention is the target's, too
    self_replace: Gate = 0.4  # and its self-attention
    self_cells: int = 16  # across: the largest map of self-attention that is replaced
    align: Align = "auto"  # how the words of source and target are paired
    proximal: Norm = "l0"  # the operator of proximal guidance
    proximal_quantile: float = 0.5  # of the guidance's size; what is smaller is dropped
    paste_back: bool = False  # the picture's own pixels outside the mask
    seed: int = 0
    reuse_tuning: bool = False  # of an inversion, for another prompt or ω than it was made for

    def __post_init__(self):
        check("steps", self.steps, 1, 500, whole=True)
        check("inner_steps", self.inner_steps, 0, 10_000, whole=True)
        check("lr", self.lr, 0, 1000)
        check("seed", self.seed, 0, 2**63 - 1, whole=True)
        check("stop_below", self.stop_below, 0, 1000)
        check("self_cells", self.self_cells, 1, 1000, whole=True)
        for name in ("encode_ratio", "eta", "mask_threshold", "lr_decay", "proximal_quantile"):
            check(name, getattr(self, name), 0, 1)
        for name in ("guidance", "inversion_guidance", "mask_clamp"):
            check(name, getattr(self, name), 0, 100)
        for name in ("mask_dilate", "mask_feather"):
            check(name, getattr(self, name), 0, 64, whole=True)
        for name in ("mask_draws", "low_pass"):
            check(name, getattr(self, name), 1, 1000, whole=True)
        for name, kind in (
            ("init_embedding", Start),
            ("sampler", Sampler),
            ("mask_relative_to", Measure),
            ("align", Align),
            ("proximal", Norm),
        ):
            if getattr(self, name) not in (choices := get_args(kind)):
                raise InputError(
                    f"{name} must be {' or '.join(choices)}, not {getattr(self, name)!r}"
                )
        for name in ("reuse_tuning", "paste_back"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, not {getattr(self, name)!r}")
        for name in ("source", "mask_from", *WORDS):
            if (text := getattr(self, name)) is not None:
                check_text(name, text)
                if name in WORDS and not text.strip():
                    raise InputError(f"{name} is empty; name words, or leave it out")
        if not isinstance(self.reweight, dict):
            raise InputError(f"reweight must be words with their factors, not {self.reweight!r}")
        for word, factor in self.reweight.items():
            check_text("the word to weigh", word)
            check(f"the weight of {word!r}", factor, 0, 1000)
        bounds("self_replace", self.self_replace)
        by_word = self.cross_replace
        for gate in by_word.values() if isinstance(by_word, Mapping) else [by_word]:
            bounds("cross_replace", gate)
        if self.init_embedding == "source" and not self.source:
            raise InputError("init_embedding 'source' needs a source text; give one")
        if not (self.mask is None or self.mask == "auto" or isinstance(self.mask, Image.Image)):
            raise InputError(f"mask must be a picture, 'auto' or None, not {self.mask!r}")
        names = self.mask_names
        if unknown := names - set(MASKS):
            raise InputError(
                f"mask_from names {', '.join(sorted(unknown)) or 'nothing'}; "
                f"join {', '.join(MASKS)} with + (either), * (both) and ~ (not)"
            )
        if "file" in names and not isinstance(self.mask, Image.Image):
            raise InputError("mask_from names a file; give it as the mask")
        if self.paste_back and not names:
            raise InputError("paste_back needs a mask, and nothing masks this edit; give a mask")

    @property
    def mask_expression(self) -> str | None:
        """What the edit is masked by: a picture that is given, unless `mask_from` says how."""
        if self.mask is None:
            return None
        if isinstance(self.mask, Image.Image) and "file" not in (self.mask_from or ""):
            return "file"
        return self.mask_from

    @property
    def mask_names(self) -> set[str]:
        """The masks that the expression is made of."""
        expression = self.mask_expression
        if expression is None:
            return set()
        parts = expression.replace("*", "+").split("+")
        return {part.strip().lstrip("~").strip() for part in parts}


def bounds(name: str, gate: Gate) -> tuple[float, float]:
    """The [a, b) that a gate stands for. Raises InputError unless 0 ≤ a ≤ b ≤ 1."""
    pair = tuple(gate) if isinstance(gate, tuple | list) else (0.0, gate)
    whole = len(pair) == 2 and all(isinstance(end, Real) for end in pair)
    if not (whole and 0 <= pair[0] <= pair[1] <= 1):
        raise InputError(
            f"{name} must be a share of the steps from 0 to 1, or two in order, not {gate!r}"
        )
    return pair


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


# what an inversion's tensors can depend on; the rest can change without inverting or tuning again
OF_AN_INVERSION = (
    "steps",
    "encode_ratio",
    "inversion_guidance",
    "seed",
    "source",
    "inner_steps",
    "lr",
    "lr_decay",
    "stop_below",
    "guidance",
    "init_embedding",
)
OF_GENERATING = ("steps", "guidance", "seed")
NAMES = tuple(f.name for f in fields(Settings))


def of_an_inversion(settings: Settings) -> dict:
    """Those that an inversion's tensors can depend on, by name."""
    return {name: getattr(settings, name) for name in OF_AN_INVERSION}
