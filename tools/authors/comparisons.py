"""The comparisons: each method's own code beside ours, with the settings of both made equal.

Each takes a `Setting` and returns our tensor and theirs, as a rule the final latent. What of their
code cannot run as it is, is given by `facade.py`; the maths that is compared is theirs.
"""

import importlib
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

import ptinv
from ptinv.methods.edit import fresh_noise
from ptinv.methods.table import low_pass
from ptinv.storage.checkpoint import EMBEDDED

from .facade import Model, schedule_of

PNP, EDIT_FRIENDLY = "cure-lab/PnPInversion", "inbarhub/DDPM_inversion"
INSTALLED = "huggingface/diffusers"  # by the extra `peers`
ILVR, PORT = "jychoi118/ilvr_adm", "wmchen/diffusion-inversion"
STEPS, SIDE = 10, 128  # pixels of the picture
GATES = dict(cross_replace=0.4, self_replace=0.6, self_cells=32)  # PnPInversion's
ROUNDED = "shares of the steps that are whole, since it cuts off"
REFINED = "align=refine, as it was called"
OFFSET = "steps_offset 1 on its side"


class Setting(NamedTuple):
    """What both sides work on."""

    model: ptinv.StableDiffusion
    folder: Path
    picture: Any
    source: str
    target: str

    def theirs(self, scheduler: Any = None) -> Model:
        """The model in their shape. scheduler: a class, by default diffusers'."""
        if scheduler is None:
            scheduler = importlib.import_module("diffusers").DDIMScheduler
        return Model(self.model, schedule_of(scheduler), STEPS, SIDE // 4)

    @property
    def z0(self) -> Tensor:
        """The picture's latent."""
        return self.model.encode(self.picture)

    def ours(self, method: str | ptinv.Method, **options: Any) -> Tensor:
        """The final latent of an edit, everywhere and without a mask."""
        given = dict(steps=STEPS, mask=None, source=self.source) | options
        return ptinv.result(self.model, self.picture, self.target, method, **given).latent


class Row(NamedTuple):
    """A comparison: what with, how, and which decisions were taken back."""

    repository: str
    where: str  # the file and function
    run: Callable[[Setting], tuple[Tensor, Tensor]]  # -> ours, theirs
    taken_back: str


def module(s: Setting, repository: str, name: str) -> types.ModuleType:
    """A module of a repository, imported from its clone."""
    root = str(s.folder / repository.partition("/")[2])
    if root not in sys.path:
        sys.path.insert(0, root)
    return importlib.import_module(name)


def prompt_to_prompt(s: Setting, inner_steps: int) -> Tensor:
    """PnPInversion's Null-Text Inversion (without iterations: plain DDIM) and its Prompt-to-Prompt:
    the target's final latent."""
    inversion = module(s, PNP, "models.p2p.inversion")
    forward = module(s, PNP, "models.p2p.p2p_guidance_forward")
    theirs = s.theirs()
    register(inversion, forward)
    null = inversion.NullInversion(model=theirs, num_ddim_steps=STEPS)
    _, _, latents, texts = null.invert(s.z0, s.source, 7.5, num_inner_steps=inner_steps)
    controller = controller_of(s, theirs)
    found, _ = forward.p2p_guidance_forward(
        theirs, [s.source, s.target], controller, STEPS, 7.5, latent=latents[-1],
        uncond_embeddings=texts,
    )  # fmt: skip
    return found[-1:]


def register(*modules: types.ModuleType) -> None:
    """Their hook looks for diffusers' modules of 2022, and their latents are 64 × 64; the facade
    has its own of both."""
    for one in modules:
        one.register_attention_control = lambda model, controller: model.register(controller)
        one.init_latent = lambda z, model, h, w, g, rows: (z, z.expand(rows, -1, -1, -1))


def controller_of(s: Setting, theirs: Model) -> Any:
    """Their Prompt-to-Prompt controller, which refines."""
    control = module(s, PNP, "models.p2p.attention_control")
    return control.AttentionRefine(
        [s.source, s.target], STEPS, {"default_": GATES["cross_replace"]}, GATES["self_replace"],
        tokenizer=theirs.tokenizer, device="cpu",
    )  # fmt: skip


def p2p(s: Setting) -> tuple[Tensor, Tensor]:
    return s.ours("p2p", align="refine", **GATES), prompt_to_prompt(s, 0)


def null_text(s: Setting) -> tuple[Tensor, Tensor]:
    return s.ours("null-text", align="refine", **GATES), prompt_to_prompt(s, 10)


def direct(s: Setting) -> tuple[Tensor, Tensor]:
    inversion = module(s, PNP, "models.p2p.inversion")
    forward = module(s, PNP, "models.p2p.p2p_guidance_forward")
    theirs, prompts = s.theirs(), [s.source, s.target]
    register(inversion, forward)
    found = inversion.DirectInversion(model=theirs, num_ddim_steps=STEPS)
    _, _, latents, offsets = found.invert(s.z0, prompts, 7.5)
    controller = controller_of(s, theirs)
    edited, _ = forward.direct_inversion_p2p_guidance_forward(
        theirs, prompts, controller, latents[-1], STEPS, 7.5, noise_loss_list=offsets
    )
    return s.ours("direct", align="refine", **GATES), edited[-1:]


def negative_prompt(s: Setting, **proximal: Any) -> Tensor:
    """PnPInversion's negative-prompt inversion, with or without proximal guidance."""
    inversion = module(s, PNP, "models.p2p.inversion")
    forward = module(s, PNP, "models.p2p.proximal_guidance_forward")
    theirs = s.theirs(module(s, PNP, "models.p2p.scheduler_dev").DDIMSchedulerDev)
    register(inversion, forward)
    found = inversion.NegativePromptInversion(model=theirs, num_ddim_steps=STEPS)
    _, _, latents, texts = found.invert(s.z0, s.source)
    controller = controller_of(s, theirs)
    edited, _ = forward.proximal_guidance_forward(
        theirs, [s.source, s.target], controller, 7.5, latent=latents[-1], uncond_embeddings=texts,
        recon_t=400, recon_lr=1.0, x_stars=latents, **proximal,
    )  # fmt: skip
    return edited[-1:]


def npi(s: Setting) -> tuple[Tensor, Tensor]:
    return s.ours("npi", align="refine", **GATES), negative_prompt(s)


def npi_prox(norm: str) -> Callable[[Setting], tuple[Tensor, Tensor]]:
    """Proximal guidance by an operator of the code."""

    def run(s: Setting) -> tuple[Tensor, Tensor]:
        how = dict(proximal=f"code-{norm}", proximal_quantile=0.75, align="refine")
        theirs = dict(prox=norm, quantile=0.75, inversion_guidance=True, dilate_mask=1)
        return s.ours("npi-prox", **how, **GATES), negative_prompt(s, **theirs)

    return run


def edit_friendly(s: Setting) -> tuple[Tensor, Tensor]:
    """Their noise is drawn by PyTorch's global generator; both sides are given ours."""
    code = module(s, EDIT_FRIENDLY, "ddm_inversion.inversion_utils")
    theirs = s.theirs()
    theirs.scheduler.alphas = 1 - theirs.scheduler.betas
    options = dict(steps=STEPS, encode_ratio=0.6, guidance=7.5, source=s.source)
    inversion = ptinv.invert(s.model, s.picture, s.target, "edit-friendly", **options)
    whole = ptinv.invert(s.model, s.picture, s.target, "edit-friendly",
                         **options | {"encode_ratio": 1.0})  # fmt: skip
    code.sample_xts_from_x0 = lambda *_, **__: whole.trajectory[:, 0].clone()
    _, maps, latents = code.inversion_forward_process(
        theirs, s.z0, etas=1, prompt=s.source, cfg_scale=3.5, num_inference_steps=STEPS
    )
    kept = len(inversion.schedule)
    edited, _ = code.inversion_reverse_process(
        theirs, latents[kept][None], etas=1, prompts=[s.target], cfg_scales=[7.5], zs=maps[:kept]
    )

    def after(e: Any, step: ptinv.Step) -> Tensor:  # without the last noise map
        return step.z + e.residuals[step.k - 1] * (step.k > 1)

    method = replace(ptinv.METHODS["edit-friendly"], after=after)
    return s.ours(method, encode_ratio=0.6, guidance=7.5), edited


def pti_port(s: Setting) -> tuple[Tensor, Tensor]:
    """The one public port of PTI's tuning: inverted at ω = 1 for the source text, from which it
    starts; ten iterations at 0.005 that fall by a hundredth a step."""
    sys.modules.setdefault("mlcbase", types.SimpleNamespace(EmojiProgressBar=Silent))
    parts = "inversions.unet_based.pti"
    code = module(s, PORT, f"{parts}.pipeline_sd")
    scheduler = module(s, PORT, f"{parts}.scheduler").CustomDDIMInversionScheduler
    theirs = s.theirs(scheduler)
    code.image2latents = lambda pipe, image: s.z0
    embed = s.model.embed
    given = dict(
        scheduler=theirs.scheduler, unet=theirs.unet, vae_scale_factor=4, _execution_device="cpu",
        check_inputs=lambda *_: None, encode_prompt=lambda *_, **__: (embed(s.source), embed("")),
        cross_attention_kwargs=None, do_classifier_free_guidance=True, clip_skip=None,
        guidance_scale=7.5, maybe_free_model_hooks=lambda: None,
    )  # fmt: skip
    pipe = types.SimpleNamespace(**given)
    theirs.scheduler.scale_model_input = lambda z, t: z
    found = code.SDInversionPipeline.inverse(
        pipe, s.picture, prompt=s.source, num_inference_steps=STEPS, guidance_scale=7.5
    )
    how = dict(init_embedding="source", inversion_guidance=1.0, encode_ratio=1.0, inner_steps=10,
               lr=0.005, lr_decay=0.01, steps=STEPS, source=s.source)  # fmt: skip
    ours = ptinv.invert(s.model, s.picture, s.target, "pti", **how)
    return ours.embeddings[:, 0], torch.cat(found.cond_embeds[::-1])


class Silent:
    """A progress bar that shows nothing."""

    def __init__(self, *_: Any, **__: Any):
        self.update = self.set_postfix = lambda *_, **__: None

    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *_: Any) -> None:
        pass


