"""Trains the embedded model from scratch: first the VAE, then UNet and text encoder together.

It learns the world of `scenes.py` through ptinv's own networks, as Stable Diffusion was trained:
ε-prediction on the latents of captioned pictures, a tenth of the captions empty so that guidance
has something to push away from, and an average of the weights kept for sampling. What differs
serves inversion, which asks for ε a step off: the input's noise is not quite that to predict.

    python tools/train_tiny.py weights/tiny --work runs/tiny      # about 100 minutes on 2 cores

Stop it at any time: called again with the same --work folder, it goes on from its last checkpoint
(the arguments must be the same, but for the numbers of steps, the device and the output folder).
With `--start FOLDER` a run begins from a model that is there (its words keep what they have
learned), and goes on training it on new pictures.
"""

import argparse
import copy
import json
import math
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import scenes
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

import ptinv
from ptinv import ddim
from ptinv.errors import InputError
from ptinv.model import StableDiffusion
from ptinv.text import TextEncoder, Tokenizer
from ptinv.unet import UNet, UNetConfig
from ptinv.vae import VAE, VAEConfig

VAE_TABLE = VAEConfig(channels=(32, 64, 128), layers=1, groups=8)
UNET_TABLE = UNetConfig(
    channels=(64, 128, 192),
    attends=(False, True, True),
    layers=1,
    heads=4,
    context_channels=128,
    groups=16,
    trained_size=32,
)
START, END = "<|startoftext|>", "<|endoftext|>"
EMPTY = 0.1  # how many of the captions are left out
CHECKPOINT_EVERY = 100
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def text_table(vocab_size: int) -> dict:
    """The text encoder's configuration: CLIP's, two layers deep and 128 wide."""
    return dict(
        vocab_size=vocab_size,
        hidden_size=UNET_TABLE.context_channels,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=vocab_size - 2,
        eos_token_id=vocab_size - 1,
        pad_token_id=vocab_size - 1,
    )


