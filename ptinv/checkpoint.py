"""Opens a Stable Diffusion v1 checkpoint: what it is, and where its tensors are.

Two layouts hold the same tensors:

    a folder, as diffusers writes it    unet/, vae/, text_encoder/, tokenizer/, scheduler/
    one `.safetensors` file             the original CompVis names, without any configuration

The networks carry the folder's tensor names, so that the folder needs no map but two old spellings;
the single file goes through `original_names.py`. No tensor is read here (see `tensors.py`).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from .folder_configs import ONLY, SD_V1_LATENT_SCALE, read_configs
from .original_names import NETWORKS, is_left_out, rename, unet_modules, vae_modules
from .tensors import PICKLES, CheckpointError, Entries, entries, some
from .text import SD_V1_TEXT
from .unet import UNetConfig
from .vae import VAEConfig

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
TOKENIZER_FILES = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds; no tensor is read yet."""

    unet: UNetConfig
    vae: VAEConfig
    text: dict
    latent_scale: float
    tokenizer: Path
    tensors: dict[str, Entries]  # by network: unet, vae, text_encoder

    @property
    def files(self) -> list[Path]:
        """What the networks and the tokenizer are read from, always in the same order."""
        first = [next(iter(self.tensors[name].values())) for name in NETWORKS.values()]
        weights = dict.fromkeys(entry.path for entry in first)
        return [*weights, *(self.tokenizer / name for name in TOKENIZER_FILES)]


def open_checkpoint(
    path: str | Path, tokenizer: str | Path | None = None, half: bool = False
) -> Checkpoint:
    """Finds out what a folder or file holds.

    tokenizer: the folder with `vocab.json` and `merges.txt`, if it isn't in its usual place.
    half: prefer the files named fp16 where a folder has both.
    Raises CheckpointError for anything that is not Stable Diffusion v1 in safetensors.
    """
    path = Path(path)
    if path.is_dir():
        checkpoint = _open_folder(path, half)
    elif path.is_file():
        checkpoint = _open_file(path)
    else:
        raise CheckpointError(f"there is no checkpoint at {path}")
    return _with_tokenizer(checkpoint, Path(tokenizer) if tokenizer else None)


def _with_tokenizer(checkpoint: Checkpoint, given: Path | None) -> Checkpoint:
    usual = checkpoint.tokenizer
    places = [given] if given else [usual, usual.parent]
    for place in places:
        if all((place / name).is_file() for name in TOKENIZER_FILES):
            return replace(checkpoint, tokenizer=place)
    looked, names = " or ".join(map(str, places)), " and ".join(TOKENIZER_FILES)
    raise CheckpointError(f"no tokenizer ({names}) in {looked}; give its folder as the tokenizer")


def _open_folder(folder: Path, half: bool) -> Checkpoint:
    return Checkpoint(
        **read_configs(folder)._asdict(),
        tokenizer=folder / "tokenizer",
        tensors={
            "unet": entries(_weights(folder / "unet", "diffusion_pytorch_model", half)),
            "vae": _respelt(entries(_weights(folder / "vae", "diffusion_pytorch_model", half))),
            "text_encoder": _respelt(entries(_weights(folder / "text_encoder", "model", half))),
        },
    )


def _weights(folder: Path, stem: str, half: bool) -> Path:
    names = [f"{stem}.safetensors", f"{stem}.fp16.safetensors"]
    for name in reversed(names) if half else names:
        if (folder / name).is_file():
            return folder / name
    for suffix in PICKLES:
        for pickle in folder.glob(f"*{suffix}"):
            entries(pickle)  # refuses it, with the command that converts it
    raise CheckpointError(f"the checkpoint lacks {folder / names[0]} (or {names[1]})")


def _respelt(found: Entries) -> Entries:
    """Two old spellings in diffusers' own files: the VAE's attention, and CLIP's position ids."""
    spelt = {}
    for name, entry in found.items():
        ours = ".".join(OLD_ATTENTION.get(part, part) for part in name.split("."))
        if ours in spelt:
            raise CheckpointError(f"{entry.path} holds {ours} twice, once in an old spelling")
        if not name.endswith("position_ids"):
            spelt[ours] = entry
    return spelt


def _open_file(path: Path) -> Checkpoint:
    found = entries(path)
    _refuse_other_files(path, found)
    unet, vae = UNetConfig(), VAEConfig()
    modules = {"unet": unet_modules(unet), "vae": vae_modules(vae)}
    tensors: dict[str, Entries] = {network: {} for network in NETWORKS.values()}
    foreign = []
    for key, entry in found.items():
        if is_left_out(key):
            continue
        match rename(key, modules):
            case network, name:
                tensors[network][name] = entry
            case None:
                foreign.append(key)
    if foreign:
        raise CheckpointError(f"{path} holds unknown tensors: {some(foreign)}")
    beside = path.parent / "tokenizer"
    return Checkpoint(unet, vae, SD_V1_TEXT, SD_V1_LATENT_SCALE, beside, tensors)


def _refuse_other_files(path: Path, found: Entries) -> None:
    inputs = _width(found, "input_blocks.0.0.weight")
    context = _width(found, "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight")
    kind = None
    if any(key.startswith("conditioner.embedders.") for key in found):
        kind = "Stable Diffusion XL"
    elif "v_pred" in found:
        kind = "a model that predicts v, not noise"
    elif inputs is None:
        kind = "not a whole checkpoint in the original layout: it has no UNet"
        if any(key.startswith(("down_blocks.", "encoder.", "text_model.")) for key in found):
            kind += " under the original names (to open diffusers' layout, give the whole folder)"
    elif inputs == 9:
        kind = "an inpainting model (its UNet has 9 input channels)"
    elif inputs != 4:
        kind = f"a model whose UNet has {inputs} input channels"
    elif context == 1024 or any(key.startswith("cond_stage_model.model.") for key in found):
        kind = "Stable Diffusion 2"
    if kind:
        raise CheckpointError(f"{path} is {kind}; {ONLY}")


def _width(found: Entries, name: str) -> int | None:
    """How many channels one of the UNet's layers takes in; None if there is no such layer."""
    entry = found.get("model.diffusion_model." + name)
    return entry and next(iter(entry.shape[1:]), 0)
