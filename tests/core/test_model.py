"""A folder becomes three networks, tensor name by tensor name, and nothing but a whole one does."""

import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ptinv.core import model

TINY = Path(__file__).parents[2] / "weights" / "tiny"
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


@pytest.fixture(scope="module")
def tiny():
    return model.load(TINY)


@pytest.fixture
def folder(tmp_path):
    """A copy of the embedded model's folder, to be changed."""
    return shutil.copytree(TINY, tmp_path / "tiny")


def rewrite(file, change):
    """Replaces the tensors of a file by what `change` makes of them."""
    save_file(change(load_file(file)), file)


def tensors_of(opened):
    parts = {part: getattr(opened, part).state_dict() for part in model.WEIGHTS}
    return {(part, name): tensor for part, state in parts.items() for name, tensor in state.items()}


def test_every_tensor_is_the_file_s_frozen_and_off_the_meta_device(tiny):
    for part, file in model.WEIGHTS.items():
        network, stored = getattr(tiny, part), load_file(TINY / part / file)
        assert network.state_dict().keys() == stored.keys()
        assert all(torch.equal(x, stored[name]) for name, x in network.state_dict().items())
        assert not network.training
        assert not any(x.requires_grad for x in network.parameters())
        assert all(x.device.type == "cpu" for x in (*network.parameters(), *network.buffers()))


def test_a_dtype_is_that_of_every_weight(tiny):
    half = model.load(TINY, dtype=torch.bfloat16)
    for part in model.WEIGHTS:
        assert {x.dtype for x in getattr(half, part).parameters()} == {torch.bfloat16}
    z0 = half.encode(Image.open(TINY / "examples" / "birds.png"))
    eps = half.predict_noise(z0, 481, half.embed("a red car"))
    assert z0.dtype == eps.dtype == torch.float32


def test_the_spellings_of_stable_diffusion_1_4_s_own_files_are_read(tiny, folder):
    """Its VAE's attention has names of an older diffusers; its text encoder's file holds ids."""

    def old_vae(tensors):
        spelt = {}
        for name, tensor in tensors.items():
            for ours, theirs in OLD.items():
                name = name.replace(f"attentions.0.{ours}.", f"attentions.0.{theirs}.")
            spelt[name] = tensor
        assert len(spelt.keys() - tensors.keys()) == 16  # two blocks, weight and bias of four each
        return spelt

    def old_text(tensors):
        return tensors | {"text_model.embeddings.position_ids": torch.arange(77)[None]}

    rewrite(folder / "vae" / model.WEIGHTS["vae"], old_vae)
    rewrite(folder / "text_encoder" / model.WEIGHTS["text_encoder"], old_text)
    found, expected = tensors_of(model.load(folder)), tensors_of(tiny)
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda tensors: {k: x for k, x in tensors.items() if k != "conv_in.bias"}, "conv_in.bias"),
        (lambda tensors: tensors | {"conv_mid.bias": torch.zeros(4)}, "conv_mid.bias"),
        (lambda tensors: tensors | {"conv_in.bias": torch.zeros(3)}, "conv_in.bias"),
    ],
    ids=["missing", "unknown", "misshapen"],
)
def test_a_tensor_too_few_too_many_or_of_another_shape_is_refused_by_name(folder, change, said):
    rewrite(folder / "unet" / model.WEIGHTS["unet"], change)
    with pytest.raises(RuntimeError, match=said):
        model.load(folder)


def test_tensors_are_converted_one_by_one_as_they_come(tiny):
    """So that a checkpoint in another precision is never in memory twice."""
    described = [json.loads((TINY / part / "config.json").read_bytes()) for part in model.WEIGHTS]
    network = model.networks(model.configs_of(*described))["vae"]
    given = []

    def tensors():
        for name, tensor in tiny.vae.state_dict().items():
            assert not any(earlier() is not None for earlier in given[:-1])
            tensor = tensor.clone()
            given.append(weakref.ref(tensor))
            yield name, tensor

    model.fill(network, tensors(), torch.device("cpu"), torch.bfloat16)
    assert len(given) == len(list(network.parameters()))
    assert {x.dtype for x in network.parameters()} == {torch.bfloat16}


def test_checkpointing_keeps_less_for_the_same_gradient(tiny):
    torch.manual_seed(0)
    z, start = torch.randn(1, 4, 32, 32), tiny.embed("a red car")

    def run(checkpointing):
        kept, context = [], start.clone().requires_grad_()
        model = replace(tiny, checkpointing=checkpointing)
        # what a block keeps while it runs again is its own, and not seen here
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
            eps = model.predict_noise(z, 481, context)
        (gradient,) = torch.autograd.grad(eps.square().sum(), context)
        maps = {x.data_ptr(): x.nbytes for x in kept if not isinstance(x, torch.nn.Parameter)}
        return eps, gradient, sum(maps.values())

    (eps, gradient, kept), (eps_again, gradient_again, kept_again) = map(run, (False, True))
    assert torch.equal(eps, eps_again) and gradient.abs().max() > 0
    assert (gradient - gradient_again).abs().max() <= 1e-5 * gradient.abs().max()
    assert kept_again < kept / 2


def test_checkpointing_is_nothing_where_there_is_no_gradient(tiny):
    z, context = torch.ones(1, 4, 32, 32), tiny.embed("a red car")
    eps = replace(tiny, checkpointing=True).predict_noise(z, 481, context)
    assert torch.equal(eps, tiny.predict_noise(z, 481, context)) and not eps.requires_grad


def test_a_picture_of_any_size_has_a_latent_of_about_the_trained_area(tiny):
    assert (tiny.pixels_per_cell, tiny.unet.config.trained_size) == (4, 32)
    assert tiny.picture_size((500, 500)) == (128, 128)
    assert tiny.latent_size((500, 500)) == (32, 32)
    width, height = tiny.picture_size((300, 100))
    assert tiny.latent_size((300, 100)) == (height // 4, width // 4)
    z0 = tiny.encode(Image.new("RGB", (300, 100), "red"))
    assert z0.shape == (1, 4, *tiny.latent_size((300, 100)))
    assert tiny.decode(z0).size == (width, height)


def test_a_transparent_picture_is_encoded_over_white(tiny):
    clear = Image.new("RGBA", (128, 128), (9, 9, 9, 0))
    white = Image.new("RGB", (128, 128), "white")
    assert torch.equal(tiny.encode(clear), tiny.encode(white))


def test_a_model_is_shown_in_one_line(tiny):
    shown = repr(tiny)
    assert shown.startswith("StableDiffusion(") and len(shown) < 150 and "\n" not in shown
    assert all(word in shown for word in ("'tiny'", "cpu", "float32"))
