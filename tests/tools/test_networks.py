"""Networks that the user names: small random ones in the same formats, against direct formulas."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation import networks
from evaluation.networks import Networks
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, ViTConfig, ViTModel

import ptinv
from ptinv.storage.checkpoint import EMBEDDED

PICTURE, OTHER = (
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 56, 3), np.uint8))
    for seed in (0, 1)
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    small = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    text = small | dict(vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id,
                        eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    vision = small | dict(image_size=32, patch_size=8)
    torch.manual_seed(2)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                       num_attention_heads=2, image_size=32, patch_size=8)  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


class Inception(torch.nn.Module):
    """Two features of each colour, as torch-fidelity returns them."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        y = x.float().mean(dim=(2, 3))
        return (torch.cat([y, y.square()], dim=1),)


def test_the_clip_score_is_100_times_the_cosine_of_both_embeddings(clip):
    found = Networks(clip=clip).figures(PICTURE, OTHER, "a red dog", None)
    model = CLIPModel.from_pretrained(clip).eval()
    tokens = CLIPTokenizer.from_pretrained(clip)(["a red dog"], return_tensors="pt")
    near = PICTURE.resize((44, 32), Image.Resampling.BICUBIC).crop((6, 0, 38, 32))
    x = torch.from_numpy(np.array(near)).movedim(2, 0)[None] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (networks.CLIP_MEAN, networks.CLIP_STD))
    with torch.no_grad():
        out = model(pixel_values=(x - mean) / std, **tokens)
    wanted = 100 * F.cosine_similarity(out.image_embeds, out.text_embeds).item()
    assert found.keys() == {"clip"}
    assert found["clip"] == pytest.approx(max(0, wanted), abs=1e-3)


def test_the_edited_part_s_clip_score_sees_nothing_outside_the_mask(clip):
    mask = Image.new("L", PICTURE.size)
    mask.paste(255, (10, 10, 30, 30))
    changed = Image.composite(PICTURE, OTHER, mask)
    both = [Networks(clip=clip).figures(p, OTHER, "a red dog", mask) for p in (PICTURE, changed)]
    assert both[0]["clip_edited"] == both[1]["clip_edited"]
    assert both[0]["clip"] != both[1]["clip"]


def test_the_structure_distance_is_of_the_last_layer_s_keys(dino):
    named = Networks(dino=dino)
    assert named.figures(PICTURE, PICTURE, None, None) == {"structure": 0}
    found = named.figures(PICTURE, OTHER, None, None)["structure"]
    model = ViTModel.from_pretrained(dino, add_pooling_layer=False).eval()
    similar = []
    for picture in (PICTURE, OTHER):
        x = torch.from_numpy(np.array(picture)).movedim(2, 0)[None].float()
        x = F.interpolate(x, (32, 32), mode="bilinear", antialias=True)
        x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
            [0.229, 0.224, 0.225]
        )[:, None, None]
        with torch.no_grad():
            states = model(x, output_hidden_states=True).hidden_states[-2]
            layer = [m for n, m in model.named_modules() if n.endswith("layer.1")
                     or n.endswith("layers.1")][0]  # fmt: skip
            norm = layer.layernorm_before(states)
            (key,) = [m for n, m in layer.named_modules() if n.split(".")[-1] in networks.KEYS]
            k = key(norm)[0]
        similar.append(F.cosine_similarity(k[:, None], k[None], dim=2))
    wanted = (similar[0] - similar[1]).square().mean().item()
    assert found == pytest.approx(wanted, rel=1e-4) and found > 0


def test_inception_s_features_are_of_the_middle_and_come_through_a_line_of_json():
    found = networks.inception_features(Inception(), PICTURE)
    square = PICTURE.resize((358, 256), Image.Resampling.BILINEAR).crop((51, 0, 307, 256))
    mean = np.asarray(square, np.float64).mean((0, 1))
    features = networks.unpacked(networks.packed(found))
    assert features.numpy() == pytest.approx(np.concatenate([mean, mean**2]), rel=1e-5)


def test_each_named_network_has_a_hash_and_none_other(clip, dino, tmp_path):
    hashes = Networks(clip=clip, dino=dino).hashes()
    assert hashes.keys() == {"clip", "dino"} and Networks().hashes() == {}
    file = tmp_path / "inception.pth"
    file.write_bytes(b"one")
    one = Networks(inception=file).hashes()["inception"]
    file.write_bytes(b"two")
    assert Networks(inception=file).hashes()["inception"] != one


