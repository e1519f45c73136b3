"""The methods as a table: every one samples along the same trajectory, with a few choices.

    trajectory         the stage that makes z*_0 … z*_T'
    extra              the stage that makes something else of it beforehand: c_t, ∅_t, residuals
    condition          the two embeddings of each step, for the target prompt's branch
    source_condition   the same for the source text's branch, where a method samples it beside
    control            the attention that two branches share       (prompt_to_prompt.py)
    guide              the two predictions as one                  (ddim.py, and below)
    advance            the step itself                             (sampling.py)
    after              the latent that a step ends in: Eq. 10, ILVR, residuals; the mask is next
    reads              the settings that its cells read, besides those that all methods share
    defaults           of the settings, where they are not the paper's for PTI, `Settings()`
    strengths          further defaults, by what is new to the picture: a modifier, a thing, a place

Methods with a source_condition need a text of the picture: the source's branch returns to the
picture, and the target's shares its attention. A method needs no name:
`edit(…, method=replace(METHODS["pti"], after=…))` runs any combination.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core import ddim, sampling
from ..core.pti import interpolate
from ..core.sampling import Branches, Step, ancestral, constant, deterministic
from ..errors import InputError
from ..settings import AUTO, DEFAULTS, Settings
from . import stages
from .controls import SIDE_BY_SIDE
from .edit import Edit
from .prompt_to_prompt import shared_attention
from .proximal import proximal, pull_back
from .stages import Stage


def sampler(e: Edit) -> sampling.Advance:
    """DDIM's step or the ancestral one, as the settings have it."""
    return deterministic if e.settings.sampler == "ddim" else ancestral(e.noise(stream=1))


PAIRED = ("cross_replace", "self_replace", "self_cells", "align")  # of `shared_attention`
# settings that only some methods use; the walk's, and where the edit shows, are for all
OF_SOME = {"inversion_guidance", *stages.TUNING, "init_embedding", "negative", "sampler", *PAIRED}
OF_SOME |= {"eta", "low_pass", "proximal", "proximal_quantile"}
MISSING = "source is missing: the method needs a text of what the picture shows"


@dataclass(frozen=True, eq=False, repr=False)
class Method:
    """One row of the table, without its name."""

    title: str
    trajectory: Stage = stages.INVERTED
    extra: Stage | None = None
    condition: Callable[[Edit], sampling.Condition] = lambda e: constant(e.null, e.target)
    source_condition: Callable[[Edit], sampling.Condition] | None = None
    control: Callable[[Edit], list[sampling.ControlAt]] = shared_attention
    guide: Callable[[Edit], sampling.Guide] = lambda e: ddim.guide
    advance: Callable[[Edit], sampling.Advance] = sampler
    after: Callable[[Edit, Step], Tensor] = lambda e, step: step.z
    reads: tuple[str, ...] = ("negative",)  # by ∅ of the usual condition
    defaults: dict[str, Any] = field(default_factory=dict)
    strengths: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def branches(self) -> Branches:
        """Branches that are sampled side by side; the last one is the result."""
        return SIDE_BY_SIDE if self.needs_source else ("target",)

    @property
    def stages(self) -> list[str | None]:
        """The titles of its stages: what a stored inversion has to be made by to serve it."""
        return [self.trajectory.title, self.extra.title if self.extra else None]

    @property
    def needs_source(self) -> bool:
        """True if it can do nothing without a text of the picture."""
        return self.source_condition is not None

    @property
    def ignored(self) -> set[str]:
        """The names of the settings that change nothing."""
        extra = self.extra.uses if self.extra else ()
        step = ("sampler",) if self.advance is sampler else ()
        paired = PAIRED if self.needs_source else ()
        return OF_SOME.difference(self.trajectory.uses, extra, self.reads, step, paired)

    def own(self, name: str) -> Any:
        """A setting's default, as it is for this method."""
        return self.defaults.get(name, DEFAULTS[name])

    def __repr__(self) -> str:
        return f"Method({self.title!r})"

    def settings(self, **given) -> Settings:
        """The method's defaults with the given values. Raises InputError where a needed source text
        is missing, no step is left, or the extra is made of other steps than are sampled."""
        given = self.defaults | given
        if self.needs_source and not (given.get("source") or "").strip():
            raise InputError(MISSING)
        settings = Settings(**given)
        if self.extra and self.advance is sampler and settings.sampler != "ddim":
            raise InputError(f"sampler must be ddim here: {self.extra.title} is for DDIM's steps")
        if not ddim.schedule(settings.steps, settings.encode_ratio):
            none = f"encode_ratio {settings.encode_ratio} leaves none of the {settings.steps} steps"
            raise InputError(f"{none}; raise it")
        return settings


