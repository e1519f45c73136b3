"""The networks are Stable Diffusion v1's, number for number.

Parity is at full size, with every tensor drawn by its name (see `data/README.md`), against outputs
that diffusers and transformers gave for the same tensors.
"""

import pytest
import torch
import torch.nn.functional as F
from networks import (
    KEYS,
    SD_V1_4,
    assert_near_float32,
    drawn,
    fill,
    halves,
    recorded,
    relative_error,
)

from ptinv.core.model import Configs, configs_of, networks
from ptinv.core.unet import UNet, UNetConfig
from ptinv.core.vae import VAEConfig

GOLDEN = recorded("golden_sd14.npz")

PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


def on_meta(name: str) -> torch.nn.Module:
    return networks(configs_of(*SD_V1_4.values()))[name]


def test_the_tables_of_stable_diffusion_are_the_defaults():
    configs = configs_of(*SD_V1_4.values())
    assert configs == Configs(UNetConfig(), VAEConfig(), configs.text, 0.18215)


@pytest.mark.parametrize("name", PARAMETERS)
def test_tensors_have_the_names_and_shapes_of_the_checkpoint(name):
    shapes = {key: list(tensor.shape) for key, tensor in on_meta(name).state_dict().items()}
    assert shapes == KEYS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_those_of_stable_diffusion(name):
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == PARAMETERS[name]


# Parity at full size

# Relative to the largest value. Two float32 implementations that sum in another order differ by
# 1e-6 to 1e-4: a rounding of 2^-24, grown by some hundred layers. A wrong epsilon, padding or
# activation shows above 1e-3.
TOLERANCE = 1e-3

full_size = pytest.mark.full_size
no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=no_gpu)])
def device(request):
    with pytest.MonkeyPatch.context() as patch:
        # convolutions on a GPU would otherwise keep 11 of float32's 24 bits
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        yield request.param


@pytest.fixture(scope="module")
def unet(device):
    return fill(on_meta("unet"), KEYS["unet"]).to(device)


@pytest.fixture(scope="module")
def vae(device):
    return fill(on_meta("vae"), KEYS["vae"]).to(device)


@pytest.fixture(scope="module")
def text_encoder(device):
    return fill(on_meta("text_encoder"), KEYS["text_encoder"]).to(device)


@full_size
@pytest.mark.parametrize("t", [1, 481, 981])
@torch.no_grad()
def test_unet_predicts_the_noise_that_stable_diffusion_predicts(unet, device, t):
    z, context = drawn("latent", 1, 4, 64, 64), drawn("context", 1, 77, 768)
    eps = unet(z.to(device), t, context.to(device))
    assert relative_error(eps, GOLDEN[f"unet.eps.{t}"]) < TOLERANCE


@full_size
@torch.no_grad()
def test_unet_takes_a_timestep_for_each_row_of_any_aspect_ratio(unet, device):
    z, context = drawn("latent2", 2, 4, 32, 48), drawn("context2", 2, 77, 768)
    eps = unet(z.to(device), torch.tensor([261, 741], device=device), context.to(device))
    assert relative_error(eps, GOLDEN["unet.eps.batch2.32x48"]) < TOLERANCE


@full_size
def test_unet_gives_the_context_the_gradient_that_tunes_it(unet, device):
    z, target = (drawn(name, 1, 4, 32, 32).to(device) for name in ("latent3", "target"))
    context = drawn("context", 1, 77, 768).to(device).requires_grad_()
    loss = F.mse_loss(unet(z, 481, context), target)
    loss.backward()
    assert relative_error(loss, GOLDEN["unet.loss.481"]) < TOLERANCE
    assert relative_error(context.grad, GOLDEN["unet.grad_context.481"]) < TOLERANCE


@full_size
@torch.no_grad()
def test_vae_encodes_and_decodes_as_stable_diffusion_does(vae, device):
    mean, logvar = vae.encode(drawn("image", 1, 3, 64, 96).clamp(-1, 1).to(device))
    decoded = vae.decode(drawn("vae_z", 1, 4, 8, 12).to(device))
    assert relative_error(mean, GOLDEN["vae.mean"]) < TOLERANCE
    assert relative_error(logvar, GOLDEN["vae.logvar"]) < TOLERANCE
    assert relative_error(decoded, GOLDEN["vae.decoded"]) < TOLERANCE


@full_size
@torch.no_grad()
def test_text_encoder_gives_the_context_that_stable_diffusion_was_trained_on(text_encoder, device):
    context = text_encoder(GOLDEN["text.ids"].to(device))
    assert relative_error(context, GOLDEN["text.out"]) < TOLERANCE


# Half precision, on small inputs: few CPUs convolve in float16 themselves


@pytest.fixture(scope="module")
def narrow_unet(device):
    """As deep as Stable Diffusion's UNet, so that as many layers round, and a fifth as wide."""
    with torch.device("meta"):
        network = UNet(UNetConfig(channels=(64, 128, 256, 256)))
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    return fill(network, shapes).to(device)


@full_size
@halves
def test_unet_and_its_gradient_are_near_in_half_precision(unet, narrow_unet, device, dtype):
    if (device, dtype) == ("cpu", torch.float16):
        unet = narrow_unet
    z, target = (drawn(name, 1, 4, 8, 16).to(device) for name in ("latent3", "target"))

    def function():
        context = drawn("context", 1, 77, 768).to(device).requires_grad_()
        eps = unet(z, 481, context)
        # the scale keeps small gradients from vanishing in float16
        (1024 * F.mse_loss(eps, target)).backward()
        return eps, context.grad

    assert_near_float32(device, dtype, function)


@full_size
@halves
@torch.no_grad()
def test_vae_is_near_in_half_precision(vae, device, dtype):
    image, z = drawn("image", 1, 3, 16, 32).clamp(-1, 1), drawn("vae_z", 1, 4, 2, 4)

    def function():
        return *vae.encode(image.to(device)), vae.decode(z.to(device))

    assert_near_float32(device, dtype, function)


@full_size
@halves
@torch.no_grad()
def test_text_encoder_is_near_in_half_precision(text_encoder, device, dtype):
    ids = GOLDEN["text.ids"].to(device)
    assert_near_float32(device, dtype, lambda: [text_encoder(ids)])
