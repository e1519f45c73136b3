"""The rows of one branch: edit-friendly inversion, Prompt Tuning Inversion and DiffEdit's mask."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import ptinv
from ptinv.core import ddim, sampling
from ptinv.errors import InputError
from ptinv.methods.edit import fresh_noise

from .stage import PROMPT, SOURCE, STEPS, Stage, difference, modules

OMEGA = 3.5  # the noise maps' own; at ω = 15 float32's rounding grows to 6e-4
TUNED: dict[str, Any] = dict(inner_steps=10, lr=0.005)


def edit_friendly(stage: Stage, repository: Path) -> float:
    """The noise maps solved for and sampled with, from the same noised latents."""
    row = replace(
        ptinv.METHODS["edit-friendly"],  # the code zeroes the last map
        after=lambda e, step: step.z if step.k == 1 else step.z + e.residuals[step.k - 1],
    )
    how = dict(steps=STEPS, encode_ratio=1.0, source=SOURCE)
    latents = ptinv.invert(stage.model, stage.picture, PROMPT, row, **how).trajectory
    with modules(repository, "ddm_inversion.inversion_utils") as (code,):
        code.sample_xts_from_x0 = lambda *_, **__: latents[:, 0].clone()
        pipe = stage.pipe()
        how = dict(etas=1, prompt=SOURCE, cfg_scale=OMEGA, num_inference_steps=STEPS)
        _, maps, _ = code.inversion_forward_process(pipe, stage.z0, **how)
        how = dict(etas=1, prompts=[PROMPT], cfg_scales=[OMEGA], zs=maps)
        theirs, _ = code.inversion_reverse_process(pipe, latents[-1], **how)
        return difference(stage.ours(row, guidance=OMEGA), theirs)


def pti(stage: Stage, repository: Path) -> float:
    """c_t tuned for the source text. What the code keeps of all steps is one tensor, the last
    step's, as Adam goes on in its memory; so each is taken where the code's own walk uses it."""
    used: list[Tensor] = []

    def watch(unet, arguments, keywords):
        texts = keywords["encoder_hidden_states"]
        if len(texts) == 2:  # the guided step after a timestep's tuning
            used.append(texts[1:].detach().clone())

    parts = stage.parts()
    parts["unet"].register_forward_pre_hook(watch, with_kwargs=True)
    with modules(repository, "inversions.unet_based.pti.pipeline_sd") as (code,):
        scheduler = code.CustomInversionScheduler.__subclasses__()[0]
        parts["scheduler"] = scheduler.from_config(parts["scheduler"].config)
        code.image2latents = lambda *_: stage.z0
        rest = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        how = dict(lr=TUNED["lr"], num_optim_steps=TUNED["inner_steps"], guidance_scale=7.5)
        pipe = code.SDInversionPipeline(**parts, **rest)
        noise = pipe.inverse(stage.picture, prompt=SOURCE, num_inference_steps=STEPS, **how).zT
    null, down = stage.model.embed(""), ddim.schedule(STEPS)[::-1]
    walk = sampling.sample(stage.model, noise, down, lambda k: (null, used[STEPS - k]))
    how = dict(TUNED, lr_decay=0.01, init_embedding="source", inversion_guidance=1.0, eta=0.0)
    with torch.no_grad():
        return difference(stage.ours("pti", **how), sampling.last(walk, noise))


def diffedit(stage: Stage, _: Path) -> float:
    """The mask of `generate_mask` from the same noises: 1 if any cell differs, 0 if none does. It
    is guided there, which multiplies all differences alike."""
    parts = stage.parts()
    from diffusers import StableDiffusionDiffEditPipeline

    code = sys.modules[StableDiffusionDiffEditPipeline.__module__]  # older ones have it elsewhere
    noise = fresh_noise(0, 2, tuple(stage.z0.shape))
    with patch.object(code, "randn_tensor", lambda *_, **__: torch.cat([*map(noise, range(10))])):
        rest = dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
        pipe = StableDiffusionDiffEditPipeline(**parts, **rest, inverse_scheduler=None)
        how = dict(num_inference_steps=STEPS, output_type="np")
        theirs = pipe.generate_mask(stage.z0, PROMPT, source_prompt=SOURCE, **how)
    return difference(mask_of(stage, "diffedit"), torch.from_numpy(np.asarray(theirs)).float())


def diffedit_port(stage: Stage, repository: Path) -> float:
    """The mask of the notebook's `get_mask`: its cell is run with this project's timesteps, whose
    offset is one where the notebook's is zero."""
    if not (path := repository / "diffedit.ipynb").is_file():
        raise InputError(f"{repository} has no diffedit.ipynb; clone it anew")
    cells = ("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
    unet, scheduler = (stage.parts()[name] for name in ("unet", "scheduler"))
    names: dict[str, Any] = {"torch": torch, "DDIMScheduler": lambda **_: scheduler}
    exec(next(cell for cell in cells if "def get_mask" in cell), names)
    model = SimpleNamespace(
        device=torch.device("cpu"),
        num_timesteps=ddim.TRAIN_STEPS,
        betas=scheduler.betas,
        apply_model=lambda z, t, c: unet(z, t, encoder_hidden_states=c).sample,
    )
    texts, noise = map(stage.model.embed, (SOURCE, PROMPT)), fresh_noise(0, 2, stage.z0.shape)(0)
    with patch.object(torch, "randn", lambda *_, **__: noise), torch.no_grad():
        theirs = names["get_mask"](model, *texts, stage.z0, 3, STEPS)
    return difference(mask_of(stage, "diffedit-port")[0], theirs)


def mask_of(stage: Stage, method: str) -> Tensor:
    """This project's mask (1, h, w); the walk, of one step, makes no difference to it."""
    how = dict(steps=STEPS, encode_ratio=0.1, source=SOURCE)
    return ptinv.result(stage.model, stage.picture, PROMPT, method, **how).mask[0]