def low_pass(z: Tensor, width: int) -> Tensor:
    """The φ of ILVR (Choi et al., arXiv 2108.02938): (b, c, h, w) brought down by `width` and up
    again, bicubic and antialiased. It is linear: z - φ(z) + φ(y), its eq. 8, is z + φ(y - z)."""
    height, breadth = (max(1, round(side / width)) for side in z.shape[-2:])
    small = F.interpolate(z, size=(height, breadth), mode="bicubic", antialias=True)
    return F.interpolate(small, size=z.shape[-2:], mode="bicubic", antialias=True)


EVERYWHERE = {"mask_from": None}
DIFFEDIT = {"mask_from": "difference", "mask_threshold": 0.5}
PIVOT = {"encode_ratio": 1.0, "inversion_guidance": 1.0, "source": AUTO}

READ_OFF = Method(
    "PTI's walk with c_t = ∅: source text, mask and strength read off picture and prompt",
    condition=lambda e: constant(e.null, torch.lerp(e.null, e.target, e.settings.eta)),
    reads=("negative", "eta"),
    defaults=DIFFEDIT | {"source": AUTO, "steps": 20, "guidance": 5.5},
    strengths={
        "modifier": {"encode_ratio": 0.8},
        "thing": {"encode_ratio": 1.0, "mask_threshold": 0.35},
        "place": {"encode_ratio": 1.0, "guidance": 7.5, "eta": 1.0, "mask": None},
    },
)
NEGATIVE = Method(
    "negative-prompt inversion: the source text in ∅'s place, then Prompt-to-Prompt",
    condition=lambda e: constant(e.source, e.target),
    source_condition=lambda e: constant(e.source, e.source),  # guidance cancels here
    reads=(),
    defaults=PIVOT,
)

