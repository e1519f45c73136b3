"""Opens a Stable Diffusion v1 checkpoint with care: a sentence for everything that can be wrong.

It is a folder as diffusers writes it (unet/, vae/, text_encoder/, tokenizer/, scheduler/), or one
`.safetensors` file with the original CompVis names and no configuration. Its kind, configuration,
and the names, shapes and types of its tensors are checked here; `core/model.py` then builds and
fills the networks. Nothing but safetensors is opened; tensors are at first views of the file.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..core import model
from ..core.model import WEIGHTS, Configs, StableDiffusion
from ..core.text import Tokenizer
from ..errors import CheckpointError, Doubt, InputError, because, remark
from .files import MOST
from .layouts import BARE_TEXT, BY_INPUTS, ONLY, SD_V1, is_left_out, read_configs, read_json, rename
from .provenance import hash_of_files, hash_of_tensors

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
COMPILERS = "g++", "clang++", "c++", "cl"  # what torch.compile may find
FLOATING = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")  # as safetensors calls them
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SAFE = re.compile(r"(diffusion_pytorch_)?model(\.fp16)?\.safetensors(\.(index|fp16|json))*")
TOKEN = "^(emb_params|string_to_|<)"  # of a name in the file of a textual inversion
NETWORK = r"^(down_blocks|embeddings|encoder|text_model)\."  # of a name in the file of one alone
TOKENIZERS = ("tokenizer.json",), ("vocab.json", "merges.txt")  # of both, transformers reads this
PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "tiny", PACKAGE.parent / "weights" / "tiny")  # installed; in a checkout
EMBEDDED = next((place for place in PLACES if place.is_dir()), PLACES[0])  # the tiny model


class Entry(NamedTuple):
    """One tensor in a file, as the header describes it."""

    path: Path
    key: str  # the file's name for it
    shape: list[int]
    dtype: str  # as safetensors calls it


Entries = dict[str, Entry]  # by name


class Checkpoint(NamedTuple):
    """The contents of a checkpoint, as far as headers and configurations list them."""

    configs: Configs
    tokenizer: list[Path]  # its files, in one folder
    tensors: Entries  # by network and the network's name for it: "unet.conv_in.weight"


@torch.inference_mode(False)  # weights of the other kind would take no part in gradients
def load(
    path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = "auto",
    tokenizer: str | Path | None = None,
    compile: bool = False,
) -> StableDiffusion:
    """Opens a diffusers-layout folder or an original-layout `.safetensors` file.

    path: without one, the embedded tiny model. device: CUDA where there is one, else the CPU.
    dtype: of the networks; auto: float16 on CUDA, bfloat16 on a CPU that has instructions for it,
    else float32. tokenizer: its folder, if not beside the file. compile: the UNet by torch.compile,
    at the first calls of each shape. Raises CheckpointError for anything but a whole Stable
    Diffusion v1, InputError for a device or dtype that there isn't, a tokenizer with tokens that
    the text encoder lacks, or where nothing can compile. Doubts a dtype that the CPU emulates.
    """
    device, path = _device(device), Path(EMBEDDED if path is None else path)
    dtype = precision(dtype, device)
    if compile and device.type == "cpu" and not any(map(which, COMPILERS)):
        raise InputError("compile needs a C++ compiler here; install g++, or leave it out")
    configs, words, tensors = open_checkpoint(path, tokenizer, half=dtype == torch.float16)
    networks = nn.ModuleDict(model.networks(configs))
    if wrong := _mismatches(networks.state_dict(), tensors):
        raise CheckpointError(f"{path} does not hold a whole Stable Diffusion v1 ({wrong}); {ONLY}")
    model.fill(networks, _read(tensors), device, dtype)
    files = (*dict.fromkeys(entry.path for entry in tensors.values()), *words)
    clip = _tokenizer(words[0].parent, configs.text["vocab_size"])
    name, digests = path.resolve().name, (hash_of_files(files), hash_of_tensors(networks.values()))
    how: dict[str, Any] = dict(device=device, dtype=dtype, name=name, files=files, digests=digests)
    parts = {**networks, "unet": torch.compile(networks["unet"]) if compile else networks["unet"]}
    return StableDiffusion(**parts, tokenizer=clip, latent_scale=configs.latent_scale, **how)


def precision(wanted: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision of that name, or the fastest here. Raises InputError for any other."""
    if wanted in (None, "auto"):
        wanted = "float16" if device.type == "cuda" else "bfloat16"
        wanted = wanted if _is_fast(wanted, device) else "float32"
    dtype = DTYPES.get(wanted, wanted)
    if (name := str(dtype).removeprefix("torch.")) not in DTYPES:
        raise InputError(f"dtype must be auto or one of {', '.join(DTYPES)}, not {wanted}")
    if not _is_fast(name, device):
        slow = f"this CPU has no instructions for {name} and emulates it, up to 35 times slower"
        remark(f"{slow}; dtype float32 is faster here", Doubt)
    return dtype


