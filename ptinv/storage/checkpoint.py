"""Opens a Stable Diffusion v1 checkpoint with care: a sentence for everything that can be wrong.

Two layouts hold the same tensors:

    a folder, as diffusers writes it    unet/, vae/, text_encoder/, tokenizer/, scheduler/
    one `.safetensors` file             the original CompVis names, without any configuration

`core/model.py` builds the networks and fills them. Here a checkpoint's kind, its configuration, and
the names, shapes and types of its tensors are checked first. Nothing but safetensors is opened, and
tensors are views into the memory-mapped file until they are converted.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..core import model
from ..core.model import WEIGHTS, Configs, StableDiffusion
from ..core.text import Tokenizer
from ..errors import CheckpointError, InputError
from . import original_names as names
from .folder_configs import ONLY, read_configs

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # as safetensors calls them
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
TOKENIZER_FILES = ("vocab.json", "merges.txt")
PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "tiny", PACKAGE.parent / "weights" / "tiny")  # installed; in a checkout
EMBEDDED = next((place for place in PLACES if place.is_dir()), PLACES[0])  # the tiny model


class Entry(NamedTuple):
    """One tensor in a file, as the header describes it."""

    path: Path
    key: str  # the file's name for it
    shape: tuple[int, ...]
    dtype: str  # as safetensors calls it


Entries = dict[str, Entry]  # by the name that the network gives the tensor


class Checkpoint(NamedTuple):
    """The contents of a checkpoint, as far as headers and configurations list them."""

    configs: Configs
    tokenizer: Path
    tensors: dict[str, Entries]  # by network: unet, vae, text_encoder

    @property
    def files(self) -> list[Path]:
        """The files of the networks and the tokenizer, always in the same order."""
        weights = [entry.path for entries in self.tensors.values() for entry in entries.values()]
        return [*dict.fromkeys(weights), *(self.tokenizer / name for name in TOKENIZER_FILES)]


def load(
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    tokenizer: str | Path | None = None,
) -> StableDiffusion:
    """Opens a diffusers-layout folder or an original-layout `.safetensors` file.

    path: without one, the embedded tiny model. device: CUDA where there is one, else the CPU.
    dtype: how the weights are stored and run: float16 on CUDA, float32 on the CPU. tokenizer: its
    folder, if not beside the file.
    Raises CheckpointError for anything but a whole Stable Diffusion v1 checkpoint, InputError for a
    device or dtype that there isn't, or a tokenizer with tokens that the text encoder lacks.
    """
    device, path = _device(device), EMBEDDED if path is None else path
    usual = torch.float16 if device.type == "cuda" else torch.float32
    dtype = usual if dtype is None else DTYPES.get(dtype, dtype)
    if dtype not in DTYPES.values():
        raise InputError(f"dtype must be one of {', '.join(DTYPES)}, not {dtype}")
    checkpoint = open_checkpoint(path, tokenizer, half=dtype == torch.float16)
    try:
        networks = model.networks(checkpoint.configs)
    except Exception as error:  # a configuration of nonsense: every layer has its own complaint
        raise CheckpointError(f"{path}: its configuration makes no network ({error})") from error
    for name, network in networks.items():
        _fill(network, checkpoint.tensors[name], device, dtype)
    return StableDiffusion(
        **networks,
        tokenizer=_tokenizer(checkpoint.tokenizer, checkpoint.configs.text["vocab_size"]),
        latent_scale=checkpoint.configs.latent_scale,
        device=device,
        dtype=dtype,
        name=Path(path).resolve().name,
        files=tuple(checkpoint.files),
    )


def _tokenizer(folder: Path, known: int) -> Tokenizer:
    """CLIP's tokenizer in a folder, for a text encoder that knows so many tokens. Raises InputError
    for any other."""
    try:
        tokenizer = Tokenizer(folder)
        start, _, end = tokenizer.clip("a")["input_ids"]
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise InputError(f"{folder} does not hold a CLIP tokenizer ({error})") from error
    if end != start + 1:  # CLIP's vocabulary ends with both
        raise InputError(
            f"the tokenizer in {folder} has its tokens in another order than CLIP's; "
            "use the one that belongs to the model"
        )
    if (there := len(tokenizer.clip)) > known:
        more = f"{there} tokens, but the text encoder was trained on {known}"
        raise InputError(f"the tokenizer in {folder} has {more}")
    return tokenizer


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device of that name. Raises InputError if there is none here."""
    name = str(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"there is no device called {name!r}; use cuda or cpu") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"the device must be cuda or cpu, not {device}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use the cpu device")
    last = torch.cuda.device_count() - 1 if device.type == "cuda" else 0
    # torch keeps the lowest bits of a number that is too large
    if str(device) != name or (device.index or 0) > last:
        raise InputError(f"there is no device {name}; the last of its kind is {device.type}:{last}")
    return device


