"""The numbers and words that shape an inversion and an edit, with the paper's defaults.

A setting is written once, as a field of `Settings`: its default, its range or choices, and its
meaning. The checks below, the options of the command line and their help are made from the fields.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, get_args

from PIL import Image

from .errors import InputError

Start = Literal["target", "null", "source"]
Sampler = Literal["ddim", "ancestral"]
Measure = Literal["map", "object"]
Align = Literal["auto", "replace", "refine"]
Norm = Literal["l0", "l1", "code-l0", "code-l1"]
Gate = float | tuple[float, float]  # a share of the steps from the first on, or from where to where
Size = int | tuple[int, int]  # in pixels: of a square, or width and height
WordGates = Gate | Mapping[str, Gate]  # by word of the prompt; DEFAULT for all others
DEFAULT = "default"
LONGEST = 10_000  # characters of a prompt, of which the model reads 77 tokens
AUTO = "auto"  # the source text that is read off the picture
MASKS = ("attention", "difference", "file")  # what an expression of masks can name

# the options' groups: of `ptinv invert`; those that `ptinv generate` takes, too; of other edits
INVERSION, ATTENTION, EDIT = "inversion", "attention", "edit"


def check(name: str, value: Any, low: float, high: float, whole: bool = False) -> None:
    """Raises InputError unless low ≤ value ≤ high (which NaN never is), and whole if it must be."""
    kinds: Any = Integral if whole else Real
    right = isinstance(value, kinds) and not isinstance(value, bool)
    kind = "a whole number" if whole else "a number"
    _require(right and low <= value <= high, name, f"{kind} from {low} to {high}", value)


def check_text(name: str, text: str, mend: str | None = None) -> None:
    """Raises InputError unless it is a text of a sane length in Unicode; with a mend, if empty."""
    _require(isinstance(text, str), name, "a text", text)
    _require(len(text) <= LONGEST, name, f"at most {LONGEST} characters long", text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} holds bytes that are no characters; type it anew") from error
    if mend and not text.strip():
        raise InputError(f"{name} is empty; {mend}")


def check_prompt(prompt: str, purpose: str | None = None) -> None:
    """Raises InputError unless it is a text, and not an empty one where it serves a purpose."""
    check_text("the prompt", prompt, purpose and f"say {purpose}")


def bounds(name: str, gate: Gate) -> tuple[float, float]:
    """The [a, b) that a gate stands for. Raises InputError unless 0 ≤ a ≤ b ≤ 1."""
    pair = tuple(gate) if isinstance(gate, tuple | list) else (0.0, gate)
    two = len(pair) == 2 and all(isinstance(e, Real) and not isinstance(e, bool) for e in pair)
    right = two and 0 <= pair[0] <= pair[1] <= 1
    _require(right, name, "a share of the steps from 0 to 1, or two in order", gate)
    return pair[0], pair[1]


def sides(name: str, size: Size) -> tuple[int, int]:
    """The (width, height) of a size, or of a square's side. Raises InputError for other pixels."""
    width, height = size if isinstance(size, tuple | list) and len(size) == 2 else (size, size)
    for side in (width, height):
        check(name, side, 64, 4096, whole=True)
    return width, height


def _require(right: bool, name: str, kind: str, value: Any) -> None:
    if not right:
        raise InputError(f"{name} must be {kind}, not {value!r}")


def _check_weights(name: str, weights: dict[str, float]) -> None:
    _require(isinstance(weights, dict), name, "words with their factors", weights)
    for word, factor in weights.items():
        check_text("the word to weigh", word)
        check(f"the weight of {word!r}", factor, 0, 1000)


def _check_word_gates(name: str, by_word: WordGates) -> None:
    for gate in by_word.values() if isinstance(by_word, Mapping) else [by_word]:
        bounds(name, gate)


def _if(right: Callable[[Any], bool], kind: str) -> Callable[[str, Any], None]:
    """A check that refuses a value unless it is right, which makes it of that kind."""
    return lambda name, value: _require(right(value), name, kind, value)


_check_words = partial(check_text, mend="name words, or leave it out")
_check_switch = _if(lambda value: isinstance(value, bool), "true or false")
_check_mask = _if(
    lambda mask: mask in (None, "auto") or isinstance(mask, Image.Image),
    "a picture, 'auto' or None",
)


def _field(default: Any, rule: Any, group: str, meaning: str, metavar: str | None = None) -> Any:
    """A field with its check, its group and its option. rule: a number's (least, greatest), whole
    as its default; a Literal; or a check of name and value. None is right where it is default."""
    choices, limits = get_args(rule) or None, ""
    if choices:
        limits = f" ({' or '.join(choices)})"
        rule = _if(lambda value: value in choices, " or ".join(choices))
    elif isinstance(rule, tuple):
        metavar, whole = str(default), isinstance(default, int)
        limits = f" (from {rule[0]} to {rule[1]})"
        rule = partial(check, low=rule[0], high=rule[1], whole=whole)
    about = dict(check=rule, group=group, meaning=meaning, metavar=metavar, choices=choices)
    about["limits"] = limits
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


