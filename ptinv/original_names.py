"""The tensor names of the original (CompVis) single-file layout, as those of diffusers' folders.

Original names number the UNet's blocks in one row and count the VAE's decoder from the picture; the
rest is a dictionary. `rename` is the whole map.
"""

from .unet import UNetConfig
from .vae import VAEConfig

NETWORKS = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.transformer.": "text_encoder",
}
# schedule buffers, the average of the weights, and the VAE's training loss: not needed
LEFT_OUT = (
    "model_ema.",
    "first_stage_model.loss.",
    "alphas_cumprod",
    "betas",
    "ddim_",
    "log_one_minus",
    "logvar",
    "lvlb",
    "posterior_",
    "sqrt_",
)
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}


def is_left_out(key: str) -> bool:
    """Whether a tensor is one that training leaves behind and inference computes for itself."""
    return key.startswith(LEFT_OUT) or key.endswith("embeddings.position_ids")


def unet_modules(config: UNetConfig) -> dict[str, str]:
    """Original module name -> ours. The original numbers its blocks 0 … 11 down and 0 … 11 up."""
    table = {
        "input_blocks.0.0": "conv_in",
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "middle_block.1": "mid_block.attentions.0",
        "out.0": "conv_norm_out",
        "out.2": "conv_out",
    }
    resnets = {"middle_block.0": "mid_block.resnets.0", "middle_block.2": "mid_block.resnets.1"}
    n, top = 1, len(config.channels) - 1
    for level in range(top + 1):
        for i in range(config.layers):
            resnets[f"input_blocks.{n}.0"] = f"down_blocks.{level}.resnets.{i}"
            if config.attends[level]:
                table[f"input_blocks.{n}.1"] = f"down_blocks.{level}.attentions.{i}"
            n += 1
        table[f"input_blocks.{n}.0.op"] = f"down_blocks.{level}.downsamplers.0.conv"
        n += 1
    n = 0
    for block, level in enumerate(range(top, -1, -1)):
        attends = config.attends[level]
        for i in range(config.layers + 1):
            resnets[f"output_blocks.{n}.0"] = f"up_blocks.{block}.resnets.{i}"
            if attends:
                table[f"output_blocks.{n}.1"] = f"up_blocks.{block}.attentions.{i}"
            n += 1
        upsampler = f"output_blocks.{n - 1}.{2 if attends else 1}.conv"
        table[upsampler] = f"up_blocks.{block}.upsamplers.0.conv"
    return table | _nested(resnets, RESNET)


def vae_modules(config: VAEConfig) -> dict[str, str]:
    """Original module name -> ours. The original counts the decoder's levels from the picture."""
    top = len(config.channels) - 1
    same = ("quant_conv", "post_quant_conv")
    same += tuple(f"{half}.conv_{end}" for half in ("encoder", "decoder") for end in ("in", "out"))
    table, resnets = {name: name for name in same}, {}
    for half in ("encoder", "decoder"):
        table[f"{half}.norm_out"] = f"{half}.conv_norm_out"
        resnets[f"{half}.mid.block_1"] = f"{half}.mid_block.resnets.0"
        resnets[f"{half}.mid.block_2"] = f"{half}.mid_block.resnets.1"
        table |= _nested({f"{half}.mid.attn_1": f"{half}.mid_block.attentions.0"}, VAE_ATTENTION)
    for level in range(top + 1):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{top - level}"
        table[f"encoder.down.{level}.downsample"] = f"{down}.downsamplers.0"
        table[f"decoder.up.{level}.upsample"] = f"{up}.upsamplers.0"
        for i in range(config.layers + 1):
            resnets[f"encoder.down.{level}.block.{i}"] = f"{down}.resnets.{i}"
            resnets[f"decoder.up.{level}.block.{i}"] = f"{up}.resnets.{i}"
    return table | resnets | _nested(resnets, {"nin_shortcut": "conv_shortcut"})


def _nested(outer: dict[str, str], inner: dict[str, str]) -> dict[str, str]:
    return {f"{a}.{b}": f"{x}.{y}" for a, x in outer.items() for b, y in inner.items()}


def rename(key: str, modules: dict[str, dict[str, str]]) -> tuple[str, str] | None:
    """An original tensor name -> (network, our name); None if no network has it."""
    for prefix, network in NETWORKS.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            parts = name.split(".")
            for cut in range(len(parts) - 1, 0, -1):  # the longest module name first
                module = ".".join(parts[:cut])
                if module in modules.get(network, {}):
                    return network, ".".join([modules[network][module], *parts[cut:]])
            return (network, name) if network not in modules else None
    return None