def open_checkpoint(
    path: str | Path, tokenizer: str | Path | None = None, half: bool = False
) -> Checkpoint:
    """Finds out what a folder or file holds; no tensor is read yet.

    tokenizer: the folder with `vocab.json` and `merges.txt`, if it isn't in its usual place.
    half: prefer the files named fp16 where a folder has both.
    Raises CheckpointError for anything that is not Stable Diffusion v1 in safetensors.
    """
    path = Path(path)
    if path.is_dir():
        folder, configs = path, read_configs(path)
        tensors = {part: _of_folder(path, part, half) for part in WEIGHTS}
    elif path.is_file():
        folder, configs = path.parent, names.SD_V1
        tensors = _of_file(path, configs)
    else:
        raise CheckpointError(f"there is no checkpoint at {path}")
    places = [Path(tokenizer)] if tokenizer else [folder / "tokenizer", folder]
    for place in places:
        if all((place / name).is_file() for name in TOKENIZER_FILES):
            return Checkpoint(configs, place, tensors)
    looked, lacks = " or ".join(map(str, places)), " and ".join(TOKENIZER_FILES)
    raise CheckpointError(f"no tokenizer ({lacks}) in {looked}; give its folder as the tokenizer")


def _entries(path: Path) -> Entries:
    """Reads the names, shapes and types in one safetensors file, from its header. Raises
    CheckpointError for a pickle, with the command that converts it, and for a damaged file."""
    if path.suffix in PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which can run code when it is opened; convert it first: "
            f"python tools/convert_checkpoint.py {path} {path.with_suffix('.safetensors')}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            return {k: Entry(path, k, (*s.get_shape(),), s.get_dtype()) for k, s in slices.items()}
    except (SafetensorError, OSError) as error:
        wrong = f"{path} is not a whole safetensors file ({error}); fetch it again"
        raise CheckpointError(wrong) from error


def _of_folder(folder: Path, part: str, half: bool) -> Entries:
    """One network's tensors in a folder, without the old spellings in diffusers' own files."""
    usual = folder / part / WEIGHTS[part]
    both = [usual, usual.with_suffix(".fp16.safetensors")]
    pickles = [path for suffix in PICKLES for path in usual.parent.glob(f"*{suffix}")]
    order = [*(reversed(both) if half else both), *pickles]
    path = next((path for path in order if path.is_file()), None)
    if path is None:
        raise CheckpointError(f"the checkpoint lacks {usual} (or {both[1].name})")
    spelt: Entries = {}
    for name, entry in _entries(path).items():
        if (ours := model.respelt(name)) in spelt:
            raise CheckpointError(f"{path} holds {ours} twice, once in an old spelling")
        if not name.endswith("position_ids"):  # CLIP's count from 0 to 76, in older files
            spelt[ours] = entry
    return spelt