@pytest.mark.parametrize("name", ["inception", "clip", "dino", "lpips"])
def test_what_is_no_such_network_is_a_sentence(name, tmp_path):
    path = tmp_path / "squeezenet1_1-b8a52dc0.pth"
    path.write_bytes(b"nothing of the kind")
    given = path if name in ("inception", "lpips") else tmp_path
    with pytest.raises(ptinv.InputError, match=str(tmp_path)):
        Networks(**{name: given}).figures(PICTURE, OTHER, "a red dog", None)
    with pytest.raises(ptinv.InputError, match="cannot be read"):
        Networks(**{name: tmp_path / "none"}).hashes()


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", "a list", "a program"])
def test_a_file_that_holds_no_weights_is_one_sentence_and_is_never_run(content, tmp_path):
    path, flag = tmp_path / "weights.pth", tmp_path / "run"

    class Program:
        def __reduce__(self):
            return (Path.touch, (flag,))

    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save([1] if content == "a list" else Program(), path)
    with pytest.raises(ptinv.InputError) as raised:
        networks.weights_in(path)
    assert str(raised.value) == f"{path} holds no weights of PyTorch's; fetch it again"
    assert not flag.exists()
    with pytest.raises(ptinv.InputError, match="none.pth cannot be read"):
        networks.weights_in(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "kind, name", [("squeezenet1_1", "squeezenet1_1"), ("alexnet", "alexnet-owt")]
)
def test_lpips_is_torchmetrics_with_the_trunk_of_the_file(kind, name, tmp_path):
    models = pytest.importorskip("torchvision.models")
    pytest.importorskip("torchmetrics")
    torch.manual_seed(0)
    trunk = getattr(models, kind)(weights=None)
    path = tmp_path / f"{kind}-any.pth"
    torch.save(trunk.state_dict(), path)
    wide = PICTURE.resize((96, 96)), OTHER.resize((96, 96))
    measured = networks.lpips_by(path)
    assert measured(wide[0], wide[0]) == 0
    wanted = lpips_by_hand(trunk.eval().features, kind, *wide)
    assert measured(*wide) == pytest.approx(wanted, rel=1e-4) and wanted > 0
    torch.save(getattr(models, kind)(weights=None).state_dict(), path)
    assert networks.lpips_by(path)(*wide) != pytest.approx(wanted, rel=1e-4)


def lpips_by_hand(features: torch.nn.Sequential, kind: str, *pictures: Image.Image) -> float:
    """The weighted squared difference of unit features, summed over a trunk's layers."""
    from torchmetrics.functional.image import lpips

    taps, short = {
        "squeezenet1_1": ((1, 4, 7, 9, 10, 11, 12), "squeeze"),
        "alexnet": ((1, 4, 7, 9, 11), "alex"),
    }[kind]
    heads = Path(lpips.__file__).with_name("lpips_models") / f"{short}.pth"
    weights = torch.load(heads, map_location="cpu", weights_only=True)
    mean = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    deviation = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    x = torch.stack([torch.from_numpy(np.array(p)).movedim(2, 0) / 127.5 - 1 for p in pictures])
    x, total = (x - mean) / deviation, 0.0
    with torch.no_grad():
        for i, layer in enumerate(features):
            x = layer(x)
            if i in taps:
                a, b = F.normalize(x, dim=1)
                weight = weights[f"lin{taps.index(i)}.model.1.weight"][0]
                total += float(((a - b).square() * weight).sum(0).mean())
    return total


@pytest.mark.parametrize("size", [(40, 56), (56, 40), (40, 40), (701, 333)])
def test_the_middle_is_a_square_that_keeps_the_proportions(size):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    ramps = Image.fromarray(np.stack([x, y, x], 2).astype(np.uint8))
    square = np.asarray(networks.middle(ramps, 32), float)
    assert square.shape == (32, 32, 3)
    step = 255 / 32 * min(size) / np.array(size)  # a pixel of the square, on either ramp
    slopes = np.diff(square[:, :, 0].mean(0)).mean(), np.diff(square[:, :, 1].mean(1)).mean()
    assert slopes == pytest.approx(step, rel=0.06)
    assert square.mean((0, 1)) == pytest.approx(127, abs=max(step))