def _is_fast(dtype: str, device: torch.device) -> bool:
    """True unless the device emulates a precision: the CPU, where oneDNN lacks instructions."""
    if dtype == "float32" or device.type == "cuda":
        return True
    asked = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    return torch.backends.mkldnn.is_available() and getattr(torch.ops.mkldnn, asked[dtype])()


def _device(wanted: str | torch.device | None) -> torch.device:
    """The device of that name. Raises InputError if there is none here."""
    gpus = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    there = [*(gpus if torch.cuda.is_available() else ()), "cpu", "cpu:0"]
    if (name := str(wanted or there[0])) not in there:
        raise InputError(f"there is no device {name} here, only {', '.join(there)}")
    return torch.device(name)


def _tokenizer(folder: Path, known: int) -> Tokenizer:
    """CLIP's tokenizer in a folder, of `known` tokens at most. Raises InputError for any other."""
    files = (path for path in folder.iterdir() if path.suffix in (".json", ".txt", ".jinja"))
    try:
        if odd := [p.name for p in files if not p.is_file() or p.stat().st_size > MOST]:
            raise InputError(f"{odd[0]} is no regular file of at most {MOST} bytes")
        tokenizer = Tokenizer(folder)
        start, word, end = tokenizer.clip("a")["input_ids"]
        read, size = tokenizer.clip.convert_ids_to_tokens(word), tokenizer.clip.vocab_size
        if read != "a</w>" or not start + 1 == end < size:  # CLIP's vocabulary ends with both
            raise InputError("its tokens are others or in another order; use the model's own")
        if (there := 1 + max(tokenizer.clip.get_vocab().values())) > known:
            raise InputError(f"it has {there} tokens, but the text encoder was trained on {known}")
        return tokenizer
    except Exception as error:  # the tokenizers library raises nothing narrower
        wrong = "does not hold the model's CLIP tokenizer, or one for a newer transformers"
        raise InputError(f"{folder} {wrong}{because(error)}") from error


def open_checkpoint(
    path: str | Path, tokenizer: str | Path | None = None, half: bool = False
) -> Checkpoint:
    """Finds out what a folder or file holds; no tensor is read yet. half: prefer the files named
    fp16. Raises CheckpointError for anything else, and for a tokenizer that is not found."""
    path = Path(path)
    if path.is_dir():
        folder, configs = path, read_configs(path)
        files = ((part, file) for part in WEIGHTS for file in _weights(path / part, half))
        stored = ((f"{part}.{k}", e) for part, file in files for k, e in _entries(file).items())
    elif path.is_file():
        folder, configs, found = path.parent, SD_V1, _entries(path)
        _check_single(path, found)
        stored = ((rename(key), entry) for key, entry in found.items())
    else:
        raise CheckpointError(f"there is no checkpoint at {path}")
    tensors: Entries = {}
    for name, entry in stored:
        if (ours := model.respelt(rename(name, BARE_TEXT))) in tensors:
            raise CheckpointError(f"{entry.path} holds {ours} twice, in two spellings or shards")
        # the original VAE writes its attention's linear layers as 1×1 convolutions
        if "mid_block.attentions.0.to_" in ours and entry.shape[2:] == [1, 1]:
            entry = entry._replace(shape=entry.shape[:2])
        tensors[ours] = entry
    places = [Path(tokenizer)] if tokenizer else [folder / "tokenizer", folder]
    for words in ([place / name for name in form] for place in places for form in TOKENIZERS):
        if all(path.is_file() for path in words):
            added = words[0].with_name("added_tokens.json")  # of a textual inversion
            return Checkpoint(configs, words + [added] * added.is_file(), tensors)
    looked, lacks = " or ".join(map(str, places)), " or ".join(map(" and ".join, TOKENIZERS))
    raise CheckpointError(f"no tokenizer ({lacks}) in {looked}; give its folder as the tokenizer")


def _weights(folder: Path, half: bool) -> list[Path]:
    """The files of a network's weights: one, else the shards that an index lists. Raises
    CheckpointError if there are none, and for an index of anything but files beside it."""
    known = [p for p in folder.iterdir() if p.suffix in PICKLES or SAFE.fullmatch(p.name)]
    if not (files := [path for path in known if path.is_file()]):
        lacks = folder / WEIGHTS[folder.name]
        raise CheckpointError(f"the checkpoint lacks {lacks} (or its .fp16, or its .index.json)")
    path = min(files, key=lambda p: (p.suffix in PICKLES, ("fp16" in p.name) != half, p.name))
    if path.suffix != ".json":
        return [path]
    listed = read_json(path).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise CheckpointError(f"{path} has no weight_map; fetch it again")
    shards = [folder / name for name in sorted(set(map(str, listed.values())))]
    for shard in shards:
        if shard.parent != folder or not shard.is_file():
            raise CheckpointError(f"{path} lists {shard}, which is no file beside it; fetch it")
    return shards