def _of_file(path: Path, configs: Configs) -> dict[str, Entries]:
    """Every network's tensors in a single file in the original layout, under our names."""
    found = _entries(path)
    if kind := _other_kind(found):
        raise CheckpointError(f"{path} is {kind}; {ONLY}")
    modules = dict(unet=names.unet_modules(configs.unet), vae=names.vae_modules(configs.vae))
    renamed = {key: names.rename(key, modules) for key in found if not names.is_left_out(key)}
    if foreign := [key for key, place in renamed.items() if place is None]:
        raise CheckpointError(f"{path} holds unknown tensors: {_some(foreign)}")
    tensors: dict[str, Entries] = {network: {} for network in WEIGHTS}
    for key, (network, name) in renamed.items():
        tensors[network][name] = found[key]
    return tensors


def _other_kind(found: Entries) -> str | None:
    """The name of the model that a single file holds, if it isn't a whole Stable Diffusion v1."""

    def width(layer: str) -> int | None:  # the channels that it takes in, if there is such a layer
        entry = found.get(f"model.diffusion_model.input_blocks.{layer}.weight")
        return entry and next(iter(entry.shape[1:]), 0)

    def begins(*beginnings: str) -> bool:
        return any(key.startswith(beginnings) for key in found)

    inputs, context = width("0.0"), width("1.1.transformer_blocks.0.attn2.to_k")
    no_unet = "not a whole checkpoint in the original layout: it has no UNet"
    if begins("down_blocks.", "encoder.", "text_model."):
        no_unet += " under the original names (to open diffusers' layout, give the whole folder)"
    kinds = {
        "Stable Diffusion XL": begins("conditioner.embedders."),
        "a model that predicts v, not noise": "v_pred" in found,
        no_unet: inputs is None,
        "an inpainting model (its UNet has 9 input channels)": inputs == 9,
        f"a model whose UNet has {inputs} input channels": inputs != 4,
        "Stable Diffusion 2": context == 1024 or begins("cond_stage_model.model."),
    }
    return next((kind for kind, is_it in kinds.items() if is_it), None)


def _fill(network: nn.Module, found: Entries, device: torch.device, dtype: torch.dtype) -> None:
    """Fills a network on the meta device by `core.model.fill`, after every tensor is accounted for.
    Raises CheckpointError naming tensors that are missing, extra, of another shape or no floats."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    path = next((entry.path for entry in found.values()), "the checkpoint")
    if problems := _problems(wanted, found):
        kind = type(network).__name__
        raise CheckpointError(f"{path} does not hold the {kind}; {'; '.join(problems)}")

    def tensors() -> Iterator[tuple[str, Tensor]]:
        # The file is mapped anew every 16 tensors, so that the pages already read are let go: where
        # tensors are converted, loading takes little more memory than the weights.
        for start in range(0, len(wanted), 16):
            with safe_open(path, framework="pt") as file:
                for name in list(wanted)[start : start + 16]:
                    yield name, file.get_tensor(found[name].key).reshape(wanted[name])

    model.fill(network, tensors(), device, dtype)


def _problems(wanted: dict[str, tuple[int, ...]], found: Entries) -> list[str]:
    """The tensors that are not as the network has them: a few names of each kind of problem."""
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    whole = [f"{name} is {e.dtype}" for name, e in found.items() if e.dtype not in FLOATING]
    misshapen = []
    for name, shape in wanted.items():
        # the original VAE writes its attention's linear layers as 1×1 convolutions
        convolution = (*shape, 1, 1) if "mid_block.attentions.0.to_" in name else shape
        if name in found and found[name].shape not in (shape, convolution):
            misshapen.append(f"{name} is {list(found[name].shape)}, not {list(shape)}")
    kinds = ("missing", "not of this network", "of another shape", "not floating-point")
    listed = zip(kinds, (missing, extra, misshapen, whole), strict=True)
    problems = [f"{kind}: {_some(tensors)}" for kind, tensors in listed if tensors]
    # another network's file; where tensors only lack, it is a part of ours
    return [*problems, ONLY] if extra or misshapen else problems


def _some(tensors: list[str], shown: int = 3) -> str:
    """Joins a few of the tensors' names, and counts the others."""
    more = len(tensors) - shown
    return ", ".join(tensors[:shown]) + (f" and {more} more" if more > 0 else "")
