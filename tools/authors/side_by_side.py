"""Prompt-to-Prompt's rows against cure-lab/PnPInversion, which carries the code of all of them.

Its `models/p2p` has Prompt-to-Prompt's controllers, and the inversions that lead the source back.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .stage import PROMPT, SOURCE, STEPS, Stage, attend_with, difference, modules

HOW = dict(num_inference_steps=STEPS, guidance_scale=7.5)
PAIRED: dict[str, Any] = dict(align="refine")  # the model has no map above 16², where codes part
QUANTILE = 0.75  # of both branches


@contextmanager
def code(repository: Path, stage: Stage) -> Iterator[SimpleNamespace]:
    """The modules by name, with a fresh pipeline and the controller that refines."""
    names = "attention_control", "inversion", "p2p_guidance_forward", "proximal_guidance_forward"
    with modules(repository, *(f"models.p2p.{name}" for name in names)) as found:
        for module in found:
            module.register_attention_control = attend_with
            # theirs is for latents of 64² cells
            module.init_latent = lambda z, *rest: (z, z.expand(rest[-1], -1, -1, -1))
        it = SimpleNamespace(**dict(zip(names, found, strict=True)), pipe=stage.pipe())
        refine, texts = it.attention_control.AttentionRefine, [SOURCE, PROMPT]
        it.controller = refine(texts, STEPS, 0.8, 0.4, tokenizer=it.pipe.tokenizer, device="cpu")
        yield it


def inverted(it: SimpleNamespace, stage: Stage, name: str, text: Any) -> tuple[Any, list[Tensor]]:
    """One of the inversions of the code, and its trajectory."""
    inversion = getattr(it.inversion, name)(it.pipe, STEPS)
    inversion.init_prompt(text)
    return inversion, inversion.ddim_loop(stage.z0)


def sampled(it: SimpleNamespace, z: Tensor, nulls: list[Tensor] | None) -> Tensor:
    """The target's z_0 of `p2p_guidance_forward`."""
    forward = it.p2p_guidance_forward.p2p_guidance_forward
    how = dict(HOW, latent=z, uncond_embeddings=nulls)
    return forward(it.pipe, [SOURCE, PROMPT], it.controller, **how)[0][1:]


def p2p(stage: Stage, repository: Path) -> float:
    """Both noised by one inversion, and nothing tuned."""
    with code(repository, stage) as it:
        _, trajectory = inverted(it, stage, "NullInversion", SOURCE)
        return difference(stage.ours("p2p", **PAIRED), sampled(it, trajectory[-1], None))


def null_text(stage: Stage, repository: Path) -> float:
    """∅_t tuned by `null_optimization`, with its early stop."""
    with code(repository, stage) as it:
        inversion, trajectory = inverted(it, stage, "NullInversion", SOURCE)
        nulls = inversion.null_optimization(trajectory, 10, 1e-5, 7.5)
        ours = stage.ours("null-text", **PAIRED)
        return difference(ours, sampled(it, trajectory[-1], nulls))


def npi(stage: Stage, repository: Path) -> float:
    """The source text in ∅'s place."""
    with code(repository, stage) as it:
        inversion, trajectory = inverted(it, stage, "NegativePromptInversion", SOURCE)
        nulls = [inversion.context[1:]] * STEPS
        return difference(stage.ours("npi", **PAIRED), sampled(it, trajectory[-1], nulls))


def direct(stage: Stage, repository: Path) -> float:
    """The offsets of `offset_calculate`, added to the source."""
    with code(repository, stage) as it:
        inversion, trajectory = inverted(it, stage, "DirectInversion", [SOURCE, PROMPT])
        offsets = inversion.offset_calculate(trajectory, 0, 0.0, 7.5)
        forward = it.p2p_guidance_forward.direct_inversion_p2p_guidance_forward
        how = dict(HOW, latent=trajectory[-1], noise_loss_list=offsets)
        theirs = forward(it.pipe, [SOURCE, PROMPT], it.controller, **how)[0][1:]
        return difference(stage.ours("direct", **PAIRED), theirs)


def npi_prox(norm: str) -> Callable[[Stage, Path], float]:
    """The proximal step by one of the code's two operators: guidance, and the numbers of the latent
    that it gives back to the trajectory."""

    def differ(stage: Stage, repository: Path) -> float:
        with code(repository, stage) as it, torch.no_grad():
            inversion, trajectory = inverted(it, stage, "NegativePromptInversion", SOURCE)
            both = [SOURCE, PROMPT]
            context = torch.cat([inversion.context[1:].expand(2, -1, -1), stage.model.embed(both)])
            attend_with(it.pipe, it.controller)
            it.pipe.scheduler = Plain(it.pipe.scheduler)
            z = trajectory[-1].expand(2, -1, -1, -1)
            step = it.proximal_guidance_forward.proximal_guidance_diffusion_step
            how: dict[str, Any] = dict(prox=norm, quantile=QUANTILE, dilate_mask=1, recon_lr=1.0)
            how |= dict(inversion_guidance=True, x_stars=trajectory)
            for i, t in enumerate(it.pipe.scheduler.timesteps):
                z = step(it.pipe, it.controller, z, context, t, 7.5, i=i, **how)
            ours = dict(proximal=f"code-{norm}", proximal_quantile=QUANTILE)
            return difference(stage.ours("npi-prox", **ours, **PAIRED), z[1:])

    return differ


class Plain:
    """A scheduler whose `step` takes, and leaves unused, what the code's own one reads of pulling
    to a reference: there is none here."""

    def __init__(self, scheduler: Any):
        self.scheduler, self.timesteps = scheduler, scheduler.timesteps

    def step(self, eps: Tensor, t: Tensor, z: Tensor, **_: Any) -> Any:
        return self.scheduler.step(eps, t, z)
