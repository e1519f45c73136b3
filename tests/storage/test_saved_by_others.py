"""What diffusers and transformers save themselves opens as the model that they opened.

diffusers is an extra (`pip install -e ".[peers]"`); nothing here reaches a network.
"""

import json
import os
import shutil

import pytest
import torch

import ptinv
from ptinv.errors import CheckpointError
from ptinv.storage.checkpoint import EMBEDDED

pytestmark = pytest.mark.filterwarnings("ignore")  # of others' libraries
PROMPTS = ["two  DOGS in the snow", "a t-shirt's <dog> in 1990, naïve 🐶", "a " * 90, ""]
PARTS = ("unet", "vae", "text_encoder")


@pytest.fixture(scope="module")
def pipeline():
    """The embedded model as diffusers opens it."""
    diffusers = pytest.importorskip("diffusers")
    return diffusers.StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)


@pytest.fixture(scope="module")
def original():
    return ptinv.load(device="cpu")


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    """The embedded model as diffusers saves it."""
    folder = tmp_path_factory.mktemp("saved")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(saved, tmp_path / "model")


def assert_same(folder, original):
    """Every tensor is equal, and so are the ids and the embedding of every prompt."""
    opened = ptinv.load(folder, device="cpu", dtype="float32")
    for part in PARTS:
        ours, theirs = (getattr(m, part).state_dict() for m in (original, opened))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(opened.tokenizer.ids(PROMPTS), original.tokenizer.ids(PROMPTS))
    assert torch.equal(opened.embed(PROMPTS), original.embed(PROMPTS))
    assert opened.latent_scale == original.latent_scale
    assert opened.unet.config == original.unet.config


def test_a_pipeline_saved_whole_opens_as_the_same_model(saved, original):
    assert_same(saved, original)


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_shards_open_as_the_same_model(pipeline, original, tmp_path, variant):
    pipeline.save_pretrained(tmp_path, max_shard_size="4MB", variant=variant)
    pipeline.text_encoder.save_pretrained(
        tmp_path / "text_encoder", max_shard_size="400KB", variant=variant
    )
    if (whole := tmp_path / "text_encoder" / "model.safetensors").is_file():
        whole.unlink()
    for part in PARTS:
        assert len(list((tmp_path / part).glob("*-0000*.safetensors"))) > 1
    assert_same(tmp_path, original)


def test_a_folder_of_fp16_files_alone_opens_as_the_same_model(pipeline, original, tmp_path):
    pipeline.save_pretrained(tmp_path, variant="fp16")
    assert not list(tmp_path.glob("*/*model.safetensors"))
    assert_same(tmp_path, original)


def test_a_text_encoder_made_anew_opens_whatever_its_names(copied, original):
    """transformers 5 saves one that it has made itself without the prefix `text_model.`"""
    from transformers import CLIPTextConfig, CLIPTextModel

    made = CLIPTextModel(CLIPTextConfig.from_pretrained(copied / "text_encoder"))
    own = dict(made.named_parameters())
    for name, tensor in original.text_encoder.text_model.named_parameters():
        own.get(name, own.get(f"text_model.{name}")).data.copy_(tensor)
    made.save_pretrained(copied / "text_encoder")
    assert_same(copied, original)


def test_a_text_encoder_with_a_projection_opens_as_the_same_model(copied, original):
    from transformers import CLIPTextModelWithProjection

    folder = copied / "text_encoder"
    CLIPTextModelWithProjection.from_pretrained(folder).save_pretrained(folder)
    assert_same(copied, original)


def test_a_hub_cache_of_symbolic_links_opens_as_the_same_model(saved, original, tmp_path):
    (tmp_path / "blobs").mkdir()
    for i, path in enumerate(path for path in sorted(saved.rglob("*")) if path.is_file()):
        blob = shutil.copy(path, tmp_path / "blobs" / f"{i:064x}")
        link = tmp_path / "snapshots" / "0123abcd" / path.relative_to(saved)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    assert_same(tmp_path / "snapshots" / "0123abcd", original)


# The tokenizer


def test_a_token_that_was_added_is_one_token_in_either_form(tmp_path):
    """Its embedding is a copy of another word's, so it embeds as that word does."""
    diffusers = pytest.importorskip("diffusers")
    taught = diffusers.StableDiffusionPipeline.from_pretrained(EMBEDDED, local_files_only=True)
    new = taught.tokenizer.convert_tokens_to_ids("dog</w>")
    taught.tokenizer.add_tokens("<my-dog>")
    taught.text_encoder.resize_token_embeddings(len(taught.tokenizer))
    rows = taught.text_encoder.get_input_embeddings().weight.data
    rows[-1] = rows[new]
    taught.save_pretrained(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    shutil.rmtree(tmp_path / "old" / "tokenizer")
    shutil.copytree(EMBEDDED / "tokenizer", tmp_path / "old" / "tokenizer")
    added = json.dumps({"<my-dog>": len(rows) - 1})
    (tmp_path / "old" / "tokenizer" / "added_tokens.json").write_text(added)
    new, old = (ptinv.load(tmp_path / form, device="cpu") for form in ("new", "old"))
    for model in (new, old):
        assert len(rows) - 1 in model.tokenizer.ids(["a <my-dog> runs"])
        assert torch.equal(model.embed("a <my-dog> runs"), model.embed("a dog runs"))
    assert old.files[-1].name == "added_tokens.json"
    assert torch.equal(new.tokenizer.ids(PROMPTS), old.tokenizer.ids(PROMPTS))


def test_of_two_forms_tokenizer_json_is_read_and_hashed(copied, original):
    """It is what transformers reads; the others may be of another model."""
    for name in ("vocab.json", "merges.txt"):
        (copied / "tokenizer" / name).write_text("{}")
    assert_same(copied, original)
    model = ptinv.load(copied, device="cpu")
    assert [path.name for path in model.files if path.parent.name == "tokenizer"] == [
        "tokenizer.json"
    ]
    path = copied / "tokenizer" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert ptinv.load(copied, device="cpu").digests != model.digests


# The configurations


def test_one_value_for_every_level_may_be_a_list_of_it(copied, original):
    path = copied / "unet" / "config.json"
    said = json.loads(path.read_text())
    for key in ("attention_head_dim", "layers_per_block", "cross_attention_dim"):
        said[key] = [said[key]] * len(said["block_out_channels"])
    path.write_text(
        json.dumps(said | {"only_cross_attention": [False] * 3, "sample_size": [32] * 2})
    )
    assert_same(copied, original)


def test_instruct_pix2pix_is_named(copied):
    diffusers = pytest.importorskip("diffusers")
    config = json.loads((copied / "unet" / "config.json").read_text())
    unet = diffusers.UNet2DConditionModel.from_config(config, in_channels=8)
    unet.save_pretrained(copied / "unet")
    with pytest.raises(CheckpointError, match="is InstructPix2Pix .8 input channels"):
        ptinv.load(copied, device="cpu")
