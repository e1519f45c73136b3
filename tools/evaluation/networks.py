"""Networks that measure pictures: files and folders that the user names, and nothing is fetched.

    inception   FID's Inception, weights-inception-2015-12-05-6726825d.pth, for torch-fidelity:
                2048 features of a picture's middle at 256 pixels, for CSFID and the Fréchet
                distance
    clip        a folder of transformers' CLIPModel with its tokenizer; usual is
                openai/clip-vit-large-patch14
    dino        a folder of transformers' ViTModel: facebook/dino-vitb8, for the structure distance
    lpips       squeezenet1_1-b8a52dc0.pth (PIE-Bench's choice) or alexnet-owt-7be5be79.pth
                (FlexIT's) of torchvision, for torchmetrics; `lpips` is of the pictures' middle
                at 256 pixels, as FlexIT has it

The libraries of the last and the first are the extra `metrics`; torchvision must be of torch's own
build, for the CPU or for CUDA. Figures by other files are other
figures: a run's settings hold their hashes. Weights are opened as tensors, never as programs.
"""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer, ViTModel

import ptinv

from .metrics import pixels

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 256  # pixels that FlexIT measures at
KEYS = ("key", "k_proj")  # a layer's name in transformers, old and new
EXTRA = "needs an extra: pip install -e '.[metrics]'"
TRUNKS = {"squeezenet1_1": "squeeze", "alexnet": "alex"}


@dataclass(frozen=True)
class Networks:
    """The networks' files and folders, as far as they were named; each is opened when needed."""

    inception: Path | None = None
    clip: Path | None = None
    dino: Path | None = None
    lpips: Path | None = None

    def hashes(self) -> dict[str, str]:
        """A hash of each that was named. Raises InputError for one that does not exist."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: hash_of(path) for name, path in named.items() if path}

    @torch.no_grad()
    def figures(
        self, made: Image.Image, picture: Image.Image, text: str | None, mask: Image.Image | None
    ) -> dict[str, Any]:
        """Figures of an edit by the named networks: `clip_edited` within the mask, on black."""
        found: dict[str, Any] = {}
        if self.clip and text:
            found["clip"] = clip_score(*self._clip, made, text)
            if mask:
                found["clip_edited"] = clip_score(*self._clip, only(made, mask), text)
        if self.dino:
            found["structure"] = structure_distance(self._dino, picture, made)
        if self.lpips:
            found["lpips"] = self.distance(middle(made, SIDE), middle(picture, SIDE))
        if self.inception:
            found["features"] = packed(inception_features(self._inception, made))
            found["features_before"] = packed(inception_features(self._inception, picture))
        return found

    @torch.no_grad()
    def distance(self, a: Image.Image, b: Image.Image) -> float:
        """LPIPS between two pictures of one size."""
        return self._lpips(a, b)

    @cached_property
    def _clip(self) -> tuple[CLIPModel, CLIPTokenizer]:
        return _local(CLIPModel, self.clip).eval(), _local(CLIPTokenizer, self.clip)

    @cached_property
    def _dino(self) -> ViTModel:
        return _local(ViTModel, self.dino, add_pooling_layer=False).eval()

    @cached_property
    def _inception(self) -> nn.Module:
        return inception_by(self.inception)

    @cached_property
    def _lpips(self) -> Callable[[Image.Image, Image.Image], float]:
        return lpips_by(self.lpips)


def hash_of(path: Path) -> str:
    """The hash of a file, or of a folder's files, short. Raises InputError for neither."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    try:
        digests = [sha256(file.read_bytes()).hexdigest() for file in files]
    except OSError as error:
        raise ptinv.InputError(f"{path} cannot be read ({error.strerror})") from error
    return sha256(" ".join(digests).encode()).hexdigest()[:16]


def _local(kind: Any, folder: Path | None, **options: Any) -> Any:
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except (OSError, ValueError) as error:
        wrong = f"{folder} is no folder of transformers' {kind.__name__}"
        raise ptinv.InputError(f"{wrong} ({str(error).splitlines()[0]})") from error