@dataclass(frozen=True, repr=False)
class Settings:
    """All settings, by default the paper's for PTI; `METHODS["sdedit"].settings(…)` has another
    method's. Raises InputError (a ValueError), naming the setting, for a value out of range."""

    # fmt: off
    steps: int = _field(50, (1, 500), INVERSION, "of DDIM, over the whole schedule")
    encode_ratio: float = _field(0.8, (0, 1), INVERSION,
        "how much of the schedule is inverted: T' = round(ratio · steps)")
    inversion_guidance: float = _field(0.0, (0, 100), INVERSION,
        "ω on the way up, of --source or the prompt")
    size: Size | None = _field(None, sides, INVERSION,
        "the side of the square, or WIDTHxHEIGHT, of whose area the picture is while it is edited, "
        "in pixels (default: as the model was trained)", "512")
    inner_steps: int = _field(1, (0, 10_000), INVERSION, "N: tuning iterations at each timestep")
    lr: float = _field(0.1, (0, 1000), INVERSION, "β: the tuning's learning rate")
    lr_decay: float = _field(0.0, (0, 1), INVERSION, "the share of β that each step takes from it")
    stop_below: float = _field(0.0, (0, 1000), INVERSION,
        "the loss that ends a step's tuning; it grows by step")
    guidance: float = _field(7.5, (0, 100), INVERSION, "ω in tuning and sampling")
    guidance_gate: Gate = _field((0.0, 1.0), bounds, INVERSION, "the share of the steps that are "
        "guided, from the noise on, or FROM:TO; ω is at most 1 on the others (default: all)", "0.5")
    negative: str = _field("", check_text, INVERSION,
        "what the picture should not show: ∅ in tuning and sampling is this text's", "TEXT")
    init_embedding: Start = _field("target", Start, INVERSION, "where the tuning starts")
    source: str | None = _field(None, check_text, INVERSION, "what the picture shows; auto: as far "
        "as the prompt's words can be corrected by the picture (default: the method's)", "TEXT")
    among: str | None = _field(None, _check_words, EDIT,
        "words to choose from where the source text is auto", "WORDS")
    eta: float = _field(0.9, (0, 1), EDIT, "η: how much of the target prompt, from 0 (the picture) "
        "to 1 (the prompt alone)")
    sampler: Sampler = _field("ddim", Sampler, EDIT,
        "the step down: without or with new noise (default: the method's)")
    low_pass: int = _field(4, (1, 1000), EDIT, "cells of ilvr's filter")
    mask: Image.Image | Literal["auto"] | None = _field(  # None: everywhere
        "auto", _check_mask, EDIT, "your own mask: white where to edit", "FILE")
    mask_from: str | None = _field("attention", check_text, EDIT, "attention (of the focus words), "
        "difference (of noise, against --source), file (of --mask), joined with + (either), * "
        "(both) and ~ (not) (default: the method's)", "MASKS")
    mask_threshold: float = _field(0.3, (0, 1), ATTENTION,
        "of masks made of attention or differences")
    mask_relative_to: Measure = _field("map", Measure, EDIT, "whose strongest attention the "
        "threshold is a share of; object: of each of several, so that all of them change")
    mask_dilate: int = _field(0, (0, 64), EDIT, "cells by which to grow the mask")
    mask_feather: int = _field(0, (0, 64), EDIT, "cells over which to soften its edge")
    mask_draws: int = _field(10, (1, 1000), EDIT, "noises for the mask of differences")
    mask_clamp: float = _field(3.0, (0, 100), EDIT, "times its mean, where that map is cut")
    focus: str | None = _field(None, _check_words, ATTENTION,
        "words of the prompt that the mask follows", "WORDS")
    source_focus: str | None = _field(None, _check_words, ATTENTION,
        "and of the source text (default: those that the prompt lacks)", "WORDS")
    subtract: str | None = _field(None, _check_words, ATTENTION,
        "words whose places the mask leaves out", "WORDS")
    reweight: dict[str, float] = _field({}, _check_weights, ATTENTION,
        "multiply a word's attention (repeatable)", "WORD=2")
    cross_replace: WordGates = _field(0.8, _check_word_gates, ATTENTION, "how long the source's "
        "cross-attention is the prompt's, too: a share of the steps or FROM:TO, for all words or "
        "one (repeatable)", "[WORD=]0.8")
    self_replace: Gate = _field(0.4, bounds, ATTENTION,
        "and its self-attention: a share of the steps or FROM:TO", "0.4")
    self_cells: int = _field(16, (1, 1000), ATTENTION,
        "cells across the largest map of it that is replaced")
    align: Align = _field("auto", Align, ATTENTION, "how words are paired: one by one, which needs "
        "as many in both texts, or as far as the texts agree (default: auto, one by one where it "
        "can be)")
    proximal: Norm = _field("l0", Norm, EDIT,
        "npi-prox: keep strong guidance as it is, or lessen it by the limit; as the code has both")
    proximal_quantile: float = _field(0.5, (0, 1), EDIT,
        "npi-prox: the share of guidance that is dropped")
    paste_back: bool = _field(False, _check_switch, EDIT,
        "the picture's own pixels outside the mask")
    seed: int = _field(0, (0, 2**63 - 1), INVERSION, "of whatever noise a method draws")
    reuse_tuning: bool = _field(False, _check_switch, EDIT,
        "keep an inversion's tuning for another prompt or ω")
    # fmt: on

    def __post_init__(self):
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value is not None or type(None) not in get_args(setting.type):
                setting.metadata["check"](setting.name, value)
        for name, read in (("guidance_gate", bounds), ("size", sides)):  # spelt alike, to compare
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, read(name, value))
        if self.init_embedding == "source" and not self.source:
            raise InputError("init_embedding 'source' needs a source text; give one")
        names = self.mask_names
        if unknown := names - set(MASKS):
            how = f"join {', '.join(MASKS)} with + (either), * (both) and ~ (not)"
            named = ", ".join(sorted(unknown)) or "nothing"
            raise InputError(f"mask_from names {named}; {how}")
        if "file" in names and not isinstance(self.mask, Image.Image):
            raise InputError("mask_from names a file; give it as the mask")
        if self.paste_back and not names:
            raise InputError("paste_back needs a mask, and nothing masks this edit; give a mask")

    def __repr__(self) -> str:
        other = (f"{n}={value!r}" for n, value in vars(self).items() if value != DEFAULTS[n])
        return f"Settings({', '.join(other)})"

    def __hash__(self) -> int:  # the dict and the picture among the fields have none
        return hash(tuple(v for v in vars(self).values() if isinstance(v, int | float | str)))

    @property
    def mask_expression(self) -> str | None:
        """The masks' expression: a picture that is given, unless `mask_from` says how."""
        if self.mask is None:
            return None
        if isinstance(self.mask, Image.Image) and "file" not in (self.mask_from or ""):
            return "file"
        return self.mask_from

    @property
    def mask_names(self) -> set[str]:
        """The masks that the expression is made of."""
        expression = self.mask_expression
        parts = [] if expression is None else expression.replace("*", "+").split("+")
        return {part.strip().lstrip("~ ") for part in parts}