def _entries(path: Path) -> Entries:
    """The tensors in one safetensors file that inference needs, by the file's names. Raises
    CheckpointError for a pickle, with the command that converts it, and for a damaged file."""
    if path.suffix in PICKLES:
        wrong = f"{path} is a pickle, which can run code when it is opened"
        mend = f"python tools/convert_checkpoint.py {path} {path.with_suffix('.safetensors')}"
        raise CheckpointError(f"{wrong}; convert it first: {mend}")
    try:
        with safe_open(path, framework="pt") as file:
            slices = {k: file.get_slice(k) for k in file.keys() if not is_left_out(k)}
            return {k: Entry(path, k, s.get_shape(), s.get_dtype()) for k, s in slices.items()}
    except (SafetensorError, OSError) as error:
        wrong = f"{path} is not a whole safetensors file ({error}); fetch it again"
        raise CheckpointError(wrong) from error


def _check_single(path: Path, found: Entries) -> None:
    """Raises CheckpointError, naming what a single file holds, if it isn't a whole Stable Diffusion
    v1, or is of another scale of the latents, which is taken out of the tensors found."""

    def inputs(layer: str) -> int | None:  # the channels that it takes in, if there is such a layer
        entry = found.get(f"model.diffusion_model.input_blocks.{layer}.weight")
        return entry and next(iter(entry.shape[1:]), 0)

    def has(pattern: str) -> bool:
        return any(re.search(pattern, key) for key in found)

    first, context = inputs("0.0"), inputs("1.1.transformer_blocks.0.attn2.to_k")
    parts = {"model.diffusion": "UNet", "first_stage": "VAE", "cond_stage": "text encoder"}
    lacking = [part for key, part in parts.items() if not has(rf"^{key}_model\.")]
    no_unet = "UNet" in lacking
    kinds = {
        "Stable Diffusion XL": has(r"^conditioner\.embedders\."),
        "a model that predicts v, not noise": "v_pred" in found,
        "a LoRA (merge it into the weights of a model first)": no_unet and has("lora|hada_"),
        "a textual inversion's embedding (of a token)": no_unet and has(TOKEN),
        "one network alone (give the whole folder)": no_unet and has(NETWORK),
        BY_INPUTS.get(first, f"a model of {first} input channels"): first not in (None, 4),
        "Stable Diffusion 2": context == 1024 or has(r"^cond_stage_model\.model\."),
        f"not a whole checkpoint: it has no {' and no '.join(lacking)}": lacking,
    }
    for kind in (kind for kind, is_it in kinds.items() if is_it):
        raise CheckpointError(f"{path} is {kind}; {ONLY}")
    for name, stored in _read({key: found.pop(key) for key in ("scale_factor",) if key in found}):
        scale, usual = float(stored.float().sum()), SD_V1.latent_scale
        if not abs(scale / usual - 1) < 0.04:  # float8 rounds it
            wrong = f"{name} must be {usual} but is {scale:.5g}"
            raise CheckpointError(f"{path}: {wrong}; {ONLY}")


def _mismatches(wanted: dict[str, Tensor], found: Entries) -> str:
    """Names tensors that are not as the networks have them, a few of each kind; "" if all are."""
    both = [(name, found[name], list(t.shape)) for name, t in wanted.items() if name in found]
    kinds = {
        "missing": sorted(wanted.keys() - found.keys()),
        "not of its networks": sorted(found.keys() - wanted.keys()),
        "of another shape": [f"{n} is {e.shape}, not {s}" for n, e, s in both if e.shape != s],
        "not floating-point": [f"{n} is {e.dtype}" for n, e, _ in both if e.dtype not in FLOATING],
    }

    def some(tensors: list[str]) -> str:
        return ", ".join(tensors[:3]) + f" and {len(tensors) - 3} more" * (len(tensors) > 3)

    return "; ".join(f"{kind}: {some(tensors)}" for kind, tensors in kinds.items() if tensors)


def _read(tensors: Entries) -> Iterator[tuple[str, Tensor]]:
    """Yields each tensor by its name, as it is stored. A file is mapped anew every 16 tensors, so
    that pages already read are let go: loading takes little more memory than the weights."""
    path = None
    for i, (name, entry) in enumerate(tensors.items()):
        if i % 16 == 0 or entry.path != path:
            path, file = entry.path, safe_open(entry.path, framework="pt")
        yield name, file.get_tensor(entry.key).reshape(entry.shape)
