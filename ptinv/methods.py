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

The first rows go down alone. The others need a source text, what the picture shows, and go down
beside it: the source's branch returns to the picture, and the target's shares its attention.

A row needs no name: `edit(…, method=replace(METHODS["pti"], after=…))` runs any combination.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import ddim, stages
from .editing import conditions, proximal, rules
from .editing import prompt_to_prompt as p2p
from .editing.alignment import word_tokens
from .errors import InputError
from .sampling import Advance, After, Condition, ControlAt, Guide, Rows, ancestral, deterministic
from .settings import Settings
from .stages import Extra, Trajectory
from .task import SIDE_BY_SIDE, Task

Found = dict[str, Tensor]  # an inversion's tensors by name, on the model's device


def target_alone(task: Task, found: Found) -> Condition:
    """c* at every step."""
    return conditions.constant(task.null, task.target)


def tuned_and_target(task: Task, found: Found) -> Condition:
    """Eq. 9."""
    return conditions.interpolated(task.null, found["embeddings"], task.target, task.settings.eta)


def of_branches(task: Task, **conditions_of: Condition) -> Condition:
    """A condition a branch, for those that are walked."""
    return conditions.side_by_side(*(conditions_of[branch] for branch in task.branches))


def each_its_text(task: Task, found: Found) -> Condition:
    """The source's context on its branch, c* on the target's."""
    source = conditions.constant(task.null, task.source)
    return of_branches(task, source=source, target=target_alone(task, found))


def under_tuned_null(task: Task, found: Found) -> Condition:
    """Each its text, against ∅_t."""
    null = found["embeddings"]
    source, target = (conditions.tuned_null(null, text) for text in (task.source, task.target))
    return of_branches(task, source=source, target=target)


def against_the_source(task: Task, found: Found) -> Condition:
    """The source's context in ∅'s place: guidance then cancels on the source's branch."""
    null = task.source
    source, target = (conditions.constant(null, text) for text in (task.source, task.target))
    return of_branches(task, source=source, target=target)


def tuned_beside_target(task: Task, found: Found) -> Condition:
    """c_t on the source's branch, Eq. 9 on the target's."""
    source = conditions.tuned(task.null, found["embeddings"])
    return of_branches(task, source=source, target=tuned_and_target(task, found))


def alone(task: Task) -> list[ControlAt]:
    return []


def shared_attention(task: Task) -> list[ControlAt]:
    """Prompt-to-Prompt, from the source's branch to the target's."""
    if task.branches != SIDE_BY_SIDE:
        return []
    settings, tokenizer = task.settings, task.model.tokenizer
    change = p2p.between(tokenizer, settings.source, task.prompt, settings.align)
    words = word_tokens([word.positions for word in tokenizer.read(task.prompt)])
    steps, cells = len(task.rungs), task.cells_up_to(settings.self_cells)
    control = p2p.prompt_to_prompt(
        change, task.gates, words, steps, settings.self_replace, cells, task.branches
    )
    return [control]


def plain(task: Task) -> Guide:
    """Eq. 5."""
    return ddim.guide


def proximal_guidance(task: Task) -> Guide:
    return proximal.proximal_guide(task.settings.proximal_quantile, task.settings.proximal)


def as_set(task: Task) -> Advance:
    """DDIM's step or the ancestral one, as the settings have it."""
    if task.settings.sampler == "ddim":
        return deterministic
    return ancestral(task.noise(stream=1))


def nothing(task: Task, found: Found) -> tuple[After, ...]:
    return ()


def latent_interpolation(task: Task, found: Found) -> tuple[After, ...]:
    """Eq. 10."""
    return (rules.interpolated(found["trajectory"], task.settings.eta),)


def low_frequencies(task: Task, found: Found) -> tuple[After, ...]:
    return (rules.low_frequencies(found["trajectory"], task.settings.low_pass),)


def noise_maps(task: Task, found: Found) -> tuple[After, ...]:
    return (rules.added(found["residuals"]),)


def offsets_of_the_source(task: Task, found: Found) -> tuple[After, ...]:
    """Direct inversion: only the source's branch is put back on the trajectory."""
    return (rules.added(found["residuals"], rows=[task.branches.index("source")]),)