def byte_pair_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merges that make each of `words` one token, in the order in which BPE applies them."""
    merges: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while pairs := [p for p in zip(pieces, pieces[1:], strict=False) if p in merges]:
            pieces = merge(pieces, min(pairs, key=merges.__getitem__))
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            merges[pair] = len(merges)
            pieces = merge(pieces, pair)
    return list(merges)


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """`pieces` with every occurrence of `pair` joined, from the left."""
    out = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def byte_letters() -> list[str]:
    """The 256 letters in which CLIP's BPE spells bytes: unprintable ones come after 255."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def write_tokenizer(folder: Path) -> list[str]:
    """A tokenizer in CLIP's format for the words of the scenes; returns its tokens in order."""
    merges = byte_pair_merges(scenes.WORDS)
    letters = byte_letters()
    pieces = letters + [letter + "</w>" for letter in letters] + [a + b for a, b in merges]
    tokens = [*dict.fromkeys(pieces), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=END)
    settings = dict(tokenizer_class="CLIPTokenizer", model_max_length=77, do_lower_case=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | special, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    return tokens


def to_float(pixels: Tensor) -> Tensor:
    return pixels.float() / 127.5 - 1


def lasting(args: argparse.Namespace) -> dict[str, str]:
    """The arguments that checkpoints depend on: not where they are made and kept, nor how long."""
    return {
        name: str(value)
        for name, value in vars(args).items()
        if name not in ("out", "work", "device") and not name.endswith("steps")
    }


def check_run(args: argparse.Namespace) -> None:
    """Raises InputError if a run can't begin, or go on from the work folder's checkpoints."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no CUDA device here; use --device cpu")
    for path in sorted(args.work.glob("*.pt")):
        try:
            was = torch.load(path, weights_only=True, mmap=True).get("arguments", {})
        except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise InputError(f"{path} is damaged; remove it, or give another --work") from error
        differ = [
            f"--{name.replace('_', '-')} {was.get(name, 'unknown')}, not {value}"
            for name, value in lasting(args).items()
            if was.get(name) != value
        ]
        if differ:
            raise InputError(
                f"{path} was made with {', '.join(differ)}; give the same, or another --work"
            )


def fit(
    name: str,
    networks: nn.Module,
    loss_at: Callable[[int], Tensor],
    steps: int,
    lr: float,
    average_decay: float,
    args: argparse.Namespace,
) -> nn.Module:
    """Minimises `loss_at(step)` with AdamW, a warm-up and a cosine; returns the averaged weights.

    Every step draws its batch from its own seed, so a run that was stopped goes on as if it had not
    been.
    """
    networks.to(args.device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(networks).requires_grad_(False)
    optimizer = torch.optim.AdamW(networks.parameters(), lr, betas=(0.9, 0.99), weight_decay=0.01)
    path, start = args.work / f"{name}.pt", 0
    if path.exists():
        state = torch.load(path, map_location=args.device, weights_only=True)
        networks.load_state_dict(state["networks"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    bar = tqdm(range(start, steps), desc=name, initial=start, total=steps)
    running = None
    for step in bar:
        warm_up, cosine = min(1, (step + 1) / 100), 0.5 + 0.5 * math.cos(math.pi * step / steps)
        optimizer.param_groups[0]["lr"] = lr * warm_up * max(cosine, 0.01)
        with torch.autocast(args.device, dtype=torch.bfloat16):
            loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
        optimizer.step()
        decay = min(average_decay, (step + 1) / (step + 10))
        for mean, weight in zip(average.parameters(), networks.parameters(), strict=True):
            mean.lerp_(weight.detach(), 1 - decay)
        value = loss.item()
        running = value if running is None else 0.98 * running + 0.02 * value
        bar.set_postfix(loss=f"{running:.4f}")
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == steps:
            state = dict(
                networks=networks.state_dict(),
                average=average.state_dict(),
                optimizer=optimizer.state_dict(),
                step=step + 1,
                arguments=lasting(args),
            )
            torch.save(state, path.with_suffix(".partial"))
            os.replace(path.with_suffix(".partial"), path)
    return average.eval()


def train_vae(start: StableDiffusion | None, args: argparse.Namespace) -> VAE:
    """L1 and L2 to the picture, and a slight pull of the latents towards a unit Gaussian."""
    vae = VAE(VAE_TABLE)
    if start:
        vae.load_state_dict(start.vae.state_dict())
    pixels = torch.from_numpy(scenes.many("train", args.seed, args.vae_pictures, scenes.caption)[0])

    def loss_at(step: int) -> Tensor:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        rows = torch.randint(len(pixels), (24,), generator=g)
        corners = torch.randint(65, (24, 2), generator=g).tolist()
        crops = [
            pixels[row, :, y : y + 64, x : x + 64]
            for row, (y, x) in zip(rows, corners, strict=True)
        ]
        x = to_float(torch.stack(crops)).to(args.device, memory_format=torch.channels_last)
        mean, logvar = vae.encode(x)
        noise = torch.randn(mean.shape, generator=g).to(args.device)
        y = vae.decode(mean + (0.5 * logvar).exp() * noise)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        return F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-4 * kl

    return fit("vae", vae, loss_at, args.vae_steps, args.vae_lr, 0.995, args)


@torch.no_grad()
def encoded(vae: VAE, args: argparse.Namespace) -> tuple[Tensor, list[str]]:
    """The latents (count, c, h, w) of the UNet's training pictures, unscaled, and captions."""
    pixels, captions = scenes.many(
        "train", args.seed, args.unet_pictures, scenes.caption, scenes.CROWDED
    )
    latents = []
    with torch.autocast(args.device, dtype=torch.bfloat16):
        for batch in tqdm(torch.from_numpy(pixels).split(50), desc="encoding"):
            latents.append(vae.encode(to_float(batch).to(args.device))[0].float().cpu())
    return torch.cat(latents), captions


def silence_pieces(text_encoder: TextEncoder, tokens: list[str]) -> list[bool]:
    """Zeroes the embeddings of all tokens but the scenes' words; returns which are those.

    Pieces of words are never trained; at zero they say nothing, and can be told from known words.
    """
    words = {START, END, *(word + "</w>" for word in scenes.WORDS)}
    known = [token in words for token in tokens]
    table = text_encoder.text_model.embeddings.token_embedding.weight.data
    table[~torch.tensor(known)] = 0
    return known


def beginning(tokens: list[str], start: StableDiffusion | None) -> tuple[UNet, TextEncoder]:
    """Networks at random, or a trained model's, whose words keep their embeddings."""
    unet, text_encoder = UNet(UNET_TABLE), TextEncoder(text_table(len(tokens)))
    unet.conv_out.weight.data.zero_()
    known = silence_pieces(text_encoder, tokens)
    if start:
        unet.load_state_dict(start.unet.state_dict())
        learned = start.text_encoder.text_model.embeddings.token_embedding.weight
        vocabulary = start.tokenizer.clip.get_vocab()
        table = text_encoder.text_model.embeddings.token_embedding.weight.data.clone()
        for i, token in enumerate(tokens):
            if known[i] and learned[vocabulary.get(token, 0)].any():
                table[i] = learned[vocabulary[token]]
        name = "text_model.embeddings.token_embedding.weight"
        text_encoder.load_state_dict(start.text_encoder.state_dict() | {name: table})
    return unet, text_encoder


def train_unet(
    latents: Tensor,
    captions: list[str],
    tokens: list[str],
    start: StableDiffusion | None,
    args: argparse.Namespace,
) -> tuple[UNet, TextEncoder]:
    """L_simple of DDPM: the squared error of the predicted noise, all timesteps alike.

    The noise that the network sees is perturbed a little (arXiv 2301.11706, γ = 0.1): it learns to
    say the same of latents that lie close together, and the errors of a walk grow less.
    """
    unet, text_encoder = beginning(tokens, start)
    ids = Tokenizer(args.out / "tokenizer").ids([*captions, ""])  # the last is ∅
    alphas_cumprod, batch = ddim.alphas_cumprod().to(args.device), args.batch

    def loss_at(step: int) -> Tensor:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        rows = torch.randint(len(captions), (batch,), generator=g)
        z0 = latents[rows].to(args.device)
        rows[torch.rand(batch, generator=g) < EMPTY] = len(captions)
        # one timestep from each of `batch` equal parts: less noise in the loss than from all of it
        spread = (torch.arange(batch) + torch.rand(batch, generator=g)) / batch
        t = (spread * ddim.TRAIN_STEPS).long().to(args.device)
        noise = torch.randn(z0.shape, generator=g).to(args.device)
        seen = noise + 0.1 * torch.randn(z0.shape, generator=g).to(args.device)
        z = ddim.add_noise(z0, seen, alphas_cumprod[t])
        return F.mse_loss(unet(z, t, text_encoder(ids[rows].to(args.device))).float(), noise)

    both = nn.ModuleList([unet, text_encoder])
    unet, text_encoder = fit("unet", both, loss_at, args.unet_steps, args.unet_lr, 0.999, args)
    return unet, text_encoder


def write_folder(out: Path, vae: VAE, unet: UNet, text_encoder: TextEncoder, scale: float) -> None:
    """The model in diffusers' folder layout, weights in float16."""

    def write(folder: str, config: dict, network: nn.Module | None = None, file: str = "") -> None:
        (out / folder).mkdir(parents=True, exist_ok=True)
        name = "scheduler_config.json" if network is None else "config.json"
        (out / folder / name).write_text(json.dumps(config, indent=2) + "\n")
        if network is not None:
            state = {k: v.half().cpu().contiguous() for k, v in network.state_dict().items()}
            save_file(state, out / folder / file, metadata={"format": "pt"})

    v, u = vae.config, unet.config
    vae_config = dict(
        _class_name="AutoencoderKL",
        act_fn="silu",
        block_out_channels=v.channels,
        down_block_types=["DownEncoderBlock2D"] * len(v.channels),
        up_block_types=["UpDecoderBlock2D"] * len(v.channels),
        in_channels=3,
        out_channels=3,
        latent_channels=v.latent_channels,
        layers_per_block=v.layers,
        norm_num_groups=v.groups,
        sample_size=128,
        scaling_factor=scale,
    )
    unet_config = dict(
        _class_name="UNet2DConditionModel",
        act_fn="silu",
        attention_head_dim=u.heads,  # diffusers' name for the number of heads
        block_out_channels=u.channels,
        cross_attention_dim=u.context_channels,
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in u.attends],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in u.attends[::-1]],
        in_channels=u.latent_channels,
        out_channels=u.latent_channels,
        layers_per_block=u.layers,
        norm_num_groups=u.groups,
        sample_size=u.trained_size,
    )
    scheduler_config = dict(
        _class_name="DDIMScheduler",
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=ddim.TRAIN_STEPS,
        prediction_type="epsilon",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    text_config = text_encoder.config | dict(
        architectures=["CLIPTextModel"], model_type="clip_text_model"
    )
    write("vae", vae_config, vae, "diffusion_pytorch_model.safetensors")
    write("unet", unet_config, unet, "diffusion_pytorch_model.safetensors")
    write("text_encoder", text_config, text_encoder, "model.safetensors")
    write("scheduler", scheduler_config)
    index = dict(
        _class_name="StableDiffusionPipeline",
        vae=["diffusers", "AutoencoderKL"],
        unet=["diffusers", "UNet2DConditionModel"],
        text_encoder=["transformers", "CLIPTextModel"],
        tokenizer=["transformers", "CLIPTokenizer"],
        scheduler=["diffusers", "DDIMScheduler"],
        safety_checker=[None, None],
        feature_extractor=[None, None],
        requires_safety_checker=False,
    )
    (out / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="for checkpoints")
    parser.add_argument("--start", type=Path, help="a trained model's folder, to go on from")
    parser.add_argument("--vae-steps", type=int, default=3600)
    parser.add_argument("--unet-steps", type=int, default=6400)
    parser.add_argument("--vae-lr", type=float, default=1e-3)
    parser.add_argument("--unet-lr", type=float, default=6e-4)
    parser.add_argument("--vae-pictures", type=int, default=6000)
    parser.add_argument("--unet-pictures", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=16, help="of the UNet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default=DEVICE)
    args = parser.parse_args(argv)
    try:
        check_run(args)
        start = ptinv.load(args.start, "cpu", "float32") if args.start else None
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")

    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    tokens = write_tokenizer(args.out / "tokenizer")
    vae = train_vae(start, args)
    latents, captions = encoded(vae, args)
    scale = 1 / latents.std().item()
    unet, text_encoder = train_unet(latents * scale, captions, tokens, start, args)
    write_folder(args.out, vae, unet, text_encoder, scale)


if __name__ == "__main__":
    sys.exit(main())
