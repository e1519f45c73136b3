"""The embedded model: what it can do on scenes it was not trained on, and that it is Stable
Diffusion to other programs too."""

from pathlib import Path
from statistics import mean

import pytest
import torch
from world import scenes

import ptinv
from ptinv.methods.words import unknown_words
from ptinv.metrics import psnr

TINY = Path(__file__).parents[1] / "weights" / "tiny"
HELD_OUT = 3


@pytest.fixture(scope="module")
def model():
    return ptinv.load(TINY, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def inverted(model):
    """Held-out scenes with their captions, inverted once without a prompt."""
    drawn = [scenes.random_scene(scenes.split_rng("test", 100, i)) for i in range(HELD_OUT)]
    return [
        (ptinv.invert(model, scenes.draw(scene), method="ddim-edit"), scenes.caption(scene))
        for scene in drawn
    ]


def qualities(model, inverted, **options) -> list[float]:
    """PSNR of each reconstruction, dB."""
    return [
        psnr(ptinv.reconstruct(model, inversion, caption, **options), inversion.picture)
        for inversion, caption in inverted
    ]


@pytest.mark.slow
def test_the_paper_s_table_2_shows_at_home(model, inverted):
    """Guidance costs plain inversion its fidelity, and prompt tuning gets most of it back."""

    def reached(**options) -> float:
        return mean(qualities(model, inverted, **options))

    ceiling, guided = reached(method="vae"), reached(method="ddim", guidance=7.5)
    assert ceiling > 32
    assert reached(method="ddim", guidance=0.0) > ceiling - 0.5
    assert guided < ceiling - 8
    assert reached(method="pti") > guided + 8


def test_every_tensor_of_a_known_word_was_trained_and_other_words_say_nothing(model):
    assert unknown_words(model, " ".join(scenes.WORDS)) == []
    assert unknown_words(model, "A red car, on the GRASS.") == []
    assert unknown_words(model, "a grey zebra") == ["grey", "zebra"]


def test_the_folder_is_small():
    assert sum(path.stat().st_size for path in TINY.rglob("*") if path.is_file()) <= 40e6


@pytest.mark.filterwarnings("ignore")  # of diffusers about itself
def test_diffusers_loads_the_folder_and_computes_the_same(model):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(TINY).to(torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    prompt, side = "a red car on the grass", model.unet.config.trained_size
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    theirs = pipeline(
        prompt, latents=noise, num_inference_steps=10, guidance_scale=7.5, output_type="pil"
    ).images[0]
    assert psnr(theirs, ptinv.generate(model, prompt, seed=0, steps=10)) > 50
