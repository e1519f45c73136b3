"""The record of how a result was made: what it holds, how it is read, and what it refuses."""

import copy
import hashlib
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from records import DAMAGED, GENERATED, retold
from safetensors.torch import load_file, save_file
from small import PROMPT

import ptinv
from ptinv.core.model import load as core_load
from ptinv.errors import InputError
from ptinv.settings import NAMES, Settings
from ptinv.storage.checkpoint import load
from ptinv.storage.pictures import save_picture
from ptinv.storage.provenance import (
    Recipe,
    check_same,
    fingerprint,
    hash_of_files,
    hash_of_tensors,
    made_with,
    model_hash,
)


@pytest.fixture
def recipe(small_model):
    settings = Settings(steps=3, seed=5, source="une été ✓", reweight={"car": 2.0})
    about = made_with(small_model)
    return Recipe("edit", PROMPT, "pti", settings, about, picture_hash="a" * 64)


@pytest.fixture
def png(recipe, picture, tmp_path):
    save_picture(picture, tmp_path / "a.png", recipe.chunks())
    return tmp_path / "a.png"


# The model's hash


def in_use(model):
    return hash_of_tensors((model.unet, model.vae, model.text_encoder))


def test_a_model_s_hash_is_of_its_files_whatever_the_precision(small_model, folder):
    said = model_hash(small_model)
    assert re.fullmatch("tensors:[0-9a-f]{64}", said)
    assert model_hash(load(folder, "cpu", "bfloat16")) == said == hash_of_files(small_model.files)


def test_the_hash_of_files_is_the_one_that_records_have_had_from_the_first_on(tmp_path):
    """Of each file: names, types and shapes as JSON, and four kilobytes, or all of a tensor's."""
    weights = {"b": torch.arange(1024.0).view(2, 512), "a": torch.arange(3000).view(1, 3000)}
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "vocab.json").write_text("{}")
    a, b = (weights[name].numpy().tobytes() for name in "ab")
    pieces = b"".join(a[start : start + 1024] for start in (0, 7658, 15317, 22976))
    tensors = b'["a", "I64", [1, 3000]]' + pieces + b'["b", "F32", [2, 512]]' + b
    tokenizer = hashlib.sha256(b"{}").hexdigest().encode()
    expected = hashlib.sha256(b"\n" + tensors + b"\n" + tokenizer).hexdigest()
    paths = [tmp_path / "model.safetensors", tmp_path / "vocab.json"]
    assert hash_of_files(paths) == f"tensors:{expected}"


def test_the_hash_stays_with_a_model_whose_files_are_gone(folder, picture, remarks):
    model = load(folder, "cpu")
    said = model_hash(model)
    inversion = ptinv.invert(model, picture, PROMPT, steps=2)
    shutil.rmtree(folder)
    assert model_hash(model) == model_hash(copy.deepcopy(model)) == said
    assert ptinv.edit(model, inversion, PROMPT) and ptinv.edit(
        model, picture, PROMPT, "pti", steps=2
    )
    assert not any("made with" in message for message in remarks.messages)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_weight_that_is_changed_in_memory_changes_the_hash(small_model, part):
    model, said = copy.deepcopy(small_model), model_hash(small_model)
    weight = next(getattr(model, part).parameters())
    before = weight.clone()
    weight += 0.1
    assert model_hash(model) != said
    weight.copy_(before)
    assert model_hash(model) == said == model_hash(small_model)


def test_an_inversion_is_refused_once_the_weights_are_changed(small_model, picture):
    model = copy.deepcopy(small_model)
    inversion = ptinv.invert(model, picture, steps=2)
    model.unet.conv_out.bias += 0.1
    with pytest.raises(InputError, match="made with another model"):
        ptinv.edit(model, inversion, PROMPT)
    own = ptinv.invert(model, picture, steps=2)
    assert ptinv.edit(model, own, PROMPT)