def diffedit(s: Setting) -> tuple[Tensor, Tensor]:
    """The mask: ten noises, which are ours, on diffusers' own networks with the same weights."""
    from diffusers import StableDiffusionDiffEditPipeline

    code = sys.modules[StableDiffusionDiffEditPipeline.__module__]
    pipe = StableDiffusionDiffEditPipeline.from_pretrained(
        EMBEDDED, inverse_scheduler=None, safety_checker=None, feature_extractor=None,
        requires_safety_checker=False, local_files_only=True, torch_dtype=torch.float32,
    )  # fmt: skip
    noise = fresh_noise(0, 2, tuple(s.z0.shape))
    code.randn_tensor = lambda shape, **_: torch.cat([noise(i) for i in range(shape[0])])
    pipe.prepare_image_latents = lambda image, batch, *_: s.z0.expand(batch, -1, -1, -1)
    mask = pipe.generate_mask(s.picture, target_prompt=s.target, source_prompt=s.source)
    ours = ptinv.result(s.model, s.picture, s.target, "diffedit", source=s.source).mask
    return ours[0], torch.from_numpy(mask)


def ilvr(s: Setting) -> tuple[Tensor, Tensor]:
    """The filter, down by 4 and up again, where no edge is near: theirs mirrors what is beyond."""
    resizer, width, edge = module(s, ILVR, "resizer").Resizer, 4, 24
    z = s.z0.repeat(1, 1, 4, 4)
    small = [*z.shape[:2], *(side // width for side in z.shape[2:])]
    theirs = resizer(small, width)(resizer(z.shape, 1 / width)(z))
    return tuple(x[..., edge:-edge, edge:-edge] for x in (low_pass(z, width), theirs))


ROWS = {
    "p2p": Row(PNP, "models/p2p: NullInversion without iterations, AttentionRefine", p2p,
               f"{REFINED}; {ROUNDED}; {OFFSET}"),
    "null-text": Row(PNP, "models/p2p: NullInversion, AttentionRefine", null_text,
                     f"{REFINED}; {ROUNDED}; {OFFSET}"),
    "npi": Row(PNP, "models/p2p: NegativePromptInversion", npi, f"{REFINED}; {ROUNDED}; {OFFSET}"),
    "npi-prox, l0": Row(PNP, "models/p2p/proximal_guidance_forward.py", npi_prox("l0"),
                        f"proximal=code-l0, for the paper's operator; {REFINED}; {ROUNDED}"),
    "npi-prox, l1": Row(PNP, "models/p2p/proximal_guidance_forward.py", npi_prox("l1"),
                        f"proximal=code-l1; {REFINED}; {ROUNDED}"),
    "direct": Row(PNP, "models/p2p: DirectInversion", direct, f"{REFINED}; {ROUNDED}; {OFFSET}"),
    "edit-friendly": Row(EDIT_FRIENDLY, "ddm_inversion/inversion_utils.py", edit_friendly,
                         f"the last noise map, which the code sets to 0; the noise; {OFFSET}"),
    "pti, the tuned c_t": Row(PORT, "inversions/unet_based/pti/pipeline_sd.py", pti_port,
                              "the port's inversion, rates and start"),
    "diffedit, the mask": Row(INSTALLED, "StableDiffusionDiffEditPipeline", diffedit,
                              "its noises are ours"),
    "ilvr, its filter": Row(ILVR, "resizer.py", ilvr, "the edges' rule"),
}  # fmt: skip