METHODS = {
    "pti": Method(
        "Prompt Tuning Inversion: tune c_t, then sample with η·c* + (1-η)·c_t, blending locally",
        extra=stages.TUNED,
        condition=lambda e: interpolate(e.null, e.tuned, e.target, e.settings.eta),
        reads=("eta",),
    ),
    "auto": READ_OFF,
    "fast": replace(
        READ_OFF,
        title="auto in fewer steps, with fewer noises for its mask",
        defaults=READ_OFF.defaults | {"steps": 10, "mask_draws": 4},
        strengths=READ_OFF.strengths | {"place": READ_OFF.strengths["place"] | {"steps": 15}},
    ),
    "ddim-edit": Method(
        "DDIM-Edit: unconditional inversion, then sample with c*, blending locally"
    ),
    "ddim-global": Method(
        "DDIM-Global: unconditional inversion, then sample with c*, everywhere", defaults=EVERYWHERE
    ),
    "diffedit": Method(
        "DiffEdit: as DDIM-Global, masked where the noise predicted for two texts differs",
        defaults=DIFFEDIT,
    ),
    "diffedit-port": Method(
        "DiffEdit with its mask as in the port that PTI's paper ran: the noises are one noise",
        defaults=DIFFEDIT | {"mask_draws": 1},  # its DPM-Solver and guided encoding are not here
    ),
    "latent": Method(
        "latent interpolation (Eq. 10): as DDIM-Global, each latent mixed with the inverted one",
        after=lambda e, step: torch.lerp(e.pivot(step), step.z, e.settings.eta),
        reads=("negative", "eta"),
        defaults=EVERYWHERE,
    ),
    "noising": Method(
        "naive noising: forget the picture by Eq. 1, then sample without a prompt",
        trajectory=stages.NOISED_ONCE,
        defaults=EVERYWHERE | {"guidance": 0.0},
    ),
    "sdedit": Method(
        "SDEdit: noise the picture, then sample with c*; the encode ratio is its strength",
        trajectory=stages.NOISED_ONCE,
        defaults=EVERYWHERE | {"encode_ratio": 0.75},
    ),
    "ilvr": Method(
        "ILVR: sample with c*, low frequencies taken from the noised picture after each step",
        trajectory=stages.NOISED_EACH,
        after=lambda e, step: step.z + low_pass(e.pivot(step) - step.z, e.settings.low_pass),
        reads=("negative", "low_pass"),
        defaults=EVERYWHERE | {"encode_ratio": 1.0, "sampler": "ancestral"},
    ),
    "edit-friendly": Method(
        "edit-friendly DDPM inversion: independent noises, solved for the noise maps, then c*",
        trajectory=stages.NOISED_EACH,
        extra=stages.NOISE_MAPS,
        advance=lambda e: stages.mean_step,
        after=lambda e, step: step.z + e.residuals[step.k - 1],
        defaults=EVERYWHERE
        | {"steps": 100, "encode_ratio": 0.64, "guidance": 15.0, "inversion_guidance": 3.5},
    ),
    "p2p": Method(
        "Prompt-to-Prompt: source and target from one noise, sharing attention; nothing is tuned",
        source_condition=lambda e: constant(e.null, e.source),
        defaults=PIVOT,
    ),
    "null-text": Method(
        "Null-Text Inversion: tune ∅_t for the source text, then Prompt-to-Prompt",
        extra=stages.NULL_TUNED,
        condition=lambda e: lambda k: (e.tuned[k - 1], e.target),
        source_condition=lambda e: lambda k: (e.tuned[k - 1], e.source),
        defaults=PIVOT | {"inner_steps": 10, "lr": 0.01, "lr_decay": 0.01, "stop_below": 1e-5},
    ),
    "npi": NEGATIVE,
    "npi-prox": replace(
        NEGATIVE,
        title="proximal negative-prompt inversion: guidance only where it is strong",
        guide=lambda e: lambda null, cond, w: null + w * proximal(cond - null, e.settings),
        after=pull_back,
        reads=("proximal", "proximal_quantile"),
    ),
    "direct": Method(
        "Direct (PnP) inversion: what the source's steps miss is added to them; Prompt-to-Prompt",
        extra=stages.OFFSETS,
        source_condition=lambda e: constant(e.null, e.source),
        # on the source's branch, the first of two
        after=lambda e, step: torch.cat([step.z[:1] + e.residuals[step.k - 1], step.z[1:]]),
        defaults=PIVOT,
    ),
    "pti-p2p": Method(
        "Prompt Tuning Inversion for the source text, Eq. 9 beside it under Prompt-to-Prompt",
        extra=stages.TUNED,
        condition=lambda e: interpolate(e.null, e.tuned, e.target, e.settings.eta),
        source_condition=lambda e: interpolate(e.null, e.tuned, e.target, 0.0),  # c_t alone
        reads=("eta",),
        defaults={"init_embedding": "source", "source": AUTO},
    ),
}


def find(method: str | Method, methods: dict[str, Method] = METHODS) -> Method:
    """A method by its name, or the method itself. Raises InputError naming those there are."""
    if isinstance(method, Method):
        return method
    if method not in methods:
        raise InputError(f"there is no method {method!r}; there are {', '.join(methods)}")
    return methods[method]


def name_of(method: Method, methods: dict[str, Method] = METHODS) -> str | None:
    """The name that a method has in the table; None for one of the caller's own."""
    return next((name for name, known in methods.items() if known is method), None)