def pulled_back(task: Task, found: Found) -> tuple[After, ...]:
    return (proximal.pulled_back(found["trajectory"], task.settings.proximal_quantile),)


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    title: str
    trajectory: Trajectory = stages.INVERTED
    extra: Extra | None = None
    branches: Rows = ("target",)
    condition: Callable[[Task, Found], Condition] = target_alone
    control: Callable[[Task], list[ControlAt]] = alone
    guide: Callable[[Task], Guide] = plain
    advance: Callable[[Task], Advance] = as_set
    after: Callable[[Task, Found], tuple[After, ...]] = nothing
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def keeps_residuals(self) -> bool:
        """Whether it leads back exactly where it samples just as it was inverted."""
        return self.extra is stages.NOISE_MAPS

    @property
    def needs_source(self) -> bool:
        """Whether it can do nothing without a text of the picture."""
        return "source" in self.branches

    def settings(self, **given) -> Settings:
        """The method's defaults with the given values; TypeError for an unknown name.

        Raises InputError where it needs a source text or makes something of each step, and has
        none.
        """
        if self.needs_source and not given.get("source"):
            raise InputError("source is missing: the method needs a text of what the picture shows")
        settings = Settings(**{**self.defaults, **given})
        if self.extra and not round(settings.encode_ratio * settings.steps):
            raise InputError(
                f"encode_ratio {settings.encode_ratio} leaves none of the {settings.steps} steps; "
                "raise it"
            )
        return settings


# what the rows have in common that come from Prompt-to-Prompt's side: a pivot for the source text
FROM_SOURCE = dict(
    branches=SIDE_BY_SIDE,
    control=shared_attention,
    defaults={"mask_from": "attention", "encode_ratio": 1.0, "inversion_guidance": 1.0},
)
NULL_TEXT = {"inner_steps": 10, "lr": 0.01, "lr_decay": 0.01, "stop_below": 1e-5}

METHODS = {
    "pti": Method(
        "Prompt Tuning Inversion: tune c_t, then sample with η·c* + (1-η)·c_t, blending locally",
        extra=stages.TUNED,
        condition=tuned_and_target,
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
        after=latent_interpolation,
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
        after=low_frequencies,
        defaults={"encode_ratio": 1.0, "sampler": "ancestral"},
    ),
    "edit-friendly": Method(
        "edit-friendly DDPM inversion: independent noises, solved for the noise maps, then c*",
        trajectory=stages.NOISED_EACH,
        extra=stages.NOISE_MAPS,
        advance=stages.mean_step,
        after=noise_maps,
        defaults={"steps": 100, "encode_ratio": 0.64, "guidance": 15.0, "inversion_guidance": 3.5},
    ),
    "p2p": Method(
        "Prompt-to-Prompt: source and target from one noise, sharing attention; nothing is tuned",
        condition=each_its_text,
        **FROM_SOURCE,
    ),
    "null-text": Method(
        "Null-Text Inversion: tune ∅_t for the source text, then Prompt-to-Prompt",
        extra=stages.NULL_TUNED,
        condition=under_tuned_null,
        **{**FROM_SOURCE, "defaults": FROM_SOURCE["defaults"] | NULL_TEXT},
    ),
    "npi": Method(
        "negative-prompt inversion: the source text in ∅'s place, then Prompt-to-Prompt",
        condition=against_the_source,
        **FROM_SOURCE,
    ),
    "npi-prox": Method(
        "proximal negative-prompt inversion: guidance only where it is strong",
        condition=against_the_source,
        guide=proximal_guidance,
        after=pulled_back,
        **FROM_SOURCE,
    ),
    "direct": Method(
        "Direct (PnP) inversion: what the source's steps miss is added to them; Prompt-to-Prompt",
        extra=stages.OFFSETS,
        condition=each_its_text,
        after=offsets_of_the_source,
        **FROM_SOURCE,
    ),
    "pti-p2p": Method(
        "Prompt Tuning Inversion for the source text, Eq. 9 beside it under Prompt-to-Prompt",
        extra=stages.TUNED,
        condition=tuned_beside_target,
        branches=SIDE_BY_SIDE,
        control=shared_attention,
        defaults={"mask_from": "attention", "init_embedding": "source"},
    ),
}


def find(method: str | Method) -> Method:
    """A row by its name, or the row itself. Raises InputError naming those there are."""
    if isinstance(method, Method):
        return method
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method]
