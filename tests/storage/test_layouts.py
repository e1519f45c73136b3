"""A folder's JSON files: what isn't computed, or can't be, is refused by its key; and written."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from world.folder import write_configs

import ptinv
from ptinv.core.model import Configs
from ptinv.core.unet import UNetConfig
from ptinv.core.vae import VAEConfig
from ptinv.errors import CheckpointError
from ptinv.storage.checkpoint import EMBEDDED, open_checkpoint
from ptinv.storage.layouts import (
    COMPUTED,
    PIPELINE,
    SCHEDULER,
    SD_V1_TEXT,
    TEXT,
    UNET,
    VAE,
    read_configs,
)


def rewritten(path, **changed):
    """The same file with other values; `...` leaves a key out."""
    said = {k: v for k, v in (json.loads(path.read_text()) | changed).items() if v is not ...}
    path.write_text(json.dumps(said))


def refused(folder, reason):
    """Refused with all of the reason's parts, in one sentence."""
    with pytest.raises(CheckpointError) as caught:
        ptinv.load(folder, device="cpu")
    said = str(caught.value)
    assert all(part in said for part in reason) and "\n" not in said, said


# Another kind of model


@pytest.mark.parametrize(
    "file, changed, said",
    [
        (UNET, {"in_channels": 9}, "inpainting"),
        (UNET, {"in_channels": 8}, "InstructPix2Pix"),
        (UNET, {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        (UNET, {"use_linear_projection": True}, "Stable Diffusion 2"),
        (UNET, {"addition_embed_type": "text_time"}, "Stable Diffusion XL"),
        (UNET, {"cross_attention_dim": 2048}, "Stable Diffusion XL"),
        (PIPELINE, {"_class_name": "StableDiffusionXLPipeline"}, "Stable Diffusion XL"),
        (SCHEDULER, {"prediction_type": "v_prediction"}, "v_prediction"),
    ],
)
def test_a_folder_of_another_kind_is_named_before_anything_that_it_lacks(
    folder, file, changed, said
):
    rewritten(folder / file, **changed)
    shutil.rmtree(folder / "text_encoder")
    refused(folder, [said, "only Stable Diffusion v1"])


@pytest.mark.parametrize(
    "other, said", [("text_encoder_2", "Stable Diffusion XL"), ("transformer", "a transformer")]
)
def test_a_folder_is_known_by_its_parts_even_without_a_unet(folder, other, said):
    (folder / other).mkdir()
    shutil.rmtree(folder / "unet")
    refused(folder, [said])


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_subfolder_or_file_that_is_lacking_is_named(folder, part):
    (folder / part / "config.json").unlink()
    refused(folder, [f"{folder} lacks {part}/config.json"])
    shutil.rmtree(folder / part)
    refused(folder, [f"{folder} lacks the subfolder {part};"])


# Keys that can't be taken as they are


@pytest.mark.parametrize("value", [..., None, "abc", 0, -8, 2.5, True, [8], {}, math.nan])
@pytest.mark.parametrize(
    "file, key",
    [
        (UNET, "attention_head_dim"),
        (UNET, "layers_per_block"),
        (UNET, "sample_size"),
        (UNET, "block_out_channels"),
        (UNET, "down_block_types"),
        (VAE, "block_out_channels"),
        (VAE, "latent_channels"),
        (TEXT, "num_hidden_layers"),
        (TEXT, "hidden_act"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_file_and_key(folder, file, key, value):
    if (key, value) == ("block_out_channels", [8]):
        value = [8, "16"]
    rewritten(folder / file, **{key: value})
    shown = "missing" if value is ... else json.dumps(value)
    refused(folder, [f"{folder / file}: {key} must be", f"but is {shown};"])


@pytest.mark.parametrize(
    "file, key, value, must",
    [
        (UNET, "attention_head_dim", 7, "a divisor of block_out_channels"),
        (UNET, "norm_num_groups", 7, "a divisor of block_out_channels"),
        (UNET, "norm_num_groups", "abc", "a whole number"),
        (UNET, "down_block_types", ["CrossAttnDownBlock2D"], "as long as block_out_channels"),
        (UNET, "down_block_types", ["DownBlock2D"] * 2, "at least one"),
        (UNET, "down_block_types", ["CrossAttnDownBlock2D", "AttnDownBlock2D"], "at least one"),
        (UNET, "down_block_types", ["CrossAttnDownBlock2D", [1]], "at least one"),
        (UNET, "in_channels", 6, "the latent_channels of vae/config.json"),
        (TEXT, "hidden_size", 96, "the cross_attention_dim of unet/config.json"),
        (UNET, "layers_per_block", 10**6, "a whole number from 1 to 32"),
        (UNET, "block_out_channels", [16] * 10**5, "a list of 1 to 6 even numbers"),
        (UNET, "block_out_channels", [15, 30], "a list of 1 to 6 even numbers"),
        (UNET, "block_out_channels", [16, 10**9], "up to 100000"),
        (UNET, "sample_size", 129, "a whole number from 1 to 128"),
        (VAE, "layers_per_block", 33, "a whole number from 1 to 32"),
        (VAE, "block_out_channels", [8] * 7, "a list of 1 to 6 even numbers"),
        (TEXT, "num_hidden_layers", 10**30, "a whole number from 1 to 32"),
        (TEXT, "vocab_size", 10**9, "a whole number from 1 to 100000"),
        (VAE, "norm_num_groups", 7, "a divisor of block_out_channels"),
        (VAE, "norm_num_groups", None, "a whole number"),
        (VAE, "scaling_factor", "x", "a number above 0"),
        (VAE, "scaling_factor", math.nan, "a number above 0"),
        (TEXT, "num_attention_heads", 7, "a divisor of hidden_size"),
        (TEXT, "max_position_embeddings", 64, "77"),
    ],
)
def test_a_value_that_fits_nothing_is_refused(folder, file, key, value, must):
    rewritten(folder / file, **{key: value})
    refused(folder, [f"{folder / file}: ", " must be ", must, " but is "])


@pytest.mark.parametrize(
    "content, said", [("[]", "is not a JSON object"), ("[" * 100_000, "is not a JSON object")]
)
def test_a_file_that_holds_no_object_is_refused(folder, content, said):
    (folder / VAE).write_text(content)
    refused(folder, [f"{folder / VAE} {said}"])


# Keys that would change what is computed


OTHERWISE = [
    (UNET, "act_fn", "gelu"),
    (UNET, "class_embed_type", "timestep"),
    (UNET, "flip_sin_to_cos", False),
    (UNET, "freq_shift", 1),
    (UNET, "mid_block_type", "UNetMidBlock2D"),
    (UNET, "downsample_padding", 0),
    (UNET, "mid_block_scale_factor", 2),
    (UNET, "norm_eps", 1e-6),
    (UNET, "only_cross_attention", [True, False]),
    (VAE, "act_fn", "relu"),
    (VAE, "shift_factor", 0.1),
    (VAE, "use_quant_conv", False),
    (TEXT, "layer_norm_eps", 1e-6),
    (SCHEDULER, "beta_end", 0.02),
    (SCHEDULER, "beta_schedule", "linear"),
    (SCHEDULER, "num_train_timesteps", 4000),
    (SCHEDULER, "trained_betas", [0.1, 0.2]),
]


@pytest.mark.parametrize("file, key, value", OTHERWISE)
def test_what_is_not_computed_is_refused_by_file_and_key(folder, file, key, value):
    rewritten(folder / file, **{key: value})
    ours = json.dumps(COMPUTED[file][key])
    refused(folder, [f"{folder / file}: {key} must be {ours} but is {json.dumps(value)};"])


def test_what_is_computed_may_be_said_or_left_null_or_out(folder):
    plain = read_configs(folder)
    for silent in (False, True):
        for file, keys in COMPUTED.items():
            needed = ("max_position_embeddings",)  # the text encoder is built from it
            said = {k: None if silent and k not in needed else v for k, v in keys.items()}
            rewritten(folder / file, **said)
        assert read_configs(folder) == plain
    shutil.rmtree(folder / "scheduler")
    (folder / PIPELINE).unlink()
    assert read_configs(folder) == plain


def test_the_files_of_sd_v1_4_leave_out_what_was_the_same_everywhere(folder):
    """Its VAE's has neither the groups of its norms nor the scale of its latents."""
    wide = {"block_out_channels": [32, 64]}
    rewritten(folder / VAE, norm_num_groups=..., scaling_factor=..., sample_size=..., **wide)
    configs = open_checkpoint(folder).configs
    assert (configs.vae.groups, configs.latent_scale) == (32, 0.18215)


# Keys that come with other tensors are no demands of their own: the tensors are refused


def zeros(*shape):
    return torch.zeros(shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    "part, key, value, tensors, said",
    [
        ("unet", "addition_embed_type", "text", {"add_embedding.proj.bias": zeros(8)}, "add_emb"),
        ("unet", "attention_type", "gated", {"position_net.linears.0.bias": zeros(8)}, "position"),
        ("unet", "conv_in_kernel", 1, {"conv_in.weight": zeros(16, 4, 1, 1)}, "[16, 4, 1, 1], not"),
        ("unet", "conv_out_kernel", 1, {"conv_out.weight": zeros(4, 16, 1, 1)}, "1], not [4, 16,"),
        (
            "unet",
            "cross_attention_norm",
            "layer_norm",
            {"x.norm_cross.bias": zeros(8)},
            "norm_cros",
        ),
        ("unet", "dual_cross_attention", True, {"x.transformers.0.bias": zeros(8)}, "transformers"),
        ("unet", "encoder_hid_dim", 768, {"encoder_hid_proj.bias": zeros(8)}, "encoder_hid_proj"),
        ("unet", "num_class_embeds", 9, {"class_embedding.weight": zeros(9, 64)}, "class_embeddin"),
        (
            "unet",
            "resnet_time_scale_shift",
            "scale_shift",
            {"mid_block.resnets.0.time_emb_proj.bias": zeros(64)},
            "time_emb_proj.bias is [64], not [32]",
        ),
        (
            "unet",
            "time_cond_proj_dim",
            8,
            {"time_embedding.cond_proj.weight": zeros(16, 8)},
            "cond_",
        ),
        (
            "unet",
            "time_embedding_dim",
            8,
            {"time_embedding.linear_1.bias": zeros(8)},
            "[8], not [6",
        ),
        ("unet", "time_embedding_type", "fourier", {"time_proj.weight": zeros(8)}, "time_proj.wei"),
        (
            "unet",
            "transformer_layers_per_block",
            2,
            {"mid_block.attentions.0.transformer_blocks.1.norm1.bias": zeros(32)},
            "transformer_blocks.1",
        ),
        (
            "vae",
            "in_channels",
            1,
            {"encoder.conv_in.weight": zeros(8, 1, 3, 3)},
            "[8, 1, 3, 3], not",
        ),
        ("vae", "out_channels", 1, {"decoder.conv_out.bias": zeros(1)}, "[1], not [3]"),
    ],
)
def test_a_key_that_comes_with_other_tensors_is_refused_by_their_names(
    folder, part, key, value, tensors, said
):
    rewritten(folder / f"{part}/config.json", **{key: value})
    path = folder / part / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | tensors, path)
    refused(folder, [f"{folder} does not hold a whole Stable Diffusion v1 (", said])
    refused(folder, ["); only Stable Diffusion v1 can be opened"])


# Written, and read again


SD_V1 = Configs(UNetConfig(), VAEConfig(), SD_V1_TEXT, latent_scale=0.18215)


@pytest.mark.parametrize("configs", [read_configs(EMBEDDED), SD_V1], ids=["tiny", "sd-v1"])
def test_what_is_written_is_read_back(tmp_path, configs):
    write_configs(tmp_path, configs)
    assert read_configs(tmp_path) == configs


def test_the_embedded_model_s_files_are_written_to_the_byte(tmp_path):
    write_configs(tmp_path, read_configs(EMBEDDED))
    for file in (*COMPUTED, PIPELINE):
        assert (tmp_path / file).read_bytes() == (EMBEDDED / file).read_bytes()
