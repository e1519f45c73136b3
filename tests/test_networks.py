"""The networks are Stable Diffusion v1's, number for number; and the attention hook is harmless.

Parity is at full size, with every tensor drawn by its name (see `data/README.md`), against outputs
that diffusers and transformers gave for the same tensors.
"""

import pytest
import torch
import torch.nn.functional as F
from networks import KEYS, drawn, fill, recorded, relative_error

from ptinv.attention import Place
from ptinv.text import SD_V1_TEXT, TextEncoder
from ptinv.unet import UNet, UNetConfig
from ptinv.vae import VAE, VAEConfig

GOLDEN = recorded("golden_sd14.npz")

BUILD = {
    "unet": lambda: UNet(UNetConfig()),
    "vae": lambda: VAE(VAEConfig()),
    "text_encoder": lambda: TextEncoder(SD_V1_TEXT),
}
PARAMETERS = {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480}


def on_meta(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return BUILD[name]()


@pytest.mark.parametrize("name", BUILD)
def test_tensors_have_the_names_and_shapes_of_the_checkpoint(name):
    shapes = {key: list(tensor.shape) for key, tensor in on_meta(name).state_dict().items()}
    assert shapes == KEYS[name]


@pytest.mark.parametrize("name", BUILD)
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
    network = fill(on_meta("text_encoder"), KEYS["text_encoder"])
    network.reset_buffers()
    return network.to(device)


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


# Half precision at full size, on small inputs: few CPUs convolve in float16 themselves

# bfloat16 keeps 8 bits of mantissa and float16 11. Hundreds of layers, each rounding its output,
# were measured to err by up to 3.5 units in the last place of the largest value; twice that is
# allowed, which is 0.06 and 0.008.
HALF_TOLERANCE = {dtype: 8 * torch.finfo(dtype).eps for dtype in (torch.bfloat16, torch.float16)}

halves = pytest.mark.parametrize("dtype", HALF_TOLERANCE, ids=["bfloat16", "float16"])


def assert_near_float32(device, dtype, function):
    """Compares each tensor that `function` returns under autocast with what it is without."""
    expected = function()
    with torch.autocast(device, dtype):
        actual = function()
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == torch.float32
        assert relative_error(a, b) < HALF_TOLERANCE[dtype]


@full_size
@halves
def test_unet_and_its_gradient_are_near_in_half_precision(unet, device, dtype):
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


# The attention hook, on a UNet small enough to look at

SMALL = UNetConfig(
    channels=(16, 32, 32),
    attends=(True, True, False),
    layers=1,
    heads=2,
    context_channels=16,
    groups=8,
    trained_size=32,
)


class Everything:
    """A control that wants every layer, keeps what it is shown, and may change it."""

    def __init__(self, change=lambda probabilities: probabilities):
        self.change = change
        self.shown = []

    def wants(self, place):
        return True

    def __call__(self, probabilities, place):
        self.shown.append((place, probabilities))
        return self.change(probabilities)


class Nothing:
    """A control that wants no layer."""

    def wants(self, place):
        return False

    def __call__(self, probabilities, place):
        raise AssertionError("a layer that was not wanted was shown")


@pytest.fixture
def small():
    torch.manual_seed(0)
    return UNet(SMALL).eval().requires_grad_(False)


@pytest.fixture
def inputs():
    """Latents, timesteps and contexts of two rows; maps are 8×12, 4×6 and 2×3; 5 tokens."""
    torch.manual_seed(1)
    return torch.randn(2, 4, 8, 12), torch.tensor([10, 700]), torch.randn(2, 5, 16)


def test_masks_are_made_at_the_level_nearest_to_16_cells_across():
    assert UNetConfig().mask_level == 2
    assert SMALL.mask_level == 1


def test_a_control_that_wants_nothing_changes_no_bit(small, inputs):
    assert torch.equal(small(*inputs, control=Nothing()), small(*inputs))


def test_a_control_that_returns_what_it_is_shown_changes_next_to_nothing(small, inputs):
    """Not nothing: the fused kernel sums in another order."""
    assert relative_error(small(*inputs, control=Everything()), small(*inputs)) < 1e-5


def test_a_control_is_offered_every_attention_layer(small, inputs):
    control = Everything()
    small(*inputs, control=control)
    maps = [
        ("down", 0, 8, 12),
        ("down", 1, 4, 6),
        ("mid", 2, 2, 3),
        *[("up", 1, 4, 6)] * 2,
        *[("up", 0, 8, 12)] * 2,
    ]
    assert [place for place, _ in control.shown] == [
        Place(kind, *map) for map in maps for kind in ("self", "cross")
    ]


def test_a_control_is_shown_probabilities_of_each_pixel_over_what_it_attends_to(small, inputs):
    control = Everything()
    small(*inputs, control=control)
    for place, probabilities in control.shown:
        pixels = place.height * place.width
        assert probabilities.shape == (2, 2, pixels, pixels if place.kind == "self" else 5)
        assert (probabilities >= 0).all()
        torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(2, 2, pixels))


