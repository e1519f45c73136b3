"""Writes a model as a folder in diffusers' layout: what `ptinv.storage.layouts` reads."""

import json
from pathlib import Path

from safetensors.torch import save_file

from ptinv.core.model import WEIGHTS, Configs
from ptinv.core.text import TextEncoder
from ptinv.core.unet import UNet
from ptinv.core.vae import VAE
from ptinv.storage import files
from ptinv.storage import layouts as reader

# fmt: off
WRITTEN = {  # the same for every model
    reader.SCHEDULER: {
        "_class_name": "DDIMScheduler", **reader.SCHEDULE, "prediction_type": "epsilon",
        "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
    },
    reader.PIPELINE: {
        "_class_name": "StableDiffusionPipeline", "vae": ["diffusers", "AutoencoderKL"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None], "feature_extractor": [None, None],
        "requires_safety_checker": False,
    },
}
# fmt: on


def write_configs(folder: Path, configs: Configs) -> None:
    """Writes the JSON files of a diffusers folder, all but the tokenizer's; makes the subfolders.
    `read_configs` reads the same configurations back. Raises OSError if the writing fails."""
    unet, vae = configs.unet, configs.vae
    levels = len(vae.channels)
    blocks = [reader.BLOCKS[0] if attends else reader.BLOCKS[1] for attends in unet.attends]
    up_blocks = [block.replace("Down", "Up") for block in reversed(blocks)]
    # fmt: off
    content = WRITTEN | {
        reader.UNET: dict(
            _class_name="UNet2DConditionModel", act_fn="silu", attention_head_dim=unet.heads,
            block_out_channels=unet.channels, cross_attention_dim=unet.context_channels,
            down_block_types=blocks, up_block_types=up_blocks, in_channels=unet.latent_channels,
            out_channels=unet.latent_channels, layers_per_block=unet.layers,
            norm_num_groups=unet.groups, sample_size=unet.trained_size,
        ),
        reader.VAE: dict(
            _class_name="AutoencoderKL", act_fn="silu", block_out_channels=vae.channels,
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels, in_channels=3, out_channels=3,
            latent_channels=vae.latent_channels, layers_per_block=vae.layers,
            norm_num_groups=vae.groups, sample_size=unet.trained_size * 2 ** (levels - 1),  # pixels
            scaling_factor=configs.latent_scale,
        ),
        reader.TEXT: configs.text
        | dict(architectures=["CLIPTextModel"], model_type="clip_text_model"),
    }
    # fmt: on
    for file, described in content.items():
        path = Path(folder) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as part:
            part.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def write_folder(out: Path, vae: VAE, unet: UNet, text_encoder: TextEncoder, scale: float) -> None:
    """Writes all but the tokenizer; weights in float16. scale: makes the latents' deviation 1."""
    write_configs(out, Configs(unet.config, vae.config, text_encoder.config, scale))
    networks = dict(vae=vae, unet=unet, text_encoder=text_encoder)
    for name, network in networks.items():
        state = {k: v.half().cpu().contiguous() for k, v in network.state_dict().items()}
        save_file(state, out / name / WEIGHTS[name], metadata={"format": "pt"})
