"""This project's model in the shape that code written for old diffusers expects.

`model.unet(latents, t, encoder_hidden_states=…)["sample"]`, a scheduler, a tokenizer, and a hook
for Prompt-to-Prompt's controllers, which change probabilities as (batch · heads, pixels, tokens).
So both sides of a comparison have the same networks, and differ by the method alone.
"""

from types import SimpleNamespace
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

import ptinv
from ptinv import Control
from ptinv.core.attention import Place


class Prediction(dict):
    """ε under each of the names and ways by which it is taken."""

    def __init__(self, eps: Tensor):
        super().__init__(sample=eps)
        self.sample = eps

    def __getitem__(self, key: Any) -> Tensor:
        return self.sample


class Controlled(Control):
    """A controller of theirs, in all attention layers of one call."""

    def __init__(self, controller: Any):
        self.controller = controller

    def wants(self, place: Place) -> bool:
        return True

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        flat = rearrange(probabilities, "b h p n -> (b h) p n").clone()  # it writes into it
        changed = self.controller(flat, place.kind == "cross", place.part)
        return rearrange(changed, "(b h) p n -> b h p n", b=len(probabilities))


class UNet:
    """ε by position or name, under the controller that was registered last."""

    def __init__(self, model: ptinv.StableDiffusion, latent_side: int):
        self.model, self.controller = model, None
        self.in_channels = model.unet.config.latent_channels
        self.sample_size = latent_side
        self.config = SimpleNamespace(time_cond_proj_dim=None, sample_size=latent_side)
        self.forward = self.__call__

    def __call__(
        self, z: Tensor, timestep: Any, encoder_hidden_states: Tensor, **_: Any
    ) -> Prediction:
        hook = None if self.controller is None else Controlled(self.controller)
        texts = encoder_hidden_states.expand(len(z), -1, -1)
        return Prediction(self.model.predict_noise(z, int(timestep), texts, hook))

    def register(self, controller: Any) -> None:
        """Attaches a controller, and says how many layers will call it."""
        self.controller = controller
        if controller is not None:
            controller.num_att_layers = layers_of(self.model)


def layers_of(model: ptinv.StableDiffusion) -> int:
    """The number of attention layers."""
    return sum(name.endswith((".attn1", ".attn2")) for name, _ in model.unet.named_modules())


class Model:
    """What their functions take as `model`, `pipe` or `ldm_stable`."""

    def __init__(self, model: ptinv.StableDiffusion, scheduler: Any, steps: int, side: int):
        scheduler.set_timesteps(steps)
        self.unet, self.scheduler = UNet(model, side), scheduler
        self.device = model.device
        self.vae = SimpleNamespace(decode=lambda z: {"sample": torch.zeros(len(z), 3, 8, 8)})
        self.tokenizer = model.tokenizer.clip
        encoder = model.text_encoder
        self.text_encoder = lambda ids: (encoder(ids),)

    def register(self, controller: Any) -> None:
        """Stands in for their `register_attention_control(model, controller)`."""
        self.unet.register(controller)


def schedule_of(kind: Any) -> Any:
    """A scheduler of a DDIM class with Stable Diffusion v1's schedule, from timestep 1 on."""
    return kind(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip
