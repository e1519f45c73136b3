"""An inversion's file: whatever is in it, it is either as it was saved or refused in a sentence."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import PROMPT

import ptinv
from ptinv.core import ddim
from ptinv.errors import InputError, PictureError
from ptinv.methods.request import opened
from ptinv.settings import Settings, of_an_inversion
from ptinv.storage.inversion import Inversion
from ptinv.storage.provenance import model_hash


@pytest.fixture
def saved(inversion, tmp_path):
    inversion.save(tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def refused(path, reason=None):
    with pytest.raises(InputError, match=reason) as caught:
        Inversion.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def changed(inversion, name, tensor):
    """The same but for one tensor."""
    if name in inversion.extras:
        return replace(inversion, extras=inversion.extras | {name: tensor})
    return replace(inversion, **{name: tensor})


def test_it_says_what_it_was_made_with(saved, small_model):
    with safe_open(saved, framework="pt") as file:
        about = json.loads(file.metadata()["ptinv"])
    assert about["made_with"] == {
        "model": small_model.name,
        "model_hash": model_hash(small_model),
        "device": "cpu",
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "version": ptinv.__version__,
    }
    assert about["settings"] == {
        "method": "pti",
        "prompt": PROMPT,
        "steps": 4,
        "encode_ratio": 0.8,
        "inversion_guidance": 0.0,
        "seed": 0,
        "inner_steps": 1,
        "lr": 0.1,
        "lr_decay": 0.0,
        "stop_below": 0.0,
        "guidance": 7.5,
        "guidance_gate": [0.0, 1.0],
        "negative": "",
        "init_embedding": "target",
        "source": None,
        "size": None,
    }


def test_the_same_inversion_makes_the_same_file(saved, inversion, tmp_path):
    inversion.save(tmp_path / "y")
    assert (tmp_path / "y").read_bytes() == saved.read_bytes()


def test_a_file_cut_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for length in [*range(0, 3000, 97), *range(3000, len(whole), len(whole) // 40)]:
        saved.write_bytes(whole[:length])
        refused(saved)


def test_a_file_changed_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for place in [*range(8, 1500, 53), *range(1500, len(whole), len(whole) // 40)]:
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        refused(saved)


SETTINGS = [
    ("steps", 0, "steps must be"),
    ("steps", 5, "trajectory is|embeddings is|losses is"),
    ("steps", 4.0, "steps must be"),
    ("steps", "4", "steps must be"),
    ("steps", True, "steps must be"),
    ("steps", None, "steps must be"),
    ("encode_ratio", 0.1, "trajectory is|embeddings is|losses is"),
    ("encode_ratio", float("nan"), "encode_ratio must be"),
    ("guidance", float("inf"), "guidance must be"),
    ("lr", [], "lr must be"),
    ("inner_steps", 10**30, "inner_steps must be"),
    ("init_embedding", "random", "init_embedding must be"),
    ("init_embedding", "source", "needs a source text"),
    ("source", 5, "source must be"),
    ("prompt", 5, "the prompt must be"),
    ("prompt", "\ud800", "the prompt holds"),
    ("method", None, "the method must be"),
    ("strength", 1, "unknown settings: strength"),
]


@pytest.mark.parametrize("name, value, reason", SETTINGS)
def test_a_setting_out_of_range_is_refused_though_the_digest_is_right(
    inversion, tmp_path, name, value, reason
):
    replace(inversion, settings=inversion.settings | {name: value}).save(tmp_path / "x")
    refused(tmp_path / "x", reason)


@pytest.mark.parametrize("name", ["steps", "lr", "method", "prompt", "source"])
def test_a_setting_that_lacks_is_refused(inversion, tmp_path, name):
    settings = {key: value for key, value in inversion.settings.items() if key != name}
    replace(inversion, settings=settings).save(tmp_path / "x")
    refused(tmp_path / "x", f"'{name}'")


@pytest.mark.parametrize(
    "name, value", [("model_hash", None), ("threads", "1"), ("threads", True), ("version", 1)]
)
def test_what_it_was_made_with_has_its_types(inversion, tmp_path, name, value):
    replace(inversion, made_with=inversion.made_with | {name: value}).save(tmp_path / "x")
    refused(tmp_path / "x", "what it was made with is missing or damaged")
    lacking = {key: value for key, value in inversion.made_with.items() if key != name}
    replace(inversion, made_with=lacking).save(tmp_path / "x")
    refused(tmp_path / "x", "what it was made with is missing")


def with_value(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[7 % tensor.numel()] = value
    return tensor


TENSORS = [
    ("trajectory", lambda t: t[1:], "trajectory is"),
    ("trajectory", lambda t: t[..., 0], "trajectory is"),
    ("trajectory", lambda t: t.double(), "trajectory is F64"),
    ("trajectory", lambda t: with_value(t, torch.nan), "NaN"),
    ("embeddings", lambda t: t[:-1], "embeddings is"),
    ("embeddings", lambda t: t.half(), "embeddings is F16"),
    ("embeddings", lambda t: with_value(t, torch.inf), "infinity"),
    ("losses", lambda t: t[..., None], "losses is"),
    ("losses", lambda t: with_value(t, -torch.inf), "infinity"),
    ("pixels", lambda t: t.float(), "pixels is F32"),
    ("pixels", lambda t: t[:1], "pixels is"),
    ("pixels", lambda t: t[:, :1], "too small"),
    ("pixels", lambda t: t[:, :, :0], "whole inversion"),
]


@pytest.mark.parametrize("name, change, reason", TENSORS)
def test_a_tensor_of_another_make_is_refused_though_the_digest_is_right(
    inversion, tmp_path, name, change, reason
):
    changed(inversion, name, change(getattr(inversion, name))).save(tmp_path / "x")
    refused(tmp_path / "x", reason)


@pytest.mark.parametrize("name", ["pixels", "trajectory"])
def test_a_tensor_too_few_or_too_many_is_refused(saved, name):
    tensors = load_file(saved)
    with safe_open(saved, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors | {"weights": torch.zeros(1)}, saved, metadata=metadata)
    refused(saved, "its tensors are .*weights")
    del tensors[name]
    save_file(tensors, saved, metadata=metadata)
    refused(saved, "its tensors are")


@pytest.mark.parametrize(
    "about", ["[]", "5", "null", '"x"', "[" * 100_000, "{", '{"settings": []}']
)
def test_metadata_that_is_something_else_is_refused(saved, about):
    save_file(load_file(saved), saved, metadata={"ptinv": about})
    refused(saved, "whole inversion")


def test_a_checkpoint_is_no_inversion(small_folder):
    refused(small_folder / "unet" / "diffusion_pytorch_model.safetensors", "whole inversion")


# Whether it fits the model


def test_another_model_s_is_refused_by_its_hash(small_model, inversion):
    other = replace(inversion, made_with=inversion.made_with | {"model_hash": "0" * 64})
    for verb in (ptinv.edit, ptinv.reconstruct):
        with pytest.raises(InputError, match="made with another model, .*000000000000"):
            verb(small_model, other, PROMPT)


@pytest.mark.parametrize(
    "name, cut", [("trajectory", (..., slice(1))), ("embeddings", (..., slice(1)))]
)
def test_shapes_that_are_not_the_model_s_are_refused(small_model, inversion, name, cut):
    other = changed(inversion, name, getattr(inversion, name)[cut])
    with pytest.raises(InputError, match="shapes are not the model's"):
        ptinv.edit(small_model, other, PROMPT)


def test_another_precision_or_number_of_threads_is_said(small_model, inversion, remarks):
    other = replace(inversion, made_with=inversion.made_with | {"threads": 99, "dtype": "bfloat16"})
    ptinv.reconstruct(small_model, other)
    assert any("dtype bfloat16, now float32, threads 99" in message for message in remarks.messages)


# Files of other versions, and the batch axis


def test_a_file_that_another_model_made_is_refused_by_its_hash(small_model, inversion):
    other = replace(inversion, made_with=inversion.made_with | {"model_hash": "0" * 64})
    with pytest.raises(InputError, match="made with another model, .*000000000000"):
        other.check_fits(small_model)


def test_tensors_have_a_batch_axis_in_memory_and_none_in_the_file(saved, inversion):
    stored, opened = load_file(saved), Inversion.load(saved)
    assert opened.schedule == inversion.schedule and len(opened.schedule) == 3
    for name in ("trajectory", "embeddings", "losses"):
        assert torch.equal(getattr(opened, name), getattr(inversion, name))
        assert torch.equal(getattr(opened, name), stored[name][:, None])
    assert opened.trajectory.shape[:2] == (4, 1) and opened.losses.shape == (3, 1)
    assert opened.extras.keys() == {"embeddings", "losses"}


def test_a_batch_of_several_is_not_written(inversion, tmp_path):
    several = replace(inversion, trajectory=inversion.trajectory.repeat(1, 2, 1, 1, 1))
    with pytest.raises(InputError, match="one picture, not a batch of 2"):
        several.save(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_byte_for_byte_in_this_order(tmp_path):
    """The layout of every file of an inversion there is, made here without `save`."""
    made = {"model": "m", "model_hash": "0" * 64, "device": "cpu", "dtype": "float32"}
    made |= {"threads": 1, "torch": "2", "version": "0.1.0"}
    settings = of_an_inversion(Settings(steps=2, encode_ratio=1.0))
    settings |= {"method": "pti", "prompt": None}
    tensors = {
        "pixels": torch.arange(3 * 16 * 16, dtype=torch.uint8).view(3, 16, 16),
        "trajectory": torch.linspace(-1, 1, 3 * 4 * 2 * 2).view(3, 4, 2, 2),
        "losses": torch.tensor([0.5, 0.25]),
    }
    digest = hashlib.sha256(json.dumps([settings, made]).encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    about = {"settings": settings, "made_with": made, "sha256": digest.hexdigest()}
    save_file(tensors, tmp_path / "a", metadata={"ptinv": json.dumps(about)})
    opened = Inversion.load(tmp_path / "a")
    assert opened.digest == digest.hexdigest()
    assert opened.made_by == Settings(steps=2, encode_ratio=1.0)
    opened.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_inversion_of_stable_diffusion_s_size_takes_less_than_15_megabytes(tmp_path):
    kept = ptinv.METHODS["pti"].settings()
    steps = len(ddim.schedule(kept.steps, kept.encode_ratio))
    trajectory = torch.zeros(steps + 1, 1, 4, 64, 64)
    extras = {"embeddings": torch.zeros(steps, 1, 77, 768), "losses": torch.zeros(steps, 1)}
    pixels = torch.zeros(3, 512, 512, dtype=torch.uint8)
    Inversion(pixels, trajectory, of_an_inversion(kept), extras).save(tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 15e6


# What is an inversion


def test_an_inversion_is_known_by_its_name(saved):
    assert isinstance(opened(saved), Inversion)
    for name, error in (("missing.SAFETENSORS", InputError), ("missing.png", PictureError)):
        with pytest.raises(InputError, match="no regular file") as caught:
            opened(name)
        assert caught.type is error
