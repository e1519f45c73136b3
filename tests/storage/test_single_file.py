"""A single file in the original layout opens as the same model, in every spelling of its names."""

import math
import shutil

import pytest
import torch
from networks import KEYS
from safetensors.torch import save_file

from ptinv.core.model import WEIGHTS, Configs
from ptinv.core.unet import UNet, UNetConfig
from ptinv.core.vae import VAE, VAEConfig
from ptinv.errors import CheckpointError
from ptinv.storage.checkpoint import load
from ptinv.storage.layouts import SD_V1, rename


@pytest.fixture
def original(small_folder, small_model, tmp_path, monkeypatch):
    """A small model's tensors by the original names, with its networks' own; the tokenizer is in
    place for a file beside it."""
    unet = UNetConfig(channels=(8, 16, 32, 32), heads=2, groups=4, context_channels=8)
    vae = VAEConfig(channels=(4, 8, 16, 16), groups=2)
    text_encoder = small_model.text_encoder
    configs = Configs(unet, vae, text_encoder.config, SD_V1.latent_scale)
    ours = torch.nn.ModuleDict(dict(unet=UNet(unet), vae=VAE(vae), text_encoder=text_encoder))
    ours = ours.state_dict()
    tensors = {}
    for name, tensor in text_encoder.state_dict().items():
        tensors[f"cond_stage_model.transformer.{name}"] = tensor
    for key, shape in KEYS["ldm"].items():
        if not key.startswith("cond_stage_model."):
            tensor = ours[rename(key)]
            tensors[key] = tensor.reshape(*tensor.shape, *shape[tensor.ndim :])  # 1×1 convolutions
    shutil.copytree(small_folder / "tokenizer", tmp_path / "tokenizer")
    monkeypatch.setattr("ptinv.storage.checkpoint.SD_V1", configs)
    return tensors, ours


TEXT = "cond_stage_model.transformer."
EXTRAS = {  # of training, of older libraries, of CLIP's other half
    "betas": torch.zeros(3),
    "ddim_sigmas": torch.zeros(3),
    "scale_factor": torch.tensor(0.18215, dtype=torch.float16),
    "model_ema.decay": torch.tensor(0.9999),
    "model_ema.diffusion_modelconv_in.weight": torch.zeros(3),
    "first_stage_model.model_ema.num_updates": torch.tensor(1),
    "cond_stage_model.logit_scale": torch.tensor(4.6),
    f"{TEXT}logit_scale": torch.tensor(4.6),
    f"{TEXT}text_projection.weight": torch.zeros(3, 3),
    f"{TEXT}text_model.text_projection": torch.zeros(3, 3),
}


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("positions", [None, torch.int64, torch.float16])
def test_a_single_file_opens_as_the_same_model(original, small_model, tmp_path, bare, positions):
    """bare: NovelAI's spelling of the text encoder's names. positions: their type, if any."""
    tensors, ours = original
    tensors |= EXTRAS
    if positions:
        tensors[f"{TEXT}text_model.embeddings.position_ids"] = torch.arange(77, dtype=positions)
    if bare:
        tensors = {key.replace(f"{TEXT}text_model.", TEXT): value for key, value in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    opened = load(tmp_path / "model.safetensors", device="cpu", dtype="float32")
    found = torch.nn.ModuleDict({part: getattr(opened, part) for part in WEIGHTS}).state_dict()
    assert found.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in found.items())
    assert torch.equal(opened.embed("a red car"), small_model.embed("a red car"))


@pytest.mark.parametrize("scale", [1.0, 0.13025, math.nan, 0.0])
def test_another_scale_of_the_latents_is_refused(original, tmp_path, scale):
    tensors = original[0] | {"scale_factor": torch.tensor(scale)}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="scale_factor must be 0.18215 but is"):
        load(tmp_path / "model.safetensors")


def test_text_tensors_in_both_spellings_are_refused(original, tmp_path):
    name = "encoder.layers.0.mlp.fc1.bias"
    tensors = original[0]
    tensors[f"{TEXT}{name}"] = tensors[f"{TEXT}text_model.{name}"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"fc1\.bias twice, in two spellings"):
        load(tmp_path / "model.safetensors")