def test_a_model_that_load_did_not_open_has_the_hash_of_its_tensors(small_model, small_folder):
    model = core_load(small_folder)
    assert model_hash(model) == in_use(model) == in_use(small_model)
    assert model_hash(replace(model, files=())) == model_hash(model) != model_hash(small_model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in what torch imports for it
def test_a_compiled_network_has_the_hash_of_the_plain_one(small_model):
    """It is compiled at its first call, which does not come."""
    said = model_hash(small_model)
    compiled = replace(small_model, unet=torch.compile(small_model.unet))
    assert next(iter(compiled.unet.state_dict())).startswith("_orig_mod.")
    assert model_hash(compiled) == said
    blocks = copy.deepcopy(small_model)
    blocks.unet.mid_block = torch.compile(blocks.unet.mid_block)
    assert model_hash(blocks) == said


@pytest.mark.slow
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_model_that_differs_in_any_one_tensor_by_training_has_another_hash(folder, part):
    """Every tensor of the network in turn, moved as by one small step of training."""
    path = next((folder / part).glob("*.safetensors"))
    model, weights = load(folder, "cpu"), load_file(path)
    seen, used = {hash_of_files([path])}, {in_use(model)}
    torch.manual_seed(0)
    for name, tensor in weights.items():
        step = 1e-2 * torch.randn(tensor.shape) * (tensor.float().abs() + 1e-2)
        save_file(weights | {name: tensor + step.to(tensor.dtype)}, path)
        seen.add(hash_of_files([path]))
        kept = getattr(model, part).state_dict()[name]
        kept += step.view(kept.shape)
        used.add(in_use(model))
    assert len(seen) == len(used) == 1 + len(weights)


def test_of_the_table_of_tokens_the_rows_that_every_prompt_trains_are_hashed(small_model):
    model = copy.deepcopy(small_model)
    table = model.text_encoder.state_dict()["text_model.embeddings.token_embedding.weight"]
    table[-2:] += 0.1  # the start and the end token
    assert model_hash(model) != model_hash(small_model)


@pytest.mark.parametrize("change", ["name", "shape", "type", "tokenizer"])
def test_a_model_s_hash_is_of_names_shapes_types_and_the_tokenizer_too(folder, change):
    path, name = folder / "unet/diffusion_pytorch_model.safetensors", "conv_in.bias"
    paths, weights = load(folder, "cpu").files, load_file(path)
    weights |= {name: torch.zeros_like(weights[name])}
    save_file(weights, path)
    before = hash_of_files(paths)
    match change:
        case "name":
            weights["conv_in.other"] = weights.pop(name)
        case "shape":
            weights[name] = weights[name][None]
        case "type":
            weights[name] = weights[name].view(torch.bfloat16)
        case "tokenizer":
            with open(folder / "tokenizer/merges.txt", "a") as file:
                file.write("\n")
    save_file(weights, path)
    assert hash_of_files(paths) != before


def test_a_model_s_hash_is_not_of_the_order_and_the_metadata_of_its_files(small_model, folder):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    save_file(dict(reversed(load_file(path).items())), path, metadata={"made by": "somebody"})
    assert model_hash(load(folder, "cpu")) == model_hash(small_model)


# The same model, or another


def test_another_model_is_refused_by_its_hash(small_model, folder):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_out.bias"] += 0.01
    save_file(weights, path)
    about = made_with(small_model)
    digits = about["model_hash"].removeprefix("tensors:")[:12]
    with pytest.raises(
        InputError, match=rf"^a\.png was made with another model, .*{digits}…\), not"
    ):
        check_same("a.png", about, load(folder, "cpu"))


def test_what_else_the_bytes_depend_on_is_logged(small_model, remarks):
    check_same("a.png", made_with(small_model), small_model)
    assert not remarks.messages
    other = made_with(small_model) | {"threads": 99, "dtype": "bfloat16", "model": "renamed"}
    check_same("a.png", other, small_model)
    threads = torch.get_num_threads()
    assert remarks.messages == [
        f"a.png was made with dtype bfloat16, now float32, threads 99, now {threads}: "
        "the bytes may differ"
    ]


def test_a_fingerprint_is_of_what_a_picture_shows_whatever_file_it_came_from(picture, tmp_path):
    for name in ("a.png", "a.bmp"):
        picture.save(tmp_path / name)
        assert fingerprint(Image.open(tmp_path / name)) == fingerprint(picture)
    assert fingerprint(picture.rotate(180)) != fingerprint(picture)
    assert fingerprint(Image.new("RGB", (40, 20))) != fingerprint(Image.new("RGB", (20, 40)))


# A PNG's record


def test_a_record_is_read_as_it_was_written(png, recipe):
    assert Recipe.read(png) == recipe


def test_a_record_s_keys_are_these(recipe, small_model):
    chunks = recipe.chunks()
    assert list(chunks) == [
        "Software",
        "command",
        "prompt",
        "method",
        "settings",
        "seed",
        "picture_hash",
        "model",
        "model_hash",
        "device",
        "dtype",
        "threads",
        "torch",
        "version",
    ]
    assert chunks["Software"] == f"ptinv {ptinv.__version__}"
    assert (chunks["prompt"], chunks["method"], chunks["seed"]) == (PROMPT, "pti", "5")
    assert chunks["model_hash"] == model_hash(small_model)
    settings = json.loads(chunks["settings"])
    assert tuple(settings) == tuple(name for name in NAMES if name != "seed")
    assert (settings["steps"], settings["source"]) == (3, "une été ✓")
    assert "été" in chunks["settings"]


def test_a_generated_picture_s_record_has_the_settings_that_it_was_made_by(recipe):
    made = replace(recipe, command="generate", method="generate", settings=Settings(steps=3))
    assert GENERATED.items() <= json.loads(made.chunks()["settings"]).items()
    made = replace(made, settings=Settings(steps=3, source="a boat"))
    assert json.loads(made.chunks()["settings"])["cross_replace"] == 0.8


def test_a_given_mask_is_recorded_by_its_fingerprint(recipe, picture, tmp_path):
    chunks = replace(recipe, settings=Settings(mask=picture)).chunks()
    assert json.loads(chunks["settings"])["mask"] == "sha256:" + fingerprint(picture)
    save_picture(picture, tmp_path / "a.png", chunks)
    read = Recipe.read(tmp_path / "a.png")
    assert (read.mask_hash, read.settings.mask.size) == (fingerprint(picture), (1, 1))


@pytest.mark.parametrize("changed, reason", DAMAGED)
def test_a_record_that_lacks_or_garbles_a_chunk_is_refused_in_a_line(png, changed, reason):
    retold(png, **changed)
    with pytest.raises(InputError, match=reason) as caught:
        Recipe.read(png)
    assert str(png) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["plain.png", "a.jpg", "a.webp", "damaged.png", "missing.png"])
def test_a_picture_without_a_record_is_refused_in_a_line(png, recipe, picture, name):
    path = png.with_name(name)
    picture.save(png.with_name("plain.png"))
    shutil.copy(png, png.with_name("damaged.png"))
    png.with_name("damaged.png").write_bytes(png.read_bytes()[:300])
    if path.suffix != ".png":
        save_picture(picture, path, recipe.chunks())
    with pytest.raises(InputError) as caught:
        Recipe.read(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
