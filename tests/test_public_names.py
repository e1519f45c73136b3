"""Every public name of the package, called with the arguments that are promised."""

import subprocess
import sys
from importlib import import_module

import pytest
import torch
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv


@pytest.mark.parametrize(
    "name",
    "load StableDiffusion Step invert edit reconstruct generate steps result Result METHODS Method "
    "Settings Inversion InputError CheckpointError PictureError ddim attention_maps "
    "AttentionMaps".split(),
)
def test_a_public_name_is_there(name):
    assert name in ptinv.__all__
    value = getattr(ptinv, name)
    assert callable(value) or name in ("METHODS", "ddim")


def test_nothing_is_public_that_is_not_listed():
    assert all(hasattr(ptinv, name) for name in ptinv.__all__)
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        _ = ptinv.magic


def test_ptinv_ddim_is_the_core_s_however_it_is_imported():
    core = import_module("ptinv.core.ddim")
    assert ptinv.ddim is core
    assert import_module("ptinv.ddim") is core


def test_the_functions_of_ddim_take_the_arguments_that_are_promised():
    ddim, z = ptinv.ddim, torch.ones(1, 4, 2, 3)
    assert ddim.alphas_cumprod().shape == (1000,)
    assert ddim.timesteps(50)[:2] == [981, 961] and ddim.timesteps(50)[-1] == 1
    for made in (
        ddim.add_noise(z0=z, noise=z, alpha=0.5),
        ddim.predict_z0(z=z, eps=z, alpha=0.5),
        ddim.step(z=z, eps=z, alpha_from=0.5, alpha_to=0.7, sigma=0.0, noise=None),
        ddim.guide(eps_null=z, eps_cond=z, guidance=7.5),
    ):
        assert made.shape == z.shape


@torch.no_grad()
def test_the_model_s_parts_and_verbs_have_the_shapes_that_are_promised(small_model, picture):
    z, context = torch.ones(2, 4, 16, 16), small_model.embed([PROMPT, OTHER_PROMPT])
    width = small_model.unet.config.context_channels
    assert context.shape == (2, 77, width)
    assert small_model.embed(PROMPT).shape == (1, 77, width)
    ids = small_model.tokenizer.ids([PROMPT, OTHER_PROMPT])
    assert ids.shape == (2, 77) and torch.equal(small_model.text_encoder(ids), context)
    for t in (501, torch.tensor([501, 501])):
        eps = small_model.unet(z, t, context, control=None)
        assert eps.shape == z.shape
    mean, logvar = small_model.vae.encode(torch.zeros(2, 3, 32, 32))
    assert mean.shape == logvar.shape == z.shape
    assert small_model.vae.decode(mean).shape == (2, 3, 32, 32)
    z0 = small_model.encode(picture)
    assert z0.shape == (1, 4, *small_model.latent_size(picture.size))
    assert isinstance(small_model.decode(z0), Image.Image)


def test_the_verbs_take_the_arguments_that_are_promised(small_model, picture, tmp_path):
    inversion = ptinv.invert(
        small_model,
        picture,
        PROMPT,
        method="pti",
        steps=4,
        encode_ratio=0.8,
        inner_steps=1,
        lr=0.1,
        guidance=7.5,
    )
    inversion.save(tmp_path / "x.safetensors")
    stored = ptinv.Inversion.load(tmp_path / "x.safetensors")
    edited = ptinv.edit(small_model, stored, PROMPT, method="pti", eta=0.9, guidance=7.5)
    back = ptinv.reconstruct(small_model, stored, PROMPT, method="pti", guidance=7.5)
    assert isinstance(stored, ptinv.Inversion)
    assert edited.size == back.size == picture.size
    for step in ptinv.steps(small_model, stored, PROMPT, method="pti"):
        parts = step.z_from, step.z, step.eps_null, step.eps_cond, step.eps, step.z0
        assert {part.shape for part in parts} == {step.z.shape}
    result = ptinv.result(small_model, stored, PROMPT, method="pti")
    assert isinstance(step, ptinv.Step) and isinstance(result, ptinv.Result)
    assert result.picture.tobytes() == edited.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("statement", ["import ptinv.ddim", "from ptinv import ddim"])
def test_ddim_can_be_the_first_thing_that_is_imported(statement):
    code = f"{statement}; import ptinv, ptinv.core.ddim as core; print(ptinv.ddim is core)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.slow
def test_without_a_path_the_embedded_model_is_opened():
    model = ptinv.load(device="cpu")
    assert model.name == "tiny"
    assert ptinv.generate(model, PROMPT, steps=1).mode == "RGB"
