"""The methods as a table.

A method is an inversion, a condition, a control and a rule after each step, over the one walk of
`sampling.py`; `pipeline.py` runs a row. The paper's own method is the first; those below it leave
parts of it out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from .editing.conditions import constant, interpolated
from .errors import InputError
from .inversion.record import Inversion
from .sampling import Condition
from .settings import Settings

MakeCondition = Callable[[Inversion, Tensor, Tensor, float], Condition]  # of ∅, c* and η


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    title: str
    condition: MakeCondition
    tunes: bool = False  # c_t, after the unconditional inversion
    blends: bool = False  # locally, after each step; and re-weights attention
    defaults: dict = field(default_factory=dict)  # where they differ from Settings'

    def settings(self, **given) -> Settings:
        """The method's defaults with the given values; TypeError for an unknown name."""
        return Settings(**{**self.defaults, **given})


def target_alone(inversion: Inversion, null: Tensor, target: Tensor, eta: float) -> Condition:
    return constant(null, target)


def tuned_and_target(inversion: Inversion, null: Tensor, target: Tensor, eta: float) -> Condition:
    return interpolated(null, inversion.embeddings.to(target), target, eta)


METHODS = {
    "pti": Method(
        "Prompt Tuning Inversion: tune c_t, then sample with η·c* + (1-η)·c_t, blending locally",
        tuned_and_target,
        tunes=True,
        blends=True,
    ),
    "ddim-edit": Method(
        "DDIM-Edit: unconditional inversion, then sample with c*, blending locally",
        target_alone,
        blends=True,
    ),
    "ddim-global": Method(
        "DDIM-Global: unconditional inversion, then sample with c*, everywhere",
        target_alone,
    ),
}


def find(method: str) -> Method:
    """A row by its name. Raises InputError naming those there are."""
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method]
