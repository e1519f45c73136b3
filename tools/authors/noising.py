"""The rows that noise the picture: SDEdit by CompVis' DDIM sampler, and ILVR's filter."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

import ptinv
from ptinv.core import ddim
from ptinv.methods.edit import fresh_noise
from ptinv.methods.table import low_pass

from .stage import PROMPT, STEPS, Stage, difference, modules

KEPT = 7  # steps of STEPS: a strength of 0.7


def decoded(stage: Stage, code, z: Tensor | None) -> Tensor:
    """`decode` from a latent at step KEPT, else from `stochastic_encode`. The latter reads ᾱ one
    step further up than decoding begins, so it is asked for the step before."""
    unet, alphas = stage.parts()["unet"], ddim.alphas_cumprod()
    before = torch.cat([torch.ones(1), alphas[:-1]])
    model = SimpleNamespace(
        num_timesteps=ddim.TRAIN_STEPS,
        device=torch.device("cpu"),
        alphas_cumprod=alphas,
        alphas_cumprod_prev=before,
        betas=1 - alphas / before,
        apply_model=lambda z, t, c: unet(z, t, encoder_hidden_states=c).sample,
    )
    sampler = code.DDIMSampler(model)
    # theirs moves all to a CUDA device
    sampler.register_buffer = lambda name, value: setattr(sampler, name, value)
    sampler.make_schedule(STEPS, verbose=False)
    if z is None:
        noise = fresh_noise(0, 0, tuple(stage.z0.shape))(0)
        z = sampler.stochastic_encode(stage.z0, torch.tensor([KEPT - 1]), noise=noise)
    target, null = stage.model.embed(PROMPT), stage.model.embed("")
    how = dict(unconditional_guidance_scale=7.5, unconditional_conditioning=null)
    return sampler.decode(z, target, KEPT, **how)


def sdedit(stage: Stage, repository: Path) -> float:
    """Noised by Eq. 1, then decoded with the prompt."""
    with modules(repository, "ldm.models.diffusion.ddim") as (code,), torch.no_grad():
        ours = stage.ours("sdedit", encode_ratio=KEPT / STEPS)
        return difference(ours, decoded(stage, code, None))


def ddim_global(stage: Stage, repository: Path) -> float:
    """Decoded with the prompt from this project's inverted latent; the code inverts nothing."""
    how = dict(steps=STEPS, encode_ratio=KEPT / STEPS)
    inversion = ptinv.invert(stage.model, stage.picture, method="ddim-global", **how)
    with modules(repository, "ldm.models.diffusion.ddim") as (code,), torch.no_grad():
        theirs = decoded(stage, code, inversion.trajectory[-1])
        return difference(stage.ours("ddim-global", encode_ratio=KEPT / STEPS), theirs)


def mirrored(z: Tensor) -> Tensor:
    """(b, c, h, w) with its mirror image on every side: three times as high and wide."""
    for side in (2, 3):
        z = torch.cat([z.flip(side), z, z.flip(side)], side)
    return z


def ilvr(stage: Stage, repository: Path) -> float:
    """The filter alone, of the picture's latent; the code sees a mirror at its edges."""
    (h, w), width = stage.z0.shape[2:], 4
    with modules(repository, "resizer") as (code,):
        shape = tuple(stage.z0.shape)
        down = code.Resizer(shape, 1 / width)
        up = code.Resizer((*shape[:2], h // width, w // width), width)
        ours = low_pass(mirrored(stage.z0), width)[..., h : 2 * h, w : 2 * w]
        return difference(ours, up(down(stage.z0)))