def test_what_a_control_returns_is_used_in_their_stead(small, inputs):
    """Where all attend to the first token alone, the others may say what they like."""

    def first_token(probabilities):
        return torch.eye(probabilities.shape[-1])[0].expand_as(probabilities)

    control = Everything(first_token)
    control.wants = lambda place: place.kind == "cross"
    z, t, context = inputs
    other = torch.cat([context[:, :1], torch.randn(2, 4, 16)], dim=1)
    assert torch.equal(small(z, t, context, control), small(z, t, other, control))
    assert not torch.equal(small(z, t, context), small(z, t, other))


def test_a_control_that_changes_one_row_leaves_the_others_alone(small, inputs):
    """Branches of an edit share a batch, and nothing else."""

    def blur_second(probabilities):
        blurred = torch.full_like(probabilities[1:], 1 / probabilities.shape[-1])
        return torch.cat([probabilities[:1], blurred])

    kept = small(*inputs, control=Everything())
    changed = small(*inputs, control=Everything(blur_second))
    assert torch.equal(changed[0], kept[0])
    assert relative_error(changed[1], kept[1]) > 1e-3


@pytest.mark.parametrize("control", [None, Everything()], ids=["fused", "controlled"])
def test_a_batch_equals_one_by_one(small, inputs, control):
    z, t, context = inputs
    rows = [small(z[i : i + 1], int(t[i]), context[i : i + 1], control) for i in range(2)]
    assert relative_error(small(*inputs, control=control), torch.cat(rows)) < 1e-5


@pytest.mark.parametrize("control", [None, Everything()], ids=["fused", "controlled"])
def test_inputs_are_left_as_they_were(small, inputs, control):
    before = [x.clone() for x in inputs]
    small(*inputs, control=control)
    assert all(torch.equal(a, b) for a, b in zip(inputs, before, strict=True))


def test_the_gradient_reaches_every_token_with_and_without_a_control(small, inputs):
    z, t, context = inputs
    gradients = []
    for control in (None, Everything()):
        leaf = context.clone().requires_grad_()
        small(z, t, leaf, control).square().mean().backward()
        assert (leaf.grad.abs().amax(dim=-1) > 0).all()
        gradients.append(leaf.grad)
    assert relative_error(gradients[1], gradients[0]) < 1e-5
    assert all(parameter.grad is None for parameter in small.parameters())


@halves
@torch.no_grad()
def test_a_control_sees_float32_probabilities_whatever_the_precision(small, inputs, dtype):
    control = Everything()
    assert_near_float32("cpu", dtype, lambda: [small(*inputs, control=control)])
    expected = small(*inputs)
    stored = small.to(dtype)(*inputs, control=control)
    assert stored.dtype == torch.float32
    assert relative_error(stored, expected) < HALF_TOLERANCE[dtype]
    assert all(probabilities.dtype == torch.float32 for _, probabilities in control.shown)