def normalised(levels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(1, 3, H, W) less a mean a channel, over a deviation a channel."""
    mean, std = (levels.new_tensor(values)[:, None, None] for values in (mean, std))
    return (levels - mean) / std


def middle(
    picture: Image.Image, side: int, how: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """The square in the middle of a picture, resized to a side before it is cut out."""
    size = [int(side * length / min(picture.size)) for length in picture.size]
    left, top = ((length - side) // 2 for length in size)
    return picture.resize(size, how).crop((left, top, left + side, top + side))


def clip_score(
    model: CLIPModel, tokenizer: CLIPTokenizer, picture: Image.Image, text: str
) -> float:
    """100 times the cosine between a picture's and a text's embeddings, at least 0 (Hessel et al.,
    arXiv 2104.08718, without its factor)."""
    side = model.config.vision_config.image_size
    levels = pixels(middle(picture, side, Image.Resampling.BICUBIC)).float() / 255
    longest = model.config.text_config.max_position_embeddings
    tokens = tokenizer([text], truncation=True, max_length=longest, return_tensors="pt")
    out = model(
        input_ids=tokens["input_ids"],
        attention_mask=tokens["attention_mask"],
        pixel_values=normalised(levels, CLIP_MEAN, CLIP_STD),
    )
    return max(0.0, 100 * float(F.cosine_similarity(out.image_embeds, out.text_embeds)))


def structure_distance(model: ViTModel, a: Image.Image, b: Image.Image) -> float:
    """The mean squared difference of two pictures' self-similarity of keys in the last layer
    (Tumanyan et al., arXiv 2201.00424), as PIE-Bench's harness has it: levels go in as 0 … 255."""
    x, y = (self_similarity(keys(model, picture)) for picture in (a, b))
    return float((x - y).square().mean())


def keys(model: ViTModel, picture: Image.Image) -> Tensor:
    """The keys of the last layer's tokens, (tokens, width)."""
    side, found = model.config.image_size, []
    levels = F.interpolate(pixels(picture).float(), (side, side), mode="bilinear", antialias=True)
    last = [module for name, module in model.named_modules() if name.split(".")[-1] in KEYS][-1]
    hook = last.register_forward_hook(lambda *call: found.append(call[-1]))
    try:
        model(normalised(levels, IMAGENET_MEAN, IMAGENET_STD))
    finally:
        hook.remove()
    return found[0][0]


def self_similarity(keys: Tensor) -> Tensor:
    """The cosines between all tokens' keys, (tokens, width) -> (tokens, tokens)."""
    unit = F.normalize(keys, dim=1, eps=1e-8)
    return unit @ unit.T


def inception_by(path: Path) -> nn.Module:
    """The network that takes bytes (b, 3, H, W) to features (b, 2048). Raises InputError without
    its library, or for another file."""
    weights_in(path)  # torch-fidelity would unpickle anything
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ptinv.InputError(f"Inception {EXTRA}") from error
    how = dict(feature_extractor_weights_path=str(path))
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], **how).eval()


def inception_features(model: nn.Module, picture: Image.Image) -> Tensor:
    """A picture's features (2048,), of its middle at 256 pixels."""
    return model(pixels(middle(picture, SIDE)).to(torch.uint8))[0][0].float()


def lpips_by(trunk: Path) -> Callable[[Image.Image, Image.Image], float]:
    """LPIPS (arXiv 1801.03924) by a trunk's file. Raises InputError without its libraries, or for
    another file."""
    weights = weights_in(trunk)
    kind = next((short for name, short in TRUNKS.items() if trunk.name.startswith(name)), None)
    if kind is None:
        names = " and ".join(TRUNKS)
        raise ptinv.InputError(f"{trunk} has the name of no trunk; there are {names}-….pth")
    try:
        from torchmetrics.functional.image.lpips import _NoTrainLpips

        network = _NoTrainLpips(net=kind, pnet_rand=True)
    except ImportError as error:
        raise ptinv.InputError(f"LPIPS {EXTRA}") from error
    # its layers lie in slices: slices.0.0.weight or slice1.0.weight of features.0.weight
    wanted = {key: re.sub(r"^slice(s\.)?\d+", "features", key) for key in network.net.state_dict()}
    if missing := [name for name in wanted.values() if name not in weights]:
        raise ptinv.InputError(f"{trunk} lacks {missing[0]}; fetch torchvision's again")
    network.net.load_state_dict({key: weights[name] for key, name in wanted.items()})
    return lambda a, b: float(network(*(pixels(p).float() / 127.5 - 1 for p in (a, b))))


def weights_in(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of PyTorch's. Raises InputError for anything else."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ptinv.InputError(f"{path} cannot be read ({error.strerror})") from error
    except (EOFError, RuntimeError, ValueError, UnpicklingError):
        found = None  # torch's own words would advise to run what the file holds
    if not isinstance(found, dict):
        raise ptinv.InputError(f"{path} holds no weights of PyTorch's; fetch it again")
    return found


def only(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture's pixels where a mask is white, on black."""
    return Image.composite(picture, Image.new("RGB", picture.size), mask.convert("L"))


def packed(features: Tensor) -> str:
    """Features as a text, for a line of JSON."""
    return base64.b64encode(features.numpy().astype("<f4").tobytes()).decode()


def unpacked(text: str) -> Tensor:
    """The features in a text."""
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), "<f4").copy())
