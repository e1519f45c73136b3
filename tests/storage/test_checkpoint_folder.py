"""Folders in diffusers' layout: what they must hold, and how they are opened."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import CLIPTokenizerFast

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


@pytest.mark.parametrize("dtype, said", [("float16", "model.fp16"), ("float32", "model")])
def test_of_two_precisions_the_wanted_one_is_read(folder, dtype, said):
    for path in folder.glob("*/*.safetensors"):
        shutil.copy(path, path.with_name(path.name.replace(".safetensors", ".fp16.safetensors")))
    stems = [path.stem for path in load(folder, "cpu", dtype).files[:3]]
    assert stems == [f"diffusion_pytorch_{said}"] * 2 + [said]


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


# Shards


def in_shards(path, count=3):
    """Splits a file into so many shards and an index, by hand."""
    weights = load_file(path)
    shards = {f"{path.stem}-{i}.safetensors": sorted(weights)[i::count] for i in range(count)}
    for name, keys in shards.items():
        save_file({key: weights[key] for key in keys}, path.with_name(name))
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    index = path.with_name(path.name + ".index.json")
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    path.unlink()
    return index


def test_shards_open_as_the_whole_does_and_a_whole_file_comes_first(folder, small_model):
    for path in folder.glob("*/*.safetensors"):
        in_shards(path)
    model = load(folder, device="cpu", dtype="float32")
    assert torch.equal(model.embed("a red car"), small_model.embed("a red car"))
    ours, theirs = model.unet.state_dict(), small_model.unet.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(model.files) == 3 * 3 + 2
    whole = folder / "vae" / "diffusion_pytorch_model.safetensors"
    whole.write_bytes(b"")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load(folder)


def test_accelerate_names_every_network_alike(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    in_shards(path.rename(path.with_name("model.safetensors")))
    assert len(load(folder, device="cpu").files) == 3 + 2 + 2


def test_a_tensor_in_two_shards_is_refused(folder):
    index = in_shards(folder / "unet" / "diffusion_pytorch_model.safetensors")
    path = index.with_name("diffusion_pytorch_model-0.safetensors")
    again = load_file(path.with_name("diffusion_pytorch_model-1.safetensors"))
    save_file(load_file(path) | again, path)
    with pytest.raises(CheckpointError, match="twice, in two spellings or shards"):
        load(folder)


@pytest.mark.parametrize(
    "extra, said",
    [
        ({}, "has no weight_map"),
        ({"weight_map": []}, "has no weight_map"),
        ({"weight_map": {"a": 5}}, "lists .*5, which is no file beside it"),
        ({"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}, "no file beside it"),
        ({"weight_map": {"a": "/etc/hostname"}}, "lists /etc/hostname, which is no file beside"),
        ({"weight_map": {"a": "gone.safetensors"}}, "lists .*gone.safetensors, which is no file"),
        ({"weight_map": {"a": ".."}}, "no file beside it"),
    ],
)
def test_an_index_of_anything_but_files_beside_it_is_refused(folder, extra, said):
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.with_name(weights.name + ".index.json").write_text(json.dumps(extra))
    weights.unlink()
    with pytest.raises(CheckpointError, match=said):
        load(folder, device="cpu")


# How it is opened


def test_without_a_path_the_embedded_model_is_opened():
    model = load(device="cpu")
    assert (model.name, model.files[0].parent.parent) == (EMBEDDED.name, EMBEDDED)
    assert model.unet.config.trained_size == 32


@pytest.mark.parametrize(
    "how, said",
    [
        ({"device": "abacus"}, "there is no device abacus here, only .*cpu"),
        ({"device": "meta"}, "there is no device meta here, only .*cpu"),
        ({"device": "cpu:1"}, "there is no device cpu:1 here, only .*cpu"),
        ({"dtype": "int8"}, "dtype must be auto or one of float32, bfloat16, float16, not int8"),
        ({"dtype": torch.float64}, "dtype must be auto or one of float32, .* not torch.float64"),
        ({"tokenizer": "nowhere"}, "no tokenizer .* in nowhere; give its folder"),
    ],
)
def test_a_device_a_type_or_a_tokenizer_that_there_is_not_is_refused(small_folder, how, said):
    with pytest.raises(InputError, match=said):
        load(small_folder, **{"device": "cpu", **how})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_cuda_is_refused_where_there_is_none(small_folder):
    with pytest.raises(InputError, match="there is no device cuda here, only cpu, cpu:0"):
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


# The tokenizer's other form


@pytest.fixture
def modern(folder):
    """The folder with its tokenizer as transformers 5 saves it: `tokenizer.json` alone."""
    CLIPTokenizerFast.from_pretrained(folder / "tokenizer").save_pretrained(folder / "new")
    shutil.rmtree(folder / "tokenizer")
    (folder / "new").rename(folder / "tokenizer")
    for name in ("vocab.json", "merges.txt", "special_tokens_map.json"):  # which 4 adds
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    return folder


PROMPTS = ["two  DOGS in the snow", "a t-shirt's <dog> in 1990, naïve 🐶", "a " * 90, ""]


def test_tokenizer_json_alone_gives_the_same_ids_and_embeddings(modern, small_model):
    model = load(modern, device="cpu", dtype="float32")
    assert model.files[-1].name == "tokenizer.json"
    assert torch.equal(model.tokenizer.ids(PROMPTS), small_model.tokenizer.ids(PROMPTS))
    assert torch.equal(model.embed(PROMPTS), small_model.embed(PROMPTS))


def test_how_tokenizer_json_pads_is_not_taken(modern, small_model):
    path = modern / "tokenizer" / "tokenizer.json"
    padding = {"strategy": {"Fixed": 77}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "!"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding": padding}))
    model = load(modern, device="cpu", dtype="float32")
    assert torch.equal(model.tokenizer.ids(PROMPTS), small_model.tokenizer.ids(PROMPTS))


@pytest.mark.parametrize("given", [{}, {"pad_token": "!"}])
def test_a_padding_token_that_is_a_word_stays_a_word(folder, small_model, given):
    path = folder / "tokenizer" / "special_tokens_map.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | given))
    prompts = ["two dogs! red", "two dogs!! red"]
    found = load(folder, device="cpu", dtype="float32").tokenizer.ids(prompts)
    assert torch.equal(found, small_model.tokenizer.ids(prompts))


LETTERS = {letter: i for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz")}
ENDINGS = {f"{letter}</w>": 26 + i for letter, i in LETTERS.items()}
OTHERS = {  # tokenizers of other models
    "BERT's kind": models.WordPiece(LETTERS | {"[UNK]": 26}, unk_token="[UNK]"),
    "GPT-2's kind": models.BPE(LETTERS | {"<|endoftext|>": 26}, []),
    "T5's kind": models.Unigram([("a", -1.0), ("b", -2.0)]),
    "no end tokens": models.BPE(LETTERS | ENDINGS, [], end_of_word_suffix="</w>"),
    "other tokens": models.BPE(LETTERS | {"<|startoftext|>": 26, "<|endoftext|>": 27}, []),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_a_tokenizer_json_that_is_not_clip_s_is_refused(folder, kind):
    Tokenizer(OTHERS[kind]).save(str(folder / "tokenizer" / "tokenizer.json"))
    with pytest.raises(InputError, match="does not hold the model's CLIP tokenizer") as caught:
        load(folder, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"vocab": 5}}'])
def test_a_damaged_tokenizer_json_is_refused(folder, content):
    (folder / "tokenizer" / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="does not hold the model's CLIP tokenizer"):
        load(folder, device="cpu")


@pytest.mark.parametrize("name", ["tokenizer_config.json", "added_tokens.json", "merges.txt"])
def test_a_tokenizer_s_file_that_never_ends_is_not_opened(folder, name):
    path = folder / "tokenizer" / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError, match="no regular file|no tokenizer"):
        load(folder)


def test_a_tokenizer_s_file_that_is_too_long_is_not_read(folder):
    (folder / "tokenizer/merges.txt").write_text("a b\n" * 2_500_001)
    with pytest.raises(InputError, match="merges.txt is no regular file of at most 10000000 bytes"):
        load(folder)


def test_a_token_s_number_beyond_the_table_is_refused(folder):
    """There are as many tokens as rows, but not all in them."""
    path = folder / "tokenizer/vocab.json"
    vocabulary = json.loads(path.read_text())
    path.write_text(json.dumps(vocabulary | {"car</w>": 10**6}))
    with pytest.raises(InputError, match="it has 1000001 tokens, but the text encoder"):
        load(folder)


def test_the_ends_numbers_in_a_configuration_change_nothing(folder, small_model):
    path = folder / "text_encoder/config.json"
    odd = dict(eos_token_id=[1, 2], bos_token_id="x", pad_token_id=-7)
    path.write_text(json.dumps(json.loads(path.read_text()) | odd))
    model = load(folder, device="cpu", dtype="float32")
    assert torch.equal(model.embed("a red car"), small_model.embed("a red car"))
