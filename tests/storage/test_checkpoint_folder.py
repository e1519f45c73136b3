"""Folders in diffusers' layout: what they must hold, and how they are opened."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from ptinv.errors import CheckpointError, InputError
from ptinv.storage.checkpoint import EMBEDDED, load, open_checkpoint

# What the folder must be


@pytest.mark.parametrize(
    "file", ["vae/diffusion_pytorch_model.safetensors", "tokenizer/vocab.json"]
)
def test_a_folder_that_lacks_a_file_is_refused_with_its_name(folder, file):
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file.rpartition("/")[2]):
        open_checkpoint(folder)


def test_a_pickle_in_a_folder_is_not_opened(folder):
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(CheckpointError, match="is a pickle"):
        open_checkpoint(folder)


def test_files_named_fp16_are_found(folder):
    for path in folder.glob("*/*.safetensors"):
        path.rename(path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    assert load(folder, dtype="float32").unet.conv_in.weight.dtype == torch.float32


def test_an_extra_tensor_is_named(folder):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"surplus.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not of its networks: unet.surplus.weight"):
        load(folder)


@pytest.mark.parametrize(
    "dtype, said", [(torch.int8, "I8"), (torch.int64, "I64"), (torch.bool, "BOOL")]
)
def test_weights_that_are_no_floats_are_named_with_their_type(folder, dtype, said):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.bias"] = weights["conv_in.bias"].to(dtype)
    save_file(weights, path)
    with pytest.raises(
        CheckpointError, match=rf"not floating-point: unet\.conv_in\.bias is {said}\)"
    ):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_of_any_floating_type_are_converted(folder, dtype):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    stored = load_file(path)["conv_in.weight"].to(dtype)
    save_file(load_file(path) | {"conv_in.weight": stored}, path)
    loaded = load(folder, device="cpu", dtype="float32").unet.conv_in.weight
    assert torch.equal(loaded, stored.float())


def test_old_spellings_of_the_vae_attention_and_of_position_ids_are_read(folder, small_model):
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    state = load_file(path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for ours, theirs in old.items():
        ours, theirs = f"attentions.0.{ours}.", f"attentions.0.{theirs}."
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    save_file(state, path)
    path = folder / "text_encoder/model.safetensors"
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(load_file(path) | positions, path)
    model, x = load(folder, device="cpu"), torch.randn(1, 3, 16, 16)
    assert torch.equal(model.vae.encode(x)[0], small_model.vae.encode(x)[0])
    assert torch.equal(model.embed("a red car"), small_model.embed("a red car"))


def test_a_tensor_in_both_spellings_is_refused(folder):
    path = folder / "vae/diffusion_pytorch_model.safetensors"
    name = "encoder.mid_block.attentions.0.{}.bias"
    state = load_file(path)
    save_file(state | {name.format("query"): state[name.format("to_q")].clone()}, path)
    with pytest.raises(
        CheckpointError, match=r"holds .*to_q\.bias twice, in two spellings or shards"
    ):
        load(folder)


def test_loaded_networks_are_frozen_in_eval_mode_and_hold_nothing_on_the_meta_device(folder):
    model = load(folder, dtype="bfloat16")
    for network in (model.unet, model.vae, model.text_encoder):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert all(parameter.dtype == torch.bfloat16 for parameter in network.parameters())
        assert not any(buffer.is_meta for buffer in network.buffers())


# How it is opened


def test_without_a_path_the_embedded_model_is_opened():
    model = load(device="cpu")
    assert (model.name, model.files[0].parent.parent) == (EMBEDDED.name, EMBEDDED)
    assert model.unet.config.trained_size == 32


@pytest.mark.parametrize(
    "how, said",
    [
        ({"device": "abacus"}, "the device must be cuda or cpu, not abacus"),
        ({"device": "meta"}, "the device must be cuda or cpu, not meta"),
        ({"device": "cpu:1"}, "there is no device cpu:1; the last of its kind is cpu:0"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, not int8"),
        ({"dtype": torch.float64}, "dtype must be one of float32, .* not torch.float64"),
        ({"tokenizer": "nowhere"}, "no tokenizer .* in nowhere; give its folder"),
    ],
)
def test_a_device_a_type_or_a_tokenizer_that_there_is_not_is_refused(small_folder, how, said):
    with pytest.raises(InputError, match=said):
        load(small_folder, **{"device": "cpu", **how})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_cuda_is_refused_where_there_is_none(small_folder):
    with pytest.raises(InputError, match="there is no CUDA device here; use the cpu device"):
        load(small_folder, "cuda")


def test_a_tokenizer_of_more_tokens_than_the_encoder_s_is_refused(folder):
    words = json.loads((folder / "tokenizer/vocab.json").read_text())
    last = len(words) - 2  # the start and end tokens stay the last two
    words = {word: i + 5 * (i >= last) for word, i in words.items()}
    words |= {f"word{i}</w>": last + i for i in range(5)}
    (folder / "tokenizer/vocab.json").write_text(json.dumps(words))
    with pytest.raises(InputError, match=r"has \d+ tokens, but the text encoder was trained on"):
        load(folder, "cpu")


def test_a_tokenizer_of_another_order_or_of_nothing_is_refused(small_folder, tmp_path):
    whole = small_folder / "tokenizer"
    vocab = json.loads((whole / "vocab.json").read_text(encoding="utf-8"))
    backwards = {token: len(vocab) - 1 - i for token, i in vocab.items()}
    for name, changed, said in (("backwards", backwards, "another order"), ("empty", {}, "CLIP")):
        folder = shutil.copytree(whole, tmp_path / name)
        (folder / "vocab.json").write_text(json.dumps(changed), encoding="utf-8")
        if not changed:
            (folder / "merges.txt").write_text("#version: 0.2\n")
        with pytest.raises(InputError, match=said):
            load(small_folder, tokenizer=folder)
