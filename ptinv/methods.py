"""The methods as a table: every one is the same walk down a trajectory, with a few choices.

    trajectory   where z*_0 … z*_T' comes from          (stages.py)
    extra        what else is made from it beforehand    (stages.py)
    branches     what is sampled side by side            (rows of the latent)
    condition    the contexts of each step               (editing/conditions.py)
    control      what branches share of attention        (editing/prompt_to_prompt.py)
    guide        how the two predictions become one      (ddim.py, editing/proximal.py)
    advance      the step itself                         (sampling.py)
    after        what holds the walk to the picture      (editing/rules.py)
    defaults     of the settings, where they are not the paper's for PTI; masks among them

What stands in the cells is in `choices.py`. The first rows go down alone. The others need a source
text, what the picture shows, and go down beside it: the source's branch returns to the picture, and
the target's shares its attention.

A row needs no name: `edit(…, method=replace(METHODS["pti"], after=…))` runs any combination.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from . import choices, stages
from .choices import Found
from .errors import InputError
from .sampling import Advance, After, Condition, ControlAt, Guide, Rows
from .settings import Settings
from .stages import Extra, Trajectory
from .task import SIDE_BY_SIDE, Task


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    title: str
    trajectory: Trajectory = stages.INVERTED
    extra: Extra | None = None
    branches: Rows = ("target",)
    condition: Callable[[Task, Found], Condition] = choices.target_alone
    control: Callable[[Task], list[ControlAt]] = choices.alone
    guide: Callable[[Task], Guide] = choices.plain
    advance: Callable[[Task], Advance] = choices.as_set
    after: Callable[[Task, Found], tuple[After, ...]] = choices.nothing
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def exact_as_inverted(self) -> bool:
        """Whether it leads back exactly where it samples just as it was inverted."""
        return self.extra is stages.NOISE_MAPS

    @property
    def needs_source(self) -> bool:
        """Whether it can do nothing without a text of the picture."""
        return "source" in self.branches

    def settings(self, **given) -> Settings:
        """The method's defaults with the given values; TypeError for an unknown name.

        Raises InputError where it needs a source text, or makes something of each step, and has
        none, or where it would be made of other steps than are walked.
        """
        if self.needs_source and not (given.get("source") or "").strip():
            raise InputError("source is missing: the method needs a text of what the picture shows")
        settings = Settings(**{**self.defaults, **given})
        if self.extra and self.advance is choices.as_set and settings.sampler != "ddim":
            raise InputError(f"sampler must be ddim here: {self.extra.title} is for DDIM's steps")
        if self.extra and not round(settings.encode_ratio * settings.steps):
            raise InputError(
                f"encode_ratio {settings.encode_ratio} leaves none of the {settings.steps} steps; "
                "raise it"
            )
        return settings


BESIDE = dict(branches=SIDE_BY_SIDE, control=choices.shared_attention)  # Prompt-to-Prompt
PIVOT = {"mask_from": "attention", "encode_ratio": 1.0, "inversion_guidance": 1.0}

METHODS = {
    "pti": Method(
        "Prompt Tuning Inversion: tune c_t, then sample with η·c* + (1-η)·c_t, blending locally",
        extra=stages.TUNED,
        condition=choices.tuned_and_target,
        defaults={"mask_from": "attention"},
    ),
    "ddim-edit": Method(
        "DDIM-Edit: unconditional inversion, then sample with c*, blending locally",
        defaults={"mask_from": "attention"},
    ),
    "ddim-global": Method(
        "DDIM-Global: unconditional inversion, then sample with c*, everywhere",
    ),
    "diffedit": Method(
        "DiffEdit: as DDIM-Global, masked where the noise predicted for two texts differs",
        defaults={"mask_from": "difference", "mask_threshold": 0.5},
    ),
    "diffedit-port": Method(
        "DiffEdit as PTI's paper ran it, from an unofficial port: its ten noises are one",
        defaults={
            "mask_from": "difference",
            "mask_threshold": 0.5,
            "mask_draws": 1,
            "mask_clamp": 4.0,
        },
    ),
    "latent": Method(
        "latent interpolation (Eq. 10): as DDIM-Global, each latent mixed with the inverted one",
        after=choices.latent_interpolation,
    ),
    "noising": Method(
        "naive noising: forget the picture by Eq. 1, then sample without a prompt",
        trajectory=stages.NOISED_ONCE,
        defaults={"guidance": 0.0},
    ),
    "sdedit": Method(
        "SDEdit: noise the picture, then sample with c*; the encode ratio is its strength",
        trajectory=stages.NOISED_ONCE,
        defaults={"encode_ratio": 0.75},
    ),
    "ilvr": Method(
        "ILVR: sample with c*, low frequencies taken from the noised picture after each step",
        trajectory=stages.NOISED_EACH,
        after=choices.low_frequencies,
        defaults={"encode_ratio": 1.0, "sampler": "ancestral"},
    ),
    "edit-friendly": Method(
        "edit-friendly DDPM inversion: independent noises, solved for the noise maps, then c*",
        trajectory=stages.NOISED_EACH,
        extra=stages.NOISE_MAPS,
        advance=choices.mean_step,
        after=choices.noise_maps,
        defaults={"steps": 100, "encode_ratio": 0.64, "guidance": 15.0, "inversion_guidance": 3.5},
    ),
    "p2p": Method(
        "Prompt-to-Prompt: source and target from one noise, sharing attention; nothing is tuned",
        condition=choices.each_its_text,
        defaults=PIVOT,
        **BESIDE,
    ),
    "null-text": Method(
        "Null-Text Inversion: tune ∅_t for the source text, then Prompt-to-Prompt",
        extra=stages.NULL_TUNED,
        condition=choices.under_tuned_null,
        defaults=PIVOT | {"inner_steps": 10, "lr": 0.01, "lr_decay": 0.01, "stop_below": 1e-5},
        **BESIDE,
    ),
    "npi": Method(
        "negative-prompt inversion: the source text in ∅'s place, then Prompt-to-Prompt",
        condition=choices.against_the_source,
        defaults=PIVOT,
        **BESIDE,
    ),
    "npi-prox": Method(
        "proximal negative-prompt inversion: guidance only where it is strong",
        condition=choices.against_the_source,
        guide=choices.proximal_guidance,
        after=choices.pulled_back,
        defaults=PIVOT,
        **BESIDE,
    ),
    "direct": Method(
        "Direct (PnP) inversion: what the source's steps miss is added to them; Prompt-to-Prompt",
        extra=stages.OFFSETS,
        condition=choices.each_its_text,
        after=choices.offsets_of_the_source,
        defaults=PIVOT,
        **BESIDE,
    ),
    "pti-p2p": Method(
        "Prompt Tuning Inversion for the source text, Eq. 9 beside it under Prompt-to-Prompt",
        extra=stages.TUNED,
        condition=choices.tuned_beside_target,
        defaults={"mask_from": "attention", "init_embedding": "source"},
        **BESIDE,
    ),
}


def find(method: str | Method, others: dict[str, str] | None = None) -> Method:
    """A row by its name, or the row itself. Raises InputError naming those there are.

    others: further names, each with that of the row that it stands for.
    """
    if isinstance(method, Method):
        return method
    others = others or {}
    name = others.get(method, method)
    if name not in METHODS:
        names = ", ".join([*METHODS, *others])
        raise InputError(f"there is no method {method!r}; there are {names}")
    return METHODS[name]