def names_of(group: str) -> tuple[str, ...]:
    """The names of a group's settings, in the order of the fields."""
    return tuple(f.name for f in fields(Settings) if f.metadata["group"] == group)


DEFAULTS = vars(Settings())
ABOUT = {setting.name: setting.metadata for setting in fields(Settings)}
NAMES = tuple(DEFAULTS)
OF_AN_INVERSION = names_of(INVERSION)
LATER = ("guidance_gate", "negative", "size")  # which the oldest files of inversions lack
# by the names that other libraries have for them
ELSEWHERE = dict(
    num_inference_steps="steps", guidance_scale="guidance", negative_prompt="negative",
    strength="encode_ratio", generator="seed", num_inner_steps="inner_steps", learning_rate="lr",
    mask_image="mask", source_prompt="source", image="picture", output_type="result(…).latent",
    callback="steps(…)",
)  # fmt: skip


def of_an_inversion(settings: Settings) -> dict[str, Any]:
    """The settings that an inversion's tensors can depend on, by name."""
    values = ((name, vars(settings)[name]) for name in OF_AN_INVERSION)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values}  # as JSON has it


def check_names(options: Iterable[str]) -> None:
    """Raises TypeError for a name that is no setting's, and says which may be meant."""
    for name in options:
        if name not in NAMES:
            near, here = get_close_matches(name, NAMES, n=1), ELSEWHERE.get(name)
            hint = f"did you mean {near[0]}?" if near else "see help(ptinv.Settings)"
            hint = f"{here} is the name here" if here else hint
            raise TypeError(f"there is no option {name!r}; {hint}")


def described(names: Iterable[str]) -> str:
    """Settings for a docstring: each with its default, range or choices, and meaning."""
    each = ((name, DEFAULTS[name], ABOUT[name]) for name in names)
    return "\n".join(f"    {n} = {own!r}{how['limits']}: {how['meaning']}" for n, own, how in each)


Settings.__doc__ = f"{Settings.__doc__}\n\n{described(NAMES)}\n    "
