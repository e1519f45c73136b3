"""The methods as a table: every one is the same walk down a trajectory, with a few choices.

    trajectory   where z*_0 … z*_T' comes from          (stages.py)
    extra        what else is made from it beforehand    (stages.py)
    condition    the contexts of each step               (editing/conditions.py)
    advance      the step itself                         (sampling.py)
    after        what holds the walk to the picture      (editing/rules.py)
    defaults     of the settings, where they are not the paper's for PTI; masks among them

A row needs no name: `edit(…, method=replace(METHODS["pti"], after=…))` runs any combination.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import stages
from .editing import conditions, rules
from .errors import InputError
from .sampling import Advance, After, Condition, ancestral, deterministic
from .settings import Settings
from .stages import Extra, Trajectory
from .task import Task

Found = dict[str, Tensor]  # an inversion's tensors by name, on the model's device


def target_alone(task: Task, found: Found) -> Condition:
    """c* at every step."""
    return conditions.constant(task.null, task.target)


def tuned_and_target(task: Task, found: Found) -> Condition:
    """Eq. 9."""
    return conditions.interpolated(task.null, found["embeddings"], task.target, task.settings.eta)


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


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    title: str
    trajectory: Trajectory = stages.INVERTED
    extra: Extra | None = None
    condition: Callable[[Task, Found], Condition] = target_alone
    advance: Callable[[Task], Advance] = as_set
    after: Callable[[Task, Found], tuple[After, ...]] = nothing
    defaults: dict[str, Any] = field(default_factory=dict)

    @property
    def keeps_residuals(self) -> bool:
        """Whether it leads back exactly where it samples just as it was inverted."""
        return self.extra is stages.NOISE_MAPS

    def settings(self, **given) -> Settings:
        """The method's defaults with the given values; TypeError for an unknown name.

        Raises InputError where a method that makes something of each step has none.
        """
        settings = Settings(**{**self.defaults, **given})
        if self.extra and not round(settings.encode_ratio * settings.steps):
            raise InputError(
                f"encode_ratio {settings.encode_ratio} leaves none of the {settings.steps} steps; "
                "raise it"
            )
        return settings


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
